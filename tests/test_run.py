"""A run keeps its contract: files, columns, bytes; warm equals cold; notebooks and command line agree."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import yaml
from conftest import ROOT, Finished, workbench
from handmade import as_written

from workbench import Experiment, Run, cli
from workbench.component import file_digest
from workbench.errors import InputError, StageFailedError
from workbench.evaluation.statistics import holm, mean_interval
from workbench.executing import execute
from workbench.experiment.search import Searcher
from workbench.experiment.writer import failures
from workbench.notebooks import NAMES, report
from workbench.pipeline import Pipeline
from workbench.results import tables
from workbench.results.compare import of_runs
from workbench.results.conclusions import conclusions, details
from workbench.results.rows import ResultRow
from workbench.results.verdict import verdict
from workbench.stages.writers import Writer
from workbench.store.progress import Progress

TABLES = ("configurations.csv", "results.csv", "leaderboard.csv", "comparisons.csv", "effects.csv", "interactions.csv")
TABLES += ("finalists.csv", "selection.csv", "search.csv", "queries.csv", "seeds.csv", "retrieval.csv", "training.csv")
ROUNDING = 1e-6  # tables have six decimals: a value and what it is compared with are each off by half of this at most
BYTE_EQUAL = ("config.yaml", *TABLES, "answers.jsonl", "questions.jsonl", "passages.jsonl", "rankings.jsonl")


# the contract that tools read; written out, so that a renamed field of a row fails here
TESTED = "difference,ci_low,ci_high,p,p_holm,smallest_detectable"
CONCLUDED = "family,p_adjusted,low,high,supported"
COLUMNS = {
    "configurations.csv": "configuration,label,chunking,rewriting,expansion,retriever,reranker,retrieval,passages,prompt,"
    "generator,prompt_mismatch,keys",
    "results.csv": "configuration,split,query_id,metric,value,status",
    "leaderboard.csv": "configuration,split,metric,mean,n,failed,ci_low,ci_high,best",
    "comparisons.csv": f"a,b,split,metric,n,{TESTED},{CONCLUDED},n_needed",
    "effects.csv": f"axis,a,b,split,metric,n,cells,{TESTED},{CONCLUDED},n_needed",
    "interactions.csv": f"axis,a,b,given,given_a,given_b,split,metric,cells,n,{TESTED},{CONCLUDED},n_needed",
    "finalists.csv": f"configuration,baseline,split,metric,n,{TESTED},n_needed,{CONCLUDED}",
    "selection.csv": "configuration,baseline,metric,candidates,select_margin,report_margin,optimism,ci_low,ci_high,"
    "predicted_optimism",
    "search.csv": "step,configuration,n,mean,p,level,status,why",
    "queries.csv": "split,query_id,group,question",
    "seeds.csv": "configuration,split,seed,query_id,metric,value,status",
    "retrieval.csv": "configuration,split,seed,questions,without_passages,retrieval,threshold,key",
    "training.csv": "adapter,seed,step,loss,held_back",
}


def same_bytes(a: Path, b: Path) -> None:
    for name in BYTE_EQUAL:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


@pytest.fixture(scope="module")
def run(toy: Finished) -> Run:
    return Run.open(toy.run)


def test_the_run_folder_holds_the_contract(toy: Finished) -> None:
    for name in TABLES:
        with (toy.run / name).open() as file:
            assert next(csv.reader(file)) == COLUMNS[name].split(","), name
    manifest = json.loads((toy.run / "manifest.json").read_text())
    assert {name: file_digest(toy.run / name) for name in manifest["files"]} == manifest["files"]
    assert set(BYTE_EQUAL) | {"plan.json", "timings.csv"} <= set(manifest["files"])
    assert {p.name for p in (toy.run / "figures").iterdir()} >= {"leaderboard.png", "differences.png", "effects.png"}
    status = json.loads((toy.run / "notebooks" / "status.json").read_text())
    seconds = status.pop("seconds")
    assert status == dict.fromkeys(NAMES, "ok") and seconds.keys() == status.keys() and all(s > 0 for s in seconds.values())


def test_the_output_ends_with_conclusions_and_commands(either: Finished, offline: dict[str, str]) -> None:
    """A warm rerun: the same bytes, nothing computed, torch never imported."""
    script = (
        "import sys; from workbench.cli import app\n"
        "try: app(standalone_mode=False)\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "run", str(either.config), "--runs", str(either.runs), "--no-notebooks"]
    done = subprocess.run(command, capture_output=True, text=True, env=offline, cwd=ROOT, check=True)
    lines = done.stdout.strip().splitlines()
    again = Path(lines[-1].removeprefix("run: "))
    assert lines[-2].endswith(f"workbench serve {again}") and lines[-3].endswith(f"workbench report {again}")
    assert f"dashboard --runs {either.runs}" in lines[-4]
    found = verdict(Run.open(again))
    assert any(line.startswith("Of 16 setups the best is ") and "of 100 by F1" in line for line in lines)
    assert any(found.phrase in line for line in lines)
    assert again != either.run
    same_bytes(again, either.run)
    totals = json.loads((again / "plan.json").read_text())["totals"]
    assert totals["computed"] == 0 and totals["found"] == totals["planned"]
    assert done.stderr.strip().splitlines()[-1] == "False"


def test_what_was_computed_is_what_was_planned(either: Finished) -> None:
    plan = json.loads((either.run / "plan.json").read_text())
    assert all(stage["computed"] != stage["found"] for stage in plan["stages"])
    assert plan["totals"]["computed"] == plan["totals"]["planned"] == len(plan["stages"])
    assert len({stage["key"] for stage in plan["stages"]}) == len(plan["stages"])
    for counts in plan["items"].values():
        assert counts["computed"] == counts["distinct"] - counts["found"] > 0
    # 16 configurations ask 12 questions each, but many of their prompts are the same
    assert plan["items"]["answers"]["distinct"] < 16 * 12 + 4 * 12


def test_the_leaderboard_is_the_mean_of_the_results(run: Run) -> None:
    for row in run.leaderboard:
        values = [
            r.value if r.value is not None else 0.0
            for r in run.results
            if (r.configuration, r.split, r.metric) == (row.configuration, row.split, row.metric)
        ]
        assert len(values) == row.n and sum(values) / len(values) == pytest.approx(row.mean, abs=1e-6)


def test_finalists_are_reported_and_everyone_is_selected_from(run: Run) -> None:
    split, metric = run.select
    on = {s: {r.configuration for r in run.leaderboard if r.split == s} for s in (split, run.report_split)}
    assert len(on[split]) == 16
    assert {run.best, run.manifest["baseline"]} <= on[run.report_split] and len(on[run.report_split]) <= 4
    best = run.row(run.best, split, metric)
    assert all(best.mean >= r.mean for r in run.leaderboard if (r.split, r.metric) == (split, metric))


def test_comparisons_are_complete(run: Run) -> None:
    split, metric = run.select
    rows = [r for r in run.comparisons if (r.split, r.metric) == (split, metric)]
    assert len(rows) == 16 * 15 / 2 and all(r.a < r.b for r in rows)
    for row in rows:
        means = [run.row(getattr(row, side), split, metric).mean for side in "ab"]
        assert row.difference == pytest.approx(means[0] - means[1], abs=2e-6)


def test_finalists_are_their_own_family_of_tests(run: Run) -> None:
    baseline = run.manifest["baseline"]
    for metric in {row.metric for row in run.finalists}:
        rows = [row for row in run.finalists if row.metric == metric]
        assert all(row.baseline == baseline and row.split == run.report_split for row in rows)
        assert [row.p_holm for row in rows] == pytest.approx(holm([row.p for row in rows]), abs=ROUNDING * len(rows))
        for row in rows:
            other = run.comparison(row.configuration, baseline, run.report_split, metric)
            assert row.difference == pytest.approx(other.difference, abs=2 * ROUNDING)


def test_optimism_is_the_margin_where_chosen_less_the_margin_on_fresh_questions(run: Run) -> None:
    row, (split, metric), baseline = run.selection, run.select, run.manifest["baseline"]
    margins = [
        run.row(run.best, where, metric).mean - run.row(baseline, where, metric).mean for where in (split, run.report_split)
    ]
    assert (row.configuration, row.baseline, row.candidates) == (run.best, baseline, 16)
    assert [row.select_margin, row.report_margin] == pytest.approx(margins, abs=2e-6)
    assert row.optimism == pytest.approx(margins[0] - margins[1], abs=3e-6)
    assert row.ci_low <= row.optimism <= row.ci_high
    assert row.predicted_optimism >= 0


def test_a_failed_answer_stays_in_the_mean_and_is_counted_once(tmp_path: Path) -> None:
    rows = [ResultRow("c", "dev", "q1", metric, None, "prompt too long") for metric in ("em", "f1")]
    rows += [ResultRow("c", "dev", q, metric, 0.9, "ok") for q in ("q2", "q3") for metric in ("em", "f1")]
    assert failures(rows) == {"prompt too long": 1}
    board = tables.leaderboard(tables.matrices(rows, {q: q for q in ("q1", "q2", "q3")}))
    assert [(r.mean, r.n, r.failed, r.best) for r in board] == [pytest.approx((0.6, 3, 1, 2.8 / 3))] * 2


def test_every_generator_shows_its_noise_floor(either: Finished) -> None:
    run = Run.open(either.run)
    assert run.manifest["repeated"] == {name: {"answers": 8, "differing": []} for name in ("base", "tuned")}
    assert any(line == "Asked again, 16 of 16 answers were the same." for line in conclusions(run))


def test_an_answer_that_differs_when_repeated_is_named(
    run: Run, toy: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stored answer is changed: generated again it differs, and the run would say so."""
    experiment = Experiment.load(toy.config, toy.runs, progress=Progress())
    stage = next(one.repeated for one in experiment.selected_on if one.repeated and not one.answers.writer.adapter)
    stored = Writer.written
    first = stage.answers.prompts(experiment.session)[0]

    def altered(*given: object) -> list[object]:
        found = stored(*given)
        return [dataclasses.replace(found[0], text="something else"), *found[1:]]

    monkeypatch.setattr(Writer, "written", altered)
    stage.compute(tmp_path, experiment.session)
    assert stage.read(tmp_path, experiment.session) == {"answers": 8, "differing": [first.query_id]}


