"""A question as every form of question set gives it: its answers, its evidence, and the documents that it brings along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from workbench.data.conversation import History
from workbench.data.dataset import Place, Row
from workbench.data.readers.text import composed


class Quote(NamedTuple):
    """Words that stand in a document and are searched in it.

    Attributes:
        text: the words.
        document: id or name of the file, as the set writes it; None: any document.
        page: of the document, counted from 1; None: not known.
    """

    text: str
    document: str | None = None
    page: int | None = None

    def __str__(self) -> str:
        page = f", page {self.page}" if self.page is not None else ""
        return f"{self.text!r} ({self.document}{page})" if self.document else repr(self.text)


Piece = tuple[Quote | Place, ...]  # one thing that has to be found; any of these will do


@dataclass(frozen=True)
class Asked:
    """One question of a set.

    Attributes:
        id: as the set has it; None: it has none.
        question: the text.
        answers: accepted answers; empty: it cannot be answered; None: nobody wrote any down.
        where: its place in the set, for messages.
        split: ``train``, ``dev`` or ``test``; None: not known.
        evidence: pieces, each of which has to be found.
        relevant: id or name of a document -> grade above 0, where whole documents are judged.
        group: questions of one group are not independent of each other; None: those whose evidence stands in one paragraph.
        unit: what must not be divided between splits; None: `group`, else the document.
        history: what was said before.
        columns: every further column that has a value: name -> value.
    """

    id: str | None
    question: str
    answers: tuple[str, ...] | None
    where: str
    split: str | None = None
    evidence: Sequence[Piece] = ()
    relevant: Mapping[str, int] = field(default_factory=dict)
    group: str | None = None
    unit: str | None = None
    history: History = ()
    columns: Mapping[str, str] = field(default_factory=dict)


class Corpus:
    """The documents that questions bring along; equal ones are kept once."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], str] = {}
        self._texts: dict[str, str] = {}
        self._titles: dict[str, str] = {}

    def add(self, title: str, text: str, name: str = "") -> str:
        """The id of a document: its `name`, else its title, with a number behind it from the second of that name on.

        Args:
            title: may be empty.
            text: kept in Unicode's normal form C.
            name: what the set calls it.
        """
        title, text = composed(title), composed(text)
        if (title, text) not in self._ids:
            wanted = " ".join((name or title or "document").split())
            number, doc_id = 1, wanted
            while doc_id in self._texts:
                number += 1
                doc_id = f"{wanted} ({number})"
            self._ids[title, text] = doc_id
            self._texts[doc_id], self._titles[doc_id] = text, title
        return self._ids[title, text]

    def text(self, doc_id: str) -> str:
        """A document's text."""
        return self._texts[doc_id]

    @property
    def documents(self) -> list[Row]:
        """Rows of `workbench.data.dataset.DOCUMENTS`, in the order in which they came."""
        return [{"id": name, "title": self._titles[name], "text": text} for name, text in self._texts.items()]


def place(doc_id: str, text: str, start: int, length: int) -> Place:
    """A place given by offsets in a text as the set writes it, in the document's text, which is in normal form C.

    Args:
        doc_id: the document.
        text: as the set writes it.
        start: first character in `text`.
        length: in characters of `text`.
    """
    begin = len(composed(text[:start]))
    return Place(doc_id, begin, begin + len(composed(text[start : start + length])))


def whole(doc_id: str, corpus: Corpus) -> Place:
    """All of a document."""
    return Place(doc_id, 0, len(corpus.text(doc_id)))
