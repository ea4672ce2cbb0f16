"""Fusion: one ranking from several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from workbench.retrieval.ranking import Ranked, best
from workbench.retrieval.retriever import Retriever


class Fusion(Retriever):
    """Settings of reciprocal rank fusion.

    Attributes:
        of: names of the retrievers in the configuration, at least two.
        k: constant of the formula.
    """

    references: ClassVar = ("of",)

    kind: Literal["fusion"] = "fusion"
    of: tuple[str, ...] = Field(min_length=2)
    method: Literal["rrf"] = "rrf"
    k: float = Field(default=60, gt=0)

    def fuse(self, rankings: Sequence[Ranked], depth: int) -> Ranked:
        """Sum over rankings of 1 / (k + rank), ranks from 1 (Cormack, Clarke and Buettcher, SIGIR 2009).

        Args:
            rankings: one (passages, scores) pair of each retriever, for the same query.
            depth: passages kept.
        """
        scores: dict[int, float] = defaultdict(float)
        for passages, _ in rankings:
            for rank, passage in enumerate(passages.tolist(), 1):
                scores[passage] += 1 / (self.k + rank)
        return best(np.fromiter(scores.keys(), np.int32), np.fromiter(scores.values(), np.float64), depth)
