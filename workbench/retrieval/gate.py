"""Selective retrieval: passages are shown to the generator only where the ranking is sure of its best one.

A generator that knows the answer is led astray by passages that do not fit (Mallen et al., ACL 2023, arXiv:2212.10511, who decide
by how popular what a question is about is; here the scores of the ranking decide). From which score on passages help is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, inf
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from workbench.component import Component


class Point(NamedTuple):
    """What a threshold would have brought: how many questions go without passages, and the mean score of all."""

    threshold: float
    without_passages: int
    mean: float


class Gate(Component):
    """When passages are shown: where the ranking is sure enough, which a threshold decides.

    Attributes:
        when: ``top_score``, the score of the first passage; or ``margin``, by how much it is above that of the second.
        questions: train questions that the threshold is learned from, at most.
    """

    when: Literal["top_score", "margin"]
    questions: int = Field(default=100, ge=1)

    @property
    def label(self) -> str:
        """``margin``, or ``margin of 50`` with another number of questions."""
        usual = self.questions == type(self).model_fields["questions"].default
        return self.when if usual else f"{self.when} of {self.questions}"

    def sureness(self, scores: np.ndarray) -> float:
        """How sure a ranking is of its first passage.

        Args:
            scores: float (n,), best first. Minus infinity for none; alone, the first is held against 0, the score that BM25 gives
                to passages it leaves out.
        """
        if not len(scores):
            return -inf
        first = float(np.float32(scores[0]))
        if self.when == "top_score":
            return first
        return first - (float(np.float32(scores[1])) if len(scores) > 1 else 0.0)


def curve(sureness: Sequence[float], shown: Sequence[float], hidden: Sequence[float]) -> list[Point]:
    """What every threshold would have brought; passages are shown where a ranking is surer than the threshold.

    Args:
        sureness: of the ranking of each question.
        shown: score of its answer with passages.
        hidden: score of its answer without.

    Returns:
        Minus infinity, where all questions that have passages are shown them, and every sureness seen, rising. The last one
        shows passages to no question. Sums are exact, so that equal means are equal numbers.
    """
    points = []
    for threshold in sorted({-inf, *sureness}):
        chosen = [a if sure > threshold else b for sure, a, b in zip(sureness, shown, hidden, strict=True)]
        without = sum(sure <= threshold for sure in sureness)
        points.append(Point(threshold, without, fsum(chosen) / len(chosen)))
    return points


def best(points: Sequence[Point]) -> Point:
    """The point with the highest mean; of equal ones, that with the fewest questions without passages."""
    return max(points, key=lambda point: (point.mean, -point.without_passages))
