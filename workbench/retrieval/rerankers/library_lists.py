"""Rerankers of the package `rerankers` that read all passages of a question together (RankGPT and its kin).

What such a model says of a passage depends on those beside it, so rankings are stored, not pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from workbench.machine import Machine
from workbench.retrieval.rerankers.base import Reranker
from workbench.retrieval.rerankers.library import LibraryModel


class LibraryLists(LibraryModel, Reranker):
    """The order that the package gives; its scores, where it has some, play no part."""

    kind: Literal["library_lists"] = "library_lists"

    def rerank(
        self, query: str, passages: Sequence[str], scores: np.ndarray, machine: Machine, **references: object
    ) -> np.ndarray:
        """0 for the first passage, -1 for the second; passages that the model left out follow in the order they came.

        Args:
            query: the question.
            passages: texts of the n passages.
            scores: float32 (n,), those of the ranking; not read.
            machine: where to compute.
            references: none.

        Returns:
            float64 (n,), higher is better.
        """
        if not passages:
            return np.zeros(0)
        results = self.asked(self.load(machine), query, passages)
        named = dict.fromkeys(result.document.doc_id for result in results)  # a model may name one twice
        order = [*named, *(n for n in range(len(passages)) if n not in named)]
        new = np.empty(len(passages))
        new[order] = -np.arange(len(passages))
        return new
