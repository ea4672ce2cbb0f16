"""FAISS indexes over unit vectors; inner product is the cosine."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np

from workbench.component import Component
from workbench.errors import MissingExtraError

FILE = "index.faiss"


def faiss() -> ModuleType:
    """The module `faiss`, which `faiss-cpu` and `faiss-gpu` both provide.

    Raises:
        MissingExtraError: neither is installed.
    """
    try:
        import faiss as module
    except ModuleNotFoundError as error:
        raise MissingExtraError("faiss-cpu", "cpu", "a dense index") from error
    return module


class FlatIndex(Component):
    """Exact search: every vector is compared."""

    libraries: ClassVar = ("faiss",)

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        """Writes an index of float32 (n, d) vectors into an empty folder; id = row."""
        index = faiss().IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors, np.float32))
        faiss().write_index(index, str(folder / FILE))

    def open(self, folder: Path) -> OpenFlatIndex:
        """Opens what `build` wrote."""
        return OpenFlatIndex(faiss().read_index(str(folder / FILE)))


class OpenFlatIndex:
    """A FAISS index in memory."""

    def __init__(self, index: object) -> None:
        self.index = index

    def candidates(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Ids of the k nearest vectors of float32 (n, d) queries: int64 (n, min(k, size))."""
        _, ids = self.index.search(np.ascontiguousarray(queries, np.float32), min(k, self.index.ntotal))
        return ids


INDEXES: dict[str, type[FlatIndex]] = {"flat": FlatIndex}
