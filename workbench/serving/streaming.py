"""Event streams, and noticing that a client has left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from workbench.serving.problems import UNEXPECTED, NotAcceptableError, ProblemError, UnexpectedError

T = TypeVar("T")
LEFT = 499  # status that nobody receives: the client has left


class ClientLeftError(Exception):
    """The client has left before its answer was there."""


async def unless_left(receive: Receive, work: Awaitable[T]) -> T:
    """What `work` gives; it is cancelled when the client leaves.

    Args:
        receive: of the request, whose body has been read.
        work: to be waited for.

    Raises:
        ClientLeftError: the client has left.
    """
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeftError
    finally:
        for one in (task, left):
            one.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A response whose parts are sent as they come. What goes wrong before the first part is an ordinary problem, see `begin`."""

    media_type = "text/event-stream"

    def __init__(self, request: Request, parts: AsyncIterator[bytes], failed: Any) -> None:
        """Prepares the stream.

        Args:
            request: what is answered.
            parts: what is sent.
            failed: from a problem to the last part, where something goes wrong after the first.
        """
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self.request, self.parts, self.failed = request, parts, failed
        self._first: bytes | None = None
        del self.headers["content-length"]

    async def begin(self) -> None:
        """Waits for the first part, so that a refusal is still a response of its own.

        Raises:
            NotAcceptableError: nothing can be streamed where this runs.
            ProblemError: there is none.
            ClientLeftError: the client has left.
        """
        if getattr(self.request.state, "no_streams", False):
            raise NotAcceptableError("answers are not streamed here; ask for application/json, without `stream`")
        self._first = await unless_left(self.request.receive, self._next())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the parts until the last, or until the client has left; it has begun before."""
        try:
            part = self._first
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while part is not None:
                await send({"type": "http.response.body", "body": part, "more_body": True})
                try:
                    part = await unless_left(receive, self._next())
                except ProblemError as problem:
                    part = None
                    await send({"type": "http.response.body", "body": self.failed(problem), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (ClientLeftError, OSError):
            pass
        finally:
            close = getattr(self.parts, "aclose", None)
            if close:
                await close()

    async def _next(self) -> bytes | None:
        try:
            return await anext(self.parts, None)
        except ProblemError:
            raise
        except Exception as error:
            raise UnexpectedError(UNEXPECTED) from error


def event(name: str, data: Any) -> bytes:
    """One event with its name; bytes are sent as they are."""
    body = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
    return b"event: %s\ndata: %s\n\n" % (name.encode(), body)
