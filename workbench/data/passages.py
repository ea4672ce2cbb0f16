"""The table of passages, and what prompts, retrievers and ranking metrics see of a passage."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workbench.data.chunking import full_text
from workbench.data.dataset import Place
from workbench.data.scripts import WORD


class Shown(NamedTuple):
    """A passage as a prompt template sees it."""

    title: str
    text: str


@dataclass(frozen=True)
class Seen:
    """A passage of a ranking as ranking metrics see it.

    Attributes:
        place: where it stands.
        words: offsets (start, end) of its words in the document, ascending.
        reach: where the document's next word starts: what is read reaches as far, over white space.
    """

    place: Place
    words: Sequence[tuple[int, int]]
    reach: int


class PassageTable:
    """Passages by their number, which is their row in a table of the schema `chunking.PASSAGES`, memory-mapped."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._places = [table[column] for column in ("doc_id", "start", "end")]  # looked up often

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def place(self, number: int) -> Place:
        """Where a passage stands."""
        return Place(*(column[number].as_py() for column in self._places))

    def shown(self, number: int) -> Shown:
        """A passage as templates see it."""
        return Shown(self.table["title"][number].as_py(), self.table["text"][number].as_py())

    def full_text(self, number: int) -> str:
        """What embedders, BM25 and rerankers read of a passage."""
        return full_text(*self.shown(number))

    def full_texts(self, start: int = 0, end: int | None = None) -> list[str]:
        """`full_text` of all passages, or of those from `start` to before `end`, in order."""
        part = self.table.slice(start, None if end is None else end - start)
        return [full_text(t, x) for t, x in zip(part["title"].to_pylist(), part["text"].to_pylist(), strict=True)]

    def seen(self, number: int) -> Seen:
        """A passage as ranking metrics see it."""
        place = self.place(number)
        words = [(place.start + m.start(), place.start + m.end()) for m in WORD.finditer(self.table["text"][number].as_py())]
        return Seen(place, words, self._reach(number, place))

    def read(self, number: int) -> Place:
        """What is read of a document with a passage: its characters, and the white space up to the next passage."""
        place = self.place(number)
        return place._replace(end=max(place.end, self._reach(number, place)))

    def _reach(self, number: int, place: Place) -> int:
        following = self.place(number + 1) if number + 1 < len(self) else None
        return following.start if following is not None and following.doc_id == place.doc_id else place.end

    def of_documents(self, doc_ids: Collection[str]) -> list[int]:
        """Numbers of the passages of some documents, ascending."""
        chosen = pc.is_in(self.table["doc_id"], value_set=pa.array(sorted(doc_ids), pa.string()))
        return [int(number) for number in np.flatnonzero(chosen.to_numpy())]

    def by_document(self) -> dict[str, list[int]]:
        """Document id -> numbers of its passages, ascending."""
        numbers: dict[str, list[int]] = {}
        for number, doc_id in enumerate(self.table["doc_id"].to_pylist()):
            numbers.setdefault(doc_id, []).append(number)
        return numbers
