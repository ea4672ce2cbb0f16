"""The routes of the service: they read a request, ask, and write the answer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from workbench.pipeline import Asked
from workbench.serving import chat
from workbench.serving.accepted import Accepted
from workbench.serving.accounts import add_accounts
from workbench.serving.asking import Answered, Asking
from workbench.serving.caller import Caller, caller_of
from workbench.serving.documented import documented
from workbench.serving.elsewhere import HANGS_AFTER_DEADLINES
from workbench.serving.facts import about
from workbench.serving.metrics import CONTENT_TYPE
from workbench.serving.preferring import LATER, preferred
from workbench.serving.problems import (
    MEDIA_TYPE,
    UNEXPECTED,
    InvalidError,
    MethodError,
    NotFoundError,
    ProblemError,
    UnauthorizedError,
    UnexpectedError,
)
from workbench.serving.readiness import readiness
from workbench.serving.recording import Recording
from workbench.serving.requests import AnswerForm, SearchForm, read
from workbench.serving.streaming import LEFT, ClientLeftError, EventStream, event, unless_left

if TYPE_CHECKING:
    from fastapi import FastAPI

OPENAI = ("/v1/chat/", "/v1/models")  # whose clients read OpenAI's form of an error
OWN_FORMS = (*OPENAI, "/api/")
REFUSED_SECONDS = 0.1  # for which an answer that is fetched later may be refused at once, as any other

log = logging.getLogger(__name__)


class Routes:
    """What the routes do with a request that was let in."""

    def __init__(self, asking: Recording) -> None:
        """Routes that answer.

        Args:
            asking: what answers.
        """
        self.asking, self.recent = asking, asking.recent
        self.accepted = Accepted(asking.redis) if asking.redis else None

    async def answers(self, request: Request) -> Response:
        """POST /v1/answers: an answer at once, as a stream of events, or later at an address of its own."""
        asked, caller = await _asked(request, self.asking)
        request_id = caller.request_id
        if "text/event-stream" in request.headers.get("accept", ""):
            events = _events(self.asking, asked, caller)
            return EventStream(request, events, lambda problem: event("problem", problem.as_json(request_id)))
        preference = preferred(request.headers.getlist("prefer"))
        if preference.later:
            return await self._later(asked, caller, preference.wait)
        key = self.asking.service.key(asked)
        answered = await unless_left(request.receive, self.asking.answer(asked, caller))
        if caller.conversation is None:  # those of a conversation are in the records, until it is removed
            self.recent.keep(caller, answered, key)
        return _json(answered.response(request_id))

    async def _later(self, asked: Asked, caller: Caller, wait: int) -> Response:
        """202 and the address where the answer is fetched, or the answer where it is there while the client waits.

        Raises:
            ProblemError: the question was refused at once, or while the client waited.
        """
        if self.accepted:
            await self.accepted.begin(caller, self.asking.settings.serve.deadline)
        task = asyncio.ensure_future(self._answered(asked, caller))
        self.recent.expect(caller, task, self.asking.service.key(asked))
        await asyncio.wait({task}, timeout=min(wait, self.asking.settings.serve.deadline) or REFUSED_SECONDS)
        if task.done() and (wait or task.exception()):
            return _json(task.result().response(caller.request_id))
        place = {"location": f"/v1/answers/{caller.request_id}", "preference-applied": LATER}
        return _accepted(caller.request_id, place)

    async def _answered(self, asked: Asked, caller: Caller) -> Answered:
        """An answer that is fetched later, of whose end all replicas know."""
        try:
            answered = await self.asking.answer(asked, caller)
        except ProblemError as problem:
            if self.accepted:
                await self.accepted.end(caller, problem)
            raise
        if self.accepted:
            await self.accepted.end(caller)
        return answered

    async def answer(self, request: Request) -> Response:
        """GET /v1/answers/ID: an answer once more, or 202 while it is written, here or at another replica."""
        request_id = request.path_params["request_id"]
        caller = caller_of(request, request_id)
        try:
            found = self.recent.get(request_id, caller)
        except NotFoundError as unknown:
            if self.accepted and await self.accepted.is_pending(caller):
                return _accepted(request_id, {"retry-after": "1"})
            found = await self._stored(caller, unknown)
        if isinstance(found, asyncio.Task):
            if not found.done():
                return _accepted(request_id, {"retry-after": "1"})
            found = found.result()
        return _json(found.response(request_id))

    async def _stored(self, caller: Caller, unknown: NotFoundError) -> Answered:
        """An answer that the records hold.

        Args:
            caller: whoever asks, by the id of the request that got the answer.
            unknown: raised where there are no records.

        Raises:
            GoneError: it was kept here, and is not in the records.
            NotFoundError: whoever asks has no such answer.
        """
        try:
            if self.asking.directory is None:
                raise unknown
            return await self.asking.stored(caller.request_id, caller.principal)
        except NotFoundError:
            self.recent.refuse_gone(caller.request_id, caller)
            raise

    async def search(self, request: Request) -> Response:
        """POST /v1/search: passages alone."""
        form = read(await request.body(), SearchForm, request.headers.get("content-type"))
        return _json(await unless_left(request.receive, self.asking.search(form.question, form.k, caller_of(request))))

    async def ask(self, request: Request) -> Response:
        """POST /api/ask: the answer in the form of the first version of the API."""
        answered = await unless_left(request.receive, self.asking.answer(*await _asked(request, self.asking)))
        return JSONResponse(json.loads(answered.body) | {"seconds": answered.served["seconds"]})

    async def provenance(self, request: Request) -> Response:
        """GET /api/provenance: which run, configuration and artifacts answer."""
        return JSONResponse(self.asking.service.pipeline.provenance())

    async def about(self, request: Request) -> Response:
        """GET /v1/about: what is served and what was measured of it."""
        return JSONResponse(about(self.asking))

    async def healthy(self, request: Request) -> Response:
        """GET /healthz: whether the process is sound; 503: it is to be started anew."""
        service = self.asking.service
        known = request.state.principal is not None  # else nobody in particular asks
        state = {} if not known else {"run": service.pipeline.run.folder.name, "configuration": service.pipeline.configuration.id}
        limit = HANGS_AFTER_DEADLINES * self.asking.settings.serve.deadline
        if service.batcher.busy_seconds <= limit:
            return JSONResponse({"status": "ok"} | state)
        why = f"the model has worked at the same questions for more than {limit:g} s; start the service anew"
        return JSONResponse({"status": "hangs", "detail": why} | state, 503)

    async def ready(self, request: Request) -> Response:
        """GET /readyz: whether questions are taken and somebody computes; ``degraded``: without what other replicas know."""
        state, is_ready = readiness(self.asking, request.state.principal is not None)
        return JSONResponse(state, 200 if is_ready else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: counts and times, in the text format of Prometheus."""
        return Response(self.asking.metrics.text(), media_type=CONTENT_TYPE)


