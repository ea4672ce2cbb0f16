"""What a vector store is to dense retrieval: something that proposes passages, as a FAISS index does.

`Dense` scores what it proposes again exactly, from the vectors themselves. So a store can only miss passages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.component import Component
from workbench.retrieval.indexes.backends import CPU, Backend


class VectorStore(Component, ABC):
    """Base of vector stores; `kind` names the class in a configuration.

    An artifact is read by several processes at once and verified by the digests of its files. So what `build` wrote is never
    written again: a store that writes where it reads is opened on a copy.
    """

    kind: str

    @abstractmethod
    def build(self, vectors: np.ndarray, folder: Path, backend: Backend = CPU) -> dict[str, Any]:
        """Writes float32 (n, d) vectors, n at least 1, into an empty folder; returns facts for the artifact's manifest.

        What searches FAISS' indexes here (`backend`) is nothing to a store.
        """

    @abstractmethod
    def open(self, folder: Path, backend: Backend = CPU, say: Callable[[str], None] = lambda text: None) -> OpenStore:
        """Opens what `build` wrote, and leaves it as it is."""

    @property
    def exact(self) -> bool:
        """Whether every vector is compared."""
        return False

    @property
    def learned(self) -> bool:
        """Whether FAISS learns it from the vectors."""
        return False


class OpenStore(ABC):
    """A store that answers.

    Attributes:
        exact: whether its candidates are the nearest for certain.
        lookups: candidates looked up for each one wanted.
        accelerator: None: it searches by itself.
    """

    exact: bool = False
    lookups: int = 1
    accelerator: None = None

    @abstractmethod
    def __len__(self) -> int:
        """Vectors held."""

    @abstractmethod
    def candidates(self, queries: np.ndarray, k: int, vectors: np.ndarray | None = None) -> np.ndarray:
        """Ids of the k nearest vectors of float32 (m, d) queries: int64 (m, at most k); -1 for none. It has its own vectors."""


def padded(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """Rows of ids as int64 (len(rows), width), -1 where a row ends early."""
    found = np.full((len(rows), width), -1, np.int64)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return found
