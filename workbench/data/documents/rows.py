"""Tables whose rows are documents: CSV, TSV, JSON lines and Parquet, with the columns that the settings name."""

from __future__ import annotations

import csv
import io
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from workbench.data.documents.encodings import Decoded, decoded
from workbench.data.documents.forms import PARQUET, TEXTS
from workbench.data.documents.parser import Document, Parser, Unpacking, UnreadError
from workbench.data.readers.json_lines import parsed
from workbench.data.readers.text import counted
from workbench.errors import InputError

LONGEST_FIELD = 1 << 30  # characters
SEPARATORS = ",;\t|"  # of the cells of a row


class Rows(Parser):
    """Base of tables: each row with a text is a document.

    Attributes:
        text: the column with the text, or several, whose texts are parted by empty lines.
        id: the column that tells the rows apart; default: their numbers, counted from 1.
        title: the column with the titles; default: there are none.
    """

    version: ClassVar[int] = 2
    text: str | tuple[str, ...] = Field(min_length=1)
    id: str | None = None
    title: str | None = None

    @abstractmethod
    def rows(self, path: Path, notes: list[str]) -> Iterator[Mapping[str, Any]]:
        """The rows of a file; what is worth telling is added to the notes."""

    def parse(self, path: Path, limits: Unpacking) -> Iterable[Document]:
        texts = (self.text,) if isinstance(self.text, str) else self.text
        notes: list[str] = []
        found, without = [], 0
        for number, row in enumerate(self.rows(path, notes), 1):
            parts = [_cell(row, name, number) for name in texts]
            text = "\n\n".join(part for part in parts if part.strip())
            name = str(number) if self.id is None else _cell(row, self.id, number)
            if not name:
                raise UnreadError("damaged", f"row {number} has nothing in the column {self.id!r}")
            without += not text
            if text:
                found.append(Document(text, "" if self.title is None else _cell(row, self.title, number), part=name))
        if not found:
            raise UnreadError("empty", f"no row has a text in {', '.join(map(repr, texts))}")
        notes += [f"{counted(without, 'row', 'has', 'have')} no text"] if without else []
        return [found[0]._replace(notes=tuple(notes)), *found[1:]]


def _cell(row: Mapping[str, Any], name: str, number: int) -> str:
    if name not in row:
        raise UnreadError("no such column", f"row {number} has no column {name!r}; there are {', '.join(map(repr, row))}")
    return _written(row[name], name, number)


def _written(value: Any, name: str, number: int) -> str:
    """A value as text: lists line by line, objects as JSON, dates as they are written."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        raise UnreadError("no such column", f"row {number} has bytes in the column {name!r}, which are no text; name another one")
    if isinstance(value, list):
        return "\n".join(_written(one, name, number) for one in value)
    if isinstance(value, bool | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


class Csv(Rows):
    """Rows parted by line ends and cells by commas, in quotation marks where need be; the first row names the columns.

    Attributes:
        separator: what parts the cells.
    """

    libraries: ClassVar[tuple[str, ...]] = ("charset-normalizer",)
    added: ClassVar[tuple[str, ...]] = ("separator",)
    forms: ClassVar[tuple[str, ...]] = TEXTS
    separator: Literal[",", ";", "\t", "|"] = ","
    kind: Literal["csv"] = "csv"

    def rows(self, path: Path, notes: list[str]) -> Iterator[Mapping[str, Any]]:
        csv.field_size_limit(LONGEST_FIELD)
        text = _text(path, notes).removeprefix(f"sep={self.separator}\n")  # a line that Excel reads and writes
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self.separator, strict=True)
        try:
            head = next(reader, [])
            self._check_separator(head)
            if len({*head}) < len(head):
                raise UnreadError("damaged", f"two columns have one name: {', '.join(map(repr, head))}")
            for row in reader:
                if row and len(row) != len(head):
                    raise UnreadError(
                        "damaged", f"line {reader.line_num} has {counted(len(row), 'cell')}, the first row {len(head)}"
                    )
                if row:
                    yield dict(zip(head, row, strict=True))
        except csv.Error as error:
            raise UnreadError("damaged", f"line {reader.line_num}: {error}") from error

    def _check_separator(self, head: list[str]) -> None:
        if len(head) == 1 and (other := separator(head[0])) not in (None, self.separator):
            way_out = f"write `separator: {json.dumps(other)}` beside `kind: {self.kind}`"
            raise UnreadError("no such column", f"the names of its columns are parted by {other!r}; {way_out}")


class Tsv(Csv):
    """As CSV, with tabs for commas."""

    separator: Literal[",", ";", "\t", "|"] = "\t"
    kind: Literal["tsv"] = "tsv"  # type: ignore[assignment]


class JsonLines(Rows):
    """One JSON object a line."""

    libraries: ClassVar[tuple[str, ...]] = ("charset-normalizer",)
    forms: ClassVar[tuple[str, ...]] = TEXTS
    kind: Literal["jsonl"] = "jsonl"

    def rows(self, path: Path, notes: list[str]) -> Iterator[Mapping[str, Any]]:
        for number, line in enumerate(_text(path, notes).split("\n"), 1):
            if not line.strip():
                continue
            try:
                row = parsed(line, f"line {number}")
            except InputError as error:
                raise UnreadError("damaged", str(error)) from error
            if not isinstance(row, dict):
                raise UnreadError("damaged", f"line {number} is no object; each line holds one by itself, as {{...}}")
            yield row


class ParquetRows(Rows):
    """A Parquet file; only the columns that are named are read."""

    libraries: ClassVar[tuple[str, ...]] = ("pyarrow",)
    forms: ClassVar[tuple[str, ...]] = (PARQUET,)
    kind: Literal["parquet"] = "parquet"

    def rows(self, path: Path, notes: list[str]) -> Iterator[Mapping[str, Any]]:
        import pyarrow as pa
        from pyarrow import parquet

        texts = (self.text,) if isinstance(self.text, str) else self.text
        wanted = [name for name in (*texts, self.id, self.title) if name is not None]
        try:
            with parquet.ParquetFile(path) as file:
                there = file.schema_arrow.names
                for batch in file.iter_batches(columns=[name for name in there if name in wanted], use_threads=False):
                    yield from batch.to_pylist()
        except pa.ArrowException as error:
            raise UnreadError("damaged", f"it is no whole Parquet file ({error})") from error


def separator(head: str) -> str | None:
    """What parts the names of the columns in the first line of a table; None where there is but one."""
    return next((sign for sign in SEPARATORS if sign in head), None)


def _text(path: Path, notes: list[str]) -> str:
    found: Decoded = decoded(path.read_bytes())
    notes += found.notes
    return found.text
