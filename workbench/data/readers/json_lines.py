"""Files of JSON lines: one object a line, each checked by one typed model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from workbench.data.readers.text import SHOWN, check_writable, composed, lines, short
from workbench.errors import InputError, unknown


class Record(BaseModel):
    """Base of what a line holds; types are exact, and a field's description says what is allowed."""

    hint: ClassVar[str] = ""  # what a message about an unknown key ends with
    model_config = ConfigDict(strict=True, frozen=True)


def _text_of_number(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("the text is empty")
    return value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("NUL stands in it, which ends a text for other programs")
    return value


Text = Annotated[str, AfterValidator(composed)]
Filled = Annotated[Text, AfterValidator(_not_blank)]
# a whole number is taken as its text; ids stay as they are written, since other files name them
Identifier = Annotated[str, AfterValidator(_not_blank), AfterValidator(_without_nul), BeforeValidator(_text_of_number)]
M = TypeVar("M", bound=Record)
R = TypeVar("R")


class Read(NamedTuple):
    """A value of a file and its place, for messages: ``questions.jsonl, line 3``."""

    where: str
    value: Any


def objects(path: Path) -> Iterator[Read]:
    """The JSON value of each line that is not empty.

    Raises:
        InputError: a line is no JSON, names a key twice, or as `workbench.data.readers.text.lines`.
    """
    for number, line in lines(path):
        where = f"{path}, line {number}"
        if line.strip():
            yield Read(where, parsed(line, where, "; every line holds one JSON object, whole and by itself"))


def records(path: Path, model: type[M]) -> Iterator[tuple[str, M]]:
    """The records of a file, each with its place.

    Args:
        path: the file.
        model: what each line holds.

    Raises:
        InputError: a line that is no object, lacks a key, has one of another type, or as `objects`.
    """
    for where, value in objects(path):
        yield where, record(value, model, where)


def distinct(found: Iterable[tuple[str, str, R]]) -> Iterator[tuple[str, R]]:
    """Places and records whose ids are distinct.

    Args:
        found: place, id and record of each.

    Raises:
        InputError: an id is given twice; both places are named.
    """
    first: dict[str, str] = {}
    for where, name, row in found:
        if (before := first.setdefault(name, where)) != where:
            file, _, line = before.rpartition(", ")
            seen = line if where.startswith(f"{file}, ") else before
            raise InputError(f"{where}: the id {short(name)} is given twice, first in {seen}; ids are distinct")
        yield where, row


def record(value: object, model: type[M], where: str) -> M:
    """A record from a JSON value.

    Args:
        value: the value.
        model: what it has to be.
        where: its place, for messages.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, dict):
        alone = "; write each object on a line of its own, without a list around them" if _lined(value, where) else ""
        raise InputError(f"{where}: received {shown(value)}; allowed: an object with the keys {', '.join(_keys(model))}{alone}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        said = dict.fromkeys(_said(model, item, value) for item in error.errors())
        # of alternatives, the one that says why: the others say the same without
        told = [one for one in said if not any(other != one and other.startswith(f"{one} (") for other in said)]
        raise InputError("; ".join(f"{where}: {one}" for one in told)) from error


def _lined(value: object, where: str) -> bool:
    """Whether a line of a file holds a list of objects, as a file that is one JSON value does."""
    return ", line " in where and isinstance(value, list) and any(isinstance(one, dict) for one in value)


def parsed(text: str, where: str, way_out: str = "") -> Any:
    """The value of a JSON text.

    Args:
        text: the text.
        where: its place, for messages.
        way_out: what is added to a message about what is no JSON.

    Raises:
        InputError: it is no JSON, or an object names a key twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(f"{where}: the key {key!r} is given twice; give it once")
            found[key] = value
        return found

    try:
        value = json.loads(text, object_pairs_hook=once)
    except RecursionError as error:
        raise InputError(f"{where}: the JSON is nested too deeply") from error
    except json.JSONDecodeError as error:
        alone = "; lines end in a carriage return alone, end them with line feeds" if "\r" in text.strip() else way_out
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{where}: not JSON: {error.msg} at {place}{alone}") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        # Python reads no whole number of more than some thousand digits
        raise InputError(f"{where}: a number in it has too many digits; write it in quotation marks, as a text") from error
    if "\\u" in text:
        check_writable(value, where)
    return value


def shown(value: object) -> str:
    """A value as JSON, shortened, for messages."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _keys(model: type[Record]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _said(model: type[Record], item: ErrorDetails, value: dict[str, Any]) -> str:
    """One of pydantic's errors in a sentence."""
    key = str(item["loc"][0]) if item["loc"] else ""
    if item["type"] == "missing" and len(item["loc"]) == 1:
        needed = [field.alias or name for name, field in model.model_fields.items() if field.is_required()]
        return f"the key {key!r} is missing; needed: {', '.join(needed)}"
    if item["type"] == "extra_forbidden":
        return f"{unknown('key', key, _keys(model))}{model.hint}"
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    why = f" ({item['ctx']['error']})" if item["type"] == "value_error" else ""
    return f"{key}: received {shown(value[key])}; allowed: {fields[key].description}{why}"
