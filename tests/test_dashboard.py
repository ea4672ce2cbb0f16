"""The pages that stakeholders and researchers open: the index, what a run found, its questions and tags, in a browser too."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import nbformat
import pytest
from conftest import ROOT
from handmade import make_run, planted_run

from workbench import dashboards
from workbench.component import file_digest
from workbench.errors import InputError
from workbench.results.example import unpacked
from workbench.results.run import Run
from workbench.results.tags import BAD, MISREAD, MISSED, PASSED_OVER, TAGS, Tags
from workbench.views.index import index
from workbench.widgets import QuestionsPage, TrainingPage, VerdictPage
from workbench.widgets.choosing import address_name, run_choices, runs_folder, wanted_run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# --no-sandbox: the sandbox does not start as root in a container; nothing but our own page is opened.
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
NEEDS_BROWSER = pytest.mark.skipif(
    BROWSER is None and "CI" not in os.environ, reason="there is no Chromium here; `apt-get install chromium` brings it"
)
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """20 questions, each planted."""
    return planted_run(tmp_path / "runs")


def numbers(page: QuestionsPage) -> list[int]:
    """The numbers of the questions in the list."""
    return [int(one.query_id.removeprefix("q")) for one in page.shown]


# --- The index -------------------------------------------------------------------------------------------------------


def test_the_index_lists_runs_newest_first_with_verdicts_and_what_did_not_finish(tmp_path: Path) -> None:
    planted_run(tmp_path)
    make_run(tmp_path, run_id="20270102T030405Z-bbbbbb")
    damaged = make_run(tmp_path, run_id="20250102T030405Z-cccccc")
    (damaged.folder / "leaderboard.csv").unlink()
    (tmp_path / "mine" / "20260601T000000Z-dddddd").mkdir(parents=True)
    page = index(tmp_path)
    heads = re.findall("<h3><bdi>(.*?)</bdi></h3>", page.split("<section id=example")[0])
    assert [head.split(",")[1].strip() for head in heads] == ["2 January 2027", "2 January 2026", "2 January 2025"]
    assert "✓ Better: <bdi>dense/tuned</bdi>" in page and "leaderboard.csv" in page
    assert "mine, 1 June 2026, 00:00:00 UTC</bdi> did not finish" in page
    assert "voila/render/questions.ipynb?run=planted%2F20260102T030405Z-aaaaaa" in page


def test_the_index_without_a_run_says_how_to_make_one(tmp_path: Path) -> None:
    page = index(tmp_path / "<i>")
    assert "There is no finished run in" in page and "workbench run configs/quickstart.yaml" in page and "<i>" not in page


def test_the_recorded_example_is_offered_last_and_needs_no_other_run(tmp_path: Path) -> None:
    example = unpacked()
    name = address_name(example)
    page = index(tmp_path)
    assert "Recorded example</h2>" in page and f"report?{urlencode({'run': name})}" in page
    assert wanted_run(tmp_path, name) == example
    planted_run(tmp_path)
    assert run_choices(tmp_path)[-1] == ("recorded example", example)


def test_the_folder_of_runs_is_the_one_given_else_from_the_environment_else_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "named"))
    assert runs_folder(tmp_path / "given") == tmp_path / "given"
    assert runs_folder() == tmp_path / "named"
    monkeypatch.delenv("WORKBENCH_RUNS")
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "runs").mkdir()
    for here in (tmp_path, tmp_path / "dashboards"):  # Voila starts a notebook's kernel in the notebook's folder
        monkeypatch.chdir(here)
        assert runs_folder() == tmp_path / "runs"


def test_a_run_is_named_by_experiment_and_id(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run"):
        run_choices(tmp_path)
    made = planted_run(tmp_path)
    assert wanted_run(tmp_path, f"planted/{made.folder.name}") == made.folder
    with pytest.raises(InputError, match=r"no finished run '\.\./x' in .*; there are planted/"):
        wanted_run(tmp_path, "../x")


@pytest.mark.parametrize("port", [-1, 0, 99_999_999])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: int) -> None:
    with pytest.raises(InputError, match="is not between 1 and 65,535"):
        dashboards.show(port, tmp_path)


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match=r"port \d+ cannot be used .*choose another with --port"):
            dashboards.refuse_taken(taken.getsockname()[1])


# --- Pages, without a browser ----------------------------------------------------------------------------------------


def test_pages_open_the_newest_run_or_the_one_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = planted_run(tmp_path)
    newer = make_run(tmp_path, run_id="20270102T030405Z-bbbbbb")
    assert VerdictPage(runs=tmp_path).run.folder == newer.folder
    monkeypatch.setenv("QUERY_STRING", urlencode({"run": f"planted/{older.folder.name}", "metric": "contains"}))
    page = VerdictPage(runs=tmp_path)
    assert page.run.folder == older.folder and "Setups on test, by answer contained" in page.said
    assert page._address.address == f"run=planted%2F{older.folder.name}&metric=contains"
    monkeypatch.setenv("QUERY_STRING", "run=nobody/knows")
    assert "there is no finished run &#x27;nobody/knows&#x27;" in VerdictPage(runs=tmp_path).said


def test_without_a_run_a_page_says_so(tmp_path: Path) -> None:
    for kind in (VerdictPage, QuestionsPage, TrainingPage):
        assert "There is no finished run in" in kind(runs=tmp_path).said


def test_questions_are_listed_by_what_became_of_them(run: Run) -> None:
    page = QuestionsPage(run)
    assert numbers(page) == [*range(20)]
    expected = {"gained": [*range(7)], "lost": [7, 8, 9], "failed": [10, 11]}
    expected |= {"evidence never retrieved": [12], "evidence ranked too low": [13]}
    for name, found in expected.items():
        page.choose_show.value = name
        assert numbers(page) == found, name
        assert [label for label, value in page.choose_show.options if value == name] == [f"{name} ({len(found)})"]
    page.choose_show.value = "evidence shown and misread"
    assert 14 in numbers(page) and not {10, 11, 12, 13} & set(numbers(page))
    page.choose_show.value = "kind: reworded"
    assert numbers(page) == [*range(1, 20, 2)]
    page.choose_show.value, page.find.value = "all", "QUESTION 14"
    assert numbers(page) == [14] and "Question 14?" in page.said
    page.find.value = "zzz"
    assert page.value is None and "No question is shown by" in page.said


def test_two_setups_of_ones_choice_stand_side_by_side(run: Run) -> None:
    page = run.compare("bm25/base", "dense/tuned")
    assert isinstance(page, QuestionsPage)
    page.choose_show.value = "gained"
    assert numbers(page) == [7, 8, 9]  # what the chosen setup lost
    assert "<b>wrong</b> 7" in page.said and "<b><mark>answer</mark></b><mark> 7</mark>" in page.said
    with pytest.raises(InputError, match="unknown configuration 'nobody'"):
        run.compare("nobody")


def test_the_stage_that_failed_is_proposed_and_tags_stay(run: Run) -> None:
    digests = {path.name: file_digest(path) for path in run.folder.iterdir() if path.is_file()}
    page = QuestionsPage(run)
    for query, tag in {"q12": MISSED, "q13": PASSED_OVER, "q14": MISREAD}.items():
        page.list.value = query
        assert f"The ranking proposes: {TAGS.index(tag) + 1} {tag}." in page.standing.value
        page.tag(tag)
        assert "proposes" not in page.standing.value
    page.own.value = "needs a table"
    page.note.value = "both columns"
    page.list.value = "q03"
    page.tag(BAD)
    page.tag(BAD)  # a second time takes it off
    again = QuestionsPage(run)
    again.choose_show.value = "tagged"
    assert numbers(again) == [12, 13, 14]
    again.choose_show.value = "tag: needs a table"
    assert numbers(again) == [14]
    again.list.value = "q14"
    assert again.note.value == "both columns" and f"Tags: <bdi>{MISREAD}; needs a table</bdi>" in again.standing.value
    tags = Tags(run.folder)
    assert tags.counts(run.best) == {MISSED: 1, PASSED_OVER: 1, MISREAD: 1, "needs a table": 1}
    exported = tags.export(run.best).splitlines()
    assert exported[0] == "query_id,tag,note" and exported[-1] == f'q14,"{MISREAD}; needs a table",both columns'
    after = {path.name: file_digest(path) for path in run.folder.iterdir() if path.is_file()}
    assert {name: after[name] for name in digests} == digests


def test_tags_that_cannot_be_kept_are_refused(run: Run) -> None:
    tags = Tags(run.folder)
    with pytest.raises(InputError, match="empty; give words"):
        tags.put(run.best, "q01", "  ")
    with pytest.raises(InputError, match="at most 200 characters"):
        tags.put(run.best, "q01", "x" * 201)
    (run.folder / "tags.jsonl").write_text('{"time": "now"}\n')
    with pytest.raises(InputError, match=r"tags\.jsonl, line 1"):
        Tags(run.folder)
    page = QuestionsPage(run)
    assert "tags.jsonl" in page.said


def test_the_notebooks_of_dashboards_are_thin_and_hold_no_outputs() -> None:
    for path in sorted((ROOT / "dashboards").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert notebook.metadata.kernelspec.name == "python3"
        assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells)
        assert all(len(cell.source.splitlines()) <= 3 for cell in notebook.cells)


# --- The pages as Voila serves them ----------------------------------------------------------------------------------

# what a test changes of the server: kernels without a page end at once
PROGRAM = """
import sys
from pathlib import Path
from workbench import dashboards
from workbench.dashboards import server
server.IDLE_SECONDS, server.LOOK_SECONDS = float(sys.argv[3]), 1
dashboards.show(int(sys.argv[1]), Path(sys.argv[2]))
"""


class Served:
    """Dashboards on a free port of this machine."""

    def __init__(self, runs: Path, folder: Path, idle_seconds: float = 300) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log, self.address = folder / "voila.log", f"http://127.0.0.1:{port}/"
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-c", PROGRAM, str(port), str(runs), str(idle_seconds)]
        with self.log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=folder)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        self.end()
        raise AssertionError(f"Voila did not start:\n{self.log.read_text()}")

    def end(self) -> None:
        """Ends Voila, which ends its kernels."""
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kernels(self) -> list[int]:
        """Process ids of its kernels."""
        command = ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        return [int(line.split()[0]) for line in listed.stdout.splitlines() if "ipykernel" in line]

    def get(self, path: str = "") -> str:
        """A page by a plain request."""
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return answer.read().decode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    planted_run(folder / "runs")
    found = Served(folder / "runs", folder)
    yield found
    found.end()


def test_index_and_report_need_no_kernel_and_what_is_not_there_is_said(served: Served) -> None:
    assert "planted, 2 January 2026" in served.get()
    assert "All questions" in served.get("report?run=planted%2F20260102T030405Z-aaaaaa")
    with pytest.raises(urllib.error.HTTPError, match="404") as missing:
        served.get("report?run=no/run")
    assert "there is no finished run" in missing.value.read().decode()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        served.get("voila/files/verdict.ipynb")
    assert not served.kernels()


@NEEDS_BROWSER
def test_planted_questions_are_found_by_keyboard_and_an_address_opens_the_same_question(served: Served) -> None:
    from playwright.sync_api import Page, expect, sync_playwright

    def opened(tab: Page, address: str) -> None:
        tab.goto(address, wait_until="commit")
        tab.get_by_label("question", exact=True).wait_for(timeout=60_000)

    def tabbed_to(tab: Page, label: str) -> None:
        for _ in range(40):
            tab.keyboard.press("Tab")
            if tab.evaluate("document.activeElement.labels?.[0]?.textContent") == label:
                return
        raise AssertionError(f"Tab does not reach {label!r}")

    def listed(tab: Page, n: int) -> list[int]:
        found = tab.get_by_label("question", exact=True).locator("option")
        expect(found).to_have_count(n)
        return [int(re.findall(r"Question\s(\d+)", option)[0]) for option in found.all_text_contents()]

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1000, "height": 900})
        outside: list[str] = []
        tab.on("request", lambda one: None if one.url.startswith((served.address, "data:", "blob:")) else outside.append(one.url))
        opened(tab, served.address + "voila/render/questions.ipynb")
        status = tab.get_by_role("status")
        expect(status).to_have_text("20 of 20 questions")
        tabbed_to(tab, "show")
        tab.keyboard.type("lost")
        expect(status).to_have_text("3 of 20 questions")
        assert listed(tab, 3) == [7, 8, 9]
        tabbed_to(tab, "question")
        tab.keyboard.press("ArrowDown")
        expect(tab.locator(".wb h3").first).to_have_text("Question 8?")
        address = tab.url
        assert parse_qs(urlsplit(address).query) | {"run": []} == {"run": [], "show": ["lost"], "q": ["q08"]}
        tab.keyboard.press("5")
        expect(tab.get_by_text(f"Tags: {BAD}.")).to_be_visible()
        second = browser.new_context().new_page()
        opened(second, address)
        expect(second.locator(".wb h3").first).to_have_text("Question 8?")
        expect(second.get_by_text(f"Tags: {BAD}.")).to_be_visible()
        assert listed(second, 3) == [7, 8, 9]
        second.context.close()
        for kernel in served.kernels():
            os.kill(kernel, signal.SIGKILL)
        expect(tab.get_by_role("alert")).to_contain_text("What computes this page has ended", timeout=20_000)
        assert not outside
        browser.close()


@NEEDS_BROWSER
@pytest.mark.slow
def test_every_page_can_be_read_by_everybody(tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    runs = tmp_path / "runs"
    planted_run(runs)
    make_run(runs, {"retriever": ["bm25"]}, metrics=("ndcg@10",), run_id="20270102T030405Z-lonely", experiment="lone")
    (make_run(runs, run_id="20280102T030405Z-broken", experiment="broken").folder / "leaderboard.csv").unlink()
    found = Served(runs, tmp_path)
    pages = [""]
    for name in ("planted/20260102T030405Z-aaaaaa", "lone/20270102T030405Z-lonely", "broken/20280102T030405Z-broken"):
        kinds = ("verdict", "questions", "training") if name.startswith("planted") else ("verdict", "questions")
        pages += [f"voila/render/{kind}.ipynb?{urlencode({'run': name})}" for kind in kinds]
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
            for page in pages:
                tab = browser.new_page(viewport={"width": 1280, "height": 900})
                tab.goto(found.address + page, wait_until="commit")
                tab.locator(".wb").first.wait_for(timeout=60_000)
                for width, scheme in ((320, "light"), (1280, "light"), (1280, "dark"), (390, "dark"), (390, "light")):
                    tab.set_viewport_size({"width": width, "height": 900})
                    tab.emulate_media(color_scheme=scheme)
                    assert tab.evaluate("document.documentElement.scrollWidth") <= width, (page, width)
                    if width > 320 and (
                        page.startswith("voila/render/questions") or (width, scheme) in ((1280, "light"), (390, "dark"))
                    ):
                        said = Axe().run(tab, options=RULES)
                        assert said.violations_count == 0, (page, width, scheme, said.generate_report())
                tab.close()
            browser.close()
    finally:
        found.end()


def loads(served: Served, tab: object, n: int) -> None:
    """Loads of a page in turn: closed, navigated away, reloaded, and plain requests."""
    from playwright.sync_api import Browser

    assert isinstance(tab, Browser)
    for i in range(n):
        if i % 4 == 3:
            served.get("voila/render/training.ipynb")
            continue
        one = tab.new_page()
        one.goto(served.address + "voila/render/training.ipynb", wait_until="commit")
        one.locator(".wb").first.wait_for(timeout=30_000)
        if i % 4 == 1:
            one.goto("about:blank")
        elif i % 4 == 2:
            one.reload()
            one.locator(".wb").first.wait_for(timeout=30_000)
        one.close()


@NEEDS_BROWSER
@pytest.mark.slow
def test_pages_that_are_left_leave_no_kernel(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    planted_run(tmp_path / "runs")
    found = Served(tmp_path / "runs", tmp_path, idle_seconds=5)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
            loads(found, browser, 8)
            browser.close()
        deadline = time.monotonic() + 60
        while found.kernels() and time.monotonic() < deadline:
            time.sleep(1)
        assert not found.kernels()
    finally:
        found.end()


@NEEDS_BROWSER
@pytest.mark.soak
def test_a_hundred_loads_never_hang_and_leave_no_kernel(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    planted_run(tmp_path / "runs")
    found = Served(tmp_path / "runs", tmp_path, idle_seconds=10)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
            loads(found, browser, 100)
            browser.close()
        time.sleep(90)
        assert not found.kernels()
    finally:
        found.end()


@pytest.mark.slow
def test_a_page_of_a_large_run_takes_at_most_200_mb(tmp_path: Path) -> None:
    from benchmarks.views import large_run

    run = large_run(tmp_path)
    program = f"""
from pathlib import Path
from workbench.results.run import Run
from workbench.widgets import QuestionsPage, VerdictPage
import ipykernel.kernelapp
run = Run.open({str(run.folder)!r})
page = {{}}(run)
peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]  # ru_maxrss would hold that of pytest
print(int(peak) / 1e3, len(page.said))
"""
    for kind in ("VerdictPage", "QuestionsPage"):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", program.format(kind)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        megabytes, said = map(float, done.stdout.split())
        assert said > 2_000 and megabytes <= 200, (kind, megabytes)
