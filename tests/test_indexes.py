"""FAISS indexes: each against exact search, the same alone and among others, and the same when built again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from workbench.component import file_digest
from workbench.retrieval.dense import Dense
from workbench.retrieval.faiss_index import FILE, AutoIndex, FlatIndex, Index
from workbench.retrieval.indexes import AnyIndex

N, D, DEPTH = 10_500, 64, 10  # enough to learn 8-bit codes from
SETTINGS = {
    "flat": {"kind": "flat"},
    "ivf": {"kind": "ivf", "nprobe": 64},
    "ivfpq": {"kind": "ivfpq", "nprobe": 64, "refine": 16, "parts": 4},
    "fastscan": {"kind": "fastscan", "nprobe": 64, "refine": 16},
    "hnsw": {"kind": "hnsw"},
    "auto": {"kind": "auto"},
}


def index(values: object) -> Index:
    return TypeAdapter(AnyIndex).validate_python(values)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Unit vectors in clusters, as texts are, with two equal ones."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, D))
    rows = centres[rng.integers(60, size=N)] + 0.7 * rng.normal(size=(N, D))
    rows[1] = rows[0]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray) -> dict[str, Path]:
    """Every kind, built once."""
    made = {kind: tmp_path_factory.mktemp(kind) for kind in SETTINGS}
    for kind, folder in made.items():
        index(SETTINGS[kind]).build(vectors, folder)
    return made


@pytest.fixture(scope="module")
def queries(vectors: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    rows = vectors[rng.choice(N, 50, replace=False)] + 0.05 * rng.normal(size=(50, D))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def exact(vectors: np.ndarray, query: np.ndarray, depth: int) -> list[int]:
    scores = (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    return sorted(range(len(vectors)), key=lambda i: (-scores[i], i))[:depth]


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_index_finds_the_nearest_and_orders_them_exactly(
    folders: dict[str, Path], kind: str, vectors: np.ndarray, queries: np.ndarray
) -> None:
    made = index(SETTINGS[kind])
    rows = Dense(embedder="e", index=made).rank(made.open(folders[kind]), vectors, queries, DEPTH)
    found = [len(set(ids.tolist()) & set(exact(vectors, q, DEPTH))) for q, (ids, _) in zip(queries, rows, strict=True)]
    assert np.mean(found) / DEPTH >= (1.0 if kind in ("flat", "auto") else 0.95)
    for query, (ids, scores) in zip(queries, rows, strict=True):
        np.testing.assert_allclose(scores, vectors[ids].astype(np.float64) @ query.astype(np.float64), rtol=1e-6)
        assert ids.tolist() == sorted(ids.tolist(), key=lambda i: (-scores[ids.tolist().index(i)], i))


@pytest.mark.parametrize("kind", SETTINGS)
def test_one_query_alone_finds_what_it_finds_among_others(
    folders: dict[str, Path], kind: str, vectors: np.ndarray, queries: np.ndarray
) -> None:
    made = index(SETTINGS[kind])
    opened, dense = made.open(folders[kind]), Dense(embedder="e", index=made)
    together = dense.rank(opened, vectors, queries, DEPTH)
    for query, (ids, scores) in zip(queries, together, strict=True):
        ((alone, values),) = dense.rank(opened, vectors, query[None], DEPTH)
        assert alone.tolist() == ids.tolist() and values.tolist() == scores.tolist()


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_index_built_again_is_the_same_to_the_byte(
    folders: dict[str, Path], tmp_path: Path, kind: str, vectors: np.ndarray
) -> None:
    index(SETTINGS[kind]).build(vectors, tmp_path)
    assert file_digest(tmp_path / FILE) == file_digest(folders[kind] / FILE)


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("n", [1, 2, 40])
def test_a_few_vectors_are_enough(tmp_path: Path, kind: str, n: int, vectors: np.ndarray, queries: np.ndarray) -> None:
    """Fewer vectors than the depth, than cells, than codes."""
    made = index(SETTINGS[kind])
    made.build(vectors[:n], tmp_path)
    rows = Dense(embedder="e", index=made).rank(made.open(tmp_path), vectors[:n], queries, 50)
    assert all(ids.tolist() == exact(vectors[:n], query, n) for query, (ids, _) in zip(queries, rows, strict=True))


def test_hundreds_of_equal_passages_come_in_the_order_of_their_numbers(tmp_path: Path, queries: np.ndarray) -> None:
    """More of them than an index proposes: which ones it proposes must not show."""
    equal = np.repeat(queries[:1], 500, axis=0)
    FlatIndex().build(equal, tmp_path)
    opened, dense = FlatIndex().open(tmp_path), Dense(embedder="e")
    for asked in (queries[:1], queries[:30]):
        assert all(ids.tolist() == list(range(DEPTH)) for ids, _ in dense.rank(opened, equal, asked, DEPTH))


def test_auto_says_what_it_picked_and_why(tmp_path: Path, vectors: np.ndarray) -> None:
    assert AutoIndex().build(vectors, tmp_path) == {"chosen": "flat", "reason": "10,500 vectors are few enough to compare all"}
    assert AutoIndex().choice(100_000, 384)[0].kind == "ivf"
    chosen, reason = AutoIndex(memory_gb=1).choice(1_000_000, 384)
    assert chosen.kind == "fastscan" and "1.5 GB, more than 1 GB" in reason


def test_a_kind_stands_for_its_defaults_and_an_unknown_one_is_refused() -> None:
    assert index("hnsw") == index({"kind": "hnsw"})
    with pytest.raises(ValidationError, match="'flat', 'ivf', 'ivfpq', 'fastscan', 'hnsw', 'auto'"):
        Dense(embedder="e", index="annoy")
    with pytest.raises(ValidationError, match="nprobes"):
        Dense(embedder="e", index={"kind": "ivf", "nprobes": 3})