def add_routes(app: FastAPI, asking: Recording) -> None:
    """Adds all routes but the page.

    Args:
        app: the application.
        asking: what answers.
    """
    routes = Routes(asking)
    add = _adder(app)
    add("POST", "/v1/answers", routes.answers)
    add("GET", "/v1/answers/{request_id}", routes.answer)
    add("POST", "/v1/search", routes.search)
    add("POST", "/v1/chat/completions", chat.completions(asking))
    add("GET", "/v1/models", chat.models(asking))
    add("GET", "/v1/about", routes.about)
    add("GET", "/healthz", routes.healthy)
    add("GET", "/readyz", routes.ready)
    add("GET", "/metrics", routes.metrics)
    add("POST", "/api/ask", routes.ask)
    add("GET", "/api/provenance", routes.provenance)
    add("GET", "/health", routes.healthy)
    add_accounts(add, asking)
    _add_refusals(app)


def _adder(app: FastAPI) -> Callable[[str, str, Callable[[Request], Any]], None]:
    def add(method: str, path: str, handle: Callable[[Request], Any]) -> None:
        async def handled(request: Request) -> Response:
            try:
                response: Response = await handle(request)
                if isinstance(response, EventStream):
                    await response.begin()
            except ClientLeftError:
                return Response(status_code=LEFT)
            except ProblemError as problem:
                return _problem(request, problem)
            except Exception:
                log.exception("request %s to %s failed", _id(request), path)
                return _problem(request, UnexpectedError(UNEXPECTED))
            response.headers.setdefault("cache-control", "no-store")  # it is for whoever asked
            return response

        app.add_api_route(path, handled, methods=[method], response_class=Response, **documented(method, path))

    return add


