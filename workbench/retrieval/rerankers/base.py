"""What a reranker is. A new one is a class with `rerank`, or with `score` if it judges each passage by itself.

A reranker may name components of the configuration in its fields `embedder` or `generator`. A `PairScorer` receives their
settings under that name; any other one that names an embedder receives `embed`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from pydantic import Field

from workbench.component import Component
from workbench.machine import Machine
from workbench.retrieval.ranking import Ranked, best

Pair = tuple[str, str]  # query, passage text


class Embed(Protocol):
    """Texts -> vectors of the embedder that a reranker names; each distinct text is embedded once and stored."""

    def __call__(self, texts: Sequence[str], query: bool) -> np.ndarray:
        """Unit vectors float32 (n, d) of queries, or of passages."""


class Reranker(Component, ABC):
    """Base of all rerankers.

    Attributes:
        kind: names the class in a configuration.
        top: passages of a ranking that are looked at again; the rest follow in their order.
    """

    kind: str
    top: int = Field(default=50, ge=1)

    # `*args` with `**references` is how Python's types say that a subclass names arguments of its own; all come by name
    @abstractmethod
    def rerank(
        self, query: str, passages: Sequence[str], scores: np.ndarray, machine: Machine, *args: Any, **references: Any
    ) -> np.ndarray:
        """New scores of a question's passages.

        Args:
            query: the question.
            passages: texts of the n passages, best first.
            scores: float32 (n,), those of the ranking.
            machine: where to compute.
            args: none.
            references: ``embed`` where the reranker names an embedder; of a `PairScorer` as for `score`.

        Returns:
            float (n,), higher is better.
        """

    def reordered(self, ranking: Ranked, new_scores: np.ndarray) -> Ranked:
        """A ranking whose first n passages are ordered by `new_scores`, float (n,), the others behind them as they were.

        The scores of those others fall by one each from the lowest new score, so that scores fall along the ranking.
        """
        passages, _ = ranking
        n = len(new_scores)
        ids, scores = best(passages[:n], new_scores, n)
        rest = passages[n:]
        floor = float(scores[-1]) if n else 0.0
        tail = (floor - np.arange(1, len(rest) + 1)).astype(np.float32)
        return np.concatenate([ids, rest]).astype(np.int32), np.concatenate([scores, tail])


class PairScorer(Reranker):
    """A reranker that scores (query, passage) pairs one by one; each pair is then computed once and stored."""

    references: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def score(self, pairs: Sequence[Pair], machine: Machine, *args: Any, **references: Any) -> Iterator[list[tuple[int, float]]]:
        """Scores of all pairs, higher is better.

        Args:
            pairs: distinct (query, passage text) pairs.
            machine: where to compute.
            args: none; see `Reranker.rerank`.
            references: the components that the fields in `references` name; ``trained``, the folder of a trained scorer.

        Yields:
            After each batch its (position in `pairs`, score) pairs.
        """

    def rerank(
        self, query: str, passages: Sequence[str], scores: np.ndarray, machine: Machine, *args: Any, **references: Any
    ) -> np.ndarray:
        """Scores of one query's passages, pair by pair.

        Args:
            query: the question.
            passages: texts of the n passages.
            scores: float32 (n,), those of the ranking; not read.
            machine: where to compute.
            args: none.
            references: as for `score`.

        Returns:
            float64 (n,), higher is better.
        """
        result = np.zeros(len(passages))
        for batch in self.score([(query, passage) for passage in passages], machine, *args, **references):
            for i, value in batch:
                result[i] = value
        return result
