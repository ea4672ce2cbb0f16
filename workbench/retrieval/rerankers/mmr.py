"""Maximal marginal relevance: relevant, and unlike what stands above (Carbonell and Goldstein, SIGIR 1998)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from workbench.machine import Machine
from workbench.retrieval.rerankers.base import Embed, Reranker


class MMR(Reranker):
    """Takes one passage after the other: the one with the highest lambda * cos(q, p) - (1 - lambda) * max cos(p, taken).

    Attributes:
        embedder: name of the embedder in the configuration whose vectors are compared.
        relevance: lambda: 1 orders by likeness to the query alone, 0 by unlikeness to what was taken.
    """

    references: ClassVar = ("embedder",)

    kind: Literal["mmr"] = "mmr"
    embedder: str
    relevance: float = Field(default=0.7, ge=0, le=1)

    def rerank(self, query: str, passages: Sequence[str], scores: np.ndarray, machine: Machine, embed: Embed) -> np.ndarray:
        """Falling scores in the order of taking, float64 (n,): n for the first, 1 for the last.

        Args:
            query: the question.
            passages: texts of the n passages, best first.
            scores: float32 (n,), those of the ranking; not read.
            machine: not used: `embed` computes.
            embed: gives the vectors of the question and of the passages.
        """
        if not passages:
            return np.empty(0)
        vectors = embed(passages, query=False).astype(np.float64)
        likeness = (vectors * embed([query], query=True).astype(np.float64)).sum(axis=1)
        order = marginal_order(likeness, vectors, self.relevance)
        found = np.empty(len(passages))
        found[order] = np.arange(len(passages), 0, -1)
        return found


def marginal_order(likeness: np.ndarray, vectors: np.ndarray, relevance: float) -> list[int]:
    """Positions in the order of taking; ties go to the one ranked higher before.

    Args:
        likeness: float64 (n,), cosines to the query.
        vectors: float64 (n, d), unit length.
        relevance: lambda.
    """
    nearest = np.full(len(vectors), -np.inf)  # largest cosine to what was taken
    left = list(range(len(vectors)))
    order: list[int] = []
    while left:
        near = nearest[left] if order else np.zeros(len(left))
        # rounded, since the last bits of a cosine depend on how it was summed
        gains = np.round(relevance * likeness[left] - (1 - relevance) * near, 9)
        order.append(left.pop(int(gains.argmax())))
        nearest = np.maximum(nearest, vectors @ vectors[order[-1]])
    return order
