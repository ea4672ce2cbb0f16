"""Question sets that tools for retrieval-augmented generation write: ragas, AutoRAG, FlashRAG."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from workbench.data.forms.form import Form, needs, split_named
from workbench.data.forms.question import Asked, Corpus, Quote
from workbench.data.readers.json_lines import Filled, Identifier, Record, Text, shown
from workbench.errors import InputError

HOP = re.compile(r"^<\d+-hop>\s*")  # what ragas writes before the contexts of questions on several
GENERATED = "these questions were made by a language model (ragas), so they may favour what made them"
TWO_LISTS = "a document's id, a list of ids, or a list of lists: all lists are needed, and of each one document"


class RagasRow(Record):
    """A question of a ragas test set."""

    id: Identifier | None = Field(default=None, description="a text or a whole number")
    question: Filled = Field(alias="user_input", description="a text that is not empty")
    reference: Text | None = Field(default=None, description="a text, or null")
    contexts: list[Text] | None = Field(default=None, alias="reference_contexts", description="a list of texts, or null")


class OldRagasRow(Record):
    """A question as ragas wrote them before its release 0.2."""

    question: Filled = Field(description="a text that is not empty")
    ground_truth: Text | None = Field(default=None, description="a text, or null")
    contexts: list[Text] | None = Field(default=None, description="a list of texts, or null")


class AutoRagRow(Record):
    """A question of AutoRAG, judged on the chunks of a corpus file beside it."""

    id: Identifier | None = Field(default=None, alias="qid", description="a text or a whole number")
    query: Filled = Field(description="a text that is not empty")
    retrieval_gt: Any = Field(description=TWO_LISTS)
    answers: list[Filled] | Filled | None = Field(default=None, alias="generation_gt", description="a text or a list of texts")


class FlashRow(Record):
    """A question of FlashRAG."""

    id: Identifier | None = Field(default=None, description="a text or a whole number")
    question: Filled = Field(description="a text that is not empty")
    answers: list[Filled] = Field(alias="golden_answers", description="a list of texts")
    split: Text | None = Field(default=None, description="train, dev or test")


def _ragas(row: RagasRow, where: str, corpus: Corpus) -> Iterator[Asked]:
    yield Asked(row.id, row.question, _one(row.reference), where, evidence=_quoted(row.contexts))


def _old_ragas(row: OldRagasRow, where: str, corpus: Corpus) -> Iterator[Asked]:
    yield Asked(None, row.question, _one(row.ground_truth), where, evidence=_quoted(row.contexts))


def _one(answer: str | None) -> tuple[str, ...] | None:
    return None if answer is None or not answer.strip() else (answer,)


def _quoted(contexts: list[str] | None) -> list[tuple[Quote, ...]]:
    texts = dict.fromkeys(HOP.sub("", context).strip() for context in contexts or ())
    return [(Quote(text),) for text in texts if text]


def _autorag(row: AutoRagRow, where: str, corpus: Corpus) -> Iterator[Asked]:
    """Ids of chunks; whoever has the corpus puts the chunks' places in the documents for them."""
    given = row.retrieval_gt
    outer = [given] if isinstance(given, str) else given
    lists = [[one] if isinstance(one, str) else one for one in outer] if isinstance(outer, list) else None
    if lists is None or not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists):
        raise InputError(f"{where}: retrieval_gt: received {shown(given)}; allowed: {TWO_LISTS}")
    if isinstance(outer, list) and outer and all(isinstance(one, str) for one in outer):
        lists = [list(outer)]  # a single list: any of these
    answers = (row.answers,) if isinstance(row.answers, str) else None if row.answers is None else tuple(row.answers)
    pieces = [tuple(Quote("", name) for name in one) for one in lists if one]
    yield Asked(row.id, row.query, answers, where, evidence=pieces)


def _flash(row: FlashRow, where: str, corpus: Corpus) -> Iterator[Asked]:
    yield Asked(row.id, row.question, tuple(dict.fromkeys(row.answers)), where, split=split_named(row.split, where))


FORMS = (
    Form("ragas", "a test set of ragas", (needs("user_input", "reference"),), RagasRow, _ragas, "either", GENERATED),
    Form(
        "ragas-0.1",
        "a test set of ragas before 0.2",
        (needs("question", "ground_truth", "contexts", "evolution_type"),),
        OldRagasRow,
        _old_ragas,
        "either",
        GENERATED,
    ),
    Form("autorag", "AutoRAG", (needs("query", "retrieval_gt"),), AutoRagRow, _autorag, "either"),
    Form("flashrag", "FlashRAG", (needs("question", "golden_answers"),), FlashRow, _flash, "folder"),
)