def test_the_plan_of_a_finished_experiment_counts_its_finalists_and_computes_nothing(toy: Finished) -> None:
    rows, total = Experiment.load(toy.config, toy.runs, progress=Progress()).planned_costs()
    stages = json.loads((toy.run / "plan.json").read_text())["stages"]
    assert total.missing == total.tokens == 0 and sum(row.distinct for row in rows) == len(stages)


def test_greedy_measures_only_what_its_path_leads_past(run: Run, toy: Finished) -> None:
    overrides = ["search.strategy=greedy", "search.order=file"]
    found = Experiment.load(toy.config, toy.runs, overrides, Progress()).compare()
    split, metric = run.select
    looked_at = {row.configuration for row in found.search if row.n}
    left = {row.configuration for row in found.search if row.status == "not looked at"}
    # four axes of two values from the baseline: at most one new configuration each
    assert run.manifest["baseline"] in looked_at and len(looked_at) <= 5 and len(looked_at) + len(left) == 16
    assert {r.configuration for r in found.leaderboard if r.split == split} == looked_at
    for c in looked_at:
        assert found.row(c, split, metric) == run.row(c, split, metric)
    ended = next(line for line in details(run) if "as a question passes them" in line)
    end = [row for row in found.search if row.status == "kept"][-1].configuration
    assert (end == run.best and "the grid's best" in ended) or run.labels[end] in ended
    assert any(line.startswith(f"The search (greedy) measured {len(looked_at)} of 16 setups") for line in conclusions(found))


