"""uvicorn, stopping gently: questions under way are answered, further ones are told that the service stops."""

from __future__ import annotations

import socket

import uvicorn

from workbench.serving.middleware import Guard

PAGES_SECONDS = 2  # for open pages, which keep a connection as long as they are open


class Server(uvicorn.Server):
    """Serves an application made by `workbench.serving.app.build`."""

    def __init__(self, app: Guard, grace: float) -> None:
        """Prepares the server.

        Args:
            app: the application.
            grace: seconds that questions under way have when it stops.
        """
        super().__init__(uvicorn.Config(app, log_config=None, log_level="warning", timeout_graceful_shutdown=PAGES_SECONDS))
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
