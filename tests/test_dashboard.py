"""The leaderboard as stakeholders see it: what it says of a run, the page that Voila serves, and the page in a browser."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from handmade import F1, configuration_id, make_run

from workbench import dashboards, widgets
from workbench.errors import InputError
from workbench.results import words
from workbench.results.run import Run
from workbench.results.verdict import graded, verdict

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "dashboards" / "leaderboard.ipynb"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# --no-sandbox: the sandbox does not start as root in a container; nothing but our own page is opened.
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
BEST = "dense/tuned"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two runs of one experiment; the older has two configurations."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder)
    make_run(folder, {"retriever": ["bm25"], "generator": ["base", "tuned"]}, run_id="20250102T030405Z-bbbbbb")
    return folder


@pytest.fixture(scope="module")
def run(runs) -> Run:
    return Run.latest(runs)


def row(frame: pd.DataFrame, label: str) -> pd.Series:
    return frame.set_index("label").loc[label]


def test_the_frame_is_the_leaderboard_with_the_comparison_to_the_baseline(run):
    frame = widgets.leaderboard_frame(run, "dev", "f1")
    assert tuple(frame) == widgets.COLUMNS
    assert list(frame["label"]) == sorted(F1, key=lambda label: -run.row(configuration_id(label), "dev", "f1").mean)
    assert list(frame["rank"]) == [1, 2, 3, 4]
    for line in frame.to_dict("records"):
        table = run.row(line["configuration"], "dev", "f1")
        assert {name: line[name] for name in ("mean", "ci_low", "ci_high", "n", "failed")} == {
            name: getattr(table, name) for name in ("mean", "ci_low", "ci_high", "n", "failed")
        }
    pair = run.comparison(configuration_id(BEST), configuration_id("bm25/base"), "dev", "f1")
    best = row(frame, BEST)
    assert (best["difference"], best["low"], best["high"], best["verdict"]) == (
        pair.difference,
        pair.low,
        pair.high,
        graded(pair),
    )
    assert row(frame, "bm25/base")[["difference", "verdict"]].isna().all()
    assert row(frame, "bm25/tuned")["failed"] == 1


def test_equal_means_share_a_rank(tmp_path):
    run = make_run(tmp_path, failed=(), score=lambda label, q: 0.5 if "tuned" in label else 0.1)
    assert list(widgets.leaderboard_frame(run, "dev", "f1")["rank"]) == [1, 1, 3, 3]


def test_the_verdict_names_the_best_its_score_and_whether_that_is_shown(run):
    said = widgets.verdict(run)
    reported = run.row(configuration_id(BEST), "test", "f1")
    score = f"{words.number(reported.mean)} of 100 by F1 (plausibly {words.between(reported.ci_low, reported.ci_high)})"
    assert said.startswith(f"Of 4 setups the best is dense/tuned. On 12 fresh questions (test) it scores {score}. ")
    assert f"Against today's setup, bm25/base: {verdict(run).phrase}." in said
    assert verdict(run).word == "shown better"


def test_the_verdict_says_when_nothing_is_shown(tmp_path):
    run = make_run(tmp_path, failed=(), score=lambda label, q: (3 * q + len(label)) % 5 / 5 + (0.15 if label == BEST else 0))
    assert ": not shown. Two equally good setups" in widgets.verdict(run)
    assert widgets.reading(run, "dev", "f1") == "No two single setups can be told apart by F1 with these 12 questions (dev)."


def test_the_verdict_says_when_the_baseline_is_best(tmp_path):
    run = make_run(tmp_path, failed=(), score=lambda label, q: 0.9 if label == "bm25/base" else 0.1 + q / 20)
    assert widgets.verdict(run).endswith("It is today's setup itself, so the baseline is best: nothing tried is better.")


def test_one_configuration_has_a_verdict_without_a_comparison(tmp_path):
    run = make_run(tmp_path, {"retriever": ["bm25"]}, metrics=("ndcg@10",))
    assert widgets.verdict(run).startswith("The only setup is bm25. On 12 fresh questions (test) it scores ")
    assert widgets.reading(run, "dev", "ndcg@10") == "There is nothing to compare."


def test_labels_are_text_and_never_markup(run):
    frame = widgets.leaderboard_frame(run, "dev", "f1").assign(label="<script>alert(1)</script>")
    shown = widgets.table_html(frame, {}, "<b>")
    assert "<script>" not in shown
    assert "<b>" not in shown


def test_runs_are_offered_newest_first_with_names_for_people(runs):
    names = [name for name, _ in widgets.run_choices(runs)]
    assert names == ["handmade, 2 January 2026, 03:04:05 UTC", "handmade, 2 January 2025, 03:04:05 UTC"]


def test_the_folder_of_runs_is_the_one_given_else_from_the_environment_else_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "named"))
    assert widgets.runs_folder(tmp_path / "given") == tmp_path / "given"
    assert widgets.runs_folder() == tmp_path / "named"
    monkeypatch.delenv("WORKBENCH_RUNS")
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "runs").mkdir()
    for here in (tmp_path, tmp_path / "dashboards"):  # Voila starts a notebook's kernel in the notebook's folder
        monkeypatch.chdir(here)
        assert widgets.runs_folder() == tmp_path / "runs"


@pytest.mark.parametrize("port", [-1, 0, 99_999_999])
def test_a_port_that_is_none_is_refused(tmp_path, port):
    with pytest.raises(InputError, match="is not between 1 and 65,535"):
        dashboards.show("leaderboard", port, tmp_path)


def test_without_a_run_the_view_says_so_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        widgets.run_choices(tmp_path)
    view = widgets.LeaderboardView(tmp_path)
    assert view.value is None
    assert "There is no finished run" in repr(view)
    assert "workbench run configs/quickstart.yaml" in repr(view)


def test_a_damaged_run_is_shown_as_an_error_and_the_others_stay_open_to_choice(tmp_path):
    good = make_run(tmp_path)
    damaged = make_run(tmp_path, run_id="20270102T030405Z-cccccc")
    (damaged.folder / "leaderboard.csv").unlink()
    view = widgets.LeaderboardView(tmp_path)
    assert view.value is None
    assert "leaderboard.csv" in repr(view)
    view._choose_run.value = good.folder
    assert view.value["label"][0] == BEST


def test_choosing_shows_that_table_and_keeps_the_metric_where_it_was_measured(runs, run):
    view = widgets.LeaderboardView(runs)
    assert list(view.value["mean"]) == list(widgets.leaderboard_frame(run, "dev", "f1")["mean"])
    view._choose_metric.value = "ndcg@10"
    assert list(view.value["mean"]) == list(widgets.leaderboard_frame(run, "dev", "ndcg@10")["mean"])
    view._choose_split.value = "test"
    assert view._choose_metric.value == "ndcg@10"
    assert list(view.value["mean"]) == list(widgets.leaderboard_frame(run, "test", "ndcg@10")["mean"])
    view._choose_run.value = widgets.run_choices(runs)[1][1]
    assert len(view.value) == 2


def test_the_notebook_is_thin_and_holds_no_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert [cell.metadata.get("tags", []) for cell in code] == [["parameters"], []]
    for line in code[0].source.splitlines():
        assignment, comment = line.split("  # ")
        assert assignment.count("=") == 1
        assert ": " in assignment
        assert "=" not in comment


# --- The page ---------------------------------------------------------------------------------------------------------


def serve(runs: Path, log: Path) -> tuple[subprocess.Popen, str]:
    """Voila with the leaderboard on a free loopback port; its process and address, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"WORKBENCH_RUNS": str(runs), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "voila", str(NOTEBOOK), "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"]
    with log.open("w") as file:
        process = subprocess.Popen([*command, "--port_retries=0"], stdout=file, stderr=file, env=environment, cwd=log.parent)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return process, f"http://127.0.0.1:{port}/"
        except OSError:
            time.sleep(0.1)
    end(process)
    raise AssertionError(f"Voila did not start:\n{log.read_text()}")