@pytest.mark.parametrize("order,first", [("file", "prompt"), ("models first", "generator")])
def test_greedy_decides_the_axes_in_the_order_told(toy: Finished, tmp_path: Path, order: str, first: str) -> None:
    settings = yaml.safe_load(toy.config.read_text())
    mixed = ["prompt", "generator", "retriever", "reranker"]
    settings["axes"] = {axis: settings["axes"][axis] for axis in [*mixed, "passages"]}
    settings["search"] = {"strategy": "greedy", "order": order}
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    _, steps = Searcher(Experiment.load(tmp_path / "smoke.yaml", toy.runs, (), Progress()).sweep).select()
    decided = [step.why.removeprefix("best by ") for step in steps if step.status == "kept"]
    assert decided[0] == first and sorted(decided) == sorted(mixed)
    assert order != "file" or decided == mixed


def test_several_seeds_are_averaged_and_widen_the_intervals(run: Run, toy: Finished) -> None:
    overrides = ["seeds=3", "report.of=all", "axes.retriever=[bm25]", "axes.reranker=[none]", "axes.prompt=[terse]"]
    found = Experiment.load(toy.config, toy.runs, overrides, Progress()).compare()
    (base,), (tuned,) = ([r.configuration for r in found.configurations if r.values["generator"] == g] for g in ("base", "tuned"))
    assert base == run.manifest["baseline"] and tuned not in run.labels  # another measurement, so another name
    assert {(r.configuration, r.seed) for r in found.seeds} == {(tuned, seed) for seed in range(3)}
    once = next(r.configuration for r in run.configurations if r.label == "bm25/none/terse/tuned")
    first, averaged = run.scores("dev", "f1").column(once), found.scores("dev", "f1").column(tuned)
    trained = [[r.value for r in found.seeds if (r.split, r.metric, r.seed) == ("dev", "f1", s)] for s in range(3)]
    assert trained[0] == first.tolist() and np.mean(trained, axis=0) == pytest.approx(averaged, abs=1e-6)
    scores = found.scores("dev", "contains")
    gaps, by_seed = scores.difference(tuned, base)
    assert by_seed.mean() == pytest.approx(gaps.mean()) and len(by_seed) == 3
    row = found.comparison(tuned, base, "dev", "contains")
    assert row.ci_high - row.ci_low >= np.ptp(mean_interval(gaps, scores.groups)) - 2e-6
    said = conclusions(found)
    assert any(line.startswith("Figures of tuned are means over 3 trainings (seeds 0 to 2)") for line in said)
    served = Pipeline.open(found, tuned)
    assert served.answering.writer.adapter.seed == 0 and served.replay(found.scores("test", "f1").queries[0]).same
    assert of_runs([run, found], "dev", "f1").scores.by_seed.shape[0] == 3


