"""Retrievers and rerankers compared through an experiment: trained, stored, planned, served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
import yaml

from workbench import Experiment, Run
from workbench.component import canonical
from workbench.errors import InputError
from workbench.experiment import parity
from workbench.pipeline import Pipeline
from workbench.plots import figures
from workbench.retrieval.expansion import HyDE, MultiQuery, searched
from workbench.store.progress import Progress


def settings() -> dict[str, Any]:
    return {
        "experiment": "rankings",
        "dataset": {"name": "pydocs", "limit": 6},
        "components": {
            "embedders": {
                "minilm": {"model": toys.made(toys.embedder)},
                "taught": {"model": toys.made(toys.embedder), "train": {"batch_size": 3}},
            },
            "retrievers": {
                "bm25": {"kind": "bm25"},
                "short": {"kind": "bm25", "b": 0.2},
                "dense": {"kind": "dense", "embedder": "minilm", "index": "auto"},
                "graph": {"kind": "dense", "embedder": "minilm", "index": {"kind": "hnsw", "m": 16}},
                "learned": {"kind": "dense", "embedder": "taught"},
                "both": {"kind": "fusion", "of": ["bm25", "dense"], "method": "weighted", "weights": [1, 2]},
            },
            "expanders": {
                "reworded": {"kind": "multi_query", "generator": "small", "n": 2, "max_new_tokens": 24},
                "made_up": {"kind": "hyde", "generator": "small", "max_new_tokens": 24},
            },
            "rerankers": {
                "cross": {
                    "kind": "cross_encoder",
                    "model": toys.made(toys.encoder),
                    "train": {"epochs": 1, "negatives": 3, "batch_size": 2},
                    "top": 5,
                },
                "diverse": {"kind": "mmr", "embedder": "minilm", "top": 10},
                "likely": {"kind": "likelihood", "generator": "small", "top": 3},
            },
            "generators": {"small": {"model": toys.made(toys.language_model)}},
        },
        "baseline": {"retriever": "bm25", "reranker": "none"},
        "axes": {
            "chunking": [{"words": 120, "overlap": 0}],
            "retriever": ["bm25", "short", "dense", "graph", "learned", "both"],
            "reranker": ["none", "cross", "diverse", "likely"],
        },
        "report": {"of": "all"},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rankings")
    (folder / "rankings.yaml").write_text(yaml.safe_dump(settings()))
    return folder


def load(folder: Path, *overrides: str) -> Experiment:
    return Experiment.load(folder / "rankings.yaml", folder / "runs", overrides, Progress())


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return load(folder).compare()


def test_24_rankings_take_their_distinct_work(run: Run, folder: Path) -> None:
    plan = json.loads((run.folder / "plan.json").read_text())
    stages = [stage["stage"] for stage in plan["stages"]]
    assert plan["totals"]["computed"] == plan["totals"]["planned"]
    # one analysis for two BM25s, one set of vectors for two indexes, one training for all rankings it reorders
    counted = {name: stages.count(name) for name in ("terms", "embeddings", "index", "embedder", "reranker", "reranked")}
    assert counted == {"terms": 1, "embeddings": 2, "index": 5, "embedder": 1, "reranker": 1, "reranked": 36}
    again = load(folder).compare()
    assert json.loads((again.folder / "plan.json").read_text())["totals"]["computed"] == 0
    assert (again.folder / "leaderboard.csv").read_bytes() == (run.folder / "leaderboard.csv").read_bytes()
    assert len({row.configuration for row in run.leaderboard}) == 24


def test_a_pair_is_scored_once_for_all_rankings_that_hold_it(run: Run) -> None:
    pairs = json.loads((run.folder / "plan.json").read_text())["items"]["pairs"]
    # 12 questions, 5 + 3 pairs of each of 6 rankings, of which many are the same
    assert 0 < pairs["computed"] == pairs["distinct"] < 12 * 8 * 6


def test_how_many_passages_a_scorer_is_shown_is_no_part_of_a_pair(folder: Path) -> None:
    def stage(*overrides: str) -> object:
        experiment = load(folder, *overrides)
        chosen = next(c for c in experiment.configurations if c.label == "bm25/likely")
        return experiment.planner.stages(chosen, "dev").ranking

    first, fewer = stage(), stage("components.rerankers.likely.top=2")
    assert first.key != fewer.key and first.namespace == fewer.namespace
    assert stage("components.generators.small.max_new_tokens=5").namespace != first.namespace


def test_an_embedder_trained_here_gives_other_vectors_and_says_where_from(run: Run) -> None:
    keys = {row.label: row.keys for row in run.configurations}
    assert "embedder" in keys["learned/none"] and "embedder" not in keys["dense/none"]
    assert keys["learned/none"]["embeddings"] != keys["dense/none"]["embeddings"]
    # what only a training read is no provenance of an answer
    assert "index BM25" not in keys["learned/none"]


@pytest.mark.parametrize("label", ["dense/cross", "graph/diverse", "both/likely", "learned/none"])
def test_what_is_asked_ranks_as_what_was_measured(run: Run, label: str) -> None:
    pipeline = Pipeline.open(run, label)
    query = pipeline.session.dataset.split("test")[0]
    ids, scores = pipeline.ranking.rank([query.text], pipeline.session)[0]
    measured = pipeline.experiment.planner.stages(pipeline.configuration, "test").ranking
    rows = dict(zip(pipeline.session.read(measured).query_ids, pipeline.session.read(measured).rows(), strict=True))
    assert ids.tolist() == rows[query.id][0].tolist() and scores.tolist() == rows[query.id][1].tolist()
    assert [source.rank for source in pipeline.ask(query.text).sources] == [1, 2, 3, 4, 5]


def test_every_index_is_held_against_exact_search(run: Run, folder: Path) -> None:
    found = parity.save(load(folder), run.folder)
    rows = {row.kind: row for row in sorted(found, key=lambda row: row.reason)}
    assert set(rows) == {"flat", "hnsw"} and len(found) == 3 and rows["flat"].reason.endswith("few enough to compare all")
    assert rows["flat"].recall_at_10 == 1.0 and 0.9 < rows["hnsw"].recall_at_10 <= 1.0
    assert rows["hnsw"].settings == "m 16" and rows["flat"].bytes_per_vector == pytest.approx(4 * 32, rel=0.01)
    assert run.indexes[0].queries_per_second > 0 and "indexes" in figures(run)
    assert parity.sentence(rows["hnsw"]).startswith("hnsw m 16: recall@10 ")


def test_expanded_questions_rank_by_all_their_wordings(folder: Path) -> None:
    axes = ["axes.expansion=[none, reworded, made_up]", "axes.retriever=[bm25, dense]", "axes.reranker=[none, diverse]"]
    run = load(folder, *axes).compare()
    assert len(run.configurations) == 12 and len({row.configuration for row in run.leaderboard}) == 12
    items = json.loads((run.folder / "plan.json").read_text())["items"]["answers"]
    assert items["computed"] == items["distinct"] == 2 * 12  # one text for a question and expander, whatever searches with it
    pipeline = Pipeline.open(run, "reworded/dense/diverse")
    stage = pipeline.stages.ranking.ranking
    query = pipeline.session.dataset.split("test")[0].text
    (reply,) = stage.writer.written([canonical(stage.expander.messages(query))], pipeline.session)
    wordings = searched(query, stage.expander.read(reply.text))
    assert wordings[0] == query and len(wordings) <= 3
    fused: dict[int, float] = {}
    for wording in wordings:
        for rank, n in enumerate(stage.ranking.rank([wording], pipeline.session)[0][0].tolist(), 1):
            fused[n] = fused.get(n, 0.0) + 1 / (60 + rank)
    ids, _ = stage.rank([query], pipeline.session)[0]
    assert ids.tolist()[:20] == sorted(fused, key=lambda n: (-np.float32(fused[n]), n))[:20]
    again = load(folder, *axes).compare()
    assert json.loads((again.folder / "plan.json").read_text())["totals"]["computed"] == 0


def test_what_an_expander_reads_in_a_reply() -> None:
    reply = "1. How do I stop?\n\n2) What ends it?\n- What ends it?\nAnd a fourth\nfifth"
    assert MultiQuery(generator="g").read(reply) == ["How do I stop?", "What ends it?", "And a fourth"]
    assert MultiQuery(generator="g").read("*args?\n3.12?\n- -1?") == ["*args?", "3.12?", "-1?"]
    assert MultiQuery(generator="g").read(" \n") == [] == HyDE(generator="g").read("")
    assert HyDE(generator="g").read("It ends\n when it ends.") == ["It ends when it ends."]
    assert searched("a", ["b", "a", "b"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("components.rerankers.likely.generator=large", "components.rerankers.likely.generator: unknown generator 'large'"),
        ("components.rerankers.diverse.embedder=mini", "components.rerankers.diverse.embedder: unknown embedder 'mini'"),
        ("components.rerankers.cross.train.negatives_from=google", "cross.train.negatives_from: unknown retriever 'google'"),
        ("components.retrievers.graph.index.m=1", "components.retrievers.graph.index.*greater than or equal to 2"),
        ("components.embedders.taught.train.negatives_from=google", "taught.train.negatives_from: unknown retriever 'google'"),
        ("components.embedders.taught.train.negatives_from=learned", "name another one as negatives_from, e.g. a bm25"),
        ("components.expanders.made_up.kind=guess", "unknown kind of expander 'guess'"),
        ("axes.expansion=[nothing]", "unknown expansion 'nothing'; .*none"),
        ("dataset.train=nowhere", "dataset.train: pydocs has no split 'nowhere'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(folder: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(folder, override)
