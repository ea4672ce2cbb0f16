"""The documents of a set: found by their ids, by the names of their files, and by the chunks that were cut from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from workbench.data import finding
from workbench.data.dataset import Place, Row
from workbench.data.evidence import places
from workbench.data.finding import Page
from workbench.data.forms.corpora import Chunk
from workbench.data.forms.question import Piece, Quote


class Library:
    """The documents, found by their ids, by the names of their files, and by the chunks that were cut from them."""

    def __init__(
        self,
        documents: Sequence[Row],
        chunks: Mapping[str, Row],
        cut: Mapping[str, Chunk],
        pages: Mapping[str, Sequence[Page]] | None = None,
    ) -> None:
        """The documents.

        Args:
            documents: rows of `workbench.data.dataset.DOCUMENTS`.
            chunks: id -> row of a part of the documents, which evidence names by its id.
            cut: id of such a part -> where it was cut from.
            pages: document id -> its pages, which evidence may name.
        """
        self.texts: dict[str, str] = {row["id"]: row["text"] for row in documents}
        self._finder = finding.Finder(self.texts, pages)
        self._chunks, self._cut = chunks, cut
        self._named: dict[str, list[str]] = defaultdict(list)
        for doc_id in self.texts:
            path = PurePosixPath(doc_id)
            for name in {path.name, path.stem}:
                self._named[name.casefold()].append(doc_id)

    def named(self, name: str) -> list[str]:
        """Ids of the documents of this id, or whose file has this name, with its ending or without."""
        if name in self.texts:
            return [name]
        path = PurePosixPath(name.replace("\\", "/"))
        found = self._named.get(path.name.casefold()) or self._named.get(path.stem.casefold(), [])
        return found if len(found) < 2 else [one for one in found if one.casefold().endswith(name.casefold())] or found

    def find(self, one: Quote | Place) -> finding.Found:
        """Every place where one of the alternatives of a piece stands."""
        if isinstance(one, Place):
            return finding.Found([one])
        if one.text:
            among: list[str] | list[None] = self.named(one.document) if one.document else [None]
            return self._finder.find([finding.Quote(one.text, name, one.page) for name in among])
        return finding.Found(self._of_chunk(one.document or ""))

    def nearest(self, piece: Piece) -> str:
        """What comes nearest to a piece that stands nowhere."""
        quotes = [one for one in piece if isinstance(one, Quote) and one.text]
        if not quotes:
            return _said(piece)
        known = [finding.Quote(one.text, next(iter(self.named(one.document or "")), one.document), one.page) for one in quotes]
        return self._finder.nearest(known, lambda document: "")

    def _of_chunk(self, name: str) -> list[Place]:
        chunk = self._chunks.get(name)
        if chunk is None:
            return []
        text, cut = chunk["text"], self._cut.get(name)
        among = self.named(cut.path) if cut else list(self.texts)
        if cut and len(among) == 1:
            for end in (cut.end + 1, cut.end):
                if self.texts[among[0]][cut.start : end] == text:
                    return [Place(among[0], cut.start, end)]
        return list(places(text, {doc_id: self.texts[doc_id] for doc_id in among})) if text.strip() else []


def _said(piece: Piece) -> str:
    """A piece of evidence in a message."""
    first = next(iter(piece), None)
    if isinstance(first, Quote):
        return str(first._replace(text=first.text[:80])) if first.text else f"the chunk {first.document!r}"
    return str(first)
