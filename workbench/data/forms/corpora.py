"""Files of documents beside questions: the corpus of AutoRAG, of FlashRAG, and whatever has an id and a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.data.dataset import Row
from workbench.data.documents.proposed import NAMES
from workbench.data.forms.rows import rows
from workbench.data.readers.json_lines import Read, distinct, shown
from workbench.data.readers.text import composed
from workbench.errors import InputError


class Chunk(NamedTuple):
    """A part of a file that a corpus was cut from: its characters `start` to `end`, the last included as AutoRAG counts."""

    path: str
    start: int
    end: int


class Documents(NamedTuple):
    """The documents of a file, and where those that are parts of files were cut from."""

    rows: list[Row]
    chunks: dict[str, Chunk]


def documents(path: Path) -> Documents:
    """The documents of a corpus file: JSON lines, JSON, CSV, TSV, Parquet or Arrow.

    Raises:
        InputError: no column is the id or the text, two may be, an id is given twice, or a value has another type.
    """
    read = rows(path)
    names = {key: _column(key, names, read, path) for key, names in NAMES.items()}
    found, chunks = [], {}
    for where, value in distinct((where, _text(row, names["id"], where), row) for where, row in read):
        doc_id = _text(value, names["id"], where)
        title = _text(value, names["title"], where) if value.get(names["title"]) is not None else ""
        found.append({"id": doc_id, "title": composed(title), "text": composed(_text(value, names["text"], where))})
        if chunk := _chunk(value):
            chunks[doc_id] = chunk
    return Documents(found, chunks)


def _column(key: str, names: Sequence[str], read: list[Read], path: Path) -> str:
    for where, row in read:
        if not isinstance(row, dict):
            raise InputError(f"{where}: received {shown(row)}; allowed: an object with an id and a text")
    there = {str(name) for _, row in read for name in row}
    found = [name for name in names if name in there]
    if len(found) > 1:
        raise InputError(f"{path}: the columns {' and '.join(map(repr, found))} may both be the {key} of a document; keep one")
    if not found and key != "title":
        raise InputError(
            f"{path}: no column is the {key} of a document; found: {', '.join(sorted(there))}; known: {', '.join(names)}"
        )
    return found[0] if found else key


def _text(row: dict[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InputError(f"{where}: {column}: received {shown(value)}; allowed: a text")
    return value


def _chunk(row: dict[str, Any]) -> Chunk | None:
    """Where AutoRAG says that a chunk was cut; None where it does not."""
    inside = row.get("metadata") if isinstance(row.get("metadata"), dict) else {}
    path = row.get("path") or (inside or {}).get("path")
    given = row.get("start_end_idx") or (inside or {}).get("start_end_idx")
    if isinstance(path, str) and isinstance(given, list) and len(given) == 2 and all(isinstance(n, int) for n in given):
        return Chunk(path, *given)
    return None
