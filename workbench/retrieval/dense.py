"""Dense retrieval: nearest passages of a query in an embedder's space."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from workbench.retrieval.faiss_index import FlatIndex, OpenIndex
from workbench.retrieval.indexes import AnyIndex
from workbench.retrieval.ranking import Ranked, best
from workbench.retrieval.retriever import Retriever
from workbench.retrieval.stores.base import OpenStore

OVERFETCH = 32  # candidates beyond the depth, so that rounding in the index cannot lose one of the best
ROUNDING = 1e-6  # of a float32 product of unit vectors


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

    def rank(self, index: OpenIndex | OpenStore, vectors: np.ndarray, queries: np.ndarray, depth: int) -> list[Ranked]:
        """The best passages of each query.

        The index proposes; scores are computed again in float64 and rounded to float32, so that one query alone, a
        batch, and any exact index give the same ranking.

        Args:
            index: of `vectors`.
            vectors: float32 (n, d), unit length, passage number = row.
            queries: float32 (m, d), unit length.
            depth: passages per query.
        """
        if not len(vectors) or not len(queries):
            return [(np.empty(0, np.int32), np.empty(0, np.float32)) for _ in queries]
        found = index.candidates(queries, depth + OVERFETCH)
        return [_rescored(index, vectors, query, ids[ids >= 0], depth) for query, ids in zip(queries, found, strict=True)]


def _rescored(index: OpenIndex | OpenStore, vectors: np.ndarray, query: np.ndarray, ids: np.ndarray, depth: int) -> Ranked:
    """The best of the candidates; of an exact index more of them while the last may tie with some it left out."""
    products = vectors[ids].astype(np.float64) * query.astype(np.float64)
    passages, scores = best(ids, products.sum(axis=1), len(ids))
    if index.exact and depth < len(ids) < len(vectors) and scores[depth - 1] - scores[-1] <= ROUNDING:
        return _rescored(index, vectors, query, index.candidates(query[None], 2 * len(ids))[0], depth)
    return passages[:depth], scores[:depth]
