"""What it costs to take up a corpus again after some of it has changed."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from benchmarks.harness import ROUNDS, Goal, Measurement, seconds, summary
from benchmarks.models import EMBEDDER
from benchmarks.sweep import temporary
from workbench import Experiment
from workbench.data.chunking import Chunking
from workbench.data.sources import pydocs
from workbench.machine import resolve
from workbench.retrieval.embedders.embedder import Embedder
from workbench.store.progress import Progress

DOCUMENTS = 2_000
CHANGED = DOCUMENTS // 100
SETTINGS = {
    "experiment": "ingest",
    "components": {
        "embedders": {"minilm": {"model": EMBEDDER}},
        "retrievers": {"dense": {"kind": "dense", "embedder": "minilm"}},
    },
    "axes": {"chunking": ["whole"], "retriever": ["dense"]},
}


def reingest() -> Measurement:
    """1 % of the documents changed, over all from an empty store, which is measured once: both read, embed, index and rank."""
    texts = Chunking(words=40, overlap=20).cut(pydocs().documents)["text"].to_pylist()[:DOCUMENTS]
    list(Embedder(model=EMBEDDER).load(resolve()).encode(texts[:16]))  # loading the model is no part of either
    with temporary() as folder:
        first = seconds(lambda: _ingest(folder, texts))
        ratios = []
        for round_ in range(ROUNDS):
            for i in range(round_ * CHANGED, (round_ + 1) * CHANGED):
                texts[i] += f" Changed in round {round_}."
            ratios.append(seconds(lambda: _ingest(folder, texts)) / first)
    return summary("corpus with 1 % changed / corpus from an empty store", Goal("<=", 0.03), ratios)


def _ingest(folder: Path, texts: list[str]) -> None:
    corpus = folder / "corpus"
    (corpus / "qrels").mkdir(parents=True, exist_ok=True)
    rows = [{"_id": f"d{i:05d}", "text": text} for i, text in enumerate(texts)]
    (corpus / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (corpus / "queries.jsonl").write_text('{"_id": "q1", "text": "What is a name?"}\n{"_id": "q2", "text": "What is a scope?"}\n')
    for query, split in (("q1", "dev"), ("q2", "test")):
        (corpus / "qrels" / f"{split}.tsv").write_text(f"{query}\td00000\t1\n")
    path = folder / "ingest.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | {"dataset": {"beir": str(corpus)}}))
    Experiment.load(path, folder / "runs", (), Progress()).index()