def test_a_race_measures_the_rest_as_the_grid_does(run: Run, toy: Finished) -> None:
    overrides = ["search.strategy=racing", "axes.retriever=[bm25]", "axes.reranker=[none]", "axes.prompt=[terse]"]
    found = Experiment.load(toy.config, toy.runs, overrides, Progress()).compare()
    split, metric = run.select
    assert sorted({row.n for row in found.search}) == [6, 12]
    whole = {row.configuration for row in found.search if row.n == 12}
    assert whole and run.manifest["baseline"] in {r.configuration for r in found.leaderboard if r.split == split}
    for c in whole:
        assert found.row(c, split, metric) == run.row(c, split, metric)
        assert [row.mean for row in found.search if (row.configuration, row.n) == (c, 12)] == [
            pytest.approx(run.row(c, split, metric).mean, abs=2e-6)
        ]


def test_a_race_by_a_ranking_metric_is_refused(toy: Finished) -> None:
    overrides = ["search.strategy=racing", "metrics.select_by=ndcg@10"]
    with pytest.raises(InputError, match=r"'racing' saves answers, but metrics\.select_by is 'ndcg@10'"):
        Experiment.load(toy.config, toy.runs, overrides, Progress())


def test_an_interaction_is_the_difference_of_two_effects(run: Run) -> None:
    split, metric = run.select
    means = {r.configuration: r.mean for r in run.leaderboard if (r.split, r.metric) == (split, metric)}
    rows = [row for row in run.interactions if row.metric == metric]
    assert len(rows) == 6  # pairs of the four axes that vary, two values each

    def mean(**wanted: str) -> float:
        chosen = [means[c.configuration] for c in run.configurations if all(c.values[a] == v for a, v in wanted.items())]
        return sum(chosen) / len(chosen)

    for row in rows:
        at = [
            mean(**{row.axis: row.a, row.given: value}) - mean(**{row.axis: row.b, row.given: value})
            for value in (row.given_a, row.given_b)
        ]
        assert row.difference == pytest.approx(at[0] - at[1], abs=3e-6)


