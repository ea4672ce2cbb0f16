"""The demo: a page for people and an API for programs, both answered by one `Pipeline`, one question at a time.

First the functions that need no server (reading a request, writing HTML), then `build`, which connects them, then
`serve`, which replays a measured answer before it lets anybody in.

    POST /api/ask {"question": "..."}   the reply as JSON; past Gradio's queue
    GET  /api/provenance                what every reply's provenance says of run, configuration and artifacts
    GET  /health                        {"status": "ok", "run": ..., "configuration": ...}
    GET  /                              the page
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.errors import InputError, MissingExtraError, StageFailedError, unknown
from workbench.results import words
from workbench.results.verdict import BASELINE, Verdict, verdict

if TYPE_CHECKING:
    import fastapi
    import gradio
    from starlette.requests import Request
    from starlette.responses import Response

    from workbench.pipeline import Pipeline, Reply, Source
    from workbench.results.rows import LeaderboardRow
    from workbench.results.run import Run
    from workbench.store.progress import Progress

MAX_CHARACTERS = 2000  # of a question
MAX_BYTES = 65_536  # of a request; the longest question takes 24,000, every character escaped
EXAMPLES = 3
GRACE_SECONDS = 3  # for open pages when the server stops; they keep a connection as long as they are open
USAGE = 'send {"question": "..."}'
UNEXPECTED = "the question could not be answered because of an error in the server; its log says more"

log = logging.getLogger(__name__)


# What a request says


def read_question(body: bytes) -> str:
    """The question in the body of a request.

    Raises:
        InputError: anything but a JSON object with the one key ``question`` and a question that `checked` accepts.
    """
    try:
        received = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is not JSON ({error}); {USAGE}") from error
    if not isinstance(received, dict):
        raise InputError(f"the body is {_kind(received)}, not an object; {USAGE}")
    for key in received:
        if key != "question":
            raise unknown("key", key, ["question"])
    if "question" not in received:
        raise InputError(f"the body is an object without keys; {USAGE}")
    if not isinstance(received["question"], str):
        raise InputError(f"the question is {_kind(received['question'])}, not text; {USAGE}")
    return checked(received["question"])


def checked(question: str) -> str:
    """The question itself.

    Raises:
        InputError: it is empty, too long, or no text that can be encoded.
    """
    if not question.strip():
        raise InputError(f"the question is empty; allowed: 1 to {MAX_CHARACTERS:,} characters")
    if len(question) > MAX_CHARACTERS:
        raise InputError(f"the question has {len(question):,} characters; allowed: 1 to {MAX_CHARACTERS:,}")
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the question holds {error.object[error.start]!r} at position {error.start}, half a character; allowed: whole ones"
        ) from error
    return question


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


# What people see


class Figure(NamedTuple):
    """How good a configuration's answers are: its row of the leaderboard, and whether that split is the one it was chosen on."""

    row: LeaderboardRow
    flattered: bool


class Served(NamedTuple):
    """What a pipeline serves.

    Attributes:
        experiment: its name.
        run: its run's id.
        label: the configuration's.
        promoted: whether the configuration is the promoted one.
        dataset: name of what is searched.
        documents: how many there are.
        figure: how good its answers are; None where that was not measured.
        verdict: whether it is better than the baseline on the report split.
        today: what the baseline is called.
    """

    experiment: str
    run: str
    label: str
    promoted: bool
    dataset: str
    documents: int
    figure: Figure | None
    verdict: Verdict | None = None
    today: str = words.TODAY


def heading_html(facts: Served) -> str:
    """What is served and how good its answers are."""
    source = escape(f"{facts.documents:,} documents of {facts.dataset}")
    promoted = "the promoted configuration" if facts.promoted else "not the promoted configuration"
    by = f"<strong>{escape(facts.label)}</strong>, {promoted} of run {escape(facts.run)}"
    title = f"<h1>{escape(facts.experiment)}</h1>"
    measured = _figure_html(facts.figure) + _verdict_html(facts)
    return f"<header>{title}<p>Answers from {source}, by {by}.</p>{measured}</header>"


