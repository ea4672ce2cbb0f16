"""Exact search on the processor: products of matrices, block by block, then the best of each row.

Beside the products, looking at every score costs most. That is done in the processor's vector unit. In the first block the k best
scores stand in the k groups with the highest maxima, so only these groups are looked into; of later blocks only the scores
above the lowest that was kept.
"""

from __future__ import annotations

import numpy as np

TOGETHER = 1024  # queries in one product
SCORES = 2**23  # held at once: 32 MiB of float32, most of which the processor's caches hold
BLOCK = 128  # vectors in one product for each one wanted, at least: with fewer, a block's best would be most of it
GROUP = 32


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k vectors with the highest inner products: int64 (m, k), in any order.

    Args:
        vectors: float32 (n, d).
        queries: float32 (m, d).
        k: at most n.
    """
    rows = max(1, min(TOGETHER, len(queries)))
    wide = min(len(vectors), max(SCORES // rows, BLOCK * k))
    room = np.empty(rows * GROUP * -(-wide // GROUP), np.float32)  # memory that is new costs more than filling it
    parts = [_nearest(vectors, queries[start : start + rows], k, wide, room) for start in range(0, len(queries), rows)]
    return np.concatenate(parts) if parts else np.empty((0, k), np.int64)


def _nearest(vectors: np.ndarray, queries: np.ndarray, k: int, wide: int, room: np.ndarray) -> np.ndarray:
    """As `nearest`, in blocks of `wide` vectors, whose scores are written into `room`."""
    above = np.empty(len(room), bool)
    columns, scores = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    for start in range(0, len(vectors), wide):
        products = _products(vectors[start : start + wide], queries, room)
        if start == 0:
            inside = _best(products, min(k, wide))
            found = inside, np.take_along_axis(products, inside, axis=1)
            lowest = found[1].min(axis=1, keepdims=True)
        else:
            found = _above(products, lowest, above)
        columns = np.concatenate([columns, found[0] + start], axis=1)
        scores = np.concatenate([scores, found[1]], axis=1)
        if columns.shape[1] > 16 * k:  # vectors that lie in an order have their best at the end
            columns, scores = _reduced(columns, scores, k)
            lowest = scores.min(axis=1, keepdims=True)
    return _reduced(columns, scores, k)[0]


def _products(block: np.ndarray, queries: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Float32 scores (m, n rounded up to whole groups), lowest where there is no vector."""
    n, groups = len(block), -(-len(block) // GROUP)
    products = room[: len(queries) * GROUP * groups].reshape(len(queries), -1)
    products[:, n:] = -np.inf
    if len(queries) == 1:  # reads the vectors once, at the speed of memory
        np.matmul(block, queries[0], out=products[0, :n])
    else:
        np.matmul(queries, block.T, out=products[:, :n])
    return products


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k highest of each row of float32 (m, a multiple of GROUP) scores.

    Groups are interleaved, so that their maxima are taken over whole stretches of memory.
    """
    m, n = scores.shape
    groups = n // GROUP
    if k >= groups:
        return _highest(scores, k)
    inside = _highest(scores.reshape(m, GROUP, groups).max(axis=1), k)
    columns = (inside[:, None] + groups * np.arange(GROUP)[:, None]).reshape(m, -1)
    within = scores.ravel().take(columns + n * np.arange(m)[:, None])
    return np.take_along_axis(columns, _highest(within, k), axis=1)


def _above(scores: np.ndarray, lowest: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and scores above a row's lowest (m, 1): each (m, the most of any row), filled up with scores of -inf."""
    m, n = scores.shape
    hits = np.flatnonzero(np.greater(scores, lowest, out=room[: m * n].reshape(m, n)))
    rows, inside = np.divmod(hits, n)
    counts = np.bincount(rows, minlength=m)
    place = np.arange(len(hits)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = np.zeros((m, counts.max()), np.int64)
    values = np.full(columns.shape, -np.inf, np.float32)
    columns[rows, place], values[rows, place] = inside, scores.ravel()[hits]
    return columns, values


def _reduced(columns: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    if columns.shape[1] <= k:
        return columns, scores
    kept = _highest(scores, k)
    return np.take_along_axis(columns, kept, axis=1), np.take_along_axis(scores, kept, axis=1)


def _highest(scores: np.ndarray, k: int) -> np.ndarray:
    n = scores.shape[1]
    return np.argpartition(scores, n - k, axis=1)[:, n - k :]
