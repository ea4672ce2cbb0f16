"""Fusion: one ranking from several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from workbench.retrieval.ranking import Ranked, best
from workbench.retrieval.retriever import Retriever


class Fusion(Retriever):
    """Settings of fusion.

    Attributes:
        of: names of the retrievers in the configuration, at least two.
        method: ``rrf``, by ranks; or ``weighted``, by normalised scores.
        k: constant of ``rrf``.
        weights: of the retrievers in ``weighted``, none negative; default: equal. Only their ratio counts.
        normalization: of scores in ``weighted``: ``minmax`` to 0 to 1, or ``z`` to mean 0 and standard deviation 1.
    """

    references: ClassVar = ("of",)

    kind: Literal["fusion"] = "fusion"
    of: tuple[str, ...] = Field(min_length=2)
    method: Literal["rrf", "weighted"] = "rrf"
    k: float = Field(default=60, gt=0)
    weights: tuple[float, ...] | None = None
    normalization: Literal["minmax", "z"] = "minmax"

    @model_validator(mode="after")
    def _weights_fit(self) -> Fusion:
        if twice := [name for i, name in enumerate(self.of) if name in self.of[:i]]:
            raise ValueError(
                f"{twice[0]!r} is fused with itself; name each retriever once, and use weights where one counts more"
            )
        if self.weights is None:
            return self
        if self.method != "weighted":
            raise ValueError("weights belong to method: weighted; reciprocal rank fusion has none")
        if len(self.weights) != len(self.of):
            raise ValueError(f"{len(self.weights)} weights for {len(self.of)} retrievers; give one for each")
        if min(self.weights) < 0 or max(self.weights) <= 0:
            raise ValueError("weights are zero or more, and one of them must be more")
        return self

    def fuse(self, rankings: Sequence[Ranked], depth: int) -> Ranked:
        """One ranking.

        ``rrf``: sum over rankings of 1 / (k + rank), ranks from 1 (Cormack, Clarke and Buettcher, SIGIR 2009). ``weighted``: mean
        of each ranking's normalised scores, weighted, where a passage that a ranking lacks has its lowest (Fox and Shaw, TREC-2,
        1994; Lee, SIGIR 1997).

        Args:
            rankings: one (passages, scores) pair of each retriever, for the same query.
            depth: passages kept.
        """
        scores = self._by_rank(rankings) if self.method == "rrf" else self._by_score(rankings)
        return best(np.fromiter(scores.keys(), np.int32), np.fromiter(scores.values(), np.float64), depth)

    def _by_rank(self, rankings: Sequence[Ranked]) -> dict[int, float]:
        scores: dict[int, float] = defaultdict(float)
        for passages, _ in rankings:
            for rank, passage in enumerate(passages.tolist(), 1):
                scores[passage] += 1 / (self.k + rank)
        return scores

    def _by_score(self, rankings: Sequence[Ranked]) -> dict[int, float]:
        weights = self.weights or (1.0,) * len(rankings)
        found = list(dict.fromkeys(passage for passages, _ in rankings for passage in passages.tolist()))
        fused = dict.fromkeys(found, 0.0)
        for weight, (passages, values) in zip(weights, rankings, strict=True):
            if not len(passages):
                continue
            normal = normalized(values, self.normalization)
            have, lowest = dict(zip(passages.tolist(), normal.tolist(), strict=True)), float(normal.min())
            for passage in found:
                fused[passage] += weight / sum(weights) * have.get(passage, lowest)
        return fused


def normalized(scores: np.ndarray, how: str) -> np.ndarray:
    """Scores of one ranking, float64 (k,), on a scale that rankings share; all zero where they are all equal."""
    values = scores.astype(np.float64)
    offset, scale = (values.min(), np.ptp(values)) if how == "minmax" else (values.mean(), values.std())
    return (values - offset) / scale if scale > 0 else np.zeros_like(values)
