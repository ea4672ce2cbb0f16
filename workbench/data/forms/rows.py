"""Files of question sets as rows: JSON lines, one JSON value, Parquet, Arrow, CSV and TSV."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.data.readers.csv_tables import table
from workbench.data.readers.json_lines import Read, objects, parsed
from workbench.data.readers.text import lines, whole
from workbench.errors import InputError

PARQUET, ARROW = (".parquet",), (".arrow", ".feather")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
JSONS = (".json", ".jsonl", ".ndjson")
ALLOWED = f"{', '.join([*JSONS, *SEPARATORS, *PARQUET, *ARROW])}, and TREC topics"


def ending(path: Path) -> str:
    """The ending of a file's name in small letters; ``.gz`` behind it says nothing about what is inside."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def rows(path: Path) -> list[Read]:
    """The rows of a file, each with its place.

    A JSON file holds one object a line, or one value: a list of objects, or an object with one list of objects in it, as SQuAD
    has under ``data``.

    Raises:
        InputError: the file cannot be read, is empty, or has another form.
    """
    if not path.is_file():
        raise InputError(f"questions file {path} {'is a folder; name a file in it' if path.is_dir() else 'does not exist'}")
    suffix = ending(path)
    if suffix in PARQUET + ARROW:
        found = list(_of_arrow(path, suffix in PARQUET))
    elif suffix in SEPARATORS:
        found = [Read(f"{path}, line {line}", _cells(fields)) for line, fields in table(path, SEPARATORS[suffix]).rows]
    elif suffix in JSONS:
        found = list(_of_json(path))
    else:
        raise InputError(f"questions file {path}: received a name that ends in {suffix or 'nothing'}; allowed: {ALLOWED}")
    if not found:
        raise InputError(f"questions file {path} is empty; at least one question is needed")
    return [Read(where, _without_nan(row)) for where, row in found]


def _without_nan(row: Any) -> Any:
    """A row in which what pandas writes for nothing is nothing."""
    return {key: None if value != value else value for key, value in row.items()} if isinstance(row, dict) else row


def _of_arrow(path: Path, parquet: bool) -> Iterator[Read]:
    try:
        read = pq.read_table(path) if parquet else pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no whole {'Parquet' if parquet else 'Arrow'} file ({str(error).splitlines()[0]})") from error
    for number, row in enumerate(read.to_pylist(), 1):
        yield Read(f"{path}, row {number}", row)


def _cells(fields: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a table; an object, or a list of texts as JSON or Python writes it, is read as such."""
    return {column: _cell(text) for column, text in fields.items()}


def _cell(text: str) -> Any:
    if not text.strip().startswith(("[", "{")):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text
    texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return value if texts or isinstance(value, dict) else text


def _of_json(path: Path) -> Iterator[Read]:
    if _one_a_line(path):
        found = list(objects(path))
        if len(found) == 1 and isinstance(found[0].value, dict):
            _check_columns(found[0].value, path)
        yield from found
        return
    value = parsed("\n".join(line.text for line in lines(path)) if path.suffix == ".gz" else whole(path), str(path))
    for number, row in enumerate(_listed(value, path), 1):
        yield Read(f"{path}, item {number}", row)


def _one_a_line(path: Path) -> bool:
    """Whether the first line that is not empty is an object by itself, and a line follows or nothing does."""
    given = (line.text for line in lines(path) if line.text.strip())
    first, second = next(given, ""), next(given, "")
    try:
        value = json.loads(first)
    except ValueError:
        return first.lstrip().startswith("{") and second.lstrip().startswith("{")  # a damaged line of a file of lines
    return isinstance(value, dict) and (second != "" or not (_lists(value) or _index(value)))


def _lists(value: dict[str, Any]) -> list[str]:
    """Keys under which an object has nothing but a list of objects, where it has no other contents than single values."""
    inside = {key: one for key, one in value.items() if isinstance(one, dict | list)}
    found = [key for key, one in inside.items() if isinstance(one, list) and one and all(isinstance(row, dict) for row in one)]
    return found if len(inside) == len(found) == 1 else []


def _listed(value: Any, path: Path) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and (keys := _lists(value)):
        rows: list[Any] = value[keys[0]]
        return rows
    if isinstance(value, dict):
        _check_columns(value, path)
    if isinstance(value, dict) and (index := _index(value)):
        return [{column: cells[number] for column, cells in value.items()} for number in index]
    raise InputError(
        f"{path}: received {type(value).__name__}; allowed: one JSON object a line, a list of objects, or an object with one "
        f"list of objects in it"
    )


def _index(value: dict[str, Any]) -> list[str]:
    """The numbers of the rows, where an object has columns with a value for each, as pandas writes a table."""
    columns = list(value.values())
    if not columns or not all(isinstance(cells, dict) and cells.keys() == columns[0].keys() for cells in columns):
        return []
    return list(columns[0]) if all(map(str.isdecimal, columns[0])) else []


def _check_columns(value: dict[str, Any], path: Path) -> None:
    """Refuses an object of lists, one for each column, which would pass for one question."""
    sizes = {len(cells) if isinstance(cells, list) else 0 for cells in value.values()}
    if path.suffix == ".json" and len(value) > 1 and len(sizes) == 1 and min(sizes) > 1:
        raise InputError(
            f"{path}: received an object with a list for each of {', '.join(map(repr, value))}; allowed: a list of objects, one "
            f"for each question (in pandas, to_json(orient='records'))"
        )
