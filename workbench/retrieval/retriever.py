"""What a retriever is: query -> ranking.

Three ways to make one. `TextRetriever` builds an index from texts (BM25, and researchers' own); `Dense` searches
vectors; `Fusion` combines rankings of others. The stages of an experiment know these three.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from workbench.component import Component
from workbench.machine import Machine
from workbench.retrieval.analyzer import Analyzer, Terms
from workbench.retrieval.ranking import Ranked


class OpenTextIndex(ABC):
    """An index in memory that answers queries."""

    @abstractmethod
    def search(self, queries: Sequence[str], depth: int) -> list[Ranked]:
        """For each query passage numbers int32 and scores float32, best first, at most `depth`; see `ranking.best`."""


class Retriever(Component):
    """Base of all retrievers; `kind` names the class in a configuration."""

    kind: str


class TextRetriever(Retriever, ABC):
    """A retriever with an index of its own, made from texts.

    One that reads terms names its `analyzer` and has `build_from_terms`; its texts are then analysed once for all retrievers
    with that analyzer.

    Class attributes:
        computes: whether a model computes its index or scores, so that these hold for machines with equal bits only.
    """

    computes: ClassVar[bool] = False

    @property
    def analyzer(self) -> Analyzer | None:
        """How texts become terms; None: `build` reads the texts."""
        return None

    def build_from_terms(self, terms: Terms, folder: Path) -> None:
        """Writes an index of analysed texts into an empty folder."""
        raise NotImplementedError(f"{type(self).__name__} names an analyzer but has no build_from_terms")

    @abstractmethod
    def build(self, texts: Sequence[str], folder: Path, machine: Machine) -> None:
        """Writes an index of `texts` (passage number = position) into an empty folder."""

    @abstractmethod
    def open(self, folder: Path, machine: Machine) -> OpenTextIndex:
        """Opens what `build` wrote."""
