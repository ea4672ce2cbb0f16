"""MaxSim: late interaction over token vectors (Khattab and Zaharia, ColBERT, SIGIR 2020, arXiv:2004.12832, section 3.3)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np

from workbench.machine import Machine
from workbench.retrieval.embedders.base import AnyEmbedder
from workbench.retrieval.rerankers.base import Pair, PairScorer


class MaxSim(PairScorer):
    """Mean over the query's tokens of the largest cosine with any token of the passage.

    Attributes:
        embedder: name of the embedder in the configuration whose token vectors are compared.
    """

    references: ClassVar = ("embedder",)

    kind: Literal["maxsim"] = "maxsim"
    embedder: str

    def score(self, pairs: Sequence[Pair], machine: Machine, embedder: AnyEmbedder) -> Iterator[list[tuple[int, float]]]:
        """Scores in -1 to 1; 0 where the query or the passage has no token. Each distinct passage is encoded once."""
        loaded = embedder.load(machine)
        queries = _token_vectors(loaded.encode_tokens(texts), texts) if (texts := sorted({q for q, _ in pairs})) else {}
        wanted: dict[str, list[int]] = defaultdict(list)
        for i, (_, passage) in enumerate(pairs):
            wanted[passage].append(i)
        passages = list(wanted)
        for batch in loaded.encode_tokens(passages):
            yield [(i, maxsim(queries[pairs[i][0]], tokens)) for number, tokens in batch for i in wanted[passages[number]]]


def _token_vectors(batches: Iterator[list[tuple[int, np.ndarray]]], texts: Sequence[str]) -> dict[str, np.ndarray]:
    return {texts[i]: vectors for batch in batches for i, vectors in batch}


def maxsim(query: np.ndarray, passage: np.ndarray) -> float:
    """Mean over rows of `query` of the largest inner product with a row of `passage`, to six decimals.

    Both are float32, (m, d) and (n, d). Rounding hides the last bits of the products, which differ between one pair alone
    and many.
    """
    if not len(query) or not len(passage):
        return 0.0
    products = query.astype(np.float64) @ passage.astype(np.float64).T
    return round(float(products.max(axis=1).mean()), 6)
