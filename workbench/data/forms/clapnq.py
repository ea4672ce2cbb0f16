"""CLAP NQ (Rosenthal et al. 2024): long answers, and the sentences of a passage that they rest on."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from workbench.data.dataset import Place
from workbench.data.forms.form import Form, needs
from workbench.data.forms.question import Asked, Corpus, place
from workbench.data.readers.json_lines import Filled, Identifier, Record, Text


class Passage(Record):
    """A passage of a question, whole and in sentences."""

    title: Text = ""
    text: str
    sentences: list[str] = Field(default=[])


class Output(Record):
    """An answer of an annotator, and the sentences of the passage that it rests on, as texts or by their numbers."""

    answer: Text = ""
    selected_sentences: list[int | str] = Field(default=[])


class Row(Record):
    """A question with its passages."""

    id: Identifier | None = Field(default=None, description="a text or a whole number")
    question: Filled = Field(alias="input", description="a text that is not empty")
    passages: list[Passage] = Field(description='[{"title", "text", "sentences"}, ...]')
    output: list[Output] = Field(default=[], description='[{"answer", "selected_sentences"}, ...]')


def _read(row: Row, where: str, corpus: Corpus) -> Iterator[Asked]:
    ids = [corpus.add(passage.title, passage.text) for passage in row.passages]
    answers = tuple(dict.fromkeys(one.answer for one in row.output if one.answer.strip()))
    chosen = dict.fromkeys(sentence for one in row.output for sentence in one.selected_sentences if one.answer.strip())
    pieces = [piece for sentence in chosen if (piece := _piece(sentence, row.passages, ids))]
    yield Asked(row.id, row.question, answers, where, evidence=pieces, unit=ids[0] if ids else None)


def _piece(sentence: int | str, passages: list[Passage], ids: list[str]) -> tuple[Place, ...]:
    """Where a sentence stands in the passages."""
    found = []
    for passage, doc_id in zip(passages, ids, strict=True):
        numbered = isinstance(sentence, int)
        text = passage.sentences[sentence] if isinstance(sentence, int) and sentence < len(passage.sentences) else sentence
        if isinstance(text, str) and text.strip() and (at := passage.text.find(text.strip())) >= 0:
            found.append(place(doc_id, passage.text, at, len(text.strip())))
        if numbered:
            break  # numbers count in the first passage
    return tuple(found)


FORMS = (Form("clapnq", "CLAP NQ", (needs("input", "passages[].sentences"),), Row, _read),)
