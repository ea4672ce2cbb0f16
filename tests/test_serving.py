"""The demo answers what was measured, and says plainly what is wrong with a request."""

import asyncio
import csv
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import pytest
from handmade import as_written

from workbench.data.dataset import Place
from workbench.errors import InputError, MissingExtraError, StageFailedError
from workbench.experiment.experiment import Experiment
from workbench.pipeline import Pipeline, Reply, Source
from workbench.results.run import Run
from workbench.results.verdict import verdict
from workbench.results.words import metric_name, number
from workbench.serving import app
from workbench.serving.asking import Asking, Service
from workbench.serving.facts import measured_figure, served
from workbench.serving.gate import gate
from workbench.serving.page.html import answer_html, heading_html, sources_html
from workbench.serving.page.page import example_questions, shown
from workbench.serving.problems import UNEXPECTED
from workbench.serving.requests import MAX_CHARACTERS, AnswerForm, read
from workbench.serving.settings import ServiceSettings

CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SOURCE = Source(1, Place("doc<1>", 1200, 1300), 12.5, 'The "a" <b>', "if a < b: ${1 + 1} {{value}} <script>alert(1)</script>")
RANKING_ONLY = """
experiment: ranks
dataset: {name: pydocs, limit: 4}
components: {retrievers: {bm25: {kind: bm25}}}
axes: {retriever: [bm25]}
"""


def reply_with(**changes):
    values = {"question": "?", "answer": "a", "reply": "a", "status": "ok", "sources": (SOURCE,), "provenance": {}}
    return Reply(**values | {"seconds": {}, "tokens": {}} | changes)


# A finished run, served


@pytest.fixture(scope="module")
def pipeline(toy):
    return Pipeline.open(toy.run)