def _figure_html(figure: Figure | None) -> str:
    if figure is None:
        return '<p class="figure">How good its answers are was not measured.</p>'
    row = figure.row
    interval = words.between(row.ci_low, row.ci_high)
    plausibly = f" (plausibly {interval})" if interval else ""
    failed = f", {row.failed} of them failed" if row.failed else ""
    flattered = "; this configuration was chosen on them, which flatters it" if figure.flattered else ""
    return (
        f'<p class="figure"><strong>{escape(words.metric_name(row.metric))} {words.number(row.mean)}</strong> of 100 points'
        f"{plausibly}, measured on {row.n:,} questions of the {escape(row.split)} split{failed}{flattered}.</p>"
    )


def _verdict_html(facts: Served) -> str:
    """The verdict against the baseline, or why there is none."""
    found, today = facts.verdict, facts.today
    if found is None:
        return ""
    if found.row:
        said = f"Against {today}: {found.sign} {found.phrase}."
    elif found.a == found.b:
        said = f"This is {today} itself{': the baseline is best' if found.word == BASELINE else ''}."
    else:
        said = f"Whether it is better than {today} was not measured on the {found.split} split."
    return f'<p class="figure">{escape(said)}</p>'


def reply_html(reply: Reply) -> str:
    """The answer and below it the passages."""
    asked_alone = '<p class="sources-title">The question was asked without passages.</p>'
    return answer_html(reply) + (sources_html(reply.sources) if passages_shown(reply) else asked_alone)


def answer_html(reply: Reply) -> str:
    """The answer; an abstention, a failure and an experiment without a generator are said plainly."""
    from workbench.models.answering import WRITING

    if reply.status == WRITING:  # nothing is no abstention yet
        return _told("answer growing", reply.answer) if reply.answer else _told("waiting", "Writing …")
    if reply.answer:
        return _told("answer", reply.answer)
    if reply.answer is None:
        return _told("none", "This experiment only ranks passages; the best of them are below.")
    if reply.status != "ok":
        return _told("none", f"No answer: {reply.status}.")
    return _told("none", "The passages do not hold an answer." if passages_shown(reply) else "The generator knows no answer.")


def passages_shown(reply: Reply) -> bool:
    """Whether passages were meant to be shown to the generator: by default they always are."""
    shown: bool = reply.provenance.get("retrieval", {}).get("shown", True)
    return shown


def _told(kind: str, text: str) -> str:
    return f'<div class="told {kind}" role="status">{escape(text)}</div>'


def sources_html(sources: Sequence[Source]) -> str:
    """The passages in their order, each with rank, title, document, characters and score."""
    if not sources:
        return '<p class="sources-title">No passage fits the question.</p>'
    read = "The passage read" if len(sources) == 1 else f"The {len(sources)} passages read, best first"
    return f'<p class="sources-title">{read}</p>' + "".join(map(_source_html, sources))


def _source_html(source: Source) -> str:
    place = f"{source.place.doc_id}, characters {source.place.start:,} to {source.place.end:,}, score {source.score:.4g}"
    return (
        f'<article class="source"><h2><span class="rank">{source.rank}</span> {escape(source.title or source.place.doc_id)}</h2>'
        f'<p class="place">{escape(place)}</p><p class="text">{escape(source.text)}</p></article>'
    )


def details_html(provenance: Mapping[str, Any], seconds: Mapping[str, float], tokens: Mapping[str, int]) -> str:
    """Timings, tokens and provenance as a list of names and values; the first two may be empty."""
    rows = [
        *((f"{name} seconds", f"{value:.3f}") for name, value in seconds.items()),
        *((f"{name} tokens", str(value)) for name, value in tokens.items()),
        *provenance_rows(provenance),
    ]
    return '<dl class="details">' + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows) + "</dl>"


