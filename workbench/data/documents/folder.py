"""A folder of documents in files of many formats, with files of questions -> a dataset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
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
from workbench.data.evidence import Missing, read_questions, several, with_evidence
from workbench.data.finding import Page
from workbench.data.prepared import prepared
from workbench.data.readers.text import counted, few
from workbench.errors import InputError

VERSION = 2  # raised when the same documents and questions give another dataset


class Named(NamedTuple):
    """A document and its id."""

    id: str
    read: Read


class UnreadableError(InputError):
    """No file of a folder can be read.

    Attributes:
        unread: rows of `UNREAD`.
    """

    def __init__(self, said: str, unread: list[Row]) -> None:
        super().__init__(said)
        self.unread = unread


@dataclass(frozen=True)
class Folder:
    """What was read of a folder. Its documents are taken out of what is kept when they are first asked for.

    Attributes:
        name: of the folder.
        found: file -> what became of it.
        unread: rows of `UNREAD`.
        left: what was left out, one sentence each.
    """

    name: str
    found: Mapping[str, Outcome]
    unread: list[Row]
    left: tuple[str, ...]

    @property
    def key(self) -> list[Any]:
        """What decides the documents: contents and parsers of the files that were read, and what was not."""
        return [{name: one.key for name, one in self.found.items() if not one.unread}, self.unread, self.left]

    @property
    def files(self) -> int:
        """How many there are, those included that are no file and cannot be looked into."""
        return sum(not one.unread for one in self.found.values()) + len(self.unread)

    @cached_property
    def read(self) -> list[Named]:
        """The documents."""
        return [one for name, outcome in self.found.items() if not outcome.unread for one in _named(name, outcome)]

    @property
    def documents(self) -> list[Row]:
        """Rows of `workbench.data.dataset.DOCUMENTS`."""
        return [_row(one) for one in self.read]

    @property
    def notes(self) -> list[str]:
        """What was left out or not read, what parsers told, and which documents are near copies."""
        return [*self.left, *_said_of(self.unread, self.files), *_told(self.read), *_copies(self.read)]

    @property
    def pages(self) -> Mapping[str, list[Page]]:
        """Document id -> its pages; none where it has none."""
        return _Pages(self.read)

    @property
    def headed(self) -> set[str]:
        """Ids of the documents that have headings."""
        return {one.id for one in self.read if any(element.kind == "heading" for element in one.read.document.structure)}

    @property
    def reasons(self) -> dict[str, str]:
        """File -> why it is not among the documents."""
        return {row["file"]: f"{row['reason']}: {row['said']}" for row in self.unread}

    def beside(self, dataset: Dataset) -> Dataset:
        """A dataset on these documents with their structure and with what was not read."""
        return replace(
            dataset,
            structure=_structure(sorted(self.read)),
            unread=pa.Table.from_pylist(self.unread, UNREAD),
        )


def read_folder(
    folder: Path,
    questions: Sequence[Path] = (),
    parsers: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
) -> Folder:
    """Reads the files of a folder; each one is a document, or several, its id the path from the folder.

    The ending of a file's name says which parser reads it; hidden files and what lies in hidden folders are not read. Each file
    that cannot be read is listed with its reason, and the rest is read. Only files that are new, changed, or read by another
    parser are opened by one.

    Args:
        folder: of the files.
        questions: files that may lie in it and are no documents.
        parsers: ending -> parser, beside the built-in ones; see `workbench.data.documents.kinds.choices`.
        limits: what each file may take.

    Raises:
        UnreadableError: no file in it can be read.
        InputError: no such folder, or a package is not installed.
    """
    folder = Path(folder)
    chosen, there = choices(parsers or {}), listed(folder)
    beside = {path.resolve() for path in questions}
    files = {name: path for name, path in there.files.items() if not _is_one_of(path, beside)}
    found = outcomes(files, chosen, limits or Limits())
    unread = _unread(found, there)
    if all(one.unread for one in found.values()):
        raise _nothing(folder, unread, there.notes)
    return Folder(folder.name, found, unread, there.notes)


def text_folder(
    folder: Path,
    questions: Path | Sequence[Path],
    columns: Sequence[str] = (),
    parsers: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    missing: Missing = "refuse",
) -> Dataset:
    """A folder of files, read by `read_folder`, with a questions file: see `workbench.data.evidence.read_questions`.

    Args:
        folder: of the files.
        questions: the file of questions, or several.
        columns: further columns that the questions may have, and which are kept.
        parsers: ending -> parser, beside the built-in ones.
        limits: what each file may take.
        missing: ``refuse`` where much of the evidence stands in no document, or ``drop`` these questions.

    Raises:
        InputError: as `read_folder` raises, a column that no question has, or too much of the evidence is missing.
    """
    files = several(questions)
    rows = read_questions(files, columns)
    there = read_folder(folder, files, parsers, limits)
    contents, unread, left = there.key
    key = digest(["files", VERSION, contents, unread, rows, left, missing])

    def read() -> Dataset:
        told = there.pages, there.reasons
        return there.beside(with_evidence(there.name, there.documents, rows, there.notes, columns, missing, *told))

    return prepared(key, read)


def _is_one_of(path: Path, others: Set[Path]) -> bool:
    """Whether a path leads to one of some files, whose links are followed; a path that can be none of them is left as it is."""
    return (path.is_symlink() or any(path.name == other.name for other in others)) and path.resolve() in others


def _unread(found: Mapping[str, Outcome], there: Listed) -> list[Row]:
    told = {name: one.unread for name, one in found.items() if one.unread}
    told |= {name: UnreadError("no file", "it is neither a file nor a folder") for name in there.strange}
    return [{"file": shown(name), "reason": told[name].reason, "said": told[name].said} for name in sorted(told)]


def _nothing(folder: Path, unread: list[Row], notes: Iterable[str]) -> UnreadableError:
    said = "; ".join(f"{row['file']!r}: {row['reason']}, {row['said']}" for row in unread[:5])
    more = f"; and {len(unread) - 5} more" if len(unread) > 5 else ""
    left = "".join(f"; {note}" for note in notes)
    return UnreadableError(f"document folder {folder}: no file in it can be read: {said or 'there is none'}{more}{left}", unread)


def _named(name: str, outcome: Outcome) -> list[Named]:
    return [Named(f"{name}#{one.document.part}" if one.document.part else name, one) for one in documents(outcome)]


def _row(one: Named) -> Row:
    document = one.read.document
    title = document.title or document.part or Path(one.id).stem
    return {"id": one.id, "title": title, "text": document.text}


class _Pages(Mapping[str, list[Page]]):
    """Document id -> its pages, made when they are asked for: few questions name a page."""

    def __init__(self, read: Sequence[Named]) -> None:
        self._documents = {one.id: one.read.document for one in read}

    def __getitem__(self, doc_id: str) -> list[Page]:
        return [Page(e.start, e.end, e.label) for e in self._documents[doc_id].structure if e.kind == "page"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)


def _structure(read: Sequence[Named]) -> pa.Table:
    rows = [(one.id, *element) for one in read for element in one.read.document.structure]
    return pa.table(list(zip(*rows, strict=True)), STRUCTURE) if rows else STRUCTURE.empty_table()


def _said_of(unread: Sequence[Row], files: int) -> list[str]:
    """A note that counts what was not read by its reason; `Dataset.unread` has all."""
    by: dict[str, list[str]] = defaultdict(list)
    for row in unread:
        by[row["reason"]].append(row["file"])
    reasons = "; ".join(f"{len(names)} {reason} ({few(names)})" for reason, names in sorted(by.items()))
    verb = "is" if len(unread) == 1 else "are"
    return [f"{len(unread)} of {counted(files, 'file')} {verb} not read: {reasons}"] if unread else []


def _told(read: Sequence[Named]) -> list[str]:
    """What parsers told of documents, the same of several in one note."""
    by: dict[str, list[str]] = defaultdict(list)
    for one in read:
        for note in one.read.document.notes:
            by[note].append(one.id)
    return [f"{counted(len(names), 'document')}: {note}: {few(names)}" for note, names in sorted(by.items())]


def _copies(read: Sequence[Named]) -> list[str]:
    groups = duplicates.groups({one.id: one.read.sketch for one in read})
    named = "; ".join(few(group) for group in groups[:5])
    said = "documents are near copies of each other, and all are kept, so what stands in one stands in several passages"
    return [f"{sum(map(len, groups))} {said}: {named}{'; ...' if len(groups) > 5 else ''}"] if groups else []
