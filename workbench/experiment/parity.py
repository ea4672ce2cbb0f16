"""Every index held against exact search: what it misses, what it takes, how fast it answers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from workbench.experiment.experiment import Experiment
from workbench.results import table_files
from workbench.results.rows import IndexRow
from workbench.retrieval.indexes import backends
from workbench.retrieval.indexes.base import OpenStore
from workbench.retrieval.indexes.dense import Dense
from workbench.retrieval.indexes.faiss import FlatIndex, OpenFaissIndex
from workbench.stages.indexes import DenseIndex
from workbench.stages.rankings import DenseRanking
from workbench.store.session import Session

FILE = "indexes.csv"
REPEATS = 5  # timings of which the median counts
MOST = 1_000  # queries asked


def check(experiment: Experiment) -> list[IndexRow]:
    """One row for each dense index of an experiment.

    Recall is the share of the passages that exact search ranks first which the index ranks there too, after scoring its
    candidates exactly, as every ranking does. Queries are those of the selection split, at most 1,000.
    """
    rankings: dict[str, DenseRanking] = {}
    for one in experiment.selected_on:
        for stage in one.stages():
            if isinstance(stage, DenseRanking):
                rankings.setdefault(stage.index.key, stage)
    return [_row(experiment, rankings[key]) for key in sorted(rankings)]


def save(experiment: Experiment, folder: Path) -> list[IndexRow]:
    """Rows of `check`, also written to indexes.csv in a run's folder."""
    rows = check(experiment)
    table_files.write(folder / FILE, IndexRow, rows)
    return rows


def sentence(row: IndexRow) -> str:
    """A row in words."""
    name = f"{row.kind} {row.settings}".strip() + (f" ({row.reason})" if row.reason else "")
    quality = f"recall@10 {row.recall_at_10:.4f}, recall@100 {row.recall_at_100:.4f}"
    size = f"built in {row.build_seconds:.1f} s, {row.bytes_per_vector:,.0f} bytes a vector"
    speed = f"{row.queries_per_second:,.0f} queries a second together, {1000 * row.seconds_for_one:.2f} ms for one"
    return f"{name}: {quality}, {size}, {speed}"


def _row(experiment: Experiment, ranking: DenseRanking) -> IndexRow:
    session, stage = experiment.session, ranking.index
    index, vectors = session.read(stage), session.read(ranking.embeddings)
    manifest = session.store.manifest(stage.name, stage.key)
    texts = [query.text for query in session.dataset.split(ranking.split)[:MOST]]
    queries = ranking.encoder.vectors(ranking.encoder.queries(texts), session)
    exact = FlatIndex()
    reference = OpenFaissIndex(exact.make(np.ascontiguousarray(vectors, np.float32)), exact.exact, exact.lookups)
    return IndexRow(
        kind=manifest["facts"].get("chosen", stage.index.kind),
        settings=_said(stage),
        embedder=ranking.retriever.embedder,
        vectors=len(vectors),
        queries=len(queries),
        recall_at_10=recall(ranking.retriever, index, reference, vectors, queries, 10),
        recall_at_100=recall(ranking.retriever, index, reference, vectors, queries, 100),
        backend=_backend(index, session),
        build_seconds=manifest["seconds"],
        bytes_per_vector=sum(file["bytes"] for file in manifest["files"].values()) / max(len(vectors), 1),
        queries_per_second=len(queries) / _median_seconds(lambda: index.candidates(queries, 10, vectors)),
        seconds_for_one=_median_seconds(lambda: index.candidates(queries[:1], 10, vectors)),
        reason=manifest["facts"].get("reason", ""),
        key=stage.key[:12],
    )


def _backend(index: OpenFaissIndex | OpenStore, session: Session) -> str:
    """What searched: FAISS or torch, or a store by itself."""
    if isinstance(index, OpenStore):
        return type(index).__name__.removeprefix("Open").lower()
    return backends.choose(session.machine).name if index.accelerator else "faiss-cpu"


def recall(
    dense: Dense, index: OpenFaissIndex | OpenStore, reference: OpenFaissIndex, vectors: np.ndarray, queries: np.ndarray, k: int
) -> float:
    """Share of the k best passages by exact search that are among the k best by an index; of fewer, where there are fewer.

    Args:
        dense: scores the candidates of both.
        index: of `vectors`.
        reference: an exact index of the same vectors.
        vectors: float32 (n, d), unit length, passage number = row.
        queries: float32 (m, d), unit length.
        k: passages compared for each query.
    """
    found, wanted = dense.rank(index, vectors, queries, k), dense.rank(reference, vectors, queries, k)
    shares = [len(np.intersect1d(a, b)) / max(len(b), 1) for (a, _), (b, _) in zip(found, wanted, strict=True)]
    return float(np.mean(shares))


def _said(stage: DenseIndex) -> str:
    """Settings of an index that differ from its kind's defaults."""
    given = stage.index.model_dump(exclude_defaults=True, exclude={"kind"})
    return ", ".join(f"{name} {value}" for name, value in given.items())


def _median_seconds(call: Callable[[], object]) -> float:
    call()
    found = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return statistics.median(found)