def provenance_rows(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of all that the provenance holds; every artifact takes a row of its own."""
    rows = []
    for name, value in provenance.items():
        named = value.items() if isinstance(value, Mapping) else [(name, value)]
        rows += [(key, str(one)) for key, one in named if one is not None]
    return rows


# What is served


def served(pipeline: Pipeline) -> Served:
    """Experiment, label, run, data and measured figure of what a pipeline serves."""
    run, configuration = pipeline.run, pipeline.configuration
    dataset, promoted = pipeline.session.dataset, run.promoted
    return Served(
        run.manifest["experiment"],
        run.folder.name,
        configuration.label,
        promoted is not None and promoted["configuration"] == configuration.id,
        dataset.name,
        dataset.documents.num_rows,
        measured_figure(run, configuration.id),
        verdict(run, configuration.id),
        run.today,
    )


def measured_figure(run: Run, configuration: str) -> Figure | None:
    """A configuration's row of the leaderboard for the metric that chose, on the report split, else on the selection split."""
    chosen_on, metric = run.select
    for split in (run.report_split, chosen_on):
        if row := run.row(configuration, split, metric):
            return Figure(row, split == chosen_on)
    return None


def example_questions(pipeline: Pipeline) -> list[str]:
    """Questions to begin with: the first of the train split, so that trying the demo shows no measured question."""
    settings, dataset = pipeline.experiment.settings.dataset, pipeline.session.dataset
    if settings.train not in dataset.splits or settings.train in (settings.select, settings.report):
        return []
    return [query.text for query in dataset.split(settings.train)[:EXAMPLES]]


class Answering:
    """Asks a pipeline one question at a time, in one thread: models and indexes are not made for several.

    Questions wait in the order they came, without holding a thread of the server.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="answering")

    async def ask(self, question: str) -> Reply:
        """The pipeline's reply."""
        return [reply async for reply in self.stream(question)][-1]

    async def stream(self, question: str) -> AsyncIterator[Reply]:
        """The pipeline's replies while the answer is written; the last one is whole."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Queue[Reply | None] = asyncio.Queue()

        def work() -> None:
            for reply in self.pipeline.stream(question):
                loop.call_soon_threadsafe(ready.put_nowait, reply)

        worked = loop.run_in_executor(self._worker, work)
        worked.add_done_callback(lambda _: ready.put_nowait(None))
        while reply := await ready.get():
            yield reply
        await worked  # raises what went wrong


# The connections


def build(pipeline: Pipeline) -> fastapi.FastAPI:
    """The application: API, health and page.

    Raises:
        MissingExtraError: Gradio, FastAPI or uvicorn is not installed.
    """
    require_extra()
    import fastapi
    import gradio

    answering = Answering(pipeline)
    app = fastapi.FastAPI(title="RAG Workbench", docs_url=None, redoc_url=None, openapi_url=None)  # their pages load from a CDN
    _add_api(app, answering)
    mounted: fastapi.FastAPI = gradio.mount_gradio_app(
        app,
        _page(answering),
        path="/",
        theme=_theme(),
        css=CSS,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        show_error=False,
        max_file_size="1kb",  # nothing is uploaded here
    )
    return mounted


def require_extra() -> None:
    """Checks that the packages of the demo are installed, and keeps Gradio from reporting its use to its makers.

    Raises:
        MissingExtraError: one of them is not.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    for package in ("gradio", "fastapi", "uvicorn"):
        try:
            __import__(package)
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or package, "app", "the demo") from error


def _add_api(app: fastapi.FastAPI, answering: Answering) -> None:
    from starlette.responses import JSONResponse

    pipeline = answering.pipeline

    async def ask(request: Request) -> Response:
        try:
            question = read_question(await _body(request))
        except InputError as error:
            return JSONResponse({"error": str(error)}, 422)
        try:
            return JSONResponse((await answering.ask(question)).as_json())
        except Exception:
            log.exception("no reply to %r", question)
            return JSONResponse({"error": UNEXPECTED}, 500)

    async def provenance(request: Request) -> Response:
        return JSONResponse(pipeline.provenance())

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "run": pipeline.run.folder.name, "configuration": pipeline.configuration.id})

    app.add_route("/api/ask", ask, methods=["POST"])
    app.add_route("/api/provenance", provenance, methods=["GET"])
    app.add_route("/health", health, methods=["GET"])


