"""uvicorn, stopping gently: questions under way are answered, further ones are told that the service stops.

A connection whose headers do not come is ended, which uvicorn itself does not do.
"""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from workbench.serving.middleware import Guard

PAGES_SECONDS = 2  # for open pages, which keep a connection as long as they are open
HEADER_SECONDS = 10.0  # for the headers of a request, from the connection or from their first byte on
TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A connection of a client, which is ended where the headers of a request take too long."""

    _ending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # the headers are there
            self._wait_no_more()
        elif self._ending is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._ending = self.loop.call_later(HEADER_SECONDS, self._end)

    def _wait_no_more(self) -> None:
        if self._ending:
            self._ending.cancel()
        self._ending = None

    def _end(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(TOO_SLOW)
            self.transport.close()


class Server(uvicorn.Server):
    """Serves an application made by `workbench.serving.app.build`."""

    def __init__(self, app: Guard, grace: float) -> None:
        """Prepares the server.

        Args:
            app: the application.
            grace: seconds that questions under way have when it stops.
        """
        wanted = uvicorn.Config(
            app,
            http=Connection,
            ws="none",  # nothing here speaks over web sockets
            log_config=None,
            log_level="warning",
            timeout_graceful_shutdown=PAGES_SECONDS,
        )
        super().__init__(wanted)
        self.asking = app.asking
        self.grace = grace

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops listening, ends the questions, then the connections."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        await self.asking.stop()
        await super().shutdown(sockets)
