"""The page: a question, its answer as it is written, the passages it rests on, and where all that comes from."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio
from gradio.events import api as named

from workbench.errors import InputError
from workbench.pipeline import Asked, reply_of
from workbench.serving.asking import Answered, Asking
from workbench.serving.caller import NOBODY, Caller, caller_of
from workbench.serving.facts import served
from workbench.serving.page.comparing import Comparing, compared_html
from workbench.serving.page.html import details_html, fallback_html, heading_html, reply_html, told
from workbench.serving.page.talking import Visit, prepared, said_html
from workbench.serving.problems import UNEXPECTED, ProblemError
from workbench.serving.recording import Recording
from workbench.serving.requests import MAX_CHARACTERS, checked

if TYPE_CHECKING:
    from workbench.pipeline import Pipeline

EXAMPLES = 3
GOOD, BAD = 1, -1
CSS = Path(__file__).with_name("page.css")

log = logging.getLogger(__name__)


def example_questions(pipeline: Pipeline) -> list[str]:
    """Questions to begin with: the first of the train split, so that trying the demo shows no measured question."""
    settings, dataset = pipeline.experiment.settings.dataset, pipeline.session.dataset
    if settings.train not in dataset.splits or settings.train in (settings.select, settings.report):
        return []
    return [query.text for query in dataset.split(settings.train)[:EXAMPLES]]


def page(asking: Recording, opened: Callable[[str], Pipeline] | None = None) -> gradio.Blocks:
    """The page; it shows what is served when it is opened, so that a promotion shows at the next visit.

    Args:
        asking: what answers.
        opened: the pipeline of another configuration of the run, to compare with; None: there is no comparing.
    """
    return Page(asking, opened).blocks()


class Page:
    """What the page does."""

    def __init__(self, asking: Recording, opened: Callable[[str], Pipeline] | None) -> None:
        """A page; see `page`."""
        self.asking = asking
        self.comparing = Comparing(asking, opened) if opened else None
        self.votes = asking.writer is not None and asking.settings.keep != "none"

    # --- What happens ---------------------------------------------------------------------------------------------

    async def ask(self, question: str, request: gradio.Request) -> dict[str, Any]:
        """Answers a question, as POST /api/ask does."""
        try:
            answered = await self.asking.answer(Asked(checked(question)), asker(request))
        except (InputError, ProblemError) as error:
            raise gradio.Error(str(error), print_exception=False) from error
        values: dict[str, Any] = json.loads(answered.body)
        return values | {"served": answered.served}

    async def on_ask(self, question: str, visit: Visit, request: gradio.Request) -> AsyncIterator[tuple[Any, ...]]:
        """Shows the answer as it is written: button, reply, details, visit, what was said, opinion, comparison."""
        skip, hidden = gradio.skip(), gradio.Column(visible=False)
        busy = gradio.Button("Answering …", interactive=False)
        yield busy, told("waiting", "Reading the passages …"), skip, skip, skip, hidden, hidden
        free = gradio.Button("Ask", interactive=True)
        caller = asker(request)
        visit = visit.of(caller.principal)
        try:
            asked, caller, visit = await prepared(self.asking, question, caller, visit)
        except (InputError, ProblemError) as error:
            yield free, told("error", _sentence(str(error))), skip, visit, skip, hidden, hidden
            return
        found: tuple[Any, Any] = (skip, skip)
        answered: Answered | None = None
        async for reply, details, last in answering(self.asking, asked, caller):
            found, answered = (reply, details), last
            # all of it again: a busy browser may show only the last of several
            yield busy, reply, details, skip, skip, hidden, hidden
        if answered:
            visit = visit.answer(caller.request_id, asked, answered, self.asking.service.pipeline.stages.questions is not None)
        shown = gradio.Column(visible=answered is not None)
        yield free, *found, visit, said_html(visit), shown if self.votes else hidden, shown if self.comparing else hidden

    def on_new(self) -> tuple[Any, ...]:
        """Begins another conversation: question, reply, visit, what was said, opinion, comparison."""
        hidden = gradio.Column(visible=False)
        return "", "", Visit(), "", hidden, hidden

    async def on_vote(
        self, value: int, comment: str, correction: str, visit: Visit, request: gradio.Request
    ) -> tuple[str, Visit]:
        """Keeps a vote.

        Args:
            value: the vote; 0: the last one stays, and words are added.
            comment: as typed; may be empty.
            correction: likewise.
            visit: with the answer that is voted on.
            request: by whom.

        Returns:
            What is said of it as HTML, and the visit.
        """
        principal = asker(request).principal
        visit = visit.of(principal)
        vote = value or visit.vote
        if not vote or not visit.request_id:
            return told("error", "Say first whether the answer is good."), visit
        words = [text.strip() or None for text in (comment, correction)]
        if any(word and len(word) > MAX_CHARACTERS for word in words):
            return told("error", f"Words on an answer have at most {MAX_CHARACTERS:,} characters."), visit
        try:
            await self.asking.vote(visit.request_id, principal, 1 if vote > 0 else -1, *words)
        except ProblemError as problem:
            return told("error", _sentence(problem.detail)), visit
        what = "good" if vote > 0 else "bad"
        return told("kept", f"Kept: this answer is {what}{', with your words' if any(words) else ''}."), visit._replace(vote=vote)

    async def on_compare(
        self, configuration: str | None, visit: Visit, request: gradio.Request
    ) -> AsyncIterator[tuple[Any, str]]:
        """Answers the question with another configuration: button, and both answers side by side."""
        free = gradio.Button("Compare", interactive=True)
        caller = asker(request)
        visit = visit.of(caller.principal)
        if self.comparing is None or visit.answered is None or not configuration:
            yield free, told("error", "Ask something first, and choose a configuration.")
            return
        yield (
            gradio.Button("Answering …", interactive=False),
            told("waiting", "Its models are loaded first, which takes a while …"),
        )
        try:
            facts, other = await self.comparing.answer(configuration, visit.asked, caller)
        except (InputError, ProblemError) as error:
            yield free, told("error", _sentence(str(error)))
            return
        except Exception:
            log.exception("no comparison with %s", configuration)
            yield free, told("error", _sentence(UNEXPECTED))
            return
        mine = reply_of(json.loads(visit.answered.body) | {"seconds": visit.answered.served["seconds"]})
        yield free, compared_html(self.asking.service.pipeline, mine, facts, other)

    def on_load(self, request: gradio.Request) -> tuple[Any, ...]:
        """What is served, where it comes from, and what it can be compared with."""
        pipeline, principal = self.asking.service.pipeline, asker(request).principal
        logged_in = principal.user is not None and principal.key is None
        choices = self.comparing.choices() if self.comparing else []
        chosen = gradio.Dropdown(choices=choices, value=choices[0][1] if choices else None)
        rewrites = gradio.Button(visible=pipeline.stages.questions is not None)
        return heading_html(served(pipeline), logged_in), details_html(pipeline.provenance(), {}, {}), chosen, rewrites

    # --- How it looks ---------------------------------------------------------------------------------------------

    def blocks(self) -> gradio.Blocks:
        """The page, wired."""
        pipeline = self.asking.service.pipeline
        blocks: gradio.Blocks = gradio.Blocks(title=f"{served(pipeline).experiment}: ask", analytics_enabled=False)
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        with blocks:
            visit = gradio.State(Visit())
            heading = gradio.HTML(heading_html(served(pipeline)))
            said = gradio.HTML(elem_id="said")
            with gradio.Row(elem_id="ask"):
                box = gradio.Textbox(
                    label="Question",
                    placeholder="Ask something about the documents",
                    max_lines=6,
                    max_length=MAX_CHARACTERS,
                    autofocus=True,
                )
                button = gradio.Button("Ask", variant="primary")
            new = gradio.Button("New conversation", size="sm", elem_id="new", visible=pipeline.stages.questions is not None)
            _examples(example_questions(pipeline), box)
            reply = gradio.HTML(elem_id="reply")
            opinion = self._opinion(visit, quiet)
            with gradio.Accordion("Timings and provenance", open=False):
                details = gradio.HTML(details_html(pipeline.provenance(), {}, {}))
            comparison, chosen = self._comparison(visit, quiet)
            gradio.on(
                [button.click, box.submit],
                self.on_ask,
                [box, visit],
                [button, reply, details, visit, said, opinion, comparison],
                trigger_mode="once",
                concurrency_limit=None,  # `Asking` keeps the queue; Gradio's would delay the disabling of the button
                **quiet,
            )
            new.click(self.on_new, None, [box, reply, visit, said, opinion, comparison], **quiet)
            blocks.load(self.on_load, None, [heading, details, chosen, new], **quiet)
            named(self.ask, api_name="ask", concurrency_limit=None)
        return blocks

    def _opinion(self, visit: gradio.State, quiet: dict[str, Any]) -> gradio.Column:
        """Thumbs, and words where the service keeps texts."""
        opinion: gradio.Column = gradio.Column(visible=False, elem_id="opinion")
        with opinion:
            with gradio.Row():
                good = gradio.Button("Good answer", size="sm")
                bad = gradio.Button("Bad answer", size="sm")
            texts = self.asking.settings.keeps_texts
            comment = gradio.Textbox(label="Comment", max_length=MAX_CHARACTERS, max_lines=4, visible=texts)
            label = "What the answer should have been"
            correction = gradio.Textbox(label=label, max_length=MAX_CHARACTERS, max_lines=4, visible=texts)
            send = gradio.Button("Send these words", size="sm", visible=texts)
            note = gradio.HTML(elem_id="note")
        for button, value in ((good, GOOD), (bad, BAD), (send, 0)):
            given = gradio.State(value)
            button.click(self.on_vote, [given, comment, correction, visit], [note, visit], concurrency_limit=None, **quiet)
        visit.change(_cleared(3), visit, [comment, correction, note], **quiet)
        return opinion

    def _comparison(self, visit: gradio.State, quiet: dict[str, Any]) -> tuple[gradio.Column, gradio.Dropdown]:
        """The choice of another configuration, and both answers."""
        choices = self.comparing.choices() if self.comparing else []
        comparison: gradio.Column = gradio.Column(visible=False, elem_id="comparison")
        with comparison, gradio.Accordion("Compare with another measured configuration", open=False):
            chosen = gradio.Dropdown(choices, label="Configuration", value=choices[0][1] if choices else None)
            button = gradio.Button("Compare", size="sm")
            both = gradio.HTML(elem_id="both")
        visit.change(_cleared(1), visit, both, **quiet)
        button.click(self.on_compare, [chosen, visit], [button, both], trigger_mode="once", concurrency_limit=None, **quiet)
        return comparison, chosen


def _cleared(number: int) -> Callable[[Visit], Any]:
    """What empties so many fields from the next answer on; a vote changes the visit as well, and leaves them as they are."""

    def emptied(visit: Visit) -> Any:
        fields = [gradio.skip() if visit.vote else "" for _ in range(number)]
        return fields if number > 1 else fields[0]

    return emptied


def asker(request: gradio.Request) -> Caller:
    """Who asks on the page; each question is a request of its own."""
    assert request.request is not None  # Gradio makes requests without one only where it calls itself
    return caller_of(request.request, uuid.uuid4().hex)


def _examples(questions: Sequence[str], box: gradio.Textbox) -> None:
    """Buttons that write a question into the box (those of `gradio.Examples` cut it off after 60 characters)."""
    if questions:
        with gradio.Column(elem_id="examples"):
            gradio.HTML("<p>For example</p>")
            for question in questions:
                button = gradio.Button(question, size="sm")
                button.click(lambda text: text, button, box, api_visibility="private", show_progress="hidden", queue=False)


async def shown(asking: Asking, question: str, caller: Caller = NOBODY) -> AsyncIterator[tuple[Any, Any]]:
    """HTML of reply and details as the answer to a question by itself grows; whatever goes wrong is said where it would be.

    Args:
        asking: what answers.
        question: as typed.
        caller: who asks.
    """
    try:
        asked = Asked(checked(question))
    except InputError as error:
        yield told("error", _sentence(str(error))), gradio.skip()
        return
    async for reply, details, _ in answering(asking, asked, caller):
        yield reply, details


async def answering(asking: Asking, asked: Asked, caller: Caller) -> AsyncIterator[tuple[Any, Any, Answered | None]]:
    """HTML of reply and details as the answer grows, and the answer once it is there.

    Args:
        asking: what answers.
        asked: the question.
        caller: who asks.
    """
    try:
        async with aclosing(asking.growing(asked, caller)) as replies:
            async for found in replies:
                if isinstance(found, Answered):
                    reply = reply_of(json.loads(found.body))
                    marked = fallback_html(found.served["fallback"]) if "fallback" in found.served else ""
                    details = details_html(reply.provenance, found.served["seconds"], reply.tokens)
                    yield marked + reply_html(reply), details, found
                else:
                    yield reply_html(found), details_html(found.provenance, found.seconds, found.tokens), None
    except ProblemError as problem:
        yield told("error", _sentence(problem.detail)), gradio.skip(), None
    except Exception:
        log.exception("no reply to request %s", caller.request_id)
        yield told("error", _sentence(UNEXPECTED)), gradio.skip(), None


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def theme() -> gradio.themes.Base:
    """Fonts of the reader's system: the page loads nothing from elsewhere."""
    from gradio.themes import Default
    from gradio.themes.utils.fonts import Font

    sans = [Font(name) for name in ("system-ui", "-apple-system", "Segoe UI", "sans-serif")]
    mono = [Font(name) for name in ("ui-monospace", "Consolas", "monospace")]
    chosen = Default(primary_hue="blue", font=sans, font_mono=mono)
    return chosen.set(button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700")
