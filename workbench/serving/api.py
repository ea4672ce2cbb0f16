"""The routes of the service: they read a request, ask, and write the answer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from workbench.pipeline import Asked
from workbench.serving import chat
from workbench.serving.accounts import add_accounts
from workbench.serving.asking import Answered, Asking
from workbench.serving.caller import Caller, Principal
from workbench.serving.documented import documented
from workbench.serving.facts import about
from workbench.serving.problems import (
    MEDIA_TYPE,
    UNEXPECTED,
    InvalidError,
    MethodError,
    NotFoundError,
    ProblemError,
    UnexpectedError,
)
from workbench.serving.recording import Recording
from workbench.serving.requests import AnswerForm, SearchForm, read
from workbench.serving.streaming import LEFT, ClientLeftError, EventStream, event, unless_left

if TYPE_CHECKING:
    from fastapi import FastAPI


OPENAI = ("/v1/chat/", "/v1/models")  # whose clients read OpenAI's form of an error
OWN_FORMS = (*OPENAI, "/api/")
MOST_RECENT = 1000  # answers that can be fetched once more by the id of their request

log = logging.getLogger(__name__)
Place = tuple[int | None, str]  # whose answer, and the id of its request


class Recent:
    """Answers by whose they are and the id of their request, and those that are asked for asynchronously and not there yet."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Place, asyncio.Task[Answered] | Answered] = OrderedDict()

    def keep(self, caller: Caller, found: asyncio.Task[Answered] | Answered) -> None:
        """Keeps an answer, or the task that brings it, for the one who asked."""
        place = (caller.principal.user, caller.request_id)
        self._kept[place] = found
        self._kept.move_to_end(place)
        while len(self._kept) > MOST_RECENT:
            self._kept.popitem(last=False)

    def get(self, request_id: str, caller: Caller) -> asyncio.Task[Answered] | Answered:
        """What is kept for the one who asks.

        Raises:
            NotFoundError: there is no such answer of theirs, or it is too long ago.
        """
        place = (caller.principal.user, request_id)
        if place not in self._kept:
            raise NotFoundError(f"there is no answer {request_id[:64]!r}; the last {MOST_RECENT:,} are kept")
        return self._kept[place]


def add_routes(app: FastAPI, asking: Recording) -> None:
    """Adds all routes but the page.

    Args:
        app: the application.
        asking: what answers.
    """
    recent = Recent()
    add = _adder(app)

    async def answers(request: Request) -> Response:
        asked, caller = await _asked(request, asking)
        request_id = caller.request_id
        if "text/event-stream" in request.headers.get("accept", ""):
            return EventStream(request, _events(asking, asked, caller), lambda p: event("problem", p.as_json(request_id)))
        if "respond-async" in request.headers.get("prefer", ""):
            recent.keep(caller, asyncio.ensure_future(asking.answer(asked, caller)))
            place = f"/v1/answers/{request_id}"
            return JSONResponse({"id": request_id, "status": "accepted"}, 202, {"location": place})
        answered = await unless_left(request.receive, asking.answer(asked, caller))
        recent.keep(caller, answered)
        return _json(answered.response(request_id))

    async def answer(request: Request) -> Response:
        request_id, caller = request.path_params["request_id"], caller_of(request)
        try:
            found = recent.get(request_id, caller)
        except NotFoundError:
            if asking.directory is None:
                raise
            found = await asking.stored(request_id, caller.principal)
        if isinstance(found, asyncio.Task):
            if not found.done():
                return JSONResponse({"id": request_id, "status": "accepted"}, 202, {"retry-after": "1"})
            found = found.result()
        return _json(found.response(request_id))

    async def search(request: Request) -> Response:
        form = read(await request.body(), SearchForm, request.headers.get("content-type"))
        passages = await unless_left(request.receive, asking.search(form.question, form.k, caller_of(request)))
        return _json(passages)

    async def ask(request: Request) -> Response:
        answered = await unless_left(request.receive, asking.answer(*await _asked(request, asking)))
        values = json.loads(answered.body)
        return JSONResponse(values | {"seconds": answered.served["seconds"]})

    async def provenance(request: Request) -> Response:
        return JSONResponse(asking.service.pipeline.provenance())

    async def said_about(request: Request) -> Response:
        return JSONResponse(about(asking))

    async def healthy(request: Request) -> Response:
        pipeline = asking.service.pipeline
        if request.state.principal is None:  # nobody in particular
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "ok", "run": pipeline.run.folder.name, "configuration": pipeline.configuration.id})

    async def ready(request: Request) -> Response:
        state = {"status": "stopping" if asking.stopping else "ready", "model": asking.service.breaker.state}
        return JSONResponse(state | {"under_way": asking.under_way}, 503 if asking.stopping else 200)

    add("POST", "/v1/answers", answers)
    add("GET", "/v1/answers/{request_id}", answer)
    add("POST", "/v1/search", search)
    add("POST", "/v1/chat/completions", chat.completions(asking, caller_of))
    add("GET", "/v1/models", chat.models(asking))
    add("GET", "/v1/about", said_about)
    add("GET", "/healthz", healthy)
    add("GET", "/readyz", ready)
    add("POST", "/api/ask", ask)
    add("GET", "/api/provenance", provenance)
    add("GET", "/health", healthy)
    add_accounts(add, asking, caller_of)
    _add_refusals(app)


def _adder(app: FastAPI) -> Callable[[str, str, Callable[[Request], Any]], None]:
    def add(method: str, path: str, handle: Callable[[Request], Any]) -> None:
        async def handled(request: Request) -> Response:
            try:
                response: Response = await handle(request)
            except ClientLeftError:
                return Response(status_code=LEFT)
            except ProblemError as problem:
                return _problem(request, problem)
            except Exception:
                log.exception("request %s to %s failed", _id(request), path)
                return _problem(request, UnexpectedError(UNEXPECTED))
            return response

        app.add_api_route(path, handled, methods=[method], response_class=Response, **documented(method, path))

    return add


def _add_refusals(app: FastAPI) -> None:
    """Unknown addresses and methods of the API are refused in our forms; all others are the page's."""
    methods: dict[str, list[str]] = {}
    for route in app.routes:
        if isinstance(route, APIRoute):
            methods.setdefault(route.path, []).extend(sorted(route.methods or ()))

    async def unknown(request: Request) -> Response:
        path = request.url.path
        taken = methods.get(path)
        if taken is None:
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
    said = await asking.history(form.conversation, caller.principal)
    return Asked(form.question, said), caller._replace(conversation=form.conversation)


async def _events(asking: Asking, asked: Asked, caller: Caller) -> AsyncIterator[bytes]:
    """Events ``sources``, ``text`` for each longer beginning, and ``answer``."""
    first = True
    async for found in asking.growing(asked, caller):
        if isinstance(found, Answered):
            yield event("answer", found.response(caller.request_id))
            return
        if first:
            first = False
            yield event("sources", found.as_json()["sources"])
        yield event("text", {"answer": found.answer})


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _id(request: Request) -> str:
    found: str = request.state.request_id
    return found


def caller_of(request: Request) -> Caller:
    """Who sends a request; those who have no name are counted by their address."""
    principal = request.state.principal or Principal()
    address = request.client.host if request.client else ""
    name = address if principal.user is None else f"user {principal.user}, key {principal.key}"
    return Caller(name, _id(request), principal)
