"""A run as one HTML file: every number is a cell of the run, hostile texts stay texts, and everybody can read it."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qsl, quote

import pytest
from conftest import ROOT, Finished
from handmade import planted_run
from test_dashboard import BROWSER, FLAGS
from test_verdict import fixture_run
from typer.testing import CliRunner

from workbench import cli
from workbench.component import file_digest
from workbench.results import table_files, words
from workbench.results.rows import CostRow
from workbench.results.run import Run
from workbench.results.tags import MISSED, Tags
from workbench.views.asked import Asked
from workbench.views.question import question
from workbench.views.report import report


class Read(HTMLParser):
    """What a report shows: texts with the cells that they name, and texts that name none."""

    VOID = ("meta", "input", "br", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.named: list[tuple[str, str]] = []  # (addresses, text)
        self.unnamed: list[str] = []
        self._open: list[tuple[str, str | None]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.VOID:
            return
        cells = dict(attrs).get("data-cell")
        self._open.append((tag, cells))
        if cells is not None:
            self.named.append((cells, ""))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self._open]
        if "style" in tags or "script" in tags:
            return
        if any(cells is not None for _, cells in self._open):
            addresses, text = self.named[-1]
            self.named[-1] = (addresses, text + data)
        elif not {"bdi", "pre", "code"} & set(tags):
            self.unnamed.append(data)


def cell(run: Run, address: str) -> str:
    """The cell of a table of the run, as it is written."""
    file, _, rest = address.partition("?")
    query, _, column = rest.partition("#")
    wanted = dict(parse_qsl(query, keep_blank_values=True))
    rows = [
        row
        for row in csv.DictReader((run.folder / file).open(encoding="utf-8"))
        if all(row[name] == value for name, value in wanted.items())
    ]
    assert len(rows) == 1, (address, len(rows))
    return rows[0][column]


def shown_forms(raw: str) -> set[str]:
    """How a cell may be shown."""
    if not re.fullmatch(r"-?[0-9.e+-]+", raw):
        return {raw}
    value = float(raw)
    points = {words.number(value, signed=signed) for signed in (False, True)} | {words.number(-value, signed=True)}
    whole = {f"{int(value):,}"} if value == int(value) else set()
    return points | whole | {f"{value:.2f}"} | {f"{text} points" for text in points}


@pytest.fixture(scope="module")
def run(toy: Finished, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The toy run's folder alone."""
    folder = tmp_path_factory.mktemp("copied") / toy.run.name
    shutil.copytree(toy.run, folder)
    return Run.open(folder)


