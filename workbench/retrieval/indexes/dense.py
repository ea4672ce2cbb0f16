"""Dense retrieval: nearest passages of a query in an embedder's space."""

from __future__ import annotations

from itertools import chain
from typing import ClassVar, Literal

import numpy as np

from workbench.retrieval.indexes.base import OpenStore
from workbench.retrieval.indexes.faiss import FlatIndex, OpenFaissIndex
from workbench.retrieval.indexes.kinds import AnyIndex
from workbench.retrieval.ranking import Ranked
from workbench.retrieval.retriever import Retriever
from workbench.retrieval.threads import side_by_side

OVERFETCH = 4  # candidates beyond the depth, so that rounding in the index cannot lose one of the best
ROUNDING = 1e-6  # of a float32 product of unit vectors
TOGETHER = 16  # queries scored again at once: few enough that their candidates stay in the processor's cache


class Dense(Retriever):
    """Settings of dense retrieval.

    Attributes:
        embedder: name of the embedder in the configuration.
        index: kind of FAISS index or vector store, or its settings: ``flat``, ``{kind: hnsw, ef_search: 64}``.
    """

    references: ClassVar = ("embedder", "index")

    kind: Literal["dense"] = "dense"
    embedder: str
    index: AnyIndex = FlatIndex()

    def rank(self, index: OpenFaissIndex | OpenStore, vectors: np.ndarray, queries: np.ndarray, depth: int) -> list[Ranked]:
        """The best passages of each query.

        The index proposes; scores are computed again in float64 and rounded to float32, so that one query alone, a
        batch, and any exact index give the same ranking.

        Args:
            index: of `vectors`; where passages were added to it, `vectors` holds theirs too.
            vectors: float32 (n, d), unit length, passage number = row.
            queries: float32 (m, d), unit length.
            depth: passages per query.
        """
        if not len(index) or not len(queries):
            return [(np.empty(0, np.int32), np.empty(0, np.float32)) for _ in queries]
        wanted = depth + OVERFETCH
        found = index.candidates(queries, wanted, vectors)

        def rescored(part: slice) -> list[Ranked]:
            few = _likely(vectors, queries[part], found[part], wanted) if index.lookups > 1 else found[part]
            return _rescored(vectors, queries[part], few)

        ranked = chain.from_iterable(side_by_side(rescored, len(queries), TOGETHER))
        return [_deep_enough(index, vectors, query, row, depth) for query, row in zip(queries, ranked, strict=True)]


def _likely(vectors: np.ndarray, queries: np.ndarray, ids: np.ndarray, n: int) -> np.ndarray:
    """The n best, by scores in float32, of many more candidates."""
    if ids.shape[1] <= n:
        return ids
    # not a matrix product: NumPy would start threads for each, and they go on turning behind it
    scores = np.einsum("qkd,qd->qk", vectors[np.maximum(ids, 0)], queries)
    scores[ids < 0] = -np.inf
    return np.take_along_axis(ids, np.argpartition(scores, -n, axis=1)[:, -n:], axis=1)


def _rescored(vectors: np.ndarray, queries: np.ndarray, ids: np.ndarray) -> list[Ranked]:
    """All candidates int (m, k) of float32 (m, d) queries by their exact scores; see `ranking.best` for the order."""
    products = vectors[np.maximum(ids, 0)].astype(np.float64)
    products *= queries[:, None].astype(np.float64)
    scores = products.sum(axis=2).astype(np.float32)
    scores[ids < 0] = -np.inf
    order = np.lexsort((ids, -scores))
    ids, scores = np.take_along_axis(ids, order, axis=1).astype(np.int32), np.take_along_axis(scores, order, axis=1)
    return [(row[:n], values[:n]) for row, values, n in zip(ids, scores, (ids >= 0).sum(axis=1).tolist(), strict=True)]


def _deep_enough(index: OpenFaissIndex | OpenStore, vectors: np.ndarray, query: np.ndarray, row: Ranked, depth: int) -> Ranked:
    """The best of a query; of an exact index from more candidates while the last may tie with some it left out."""
    ids, scores = row
    while index.exact and depth < len(ids) < len(index) and scores[depth - 1] - scores[-1] <= ROUNDING:
        ((ids, scores),) = _rescored(vectors, query[None], index.candidates(query[None], 2 * len(ids), vectors))
    return ids[:depth], scores[:depth]
