"""The page: a question, its answer as it is written, the passages it rests on, and where all that comes from."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio
from gradio.events import api as named

from workbench.errors import InputError
from workbench.pipeline import Asked, reply_of
from workbench.serving.asking import Answered, Asking
from workbench.serving.caller import NOBODY, Caller, Principal
from workbench.serving.facts import served
from workbench.serving.page.html import details_html, fallback_html, heading_html, reply_html, told
from workbench.serving.problems import UNEXPECTED, ProblemError
from workbench.serving.requests import MAX_CHARACTERS, checked

if TYPE_CHECKING:
    from workbench.pipeline import Pipeline

EXAMPLES = 3
CSS = Path(__file__).with_name("page.css")

log = logging.getLogger(__name__)


def example_questions(pipeline: Pipeline) -> list[str]:
    """Questions to begin with: the first of the train split, so that trying the demo shows no measured question."""
    settings, dataset = pipeline.experiment.settings.dataset, pipeline.session.dataset
    if settings.train not in dataset.splits or settings.train in (settings.select, settings.report):
        return []
    return [query.text for query in dataset.split(settings.train)[:EXAMPLES]]


def page(asking: Asking) -> gradio.Blocks:
    """The page; it shows what is served when it is opened, so that a promotion shows at the next visit."""

    async def on_ask(question: str, request: gradio.Request) -> AsyncIterator[tuple[Any, ...]]:
        yield gradio.Button("Answering …", interactive=False), told("waiting", "Reading the passages …"), gradio.skip()
        said: tuple[Any, Any] = (gradio.skip(), gradio.skip())
        async for said in shown(asking, question, caller_of(request)):
            yield gradio.skip(), *said
        yield gradio.Button("Ask", interactive=True), *said

    async def ask(question: str, request: gradio.Request) -> dict[str, Any]:
        """Answers a question, as POST /api/ask does."""
        try:
            answered = await asking.answer(Asked(checked(question)), caller_of(request))
        except (InputError, ProblemError) as error:
            raise gradio.Error(str(error), print_exception=False) from error
        values: dict[str, Any] = json.loads(answered.body)
        return values | {"served": answered.served}

    def on_load() -> tuple[str, str]:
        pipeline = asking.service.pipeline
        return heading_html(served(pipeline)), details_html(pipeline.provenance(), {}, {})

    blocks: gradio.Blocks = gradio.Blocks(title=f"{served(asking.service.pipeline).experiment}: ask", analytics_enabled=False)
    with blocks:
        heading = gradio.HTML(heading_html(served(asking.service.pipeline)))
        with gradio.Row(elem_id="ask"):
            box = gradio.Textbox(
                label="Question",
                placeholder="Ask something about the documents",
                max_lines=6,
                max_length=MAX_CHARACTERS,
                autofocus=True,
            )
            button = gradio.Button("Ask", variant="primary")
        _examples(example_questions(asking.service.pipeline), box)
        reply = gradio.HTML(elem_id="reply")
        with gradio.Accordion("Timings and provenance", open=False):
            details = gradio.HTML(details_html(asking.service.pipeline.provenance(), {}, {}))
        gradio.on(
            [button.click, box.submit],
            on_ask,
            box,
            [button, reply, details],
            api_visibility="private",
            show_progress="hidden",
            trigger_mode="once",
            concurrency_limit=None,  # `Asking` keeps the queue; Gradio's would delay the disabling of the button
        )
        blocks.load(on_load, None, [heading, details], api_visibility="private", show_progress="hidden")
        named(ask, api_name="ask", concurrency_limit=None)
    return blocks


def caller_of(request: gradio.Request) -> Caller:
    """Who asks on the page; each question is a request of its own."""
    principal = getattr(getattr(request.request, "state", None), "principal", None) or Principal()
    return Caller(f"page {request.session_hash}", uuid.uuid4().hex, principal)


def _examples(questions: Sequence[str], box: gradio.Textbox) -> None:
    """Buttons that write a question into the box (those of `gradio.Examples` cut it off after 60 characters)."""
    if questions:
        with gradio.Column(elem_id="examples"):
            gradio.HTML("<p>For example</p>")
            for question in questions:
                button = gradio.Button(question, size="sm")
                button.click(lambda text: text, button, box, api_visibility="private", show_progress="hidden", queue=False)


async def shown(asking: Asking, question: str, caller: Caller = NOBODY) -> AsyncIterator[tuple[Any, Any]]:
    """HTML of reply and details as the answer grows; whatever goes wrong is said where the answer would be.

    Args:
        asking: what answers.
        question: as typed.
        caller: who asks.
    """
    try:
        async for found in asking.growing(Asked(checked(question)), caller):
            if isinstance(found, Answered):
                reply = reply_of(json.loads(found.body))
                marked = fallback_html(found.served["fallback"]) if "fallback" in found.served else ""
                yield marked + reply_html(reply), details_html(reply.provenance, found.served["seconds"], reply.tokens)
            else:
                yield reply_html(found), details_html(found.provenance, found.seconds, found.tokens)
    except InputError as error:
        yield told("error", _sentence(str(error))), gradio.skip()
    except ProblemError as problem:
        yield told("error", _sentence(problem.detail)), gradio.skip()
    except Exception:
        log.exception("no reply to request %s", caller.request_id)
        yield told("error", _sentence(UNEXPECTED)), gradio.skip()


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
