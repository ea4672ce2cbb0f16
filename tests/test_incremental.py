"""A corpus that changes: only what is new is embedded, and the outcome is that of a run that begins with nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import toys
import yaml

from workbench import Experiment, Run
from workbench.store.progress import Progress

DOCUMENTS = 100


def settings() -> dict[str, Any]:
    return {
        "experiment": "changing",
        "components": {
            "embedders": {"minilm": {"model": toys.made(toys.embedder)}},
            "retrievers": {"bm25": {"kind": "bm25"}, "dense": {"kind": "dense", "embedder": "minilm"}},
        },
        "axes": {"chunking": ["whole"], "retriever": ["bm25", "dense"]},
        "report": {"of": "all"},
    }


QUESTIONS = {"dev": ("fact number 7", "fact number 8"), "test": ("fact number 9", "fact number 10")}


def corpus(folder: Path, texts: dict[str, str]) -> None:
    """A folder in BEIR layout whose questions are about four of the documents."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    rows = [{"_id": name, "text": text} for name, text in texts.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [{"_id": text, "text": text} for asked in QUESTIONS.values() for text in asked]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    for split, asked in QUESTIONS.items():
        (folder / "qrels" / f"{split}.tsv").write_text("".join(f"{text}\td{text.split()[-1]}\t1\n" for text in asked))


def run(folder: Path, runs: Path) -> Run:
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(settings() | {"dataset": {"beir": str(folder)}}))
    return Experiment.load(path, runs, (), Progress()).compare()


def items(found: Run) -> tuple[int, int, int]:
    """Texts whose vectors were asked for, were there, were computed."""
    counts = json.loads((found.folder / "plan.json").read_text())["items"]["embeddings"]
    return counts["distinct"], counts["found"], counts["computed"]


def same(a: Run, b: Run, names: Sequence[str] = ("results.csv", "leaderboard.csv", "comparisons.csv")) -> bool:
    return all((a.folder / name).read_bytes() == (b.folder / name).read_bytes() for name in names)


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {f"d{i}": f"This is fact number {i}." for i in range(DOCUMENTS)}


def test_a_corpus_with_changed_and_removed_documents_embeds_the_new_passages_alone(
    texts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 % changed, then 5 % removed: 100 documents and 4 questions, then 1 document, then nothing."""
    folder, runs = tmp_path / "corpus", tmp_path / "runs"
    corpus(folder, texts)
    assert items(run(folder, runs)) == (DOCUMENTS + 4, 0, DOCUMENTS + 4)
    changed = texts | {"d50": "This one was rewritten."}
    corpus(folder, changed)
    second = run(folder, runs)
    assert items(second) == (DOCUMENTS + 4, DOCUMENTS + 3, 1)
    assert same(second, run(folder, tmp_path / "cold"))
    corpus(folder, {name: text for name, text in changed.items() if name not in {"d0", "d1", "d2", "d3", "d4"}})
    third = run(folder, runs)
    assert items(third) == (DOCUMENTS - 1, DOCUMENTS - 1, 0)
    # rankings name passages by their numbers, which have moved; the best document is still found
    recall = [row.mean for row in third.leaderboard if row.metric == "recall@10" and row.split == "test"]
    assert list(map(float, recall)) == [1.0, 1.0]