def answered_questions(pipeline):
    """Rows of answers.jsonl of the served configuration, with their questions."""
    rows = [json.loads(line) for line in (pipeline.run.folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = {q.id: q.text for split in pipeline.session.dataset.splits for q in pipeline.session.dataset.split(split)}
    return [row | {"question": texts[row["query_id"]]} for row in rows if row["configuration"] == pipeline.configuration.id]


@pytest.fixture(scope="module")
def recorded(pipeline):
    return answered_questions(pipeline)


@contextmanager
def serving(pipeline):
    """The application on a free port of this machine; stops at the end."""
    import uvicorn

    with app.bound("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app.build(pipeline), log_level="warning", timeout_graceful_shutdown=1))
        listener.listen()
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def url(pipeline):
    with serving(pipeline) as address:
        yield address


JSON = {"Content-Type": "application/json"}


def fetch(address, body=None, timeout=60):
    """Status and JSON of a response."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data=body, headers=JSON), timeout=timeout) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def ask(url, question):
    status, reply = fetch(f"{url}/api/ask", json.dumps({"question": question}).encode())
    assert status == 200, reply
    return reply


def measured(row):
    return {key: row[key] for key in ("reply", "answer", "status", "passages", "prompt")}


def as_measured(reply):
    passages = [{key: source[key] for key in ("doc_id", "start", "end")} for source in reply["sources"]]
    said = {key: reply[key] for key in ("reply", "answer", "status")}
    return said | {"passages": passages, "prompt": reply["provenance"]["prompt"]}


UNASKED = itertools.count()  # makes a question another one, so that no answer is kept from an earlier test


async def everything(stream):
    return [item async for item in stream]


def test_a_served_answer_equals_the_measured_one(either):
    pipeline = Pipeline.open(either.run)
    rows = answered_questions(pipeline)
    with serving(pipeline) as url:
        for row in (rows[1], rows[-1]):
            assert as_measured(ask(url, row["question"])) == measured(row)


def test_every_reply_names_run_configuration_index_and_adapter(url, pipeline, recorded):
    provenance = ask(url, recorded[0]["question"])["provenance"]
    with (pipeline.run.folder / "configurations.csv").open(encoding="utf-8", newline="") as file:
        row = next(r for r in csv.DictReader(file) if r["configuration"] == pipeline.configuration.id)
    keys = json.loads(row["keys"])
    assert provenance["run"] == pipeline.run.folder.name
    assert (provenance["configuration"], provenance["label"]) == (row["configuration"], row["label"])
    assert provenance["artifacts"] == keys and any(name.startswith("index") for name in keys)


def test_provenance_and_health_name_what_is_served(url, pipeline):
    assert fetch(f"{url}/api/provenance") == (200, pipeline.provenance())
    expected = {"status": "ok", "run": pipeline.run.folder.name, "configuration": pipeline.configuration.id}
    assert fetch(f"{url}/health") == (200, expected)


def test_parallel_requests_each_get_their_own_measured_answer(url, recorded):
    rows = recorded[:4]
    with ThreadPoolExecutor(len(rows)) as pool:
        replies = list(pool.map(lambda row: ask(url, row["question"]), rows))
    assert [as_measured(reply) for reply in replies] == [measured(row) for row in rows]


BAD_BODIES = [
    (b'{"question": ""}', ["empty", "2,000"]),
    (b'{"question": " \\n "}', ["empty", "2,000"]),
    (json.dumps({"question": "é" * 2001}).encode(), ["2,001", "2,000"]),
    (b'{"question": "\\ud800"}', ["half a character"]),
    (b'{"question": 3}', ["a number", "not text"]),
    (b'{"question": null}', ["null", "not text"]),
    (b'{"question": "a", "qestion": "b"}', ["'qestion'", "allowed: conversation, history, question"]),
    (b"{}", ["'question' is missing", '{"question": "..."}']),
    (b'["a"]', ["a list", '{"question": "..."}']),
    (b"question=a", ["not JSON", '{"question": "..."}']),
    (b"\xff\xfe\xff", ["not JSON", '{"question": "..."}']),
    (b"[" * 60_000, ["not JSON"]),
    (b"", ["not JSON"]),
]


@pytest.mark.parametrize(("body", "said"), BAD_BODIES, ids=[repr(body[:20]) for body, _ in BAD_BODIES])
def test_a_bad_request_is_told_what_was_received_and_what_is_allowed(url, body, said):
    status, received = fetch(f"{url}/api/ask", body)
    assert (status, list(received)) == (400 if "not JSON" in said else 422, ["error"])
    assert all(part in received["error"] for part in said), received


def test_a_body_that_is_too_large_is_refused_before_it_is_read(url):
    status, received = fetch(f"{url}/api/ask", b" " * 70_000)
    assert status == 413 and "65,536" in received["error"]


def test_the_longest_question_fits_into_a_request():
    question = "\N{SNAKE}" * MAX_CHARACTERS
    body = json.dumps({"question": question}).encode()
    assert len(body) < 65_536
    assert read(body, AnswerForm, JSON["Content-Type"]).question == question


def test_an_unexpected_error_is_logged_and_not_shown(pipeline, monkeypatch, caplog):
    def fail(asked, wanted=None):
        raise RuntimeError("secret detail")

    def search(question, k):
        raise RuntimeError("another secret")

    monkeypatch.setattr(pipeline, "growing", fail)
    monkeypatch.setattr(pipeline, "search", search)
    with serving(pipeline) as url:
        status, received = fetch(f"{url}/api/ask", b'{"question": "What is a list?"}')
    assert status == 503 and "nothing answers in its place" in received["error"]
    assert "secret detail" in caplog.text and "secret" not in received["error"]

    async def on_page():
        asking = Asking(Service(pipeline, ()), ServiceSettings())
        monkeypatch.setattr(asking, "growing", fail)
        return await everything(shown(asking, "What is a list?"))

    ((said, _),) = asyncio.run(on_page())
    assert UNEXPECTED in said.replace("The question", "the question") and "secret" not in said


# The page, in a browser


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser, url):
    """The open page; `page.requested` holds the addresses it asked for, `page.complaints` what went wrong."""
    opened = browser.new_page()
    opened.requested, opened.complaints = [], []
    opened.on("request", lambda request: opened.requested.append(request.url))
    opened.on("response", lambda got: opened.complaints.append((got.status, got.url)) if got.status >= 400 else None)
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("console", lambda said: opened.complaints.append(said.text) if said.type == "error" else None)
    opened.goto(url)
    opened.get_by_role("button", name="Ask", exact=True).wait_for()
    yield opened
    opened.close()


def answered(page):
    """The text told once the question is answered."""
    told = page.locator("#reply .told:not(.waiting, .growing)")
    told.wait_for(timeout=60_000)
    return told.inner_text()


def test_the_page_says_what_is_served_and_how_good_it_is(page, pipeline):
    header = page.locator("header").inner_text()
    figure = measured_figure(pipeline.run, pipeline.configuration.id)
    assert pipeline.configuration.label in header
    assert pipeline.run.folder.name in header
    assert f"{metric_name(figure.row.metric)} {number(figure.row.mean)} of 100 points" in header
    assert verdict(pipeline.run, pipeline.configuration.id).word in header.lower()
    assert f"measured on {figure.row.n} questions of the {figure.row.split} split" in header


def test_the_page_answers_a_question_as_measured_with_its_passage_and_asks_nobody_else(page, url, recorded):
    row = next(row for row in recorded if row["answer"])
    page.get_by_label("Question").fill(row["question"])
    page.get_by_label("Question").press("Enter")
    assert answered(page) == row["answer"]
    place = row["passages"][0]
    shown = page.locator(".source").first.inner_text()
    assert f"{place['doc_id']}, characters {place['start']:,} to {place['end']:,}, score" in shown
    page.get_by_text("Timings and provenance").click()
    details = page.locator(".details")
    details.wait_for(state="visible")
    assert row["prompt"] in details.inner_text()
    assert {urlparse(address).netloc for address in page.requested if address.startswith("http")} == {urlparse(url).netloc}
    assert page.complaints == []


def test_the_button_cannot_be_pressed_while_a_question_is_answered(page, pipeline, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(pipeline, "growing", lambda asked, wanted: release.wait(20) and iter([(0, reply_with(answer="done"))]))
    try:
        page.get_by_label("Question").fill(f"What is a list{next(UNASKED)}?")
        page.get_by_role("button", name="Ask", exact=True).click()
        page.get_by_role("button", name="Answering …", disabled=True).wait_for()
    finally:
        release.set()
    assert answered(page) == "done"
    page.get_by_role("button", name="Ask", exact=True, disabled=False).wait_for()


def test_an_answer_is_shown_while_it_is_written(page, pipeline, monkeypatch):
    release = threading.Event()

    def growing(asked, wanted):
        yield 0, reply_with(answer="a list", status="writing")
        assert release.wait(20)
        yield 0, reply_with(answer="a list of names")

    monkeypatch.setattr(pipeline, "growing", growing)
    try:
        page.get_by_label("Question").fill(f"What is a list{next(UNASKED)}?")
        page.get_by_role("button", name="Ask", exact=True).click()
        growing = page.locator("#reply .told.growing")
        growing.wait_for()
        assert growing.inner_text() == "a list"
        assert page.locator(".source .text").inner_text() == SOURCE.text
        page.get_by_role("button", name="Answering …", disabled=True).wait_for()
    finally:
        release.set()
    assert answered(page) == "a list of names"


def test_texts_of_others_are_shown_and_never_run(page, pipeline, monkeypatch):
    hostile = "<img src=x onerror=alert(1)> ${1 + 1} {{value}}"
    monkeypatch.setattr(pipeline, "growing", lambda asked, wanted: iter([(0, reply_with(answer=hostile))]))
    page.get_by_label("Question").fill(f"What is a list{next(UNASKED)}?")
    page.get_by_role("button", name="Ask", exact=True).click()
    assert answered(page) == hostile
    assert page.locator(".source .text").inner_text() == SOURCE.text
    assert page.locator("#reply img, #reply script").count() == 0


def test_an_empty_question_is_refused_on_the_page(page):
    page.get_by_role("button", name="Ask", exact=True).click()
    assert answered(page).startswith("The question is empty")


def test_an_example_is_a_training_question_and_fills_the_box(page, pipeline):
    dataset = pipeline.session.dataset
    examples = example_questions(pipeline)
    assert set(examples) <= {query.text for query in dataset.split("train")}
    assert not set(examples) & {query.text for split in ("dev", "test") for query in dataset.split(split)}
    page.get_by_role("button", name=examples[1]).click()
    page.wait_for_function("text => document.querySelector('textarea').value === text", arg=examples[1])


# What people read


def test_passages_are_escaped_and_named_by_rank_title_place_and_score():
    html = sources_html([SOURCE])
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert '<span class="rank">1</span> The &quot;a&quot; &lt;b&gt;' in html
    assert "doc&lt;1&gt;, characters 1,200 to 1,300, score 12.5" in html


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"answer": ""}, "The passages do not hold an answer."),
        ({"answer": "", "status": "prompt too long"}, "No answer: prompt too long."),
        ({"answer": None}, "only ranks passages"),
        ({"answer": "<b>"}, "&lt;b&gt;"),
        ({"answer": "", "status": "writing"}, "Writing"),
    ],
)
def test_what_a_reply_lacks_is_said_plainly(changes, said):
    assert said in answer_html(reply_with(**changes))


def test_a_figure_from_the_split_that_chose_is_marked_as_flattering(pipeline):
    run = pipeline.run
    reported = {row.configuration for row in run.leaderboard if row.split == run.report_split}
    chosen_only = next(c for c in run.labels if c not in reported)
    figure = measured_figure(run, chosen_only)
    assert (figure.row.split, figure.flattered) == (run.select[0], True)
    assert "which flatters it" in heading_html(served(pipeline)._replace(figure=figure))
    assert not measured_figure(run, next(iter(reported))).flattered


# The gate, and what is refused before serving


@pytest.fixture
def copied_run(toy, tmp_path):
    """A copy of the run that may be altered, on the same store."""
    copy = tmp_path / "runs" / toy.run.parent.name / toy.run.name
    shutil.copytree(toy.run, copy)
    (tmp_path / "runs" / ".store").symlink_to((toy.runs / ".store").resolve())
    return copy


def tamper(folder, configuration, **changes):
    """Changes the first recorded answer of a configuration."""
    path = folder / "answers.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    next(row for row in rows if row["configuration"] == configuration).update(changes)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    as_written(folder, "answers.jsonl")


def test_serving_refuses_a_run_whose_recorded_answer_is_another(copied_run, pipeline):
    tamper(copied_run, pipeline.configuration.id, reply="something else")
    with pytest.raises(StageFailedError, match=r"reply: recorded 'something else', now "):
        app.serve(copied_run, pipeline.configuration.id, port=0)


def test_the_gate_passes_what_was_measured_and_names_whatever_differs(copied_run, pipeline):
    copy = Pipeline(pipeline.experiment, Run.open(copied_run), pipeline.configuration.id)
    assert gate(copy).endswith("as recorded")
    tamper(copied_run, pipeline.configuration.id, prompt="0" * 64, passages=[])
    copy = Pipeline(pipeline.experiment, Run.open(copied_run), pipeline.configuration.id)
    with pytest.raises(StageFailedError, match=r"passages: recorded \[\], now .*; prompt: recorded '000"):
        gate(copy)


def test_the_gate_refuses_a_run_without_recorded_answers(copied_run, pipeline):
    (copied_run / "answers.jsonl").write_text("")
    with pytest.raises(StageFailedError, match="records no answer"):
        gate(Pipeline(pipeline.experiment, Run.open(copied_run), pipeline.configuration.id))


def test_an_experiment_that_only_ranks_is_served_without_replay(tmp_path):
    (tmp_path / "ranks.yaml").write_text(RANKING_ONLY)
    run = Experiment.load(tmp_path / "ranks.yaml", tmp_path / "runs").compare()
    ranks = Pipeline.open(run)
    assert "only ranks passages" in gate(ranks)
    with serving(ranks) as address:
        reply = ask(address, "How is a generator function written?")
    assert reply["answer"] is None
    assert [source["rank"] for source in reply["sources"]] == [1, 2, 3, 4, 5]


def test_a_port_in_use_is_an_input_error_before_anything_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} \(Address already in use\); choose another"):
            app.serve("no such run", port=port)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_cannot_be_is_an_input_error(port):
    with pytest.raises(InputError, match="not between 0 and 65,535"):
        app.bound("127.0.0.1", port)


@pytest.mark.parametrize("package", ["gradio", "fastapi", "fastapi_offline", "uvicorn"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*rag-workbench\[app\]"):
        app.require_extra()


def test_gradio_does_not_report_its_use():
    app.require_extra()
    from gradio.analytics import analytics_enabled

    assert not analytics_enabled()


def test_importing_the_demo_loads_no_heavy_library():
    code = "import sys, workbench.serving.app; print(*{'gradio', 'fastapi', 'uvicorn', 'torch', 'numpy'} & set(sys.modules))"
    root = Path(app.__file__).parents[2]
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert loaded.stdout.strip() == ""
