"""The page in a browser: citations, votes, conversations, two configurations side by side, for every reader."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished
from served_app import Running, running, settings
from test_dashboard import RULES
from test_feedback import talk  # noqa: F401
from test_people import log_in, peopled, waits_until

from workbench import Run
from workbench.data.dataset import Place
from workbench.pipeline import Pipeline, Reply, Source
from workbench.serving.page.html import cited_html, reply_html, sources_html
from workbench.serving.records import votes
from workbench.serving.records.database import Database
from workbench.serving.settings import Who

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
QUESTION = "What does the gate keep?"


def source(rank: int, text: str) -> Source:
    return Source(rank, Place(f"doc{rank}", 0, len(text)), 1.0 / rank, f"Title {rank}", text)


def reply(answer: str, written: str = "", *texts: str) -> Reply:
    sources = tuple(source(rank, text) for rank, text in enumerate(texts, 1))
    return Reply("?", answer, written or answer, "ok", sources, {}, {}, {})


# --- Without a browser --------------------------------------------------------------------------------------------------


def test_a_citation_is_what_the_model_names_or_where_the_answer_stands() -> None:
    texts = ("A heron eats frogs.", "Frogs sing. A frogspawn does not.", "Nothing here.")
    assert "names passage" in cited_html(reply("frogs", "frogs [3]", *texts)) and "#passage-3" in cited_html(
        reply("frogs", "frogs [3]", *texts)
    )
    standing = cited_html(reply("frogs", "", *texts))
    assert "stands word for word in passage" in standing and "#passage-1" in standing and "#passage-2" in standing
    assert "#passage-3" not in standing
    assert "names no passage" in cited_html(reply("whales", "whales [9]", *texts))
    assert cited_html(reply("", "", *texts)) == "" == cited_html(reply("a", "a"))


def test_passages_mark_the_answer_or_its_words() -> None:
    shown = reply_html(reply("eats FROGS.", "", "A heron eats frogs. <b>", "Frogs sing."))
    assert "<mark>eats frogs</mark>" in shown and "<mark>Frogs</mark> sing" in shown and "<b>" not in shown
    assert shown.count("<details") == 2 and "open>" not in shown  # the citation opens the first
    assert "open>" in sources_html([source(1, "a")])


# --- In a browser -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def service(toy: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    records = Database(tmp_path_factory.mktemp("page") / "records.sqlite")
    pipeline = Pipeline.open(toy.run)
    with running(pipeline, records=records, others=lambda chosen: Pipeline.open(toy.run, chosen)) as found:
        yield found


@pytest.fixture(scope="module")
def talker(talk: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:  # noqa: F811
    records = Database(tmp_path_factory.mktemp("talker") / "records.sqlite")
    with running(Pipeline.open(talk, "alone"), records=records) as found:
        yield found


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[[Running], Any]]:
    """Opens the page of a service."""
    contexts = []

    def opened(service: Running) -> Any:
        contexts.append(browser.new_context())
        contexts[-1].set_default_timeout(60_000)
        page = contexts[-1].new_page()
        page.goto(service.url)
        page.get_by_role("button", name="Ask", exact=True).wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()


def ask(page: Any, question: str) -> str:
    """What is answered."""
    page.evaluate("document.querySelector('#reply .told')?.setAttribute('data-before', '')")
    page.get_by_label("Question").fill(question)
    page.get_by_label("Question").press("Enter")
    page.locator("#reply .told:not(.waiting, .growing, [data-before])").wait_for()
    page.get_by_role("button", name="Ask", exact=True).wait_for()
    return page.locator("#reply .told").inner_text()


def test_an_answer_is_voted_on_and_words_are_kept(service: Running, tab: Callable[[Running], Any]) -> None:
    page = tab(service)
    assert page.locator("#opinion").count() == 0 or not page.locator("#opinion").is_visible()
    ask(page, QUESTION)
    page.get_by_label("Comment").fill("An odd answer.")
    page.get_by_role("button", name="Send these words").click()
    page.get_by_text("Say first whether the answer is good.").wait_for()
    page.get_by_role("button", name="Bad answer").click()
    page.get_by_text("Kept: this answer is bad, with your words.").wait_for()
    page.get_by_label("What the answer should have been").fill("a lamp")
    page.get_by_role("button", name="Send these words").click()
    records = service.asking.directory.database
    expected = [(-1, "An odd answer.", "a lamp")]

    def kept() -> bool:
        with records.reading() as connection:
            rows = connection.exec_driver_sql("SELECT vote, comment, correction FROM votes ORDER BY number").all()
            return rows == expected and votes.counted(connection) == (0, 1)

    waits_until(kept)
    ask(page, "What does the mill keep?")
    waits_until(lambda: page.get_by_label("Comment").input_value() == "")
    page.get_by_role("button", name="Good answer").click()
    page.get_by_text("Kept: this answer is good.").wait_for()
    with records.reading() as connection:
        assert votes.counted(connection) == (1, 1)


@pytest.mark.slow
def test_two_configurations_answer_side_by_side_with_their_verdict(service: Running, tab: Callable[[Running], Any]) -> None:
    page = tab(service)
    ask(page, QUESTION)
    page.get_by_text("Compare with another measured configuration").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator(".pair section").nth(1).wait_for(timeout=60_000)
    sides = page.locator(".pair section")
    mine = service.asking.service.pipeline.configuration.label
    assert sides.count() == 2 and mine in sides.first.inner_text() and mine not in sides.nth(1).locator("h2").inner_text()
    said = page.locator("#both .figure").last.inner_text()
    assert said.startswith(f"What is served against {sides.nth(1).get_attribute('aria-label')}") or "was not measured" in said
    with service.asking.directory.database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT served_by, configuration FROM requests ORDER BY number DESC LIMIT 1").all()
    assert rows[0][0] == "comparison" and rows[0][1] != service.asking.service.pipeline.configuration.id


def test_a_citation_opens_its_passage_by_the_keyboard(
    service: Running, tab: Callable[[Running], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = reply("frogs", "frogs [2]", "Nothing here.", "A heron eats frogs.")
    monkeypatch.setattr(service.asking.service.pipeline, "growing", lambda asked, wanted: iter([(0, known)]))
    page = tab(service)
    assert ask(page, "Who eats frogs on this page?") == "frogs"
    passage = page.locator("#passage-2")
    assert not passage.is_visible()
    page.get_by_role("link", name="Open passage 2").press("Enter")
    passage.wait_for(state="visible")
    assert passage.locator("mark").inner_text() == "frogs"


@pytest.mark.slow
def test_a_conversation_is_held_on_the_page(talker: Running, tab: Callable[[Running], Any]) -> None:
    page = tab(talker)
    ask(page, "What is a heron?")
    ask(page, "What does it eat?")
    assert "What is a heron?" in page.locator("#said").inner_text()
    (found,) = talker.call("GET", "/v1/conversations").json["conversations"]
    assert (found["title"], found["turns"]) == ("What is a heron?", 2)
    page.get_by_role("button", name="New conversation").click()
    page.locator("#said li").wait_for(state="detached")
    ask(page, "Where does the swift sleep?")
    assert len(talker.call("GET", "/v1/conversations").json["conversations"]) == 2


@pytest.mark.slow
def test_whoever_logs_in_has_a_page_and_can_leave(toy: Finished, browser: Any, tmp_path: Path) -> None:
    records, *_ = peopled(tmp_path / "records.sqlite")
    with running(Pipeline.open(toy.run), settings(more={"who": Who(open="never")}), records=records) as closed:
        assert log_in(closed, "ann", "a long password").status == 303
        context = browser.new_context()
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.goto(closed.url)
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill("wrong password")
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("alert").wait_for()
        read_by_everybody(page, "log in")
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill("a long password")
        page.get_by_label("Password").press("Enter")
        page.get_by_role("button", name="Ask", exact=True).wait_for()
        ask(page, QUESTION)
        page.get_by_role("button", name="Good answer").click()
        page.get_by_text("Kept: this answer is good.").wait_for()
        with records.reading() as connection:
            assert connection.exec_driver_sql("SELECT user FROM requests ORDER BY number DESC LIMIT 1").scalar_one() == 1
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("Password").wait_for()
        context.close()


def read_by_everybody(page: Any, what: str) -> None:
    """In light and dark, wide and narrow: nothing is cut off, and no rule of accessibility is broken."""
    from axe_playwright_python.sync_playwright import Axe

    for width, scheme in ((1280, "light"), (1280, "dark"), (390, "dark"), (390, "light")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (what, width)
        said = Axe().run(page, options=RULES)
        assert said.violations_count == 0, (what, width, scheme, said.generate_report())


@pytest.mark.slow
def test_the_page_can_be_read_by_everybody(service: Running, talker: Running, tab: Callable[[Running], Any]) -> None:
    page = tab(service)
    read_by_everybody(page, "first visit")
    ask(page, QUESTION)
    page.get_by_role("button", name="Bad answer").click()
    page.get_by_text("Kept: this answer is bad.").wait_for()
    page.get_by_text("Timings and provenance").click()
    page.get_by_text("Compare with another measured configuration").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator(".pair section").nth(1).wait_for(timeout=60_000)
    read_by_everybody(page, "answer")
    page = tab(talker)
    ask(page, "What is a heron?")
    ask(page, "What does it eat?")
    read_by_everybody(page, "conversation")
