"""TriviaQA (Joshi et al. 2017): answers with other spellings, and documents that hold one of them (distant supervision)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from workbench.data.forms.form import Form, needs
from workbench.data.forms.question import Asked, Corpus
from workbench.data.forms.shape import listed
from workbench.data.leaks import normalized
from workbench.data.readers.json_lines import Filled, Identifier, Record, shown
from workbench.errors import InputError

NOTE = "a document counts as relevant where an accepted answer stands in it (distant supervision); nobody judged it (TriviaQA)"


class TableRow(Record):
    """A row of the hub's table."""

    id: Identifier | None = Field(default=None, alias="question_id", description="a text or a whole number")
    question: Filled = Field(description="a text that is not empty")
    answer: dict[str, Any] = Field(description='{"value": text, "aliases": [text, ...]}')
    pages: dict[str, Any] | list[Any] | None = Field(
        default=None, alias="entity_pages", description="a list of pages with title and wiki_context"
    )
    results: dict[str, Any] | list[Any] | None = Field(
        default=None, alias="search_results", description="a list of results with title and search_context"
    )


class FileRow(Record):
    """An item of the published file, which names its documents without their texts."""

    id: Identifier | None = Field(default=None, alias="QuestionId", description="a text or a whole number")
    question: Filled = Field(alias="Question", description="a text that is not empty")
    answer: dict[str, Any] = Field(alias="Answer", description='{"Value": text, "Aliases": [text, ...]}')


def _table_row(row: TableRow, where: str, corpus: Corpus) -> Iterator[Asked]:
    answers = _answers(row.answer, "value", "aliases", where)
    relevant = {}
    for given, key in ((row.pages, "wiki_context"), (row.results, "search_context")):
        for page in listed(given):
            if text := page.get(key):
                doc_id = corpus.add(str(page.get("title") or ""), str(text))
                if _holds(str(text), answers):
                    relevant[doc_id] = 1
    yield Asked(row.id, row.question, answers, where, relevant=relevant)


def _holds(text: str, answers: Sequence[str]) -> bool:
    words = f" {normalized(text)} "
    return any(f" {said} " in words for answer in answers if (said := normalized(answer)))


def _file_row(row: FileRow, where: str, corpus: Corpus) -> Iterator[Asked]:
    yield Asked(row.id, row.question, _answers(row.answer, "Value", "Aliases", where), where)


def _answers(given: Mapping[str, Any], value: str, aliases: str, where: str) -> tuple[str, ...]:
    found = [given.get(value), *(given.get(aliases) or [])]
    texts = tuple(dict.fromkeys(one for one in found if isinstance(one, str) and one.strip()))
    if not texts:
        raise InputError(f"{where}: the answer holds no text: {shown(dict(given))}; allowed: a text under {value!r}")
    return texts


FORMS = (
    Form(
        "triviaqa",
        "TriviaQA, a table of the hub",
        (needs("question", "answer.value", "answer.aliases"),),
        TableRow,
        _table_row,
        note=NOTE,
    ),
    Form(
        "triviaqa-file",
        "TriviaQA, the published file",
        (needs("Question", "Answer.Value", "Answer.Aliases"),),
        FileRow,
        _file_row,
        documents="folder",
    ),
)
