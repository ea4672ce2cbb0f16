"""What a retriever is: query -> ranking.

Three ways to make one. `TextRetriever` builds an index from texts (BM25, and researchers' own); `Dense` searches
vectors; `Fusion` combines rankings of others. The stages of an experiment know these three.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from workbench.component import Component
from workbench.machine import Machine
from workbench.retrieval.ranking import Ranked


class OpenIndex(ABC):
    """An index in memory that answers queries."""

    @abstractmethod
    def search(self, queries: Sequence[str], depth: int) -> list[Ranked]:
        """For each query passage numbers int32 and scores float32, best first, at most `depth`; see `ranking.best`."""


class Retriever(Component):
    """Base of all retrievers; `kind` names the class in a configuration."""

    kind: str


class TextRetriever(Retriever, ABC):
    """A retriever with an index of its own, made from texts."""

    @abstractmethod
    def build(self, texts: Sequence[str], folder: Path, machine: Machine) -> None:
        """Writes an index of `texts` (passage number = position) into an empty folder."""

    @abstractmethod
    def open(self, folder: Path, machine: Machine) -> OpenIndex:
        """Opens what `build` wrote."""
