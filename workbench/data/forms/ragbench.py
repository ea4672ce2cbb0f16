"""RAGBench (Friel et al. 2024): documents in numbered sentences, an answer by a model, and which sentences it uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from workbench.data.dataset import Place
from workbench.data.forms.form import Form, needs
from workbench.data.forms.question import Asked, Corpus, place
from workbench.data.readers.json_lines import Filled, Identifier, Record, Text, shown
from workbench.errors import InputError

SENTENCES = '[[["0a", sentence], ...] of each document]'
NOTE = "the answers were written by a language model, and the sentences they use were marked by one (RAGBench)"


class Row(Record):
    """A question with its documents."""

    id: Identifier | None = Field(default=None, description="a text or a whole number")
    question: Filled = Field(description="a text that is not empty")
    response: Text = Field(description="a text")
    documents: list[str] = Field(description="a list of texts")
    documents_sentences: list[Any] = Field(description=SENTENCES)
    used: list[str] = Field(default=[], alias="all_utilized_sentence_keys", description='a list of keys such as "0a"')


def _read(row: Row, where: str, corpus: Corpus) -> Iterator[Asked]:
    if len(row.documents) != len(row.documents_sentences):
        raise InputError(
            f"{where}: received {len(row.documents)} documents and sentences of {len(row.documents_sentences)}; they "
            f"belong together"
        )
    places: dict[str, Place] = {}
    for text, sentences in zip(row.documents, row.documents_sentences, strict=True):
        places |= _sentences(text, corpus.add("", text, _named(text)), sentences, where)
    pieces = [(places[key],) for key in dict.fromkeys(row.used) if key in places]
    answers = (row.response,) if row.response.strip() else ()
    yield Asked(row.id, row.question, answers, where, evidence=pieces)


def _named(text: str) -> str:
    """What a document without a title is called: the beginning of its first line."""
    return " ".join(text.split()[:8])[:60] or "document"


def _sentences(text: str, doc_id: str, given: Any, where: str) -> dict[str, Place]:
    """Key of each sentence -> where it stands, one behind the other."""
    found, start = {}, 0
    for pair in given if isinstance(given, list) else [given]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair)):
            raise InputError(f"{where}: documents_sentences: received {shown(pair)}; allowed: {SENTENCES}")
        key, sentence = pair
        at = text.find(sentence.strip(), start)
        if sentence.strip() and at >= 0:
            found[key] = place(doc_id, text, at, len(sentence.strip()))
            start = at + len(sentence.strip())
    return found


FORMS = (
    Form("ragbench", "RAGBench", (needs("question", "response", "documents", "documents_sentences"),), Row, _read, note=NOTE),
)