def changed(run: Run, folder: Path, name: str, change: Callable[[str], str]) -> Run:
    """A copy of a run in which one file is another, and the manifest knows it."""
    shutil.copytree(run.folder, folder)
    path = folder / name
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = file_digest(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Run.open(folder)


def test_every_number_of_the_report_is_a_cell_of_the_run(run: Run) -> None:
    page = Read(report(run))
    checked = 0
    for addresses, text in page.named:
        several = addresses.split()
        if (
            len(several) == 1
            and ".csv?" in several[0]
            and several[0].rpartition("#")[2] not in ("supported", "p_adjusted", "value", "*")
        ):
            assert text in shown_forms(cell(run, several[0])), (addresses, text)
            checked += 1
        elif len(several) == 2 and [one.rpartition("#")[2] for one in several] in (["low", "high"], ["ci_low", "ci_high"]):
            low, high = sorted(float(cell(run, one)) for one in several)
            forms = {words.between(a, b, signed=signed) for a, b in ((low, high), (-high, -low)) for signed in (False, True)}
            assert text in forms, (addresses, text)
            checked += 1
    assert checked > 20
    told = words.meaning(run.select[1])  # what the ends of a metric are
    known = {*run.names.values(), *run.labels.values(), run.folder.name, "95th", "F1", *run.axes, told}
    rest = " ".join(page.unnamed)
    for name in sorted(known, key=len, reverse=True):
        rest = rest.replace(name, "")
    rest = re.sub(r"\w+@\d+|of 100", "", rest)
    assert not re.findall(r"\d+", rest), re.findall(r".{30}\d+.{10}", rest)


def test_one_changed_cell_changes_the_report_there_and_nowhere_else(run: Run, tmp_path: Path) -> None:
    last = sorted(row.mean for row in run.leaderboard if (row.split, row.metric) == (run.report_split, run.select[1]))[0]
    row = next(r for r in run.leaderboard if (r.split, r.metric, r.mean) == (run.report_split, run.select[1], last))

    def change(text: str) -> str:
        rows = list(csv.reader(text.splitlines()))
        column = rows[0].index("ci_high")
        for line in rows[1:]:
            if line[:3] == [row.configuration, row.split, row.metric]:
                line[column] = "0.987654"
        return "".join(",".join(line) + "\n" for line in rows)

    other = changed(run, tmp_path / run.folder.name, "leaderboard.csv", change)
    before, after = report(run), report(other)
    first, second = Read(before), Read(after)
    differing = [(a, b) for a, b in zip(first.named, second.named, strict=True) if a != b]
    assert differing and all("98.8" in b[1] and "leaderboard.csv" in b[0] and "ci_high" in b[0] for _, b in differing)
    assert first.unnamed == second.unnamed


def test_the_folder_alone_is_enough_without_models_and_without_a_network(run: Run, tmp_path: Path) -> None:
    program = """
import socket, sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "faiss", "transformers", "sentence_transformers", "peft", "matplotlib", "pandas"):
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Refused())
def refused(*_, **__): raise OSError("no network")
socket.socket = refused
from workbench.results.run import Run
from workbench.views.report import report
sys.stdout.write(report(Run.open(sys.argv[1])))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(run.folder)],
        capture_output=True, encoding="utf-8", check=False, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == report(run)
    outside = re.findall(r"""(?:src|href)=(?!["']?(?:#|data:))""", done.stdout)
    assert not outside and "url(" not in done.stdout


def test_a_table_that_lacks_a_column_is_named_and_the_rest_stays(run: Run, tmp_path: Path) -> None:
    def without(text: str) -> str:
        rows = list(csv.reader(text.splitlines()))
        column = rows[0].index("difference")
        return "".join(",".join(cell for i, cell in enumerate(line) if i != column) + "\n" for line in rows)

    other = changed(run, tmp_path / run.folder.name, "effects.csv", without)
    page = report(other)
    assert "effects.csv" in page and "difference" in page and "wb-box" in page
    assert "id=setups" in page and "id=trust" in page and "wb-card" in page


def test_a_run_of_an_earlier_version_says_what_its_report_lacks(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / run.folder.name)
    (tmp_path / run.folder.name / "questions.jsonl").unlink()
    page = report(Run.open(tmp_path / run.folder.name))
    assert "holds no questions.jsonl" in page and "costs nothing" in page and "wb-card" in page


def test_executed_notebooks_are_shown_as_text_and_a_damaged_one_is_named(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / run.folder.name)
    folder = tmp_path / run.folder.name / "notebooks"
    folder.mkdir(exist_ok=True)
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["42 answers; `seeds: 3` would tell\n"]},
        {"output_type": "display_data", "data": {"text/markdown": "On `<dev>`.", "text/plain": ["<Markdown object>"]}},
        {"output_type": "display_data", "data": {"image/png": "aGVsbG8=\n", "text/plain": ["<Figure>"]}},
        {"output_type": "execute_result", "data": {"text/html": "<b>no</b>", "text/plain": "<b>as text</b>"}},
        {"output_type": "error", "ename": "ValueError", "evalue": "wrong"},
    ]
    cells = [
        {
            "cell_type": "markdown",
            "source": ["# A title\n", "\n", "Read <i>this</i>, `a *b* <c>`, *well*, 2 * 3 * 4, [here](01.ipynb)."],
        },
        {"cell_type": "code", "source": "print(1 < 2)", "outputs": outputs},
    ]
    (folder / "91_own.ipynb").write_text(json.dumps({"cells": cells}))
    (folder / "92_damaged.ipynb").write_text("{")
    page = report(Run.open(tmp_path / run.folder.name))
    texts = (
        "A title</bdi></h3>",
        "Read &lt;i&gt;this&lt;/i&gt;, <code>a *b* &lt;c&gt;</code>, <em>well</em>, 2 * 3 * 4, here.",
        "<code>seeds: 3</code> would tell",
        "On <code>&lt;dev&gt;</code>.",
        "print(1 &lt; 2)",
        "42 answers",
        "base64,aGVsbG8=",
        "ValueError: wrong",
    )
    for shown in (*texts, "&lt;b&gt;as text&lt;/b&gt;"):
        assert shown in page
    assert "<b>no</b>" not in page and "92_damaged.ipynb cannot be read as a notebook" in page


