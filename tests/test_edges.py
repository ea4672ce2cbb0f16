"""Odd documents and odd questions through every retriever and reranker: nothing breaks, and the order stays the order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import toys
import yaml

from workbench import Experiment
from workbench.stages.rankings import RankingStage
from workbench.store.progress import Progress

DOCUMENTS = {
    "a-long": " ".join(f"word{i % 997}" for i in range(10_000)) + " The lighthouse stands at the very end.",
    "b-twin": "A lighthouse warns ships of rocks.",
    "c-twin": "A lighthouse warns ships of rocks.",
    "d-empty": "",
    "e-unicode": "Der Leuchtturm Ω warnt 🚢 vor Felsen; 灯台は船に警告する。",
    "f-blank": " \n\t ",
}
QUERIES = {
    "q-empty": "",
    "q-mark": "?",
    "q-plain": "What warns ships?",
    "q-script": "灯台 🚢",
    "q-long": "lighthouse " * 600,
}
RERANKERS = {
    "cross": {"kind": "cross_encoder", "model": "", "top": 3},
    "late": {"kind": "maxsim", "embedder": "minilm", "top": 3},
    "likely": {"kind": "likelihood", "generator": "small", "top": 2},
    "diverse": {"kind": "mmr", "embedder": "minilm", "top": 50},
}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("edges")
    (folder / "qrels").mkdir()
    documents = [json.dumps({"_id": i, "title": "", "text": text}) for i, text in DOCUMENTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(documents), encoding="utf-8")
    rows = [json.dumps({"_id": f"{split}-{i}", "text": text}) for split in ("dev", "test") for i, text in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(rows), encoding="utf-8")
    for split in ("dev", "test"):
        judged = "".join(f"{split}-{i}\tb-twin\t1\n" for i in QUERIES)
        (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    settings = {
        "experiment": "edges",
        "dataset": {"beir": str(folder)},
        "components": {
            "embedders": {"minilm": {"model": toys.made(toys.embedder)}},
            "retrievers": {
                "bm25": {"kind": "bm25"},
                **{kind: {"kind": "dense", "embedder": "minilm", "index": kind} for kind in ("flat", "ivf", "ivfpq", "hnsw")},
                "ranks": {"kind": "fusion", "of": ["bm25", "flat"]},
                "scores": {"kind": "fusion", "of": ["bm25", "flat"], "method": "weighted", "normalization": "z"},
            },
            "rerankers": RERANKERS | {"cross": RERANKERS["cross"] | {"model": str(_classifier(folder / "classifier"))}},
            "generators": {"small": {"model": toys.made(toys.language_model)}},
        },
        "axes": {
            "chunking": ["whole"],
            "retriever": ["bm25", "flat", "ivf", "ivfpq", "hnsw", "ranks", "scores"],
            "reranker": ["none", *RERANKERS],
        },
        "metrics": {"rankings": ["ndcg@10"]},
    }
    (folder / "edges.yaml").write_text(yaml.safe_dump(settings))
    experiment = Experiment.load(folder / "edges.yaml", folder / "runs", (), Progress())
    experiment.index()
    return experiment


def _classifier(folder: Path) -> Path:
    """A cross-encoder with a head that nobody trained."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = toys.made(toys.encoder)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def ranking(experiment: Experiment, label: str) -> RankingStage:
    chosen = next(c for c in experiment.configurations if c.label == label)
    return experiment.planner.stages(chosen, "dev").ranking


LABELS = [f"{a}/{b}" for a in ("bm25", "flat", "ivf", "ivfpq", "hnsw", "ranks", "scores") for b in ("none", *RERANKERS)]


@pytest.mark.parametrize("label", LABELS)
def test_odd_documents_and_questions_are_ranked_in_the_one_order(experiment: Experiment, label: str) -> None:
    stage = ranking(experiment, label)
    found = experiment.session.read(stage)
    for ids, scores in found.rows():
        assert len(set(ids.tolist())) == len(ids) <= len(DOCUMENTS) < found.depth
        assert np.isfinite(scores).all() and (np.diff(scores) <= 0).all()
        if label.endswith("none"):  # passages a reranker did not look at stand behind, whatever their number
            assert all(i < j for i, j, equal in zip(ids, ids[1:], np.diff(scores) == 0, strict=False) if equal)


@pytest.mark.parametrize("label", LABELS)
def test_each_odd_question_alone_ranks_as_among_the_others(experiment: Experiment, label: str) -> None:
    stage = ranking(experiment, label)
    queries = stage.queries(experiment.session)
    for query, (ids, scores) in zip(queries, experiment.session.read(stage).rows(), strict=True):
        alone = stage.rank([query.text], experiment.session)[0]
        assert (alone[0].tolist(), alone[1].tolist()) == (ids.tolist(), scores.tolist()), query.id


@pytest.mark.parametrize("retriever", ["flat", "ivf", "ivfpq", "hnsw"])
def test_twins_stand_side_by_side_and_nothing_is_left_out(experiment: Experiment, retriever: str) -> None:
    rows = experiment.session.read(ranking(experiment, f"{retriever}/none")).rows()
    assert all(sorted(ids.tolist()) == list(range(len(DOCUMENTS))) for ids, _ in rows)
    for ids, scores in rows:
        place = ids.tolist().index(1)
        assert ids[place + 1] == 2 and scores[place] == scores[place + 1]


def test_words_alone_find_what_holds_them(experiment: Experiment) -> None:
    rows = dict(zip(QUERIES, [r[0].tolist() for r in _in_order(experiment)], strict=True))
    assert rows["q-empty"] == rows["q-mark"] == []
    assert rows["q-plain"][:2] == [1, 2] and rows["q-long"][:2] == [1, 2] and 0 in rows["q-long"]


def _in_order(experiment: Experiment) -> list[tuple[np.ndarray, np.ndarray]]:
    stage = ranking(experiment, "bm25/none")
    found = experiment.session.read(stage)
    by_id = dict(zip(found.query_ids, found.rows(), strict=True))
    return [by_id[f"dev-{i}"] for i in QUERIES]
