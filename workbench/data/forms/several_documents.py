"""Questions whose answer needs several documents: HotpotQA (Yang et al. 2018) and MuSiQue (Trivedi et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from workbench.data.forms.form import Form, needs
from workbench.data.forms.question import Asked, Corpus, Piece, place, whole
from workbench.data.readers.json_lines import Filled, Identifier, Record, Text, shown
from workbench.errors import InputError

CONTEXT = '[[title, [sentence, ...]], ...], or {"title": [...], "sentences": [[...], ...]}'
FACTS = '[[title, number of the sentence], ...], or {"title": [...], "sent_id": [...]}'


class HotpotRow(Record):
    """A question with paragraphs, and the sentences that support its answer."""

    id: Identifier | None = Field(default=None, description="a text or a whole number")
    own_id: Identifier | None = Field(default=None, alias="_id", description="a text or a whole number")
    question: Filled = Field(description="a text that is not empty")
    answer: Filled | None = Field(default=None, description="a text, or null where it is kept back")
    context: list[Any] | dict[str, list[Any]] = Field(description=CONTEXT)
    supporting_facts: list[Any] | dict[str, list[Any]] = Field(description=FACTS)


class MusiqueParagraph(Record):
    """One of the paragraphs beside a question."""

    title: Text = ""
    paragraph_text: Text
    is_supporting: bool = False


class MusiqueRow(Record):
    """A question with paragraphs, of which some support its answer."""

    id: Identifier = Field(description="a text or a whole number")
    question: Filled = Field(description="a text that is not empty")
    answer: Text | None = Field(default=None, description="a text")
    answer_aliases: list[Filled] = Field(default=[], description="a list of texts")
    answerable: bool = Field(default=True, description="true or false")
    paragraphs: list[MusiqueParagraph] = Field(description='[{"title", "paragraph_text", "is_supporting"}, ...]')


def _hotpot(row: HotpotRow, where: str, corpus: Corpus) -> Iterator[Asked]:
    paragraphs: dict[str, list[tuple[str, list[str], str]]] = {}
    for title, sentences in _pairs(row.context, "sentences", f"{where}: context", CONTEXT):
        if not isinstance(title, str) or not isinstance(sentences, list) or not all(isinstance(one, str) for one in sentences):
            raise InputError(f"{where}: context: received {shown([title, sentences])}; allowed: {CONTEXT}")
        doc_id = corpus.add(title, "".join(_parted(sentences)))
        paragraphs.setdefault(title, []).append((doc_id, sentences, "".join(_parted(sentences))))
    pieces = []
    for title, number in _pairs(row.supporting_facts, "sent_id", f"{where}: supporting_facts", FACTS):
        if piece := _fact(paragraphs.get(title, []), number):
            pieces.append(piece)
    answers = None if row.answer is None else (row.answer,)
    yield Asked(row.id or row.own_id, row.question, answers, where, evidence=list(dict.fromkeys(pieces)))


def _pairs(given: list[Any] | dict[str, list[Any]], second: str, where: str, allowed: str) -> list[tuple[Any, Any]]:
    """Pairs, which tables of the hub keep as two lists."""
    if isinstance(given, dict):
        one, other = given.get("title"), given.get(second)
        if one is None or other is None or len(one) != len(other):
            raise InputError(f"{where}: received {shown(given)}; allowed: {allowed}")
        return list(zip(one, other, strict=True))
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in given):
        raise InputError(f"{where}: received {shown(given)}; allowed: {allowed}")
    return [(pair[0], pair[1]) for pair in given]


def _parted(sentences: list[str]) -> list[str]:
    """Sentences with a blank before each but the first, where none stands."""
    return [one if not number or one[:1].isspace() or not one else f" {one}" for number, one in enumerate(sentences)]


def _fact(paragraphs: list[tuple[str, list[str], str]], number: Any) -> Piece:
    """Where a supporting sentence stands; the published set names some that do not exist, which are left out."""
    found = []
    for doc_id, sentences, text in paragraphs:
        if isinstance(number, int) and 0 <= number < len(sentences):
            parted = _parted(sentences)
            sentence = parted[number].strip()
            start = len("".join(parted[:number])) + len(parted[number]) - len(parted[number].lstrip())
            if sentence:
                found.append(place(doc_id, text, start, len(sentence)))
    return tuple(found)


def _musique(row: MusiqueRow, where: str, corpus: Corpus) -> Iterator[Asked]:
    pieces = []
    for paragraph in row.paragraphs:
        doc_id = corpus.add(paragraph.title, paragraph.paragraph_text)
        if paragraph.is_supporting and row.answerable:
            pieces.append((whole(doc_id, corpus),))
    answers = tuple(dict.fromkeys([*([row.answer] if row.answer else []), *row.answer_aliases]))
    yield Asked(row.id, row.question, answers if row.answerable else (), where, evidence=list(dict.fromkeys(pieces)))


FORMS = (
    Form("hotpotqa", "HotpotQA", (needs("question", "context", "supporting_facts"),), HotpotRow, _hotpot),
    Form("musique", "MuSiQue", (needs("question", "paragraphs[].is_supporting"),), MusiqueRow, _musique),
)
