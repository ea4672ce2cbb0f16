"""The API as a function of AWS Lambda behind API Gateway: the same application, without a page, a disk or event streams.

A function does not say on which processor it runs, so only configurations are taken whose answers depend on none: passages are
ranked by BM25, and servers compute with models. Importing this and answering needs no torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from mangum import Mangum

from workbench.errors import InputError
from workbench.machine import NO_MACHINE
from workbench.pipeline import Pipeline
from workbench.serving.api import add_routes, refused
from workbench.serving.asking import MEMORY_BYTES, Service
from workbench.serving.caller import Principal
from workbench.serving.gate import prompt_gate
from workbench.serving.middleware import Guard
from workbench.serving.problems import MEDIA_TYPE, NotFoundError, UnauthorizedError
from workbench.serving.recording import Recording
from workbench.serving.settings import RunFallback, ServiceSettings, read_service
from workbench.serving.who.access import PUBLIC
from workbench.store.progress import Progress
from workbench.version import __version__

Event = dict[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
TEXTS = ["text/", "application/json", MEDIA_TYPE]  # types of bodies that an event holds as they are; others in base64
KEPT = "/v1/answers/"  # where answers are fetched once more
NO_STAGE = "$default"  # the stage of an HTTP API that is no part of paths


def function(folder: Path, settings: Path, configuration: str | None = None) -> Callable[[Event, Any], dict[str, Any]]:
    """What AWS Lambda calls with each event of API Gateway.

    Args:
        folder: of an unpacked bundle, or of a run.
        settings: file of the service's settings.
        configuration: id, beginning of one, or label; default: the bundle's, or the promoted one.

    Returns:
        A function of event and context that gives the response of API Gateway.

    Raises:
        InputError: no such bundle, configuration or settings; models compute here; the server's key or client is missing; or
            something is to be kept on a disk.
        StageFailedError: prompts are others than the run recorded; see `workbench.serving.gate`.
    """
    known = _checked(read_service(settings), settings)
    pipeline = Pipeline.open(folder, configuration, Progress(), machine=NO_MACHINE)
    pipeline.session.keep_in_memory(MEMORY_BYTES)
    if pipeline.answering:
        pipeline.answering.writer.opened(pipeline.session)  # its key is there, and its client is installed
    prompt_gate(pipeline, known.serve.gate)
    app = application(pipeline, known)
    loop = asyncio.new_event_loop()

    def called(event: Event, context: Any) -> dict[str, Any]:
        asyncio.set_event_loop(loop)  # the one that all questions of this process belong to
        path = _base_path(event)
        adapter = Mangum(app, lifespan="off", api_gateway_base_path=path, text_mime_types=TEXTS)
        return adapter(event, context)

    return called


def application(pipeline: Pipeline, settings: ServiceSettings) -> Guard:
    """The application: the routes of the API, for whom API Gateway let in.

    Args:
        pipeline: what answers.
        settings: of the service.
    """
    asking = Recording(Service(pipeline, settings.fallback), settings)
    app = FastAPI(title="RAG Workbench", docs_url=None, redoc_url=None, version=__version__)
    add_routes(app, asking)
    return Guard(_LetIn(app), asking, ("*",), refused)  # API Gateway passes on requests for its own names alone


def _checked(settings: ServiceSettings, file: Path) -> ServiceSettings:
    """Settings that a function can keep.

    Raises:
        InputError: something is to be kept on a disk, or another run is to answer.
    """
    where = f"{file}: a function of AWS Lambda has no disk that lasts"
    if settings.keep != "none":
        raise InputError(f"{where}; keep has to be none")
    if settings.cache.disk_mb:
        raise InputError(f"{where}; cache.disk_mb has to be 0, and is {settings.cache.disk_mb:g}")
    if any(isinstance(one, RunFallback) for one in settings.fallback):
        raise InputError(f"{file}: fallback names a run, and a function holds one; allowed: passage, a generator behind a server")
    return settings


def _base_path(event: Event) -> str:
    """What API Gateway puts before each path: an HTTP API the name of its stage, a REST API nothing."""
    stage = (event.get("requestContext") or {}).get("stage", NO_STAGE)
    return "/" if event.get("version") != "2.0" or stage == NO_STAGE else f"/{stage}"


class _LetIn:
    """Lets in whom API Gateway knows, by an authorizer or by an API key; whether the function lives, everybody may ask."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = _is_known(scope.get("aws.event") or {})
        if not known and scope["path"] not in PUBLIC:
            raise UnauthorizedError(
                "API Gateway does not say who asks; give its routes an authorizer, or have them take an API key"
            )
        if scope["path"].startswith(KEPT):
            raise NotFoundError("a function keeps no answers, since many callers share it; ask again")
        state = scope.setdefault("state", {})
        state["principal"] = Principal() if known else None
        state["no_streams"] = True  # Lambda sends what Python returns as a whole
        scope["headers"] = [one for one in scope["headers"] if one[0] != b"prefer"]  # nothing runs on after a response
        await self.app(scope, receive, send)


def _is_known(event: Event) -> bool:
    """Whether API Gateway says who sends a request: by IAM, a token, a function of one's own, or an API key."""
    context = event.get("requestContext") or {}
    identity = context.get("identity") or {}
    return bool(context.get("authorizer") or identity.get("apiKeyId") or identity.get("userArn"))