def test_the_report_lists_the_questions_of_a_tag(tmp_path: Path) -> None:
    made = planted_run(tmp_path)
    assert "tag: any" not in report(made)
    tags = Tags(made.folder)
    for query, tag in (("q12", MISSED), ("q12", "a <b> & 'c'"), ("q13", MISSED)):
        tags.put(made.best, query, tag)
    page = report(Run.open(made.folder))
    assert "<option value=''>tag: any</option>" in page
    for tag, queries in ((MISSED, {"q12", "q13"}), ("a <b> & 'c'", {"q12"})):
        trait = f"tag={quote(tag)}"
        assert f"<option value='{trait}'>{escape(tag)}</option>" in page
        listed = re.findall(r"<details data-outcome='[^']*' data-traits='([^']*)' id='q-(\w+)'>", page)
        assert {query for traits, query in listed if trait in traits.split(" ")} == queries


def test_where_evidence_was_lost_is_said_of_each_question(run: Run) -> None:
    asked = Asked(run)
    said = {asked.lost(c, one).word for c in asked.setups for one in asked.questions}
    assert said - {""} <= {"never retrieved", "ranked too low", "shown and misread"}
    for one in asked.questions:
        found, answer = asked.ranking(asked.a, one.query_id), asked.answers[asked.a, one.query_id]
        word = asked.lost(asked.a, one).word
        if found and one.evidence and found.evidence_rank is None:
            assert word == "never retrieved"
        elif found and found.evidence_rank and found.evidence_rank > len(answer["passages"]):
            assert word == "ranked too low"


def test_the_three_verdicts_differ_without_colour(tmp_path: Path) -> None:
    heads = []
    for name in ("better", "worse", "not shown"):
        page = report(fixture_run(tmp_path, name))
        heads.append(re.sub("<[^>]*>", "", re.findall("<h1>.*?</h1>", page)[0]).split(":")[0])
    assert heads == ["✓ Better", "✗ Worse", "? These questions do not show whether dense/tuned is better"]


def test_the_command_writes_the_file_and_refuses_what_it_cannot(run: Run, tmp_path: Path) -> None:
    def asked(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app, ["report", *arguments])
        return done.exit_code, done.output + str(done.exception or "")

    out = tmp_path / "found.html"
    assert asked(str(run.folder), "--out", str(out))[0] == 0
    assert out.read_text(encoding="utf-8") == report(run)
    assert list(tmp_path.iterdir()) == [out]
    for wrong, message in ((tmp_path / "a.pdf", "allowed: .html"), (tmp_path / "b" / "a.html", "there is no folder")):
        code, said = asked(str(run.folder), "--out", str(wrong))
        assert code != 0 and message in said
    runs = tmp_path / "runs"
    for name in (run.folder.name, f"0-{run.folder.name}"):
        shutil.copytree(run.folder, runs / "toy" / name)
    code, said = asked("--runs", str(runs))  # the newest one
    assert code == 0 and f"report: {runs / 'toy' / run.folder.name / 'report.html'}" in said
    assert not (runs / "toy" / f"0-{run.folder.name}" / "report.html").exists()
    assert "no finished run in" in asked("--runs", str(tmp_path / "none"))[1]
    (tmp_path / "folder.html").mkdir()
    assert "is a folder" in asked(str(run.folder), "--out", str(tmp_path / "folder.html"))[1]


def test_what_answers_cost_stands_beside_how_good_they_are(tmp_path: Path) -> None:
    made = planted_run(tmp_path)
    assert "for 1,000 answers" not in report(made)
    rows = [
        CostRow(made.best, "test", 20, 900.0, 12.5, 0.0123456, "EUR"),
        CostRow(made.manifest["baseline"], "test", 20, 9.0, 9.0, None, ""),
    ]
    table_files.write(made.folder / "costs.csv", CostRow, rows)
    page = report(Run.open(made.folder))
    assert (
        "EUR for 1,000 answers" in page
        and ">12.35</span>" in page
        and f"costs.csv?configuration={made.best}&amp;split=test#money" in page
    )


def test_evidence_is_underlined_and_accepted_answers_are_marked_in_the_passages(tmp_path: Path) -> None:
    page = report(planted_run(tmp_path))
    assert "<u>Document 3 says </u><u><mark>answer 3</mark></u><u>, as its evidence shows.</u>" in page
    assert "holds evidence</strong>, underlined" in page
    assert "&lt;" not in page  # no text of this run has markup, so none is shown as text


