"""`Ranking`: for each query the passages in order, with scores; and the one order all rankings use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Ranked = tuple[np.ndarray, np.ndarray]  # passage numbers int32 (k,), scores float32 (k,), best first


@dataclass(frozen=True, eq=False)
class Ranking:
    """Passages of each query, best first.

    Attributes:
        query_ids: ids in row order.
        passages: int32 (n_queries, depth), passage numbers (rows of the passages table); -1 where a row ends early.
        scores: float32 (n_queries, depth), falling along a row; -inf where a row has ended.
    """

    query_ids: tuple[str, ...]
    passages: np.ndarray
    scores: np.ndarray

    @classmethod
    def from_rows(cls, query_ids: Sequence[str], rows: Iterable[Ranked], depth: int) -> Ranking:
        """A ranking from one (passages, scores) pair a query, cut to `depth`."""
        passages = np.full((len(query_ids), depth), -1, np.int32)
        scores = np.full((len(query_ids), depth), -np.inf, np.float32)
        for i, (ids, values) in enumerate(rows):
            n = min(depth, len(ids))
            passages[i, :n], scores[i, :n] = ids[:n], values[:n]
        return cls(tuple(query_ids), passages, scores)

    def __len__(self) -> int:
        return len(self.query_ids)

    @property
    def depth(self) -> int:
        """Passages kept per query, at most."""
        return int(self.passages.shape[1])

    def row(self, i: int) -> Ranked:
        """Passages and scores of the i-th query, without the padding."""
        n = int((self.passages[i] >= 0).sum())
        return self.passages[i, :n], self.scores[i, :n]

    def rows(self) -> list[Ranked]:
        """`row` of every query, in order."""
        return [self.row(i) for i in range(len(self))]

    def save(self, folder: Path) -> None:
        """Writes three files into a folder."""
        np.save(folder / "passages.npy", self.passages)
        np.save(folder / "scores.npy", self.scores)
        (folder / "queries.json").write_text(json.dumps(self.query_ids))

    @classmethod
    def load(cls, folder: Path) -> Ranking:
        """Reads what `save` wrote."""
        ids = tuple(json.loads((folder / "queries.json").read_text()))
        return cls(ids, np.load(folder / "passages.npy"), np.load(folder / "scores.npy"))


def best(ids: np.ndarray, scores: np.ndarray, depth: int) -> Ranked:
    """The `depth` best in the one order of the workbench: score falling, then passage number rising.

    Args:
        ids: int32 or int64 (n,), distinct.
        scores: float32 or float64 (n,), rounded to float32 before ordering, so that routes that differ in the last bits agree.
        depth: how many to keep.
    """
    ids, scores = np.asarray(ids, np.int32), np.asarray(scores, np.float32)
    if len(ids) > 4 * depth:  # keeps everything tied with the last one, so that the cut is the order's
        threshold = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        keep = scores >= threshold
        ids, scores = ids[keep], scores[keep]
    order = np.lexsort((ids, -scores))[:depth]
    return ids[order], scores[order]
