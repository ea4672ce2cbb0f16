"""What requests say: their forms, and what is wrong with them in whole sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from workbench.errors import InputError, unknown
from workbench.serving.problems import InvalidError, MediaTypeError, NotJsonError

MAX_CHARACTERS = 2000  # of a question
MOST_TURNS = 50  # of a history
MOST_PASSAGES = 100  # of a search

Question = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS, description="The question.")]


class Form(BaseModel):
    """Base of all forms: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TurnForm(Form):
    """What one side said."""

    role: Literal["user", "assistant"]
    content: Annotated[str, Field(min_length=1, max_length=20_000)]


class AnswerForm(Form):
    """A question, and what was said before it, oldest first."""

    question: Question
    history: Annotated[list[TurnForm], Field(max_length=MOST_TURNS)] = Field(
        default_factory=list, description="What was said before, oldest first, where the configuration rewrites questions."
    )
    conversation: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="Id of the conversation in which the question is asked, instead of a history."
    )


def _no_truth(value: object) -> object:
    """Refuses true, which equals 1."""
    if isinstance(value, bool):
        raise ValueError("input should be -1 or 1")
    return value


class VoteForm(Form):
    """What somebody thinks of an answer."""

    vote: Annotated[Literal[-1, 1], BeforeValidator(_no_truth), Field(description="1: it is good; -1: it is bad.")]
    comment: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)] | None = None
    correction: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)] | None = Field(
        default=None, description="What the answer should have been."
    )


class TalkForm(Form):
    """A new conversation."""

    title: Annotated[str, Field(max_length=200, description="Default: its first question.")] = ""


class SearchForm(Form):
    """A question whose best passages are wanted."""

    question: Question
    k: Annotated[int, Field(ge=1, le=MOST_PASSAGES, description="How many passages.")] = 5


F = TypeVar("F", bound=Form)


def read(body: bytes, form: type[F], content_type: str | None) -> F:
    """A request's body as one of the forms.

    Args:
        body: as it was received.
        form: what it has to be.
        content_type: as the request says.

    Raises:
        MediaTypeError: the request does not say that it is JSON.
        NotJsonError: it is no JSON.
        InvalidError: it is not of the form; the error names the key, what was received and what is allowed.
    """
    _check_type(content_type, body)
    try:
        values = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise NotJsonError(f"the body is not JSON ({error}); send {usage(form)}") from error
    if not isinstance(values, dict):
        raise InvalidError(f"the body is {kind_of(values)}, not an object; send {usage(form)}")
    _check_texts(values)
    try:
        return form.model_validate(values)
    except ValidationError as error:
        raise invalid(error, form) from error


def _check_type(content_type: str | None, body: bytes) -> None:
    """Refuses what is not said to be JSON: a page of another address can have a browser send every other type unasked."""
    if content_type is None and not body:
        return
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        said = f"of the type {kind[:80]!r}" if kind else "of no type that the request names"
        raise MediaTypeError(f"the body is {said}; send it with `Content-Type: application/json`, as `curl --json` does")


def usage(form: type[Form]) -> str:
    """How the form looks in its shortest."""
    shortest = {"question": '{"question": "..."}', "vote": '{"vote": 1}', "title": '{"title": "..."}'}
    return next((usage for key, usage in shortest.items() if key in form.model_fields), '{"model": "...", "messages": [...]}')


def invalid(error: ValidationError, form: type[Form]) -> InvalidError:
    """The first thing that is wrong, in a sentence, with the place as ``pointer``."""
    found = error.errors()
    # an unknown key explains a missing one: it may be misspelt
    first: dict[str, Any] = dict(next((one for one in found if one["type"] == "extra_forbidden"), found[0]))
    *parents, last = _place(first, form) or [""]
    kept, where = _keys(form, parents), ".".join([*parents, last]) or "the body"
    pointer = "/" + "/".join([*parents, last])
    if first["type"] == "extra_forbidden":
        return InvalidError(str(unknown("key", last, sorted(kept))), pointer=pointer, allowed=sorted(kept))
    if first["type"] == "missing":
        return InvalidError(f"the key {where!r} is missing; send {usage(form)}", pointer=pointer)
    received = kind_of(first["input"])
    if first["type"] == "string_type":
        return InvalidError(f"{where} is {received}, not text; send {usage(form)}", pointer=pointer)
    if first["type"] in ("string_too_long", "string_too_short"):
        has = f"has {len(first['input']):,} characters" if first["input"] else "is empty"
        return InvalidError(f"the {where} {has}; allowed: 1 to {_most(kept.get(last)):,} characters", pointer=pointer)
    if first["type"] == "too_short":
        return InvalidError(f"{where} is an empty list; send {usage(form)}", pointer=pointer)
    if first["type"] == "too_long":
        most = first["ctx"]["max_length"]
        return InvalidError(f"{where} has {len(first['input']):,} entries; allowed: {most:,} at most", pointer=pointer)
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return InvalidError(f"{where} is {received}: {message}", pointer=pointer)


def _place(error: dict[str, Any], form: type[Form]) -> list[str]:
    """Keys and numbers that lead to what is wrong, without the names of types that could have stood there."""
    schema = form.model_json_schema()
    names = {name for part in (schema, *schema.get("$defs", {}).values()) for name in part["properties"]}
    end = error["loc"][-1:] if error["type"] == "extra_forbidden" else ()
    before = error["loc"][: len(error["loc"]) - len(end)]
    return [str(part) for part in (*(one for one in before if isinstance(one, int) or one in names), *end)]


def _keys(form: type[Form], parents: Sequence[str]) -> dict[str, Any]:
    """Keys of the innermost object at a place of a form, with what is said of each."""
    schema = form.model_json_schema()
    keys: dict[str, Any] = schema["properties"]
    for name in parents:
        if inner := re.search(r"#/\$defs/(\w+)", json.dumps(keys.get(name, {}))):
            keys = schema["$defs"][inner[1]]["properties"]
    return keys


def _most(said: Any) -> int:
    """How many characters a text may have, by what is said of its key."""
    found = re.search(r'"maxLength": (\d+)', json.dumps(said))
    return int(found[1]) if found else MAX_CHARACTERS


def kind_of(value: object) -> str:
    """What a value of JSON is called."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _check_texts(value: Any) -> None:
    """Refuses half characters and blank questions, wherever they stand."""
    if isinstance(value, dict):
        if isinstance(value.get("question"), str) and not value["question"].strip():
            raise InvalidError(f"the question is empty; allowed: 1 to {MAX_CHARACTERS:,} characters", pointer="/question")
        for one in value.values():
            _check_texts(one)
    elif isinstance(value, list):
        for one in value:
            _check_texts(one)
    elif isinstance(value, str):
        check_characters(value)


def check_characters(text: str) -> None:
    """Refuses a text that cannot be encoded.

    Raises:
        InvalidError: it holds half a character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidError(
            f"a text holds {error.object[error.start]!r} at position {error.start}, half a character; allowed: whole ones"
        ) from error


def checked(question: str) -> str:
    """A question that is typed into the page.

    Raises:
        InputError: it is empty, too long, or no text that can be encoded.
    """
    if not question.strip():
        raise InputError(f"the question is empty; allowed: 1 to {MAX_CHARACTERS:,} characters")
    if len(question) > MAX_CHARACTERS:
        raise InputError(f"the question has {len(question):,} characters; allowed: 1 to {MAX_CHARACTERS:,}")
    try:
        check_characters(question)
    except InvalidError as error:
        raise InputError(error.detail) from error
    return question


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
