"""Files that are read only where the experiment's file names their parser: which one reads them, told by their columns."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.data.documents.encodings import decoded
from workbench.data.documents.kinds import ASKED_FOR, NONE, choices
from workbench.data.documents.limits import Limits
from workbench.data.documents.listing import listed
from workbench.data.documents.parser import UnreadError
from workbench.data.documents.reading import outcomes
from workbench.data.documents.rows import separator

# what columns of a table of documents are called, the likelier first
NAMES = {
    "id": ("doc_id", "id", "_id", "docid", "docno", "document_id"),
    "text": ("contents", "content", "text", "body", "passage", "document"),
    "title": ("title",),
}
HEAD = 1 << 16  # bytes that columns are told by
SHOWN = 8  # columns that a sentence names


class Proposal(NamedTuple):
    """A parser for the files of an ending.

    Attributes:
        ending: of their names, without its dot.
        parser: as `dataset.parsers` names it.
        files: how many there are.
        said: what it makes of them, and what else could be written.
    """

    ending: str
    parser: str | dict[str, Any]
    files: int
    said: str

    def __str__(self) -> str:
        return f"Files in .{self.ending} ({self.files}): {self.said}."


class Head(NamedTuple):
    """What the beginning of a table says: the names of its columns, and what parts them (None but in CSV)."""

    columns: tuple[str, ...]
    separator: str | None = None


def proposals(
    folder: Path, beside: Sequence[Path] = (), named: Mapping[str, Any] | None = None, limits: Limits | None = None
) -> list[Proposal]:
    """A parser for each ending in a folder of which no file is read unless its parser is named.

    A table is read row by row where all tables of its ending have a column that is known to be the text. Other tables are read as
    the text that they are, Parquet files by all their columns of texts. Of what fits, the one is taken that reads the most files.

    Args:
        folder: of documents.
        beside: files of questions, which are no documents.
        named: endings whose parsers are named already.
        limits: what each file may take.

    Raises:
        InputError: there is no such folder, or a package is not installed.
    """
    questions = {path.resolve() for path in beside}
    told = {ending.lower().lstrip(".") for ending in named or {}}
    by: dict[str, dict[str, Path]] = defaultdict(dict)
    for name, path in listed(folder).files.items():
        ending = path.suffix.lower().lstrip(".")
        if ending in ASKED_FOR and ending not in told and path.resolve() not in questions:
            by[ending][name] = path
    return [_proposed(ending, files, limits or Limits()) for ending, files in sorted(by.items())]


def _proposed(ending: str, files: Mapping[str, Path], limits: Limits) -> Proposal:
    candidates = list(_candidates(ending, files))
    unread = [_unread(ending, candidate, files, limits) for candidate, _ in candidates]
    parser, said = candidates[unread.index(min(unread))]
    return Proposal(ending, parser, len(files), said)


def _unread(ending: str, parser: str | dict[str, Any], files: Mapping[str, Path], limits: Limits) -> int:
    """How many files a parser does not read."""
    found = outcomes(files, choices({ending: parser}), limits)
    return sum(one.unread is not None for one in found.values())


def _candidates(ending: str, files: Mapping[str, Path]) -> Iterator[tuple[str | dict[str, Any], str]]:
    """Parsers that may fit, the likeliest first, each with a sentence on what it does."""
    kind = ASKED_FOR[ending]
    if kind == "code":
        yield kind, f"source code is a document, too; `{ending}: {NONE}` leaves it out"
        return
    heads = [_head(path, kind) for path in files.values()]
    shared = [name for name in heads[0].columns if all(name in head.columns for head in heads)]
    parted = heads[0].separator
    table = {"kind": kind} | ({"separator": parted} if parted not in (None, ",", "\t") else {})
    names = {role: next((name for name in known if name in shared), None) for role, known in NAMES.items()}
    if names["text"]:
        for roles in (("text", "id", "title"), ("text", "title"), ("text", "id"), ("text",)):
            given = {role: name for role in roles if (name := names[role])}
            yield table | given, f"each row is a document, its text the column {names['text']!r}; there are {_listed(shared)}"
    if kind == "parquet":
        if texts := _texts(files, shared):
            yield {"kind": kind, "text": texts}, f"each row is a document, of all columns of texts; there are {_listed(shared)}"
        yield NONE, "left out, since no column of texts is in all files"
        return
    row = f"`{{kind: {kind}, text: COLUMN}}` makes each row one{f'; there are {_listed(shared)}' if shared else ''}"
    yield "text", f"each file is one document; {row}"


def _listed(columns: Sequence[str]) -> str:
    return f"{', '.join(columns[:SHOWN])}{', ...' if len(columns) > SHOWN else ''}"


def _head(path: Path, kind: str) -> Head:
    """The columns of a table; none where its beginning does not tell them."""
    try:
        if kind == "parquet":
            return Head(tuple(_schema(path)))
        with path.open("rb") as file:
            raw = file.read(HEAD)
        whole, _, _ = raw.rpartition(b"\n") if len(raw) == HEAD else (raw, b"", b"")
        lines = [line for line in decoded(whole).text.split("\n") if line.strip()]
        return _of_json(lines) if kind == "jsonl" else _of_csv(lines, kind)
    except (OSError, ValueError, UnreadError, csv.Error):
        return Head(())


def _of_json(lines: Sequence[str]) -> Head:
    """The keys that all objects have."""
    rows = [json.loads(line) for line in lines]
    if not rows or not all(isinstance(row, dict) for row in rows):
        return Head(())
    return Head(tuple(name for name in rows[0] if all(name in row for row in rows)))


def _of_csv(lines: Sequence[str], kind: str) -> Head:
    first = lines[1] if lines[0].startswith("sep=") and len(lines) > 1 else lines[0]
    parted = "\t" if kind == "tsv" else separator(first) or ","
    columns = next(csv.reader(lines[lines.index(first) :], delimiter=parted, strict=True), [])
    return Head(tuple(columns), parted)


def _schema(path: Path) -> dict[str, Any]:
    """Name -> type of the columns of a Parquet file."""
    from pyarrow import parquet

    schema = parquet.read_schema(path)
    return dict(zip(schema.names, schema.types, strict=True))


def _texts(files: Mapping[str, Path], shared: Sequence[str]) -> list[str]:
    """Columns that hold texts in all files."""
    from pyarrow import types

    schemas = [_schema(path) for path in files.values()] if shared else []
    return [name for name in shared if all(types.is_string(one[name]) or types.is_large_string(one[name]) for one in schemas)]
