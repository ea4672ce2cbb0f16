"""FinanceBench (Islam et al. 2023) and sets like it: questions on reports, with quotations from named pages."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from workbench.data.forms.form import Form, needs
from workbench.data.forms.question import Asked, Corpus, Quote
from workbench.data.readers.json_lines import Filled, Identifier, Record, Text


class Evidence(Record):
    """A quotation; pages count from 0."""

    evidence_text: Text
    doc_name: Text | None = None
    evidence_page_num: int | None = None


class Row(Record):
    """A question on a report."""

    id: Identifier | None = Field(default=None, alias="financebench_id", description="a text or a whole number")
    question: Filled = Field(description="a text that is not empty")
    answer: Filled | None = Field(default=None, description="a text that is not empty, or null")
    doc_name: Text | None = Field(default=None, description="the name of the report")
    evidence: list[Evidence] = Field(description='[{"evidence_text", "doc_name", "evidence_page_num"}, ...]')


def _read(row: Row, where: str, corpus: Corpus) -> Iterator[Asked]:
    pieces = [
        (
            Quote(
                one.evidence_text,
                one.doc_name or row.doc_name,
                None if one.evidence_page_num is None else one.evidence_page_num + 1,
            ),
        )
        for one in row.evidence
        if one.evidence_text.strip()
    ]
    yield Asked(row.id, row.question, None if row.answer is None else (row.answer,), where, evidence=pieces)


FORMS = (
    Form(
        "financebench",
        "FinanceBench",
        (needs("question", "answer", "evidence[].evidence_text"),),
        Row,
        _read,
        documents="folder",
    ),
)
