"""FAISS indexes: each against exact search, alone and among others, built again, opened, changed, and with a GPU's stand-ins."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from workbench.component import file_digest
from workbench.errors import InputError
from workbench.machine import cpu_count, fingerprint, resolve
from workbench.retrieval import threads
from workbench.retrieval.indexes import accelerators, backends, exact
from workbench.retrieval.indexes.backends import Backend
from workbench.retrieval.indexes.dense import Dense
from workbench.retrieval.indexes.faiss import FILE, AutoIndex, CagraIndex, FastScanIndex, FlatIndex, Index
from workbench.retrieval.indexes.kinds import AnyIndex

N, D, DEPTH = 10_500, 64, 10  # enough to learn 8-bit codes from
SETTINGS = {
    "flat": {"kind": "flat"},
    "ivf": {"kind": "ivf", "nprobe": 64},
    "ivfpq": {"kind": "ivfpq", "nprobe": 64, "refine": 16, "parts": 4},
    "fastscan": {"kind": "fastscan", "nprobe": 64, "refine": 16},
    "hnsw": {"kind": "hnsw", "m": 16, "ef_construction": 40},
    "cagra": {"kind": "cagra", "degree": 16, "intermediate": 32},
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


def by_scores(vectors: np.ndarray, query: np.ndarray, depth: int) -> list[int]:
    scores = (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    return sorted(range(len(vectors)), key=lambda i: (-scores[i], i))[:depth]


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_index_finds_the_nearest_and_orders_them_exactly(
    folders: dict[str, Path], kind: str, vectors: np.ndarray, queries: np.ndarray
) -> None:
    made = index(SETTINGS[kind])
    rows = Dense(embedder="e", index=made).rank(made.open(folders[kind]), vectors, queries, DEPTH)
    found = [len(set(ids.tolist()) & set(by_scores(vectors, q, DEPTH))) for q, (ids, _) in zip(queries, rows, strict=True)]
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


def test_parts_side_by_side_come_back_in_order_and_an_error_in_one_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "threads_here", lambda: 3)
    names = set()
    ended = {start: threading.Event() for start in (0, 4, 8)}

    def seen(part: slice) -> list[int]:
        """Each part ends after the one behind it."""
        if part.start + 4 in ended:
            ended[part.start + 4].wait(60)
        names.add(threading.current_thread().name)
        ended[part.start].set()
        return list(range(10))[part]

    assert threads.side_by_side(seen, 10, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(names) == 3 and threading.current_thread().name not in names
    assert threads.side_by_side(seen, 3, 4) == [[0, 1, 2]] and threading.current_thread().name in names
    assert threads.side_by_side(seen, 0, 4) == []
    with pytest.raises(ZeroDivisionError):
        threads.side_by_side(lambda part: 1 // part.start, 10, 4)


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_batches_come_in_order_and_leave_torch_its_threads(n: int) -> None:
    torch.set_num_threads(3)
    seen = []
    ended = [threading.Event() for _ in range(n)]

    def work(batch: int) -> int:
        """Every other batch ends after the one behind it."""
        if batch % 2 == 0 and batch + 1 < n:
            ended[batch + 1].wait(60)
        seen.append(torch.get_num_threads())
        if batch < n:
            ended[batch].set()
        return batch * batch

    try:
        assert list(threads.batch_by_batch(work, iter(range(n)))) == [i * i for i in range(n)]
        assert set(seen) <= {3 if n < 2 else 1} and torch.get_num_threads() == 3
        with pytest.raises(ZeroDivisionError):
            list(threads.batch_by_batch(lambda batch: 1 // (batch - 3), range(7)))
        assert next(threads.batch_by_batch(work, range(7))) == 0  # nobody reads the rest
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(cpu_count())


@pytest.mark.parametrize("kind", ["hnsw", "fastscan"])
def test_threads_change_no_ranking(
    folders: dict[str, Path], vectors: np.ndarray, queries: np.ndarray, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for number in (1, 4):
        monkeypatch.setattr(threads, "threads_here", lambda number=number: number)
        opened = index(SETTINGS[kind]).open(folders[kind])
        found.append(Dense(embedder="e").rank(opened, vectors, np.concatenate([queries] * 3), DEPTH))
    for one, four in zip(*found, strict=True):
        assert one[0].tolist() == four[0].tolist() and one[1].tolist() == four[1].tolist()


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
    assert all(ids.tolist() == by_scores(vectors[:n], query, n) for query, (ids, _) in zip(queries, rows, strict=True))


def test_hundreds_of_equal_passages_come_in_the_order_of_their_numbers(tmp_path: Path, queries: np.ndarray) -> None:
    """More of them than an index proposes: which ones it proposes must not show."""
    equal = np.repeat(queries[:1], 500, axis=0)
    FlatIndex().build(equal, tmp_path)
    opened, dense = FlatIndex().open(tmp_path), Dense(embedder="e")
    for asked in (queries[:1], queries[:30]):
        assert all(ids.tolist() == list(range(DEPTH)) for ids, _ in dense.rank(opened, equal, asked, DEPTH))


def test_auto_says_what_it_picked_and_why(tmp_path: Path, vectors: np.ndarray) -> None:
    assert AutoIndex().build(vectors, tmp_path) == {"chosen": "flat", "reason": "10,500 vectors are few enough to compare all"}
    chosen, reason = AutoIndex().choice(100_000, 384)
    assert chosen == FastScanIndex(nlist=633, nprobe=58, refine=2, parts=128)
    assert reason.startswith("100,000 vectors are too many to compare all, and take 0.15 GB: 128 4-bit codes each, 58 of 633 ")
    wide, reason = AutoIndex(memory_gb=0.01).choice(10_000, 384)
    assert wide.parts == 128 and reason.startswith("10,000 vectors take 0.015 GB: ")
    assert AutoIndex(memory_gb=0.001).choice(100_000, 384)[0].parts == 16  # 0.8 MB of codes


def test_a_kind_stands_for_its_defaults_and_an_unknown_one_is_refused() -> None:
    assert index("hnsw") == index({"kind": "hnsw"})
    with pytest.raises(ValidationError, match="'flat', 'ivf', 'ivfpq', 'fastscan', 'hnsw', 'cagra', 'auto'"):
        Dense(embedder="e", index="annoy")
    with pytest.raises(ValidationError, match="nprobes"):
        Dense(embedder="e", index={"kind": "ivf", "nprobes": 3})


@pytest.mark.parametrize(("n", "k"), [(1, 1), (31, 7), (33, 33), (1000, 5), (5000, 40), (5000, 5000)])
def test_exact_search_finds_the_highest_products(n: int, k: int) -> None:
    """Fewer vectors than a group, whole groups and broken ones, batches of one, of some, and of more than one product holds."""
    rng = np.random.default_rng(n)
    vectors, queries = (rng.normal(size=(rows, 8)).astype(np.float32) for rows in (n, exact.TOGETHER + 3))
    wanted = np.sort(np.argsort(-(queries @ vectors.T), axis=1)[:, :k], axis=1)
    for asked in (slice(0, 1), slice(0, 2), slice(None)):
        assert np.array_equal(np.sort(exact.nearest(vectors, queries[asked], k), axis=1), wanted[asked])


@pytest.mark.parametrize("lie", ["anyhow", "best last"])
@pytest.mark.parametrize(("n", "k"), [(100, 3), (257, 100), (1000, 20)])
def test_exact_search_in_blocks_finds_the_same(n: int, k: int, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few vectors, with the best of one query in the first ones or in the last."""
    monkeypatch.setattr(exact, "SCORES", 256)
    monkeypatch.setattr(exact, "BLOCK", 2)
    monkeypatch.setattr(exact, "TOGETHER", 5)
    rng = np.random.default_rng(0)
    vectors, queries = (rng.normal(size=(rows, 8)).astype(np.float32) for rows in (n, 7))
    if lie == "best last":
        vectors = vectors[np.argsort(vectors @ queries[0])]
    wanted = np.sort(np.argsort(queries @ vectors.T, axis=1)[:, n - k :], axis=1)
    for asked in (queries, queries[:1]):
        assert np.array_equal(np.sort(exact.nearest(vectors, asked, k), axis=1), wanted[: len(asked)])


