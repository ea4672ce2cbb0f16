"""CSV files with a header: every line has as many fields as the header has columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from workbench.data.readers.text import lines
from workbench.errors import InputError

EXCEL = "sep=,"  # the line that Excel writes and reads before a header
LONGEST = 10_000_000  # characters of a field; csv itself refuses longer ones than 131,072


class Table(NamedTuple):
    """A header and the lines under it: the number of each, and its fields by column."""

    columns: list[str]
    rows: list[tuple[int, Mapping[str, str]]]


def table(path: Path, separator: str = ",") -> Table:
    """A CSV file.

    Args:
        path: the file.
        separator: what parts its fields.

    Raises:
        InputError: no header, a column without a name or named twice, a line with more or fewer fields than the header, an open
            quotation mark, or as `workbench.data.readers.text.lines`.
    """
    csv.field_size_limit(LONGEST)
    given = ("\n" if (line.number, line.text) == (1, EXCEL) else f"{line.text}\n" for line in lines(path))
    reader = csv.reader(given, delimiter=separator, strict=True)
    try:
        columns = next((fields for fields in reader if fields), [])
        _check_header(path, reader.line_num, columns)
        return Table(columns, list(_rows(path, columns, reader)))
    except csv.Error as error:
        said = "a quotation mark is opened and never closed" if "end of data" in str(error) else str(error)
        if "new-line character" in said:
            said = "a carriage return stands alone in it; end lines with line feeds"
        raise InputError(f"{path}, line {max(reader.line_num, 1)}: no CSV: {said}") from error


def _check_header(path: Path, line: int, columns: list[str]) -> None:
    if not columns:
        raise InputError(f"{path} is empty; a header with the names of the columns is needed")
    if len(columns) == 1 and (other := next((sign for sign in ";\t|" if sign in columns[0]), None)):
        raise InputError(f"{path}, line {line}: the columns are parted by {other!r}; part them by commas")
    for number, name in enumerate(columns, 1):
        if not name.strip():
            why = "as pandas writes its index; name it, or leave it out (DataFrame.to_csv(..., index=False))"
            if number > 1:
                why = "as after a comma too many; name it, or leave it out in every line"
            raise InputError(f"{path}, line {line}: column {number} has no name, {why}")
        if columns.index(name) != number - 1:
            raise InputError(f"{path}, line {line}: the column {name!r} is there twice; names must be distinct")


def _rows(path: Path, columns: list[str], reader: Iterator[list[str]]) -> Iterator[tuple[int, Mapping[str, str]]]:
    for fields in reader:
        number: int = getattr(reader, "line_num", 0)
        if not fields:
            continue  # an empty line
        if len(fields) != len(columns):
            raise InputError(
                f"{path}, line {number} has {len(fields)} fields, the header {len(columns)}; put a field that has a comma, as "
                f"the number 0,5, in quotation marks"
            )
        yield number, dict(zip(columns, fields, strict=True))
