"""A folder of documents in files of many formats, with a file of questions -> a dataset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from workbench.component import digest
from workbench.data.dataset import STRUCTURE, UNREAD, Dataset, Row
from workbench.data.documents import duplicates
from workbench.data.documents.kept import Read
from workbench.data.documents.kinds import choices
from workbench.data.documents.limits import Limits
from workbench.data.documents.listing import Listed, listed, shown
from workbench.data.documents.parser import UnreadError
from workbench.data.documents.reading import Outcome, documents, outcomes
from workbench.data.evidence import Missing, read_questions, with_evidence
from workbench.data.finding import Page
from workbench.data.prepared import prepared
from workbench.data.readers.text import few
from workbench.errors import InputError

VERSION = 1  # raised when the same documents and questions give another dataset


class Named(NamedTuple):
    """A document and its id."""

    id: str
    read: Read


def text_folder(
    folder: Path,
    questions: Path,
    columns: Sequence[str] = (),
    parsers: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    missing: Missing = "refuse",
) -> Dataset:
    """A folder of files (each one document, its id the path from the folder) with a questions file.

    The ending of a file's name says which parser reads it; hidden files and what lies in hidden folders are not read. Each file
    that cannot be read is in `Dataset.unread` with its reason, and the rest is read. Only files that are new, changed, or read by
    another parser are opened by one. The questions have the form of `workbench.data.evidence.read_questions`.

    Args:
        folder: of the files.
        questions: the file of questions.
        columns: further columns that the questions may have, and which are kept.
        parsers: ending -> parser, beside the built-in ones; see `workbench.data.documents.kinds.choices`.
        limits: what each file may take.
        missing: ``refuse`` where much of the evidence stands in no document, or ``drop`` these questions.

    Raises:
        InputError: no such folder, no file in it that can be read, a package is not installed, a column that no question has, or
            too much of the evidence is missing.
    """
    folder, questions, limits = Path(folder), Path(questions), limits or Limits()
    chosen, there = choices(parsers or {}), listed(folder)
    rows = read_questions(questions, columns)
    files = {name: path for name, path in there.files.items() if path.resolve() != questions.resolve()}
    found = outcomes(files, chosen, limits)
    unread = _unread(found, there)
    if all(one.unread for one in found.values()):
        raise _nothing(folder, unread, there.notes)
    key = digest(
        ["files", VERSION, {n: one.key for n, one in found.items() if not one.unread}, unread, rows, there.notes, missing]
    )

    def read() -> Dataset:
        read = [one for name, outcome in found.items() if not outcome.unread for one in _named(name, outcome)]
        notes = [*there.notes, *_said_of(unread, len(found) + len(there.strange)), *_told(read), *_copies(read)]
        texts = [_row(one) for one in read]
        why = {row["file"]: f"{row['reason']}: {row['said']}" for row in unread}
        dataset = with_evidence(folder.name, texts, rows, notes, columns, missing, _pages(read), why)
        return replace(
            dataset,
            structure=pa.Table.from_pylist([row for one in sorted(read) for row in _structure(one)], STRUCTURE),
            unread=pa.Table.from_pylist(unread, UNREAD),
        )

    return prepared(key, read)


def _unread(found: Mapping[str, Outcome], there: Listed) -> list[Row]:
    told = {name: one.unread for name, one in found.items() if one.unread}
    told |= {name: UnreadError("no file", "it is neither a file nor a folder") for name in there.strange}
    return [{"file": shown(name), "reason": told[name].reason, "said": told[name].said} for name in sorted(told)]


def _nothing(folder: Path, unread: Sequence[Row], notes: Iterable[str]) -> InputError:
    said = "; ".join(f"{row['file']!r}: {row['reason']}, {row['said']}" for row in unread[:5])
    more = f"; and {len(unread) - 5} more" if len(unread) > 5 else ""
    left = "".join(f"; {note}" for note in notes)
    return InputError(f"document folder {folder}: no file in it can be read: {said or 'there is none'}{more}{left}")


def _named(name: str, outcome: Outcome) -> list[Named]:
    return [Named(f"{name}#{one.document.part}" if one.document.part else name, one) for one in documents(outcome)]


def _row(one: Named) -> Row:
    document = one.read.document
    title = document.title or document.part or Path(one.id).stem
    return {"id": one.id, "title": title, "text": document.text}


def _pages(read: Sequence[Named]) -> dict[str, list[Page]]:
    return {
        one.id: [Page(e.start, e.end, e.label) for e in one.read.document.structure if e.kind == "page"]
        for one in read
        if any(e.kind == "page" for e in one.read.document.structure)
    }


def _structure(one: Named) -> list[Row]:
    return [{"doc_id": one.id, **element._asdict()} for element in one.read.document.structure]


def _said_of(unread: Sequence[Row], files: int) -> list[str]:
    """A note that counts what was not read by its reason; `Dataset.unread` has all."""
    by: dict[str, list[str]] = defaultdict(list)
    for row in unread:
        by[row["reason"]].append(row["file"])
    counted = "; ".join(f"{len(names)} {reason} ({few(names)})" for reason, names in sorted(by.items()))
    return [f"{len(unread)} of {files} files are not read: {counted}"] if unread else []


def _told(read: Sequence[Named]) -> list[str]:
    """What parsers told of documents, the same of several in one note."""
    by: dict[str, list[str]] = defaultdict(list)
    for one in read:
        for note in one.read.document.notes:
            by[note].append(one.id)
    return [f"{len(names)} documents: {note}: {few(names)}" for note, names in sorted(by.items())]


def _copies(read: Sequence[Named]) -> list[str]:
    groups = duplicates.groups({one.id: one.read.sketch for one in read})
    named = "; ".join(few(group) for group in groups[:5])
    said = "documents are near copies of each other, and all are kept, so what stands in one stands in several passages"
    return [f"{sum(map(len, groups))} {said}: {named}{'; ...' if len(groups) > 5 else ''}"] if groups else []