def end(process: subprocess.Popen) -> None:
    """Ends Voila, which ends its kernels."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory) -> Iterator[str]:
    process, address = serve(runs, tmp_path_factory.mktemp("voila") / "voila.log")
    yield address
    end(process)


def fetch(address: str) -> str:
    with urllib.request.urlopen(address, timeout=40) as answer:
        assert answer.status == 200
        return answer.read().decode()


def test_the_page_names_the_best_and_shows_neither_code_nor_traceback(page):
    shown = fetch(page)
    assert "Of 4 setups the best is dense/tuned" in shown
    assert "How to read it" in shown
    for unwanted in ("import ", "LeaderboardView(runs)", "Traceback", "There was an error when executing"):
        assert unwanted not in shown


def test_the_page_without_a_run_says_how_to_make_one(tmp_path):
    process, address = serve(tmp_path / "empty", tmp_path / "voila.log")
    try:
        shown = fetch(address)
    finally:
        end(process)
    assert "There is no finished run in" in shown
    assert "workbench run configs/quickstart.yaml" in shown
    assert "Traceback" not in shown


@pytest.mark.skipif(not BROWSER and os.environ.get("CI") != "true", reason="no chromium here; in CI this test always runs")
def test_in_a_browser_another_metric_changes_table_and_figure(page, run):
    from playwright.sync_api import expect, sync_playwright

    assert BROWSER, "chromium is missing"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        try:
            tab = browser.new_page(viewport={"width": 800, "height": 900})
            tab.goto(page, wait_until="commit")
            tab.locator(".wb-table").wait_for(timeout=40_000)
            first = tab.locator(".wb-table tbody tr").first
            f1, ndcg = (run.row(configuration_id(BEST), "dev", metric).mean for metric in ("f1", "ndcg@10"))
            expect(first).to_contain_text(BEST)
            expect(first).to_contain_text(f"{100 * f1:.1f}")
            expect(tab.locator(".wb-verdict")).to_contain_text("Of 4 setups the best is dense/tuned")
            before = tab.locator(".wb-figure").get_attribute("src")
            tab.get_by_label("metric").select_option(label="nDCG@10")
            expect(first).to_contain_text(f"{100 * ndcg:.1f}", timeout=15_000)
            expect(tab.locator(".wb-figure")).not_to_have_attribute("src", before)
            expect(tab.locator(".wb-error")).to_have_count(0)
            width = tab.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert width[0] <= width[1], "the page is wider than the window"
        finally:
            browser.close()
