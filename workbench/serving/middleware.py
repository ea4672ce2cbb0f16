"""What every request passes: an id, a known host, a body within its size and time, and headers of the response.

Written for ASGI itself: Starlette's BaseHTTPMiddleware hides that a client has left, and costs more than a cached answer.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from workbench.serving import logs
from workbench.serving.problems import (
    MEDIA_TYPE,
    UNEXPECTED,
    ForeignPageError,
    HostError,
    ProblemError,
    SlowBodyError,
    TooLargeError,
    UnauthorizedError,
    UnexpectedError,
)
from workbench.serving.streaming import LEFT

if TYPE_CHECKING:
    from workbench.serving.recording import Recording

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 65_536  # of a request's body
BODY_SECONDS = 10.0  # for all of it
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
SAFE = ("GET", "HEAD", "OPTIONS")  # methods that change nothing
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # others are counted together: clients may invent them
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"SAMEORIGIN"),
]
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

log = logging.getLogger(__name__)


class Guard:
    """All of it around an application.

    What it refuses is answered as problem details (`workbench.serving.problems`), except under ``/v1/chat/``, whose clients read
    another form, given by `refused`.
    """

    def __init__(
        self, app: App, asking: Recording, hosts: tuple[str, ...], refused: Callable[[str, ProblemError, str], bytes]
    ) -> None:
        """Guards an application.

        Args:
            app: the application.
            asking: what answers in it.
            hosts: names by which it may be called; ``*``: any.
            refused: from path, problem and request id to the body of the response.
        """
        self.app, self.asking, self.refused = app, asking, refused
        self.hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        logs.REQUEST.set(request_id)  # of this task alone
        tracing = self.asking.tracing
        with tracing.request(headers, request_id) if tracing else nullcontext():
            await self._answered(scope, receive, send, request_id)

    async def _answered(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """Answers a request or refuses it, and counts it."""
        started, begun, status = time.monotonic(), False, 0

        async def sent(message: Message) -> None:
            nonlocal begun, status
            if message["type"] == "http.response.start":
                begun, status = True, message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode()), *HEADERS]
            await send(message)

        try:
            headers = dict(scope["headers"])
            self._check(headers)
            _check_origin(scope["method"], headers)
            await self.app(scope, _Body(receive), sent)
        except ProblemError as problem:
            if begun:
                raise
            await _respond(sent, problem, self.refused(scope["path"], problem, request_id))
        except Exception:
            log.exception("request %s to %s failed", request_id, _route(scope))
            if begun:
                raise
            failed = UnexpectedError(UNEXPECTED)
            await _respond(sent, failed, self.refused(scope["path"], failed, request_id))
        finally:
            self._ended(scope, status or LEFT, time.monotonic() - started)

    def _ended(self, scope: Scope, status: int, seconds: float) -> None:
        """Counts a request, names its trace, and writes its line into the log."""
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = _route(scope)
        self.asking.metrics.request(method, route, status, seconds)
        if self.asking.tracing:
            self.asking.tracing.ended(method, route, status)
        fields = {"method": method, "route": route, "status": status, "seconds": round(seconds, 4)}
        log.info("%s %s %d %.3f s", method, route, status, seconds, extra={logs.FIELDS: fields})

    def _check(self, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if "*" not in self.hosts and name not in self.hosts:
            raise HostError(
                "the request is for a host that is not served here; name it under serve.hosts of the service's settings"
            )
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > MOST_BYTES:
            raise TooLargeError(f"the body has {int(length):,} bytes; allowed: {MOST_BYTES:,}")


def _check_origin(method: str, headers: dict[bytes, bytes]) -> None:
    """Refuses what a page of another address has a browser send, which adds the visitor's log-in; programs say no origin."""
    if method in SAFE:
        return
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:
        own = site in (b"same-origin", b"none")
    else:
        found = urlsplit(origin.decode("latin-1")) if origin is not None else None
        own = found is None or headers.get(b"host", b"").decode("latin-1").lower() in (found.netloc, found.hostname)
    if not own:
        raise ForeignPageError("a page of another address may not send this from a browser; send it from a program, with a key")


def _route(scope: Scope) -> str:
    """The path of the route with the names of its parameters; ``page`` for those of the page, ``unknown`` where there is none."""
    path: str | None = getattr(scope.get("route"), "path", None)
    if path is None:
        return "page" if scope.get("root_path") or scope["path"] == "/" else "unknown"
    return "unknown" if path.endswith("{rest:path}") else path


class _Body:
    """Receives a body that is neither too large nor too slow."""

    def __init__(self, receive: Receive) -> None:
        self.receive, self.bytes, self.whole = receive, 0, False
        self.deadline = time.monotonic() + BODY_SECONDS

    async def __call__(self) -> Message:
        if self.whole:
            return await self.receive()  # waits until the client leaves
        try:
            message = await asyncio.wait_for(self.receive(), max(self.deadline - time.monotonic(), 0.001))
        except TimeoutError as error:
            raise SlowBodyError(f"the body did not arrive within {BODY_SECONDS:g} s") from error
        self.bytes += len(message.get("body", b""))
        if self.bytes > MOST_BYTES:
            raise TooLargeError(f"the body has more than {MOST_BYTES:,} bytes; allowed: {MOST_BYTES:,}")
        self.whole = not message.get("more_body", False)
        return message


async def _respond(send: Send, problem: ProblemError, body: bytes) -> None:
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    if problem.retry_after is not None:
        headers.append((b"retry-after", str(problem.retry_after).encode()))
    if problem.status == UnauthorizedError.status:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
