"""A million passages through the workbench's own stages: what memory and time they take.

    python -m benchmarks.million [PASSAGES]

A corpus in BEIR layout is read, cut and analysed, BM25 and a dense index are built and asked, stored, and opened again by another
process. The vectors are made beforehand: embedding a million texts would measure the model. Peak memory includes the mapped
files that a process has touched, which the system can take back; so it is what a machine needs at most.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks import ROOT
from workbench.data.chunking import Chunking
from workbench.data.dataset import Dataset
from workbench.data.sources import beir
from workbench.experiment.estimates import peak_gb
from workbench.machine import cpu_count, cpu_name, resolve
from workbench.retrieval.bm25 import BM25
from workbench.retrieval.indexes.dense import Dense
from workbench.retrieval.indexes.faiss import FlatIndex
from workbench.stages.indexes import AnalyzedPassages, DenseIndex, TextIndex
from workbench.stages.passages import Passages
from workbench.store.session import Session
from workbench.store.stage import Stage
from workbench.store.store import Store

RESULT = Path(__file__).parent / "results" / "million.json"
GOAL_GB = 8.0
WORDS, VOCABULARY, DIMENSIONS, CENTRES, QUERIES, DEPTH = 16, 50_000, 384, 4096, 64, 100
BLOCK = 50_000


@dataclass(frozen=True, eq=False)
class Given(Stage):
    """Vectors made beforehand, in the place of an embedder's."""

    name: ClassVar = "embeddings"
    passages: Passages
    file: Path

    def inputs(self) -> tuple[Stage, ...]:
        return (self.passages,)

    def settings(self) -> dict[str, Any]:
        return {"given": "benchmarks.million"}

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        # another name of the same file: a copy would measure the disk
        os.link(self.file, folder / "vectors.npy")
        return {}

    def read(self, folder: Path, session: Session) -> np.ndarray:
        return np.load(folder / "vectors.npy", mmap_mode="r")


def make(n: int, folder: Path) -> None:
    """Writes a corpus of n documents of 16 words in BEIR layout, their vectors in clusters, and queries on both."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{number}" for number in range(VOCABULARY)])
    shares = 1 / np.arange(10, VOCABULARY + 10)  # Zipf's law
    centres = rng.normal(size=(CENTRES, DIMENSIONS)).astype(np.float32)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (n, DIMENSIONS))
    (folder / "qrels").mkdir()
    with (folder / "corpus.jsonl").open("w") as corpus:
        for start in range(0, n, BLOCK):
            rows = min(BLOCK, n - start)
            drawn = words[rng.choice(VOCABULARY, size=(rows, WORDS), p=shares / shares.sum())]
            for i, text in enumerate(drawn):
                corpus.write(json.dumps({"_id": f"d{start + i:07d}", "title": "", "text": " ".join(text)}) + "\n")
            made = centres[rng.integers(CENTRES, size=rows)] + 0.7 * rng.normal(size=(rows, DIMENSIONS)).astype(np.float32)
            vectors[start : start + rows] = made / np.linalg.norm(made, axis=1, keepdims=True)
    queries = [{"_id": f"q{i}", "text": " ".join(words[rng.integers(1000, size=4)])} for i in range(QUERIES)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels" / "test.tsv").write_text("".join(f"q{i}\td{i:07d}\t1\n" for i in range(QUERIES)))


class Steps:
    """Seconds and peak memory so far of each step."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Does a step and notes what it took."""
        started = time.perf_counter()
        found = work()
        self.rows[name] = {"seconds": round(time.perf_counter() - started, 2), "peak_gb": round(peak_gb(), 3)}
        return found


def ingest(folder: Path) -> dict[str, Any]:
    """Reads, cuts, analyses, indexes and searches what `make` wrote; the store lies beside it."""
    step = Steps()
    step("start", lambda: None)
    dataset: Dataset = step("read", lambda: beir(folder))
    session = Session(Store(folder / "store"), dataset, resolve(device="cpu"))
    passages, terms, text, given, dense = _stages(dataset, folder)
    for name, stage in (("cut", passages), ("analyse", terms), ("bm25", text), ("vectors", given), ("flat", dense)):
        step(name, lambda stage=stage: session.ensure(stage))
    step("search", lambda: _search(session, dataset, folder))
    return step.rows


def reopen(folder: Path) -> dict[str, Any]:
    """Searches what `ingest` stored."""
    step = Steps()
    dataset: Dataset = step("read", lambda: beir(folder))
    session = Session(Store(folder / "store"), dataset, resolve(device="cpu"))
    step("search", lambda: _search(session, dataset, folder))
    if session.computed:
        raise AssertionError(f"computed again: {', '.join(session.computed)}")
    return step.rows


def _stages(dataset: Dataset, folder: Path) -> tuple[Stage, ...]:
    passages = Passages(Chunking(words=None, overlap=0), dataset.documents_digest)
    terms = AnalyzedPassages(BM25().analyzer, passages)
    given = Given(passages, folder / "vectors.npy")
    return passages, terms, TextIndex(BM25(), passages, terms), given, DenseIndex(FlatIndex(), given)


def _search(session: Session, dataset: Dataset, folder: Path) -> None:
    _, _, text, given, index = _stages(dataset, folder)
    session.read(text).search([query.text for query in dataset.split("test")], DEPTH)
    vectors = session.read(given)
    rows = Dense(embedder="given").rank(session.read(index), vectors, np.array(vectors[:QUERIES]), DEPTH)
    if [int(ids[0]) for ids, _ in rows] != list(range(QUERIES)):
        raise AssertionError("a vector is not its own nearest")


def measure(n: int, folder: Path) -> dict[str, Any]:
    """What n passages take, each half in a process of its own.

    Args:
        n: passages, at least `QUERIES`.
        folder: empty; receives about 6 kB a passage.
    """
    make(n, folder)
    halves = {half: _in_process(half, folder) for half in ("ingest", "reopen")}
    peak = max(row["peak_gb"] for steps in halves.values() for row in steps.values())
    return {"passages": n, "dimensions": DIMENSIONS, "peak_gb": peak} | halves


def _in_process(half: str, folder: Path) -> dict[str, Any]:
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = os.environ | {"WORKBENCH_HOME": str(folder / "home"), "PYTHONPATH": paths}
    command = [sys.executable, "-m", "benchmarks.million", half, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"{half} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def main(arguments: list[str]) -> int:
    """Measures and writes one JSON file; 1 where the goal is missed."""
    if arguments[:1] in (["ingest"], ["reopen"]):
        half = ingest if arguments[0] == "ingest" else reopen
        sys.stdout.write(json.dumps(half(Path(arguments[1]))))
        return 0
    n = int(arguments[0]) if arguments else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        found = measure(n, Path(folder))
    met = found["peak_gb"] <= GOAL_GB
    found |= {"goal": f"peak_gb <= {GOAL_GB:g}", "verdict": "met" if met else "not met"}
    found |= {"machine": {"processor": cpu_name(), "cores": cpu_count()}}
    if n == 1_000_000:
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
