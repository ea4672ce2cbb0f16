"""Natural Questions (Kwiatkowski et al. 2019): tables of the hub with HTML tokens, and the simplified training lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from workbench.data.dataset import Place
from workbench.data.forms.form import Form, needs
from workbench.data.forms.question import Asked, Corpus
from workbench.data.forms.shape import listed
from workbench.data.readers.json_lines import Filled, Identifier, Record, Text, shown
from workbench.data.readers.text import composed
from workbench.errors import InputError

BLOCKS = ("p", "li", "tr", "table", "ul", "ol", "h1", "h2", "h3", "h4", "div", "br")  # tags that part paragraphs
YES_NO = {1: "yes", 0: "no", "YES": "yes", "NO": "no"}
Tokens = Sequence[tuple[str, bool]]  # texts, and whether each is a tag


class Annotated(Record):
    """A row of the hub's table."""

    id: Identifier = Field(description="a text or a whole number")
    question: dict[str, Any] = Field(description='{"text": text}')
    document: dict[str, Any] = Field(description='{"title", "tokens": [{"token", "is_html"}]}')
    annotations: dict[str, Any] | list[Any] = Field(description='[{"long_answer", "short_answers", "yes_no_answer"}]')


class Simplified(Record):
    """A line of the simplified training set, whose tokens are parted by blanks."""

    id: Identifier = Field(alias="example_id", description="a text or a whole number")
    question: Filled = Field(alias="question_text", description="a text that is not empty")
    title: Text = Field(default="", alias="document_title", description="a text")
    document: Filled = Field(alias="document_text", description="a text of tokens parted by blanks")
    annotations: list[dict[str, Any]] = Field(description='[{"long_answer", "short_answers", "yes_no_answer"}]')


def _annotated(row: Annotated, where: str, corpus: Corpus) -> Iterator[Asked]:
    tokens = [(str(one.get("token", "")), bool(one.get("is_html"))) for one in listed(row.document.get("tokens"))]
    question = row.question.get("text")
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{where}: question: received {shown(row.question)}; allowed: an object with a text under 'text'")
    title = str(row.document.get("title") or "")
    yield _asked(row.id, question, title, tokens, listed(row.annotations), where, corpus)


def _simplified(row: Simplified, where: str, corpus: Corpus) -> Iterator[Asked]:
    tokens = [(token, token.startswith("<") and token.endswith(">")) for token in row.document.split(" ")]
    yield _asked(row.id, row.question, row.title, tokens, row.annotations, where, corpus)


def _asked(
    name: str,
    question: str,
    title: str,
    tokens: Tokens,
    annotations: Sequence[Mapping[str, Any]],
    where: str,
    corpus: Corpus,
) -> Asked:
    text, places = _text(tokens)
    doc_id = corpus.add(title, text)
    answers: list[str] = []
    found: list[Place] = []
    for one in annotations:
        if said := YES_NO.get(one.get("yes_no_answer", -1)):
            answers.append(said)
        for short in listed(one.get("short_answers")):
            if span := _span(short, places, where):
                answers.append(" ".join(text[span[0] : span[1]].split()))
        if span := _span(one.get("long_answer") or {}, places, where):
            found.append(Place(doc_id, *span))
            if not listed(one.get("short_answers")) and YES_NO.get(one.get("yes_no_answer", -1)) is None:
                answers.append(" ".join(text[span[0] : span[1]].split()))
    pieces = [tuple(dict.fromkeys(found))] if found else []
    return Asked(name, composed(question), tuple(dict.fromkeys(answers)), where, evidence=pieces, unit=doc_id)


def _text(tokens: Tokens) -> tuple[str, list[tuple[int, int]]]:
    """The text without tags, and where each token stands in it; a tag has no length."""
    text, places, length, before = [], [], 0, ""
    for token, is_tag in tokens:
        name = token.strip("</> ").split(" ")[0].lower()
        if is_tag:
            before = "\n\n" if name in BLOCKS else before
            places.append((length, length))
            continue
        token = composed(token)
        space = (before or " ") if length else ""
        text.append(space + token)
        places.append((length + len(space), length + len(space) + len(token)))
        length, before = places[-1][1], ""
    return "".join(text), places


def _span(given: Mapping[str, Any], places: Sequence[tuple[int, int]], where: str) -> tuple[int, int] | None:
    """First and last character of some tokens; None where nothing was marked."""
    start, end = (_number(given.get(key)) for key in ("start_token", "end_token"))
    if start is None or end is None or start < 0 or end <= start:
        return None
    if end > len(places):
        raise InputError(f"{where}: an answer ends with token {end}, and the document has {len(places)}")
    inside = [place for place in places[start:end] if place[0] < place[1]]
    return (inside[0][0], inside[-1][1]) if inside else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None


FORMS = (
    Form(
        "nq",
        "Natural Questions, a table of the hub",
        (
            needs("question.text", "document.tokens.token", "annotations.short_answers"),
            needs("question.text", "document.tokens[].token", "annotations[].short_answers"),
            needs("question.text", "document.tokens.token", "annotations[].short_answers"),
        ),
        Annotated,
        _annotated,
    ),
    Form(
        "nq-simplified",
        "Natural Questions, simplified lines",
        (needs("question_text", "document_text", "annotations[].short_answers"),),
        Simplified,
        _simplified,
    ),
)
