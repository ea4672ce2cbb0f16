"""Documents -> passages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from workbench.data import tables
from workbench.data.chunking import Chunking
from workbench.data.passages import PassageTable
from workbench.data.scripts import WORD
from workbench.store.session import Session
from workbench.store.stage import Stage

# How long texts are before a tokenizer has counted them
TOKENS_PER_WORD = 1.45  # of English with some code, for sub-word vocabularies of 30,000 to 50,000
TEMPLATE_TOKENS = 90  # of a prompt without question and passages
QUESTION_TOKENS = 20


class Size(NamedTuple):
    """How many passages there are, and their mean length in words."""

    passages: int
    words: float


class PassageStage(Stage[PassageTable]):
    """Base of stages whose artifact is a `PassageTable`: what indexes are made of."""

    @property
    def label(self) -> str:
        """What the passages are, for people."""
        raise NotImplementedError

    def size(self, session: Session) -> Size:
        """How large the table is or will be; tells without computing it."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Passages(PassageStage):
    """Documents -> passages."""

    name: ClassVar = "passages"
    whole: ClassVar = True
    chunking: Chunking
    documents_digest: str
    structure_digest: str = ""  # empty where the chunking does not depend on it

    @property
    def label(self) -> str:
        return self.chunking.label

    def size(self, session: Session) -> Size:
        return session.once(f"size of {self.key}", lambda: self._size(session))

    def _size(self, session: Session) -> Size:
        if not self.chunking.plain:
            lengths = [sum(1 for _ in WORD.finditer(text)) for text in self._cut(session)["text"].to_pylist()]
            return Size(len(lengths), sum(lengths) / max(len(lengths), 1))
        n = words = 0
        size, overlap = self.chunking.words, self.chunking.overlap
        for batch in session.dataset.documents["text"].iterchunks():
            for text in batch:
                length = sum(1 for _ in WORD.finditer(text.as_py()))
                pieces = 1 if size is None else -(-max(length - overlap, 1) // (size - overlap)) if length else 0
                n, words = n + pieces, words + min(length, size or length) * pieces
        return Size(n, words / max(n, 1))

    def settings(self) -> dict[str, Any]:
        structure = {"structure": self.structure_digest} if self.chunking.structured else {}
        return {"chunking": self.chunking.definition(), "documents": self.documents_digest} | structure

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        passages = self._cut(session)
        tables.write(folder / "passages.arrow", passages)
        return {"passages": passages.num_rows}

    def _cut(self, session: Session) -> pa.Table:
        return self.chunking.cut(session.dataset.documents, session.dataset.structure)

    def read(self, folder: Path, session: Session) -> PassageTable:
        return PassageTable(tables.read(folder / "passages.arrow"))
