"""`workbench rerun` and `compare --numerics`: what another precision or machine changes is counted, and equality is checked."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import handmade
import pytest
import yaml
from conftest import Finished, workbench
from handmade import AXES, N, as_written, make_run
from test_verdict import generator
from typer.testing import CliRunner

from workbench import Run, cli
from workbench.errors import InputError
from workbench.evaluation.statistics import mean_interval
from workbench.experiment.config import read_settings
from workbench.results.numerics import HELD, ShiftRow, numerics

MOVED = ("dense/tuned", N + 3)  # a question of test: those follow the questions of dev
DATASET = {"documents": "d", "queries": {"dev": "q", "test": "q"}, "judgements": {"dev": "j", "test": "j"}}


def steady(label: str, q: int) -> float:
    """The tuned ones are better, by more on some questions than on others."""
    return 0.25 + (0.25 if "tuned" in label else 0.0) + 0.03125 * (q % 4) + (0.0625 if label == "dense/tuned" else 0.0)


def moved(label: str, q: int) -> float:
    return steady(label, q) + (0.24 if (label, q) == MOVED else 0.0)


def made(
    folder: Path,
    score: Callable[[str, int], float] = steady,
    reply: Callable[[str, str, str], str] = lambda label, split, query: "yes",
    place: Callable[[str, str, str], int] = lambda label, split, query: 0,
    manifest: dict[str, object] | None = None,
    settings: dict[str, object] | None = None,
    **others: object,
) -> Run:
    """A finished run with an answer and one passage to each question, on one dataset."""
    run = make_run(folder, failed=(), score=score, shift=N, **others)
    lines = [
        {"configuration": row.configuration, "split": row.split, "seed": None, "query_id": row.query_id, "prompt": "p"}
        | {"reply": reply(run.labels[row.configuration], row.split, row.query_id), "answer": "", "status": "ok"}
        | {"passages": [{"doc_id": "d", "start": place(run.labels[row.configuration], row.split, row.query_id), "end": 9}]}
        | {"prompt_tokens": 1, "new_tokens": 1, "cut": 0}
        for row in run.results
        if row.metric == "f1"
    ]
    (run.folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run.folder / "config.yaml").write_text(yaml.safe_dump(settings or {"machine": {"precision": "bfloat16"}}))
    path = run.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": DATASET} | (manifest or {})))
    return Run.open(run.folder)


def row_of(rows: list[ShiftRow], label: str, split: str, metric: str) -> ShiftRow:
    return next(row for row in rows if (row.label, row.split, row.metric) == (label, split, metric))


def test_equal_runs_are_reproductions(tmp_path: Path) -> None:
    found = numerics(made(tmp_path / "a"), made(tmp_path / "b"))
    answers = (4 + 3) * N  # four configurations on dev, three of them on test
    assert found.lines == [
        f"All {answers} answers are the same. The passages shown are the same.",
        "No mean moves.",
        "None of 4 verdicts against the baseline changes.",
        "The chosen configuration is the same: dense/tuned.",
        "Settings, machine, libraries and code of both runs are the same.",
        "The run is reproduced: every table and every answer is the same, byte for byte.",
    ]
    assert not found.differing and found.same_machine
    assert len(found.rows) == 7 * 2 and {row.shift for row in found.rows} == {0.0}


def test_a_changed_answer_is_found_and_its_shift_stands_beside_its_interval(tmp_path: Path) -> None:
    label, q = MOVED
    changed = label, "test", f"q{q - N:02}"
    first = made(tmp_path / "a")
    second = made(
        tmp_path / "b",
        moved,
        reply=lambda *asked: "no" if asked == changed else "yes",
        place=lambda *asked: int(asked[2] == "q05" and asked[0] == "bm25/base"),
        manifest={"machine": {"arithmetic": "cpu/float32"}, "libraries": {"torch": "2"}},
        settings={"machine": {"precision": "float32"}},
    )
    found = numerics(first, second)
    row = row_of(found.rows, label, "test", "f1")
    values = [steady(label, N + i) for i in range(N)]
    low, high = mean_interval(values, [str(i) for i in range(N)], bounds=(0, 1))
    assert row.before == pytest.approx(sum(values) / N) and row.shift == pytest.approx(0.24 / N)
    assert row.half_width == pytest.approx((high - low) / 2, abs=2e-6)
    assert row.share == pytest.approx(0.24 / N / row.half_width)
    assert (row.n, row.scores_differing, row.queries_differing) == (N, 1, 1)
    assert (row.answers, row.answers_differing, row.passages_differing) == (N, 1, 0)
    assert row.verdict_before == row.verdict_after == "shown better" and not row.flipped
    assert row_of(found.rows, label, "test", "ndcg@10").shift == pytest.approx(0.12 / N)
    still = row_of(found.rows, "bm25/base", "test", "f1")
    assert (still.answers_differing, still.passages_differing, still.shift, still.verdict_before) == (0, 1, 0.0, "")
    half, share = f"{100 * row.half_width:.1f}", f"{100 * row.share:.0f} %"
    assert found.lines == [
        "1 of 84 answers differs (1.2 %). Other passages were shown for 2 of 84.",
        f"The largest shift of a mean is 2.0 points (F1 of dense/tuned on test); its sampling interval is ±{half} points.",
        f"No shift is larger than {share} of the half width (±) of its sampling interval.",
        "None of 4 verdicts against the baseline changes.",
        "The chosen configuration is the same: dense/tuned.",
        "Between the runs changed: machine.precision (bfloat16 → float32); arithmetic (none → cpu/float32); torch (none → 2).",
    ]
    assert set(found.differing) == {"results.csv", "leaderboard.csv", "comparisons.csv", "finalists.csv", "selection.csv"} | {
        "answers.jsonl"
    }


def test_without_a_changed_setting_differences_are_named_by_file(tmp_path: Path) -> None:
    first = made(tmp_path / "a")
    here = made(tmp_path / "b", reply=lambda *asked: asked[2])
    elsewhere = made(tmp_path / "c", reply=lambda *asked: asked[2], manifest={"machine": {"arithmetic": "other"}})
    assert numerics(first, here).lines[-1] == "The run is not reproduced: these files are not the same: answers.jsonl."
    assert numerics(first, elsewhere).lines[-1].startswith("Machines that compute other bits need not agree: ")


def test_a_verdict_that_changes_and_another_choice_are_said(tmp_path: Path) -> None:
    def worse(label: str, q: int) -> float:
        lost = 0.5 if label == "dense/tuned" and q < N else 0.0
        return (steady("bm25/base", q) if label == "bm25/tuned" and q >= N else steady(label, q)) - min(lost, steady(label, q))

    found = numerics(made(tmp_path / "a"), made(tmp_path / "b", worse))
    row = row_of(found.rows, "bm25/tuned", "test", "f1")
    assert row.flipped and (row.verdict_before, row.verdict_after) == ("shown better", "not shown")
    assert any(
        line.startswith(
            "2 of 4 verdicts against the baseline change: F1 of bm25/tuned on test, from 'shown better' to 'not shown'"
        )
        for line in found.lines
    )
    assert "Another configuration is chosen: bm25/tuned instead of dense/tuned." in found.lines


def test_configurations_with_other_ids_are_matched_by_their_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(tmp_path / "a")
    monkeypatch.setattr(handmade, "configuration_id", lambda label: f"int8-{label.replace('/', '-')}")
    second = made(tmp_path / "b", settings={"components": {"generators": {"base": {"precision": "int8"}}}})
    found = numerics(first, second)
    assert found.partners["bm25-base"] == "int8-bm25-base" and len(found.partners) == 4
    assert len(found.rows) == 14 and not found.unpaired
    assert row_of(found.rows, "dense/tuned", "test", "f1").verdict_after == "shown better"
    assert any("components.generators.base.precision (not set → int8)" in line for line in found.lines)


def test_what_has_no_partner_is_said(tmp_path: Path) -> None:
    other = AXES | {"generator": ["base", "quick"]}
    found = numerics(made(tmp_path / "a"), made(tmp_path / "b", axes=other, metrics=("f1",), run_id="20270102T030405Z-bbbbbb"))
    assert {row.label for row in found.rows} == {"bm25/base", "dense/base"}
    last = found.lines[-1]
    assert last.startswith("Not compared: bm25/tuned, which is in 20260102T030405Z-aaaaaa alone; dense/tuned, which")
    assert "bm25/quick, which is in 20270102T030405Z-bbbbbb alone" in last
    assert "bm25/base on dev by nDCG@10, measured in 20260102T030405Z-aaaaaa alone" in last


def test_rankings_are_counted_by_their_scores(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / name, {"retriever": ["bm25"]}, metrics=("ndcg@10", "mrr@10"), failed=(), score=score)
        for name, score in (("a", lambda label, q: 0.5), ("b", lambda label, q: 0.5 if q else 0.25))
    ]
    for run in runs:
        path = run.folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": DATASET}))
        (run.folder / "answers.jsonl").write_text("")
    found = numerics(*(Run.open(run.folder) for run in runs))
    assert found.lines[0] == f"2 of {2 * N} rankings score differently (8.3 %)."
    assert found.lines[1].endswith("its sampling interval is ±11.0 points.")  # equal scores of few questions leave much open
    assert "There are no verdicts to compare." in found.lines
    assert all(row.share is not None and row.share < 0.1 for row in found.rows)
    assert (
        numerics(runs[0].open(runs[0].folder), runs[0].open(runs[0].folder)).lines[0] == f"All {2 * N} rankings score the same."
    )


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"experiment": "another"}, "a run of the experiment 'handmade' and .* of 'another'; .* `workbench compare "),
        ({"manifest": {"dataset": DATASET | {"documents": "x"}}}, "other documents"),
        ({"axes": {"retriever": ["x", "y"], "generator": ["v", "w"]}}, "no configuration in common"),
    ],
)
def test_runs_that_are_no_partners_are_refused(tmp_path: Path, others: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        numerics(made(tmp_path / "a"), made(tmp_path / "b", **others))


def test_two_runs_are_compared_on_the_command_line(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a"), made(tmp_path / "b", moved, run_id="20270102T030405Z-bbbbbb")
    table, text = tmp_path / "noise.csv", tmp_path / "noise.md"
    arguments = ["compare", str(first.folder), str(second.folder), "--numerics"]
    done = CliRunner().invoke(cli.app, [*arguments, "--out", str(table), "--out", str(text)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith(
        "All 84 answers are the same. The passages shown are the same.\nThe largest shift of a mean is 2.0 points"
    )
    assert "nDCG" not in done.output.split("The largest")[1]
    assert "nDCG@10" in CliRunner().invoke(cli.app, [*arguments, "--details"]).output
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14 and tuple(rows[0]) == ShiftRow._fields
    assert sum(float(row["shift"]) for row in rows if row["metric"] == "f1") == pytest.approx(0.02)
    assert (
        text.read_text().startswith("- All 84 answers are the same. The passages shown are the same.\n")
        and "| test | dense/tuned | 0 of 12 |" in text.read_text()
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--metric", "f1"), "--metric does not go with --numerics"),
        (("--margin", "0"), "--margin does not go with --numerics"),
        (("--out", "noise.tex"), "its ending is '.tex'; allowed: .csv, .md"),
        (("another",), "--numerics holds two runs against each other; 3 were given"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    run = str(made(tmp_path / "a").folder)
    done = CliRunner().invoke(cli.app, ["compare", run, run, "--numerics", *options])
    assert isinstance(done.exception, InputError) and words in str(done.exception)


def test_a_rerun_reproduces_a_run_and_finds_a_changed_answer(toy: Finished, tmp_path: Path) -> None:
    done = workbench("rerun", toy.run, "--no-notebooks")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "The run is reproduced: every table and every answer is the same, byte for byte." in done.stdout
    last = done.stdout.splitlines()[-2:]
    assert last[0].startswith("Computed again: 0 of ") and "--runs with an empty folder computes everything again" in last[0]
    again = Path(last[1].removeprefix("run: "))
    assert again.parent == toy.run.parent and again != toy.run and Run.open(again).promoted

    damaged = tmp_path / "smoke" / toy.run.name
    shutil.copytree(toy.run, damaged)
    (tmp_path / ".store").symlink_to(toy.runs / ".store")
    lines = [json.loads(line) for line in (damaged / "answers.jsonl").read_text().splitlines()]
    lines[0]["reply"] += "!"
    (damaged / "answers.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    done = workbench("rerun", damaged, "--no-notebooks")
    assert done.returncode == 2 and "answers.jsonl is not what the run wrote" in done.stderr
    as_written(damaged, "answers.jsonl")
    done = workbench("rerun", damaged, "--no-notebooks")
    assert done.returncode == 1, done.stderr[-2000:]
    assert done.stdout.startswith(f"1 of {len(lines)} answers differs") and "not the same: answers.jsonl." in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"run: {damaged.parent}")


def test_a_rerun_in_another_precision_reports_and_passes(toy: Finished, tmp_path: Path) -> None:
    then = Run.open(toy.run).manifest["machine"]["arithmetic"].split("/")[-2]
    now = {"bfloat16": "float32", "float32": "bfloat16"}[then]
    less = ("--set", "axes.generator=[base]", "--set", "axes.prompt=[terse]", "--set", "axes.reranker=[none]")
    done = workbench(
        "rerun",
        toy.run,
        "--runs",
        tmp_path,
        "--no-notebooks",
        "--set",
        f"machine.precision={now}",
        *less,
        "--out",
        tmp_path / "n.csv",
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert f"machine.precision ({then} → {now})" in done.stdout
    assert f"bm25/maxsim/cited/base, which is in {toy.run.name} alone" in done.stdout
    found = Run.open(done.stdout.splitlines()[-1].removeprefix("run: "))
    assert found.folder.parent == tmp_path / "smoke" and found.manifest["machine"]["arithmetic"].split("/")[-2] == now
    with (tmp_path / "n.csv").open() as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"dev", "test"}


def test_a_rerun_that_cannot_be_compared_is_still_named(toy: Finished, tmp_path: Path) -> None:
    others = ("--set", "axes.generator=[base]", "--set", "axes.retriever=[bm25]", "--set", "axes.passages=[2]")
    less = ("--set", "axes.reranker=[none]", "--set", "axes.prompt=[terse]", "--set", "baseline={}")
    done = workbench("rerun", toy.run, "--runs", tmp_path, "--no-notebooks", *others, *less)
    assert done.returncode == 2 and "measured no configuration in common" in done.stderr, done.stderr[-2000:]
    assert Run.open(done.stdout.splitlines()[-1].removeprefix("run: ")).leaderboard


def test_a_rerun_is_the_same_experiment_on_the_same_data(toy: Finished) -> None:
    for override in ("dataset.limit=3", "experiment=other"):
        done = workbench("rerun", toy.run, "--set", override)
        assert done.returncode == 2 and "Data that have moved are named with --dataset" in done.stderr
    done = workbench("rerun", toy.run, "--set", "machine.precison=float32")
    assert done.returncode == 2 and "precison" in done.stderr
    assert workbench("rerun", toy.run, "--out", "x.tex").returncode == 2


def test_paths_of_a_run_are_absolute_and_those_of_options_count_from_here(
    toy: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_settings(toy.run / "config.yaml", ["components.generators.base.model=./mine"], Path())
    assert settings.components.generators["base"]["model"] == str(tmp_path / "mine")
    assert (
        settings.components.generators["tuned"]["model"]
        == Run.open(toy.run).settings["components"]["generators"]["tuned"]["model"]
    )
    assert settings.dataset.folder and settings.dataset.folder.is_absolute()


def test_the_folder_of_runs_is_known_from_within(toy: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Run.open(toy.run).runs == toy.runs
    for place, name in ((toy.run, "."), (toy.run.parent, toy.run.name), (toy.run / "figures", ".."), (toy.runs, "smoke")):
        monkeypatch.chdir(place)
        folder = Path(name) / toy.run.name if name == "smoke" else Path(name)
        assert Run.open(folder).runs.resolve() == toy.runs.resolve()


def test_what_is_held_is_what_a_run_measured(toy: Finished) -> None:
    assert {name for name in HELD if not (toy.run / name).is_file()} == {"slices.csv"}  # only where slices are named


def test_the_documents_take_their_block_from_two_runs(toy: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = generator()
    page = tmp_path / "machine-noise.md"
    begin = "<!-- begin: noise (docs/generate.py writes this block from a run) -->"
    page.write_text(f"before\n{begin}\nold\n<!-- end: noise -->\nafter\n")
    monkeypatch.setattr(module, "DOCS", tmp_path)
    module.noise(str(toy.run), str(toy.run))
    text = page.read_text()
    assert text.startswith(f"before\n{begin}\nRun `") and text.endswith("<!-- end: noise -->\nafter\n")
    assert "- All 216 answers are the same. The passages shown are the same.\n" in text and "old" not in text
