"""A server's embeddings: a real little server on loopback, which answers, fails and misbehaves as real ones do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from workbench.component import build
from workbench.errors import InputError, StageFailedError
from workbench.machine import resolve
from workbench.models import patience
from workbench.retrieval.embedders.endpoint import EndpointEmbedder

MACHINE = resolve(device="cpu", precision="float32")
KEY = "sk-secret-0123456789"
DIMENSIONS = 8


def embedding(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A toy: how often each remainder comes among the text's characters."""
    return np.bincount([ord(letter) % dimensions for letter in text], minlength=dimensions).astype(float).tolist()


class Server:
    """An embedding server; `script` holds what it does with the next requests instead of answering well."""

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.requests.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
                    step = outer.script.pop(0) if outer.script else well
                status, headers, answer = step(body)
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()


def well(body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    dimensions = body.get("dimensions", DIMENSIONS)
    rows = [{"index": i, "embedding": embedding(text, dimensions)} for i, text in enumerate(body["input"])]
    return 200, {}, {"data": rows}


def disordered(body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    status, headers, answer = well(body)
    return status, headers, {"data": answer["data"][::-1]}


def answers(status: int, answer: Any = None, **headers: str) -> Any:
    return lambda body: (status, {name.replace("_", "-"): value for name, value in headers.items()}, answer or {})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        yield found


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Instead of waiting, notes for how long."""
    found: list[float] = []
    monkeypatch.setattr(patience.Patience, "pause", lambda self, seconds: found.append(seconds))
    return found


def encoded(server: Server, texts: list[str], **settings: Any) -> np.ndarray:
    loaded = EndpointEmbedder(endpoint=server.url, model="toy", **settings).load(MACHINE)
    found = {i: vector for batch in loaded.encode(texts) for i, vector in batch}
    return np.stack([found[i] for i in range(len(texts))])


def expected(texts: list[str], dimensions: int = DIMENSIONS) -> np.ndarray:
    vectors = np.array([embedding(text, dimensions) for text in texts])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


TEXTS = [f"text number {i} of some" for i in range(7)]


def test_vectors_have_unit_length_and_the_order_of_the_texts(server: Server) -> None:
    server.script = [disordered] * 3
    found = encoded(server, TEXTS, batch_size=3)
    assert found.dtype == np.float32 and found.tobytes() == expected(TEXTS).tobytes()
    assert sorted(len(request["input"]) for request in server.requests) == [1, 3, 3]
    assert {request["path"] for request in server.requests} == {"/v1/embeddings"}


def test_the_batch_size_changes_no_vector(server: Server) -> None:
    assert encoded(server, TEXTS, batch_size=1).tobytes() == encoded(server, TEXTS, batch_size=7, parallel=1).tobytes()


def test_dimensions_are_asked_of_the_server(server: Server) -> None:
    assert encoded(server, TEXTS, dimensions=5).tobytes() == expected(TEXTS, 5).tobytes()
    assert server.requests[0]["dimensions"] == 5


def test_no_dimensions_are_sent_where_none_are_given_and_no_key(server: Server) -> None:
    encoded(server, TEXTS)
    assert "dimensions" not in server.requests[0] and server.requests[0]["key"] is None


def test_an_empty_text_is_sent_as_a_space(server: Server) -> None:
    encoded(server, ["", "x"])
    assert server.requests[0]["input"] == [" ", "x"]


def test_failing_twice_is_tried_again(server: Server, waits: list[float]) -> None:
    server.script = [answers(503), answers(500, {"error": {"message": "cuda"}})]
    assert encoded(server, TEXTS).tobytes() == expected(TEXTS).tobytes()
    assert len(server.requests) == 3
    assert 0.5 <= waits[0] <= 0.63 and 1 <= waits[1] <= 1.25


def test_a_connection_that_breaks_off_is_tried_again(server: Server, waits: list[float]) -> None:
    server.script = [answers(200, b"{", Content_Length="1000")]
    encoded(server, TEXTS)
    assert len(server.requests) == 2 and len(waits) == 1


def test_the_server_says_how_long_to_wait(server: Server, waits: list[float]) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    server.script = [answers(429, Retry_After="7"), answers(429, Retry_After=later)]
    encoded(server, TEXTS)
    assert waits[0] == 7 and 25 < waits[1] <= 30


def test_nobody_waits_for_an_hour(server: Server, waits: list[float]) -> None:
    server.script = [answers(429, Retry_After="3600")]
    with pytest.raises(StageFailedError, match=r"1 attempts.*429.*asks to wait 3600 s"):
        encoded(server, TEXTS)
    assert waits == []


def test_giving_up_says_what_happened_last(server: Server, waits: list[float]) -> None:
    server.script = [answers(502, {"error": "the model is loading"})] * 6
    with pytest.raises(StageFailedError, match="6 attempts, the last: 502 the model is loading"):
        encoded(server, TEXTS)
    assert len(waits) == 5


def test_a_server_that_is_not_there_is_named(server: Server, waits: list[float]) -> None:
    server.http.server_close()
    with pytest.raises(StageFailedError, match=f"{server.url}/embeddings.*refused"):
        encoded(server, TEXTS)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (answers(401, {"error": {"message": "no key"}}), "401 no key; name the environment variable"),
        (answers(404, {"error": {"message": "model 'toy' not found"}}), "404 model 'toy' not found; check the address"),
        (answers(301, Location="http://127.0.0.1:9/v1"), "301.*write the address it redirects to"),
        (answers(400, {"error": "input is too long"}), "400 input is too long"),
        (answers(200, b"<html>hello</html>"), "answers no JSON: '<html>hello</html>'"),
        (answers(200, {"error": "busy"}), "does not answer as OpenAI's protocol says"),
        (answers(200, {"data": [{"index": 0, "embedding": [1.0]}]}), "1 vectors for 7 texts"),
        (answers(200, {"data": [{"index": 0, "embedding": [1.0]}] * 7}), r"positions \[0\]"),
        (answers(200, {"data": [{"index": i, "embedding": [[1.0]]} for i in range(7)]}), "no list of numbers"),
        (answers(200, {"data": [{"index": i, "embedding": [float("nan")]} for i in range(7)]}), "no list of numbers"),
        (answers(200, {"data": [{"index": i, "embedding": [0.0, 0.0]} for i in range(7)]}), "zeros"),
    ],
)
def test_what_waiting_cannot_mend_is_refused_at_once(server: Server, waits: list[float], step: Any, message: str) -> None:
    server.script = [step]
    with pytest.raises(InputError, match=message):
        encoded(server, TEXTS)
    assert len(server.requests) == 1 and waits == []


def test_other_dimensions_than_asked_for_are_refused(server: Server) -> None:
    server.script = [lambda body: well(body | {"dimensions": 3})]
    with pytest.raises(InputError, match="answers vectors of 3 dimensions; 5 were asked for"):
        encoded(server, TEXTS, dimensions=5)


def test_dimensions_that_change_are_refused(server: Server) -> None:
    server.script = [well, lambda body: well(body | {"dimensions": 3})]
    with pytest.raises(InputError, match="answers vectors of 3 dimensions; 8 were answered before"):
        encoded(server, TEXTS, batch_size=4, parallel=1)


def test_the_key_comes_from_the_environment_and_is_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", f"{KEY}\n")
    encoded(server, TEXTS, api_key_env="TOY_KEY")
    assert server.requests[0]["key"] == f"Bearer {KEY}"
    server.script = [answers(401, {"error": {"message": f"the key {KEY} is wrong"}})]
    with pytest.raises(InputError) as refused:
        encoded(server, TEXTS, api_key_env="TOY_KEY")
    assert "the key *** is wrong" in str(refused.value) and "TOY_KEY" in str(refused.value)
    settings = EndpointEmbedder(endpoint=server.url, model="toy", api_key_env="TOY_KEY")
    assert KEY not in f"{settings!r} {settings.definition()} {settings.load(MACHINE).__dict__}"


def test_a_key_that_is_not_set_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOY_KEY", raising=False)
    with pytest.raises(InputError, match="environment variable 'TOY_KEY' is not set"):
        encoded(server, TEXTS, api_key_env="TOY_KEY")
    assert server.requests == []


@pytest.mark.parametrize("url", ["localhost:11434/v1", "ftp://host/v1", "https://user:word@host/v1", "https://host/v1?key=abc"])
def test_an_address_that_holds_a_key_or_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="allowed: an address"):
        build(EndpointEmbedder, {"endpoint": url, "model": "toy"}, "here")


def test_vectors_are_stored_by_name_dimensions_and_revision_but_not_by_address() -> None:
    one = EndpointEmbedder(endpoint="http://a/v1", model="toy")
    moved = EndpointEmbedder(endpoint="http://b/v1", model="toy", batch_size=1, timeout=1, api_key_env="K")
    assert moved.definition() == one.definition()
    others = [{"model": "other"}, {"dimensions": 3}, {"revision": 2}, {"query_prefix": "q: "}]
    assert all(one.model_copy(update=other).definition() != one.definition() for other in others)
    assert one.arithmetic(MACHINE) == one.arithmetic(resolve(device="cpu", precision="bfloat16"))


def test_a_server_has_no_token_vectors_and_does_not_say_what_it_reads(server: Server) -> None:
    loaded = EndpointEmbedder(endpoint=server.url, model="toy").load(MACHINE)
    with pytest.raises(InputError, match="none for its tokens"):
        loaded.encode_tokens(TEXTS)
    with loaded.reading(TEXTS) as truncation:
        assert truncation is None


def test_retry_after_that_says_nothing_is_as_none() -> None:
    assert [patience.asked_to_wait(header) for header in (None, "", "soon", "-3")] == [None] * 4
