"""SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018), as the published file has it and as tables of the hub do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from workbench.data.dataset import Place
from workbench.data.forms.form import Form, needs
from workbench.data.forms.question import Asked, Corpus, place
from workbench.data.readers.json_lines import Filled, Identifier, Record, Text
from workbench.data.readers.text import composed, short
from workbench.errors import InputError


class Answer(Record):
    """An answer, and where it begins in the context."""

    text: str
    answer_start: int


class Columns(Record):
    """Answers of a table: texts and their places."""

    text: list[str]
    answer_start: list[int]


class Question(Record):
    """A question of a paragraph."""

    id: Identifier
    question: Filled
    answers: list[Answer]
    is_impossible: bool = False


class Paragraph(Record):
    """A paragraph and its questions."""

    context: str  # as it is written, since places count in it
    qas: list[Question]


class Article(Record):
    """One of the articles of the file."""

    title: Text = Field(default="", description="a text")
    paragraphs: list[Paragraph] = Field(
        description='a list of {"context": text, "qas": [{"id", "question", "answers": [{"text", "answer_start"}]}]}'
    )


class TableRow(Record):
    """A row of a table."""

    id: Identifier = Field(description="a text or a whole number")
    title: Text | None = Field(default="", description="a text")
    context: str = Field(description="a text")
    question: Filled = Field(description="a text that is not empty")
    answers: Columns = Field(description='{"text": [...], "answer_start": [...]}, both empty where nothing answers')


def _articles(article: Article, where: str, corpus: Corpus) -> Iterator[Asked]:
    for paragraph in article.paragraphs:
        for one in paragraph.qas:
            at = f"{where}, question {one.id}"
            answers = [] if one.is_impossible else one.answers
            yield _asked(one.id, one.question, article.title, paragraph.context, answers, at, corpus)


def _table_row(row: TableRow, where: str, corpus: Corpus) -> Iterator[Asked]:
    if len(row.answers.text) != len(row.answers.answer_start):
        raise InputError(f"{where}: answers: received {len(row.answers.text)} texts and {len(row.answers.answer_start)} places")
    answers = [
        Answer(text=text, answer_start=start) for text, start in zip(row.answers.text, row.answers.answer_start, strict=True)
    ]
    yield _asked(row.id, row.question, row.title or "", row.context, answers, where, corpus)


def _asked(name: str, question: str, title: str, context: str, answers: Sequence[Answer], where: str, corpus: Corpus) -> Asked:
    doc_id = corpus.add(title.replace("_", " "), context)
    found = tuple(dict.fromkeys(_place(answer, context, doc_id, where) for answer in answers))
    accepted = tuple(dict.fromkeys(composed(answer.text) for answer in answers))
    return Asked(name, question, accepted, where, evidence=[found] if found else (), unit=title or doc_id, group=doc_id)


def _place(answer: Answer, context: str, doc_id: str, where: str) -> Place:
    end = answer.answer_start + len(answer.text)
    if context[answer.answer_start : end] != answer.text:
        raise InputError(
            f"{where}: the answer {short(answer.text)} does not stand at character {answer.answer_start} of its context, where "
            f"{short(context[max(0, answer.answer_start) : end])} stands"
        )
    return place(doc_id, context, answer.answer_start, len(answer.text))


FORMS = (
    Form(
        "squad", "SQuAD, the published file", (needs("paragraphs[].context", "paragraphs[].qas[].question"),), Article, _articles
    ),
    Form(
        "squad-table",
        "SQuAD, a table",
        (needs("context", "question", "answers.text", "answers.answer_start"),),
        TableRow,
        _table_row,
    ),
)
