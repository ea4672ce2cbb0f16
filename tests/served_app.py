"""A service on a free port of this machine, in a thread, and what clients do with it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from workbench.serving import app
from workbench.serving.server import Server
from workbench.serving.settings import Caching, Room, ServiceSettings


def settings(
    cache: Caching | None = None, fallback: Sequence[Any] = ("passage",), more: dict[str, Any] | None = None, **room: Any
) -> ServiceSettings:
    """Settings of a service whose answers are kept in memory alone, unless `cache` says otherwise."""
    return ServiceSettings(serve=Room(**room), cache=cache or Caching(disk_mb=0.0), fallback=tuple(fallback), **more or {})


class Response(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as plain values."""
        return json.loads(self.body)


class Running:
    """A running service."""

    def __init__(self, port: int, guard: Any) -> None:
        self.port, self.guard, self.asking = port, guard, guard and guard.asking
        self.url = f"http://127.0.0.1:{port}"

    def call(self, method: str, path: str, body: Any = None, timeout: float = 30, **headers: str) -> Response:
        """One request; a body of plain values is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            sent = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, sent, {"Content-Type": "application/json"} | named)
            found = connection.getresponse()
            kept: dict[str, str] = {}
            for name, value in found.getheaders():
                kept[name.lower()] = f"{kept[name.lower()]}, {value}" if name.lower() in kept else value
            return Response(found.status, kept, found.read())
        finally:
            connection.close()

    def ask(self, question: str, timeout: float = 30, **headers: str) -> Response:
        """One question to /v1/answers."""
        return self.call("POST", "/v1/answers", {"question": question}, timeout, **headers)

    def raw(self, sent: bytes, timeout: float = 15) -> bytes:
        """What comes back for bytes on a connection, until it is closed or nothing comes any more."""
        found = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(sent)
            try:
                while part := connection.recv(65_536):
                    found += part
            except (TimeoutError, ConnectionError):
                pass
        return found


@contextmanager
def running(
    pipeline: Any,
    wanted: ServiceSettings | None = None,
    reopen: Any = None,
    records: Any = None,
    others: Any = None,
    redis: Any = None,
    workers: Any = None,
) -> Iterator[Running]:
    """A service of a pipeline; it is stopped gently at the end."""
    with app.bound("127.0.0.1", 0) as listener:
        guard = app.build(
            pipeline, wanted or settings(), reopen=reopen, records=records, others=others, redis=redis, workers=workers
        )
        server = Server(guard, guard.asking.settings.serve.grace)
        listener.listen()
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Running(port, guard)
        finally:
            server.should_exit = True
            thread.join(timeout=30)
    assert not thread.is_alive()