MEMORY = """
import re, sys, numpy
from pathlib import Path
from pydantic import TypeAdapter
from workbench.retrieval.indexes.kinds import AnyIndex
def owned(): return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
made, queries = TypeAdapter(AnyIndex).validate_python(sys.argv[1]), numpy.load(sys.argv[3])
vectors = numpy.load(sys.argv[4], mmap_mode="r")
made.open(Path(sys.argv[2])).candidates(queries[:1], 1, vectors)  # loads FAISS and NumPy's threads
before = owned()
opened = made.open(Path(sys.argv[2]))
opened.candidates(queries[:1], 10, vectors)
print(owned() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory of a process is read from Linux")
@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_an_opened_index_is_mapped_rather_than_read(
    folders: dict[str, Path], tmp_path: Path, kind: str, vectors: np.ndarray, queries: np.ndarray
) -> None:
    np.save(tmp_path / "queries.npy", queries)
    np.save(tmp_path / "vectors.npy", vectors)
    command = [sys.executable, "-c", MEMORY, kind, folders[kind], tmp_path / "queries.npy", tmp_path / "vectors.npy"]
    owned = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert owned < (folders[kind] / FILE).stat().st_size / 2


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_index_that_was_added_to_and_removed_from_ranks_like_one_built_of_the_rest(
    folders: dict[str, Path], tmp_path: Path, kind: str, vectors: np.ndarray, queries: np.ndarray
) -> None:
    made = index(SETTINGS[kind])
    dense, opened = Dense(embedder="e", index=made), made.open(folders[kind])
    nearest = {int(ids[0]) for ids, _ in dense.rank(opened, vectors, queries, 1)}
    new = queries[:20] + 0.01 * vectors[:20]
    new /= np.linalg.norm(new, axis=1, keepdims=True)
    assert opened.add(new).tolist() == list(range(N, N + 20))
    opened.remove([*nearest, 3, N + 19])
    opened.remove([3])
    everything = np.concatenate([vectors, new])
    kept = np.setdiff1d(np.arange(N + 20), [*nearest, 3, N + 19])
    assert len(opened) == len(kept)
    FlatIndex().build(everything[kept], tmp_path)
    wanted = dense.rank(FlatIndex().open(tmp_path), everything[kept], queries, DEPTH)
    found = dense.rank(opened, everything, queries, DEPTH)
    same = [len(set(ids.tolist()) & set(kept[rows].tolist())) for (ids, _), (rows, _) in zip(found, wanted, strict=True)]
    assert np.mean(same) / DEPTH >= (1.0 if opened.exact else 0.95)
    if opened.exact:
        assert all(ids.tolist() == kept[rows].tolist() for (ids, _), (rows, _) in zip(found, wanted, strict=True))
    assert not set(opened.removed) & {int(i) for ids, _ in found for i in ids}
    with pytest.raises(InputError, match=f"allowed: 0 to {N + 19}"):
        opened.remove([N + 20])


def test_an_index_whose_vectors_are_all_removed_finds_nothing_but_what_is_added(
    tmp_path: Path, vectors: np.ndarray, queries: np.ndarray
) -> None:
    FlatIndex().build(vectors[:5], tmp_path)
    opened, dense = FlatIndex().open(tmp_path), Dense(embedder="e")
    opened.remove(range(5))
    assert [len(ids) for ids, _ in dense.rank(opened, vectors[:5], queries, DEPTH)] == [0] * len(queries)
    opened.add(vectors[5:6])
    assert all(ids.tolist() == [5] for ids, _ in dense.rank(opened, vectors[:6], queries, DEPTH))


def test_torch_ranks_as_faiss_does_to_the_bit(folders: dict[str, Path], vectors: np.ndarray, queries: np.ndarray) -> None:
    dense = Dense(embedder="e")
    by_torch = FlatIndex().open(folders["flat"], Backend("torch", "for this test"))
    assert isinstance(by_torch.accelerator, accelerators.Torch)
    for asked in (queries, queries[:1]):
        rows = zip(
            dense.rank(by_torch, vectors, asked, DEPTH),
            dense.rank(FlatIndex().open(folders["flat"]), vectors, asked, DEPTH),
            strict=True,
        )
        assert all(a.tolist() == b.tolist() and x.tolist() == y.tolist() for (a, x), (b, y) in rows)
    # approximate indexes are FAISS' own
    assert index("hnsw").open(folders["hnsw"], Backend("torch", "for this test")).accelerator is None


GPU = Backend("faiss-gpu", "for this test", "cuda")


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS' index on the processor in place of its copy on a GPU, which shows all but the kernels."""
    monkeypatch.setattr(accelerators, "to_gpu", lambda index: index)
    monkeypatch.setattr(faiss, "index_gpu_to_cpu", lambda index: index, raising=False)


