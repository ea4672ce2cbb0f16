"""Further columns of the questions, by which results are told apart: a text for each question that has one.

A column is a key of a question's line, or of the object ``metadata`` in it; where both have it, that of the line counts. Only
columns that were asked for are kept, so a dataset without them is the same whatever its files hold besides.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, create_model

from workbench.data.readers.json_lines import Record, objects
from workbench.data.readers.text import composed
from workbench.errors import InputError, unknown

M = TypeVar("M", bound=Record)

METADATA = "metadata"
RESERVED = (
    "id",
    "_id",
    "split",
    "question",
    "text",
    "answers",
    "evidence",
    "history",
    "group",
    METADATA,
)  # they say other things
MOST = 100  # values of a column; more are names of questions rather than kinds of them
NONE = "(none)"  # the value of questions that lack the column


class Open(Record):
    """An object of any keys."""

    model_config = ConfigDict(extra="allow")


def cell(value: object) -> object:
    """A number or a truth value as JSON writes it; nothing for an empty text; white space folded."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return " ".join(composed(value).split()) or None if isinstance(value, str) else value


Cell = Annotated[str | None, BeforeValidator(cell)]
ALLOWED = "a text, a number, true, false or null"


def with_columns(model: type[M], columns: Sequence[str]) -> type[M]:
    """The model of a line that may hold these columns too, each in itself or in its ``metadata``.

    Args:
        model: of a line without them; a column that it has itself, such as ``kind``, it reads as it does without this.
        columns: their names; none: the model itself.
    """
    if not columns:
        return model
    inner = create_model("Metadata", __base__=Open, **_fields(columns))  # type: ignore[call-overload]
    allowed = f"an object, in which {' and '.join(columns)} {'is' if len(columns) == 1 else 'are each'} {ALLOWED}; or null"
    own = _fields([name for name in columns if name not in model.model_fields])
    own[METADATA] = (inner | None, Field(default=None, description=allowed))
    made: type[M] = create_model(model.__name__, __base__=model, **own)  # type: ignore[call-overload]
    return made


def _fields(columns: Sequence[str]) -> dict[str, tuple[object, object]]:
    """Fields of a model; a column may have any name, so it is a field's alias."""
    return {f"column_{i}": (Cell, Field(default=None, alias=name, description=ALLOWED)) for i, name in enumerate(columns)}


def values(row: Record, columns: Sequence[str]) -> dict[str, str]:
    """Column -> value of a line read by `with_columns`; columns without a value are left out."""
    found = row.model_dump(by_alias=True)
    inside = found.get(METADATA) or {}
    cells = {name: cell(found.get(name)) or inside.get(name) for name in columns}
    return {name: text for name, text in cells.items() if isinstance(text, str)}


def refuse_missing(rows: Iterable[Record], columns: Sequence[str], where: str) -> None:
    """Refuses columns that none of the questions has.

    Args:
        rows: lines read by `with_columns`.
        columns: the columns asked for.
        where: what holds the questions, for messages.

    Raises:
        InputError: no question has one of them; the message names those that there are.
    """
    missing, there = set(columns), set[str]()
    for row in rows if columns else ():
        missing -= values(row, columns).keys()
        found = row.model_dump(by_alias=True)
        there |= {name for part in (found, found.get(METADATA) or {}) for name, value in part.items() if value is not None}
    if missing:
        name, others = min(missing), sorted(there - set(RESERVED))
        raise InputError(
            f"{where}: no question has the column {name!r}, which metrics.slices names; "
            + (f"{unknown('column', name, others)}" if others else "the questions have no further columns")
        )


def every(path: Path, wanted: Container[str]) -> dict[str, dict[str, str]]:
    """Every further column of some questions, whether asked for or not: query id -> column -> value.

    What is neither a text nor a number nor a truth value is left out, so are columns without a value.

    Args:
        path: the file of questions, JSON lines.
        wanted: ids of the questions.

    Raises:
        InputError: the file cannot be read any more.
    """
    found = {}
    for _, row in objects(path):
        query_id = str(row.get("_id", row.get("id")))
        if query_id in wanted:
            found[query_id] = cells(row)
    return found


def cells(row: dict[str, object]) -> dict[str, str]:
    """Every further column of a question's line, and of the object ``metadata`` in it, that has a value: name -> value."""
    inside = row.get(METADATA)
    found = (_texts(inside) if isinstance(inside, dict) else {}) | _texts(row)
    return {name: found[name] for name in sorted(found.keys() - set(RESERVED))}


def _texts(row: dict[str, object]) -> dict[str, str]:
    return {name: text for name, value in row.items() if isinstance(text := cell(value), str)}