async def _body(request: Request) -> bytes:
    """The body of a request, read no further than `MAX_BYTES`."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise InputError(f"the body has more than {MAX_BYTES:,} bytes; a question has at most {MAX_CHARACTERS:,} characters")
    return body


def _page(answering: Answering) -> gradio.Blocks:
    import gradio

    pipeline = answering.pipeline
    facts = served(pipeline)

    async def on_ask(question: str) -> AsyncIterator[tuple[Any, ...]]:
        yield gradio.Button("Answering …", interactive=False), _told("waiting", "Reading the passages …"), gradio.skip()
        said: tuple[Any, Any] = (gradio.skip(), gradio.skip())
        async for said in _shown(answering, question):
            yield gradio.skip(), *said
        yield gradio.Button("Ask", interactive=True), *said

    page: gradio.Blocks = gradio.Blocks(title=f"{facts.experiment}: ask", analytics_enabled=False)
    with page:
        gradio.HTML(heading_html(facts))
        with gradio.Row(elem_id="ask"):
            box = gradio.Textbox(
                label="Question",
                placeholder="Ask something about the documents",
                max_lines=6,
                max_length=MAX_CHARACTERS,
                autofocus=True,
            )
            button = gradio.Button("Ask", variant="primary")
        _examples(example_questions(pipeline), box)
        shown = gradio.HTML(elem_id="reply")
        with gradio.Accordion("Timings and provenance", open=False):
            details = gradio.HTML(details_html(pipeline.provenance(), {}, {}))
        gradio.on(
            [button.click, box.submit],
            on_ask,
            box,
            [button, shown, details],
            api_visibility="private",
            show_progress="hidden",
            trigger_mode="once",
            concurrency_limit=None,  # `Answering` keeps the queue; Gradio's would delay the disabling of the button
        )
    return page


def _examples(questions: Sequence[str], box: gradio.Textbox) -> None:
    """Buttons that write a question into the box (those of `gradio.Examples` cut it off after 60 characters)."""
    import gradio

    if questions:
        with gradio.Column(elem_id="examples"):
            gradio.HTML("<p>For example</p>")
            for question in questions:
                button = gradio.Button(question, size="sm")
                button.click(lambda text: text, button, box, api_visibility="private", show_progress="hidden", queue=False)


async def _shown(answering: Answering, question: str) -> AsyncIterator[tuple[Any, Any]]:
    """HTML of reply and details as the answer grows; whatever goes wrong is said where the answer would be."""
    import gradio

    try:
        async for reply in answering.stream(checked(question)):
            yield reply_html(reply), details_html(reply.provenance, reply.seconds, reply.tokens)
    except InputError as error:
        yield _told("error", _sentence(str(error))), gradio.skip()
    except Exception:
        log.exception("no reply to %r", question)
        yield _told("error", _sentence(UNEXPECTED)), gradio.skip()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _theme() -> gradio.themes.Base:
    """Fonts of the reader's system: the page loads nothing from elsewhere."""
    from gradio.themes import Default
    from gradio.themes.utils.fonts import Font

    sans = [Font(name) for name in ("system-ui", "-apple-system", "Segoe UI", "sans-serif")]
    mono = [Font(name) for name in ("ui-monospace", "Consolas", "monospace")]
    theme = Default(primary_hue="blue", font=sans, font_mono=mono)
    return theme.set(button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700")


CSS = """
.gradio-container { max-width: 60rem !important; margin: 0 auto !important; --quiet: #52525b; }
.dark .gradio-container, .gradio-container.dark { --quiet: #b4b4bb; }
.gradio-container .html-container { padding: 0; }
header h1 { font-size: 1.75rem; font-weight: 650; margin: .5rem 0 .25rem; }
header p { margin: .25rem 0; color: var(--quiet); overflow-wrap: anywhere; }
header strong { color: var(--body-text-color); }
#ask { flex-wrap: nowrap; align-items: stretch; }
#ask button { flex: 0 0 9rem; }
#examples { gap: .5rem; align-items: flex-start; }
#examples p { color: var(--quiet); font-size: .875rem; margin: 0; }
#examples button { width: auto; padding: .35rem .75rem; text-align: left; white-space: normal;
                   font-weight: 400; font-size: .875rem; color: var(--body-text-color);
                   background: none; border: 1px solid var(--border-color-primary); }
#examples button:hover { border-color: var(--color-accent); }
.told { font-size: 1.2rem; line-height: 1.5; padding: .9rem 1.1rem; border-left: 4px solid var(--border-color-primary);
        background: var(--background-fill-secondary); border-radius: 4px; white-space: pre-wrap; overflow-wrap: anywhere; }
.told.answer { border-left-color: var(--color-accent); font-weight: 550; }
.told.error { border-left-color: #dc2626; font-size: 1rem; }
.told.growing::after { content: " …"; color: var(--quiet); }
.told.waiting, .told.none { color: var(--quiet); }
.sources-title { color: var(--quiet); font-size: .875rem; margin: 1.25rem 0 .5rem; }
.source { border: 1px solid var(--border-color-primary); border-radius: 6px; padding: .8rem 1rem; margin-bottom: .75rem; }
.source h2 { font-size: 1rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
.source .rank { display: inline-block; min-width: 1.5rem; text-align: center; border-radius: 4px; margin-right: .35rem;
                background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.source .place { font-size: .85rem; color: var(--quiet); margin: .3rem 0 .6rem; overflow-wrap: anywhere; }
.source .text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: .925rem; line-height: 1.5; }
.details { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 0; font-size: .85rem; }
.details dt { color: var(--quiet); }
.details dd { margin: 0; font-family: var(--font-mono); overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  #ask { flex-direction: column; }
  #ask button { flex: none; width: 100%; }
}
"""


# Serving


def gate(pipeline: Pipeline) -> str:
    """Replays the first recorded answer of the configuration to be served.

    Returns:
        One line on what was found.

    Raises:
        StageFailedError: there is none to replay, or it is not the same; the message names what differs.
    """
    if pipeline.answers is None:
        return f"{pipeline.configuration.label} only ranks passages: there is no recorded answer to replay before serving"
    query_id = _first_answered(pipeline.run.folder / "answers.jsonl", pipeline.configuration.id)
    if query_id is None:
        raise StageFailedError(
            f"run {pipeline.run.folder} records no answer of {pipeline.configuration.label}, so nothing shows that it answers "
            f"as it was measured; run the experiment again"
        )
    outcome = pipeline.replay(query_id)
    if not outcome.same:
        recorded, replayed = outcome.recorded._asdict(), outcome.replayed._asdict()
        differences = "; ".join(
            f"{field}: recorded {_short(recorded[field])}, now {_short(replayed[field])}" for field in outcome.differing
        )
        raise StageFailedError(
            f"not served: {pipeline.configuration.label} no longer answers query {query_id} as run {pipeline.run.folder} "
            f"recorded ({differences}). Run the experiment again"
        )
    if outcome.differing:
        chance = outcome.chance or "how often the server's answers differ was not measured"
        return f"{pipeline.configuration.label} shows query {query_id} the same passages, its answer is another: {chance}"
    return f"{pipeline.configuration.label} answers query {query_id} as recorded"


def _first_answered(path: Path, configuration: str) -> str | None:
    with path.open(encoding="utf-8") as lines:
        rows = map(json.loads, lines)
        return next((row["query_id"] for row in rows if row["configuration"] == configuration), None)


def _short(value: object, length: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def serve(
    run: str | Path,
    configuration: str | None = None,
    port: int = 7860,
    host: str = "127.0.0.1",
    progress: Progress | None = None,
    dataset: Path | None = None,
) -> None:
    """Serves a run's configuration until interrupted, if it still answers as it was measured.

    Args:
        run: folder of a finished run.
        configuration: id, beginning of one, or label; default: the promoted one, else the best.
        port: to listen on; 0: any that is free.
        host: address to listen on; there is no log-in, so whoever reaches it may ask.
        progress: where to report; default: standard error.
        dataset: where the run's data lie now; default: where they were.

    Raises:
        MissingExtraError: Gradio, FastAPI or uvicorn is not installed.
        InputError: no such run or configuration, or a port that cannot be listened on.
        StageFailedError: the gate; see `gate`.
    """
    require_extra()
    import uvicorn

    from workbench.pipeline import Pipeline
    from workbench.store.progress import Progress
    from workbench.store.telling import for_people

    progress = progress or for_people()
    with bound(host, port) as listener:  # before the models are loaded, which takes longer
        pipeline = Pipeline.open(run, configuration, progress, dataset)
        progress.say(gate(pipeline))
        pipeline.warm()
        pipeline.session.progress = Progress()  # single questions need no bars
        app = build(pipeline)
        listener.listen()
        shown = f"[{host}]" if ":" in host else host
        progress.say(f"serving {pipeline.configuration.label} at http://{shown}:{listener.getsockname()[1]} (Ctrl+C stops it)")
        settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE_SECONDS)
        uvicorn.Server(settings).run(sockets=[listener])


def bound(host: str, port: int) -> socket.socket:
    """A socket that holds an address, not listening yet.

    Raises:
        InputError: the address is taken, not this machine's, or no address.
    """
    if not 0 <= port <= 65_535:
        raise InputError(f"port {port} is not between 0 and 65,535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot listen on {host}, port {port} ({reason}); choose another with --port or --host") from error
    return listener