def test_a_passage_with_a_part_of_the_evidence_does_not_hold_it(tmp_path: Path) -> None:
    asked = Asked(planted_run(tmp_path))
    one = next(one for one in asked.questions if "holds evidence" in question(asked, one))
    longer = [span.model_copy(update={"end": span.end + 1000}) for span in one.evidence]
    page = question(asked, one.model_copy(update={"evidence": longer}))
    assert "holds a part of the evidence, underlined" in page and "holds evidence" not in page


@pytest.mark.skipif(
    BROWSER is None and "CI" not in os.environ, reason="there is no Chromium here; `apt-get install chromium` brings it"
)
def test_questions_are_chosen_by_what_became_of_them(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    (tmp_path / "found.html").write_text(report(planted_run(tmp_path / "runs")), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        tab = browser.new_page()
        tab.goto(f"file://{tmp_path / 'found.html'}")

        def shown() -> list[int]:
            return [
                int(re.findall(r"Question (\d+)", one)[0])
                for one in tab.locator("details[data-outcome]:visible").all_inner_texts()
            ]

        for name, expected in {"gained": [*range(7)], "lost": [7, 8, 9], "all": [*range(20)]}.items():
            tab.locator(".wb-filter button", has_text=re.compile(f"^{name}$")).click()
            assert shown() == expected, name
        evidence, kind = tab.get_by_label("Questions by evidence"), tab.get_by_label("Questions by kind")
        for label, expected in {"never retrieved": [12], "ranked too low": [13]}.items():
            evidence.select_option(label)
            assert shown() == expected
        evidence.select_option("shown and misread")
        assert 14 in shown() and not {12, 13, *range(7)} & set(shown())
        kind.select_option("reworded")
        assert 14 not in shown() and all(q % 2 for q in shown())
        browser.close()


HOSTILE = [
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>",
    "</style></title></bdi></summary><h1>not mine</h1>",
    "\u202eright to left\u202c",
    "x" * 20_000,
    "a\x00b",
    "👩‍🔬 $x$ \\(y\\)",
]


@pytest.fixture(scope="module")
def hostile(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose questions, answers and passages are not well meant."""

    def change(key: str) -> Callable[[str], str]:
        def lines(text: str) -> str:
            rows = [json.loads(line) for line in text.splitlines()]
            for i, row in enumerate(rows):
                row[key] = [HOSTILE[i % len(HOSTILE)]] if key == "answers" else HOSTILE[i % len(HOSTILE)]
            return "".join(json.dumps(row) + "\n" for row in rows)

        return lines

    folder = tmp_path_factory.mktemp("hostile")
    made = run
    for i, (name, key) in enumerate(
        [("questions.jsonl", "question"), ("questions.jsonl", "answers"), ("answers.jsonl", "answer"), ("passages.jsonl", "text")]
    ):
        made = changed(made, folder / str(i), name, change(key))
    return made


@pytest.mark.skipif(
    BROWSER is None and "CI" not in os.environ, reason="there is no Chromium here; `apt-get install chromium` brings it"
)
@pytest.mark.slow
def test_everybody_can_read_it(run: Run, hostile: Run, tmp_path: Path) -> None:
    """Rules of accessibility in light, dark, wide and narrow, one load a page; and hostile texts are texts."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    pages = {"toy": run, "hostile": hostile, "rankings": fixture_run(tmp_path, "rankings only")}
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        for name, made in pages.items():
            (tmp_path / f"{name}.html").write_text(report(made), encoding="utf-8")
            tab, said = browser.new_page(), []
            tab.on("console", lambda message, said=said: said.append(message.text))
            tab.on("request", lambda request, said=said: None if request.url.startswith("file:") else said.append(request.url))
            tab.goto(f"file://{tmp_path / name}.html")
            tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
            for width, scheme in ((320, ""), (1280, "light"), (1280, "dark"), (390, "dark"), (390, "light")):
                tab.set_viewport_size({"width": width, "height": 900})
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
                if scheme:
                    tab.emulate_media(color_scheme=scheme)
                    found = Axe().run(tab, options=rules)
                    assert found.violations_count == 0, (name, width, scheme, found.generate_report())
            assert not said and tab.evaluate("window.hacked") is None, said
            assert tab.evaluate("document.querySelectorAll('h1').length") == 1
            tab.close()
        tab = browser.new_page()
        tab.goto(f"file://{tmp_path / 'toy'}.html")
        tab.get_by_role("searchbox").fill("zzz nothing has these words")
        assert tab.locator("details[data-outcome]:visible").count() == 0
        assert tab.get_by_role("status").inner_text().startswith("0 of ")
        browser.close()
