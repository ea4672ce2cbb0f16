"""RGB (Chen et al. 2024): passages that hold the answer and passages that do not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product

from pydantic import Field

from workbench.data.forms.form import Form, needs
from workbench.data.forms.question import Asked, Corpus
from workbench.data.readers.json_lines import Filled, Identifier, Record

SPELLINGS = 20  # accepted answers of one question, where it has several parts with several spellings each
Answers = str | list[str | list[str]]
Passages = list[str | list[str]]


class Row(Record):
    """A question with passages."""

    id: Identifier | None = Field(default=None, description="a text or a whole number")
    query: Filled = Field(description="a text that is not empty")
    answer: Answers = Field(description="a text, or a list of the parts of the answer, each a text or a list of spellings")
    positive: Passages = Field(description="a list of texts, or for each part of the answer one")
    negative: Passages = Field(description="a list of texts")


def _read(row: Row, where: str, corpus: Corpus) -> Iterator[Asked]:
    relevant = {corpus.add("", text, _named(text)): 1 for text in _flat(row.positive)}
    for text in _flat(row.negative):
        corpus.add("", text, _named(text))
    yield Asked(row.id, row.query, _answers(row.answer), where, relevant=relevant)


def _flat(passages: Passages) -> list[str]:
    return [text for one in passages for text in (one if isinstance(one, list) else [one]) if text.strip()]


def _named(text: str) -> str:
    return " ".join(text.split()[:8])[:60]


def _answers(given: Answers) -> tuple[str, ...]:
    """The accepted answers; those of several parts hold all of them, with commas between."""
    if isinstance(given, str):
        return (given,)
    parts = [[one] if isinstance(one, str) else one for one in given]
    parts = [spellings for one in parts if (spellings := [text for text in one if text.strip()])]
    return tuple(dict.fromkeys(", ".join(chosen) for chosen in islice(product(*parts), SPELLINGS))) if parts else ()


FORMS = (Form("rgb", "RGB", (needs("query", "answer", "positive", "negative"),), Row, _read),)
