"""A proxy on loopback before a real server: it counts requests, and fails them as networks, gateways and servers do."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

Answer = tuple[int, dict[str, str], bytes]
Step = Callable[[dict[str, Any], Callable[[], Answer]], Answer | None]  # request, what the server says -> what comes back


class Proxy:
    """`script` holds what happens to the next prompts; `always`, where there is one, what happens to all others.

    What the server behind answered to a request is remembered for equal ones: it is asked to be the same each time.
    """

    remembered: ClassVar[dict[tuple[str, str, bytes | None], Answer]] = {}

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.script: list[Step] = []
        self.always: Step | None = None
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked = json.loads(body)
                with outer.lock:
                    outer.requests.append({"path": self.path} | asked)
                    outer.headers.append(dict(self.headers))
                    outer.keys.append(self.headers.get("Authorization") or self.headers.get("X-Api-Key"))
                    step = outer.script.pop(0) if outer.script else outer.always
                forward = lambda: outer.forward(self.path, body)  # noqa: E731
                self.respond(step(asked, forward) if step else forward())

            def do_GET(self) -> None:
                self.respond(outer.forward(self.path, None))

            def respond(self, answer: Answer | None) -> None:
                if answer is None:  # the connection breaks off
                    self.connection.close()
                    return
                status, headers, content = answer
                try:
                    self.send_response(status)
                    for name, value in ({"Content-Length": str(len(content))} | headers).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:  # whoever asked has gone
                    pass

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                pass

        self.http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def forward(self, path: str, body: bytes | None) -> Answer:
        """What the server behind answers."""
        asked = (self.upstream, path, body)
        if asked not in self.remembered:
            self.remembered[asked] = self._forward(path, body)
        return self.remembered[asked]

    def _forward(self, path: str, body: bytes | None) -> Answer:
        request = urllib.request.Request(self.upstream + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, {"Content-Type": answer.headers["Content-Type"]}, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, {}, error.read()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def answers(status: int, answer: object = None, **headers: str) -> Step:
    """This, whatever is asked."""
    content = answer if isinstance(answer, bytes) else json.dumps(answer or {}).encode()
    return lambda asked, forward: (status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def well(asked: dict[str, Any], forward: Callable[[], Answer]) -> Answer:
    return forward()


def cut(asked: dict[str, Any], forward: Callable[[], Answer]) -> Answer:
    """Half of the body, although the whole is announced."""
    status, headers, content = forward()
    return status, headers | {"Content-Length": str(len(content)), "Connection": "close"}, content[: len(content) // 2]


def broken(asked: dict[str, Any], forward: Callable[[], Answer]) -> None:
    return None


def hangs(seconds: float) -> Step:
    def step(asked: dict[str, Any], forward: Callable[[], Answer]) -> Answer:
        time.sleep(seconds)
        return forward()

    return step


def later(seconds: float) -> str:
    """A time as ``Retry-After`` names it."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def changed(**values: object) -> Step:
    """The server's answer with other values, or without them where they are None."""

    def step(asked: dict[str, Any], forward: Callable[[], Answer]) -> Answer:
        status, headers, content = forward()
        found = json.loads(content) | values
        return status, headers, json.dumps({name: value for name, value in found.items() if value is not None}).encode()

    return step


def text(asked: dict[str, Any]) -> str:
    """All that a request says."""
    return " ".join(message["content"] for message in asked["messages"])
