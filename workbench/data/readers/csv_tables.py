"""CSV files with a header: every line has as many fields as the header has columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from workbench.data.readers.text import lines
from workbench.errors import InputError

SEPARATORS = ",;\t|"
EXCEL = {f"sep={sign}": sign for sign in SEPARATORS}  # the line that Excel writes and reads before a header
QUOTED = re.compile(r'"[^"]*"?')
NAMES = {",": ("comma", ", as the number 0,5,"), ";": ("semicolon", ""), "\t": ("tab", ""), "|": ("bar", "")}
LONGEST = 10_000_000  # characters of a field; csv itself refuses longer ones than 131,072


class Table(NamedTuple):
    """A header and the lines under it: the number of each, and its fields by column."""

    columns: list[str]
    rows: list[tuple[int, Mapping[str, str]]]


def table(path: Path, separator: str = ",") -> Table:
    """A CSV file.

    Its fields are parted by commas; where no comma stands in the header, and semicolons, tabs or bars do, by these: so Excel
    writes CSV in many countries.

    Args:
        path: the file.
        separator: what parts its fields, if it is not a comma.

    Raises:
        InputError: no header, or one with several signs that may part it, a column without a name or named twice, a line with
            more or fewer fields than the header, an open quotation mark, or as `workbench.data.readers.text.lines`.
    """
    csv.field_size_limit(LONGEST)
    if separator == ",":
        separator = _separator(path)
    given = ("\n" if line.number == 1 and line.text in EXCEL else f"{line.text}\n" for line in lines(path))
    reader = csv.reader(given, delimiter=separator, strict=True)
    try:
        columns = next((fields for fields in reader if fields), [])
        _check_header(path, reader.line_num, columns)
        return Table(columns, list(_rows(path, columns, reader, separator)))
    except csv.Error as error:
        said = "a quotation mark is opened and never closed" if "end of data" in str(error) else str(error)
        if "new-line character" in said:
            said = "a carriage return stands alone in it; end lines with line feeds"
        raise InputError(f"{path}, line {max(reader.line_num, 1)}: no CSV: {said}") from error


def _separator(path: Path) -> str:
    """What parts the columns, as the header shows it, or the line above by which one tells Excel."""
    for number, text in lines(path):
        if number == 1 and text in EXCEL:
            return EXCEL[text]
        if not text:
            continue
        bare = QUOTED.sub("", text)
        signs = [sign for sign in SEPARATORS if sign in bare]
        if len(signs) > 1 and "," not in signs:
            raise InputError(
                f"{path}, line {number}: the columns are parted by {' and '.join(map(repr, signs))}; part them by commas"
            )
        return signs[0] if signs else ","
    return ","


def _check_header(path: Path, line: int, columns: list[str]) -> None:
    if not columns:
        raise InputError(f"{path} is empty; a header with the names of the columns is needed")
    for number, name in enumerate(columns, 1):
        if not name.strip():
            why = "as pandas writes its index; name it, or leave it out (DataFrame.to_csv(..., index=False))"
            if number > 1:
                why = "as after a comma too many; name it, or leave it out in every line"
            raise InputError(f"{path}, line {line}: column {number} has no name, {why}")
        if columns.index(name) != number - 1:
            raise InputError(f"{path}, line {line}: the column {name!r} is there twice; names must be distinct")


def _rows(path: Path, columns: list[str], reader: Iterator[list[str]], separator: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    sign, such = NAMES[separator]
    for fields in reader:
        number: int = getattr(reader, "line_num", 0)
        if not fields:
            continue  # an empty line
        if len(fields) != len(columns):
            has = f"{len(fields)} {'field' if len(fields) == 1 else 'fields'}"
            raise InputError(
                f"{path}, line {number} has {has}, the header {len(columns)}; "
                f"put a field that has a {sign}{such} in quotation marks"
            )
        yield number, dict(zip(columns, fields, strict=True))