@pytest.mark.parametrize("kind", ["flat", "ivf", "ivfpq"])
def test_an_index_built_and_searched_on_a_gpu_opens_without_one(
    copied: None, folders: dict[str, Path], tmp_path: Path, kind: str, vectors: np.ndarray, queries: np.ndarray
) -> None:
    made = index(SETTINGS[kind])
    facts = made.build(vectors, tmp_path, GPU)
    assert facts == ({} if kind == "flat" else {"built": "faiss-gpu"})
    assert file_digest(tmp_path / FILE) == file_digest(folders[kind] / FILE)
    dense, opened = Dense(embedder="e", index=made), made.open(tmp_path, GPU)
    assert isinstance(opened.accelerator, accelerators.FaissGpu)
    for asked in (queries, queries[:1], np.repeat(queries, 6, axis=0)):
        rows = zip(
            dense.rank(opened, vectors, asked, DEPTH), dense.rank(made.open(folders[kind]), vectors, asked, DEPTH), strict=True
        )
        assert all(len(np.intersect1d(a, b)) >= DEPTH - 1 for (a, _), (b, _) in rows)


def broken(*_: object) -> None:
    raise RuntimeError("Error in void allocMemory(): out of memory")


@pytest.mark.parametrize("kind", ["flat", "ivf", "cagra"])
def test_the_processor_does_what_a_gpu_cannot_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, vectors: np.ndarray, queries: np.ndarray
) -> None:
    monkeypatch.setattr(accelerators, "to_gpu", broken)
    monkeypatch.setattr(accelerators, "cagra", broken)
    made, said = index(SETTINGS[kind]), []
    facts = made.build(vectors[:2000], tmp_path, GPU)
    assert kind == "flat" or (facts["built"] == "faiss-cpu" and facts["fallback"].endswith("out of memory"))
    opened = made.open(tmp_path, GPU, said.append)
    assert said == (
        [] if kind == "cagra" else [f"{kind} is searched on the processor: Error in void allocMemory(): out of memory"]
    )
    (plain,) = Dense(embedder="e").rank(made.open(tmp_path), vectors[:2000], queries[:1], DEPTH)
    opened.accelerator = type("Failing", (), {"most": 2048, "candidates": broken})()
    (found,) = Dense(embedder="e").rank(opened, vectors[:2000], queries[:1], DEPTH)
    assert found[0].tolist() == plain[0].tolist()
    assert opened.accelerator is None and said[-1].startswith("search goes on on the processor: ")


