"""Documents -> passages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from workbench.data import tables
from workbench.data.chunking import WORD, Chunking, full_text
from workbench.data.dataset import Place
from workbench.evaluation import rankings as ranking_metrics
from workbench.experiment.stages.base import Stage
from workbench.models.prompts import Shown

if TYPE_CHECKING:
    from workbench.experiment.session import Session


@dataclass(frozen=True, eq=False)
class Passages(Stage):
    """Documents -> passages."""

    name: ClassVar = "passages"
    chunking: Chunking
    documents_digest: str

    @property
    def label(self) -> str:
        """What was cut, for people."""
        return self.chunking.label

    def settings(self) -> dict[str, Any]:
        return {"chunking": self.chunking.definition(), "documents": self.documents_digest}

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        passages = self.chunking.cut(session.dataset.documents)
        tables.write(folder / "passages.arrow", passages)
        return {"passages": passages.num_rows}

    def read(self, folder: Path, session: Session) -> PassageTable:
        return PassageTable(tables.read(folder / "passages.arrow"))


class PassageTable:
    """Passages by number, memory-mapped."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return self.table.num_rows

    def place(self, number: int) -> Place:
        """Where a passage stands."""
        return Place(*(self.table[column][number].as_py() for column in ("doc_id", "start", "end")))

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

    def seen(self, number: int) -> ranking_metrics.Seen:
        """A passage as ranking metrics see it."""
        place = self.place(number)
        words = [(place.start + m.start(), place.start + m.end()) for m in WORD.finditer(self.table["text"][number].as_py())]
        following = self.place(number + 1) if number + 1 < len(self) else None
        same = following is not None and following.doc_id == place.doc_id
        return ranking_metrics.Seen(place, words, following.start if same else place.end)
