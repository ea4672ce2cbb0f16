"""`workbench compare OLD NEW --fail-if worse`: exit status 1 exactly when the new one is shown to be worse by the margin."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import workbench
from handmade import make_run
from test_verdict import BEST, N, wave
from typer.testing import CliRunner

from workbench import cli
from workbench.errors import InputError
from workbench.results.foreign import Scale
from workbench.results.guard import NEW, OLD, guard
from workbench.results.run import Run


def table(path: Path, values: np.ndarray, name: str = "mine") -> Path:
    lines = [f"{name},q{i:02},f1,{value}\n" for i, value in enumerate(values.tolist())]
    path.write_text("configuration,query_id,metric,value\n" + "".join(lines))
    return path


@pytest.fixture
def old(tmp_path: Path) -> tuple[Path, np.ndarray]:
    values = np.random.default_rng(0).uniform(0.3, 0.9, 60).round(4)
    return table(tmp_path / "old.csv", values), values


def changed(folder: Path, values: np.ndarray, by: float, noise: float = 0.1) -> Path:
    moved = values + by + np.random.default_rng(1).normal(0, noise, len(values))
    return table(folder / "new.csv", np.clip(moved, 0, 1).round(4))


@pytest.mark.parametrize(("by", "margin", "status"), [(-0.1, 0.02, 1), (-0.1, 0.2, 0), (0.0, 0.0, 0), (0.1, 0.02, 0)])
def test_the_exit_status_says_whether_worse_is_shown(
    tmp_path: Path, old: tuple[Path, np.ndarray], by: float, margin: float, status: int
) -> None:
    path, values = old
    new = changed(tmp_path, values, by)
    done = CliRunner().invoke(cli.app, ["compare", str(path), str(new), "--fail-if", "worse", "--margin", str(margin)])
    assert done.exit_code == status, done.output
    row = guard([path, new], margin).row
    assert (row.a, row.b) == (NEW, OLD)
    assert (row.high < -margin) == bool(status)
    told = done.output.splitlines()
    assert told[0].startswith(f"{new} against {path}, F1, n = 60: ")
    assert told[1].endswith("shown") == bool(status)


def test_a_pass_says_whether_worse_is_ruled_out_or_only_not_shown(tmp_path: Path, old: tuple[Path, np.ndarray]) -> None:
    path, values = old
    loose = guard([path, changed(tmp_path, values, 0.0, noise=0.3)], 0.001)
    assert not loose.worse
    assert "not shown; up to" in loose.lines[1] and "worse fits these questions" in loose.lines[1]
    tight = guard([path, changed(tmp_path, values, 0.0, noise=0.001)], 0.05)
    assert tight.lines[1] == "worse by more than 5.0 points: ruled out"
    few = [table(tmp_path / f"few{k}.csv", values[:5] - k / 10) for k in (0, 1)]
    assert not guard(few, 0.0).worse and "cannot show anything" in guard(few, 0.0).lines[1]


def test_a_shift_of_exactly_the_margin_is_not_more_than_it(tmp_path: Path) -> None:
    values = np.full(30, 0.5)
    for margin in (0.25, 0.02):  # 0.5 - 0.48 is a little more than 0.02
        pair = [table(tmp_path / "a.csv", values), table(tmp_path / "b.csv", (values - margin).round(4))]
        assert not guard(pair, margin).worse and guard(pair, margin).lines[1].endswith("ruled out")
        assert guard(pair, margin - 0.01).worse


def test_a_failure_counts_as_the_worst_value_of_both(tmp_path: Path) -> None:
    values = np.linspace(0.2, 0.9, 20)
    path, new = table(tmp_path / "a.csv", values), table(tmp_path / "b.csv", values)
    new.write_text(new.read_text().replace("mine,q19,f1,0.9\n", "mine,q19,f1,\n"))
    found = guard([path, new], 0.0)
    assert found.row.difference == pytest.approx(-(0.9 - 0.2) / 20)
    assert found.lines[2].startswith(f"failed answers: 0 of {path} and 1 of {new}; each counts as 20.0, the lowest value")
    ranged = guard([path, new], 0.0, scale=Scale(0, 1))
    assert ranged.row.difference == pytest.approx(-0.9 / 20) and ranged.lines[2].endswith("each counts as 0.0")


def test_two_runs_are_compared_by_what_was_promoted_else_by_their_best(tmp_path: Path) -> None:
    def score(loss: float):
        return lambda label, q: 0.5 + 0.1 * wave(label, q) + (0.2 if label == BEST else 0.0) - loss

    old, new = (
        make_run(tmp_path, n=N, failed=(), score=score(loss), experiment=name) for name, loss in (("old", 0.0), ("new", 0.1))
    )
    for run in (old, new):
        path = run.folder / "manifest.json"
        dataset = {"documents": "d", "queries": {"test": "q"}, "judgements": {"test": "j"}}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": dataset}))
    done = workbench("compare", old.folder, new.folder, "--fail-if", "worse", "--margin", "0.02")
    assert done.returncode == 1, done.stderr
    assert f"{BEST} ({new.folder.name}) against {BEST} ({old.folder.name}), F1 on test, n = {N}: −10.0 points" in done.stdout
    same = workbench("compare", old.folder, old.folder, "--fail-if", "worse")
    assert same.returncode == 0 and "0.0 points" in same.stdout
    Run.open(old.folder).promote("bm25/base")
    better = guard([old.folder, new.folder], 0.0)
    assert better.names[0].startswith("bm25/base (") and better.row.difference > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("q07", "q99"), "not asked the same questions: q07, q99"),
        (lambda text: text + text.split("\n", 1)[1].replace("mine", "other"), "name the one that counts with --systems"),
        (lambda text: text.replace(",f1,", ",em,"), "name one metric with --metric"),
    ],
)
def test_what_cannot_be_paired_is_refused(tmp_path: Path, old: tuple[Path, np.ndarray], change, words: str) -> None:
    path, values = old
    new = changed(tmp_path, values, 0.0)
    new.write_text(change(new.read_text()))
    with pytest.raises(InputError, match=words):
        guard([path, new], 0.0)


def test_wrong_options_are_bad_input(tmp_path: Path, old: tuple[Path, np.ndarray]) -> None:
    path, _ = old
    for arguments, words in [
        ((path, "--fail-if", "worse"), "compares two sources"),
        ((path, path, "--fail-if", "wors"), "Did you mean 'worse'"),
        ((path, path, "--fail-if", "worse", "--margin", "-1"), "how much worse is allowed, 0 or more"),
        ((path, path, "--fail-if", "worse", "--margin", "nan"), "how much worse is allowed, 0 or more"),
        ((path, path, "--fail-if", "worse", "--margin", "2"), "two points of 100 as 0.02"),
        ((path, path, "--fail-if", ""), "allowed: worse"),
        ((path, path, "--fail-if", "worse", "--out", tmp_path / "x.csv"), "--out does not go with --fail-if"),
        ((path, tmp_path, "--fail-if", "worse"), "two of one kind"),
        ((path, path, "--margin", "0.1"), "add --fail-if worse"),
    ]:
        done = workbench("compare", *arguments)
        assert done.returncode == 2, done.stdout
        assert words in done.stderr
