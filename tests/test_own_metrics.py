"""A metric of one's own: a function in a file, measured, compared and chosen by like the others, and checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import toys
import yaml

from workbench.errors import InputError
from workbench.evaluation import answers
from workbench.experiment.experiment import Experiment
from workbench.results.conclusions import conclusions
from workbench.store.progress import Progress

SHORT = '''
def brief(answer, accepted, passages):
    """How far an answer stays below forty characters; half as much where nothing was accepted."""
    return max(0.0, 1 - len(answer) / 40) * (1.0 if accepted else 0.5)


def broken(answer, accepted, passages):
    return len(answer) / 0


def wordy(answer, accepted, passages):
    return "good"


def large(answer, accepted, passages):
    return 17


def f1(answer, accepted, passages):
    return 1.0


def narrow(answer):
    return 1.0


def truth(answer, accepted, passages):
    return answer in (accepted or [])
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(SHORT)
    return tmp_path


def experiment(folder: Path, metrics: dict[str, object], **changes: object) -> Experiment:
    values = {
        "experiment": "own",
        "dataset": {"name": "pydocs", "limit": {"train": 12, "dev": 6, "test": 4}},
        "components": {
            "retrievers": {"bm25": {"kind": "bm25"}},
            "generators": {"toy": {"model": toys.made(toys.language_model), "max_new_tokens": 3}},
        },
        "axes": {"generator": ["toy"], "passages": [1, 2]},
        "metrics": metrics,
        "machine": {"device": "cpu", "precision": "float32"},
    } | changes
    (folder / "e.yaml").write_text(yaml.safe_dump(values))
    return Experiment.load(folder / "e.yaml", folder / "runs", [], Progress())


def test_a_function_of_ones_own_is_measured_and_chooses(folder: Path) -> None:
    run = experiment(folder, {"answers": ["f1", "./mine.py:brief"], "select_by": "brief"}).compare()
    assert run.select == ("dev", "brief")
    rows = [row for row in run.results if row.metric == "brief"]
    assert len(rows) == 2 * 6 + 2 * 4 and all(0 <= row.value <= 1 for row in rows)
    assert {row.metric for row in run.comparisons} >= {"f1", "brief"}
    assert [row.metric for row in run.finalists if row.family == "primary"] in (["brief"], [])
    assert "brief" in conclusions(run)[0]


def test_a_changed_file_scores_anew_and_answers_nothing_anew(folder: Path) -> None:
    metrics = {"answers": ["./mine.py:brief"], "select_by": "brief"}
    before = experiment(folder, metrics).compare()
    (folder / "mine.py").write_text(SHORT.replace("/ 40", "/ 80"))
    after = experiment(folder, metrics).compare()
    assert [row.value for row in before.results] != [row.value for row in after.results]
    assert set(after.frame("timings")["stage"]) == {"scores"}


@pytest.mark.parametrize("strategy", ["grid", "greedy", "racing"])
def test_every_search_can_choose_by_it(folder: Path, strategy: str) -> None:
    metrics = {"answers": ["./mine.py:brief"], "select_by": "brief"}
    run = experiment(folder, metrics, search={"strategy": strategy}).compare()
    assert run.select[1] == "brief" and run.best in run.labels


def test_a_gate_can_learn_by_it(folder: Path) -> None:
    axes = {"generator": ["toy"], "retrieval": ["always", {"when": "top_score", "questions": 8}]}
    metrics = {"answers": ["./mine.py:brief"], "select_by": "brief"}
    run = experiment(folder, metrics, axes=axes).compare()
    assert len(run.configurations) == 2


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"answers": ["./mine.py:brieff"]}, "metrics.answers: unknown function in .*mine.py .brieff..*brief"),
        ({"answers": ["./other.py:brief"]}, "metrics.answers: file .*other.py. does not exist"),
        ({"answers": ["./mine.py:f1"]}, "has the name of a built-in metric"),
        ({"answers": ["./mine.py:narrow"]}, r"takes narrow\(answer\).*def narrow\(answer, accepted, passages\)"),
        ({"answers": ["brief"]}, "unknown answer metric 'brief'; allowed: ./file.py:function, .*f1"),
        ({"answers": ["f1", "./mine.py:brief"], "select_by": "brie"}, "unknown metric 'brie'.*brief"),
        ({"answers": ["./mine.py:brief"]}, "metrics.select_by: unknown metric 'f1'.*allowed: .*brief"),
    ],
)
def test_what_is_no_metric_is_refused_before_anything_runs(folder: Path, metrics: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        experiment(folder, metrics)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "metric 'broken' failed for the answer 'a' with the accepted answers .*ZeroDivisionError"),
        ("wordy", "metric 'wordy' returned 'good' .*allowed: a number from 0 to 1"),
        ("large", "metric 'large' returned 17 .*allowed: a number from 0 to 1"),
    ],
)
def test_what_it_returns_is_checked(folder: Path, name: str, message: str) -> None:
    metric = answers.own_metric(f"./mine.py:{name}", folder)
    with pytest.raises(InputError, match=message):
        metric.score("a", ["a"], ["a passage"])


def test_yes_and_no_are_one_and_zero(folder: Path) -> None:
    metric = answers.own_metric("./mine.py:truth", folder)
    assert metric.score("a", ["a"], []) == 1.0 and metric.score("b", None, []) == 0.0