def test_answers_show_where_their_passages_stand(run: Run) -> None:
    rows = [json.loads(line) for line in (run.folder / "answers.jsonl").read_text().splitlines()]
    assert rows == sorted(rows, key=lambda r: (r["configuration"], r["split"], r["query_id"]))
    assert all(p["doc_id"] and p["start"] < p["end"] for row in rows for p in row["passages"])


@pytest.mark.parametrize("which", [pytest.param("toy", marks=pytest.mark.slow), pytest.param("smoke", marks=pytest.mark.soak)])
def test_notebooks_alone_do_the_whole_job_with_the_same_bytes(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    whole = request.getfixturevalue(which)
    values = {"config": str(whole.config), "runs": str(tmp_path / "runs")}
    for name in NAMES:
        execute(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / f"{name}.ipynb", values)
    alone = Run.latest(tmp_path / "runs", "smoke")
    same_bytes(alone.folder, whole.run)
    assert alone.promoted["configuration"] == Run.open(whole.run).promoted["configuration"]


def test_executed_notebooks_only_hit_the_store_and_show_no_bare_figure(toy: Finished) -> None:
    shown = 0
    for name in NAMES:
        book = nbformat.read(toy.run / "notebooks" / f"{name}.ipynb", 4)
        text = json.dumps([cell.get("outputs", []) for cell in book.cells])
        assert "generating" not in text and "embedding:" not in text and "fine-tuning: 0" not in text
        outputs = [output.get("data", {}) for cell in book.cells for output in cell.get("outputs", [])]
        assert not [data for data in outputs if data.get("text/plain", "").startswith("<Figure") and "image/png" not in data]
        shown += sum("text/html" in data for data in outputs)
    assert shown >= 15


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DASHBOARDS = sorted((ROOT / "dashboards").glob("*.ipynb"))


def nbval(folder: Path, **environment: str) -> None:
    """Runs the notebooks of a folder anew; what cells tagged nbval-check-output give has to be what the file holds."""
    options = ["--nbval-lax", "--nbval-cell-timeout=120", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, check=False, timeout=900, env=os.environ | environment
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_nbval_gives_the_same_outputs_again(toy: Finished, tmp_path: Path) -> None:
    checked = 0
    for source in [*(toy.run / "notebooks").glob("*.ipynb"), *DASHBOARDS]:
        shutil.copy(source, tmp_path)
        checked += source.read_text(encoding="utf-8").count("nbval-check-output")
    assert checked >= 12
    nbval(tmp_path, WORKBENCH_RUNS=str(toy.runs))


@pytest.mark.slow
def test_the_tour_runs_with_real_weights_and_gives_the_same_outputs_again(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs" / "quickstart.yaml", tmp_path / "configs")
    (tmp_path / "notebooks").mkdir()
    values = {"runs": str(tmp_path / "runs")}
    source = shutil.copy(ROOT / "notebooks" / "00_tour.ipynb", tmp_path / "notebooks")
    execute(Path(source), tmp_path / "notebooks" / "00_tour.ipynb", values, 240)
    nbval(tmp_path / "notebooks")


def test_notebooks_in_git_carry_no_outputs_and_typed_commented_parameters() -> None:
    assert {path.stem for path in NOTEBOOKS} == {*NAMES, "00_tour"}
    for path in NOTEBOOKS:
        book = nbformat.read(path, 4)
        code = [cell for cell in book.cells if cell.cell_type == "code"]
        assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in book.cells), path
        tagged = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
        assert len(tagged) == 1
        for name, parameter in papermill.inspect_notebook(str(path)).items():
            assert parameter["inferred_type_name"] != "None" and parameter["help"], (path, name)
        assert all("def " not in cell.source and len(cell.source.splitlines()) <= 4 for cell in code)


def notebook(path: Path, *cells: str) -> Path:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(book, path)
    return path


def test_a_parameter_the_notebook_does_not_have_is_refused(tmp_path: Path) -> None:
    source = notebook(tmp_path / "n.ipynb", "depth: int = 1  # passages")
    with pytest.raises(InputError, match=r"unknown parameter of n\.ipynb 'dept'.*Did you mean 'depth'"):
        execute(source, tmp_path / "out.ipynb", {"dept": 2})
    assert not (tmp_path / "out.ipynb").exists()


FULL = 1_000_000  # bytes: what the system lets a file have, where a disk is to be full

ENDINGS = {
    "failed": ("1 / 0", r"02_finetune\.ipynb failed in cell 4: ZeroDivisionError"),
    "killed": ("import os; os._exit(1)", r"02_finetune\.ipynb: the process that executed it ended in cell 4 \(.*_exit"),
    "timed out": ("while True: pass", r"02_finetune\.ipynb: a cell took longer than 15 s in cell 4 \(.*while True"),
    "interrupted": ("import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(60)", None),
    "full": (f"print('x' * {2 * FULL})", r"02_finetune\.ipynb cannot be written in cell 4 \(.*File too large"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_cell_that_does_not_end_well_leaves_the_partial_notebook_and_fails(
    toy: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    parameters = 'config: str = ""  # c\nruns: str = ""  # r\nrun: str = ""  # r'
    wrong, said = ENDINGS[ending]
    monkeypatch.setattr("workbench.notebooks.CELL_SECONDS", 15)
    names = NAMES[1:3]  # of the four, for the time they take
    monkeypatch.setattr("workbench.notebooks.NAMES", names)
    for name in names:
        middle = wrong if name == names[0] else "1"
        notebook(tmp_path / f"{name}.ipynb", parameters, "print('before')", middle, "print('after')")
    monkeypatch.setattr("workbench.shipped.folder", lambda name: tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "manifest.json").write_text((toy.run / "manifest.json").read_text())
    fails = pytest.raises(KeyboardInterrupt) if ending == "interrupted" else pytest.raises(StageFailedError, match=said)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if ending == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, before[1]))
    try:
        with fails:
            report(Run.open(folder), tmp_path, Progress())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    status = json.loads((folder / "notebooks" / "status.json").read_text())
    assert [status[name].split(":")[0] for name in names] == ["failed" if ending == "full" else ending, "ok"]
    assert sorted(path.name for path in (folder / "notebooks").iterdir()) == [*(f"{name}.ipynb" for name in names), "status.json"]
    assert [path for path in tmp_path.iterdir() if path.is_socket()] == []
    partial = nbformat.read(folder / "notebooks" / "02_finetune.ipynb", 4)
    texts = json.dumps([cell.get("outputs", []) for cell in partial.cells])
    assert "before" in texts and "after" not in texts
    marked = [cell.metadata["papermill"]["status"] for cell in partial.cells if cell.cell_type == "code"]
    never = "pending" if ending == "failed" else "not run"  # after an error Papermill marks the cells itself
    assert marked[-2:] == ["failed", never] and "completed" in marked


def test_ask_answers_with_sources_and_provenance(either: Finished, offline: dict[str, str]) -> None:
    done = workbench("ask", either.run, "What does the with statement call first?", env=offline)
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout)
    assert reply["sources"] and reply["sources"][0]["text"] and reply["seconds"]["total"] > 0
    promoted = Run.open(either.run).promoted["configuration"]
    assert reply["provenance"]["run"] == either.run.name and reply["provenance"]["configuration"] == promoted


def test_replayed_answers_are_the_measured_ones(either: Finished) -> None:
    from workbench.pipeline import Pipeline

    recorded = [json.loads(line) for line in (either.run / "answers.jsonl").read_text().splitlines()]
    for configuration in sorted({row["configuration"] for row in recorded})[::5]:
        pipeline = Pipeline.open(either.run, configuration)
        for row in [r for r in recorded if r["configuration"] == configuration][:3]:
            assert pipeline.replay(row["query_id"]).same


def test_replay_tells_a_changed_answer(toy: Finished, tmp_path: Path) -> None:
    from workbench.pipeline import Pipeline

    folder = tmp_path / "smoke" / toy.run.name
    folder.mkdir(parents=True)
    (tmp_path / ".store").symlink_to(toy.runs / ".store")
    rows = [json.loads(line) for line in (toy.run / "answers.jsonl").read_text().splitlines()]
    rows[0]["reply"] += " indeed"
    for name in ("manifest.json", "config.yaml", "configurations.csv", "leaderboard.csv"):
        (folder / name).write_bytes((toy.run / name).read_bytes())
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    as_written(folder, "answers.jsonl")
    outcome = Pipeline.open(folder, rows[0]["configuration"]).replay(rows[0]["query_id"])
    assert not outcome.same and outcome.differing == ["reply"]
    told = workbench("replay", folder, rows[0]["query_id"], "--configuration", rows[0]["configuration"])
    assert told.returncode == 1 and json.loads(told.stdout)["differing"] == ["reply"], told.stderr


def test_promoting_names_the_split_that_chose_and_figures_of_the_other(toy: Finished) -> None:
    record = yaml.safe_load(workbench("promote", toy.run).stdout)
    assert record["chosen"] == {"by": "best mean", "split": "dev", "metric": "f1"}
    assert {figure["split"] for figure in record["figures"].values()} == {"test"}
    run = Run.open(toy.run)
    unreported = next(c for c in run.labels if run.row(c, run.report_split, "f1") is None)
    done = workbench("promote", toy.run, unreported)
    assert done.returncode == 2 and "report.of=all" in done.stderr


@pytest.mark.parametrize(
    "args,message",
    [
        (["run", "configs/absent.yaml"], "does not exist; in configs: "),
        (["run", "configs/smoke.yaml", "--set", "depht=3"], "unknown key 'depht'"),
        (["run", "configs/smoke.yaml", "--set", "depth"], "--set received 'depth'; allowed: key.path=value"),
        (["ask", "runs/none", "x"], "does not exist; `workbench run CONFIG` makes one"),
        (["dashboard", "--port", "0"], "port 0 is not between 1 and 65,535"),
        (["rnu"], "No such command 'rnu'"),
        (["run"], "Missing argument"),
    ],
)
def test_bad_input_is_one_clear_message_and_status_two(args: list[str], message: str) -> None:
    done = workbench(*args)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_an_unfinished_run_is_not_taken_for_one(toy: Finished, tmp_path: Path) -> None:
    folder = tmp_path / "smoke" / "20200101T000000Z-abcdef"
    folder.mkdir(parents=True)
    (folder / "leaderboard.csv").write_bytes((toy.run / "leaderboard.csv").read_bytes())
    with pytest.raises(InputError, match="was not finished; run the experiment again"):
        Run.open(folder)
    with pytest.raises(InputError, match="no finished run"):
        Run.latest(tmp_path)


def test_a_full_disk_is_said_and_loses_nothing(toy: Finished, tmp_path: Path, offline: dict[str, str]) -> None:
    """A limit on file size stands for a full disk: the kernel refuses the write either way."""
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY));"
        "from workbench.cli import main; main()"
    )
    command = [sys.executable, "-c", limited, "run", str(toy.config), "--runs", str(tmp_path), "--no-notebooks"]
    command += ["--set", "dataset={name: pydocs, limit: 12}"]  # more text than that
    done = subprocess.run(command, capture_output=True, text=True, env=offline, cwd=ROOT, check=False)
    assert done.returncode == 2 and "the disk is full" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / ".store" / "tmp").iterdir()) == []
    assert not list(tmp_path.glob("smoke/*/manifest.json"))


