"""Where evidence stands in documents: letter by letter, else by letters and digits alone; a page or document is a hint."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from workbench.data.dataset import Place
from workbench.data.letters import Lettered
from workbench.data.readers.text import short


class Quote(NamedTuple):
    """A text that was copied from a document.

    Attributes:
        text: the text.
        document: the id of the document, or the name of its file without its folder or ending; None where it is not known.
        page: the number of the page, counted from 1, or None.
    """

    text: str
    document: str | None = None
    page: int | None = None


class Page(NamedTuple):
    """Characters `start` to `end` of a document, and the page's label."""

    start: int
    end: int
    label: str


class Found(NamedTuple):
    """Where a piece of evidence stands.

    Attributes:
        places: empty where it stands nowhere.
        lettered: whether its letters and digits alone were found.
        elsewhere: whether it stands on another page than was named.
    """

    places: list[Place]
    lettered: bool = False
    elsewhere: bool = False


def places(evidence: str, documents: Mapping[str, str]) -> Iterator[Place]:
    """Every place a sentence stands at, any white space matching any other.

    Args:
        evidence: the sentence.
        documents: document id -> text.
    """
    pattern = re.compile(r"\s+".join(map(re.escape, evidence.split())))
    for doc_id, text in documents.items():
        for match in pattern.finditer(text):
            yield Place(doc_id, match.start(), match.end())


class Finder:
    """Finds evidence in documents; what it makes of a document is made once, when it is first needed."""

    def __init__(self, texts: Mapping[str, str], pages: Mapping[str, Sequence[Page]] | None = None) -> None:
        """The documents.

        Args:
            texts: document id -> text.
            pages: document id -> its pages; those without are not named.
        """
        self._texts = texts
        self._pages = pages or {}
        self._lettered: dict[str, Lettered] = {}
        self._names: dict[str, list[str]] | None = None

    def find(self, piece: Sequence[Quote]) -> Found:
        """Where a piece of evidence stands: every place of each of the quotes, of which one is enough."""
        found = [self._quote(quote) for quote in piece]
        return Found(
            list(dict.fromkeys(place for one in found for place in one.places)),
            any(one.lettered for one in found),
            any(one.elsewhere for one in found),
        )

    def _quote(self, quote: Quote) -> Found:
        ids = self._ids(quote.document)
        longest = max(quote.text.split(), key=len)
        exact = list(places(quote.text, {doc_id: self._texts[doc_id] for doc_id in ids if longest in self._texts[doc_id]}))
        here = self._on(quote.page, exact)
        if here:
            return Found(here)
        sought = Lettered(quote.text)
        rough = [Place(doc_id, *span) for doc_id in ids for span in self._letters(doc_id).find(sought)]
        here = self._on(quote.page, rough)
        if here:
            return Found(here, lettered=True)
        return Found(exact or rough, not exact and bool(rough), elsewhere=bool(exact or rough))

    def _on(self, page: int | None, found: list[Place]) -> list[Place]:
        """The places on a page; all, where none is named."""
        return found if page is None else [place for place in found if str(page) in self._labels(place)]

    def _ids(self, document: str | None) -> Iterable[str]:
        if document is None or document in self._texts:
            return self._texts if document is None else [document]
        if self._names is None:
            self._names = defaultdict(list)
            for doc_id in self._texts:
                path = PurePosixPath(doc_id)
                for name in {path.name, path.stem, path.with_suffix("").as_posix()} - {doc_id}:
                    self._names[name].append(doc_id)
        return self._names.get(document, [])

    def _letters(self, doc_id: str) -> Lettered:
        if doc_id not in self._lettered:
            self._lettered[doc_id] = Lettered(self._texts[doc_id])
        return self._lettered[doc_id]

    def _labels(self, place: Place) -> list[str]:
        """The pages that a place lies on."""
        pages = self._pages.get(place.doc_id, ())
        return [page.label for page in pages if page.start < place.end and place.start < page.end]

    def nearest(self, piece: Sequence[Quote], unread: Callable[[str], str]) -> str:
        """A sentence on evidence that stands nowhere: the place that has most of it, and how much.

        Args:
            piece: the evidence.
            unread: says of a document that is not among these why that is so; empty where it cannot.
        """
        return "; or ".join(self._nearest(quote, unread) for quote in piece)

    def _nearest(self, quote: Quote, unread: Callable[[str], str]) -> str:
        ids = list(self._ids(quote.document))
        if not ids:
            why = unread(quote.document or "")
            return f"{short(quote.text)}: the document {quote.document!r} is not among the documents{why and f' ({why})'}"
        sought = Lettered(quote.text)
        near = [(one, doc_id) for doc_id in ids if (one := self._letters(doc_id).near(sought))]
        if not near:
            return f"{short(quote.text)}: nothing like it stands in {'it' if quote.document else 'the documents'}"
        best, doc_id = min(near, key=lambda one: (-one[0].share, one[1]))
        labels = self._labels(Place(doc_id, best.start, best.end))
        page = f", page {labels[0]}" if labels else ""
        there = " ".join(self._texts[doc_id][best.start : best.end].split())
        return (
            f"{short(quote.text)}: nearest is {doc_id!r}{page}, characters {best.start} to {best.end}, with {best.share:.0%} of "
            f"it: {short(there)}"
        )
