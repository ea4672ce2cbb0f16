"""Exact search on the processor: one product of matrices, then the best of each row.

Beside the product, looking at every score costs most. That is done once, in the processor's vector unit: the k best scores stand
in the k groups with the highest maxima, so only these groups are looked into.
"""

from __future__ import annotations

import numpy as np

TOGETHER = 256  # queries in one product
SCORES = 2**26  # held at once: 256 MiB of float32
GROUP = 32


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k vectors with the highest inner products: int64 (m, k), in any order.

    Args:
        vectors: float32 (n, d).
        queries: float32 (m, d).
        k: at most n.
    """
    n, groups = len(vectors), -(-len(vectors) // GROUP)
    rows = max(1, min(TOGETHER, len(queries), SCORES // n))
    # a group is every `groups`-th column, so that maxima are taken over whole stretches of memory; columns from n on stay lowest
    scores = np.full((rows, GROUP * groups), -np.inf, np.float32)
    found = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), rows):
        part = queries[start : start + rows]
        if len(part) == 1:  # reads the vectors once, at the speed of memory
            np.matmul(vectors, part[0], out=scores[0, :n])
        else:
            np.matmul(part, vectors.T, out=scores[: len(part), :n])
        found[start : start + rows] = _best(scores[: len(part)], groups, k)
    return found


def _best(scores: np.ndarray, groups: int, k: int) -> np.ndarray:
    """Columns of the k highest of each row of float32 (m, GROUP * groups) scores."""
    if k >= groups:
        return _highest(scores, k)
    m, n = scores.shape
    inside = _highest(scores.reshape(m, GROUP, groups).max(axis=1), k)
    columns = (inside[:, None] + groups * np.arange(GROUP)[:, None]).reshape(m, -1)
    within = scores.ravel().take(columns + n * np.arange(m)[:, None])
    return np.take_along_axis(columns, _highest(within, k), axis=1)


def _highest(scores: np.ndarray, k: int) -> np.ndarray:
    n = scores.shape[1]
    return np.argpartition(scores, n - k, axis=1)[:, n - k :]