def test_an_empty_corpus_stops_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "t"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("q\td\t1\n")
    override = json.dumps({"beir": str(tmp_path), "select": "dev"})
    done = workbench("run", "configs/smoke.yaml", "--set", f"dataset={override}", "--runs", tmp_path / "runs")
    assert done.returncode == 2 and "the corpus is empty" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_models_datasets_and_doctor_say_what_is_here(offline: dict[str, str]) -> None:
    assert "on disk" in workbench("models", env=offline).stdout
    assert "pydocs" in workbench("datasets").stdout
    described = workbench("datasets", "configs/quickstart.yaml").stdout
    assert "58 documents" in described or "documents, judged by spans" in described
    doctor = workbench("doctor", env=offline)
    assert doctor.returncode == 0 and "faiss" in doctor.stdout and "because" in doctor.stdout


def test_importing_the_package_loads_nothing_that_takes_long() -> None:
    heavy = {"torch", "transformers", "numpy", "pandas", "pyarrow", "scipy", "faiss", "matplotlib", "pydantic"}
    code = f"import sys, workbench; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


def test_the_steps_of_a_run_are_those_that_are_done(toy: Finished, tmp_path: Path) -> None:
    tuned = Experiment.load(toy.config, tmp_path, progress=Progress())
    plain = Experiment.load(toy.config, tmp_path, ["axes.generator=[base]"], Progress())
    assert cli._steps(tuned, notebooks=True)[1] == "2/4 fine-tuning"
    assert cli._steps(plain, notebooks=False) == [
        "1/2 passages, embeddings, indexes, rankings",
        "2/2 answers, scores, comparisons",
    ]
    assert tuned.tunes and not plain.tunes


def test_long_notes_are_cut_and_cautions_are_not(toy: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, said = Experiment.load(toy.config, tmp_path, progress=Progress()), []
    monkeypatch.setattr(type(one.space), "notes", ("short", "word " * 100, "CAUTION: " + "careful " * 100))
    one.session.progress.say = said.append
    cli._say_notes(one)
    assert said[0] == "note: short" and said[1].endswith(" ...") and len(said[1]) <= cli.NOTE + len("note: ")
    assert said[2] == one.space.notes[2] and "manifest.json" in said[3]


def test_rankings_are_shown_before_anything_is_trained(toy: Finished, offline: dict[str, str], tmp_path: Path) -> None:
    done = workbench("run", toy.config, "--runs", tmp_path, "--no-notebooks", env=offline)
    lines = done.stderr.splitlines()
    start, end = (next(i for i, line in enumerate(lines) if words in line) for words in ("1/3 ", "2/3 "))
    between = " ".join(lines[start:end])
    board = [row for row in Run.open(toy.run).leaderboard if row.split == "dev" and row.metric == "ndcg@10"]
    assert board and "n = " in between
    assert all(f"{100 * row.mean:.1f} (" in between for row in board)
