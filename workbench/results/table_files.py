"""Tables as CSV files and as pandas frames: rows in, rows out, their class says which columns there are."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, get_type_hints

from workbench.component import canonical
from workbench.data.readers.text import short
from workbench.errors import InputError
from workbench.results.rows import ConfigurationRow

if TYPE_CHECKING:
    import pandas as pd

PART = 10_000  # lines that are read at a time
R = TypeVar("R", bound=NamedTuple)

ENDS = ("low", "high")  # columns whose zero decides
HEAD, TAIL = ("configuration", "label"), ("prompt_mismatch", "keys")  # of configurations.csv, around its axes


def cell(value: object) -> str:
    """A value in a table: floats with six decimals, nothing for a missing one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value + 0.0:.6f}".replace("-0.000000", "0.000000")
    return str(value)


def end_cell(value: object) -> str:
    """An end of an interval in a table: six decimals, and more where these would make zero of it, which is a verdict."""
    text = cell(value)
    if isinstance(value, float) and value != 0 and text == "0.000000":
        text = next((longer for digits in range(7, 16) if float(longer := f"{value:.{digits}f}")), text)
    return text


def write(path: Path, kind: type[R], rows: Iterable[R]) -> None:
    """Writes rows of a class as CSV, its fields as columns, in one step: the file is complete or absent."""
    forms = [end_cell if name in ENDS else cell for name in kind._fields]
    _write(path, kind._fields, ([form(value) for form, value in zip(forms, row, strict=True)] for row in rows))


def write_configurations(path: Path, axes: Sequence[str], rows: Iterable[ConfigurationRow]) -> None:
    """Writes configurations.csv, one column for each axis, in one step."""
    lines = [
        (
            row.configuration,
            row.label,
            *(row.values[axis] for axis in axes),
            str(row.prompt_mismatch).lower(),
            canonical(row.keys),
        )
        for row in rows
    ]
    _write(path, (*HEAD, *axes, *TAIL), lines)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([cell(value) for value in row] for row in rows)
    temporary.rename(path)


def read(path: Path, kind: type[R]) -> list[R]:
    """Reads the rows of a table.

    Args:
        path: the file.
        kind: the class of its rows.

    Columns of fields with a default may be missing together, as in tables that an earlier version wrote.

    Raises:
        InputError: no such file, other columns than the fields of the class, or a value of the wrong type; the message names
            the file, the line and the column.
    """
    columns, parts = _parts(path)
    first = kind._fields[: len(kind._fields) - len(kind._field_defaults)]
    if columns not in (kind._fields, first):
        raise InputError(
            f"{path} has the columns {', '.join(columns) or '(none)'}; this version of the workbench reads "
            f"{', '.join(kind._fields)}. Run the experiment again"
        )
    missing = [kind._field_defaults[name] for name in kind._fields[len(columns) :]]
    rows: list[R] = []
    for lines in parts:  # column by column, which is fast, and in parts, which keeps few texts at a time
        parsed = [_parsed(path, kind, i, lines) for i in range(len(columns))]
        parsed += [[value] * len(lines) for value in missing]
        rows += [kind._make(values) for values in zip(*parsed, strict=True)]
    return rows


def read_configurations(path: Path) -> list[ConfigurationRow]:
    """Reads configurations.csv, whose middle columns are the experiment's axes.

    Raises:
        InputError: as `read`.
    """
    columns, parts = _parts(path)
    lines = [line for part in parts for line in part]
    if columns[:2] != HEAD or columns[-2:] != TAIL:
        raise InputError(
            f"{path} has the columns {', '.join(columns) or '(none)'}; this version of the workbench reads {', '.join(HEAD)}, "
            f"one for each axis, {', '.join(TAIL)}. Run the experiment again"
        )
    rows = []
    for number, (configuration, label, *values, mismatch, keys) in lines:
        try:
            artifacts = json.loads(keys)
        except (ValueError, RecursionError):
            artifacts = None
        if not isinstance(artifacts, dict):
            raise InputError(f"{path}, line {number}, column keys: {short(keys)} is no JSON object; run the experiment again")
        named = dict(zip(columns[2:-2], values, strict=True))
        rows.append(ConfigurationRow(configuration, label, named, mismatch == "true", artifacts))
    return rows


def frame(rows: Sequence[NamedTuple], columns: Sequence[str] = ()) -> pd.DataFrame:
    """Rows as a pandas frame: a column for each field; for a field `values`, one for each of its keys.

    Args:
        rows: of one class.
        columns: what the frame has where there are no rows.
    """
    import pandas as pd

    return pd.DataFrame([_flat(row) for row in rows]) if rows else pd.DataFrame(columns=list(columns))


def _flat(row: NamedTuple) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in zip(row._fields, row, strict=True):
        flat |= value if name == "values" and isinstance(value, dict) else {name: value}
    return flat


def _parts(path: Path) -> tuple[tuple[str, ...], Iterator[list[tuple[int, list[str]]]]]:
    """The header of a CSV file, and the lines after it with their numbers, some at a time; each has a cell for each column."""
    lines = _lines(path)
    _, columns = next(lines, (0, []))
    return tuple(columns), iter(lambda: list(islice(lines, PART)), [])


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV file with their numbers, the header first."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader, width = csv.reader(file), None
            for line in reader:
                width = len(line) if width is None else width
                if len(line) != width:
                    raise InputError(
                        f"{path}, line {reader.line_num} has {len(line)} cells instead of {width}; run the experiment again"
                    )
                yield reader.line_num, line
    except FileNotFoundError:
        raise InputError(f"{path} is missing, so the folder of this run is incomplete; run the experiment again") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}; run the experiment again") from error


def _or_none(read_one: Callable[[str], object]) -> Callable[[str], object]:
    return lambda text: read_one(text) if text else None


# how a cell is read, by the type of its field, and what it is called where it cannot be read
READERS: Mapping[object, tuple[Callable[[str], object], str]] = {
    str: (sys.intern, "text"),  # the same few texts stand in all rows
    int: (int, "a whole number"),
    float: (float, "a number"),
    int | None: (_or_none(int), "a whole number or nothing"),
    float | None: (_or_none(float), "a number or nothing"),
    int | float | None: (_or_none(lambda text: int(text) if text.isdecimal() else float(text)), "a number or nothing"),
}


@cache
def _readers(kind: type[NamedTuple]) -> list[tuple[Callable[[str], object], str]]:
    return [READERS[hint] for hint in get_type_hints(kind).values()]


def _parsed(path: Path, kind: type[NamedTuple], column: int, lines: Sequence[tuple[int, list[str]]]) -> list[object]:
    """The cells of a column, of all lines."""
    read_one, wanted = _readers(kind)[column]
    try:
        return [read_one(line[column]) for _, line in lines]
    except ValueError:
        for number, line in lines:
            _refuse(f"{path}, line {number}, column {kind._fields[column]}", line[column], read_one, wanted)
        raise


def _refuse(where: str, text: str, read_one: Callable[[str], object], wanted: str) -> None:
    try:
        read_one(text)
    except ValueError:
        raise InputError(f"{where}: {text!r} is not {wanted}; run it again") from None