def test_cagra_without_a_gpu_is_an_hnsw_graph_and_says_so(tmp_path: Path, vectors: np.ndarray) -> None:
    facts = CagraIndex().build(vectors[:50], tmp_path, Backend("faiss-cpu", "models compute on the processor"))
    assert facts["fallback"] == "cagra is built as hnsw on the processor: models compute on the processor"
    assert CagraIndex().build(vectors[:50], tmp_path, GPU)["fallback"].endswith("50 vectors are too few for a GPU")
    with pytest.raises(ValidationError, match="intermediate 32 must be at least degree 64"):
        CagraIndex(intermediate=32)


def test_a_cagra_graph_is_searched_without_a_gpu_too(
    copied: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vectors: np.ndarray, queries: np.ndarray
) -> None:
    """The graph is of the class that a GPU hands back, filled by the processor."""

    def graph(rows: np.ndarray, degree: int, intermediate: int) -> faiss.Index:
        made = faiss.IndexHNSWCagra(rows.shape[1], degree // 2, faiss.METRIC_L2)
        made.add(rows)
        return made

    monkeypatch.setattr(accelerators, "cagra", graph)
    monkeypatch.setattr(accelerators, "cagra_parameters", lambda kept: faiss.SearchParametersHNSW(efSearch=kept))
    made, some = CagraIndex(degree=16, intermediate=32), vectors[:1200]
    assert made.build(some, tmp_path, GPU) == {"built": "faiss-gpu"}
    for backend in (backends.CPU, GPU):
        opened = made.open(tmp_path, backend)
        assert isinstance(opened.index, faiss.IndexHNSWCagra) and bool(opened.accelerator) == (backend == GPU)
        found = Dense(embedder="e", index=made).rank(opened, some, queries, DEPTH)
        same = [len(set(ids.tolist()) & set(by_scores(some, q, DEPTH))) for q, (ids, _) in zip(queries, found, strict=True)]
        assert np.mean(same) / DEPTH >= 0.95


def test_the_backend_is_the_machines_matter_and_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    here, gpu = resolve(device="cpu"), replace(resolve(device="cpu"), device="cuda", kind="sm_90")
    assert backends.choose(here) == Backend("faiss-cpu", "models compute on the processor")
    monkeypatch.setattr(backends, "gpu_lack", lambda: "")
    assert backends.choose(gpu).name == "faiss-gpu"
    assert backends.arithmetic(gpu, learned=True) == f"faiss-gpu/sm_90/{fingerprint.of_indexes()}"
    assert backends.arithmetic(gpu, learned=False) is None and backends.arithmetic(here, learned=False) is None
    processor = f"faiss-cpu/{fingerprint.of_indexes()}"
    assert backends.arithmetic(here, learned=True) == processor
    monkeypatch.setattr(backends, "gpu_lack", lambda: "this FAISS has no GPU kernels")
    assert backends.choose(gpu) == Backend("torch", "this FAISS has no GPU kernels", "cuda")
    assert backends.choose(replace(gpu, index="faiss-cpu")).name == "faiss-cpu"
    assert backends.arithmetic(gpu, learned=True) == processor
    with pytest.raises(InputError, match=r"machine\.index: faiss-gpu was asked for, but this FAISS has no GPU kernels; use auto"):
        backends.choose(replace(gpu, index="faiss-gpu"))
    with pytest.raises(InputError, match="allowed: auto, faiss-cpu, faiss-gpu, torch"):
        resolve(index="gpu")


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this FAISS is built for GPUs")
def test_a_faiss_without_kernels_is_told_from_one_with_them() -> None:
    assert re.match(r"this FAISS has no GPU kernels \(compiled for .+\)", backends.gpu_lack())