def _add_refusals(app: FastAPI) -> None:
    """Unknown addresses and methods of the API are refused in our forms; all others are the page's."""
    routes = [route for route in app.routes if isinstance(route, APIRoute)]

    async def unknown(request: Request) -> Response:
        path = request.url.path
        taken = sorted({method for route in routes if route.path_regex.match(path) for method in route.methods or ()})
        if not taken:
            return _problem(request, NotFoundError(f"there is no {path[:200]!r}; /docs lists what there is"))
        allowed = ", ".join(taken)
        return _problem(request, MethodError(f"{path} does not take {request.method}; allowed: {allowed}", allowed=taken))

    for path in ("/v1/{rest:path}", "/api/{rest:path}"):
        every = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
        app.add_api_route(path, unknown, methods=every, include_in_schema=False)


def _problem(request: Request, problem: ProblemError) -> Response:
    """A problem as a response, in the form that the clients of its address read."""
    path = request.url.path
    kind = MEDIA_TYPE if not path.startswith(OWN_FORMS) else "application/json"
    headers = {} if problem.retry_after is None else {"retry-after": str(problem.retry_after)}
    if problem.status == UnauthorizedError.status:
        headers["www-authenticate"] = "Bearer"
    return Response(refused(path, problem, _id(request)), problem.status, headers, kind)


def refused(path: str, problem: ProblemError, request_id: str) -> bytes:
    """The body of a refusal: problem details, or the form that the clients of a path read."""
    if path.startswith(OPENAI):
        return chat.refused(problem)
    if path.startswith("/api/"):
        return json.dumps({"error": problem.detail}, ensure_ascii=False).encode()
    return problem.body(request_id)


async def _asked(request: Request, asking: Recording) -> tuple[Asked, Caller]:
    """What is asked and by whom; a conversation gives the history."""
    form = read(await request.body(), AnswerForm, request.headers.get("content-type"))
    caller, history = caller_of(request), [turn.model_dump() for turn in form.history]
    if form.conversation is None:
        return Asked(form.question, history), caller
    if history:
        raise InvalidError(
            "a history and a conversation are sent; allowed: one of them, since a conversation has its own history"
        )
    said, caller = await asking.continued(form.conversation, caller)
    return Asked(form.question, said), caller


async def _events(asking: Asking, asked: Asked, caller: Caller) -> AsyncIterator[bytes]:
    """Events ``sources``, ``text`` for each longer beginning, and ``answer``."""
    first = True
    async with aclosing(asking.growing(asked, caller)) as replies:
        async for found in replies:
            if isinstance(found, Answered):
                yield event("answer", found.response(caller.request_id))
                return
            if first:
                first = False
                yield event("sources", found.as_json()["sources"])
            yield event("text", {"answer": found.answer})


def _accepted(request_id: str, headers: dict[str, str]) -> Response:
    return JSONResponse({"id": request_id, "status": "accepted"}, 202, headers)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _id(request: Request) -> str:
    found: str = request.state.request_id
    return found
