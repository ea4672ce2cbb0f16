"""The service: the same bytes however an answer is come by, and plain words when there is none."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Finished, workbench
from served_app import Running, running, settings

from workbench.errors import InputError
from workbench.pipeline import Asked, Pipeline
from workbench.results.run import Run
from workbench.serving.asking import Asking, Service, answer_part
from workbench.serving.breaker import Breaker
from workbench.serving.cache import DiskCache, Hit, MemoryCache
from workbench.serving.settings import Caching, read_service

QUESTIONS = [
    f"What does the {word} statement do?"
    for word in ["with", "for", "if", "try", "while", "del", "raise", "import", "return", "pass"]
]


@pytest.fixture(scope="module")
def pipeline(toy: Finished) -> Pipeline:
    opened = Pipeline.open(toy.run)
    opened.session.keep_in_memory(1_000_000)
    return opened


@pytest.fixture(scope="module")
def service(pipeline: Pipeline) -> Iterator[Running]:
    with running(pipeline) as found:
        yield found


class Watched:
    """The real `growing` of a pipeline: it can be held, made to fail, and says what it was asked."""

    def __init__(self, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[str]] = []
        self.unwanted: list[str] = []
        self.free = threading.Event()
        self.free.set()
        self.begun = threading.Event()
        self.failing = False
        self._growing = pipeline.growing
        monkeypatch.setattr(pipeline, "growing", self.growing)

    def growing(self, asked: list[Asked], wanted: Callable[[int], bool]) -> Iterator[tuple[int, Any]]:
        self.batches.append([one.question for one in asked])
        self.begun.set()
        if self.failing:
            raise RuntimeError("secret detail")
        assert self.free.wait(60)
        self.unwanted += [one.question for i, one in enumerate(asked) if not wanted(i)]
        yield from self._growing(asked, wanted)


@pytest.fixture
def watched(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    found = Watched(pipeline, monkeypatch)
    yield found
    found.free.set()


def part(body: bytes) -> dict[str, Any]:
    """The answer part of a response."""
    return {name: value for name, value in json.loads(body).items() if name not in ("id", "served")}


def waits_until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


# --- The same bytes -------------------------------------------------------------------------------------------------


def test_an_answer_is_the_same_bytes_however_it_is_come_by(pipeline: Pipeline, tmp_path: Path) -> None:
    expected = [answer_part(pipeline.ask(question)) for question in QUESTIONS[:8]]
    together = pipeline.answers([Asked(question) for question in QUESTIONS[:8]])
    assert [answer_part(reply) for reply in together] == expected, "in a batch of eight"

    def bytes_of(body: bytes) -> bytes:
        inner = body[body.index(b',"question"') + 1 :]
        return b"{" + inner[: inner.rindex(b',"served":')] + b"}"

    kept = settings(Caching(disk_mb=1.0, folder=tmp_path))
    for way in ("a miss", "a hit in memory"):
        if way == "a miss":
            opened = running(pipeline, kept)
            there = opened.__enter__()
        found = [there.ask(question) for question in QUESTIONS[:4]]
        assert [bytes_of(one.body) for one in found] == expected[:4], way
        assert {one.json["served"]["by"] for one in found} == {"model" if way == "a miss" else "cache"}
    stream = there.call("POST", "/v1/answers", {"question": QUESTIONS[4]}, accept="text/event-stream")
    events = [event.split("\ndata: ", 1) for event in stream.body.decode().strip().split("\n\n")]
    assert events[0][0] == "event: sources" and events[-1][0] == "event: answer"
    assert bytes_of(events[-1][1].encode()) == expected[4], "the last event of a stream"
    texts = [json.loads(data)["answer"] for name, data in events if name == "event: text"]
    assert texts and all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    opened.__exit__(None, None, None)
    with running(pipeline, kept) as again:
        found = [again.ask(question) for question in QUESTIONS[:5]]
        assert [bytes_of(one.body) for one in found] == expected[:5], "a hit on disk, in another process"
        assert {one.json["served"]["by"] for one in found} == {"cache"}


def test_equal_questions_are_computed_once_and_different_ones_together(service: Running, watched: Watched) -> None:
    watched.free.clear()
    with ThreadPoolExecutor(16) as pool:
        first = pool.submit(service.ask, "Who waits first?")
        assert watched.begun.wait(20)
        equal = [pool.submit(service.ask, "What do eight ask?") for _ in range(8)]
        others = [pool.submit(service.ask, f"What does number {n} ask?") for n in range(4)]
        waits_until(lambda: service.asking.service.batcher.waiting == 5)
        waits_until(lambda: sum(begun.flight.waiting for begun in service.asking._flights.values()) == 13)
        watched.free.set()
        answers = [one.result() for one in [first, *equal, *others]]
    assert {one.status for one in answers} == {200}
    assert [len(batch) for batch in watched.batches] == [1, 5]
    assert sorted(itertools.chain(*watched.batches)) == sorted({part(one.body)["question"] for one in answers})
    assert len({one.body[one.body.index(b',"question"') :] for one in answers[1:9]}) == 1


# --- Room, time, and clients that leave -----------------------------------------------------------------------------


def test_what_is_too_much_or_too_late_is_said_with_a_time_to_come_back(pipeline: Pipeline, watched: Watched) -> None:
    watched.free.clear()
    with (
        running(pipeline, settings(queue=2, at_once=4, deadline=4.0, fallback=(), grace=1.0)) as service,
        ThreadPoolExecutor(8) as pool,
    ):
        held = [pool.submit(service.ask, "What is held?")]
        assert watched.begun.wait(20)
        held += [pool.submit(service.ask, f"What waits as number {n}?") for n in range(2)]
        waits_until(lambda: service.asking.service.batcher.waiting == 2)
        full = service.ask("What is one too many?")
        assert (full.status, full.json["type"]) == (503, "urn:workbench:problem:overloaded")
        assert int(full.headers["retry-after"]) >= 1
        held.append(pool.submit(service.ask, "What is held?"))  # joins the first
        waits_until(lambda: sum(service.asking._clients.values()) == 4)
        much = service.ask("What is held?")
        assert (much.status, much.json["type"]) == (429, "urn:workbench:problem:rate-limited") and much.headers["retry-after"]
        assert {one.result().status for one in held} == {504}
        assert service.call("GET", "/healthz").status == 200
        watched.free.set()
        waits_until(lambda: service.ask("Is it well again?").status == 200)


def test_a_client_that_leaves_is_computed_for_no_longer(service: Running, watched: Watched) -> None:
    watched.free.clear()
    body = json.dumps({"question": "Who leaves before the answer?"}).encode()
    for accept in (b"application/json", b"text/event-stream"):
        watched.begun.clear()
        connection = socket.create_connection(("127.0.0.1", service.port))
        connection.sendall(
            b"POST /v1/answers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: %s\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (accept, len(body), body)
        )
        assert watched.begun.wait(20)
        assert service.asking.under_way == 1
        connection.close()
        waits_until(lambda: service.asking.under_way == 0)
        watched.free.set()
        waits_until(lambda: len(watched.unwanted) >= 1)
        watched.free.clear()
        watched.unwanted.clear()
    watched.free.set()
    assert service.ask("Who stays?").status == 200


def test_a_row_that_nobody_waits_for_ends_and_changes_no_other(pipeline: Pipeline) -> None:
    asked = [Asked(question) for question in QUESTIONS[:5]]
    expected = pipeline.answers(asked)
    steps = iter(range(1000))
    found = dict(pipeline.growing(asked, lambda i: i != 2 or next(steps) < 3))
    assert {i: reply.reply for i, reply in found.items() if i != 2} == {i: expected[i].reply for i in (0, 1, 3, 4)}
    assert found.get(2) is None or found[2].status == "writing"


def test_a_service_that_stops_answers_what_is_under_way_and_refuses_the_rest(pipeline: Pipeline, watched: Watched) -> None:
    watched.free.clear()
    with ThreadPoolExecutor(3) as pool:
        with running(pipeline, settings(grace=20.0)) as service:
            held = pool.submit(service.ask, "What is under way?")
            assert watched.begun.wait(20)
            stopping = asyncio.run_coroutine_threadsafe(
                service.asking.stop(), next(iter(service.asking._flights.values())).flight.loop
            )
            waits_until(lambda: service.asking.stopping)
            assert service.call("GET", "/readyz").status == 503
            late = service.ask("What comes too late?")
            assert (late.status, late.json["type"]) == (503, "urn:workbench:problem:unavailable")
            watched.free.set()
            stopping.result(20)
        assert held.result().status == 200


# --- When the model does not answer ---------------------------------------------------------------------------------


def test_a_fallback_answers_marked_and_unkept_while_hits_are_served(pipeline: Pipeline, watched: Watched) -> None:
    with running(pipeline, settings()) as service:
        known = service.ask(QUESTIONS[0])
        watched.failing = True
        asked = [f"What does break number {n} end in the with statement?" for n in range(5)]
        found = [service.ask(question) for question in asked]
        assert {one.status for one in found} == {200} and {one.json["served"]["by"] for one in found} == {"fallback"}
        first = found[0].json
        assert first["status"] == "fallback" and first["answer"] == first["sources"][0]["text"]
        assert first["served"]["fallback"]["name"] == "passage" and "the model failed" in first["served"]["fallback"]["why"]
        assert b"secret" not in b"".join(one.body for one in found)
        assert watched.batches == [[QUESTIONS[0]], *([question] for question in asked[:3])], "the breaker is open after three"
        assert service.call("GET", "/readyz").json["model"] == "open"
        assert service.ask(QUESTIONS[0]).json["served"]["by"] == "cache" and part(service.ask(QUESTIONS[0]).body) == part(
            known.body
        )
        watched.failing = False
        service.asking.service.breaker.rest_seconds = 0.0
        again = service.ask(asked[0]).json
        assert again["served"]["by"] == "model" and again["status"] == "ok"


def test_a_model_that_hangs_is_said_so_that_the_service_can_be_started_anew(pipeline: Pipeline, watched: Watched) -> None:
    watched.free.clear()
    with running(pipeline, settings(deadline=0.2, fallback=(), grace=0.1)) as service:
        assert service.ask("What is held?").status == 504
        waits_until(lambda: service.call("GET", "/healthz").status == 503)
        said = service.call("GET", "/healthz").json
        assert said["status"] == "hangs" and "more than 0.8 s; start the service anew" in said["detail"]
        watched.free.set()
        waits_until(lambda: service.call("GET", "/healthz").json["status"] == "ok")


def test_one_question_that_fails_costs_the_others_nothing(
    service: Running, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing, free = pipeline.growing, threading.Event()

    def picky(asked: list[Asked], wanted: Callable[[int], bool]) -> Iterator[tuple[int, Any]]:
        assert free.wait(20)
        if any("poison" in one.question for one in asked):
            raise RuntimeError("poison")
        yield from growing(asked, wanted)

    monkeypatch.setattr(pipeline, "growing", picky)
    questions = [
        "What holds the others up?",
        "What does the poison in the with statement do?",
        "What is next to it?",
        "What is beside it?",
    ]
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(service.ask, question) for question in questions]
        waits_until(lambda: service.asking.under_way == 4)
        free.set()
        by = [one.result().json["served"]["by"] for one in waiting]
    assert by == ["model", "fallback", "model", "model"]


def test_a_question_is_not_dropped_by_a_thread_that_is_quicker_than_its_client(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = service.asking.service.batcher
    submit = batcher.submit
    monkeypatch.setattr(batcher, "submit", lambda flight: (submit(flight), time.sleep(0.5)))
    assert service.ask("Who is quicker?", timeout=10).json["served"]["by"] == "model"


def test_a_model_that_times_out_by_itself_stops_nobody_else(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(asked: list[Asked], wanted: Callable[[int], bool]) -> Iterator[tuple[int, Any]]:
        raise TimeoutError("of its own")

    monkeypatch.setattr(pipeline, "growing", late)
    with running(pipeline, settings(deadline=20.0)) as service:
        found = service.ask("What does break end in the with statement?").json
        assert found["served"]["by"] == "fallback"  # instead of an error at the deadline


@pytest.mark.parametrize(("host", "name", "status"), [("0.0.0.0", "service.example", 200), ("127.0.0.1", "service.example", 400)])
def test_who_listens_on_every_address_is_called_by_any_name(pipeline: Pipeline, host: str, name: str, status: int) -> None:
    from starlette.testclient import TestClient

    from workbench.serving import app

    client = TestClient(app.build(pipeline, settings(), host), base_url=f"http://{name}")
    assert client.get("/healthz").status_code == status


def test_another_run_or_nobody_answers_instead(pipeline: Pipeline, watched: Watched, toy: Finished) -> None:
    watched.failing = True
    with running(pipeline, settings(fallback=[{"run": toy.run}])) as service:
        found = service.ask(QUESTIONS[1]).json
        assert found["served"]["fallback"]["name"] == f"run {toy.run.name}" and found["status"] == "ok"
    with running(pipeline, settings(fallback=())) as service:
        none = service.ask(QUESTIONS[1])
        assert (none.status, none.json["type"]) == (503, "urn:workbench:problem:no-answer")


@pytest.mark.parametrize("fault", ["locked", "full", "damaged", "another answer's bytes"])
def test_a_cache_that_cannot_be_used_makes_no_answer_wrong(pipeline: Pipeline, tmp_path: Path, fault: str) -> None:
    wanted = settings(Caching(disk_mb=1.0, memory_mb=0.0, folder=tmp_path))
    expected = answer_part(pipeline.ask(QUESTIONS[0]))
    path = tmp_path / "answers.sqlite"
    with running(pipeline, wanted) as service:
        assert service.ask(QUESTIONS[0]).json["served"]["by"] == "model"
        assert service.ask(QUESTIONS[0]).json["served"]["by"] == "cache"
        other = sqlite3.connect(path, isolation_level=None)
        if fault == "locked":
            other.execute("BEGIN EXCLUSIVE")
        elif fault == "full":
            pages = service.asking.disk._table()
            (size,) = pages.execute("PRAGMA page_count").fetchone()
            pages.execute(f"PRAGMA max_page_count = {size}")
        elif fault == "damaged":
            other.execute("UPDATE answers SET body = zeroblob(20)")
        else:
            other.execute("UPDATE answers SET key = (SELECT key FROM answers) || 'x'")
            other.execute("INSERT INTO answers SELECT substr(key, 1, 64), CAST('{}' AS BLOB), crc, created, used FROM answers")
        for question in (QUESTIONS[0], *QUESTIONS[1:4]):
            found = service.ask(question)
            assert found.status == 200 and part(found.body) == json.loads(answer_part(pipeline.ask(question)))
        other.close()
    assert json.loads(expected)["question"] == QUESTIONS[0]


# --- A promotion while serving ----------------------------------------------------------------------------------------


def test_another_promotion_is_served_as_soon_as_it_is_made(
    toy: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.serving import promotion

    monkeypatch.setattr(promotion, "LOOK_SECONDS", 0.05)
    copy = shutil.copytree(toy.run, tmp_path / "smoke" / toy.run.name)
    (tmp_path / ".store").symlink_to(toy.runs / ".store")
    run = Run.open(copy)
    first = Pipeline.open(run)
    other = next(
        c.configuration for c in run.leaderboard if c.configuration != first.configuration.id and c.split == run.report_split
    )
    with running(first, reopen=lambda chosen: Pipeline.open(copy, chosen)) as service:
        before = service.ask(QUESTIONS[0]).json
        run.promote(other)
        waits_until(lambda: service.call("GET", "/v1/about").json["provenance"]["configuration"] == other, 60)
        after = service.ask(QUESTIONS[0]).json
    assert before["provenance"]["identity"] != after["provenance"]["identity"] and after["served"]["by"] == "model"
    assert after["provenance"]["configuration"] == other


def test_another_promotion_ends_no_stream_and_nobody_goes_back_to_the_one_before(
    toy: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.serving import promotion

    monkeypatch.setattr(promotion, "LOOK_SECONDS", 0.05)
    copy = shutil.copytree(toy.run, tmp_path / "smoke" / toy.run.name)
    (tmp_path / ".store").symlink_to(toy.runs / ".store")
    run = Run.open(copy)
    first = Pipeline.open(run)
    other = next(
        c.configuration for c in run.leaderboard if c.configuration != first.configuration.id and c.split == run.report_split
    )
    ended = threading.Event()

    def visit(service: Running, name: int) -> list[str]:
        """Configurations that answered one visitor's streams, in their order."""
        found: list[str] = []
        while not ended.is_set() or len(found) < 2:
            stream = service.ask(f"What does visitor {name} ask as number {len(found)}?", accept="text/event-stream")
            *_, last = stream.body.decode().strip().split("\n\n")
            assert stream.status == 200 and last.startswith("event: answer\n"), last
            found.append(json.loads(last.partition("data: ")[2])["provenance"]["configuration"])
        return found

    with running(first, reopen=lambda chosen: Pipeline.open(copy, chosen)) as service, ThreadPoolExecutor(4) as pool:
        visits = [pool.submit(visit, service, name) for name in range(4)]
        try:
            waits_until(lambda: service.asking.service.batcher.seconds != 1.0)  # a batch was answered
            run.promote(other)
            waits_until(lambda: service.call("GET", "/v1/about").json["provenance"]["configuration"] == other, 60)
            time.sleep(0.5)
        finally:
            ended.set()
        for one in visits:
            found = one.result()
            assert set(found) <= {first.configuration.id, other} and found[-1] == other
            assert found == sorted(found, key=lambda configuration: configuration == other)


# --- Clients ----------------------------------------------------------------------------------------------------------


def test_openais_client_is_answered_in_its_own_forms(service: Running, pipeline: Pipeline) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)
    (model,) = [one.id for one in client.models.list().data]
    asked: list[Any] = [{"role": "user", "content": QUESTIONS[2]}]
    whole = client.chat.completions.create(model=model, messages=asked)
    expected = pipeline.ask(QUESTIONS[2])
    assert whole.choices[0].message.content == expected.answer and whole.usage.completion_tokens == expected.tokens["answer"]
    assert whole.model_extra["workbench"]["provenance"]["run"] == pipeline.run.folder.name
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTIONS[3]}], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == pipeline.ask(QUESTIONS[3]).answer
    assert chunks[-1].usage.prompt_tokens > 0 and chunks[-2].choices[0].finish_reason == "stop"
    with pytest.raises(openai.NotFoundError, match=rf"no model 'gpt-4o'; there is '{model}'"):
        client.chat.completions.create(model="gpt-4o", messages=asked)
    for wrong, said in (
        ({"temperature": 0.7}, "temperature is not taken"),
        ({"messages": [{"role": "system", "content": "Be brief."}, *asked]}, r"messages\.0 is a system message"),
        ({"messages": [*asked, {"role": "assistant", "content": "a"}, *asked]}, "does not rewrite questions"),
        ({"max_tokens": 1}, "a measured answer may have"),
    ):
        with pytest.raises(openai.UnprocessableEntityError, match=said):
            client.chat.completions.create(**{"model": model, "messages": asked} | wrong)


def test_gradios_client_and_curl_are_answered(service: Running, pipeline: Pipeline) -> None:
    from gradio_client import Client

    expected = json.loads(answer_part(pipeline.ask(QUESTIONS[0])))
    found = Client(service.url, verbose=False).predict(QUESTIONS[0], api_name="/ask")
    assert {name: found[name] for name in expected} == expected
    command = ["curl", "-s", f"{service.url}/api/ask", "--json", json.dumps({"question": QUESTIONS[0]})]
    if shutil.which("curl"):
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert {name: found[name] for name in expected} == expected and "total" in found["seconds"]


def test_answers_can_be_fetched_later_and_passages_searched(service: Running) -> None:
    accepted = service.call("POST", "/v1/answers", {"question": QUESTIONS[6]}, prefer="respond-async")
    assert accepted.status == 202
    place = accepted.headers["location"]
    waits_until(lambda: service.call("GET", place).status == 200)
    assert part(service.call("GET", place).body) == part(service.ask(QUESTIONS[6]).body)
    missing = service.call("GET", "/v1/answers/none")
    assert missing.status == 404 and "there is no answer 'none'" in missing.json["detail"]
    found = service.call("POST", "/v1/search", {"question": QUESTIONS[0], "k": 3}).json
    assert [one["rank"] for one in found["sources"]] == list(range(1, len(found["sources"]) + 1)) and found["provenance"][
        "identity"
    ]
    about = service.call("GET", "/v1/about").json
    assert about["measured"]["n"] > 0 and about["verdict"].startswith("Against") and about["fallbacks"] == ["passage"]


@pytest.mark.parametrize(("path", "allowed"), [("/v1/answers/x/vote", "PUT"), ("/v1/answers", "POST"), ("/v1/answers/x", "GET")])
def test_another_method_is_refused_with_those_that_there_are(service: Running, path: str, allowed: str) -> None:
    refused = service.call("PATCH", path)
    assert refused.status == 405 and refused.json["allowed"] == [allowed]


def test_the_documentation_of_the_api_asks_nobody_else(service: Running) -> None:
    page = service.call("GET", "/docs").body.decode()
    assert "swagger-ui" in page and "://" not in page.replace(service.url, "").replace("http://www.w3.org", "")
    described = service.call("GET", "/openapi.json").json["paths"]
    assert {"/v1/answers", "/v1/search", "/v1/chat/completions", "/v1/models", "/v1/about", "/healthz", "/readyz"} <= set(
        described
    )


def test_generated_requests_never_make_the_server_fail(service: Running) -> None:
    import schemathesis
    from hypothesis import HealthCheck, Phase, given
    from hypothesis import settings as how
    from schemathesis import checks

    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    seen: set[str] = set()

    @given(case=schema.as_strategy())
    @how(max_examples=60, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        seen.add(case.path)
        response = case.call(timeout=30)
        case.validate_response(response, checks=[checks.not_a_server_error])

    ask()
    assert len(seen) >= 5


# --- Pieces -----------------------------------------------------------------------------------------------------------


def test_a_breaker_opens_after_failures_in_a_row_and_lets_one_attempt_through() -> None:
    now = [0.0]
    breaker = Breaker(failures=2, rest_seconds=10, clock=lambda: now[0])
    assert breaker.allows()
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.allows() and breaker.state == "closed"
    breaker.failed()
    assert not breaker.allows() and breaker.state == "open"
    now[0] = 10
    assert breaker.state == "half open" and breaker.allows() and not breaker.allows()
    breaker.failed()
    assert not breaker.allows() and breaker.state == "open"
    now[0] = 20
    assert breaker.allows()
    breaker.undecided()
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.state == "closed" and breaker.allows()


def test_caches_keep_what_was_used_last_within_their_bytes(tmp_path: Path) -> None:
    now = [1000.0]
    disk = DiskCache(tmp_path / "t.sqlite", 6, 1.0, clock=lambda: now[0])
    for cache in (MemoryCache(6), disk):
        for key, body in (("a", b"aaa"), ("b", b"bbb")):
            now[0] += 1
            cache.put(key, Hit(body, now[0]))
        now[0] += 1
        assert cache.get("a").body == b"aaa"
        now[0] += 1
        cache.put("c", Hit(b"ccc", now[0]))
        assert cache.get("b") is None and cache.get("a").body == b"aaa" and cache.get("c").body == b"ccc"
        cache.forget("a")
        assert cache.get("a") is None
    now[0] += 2 * 86_400
    assert disk.get("c") is None
    disk.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("serve: {queue: 0}", r"serve\.queue: received 0"),
        ("serve: {que: 1}", r"serve\.que is no setting of a service"),
        ("[1]", "received list; allowed: the keys serve, cache, keep, who, prices, logs, fallback"),
        ("fallback: [nothing]", r"fallback\.0: received 'nothing'; input should be 'passage' or keys with values"),
        ("fallback: passage", "fallback: received 'passage'; input should be a list"),
        ("keep: nothing", "keep: received 'nothing'; input should be keys with values or 'none'"),
        ("keep: {days: -3}", r"keep\.days: received -3; input should be greater than 0"),
        ("serve: [1]", r"serve: received \[1\]; input should be keys with values"),
        ("cache: {days: .nan}", r"cache\.days"),
    ],
)
def test_settings_that_are_none_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "service.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        read_service(tmp_path / "service.yaml")
    assert read_service(None).serve.queue == 64


def test_a_stream_that_is_refused_before_its_first_part_is_an_ordinary_problem() -> None:
    from fastapi import FastAPI

    from workbench.serving.api import _adder
    from workbench.serving.problems import RateLimitedError
    from workbench.serving.streaming import EventStream

    async def refused() -> Any:
        raise RateLimitedError("too many", retry_after=7)
        yield b""

    async def handle(request: Any) -> EventStream:
        await request.body()
        return EventStream(request, refused(), lambda problem: b"")

    app, sent, said = FastAPI(), [], [{"type": "http.request", "body": b"{}", "more_body": False}]
    _adder(app)("POST", "/v1/answers", handle)

    async def receive() -> Any:
        return said.pop() if said else await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/answers", "headers": [], "query_string": b""}
    scope |= {"state": {"request_id": "r"}}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 429 and (b"retry-after", b"7") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["detail"] == "too many"


def test_a_fallback_that_is_no_run_is_refused_before_it_is_needed(tmp_path: Path) -> None:
    from workbench.serving.fallbacks import replacements
    from workbench.serving.settings import RunFallback

    with pytest.raises(InputError, match=r"fallback: run .*nowhere does not exist"):
        replacements([RunFallback(run=tmp_path / "nowhere")], None)  # type: ignore[arg-type]


def test_asking_is_refused_where_a_question_cannot_be_asked(pipeline: Pipeline) -> None:
    from workbench.serving.problems import InvalidError

    async def ask() -> None:
        await Asking(Service(pipeline, ()), settings()).answer(Asked("And then?", [{"role": "user", "content": "a"}]))

    with pytest.raises(InvalidError, match="does not rewrite questions"):
        asyncio.run(ask())


def test_a_question_that_another_promotion_overtakes_is_answered_by_it(pipeline: Pipeline) -> None:
    async def ask() -> bytes:
        asking = Asking(Service(pipeline, ()), settings(deadline=10.0))
        kept = asking._kept

        async def overtaken(key: str) -> Hit | None:
            await asking.replace(Service(pipeline, ()))
            return await kept(key)

        asking._kept = overtaken  # type: ignore[method-assign]
        found = await asking.answer(Asked("What does overtaking a question end?"))
        await asking.stop()
        return found.body

    assert json.loads(asyncio.run(ask()))["status"] == "ok"


def test_what_cannot_be_removed_from_the_cache_is_said(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "a.sqlite", 1_000_000, 30)
    cache.put("a", Hit(b"a text of a person", time.time()))
    with sqlite3.connect(cache.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert cache.forget("a") is False
        other.execute("ROLLBACK")
    other.close()
    assert cache.forget("a") is True and cache.get("a") is None
    cache.close()
    assert b"a text of a person" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


# --- A process of its own ---------------------------------------------------------------------------------------------


def started(run: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    """`workbench serve`, listening."""
    command = [sys.executable, "-m", "workbench.cli", "serve", str(run), "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=ROOT)
    for _ in range(1200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return process
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
    process.kill()
    raise AssertionError(f"it never listened:\n{log.read_text()}")


@pytest.mark.slow
def test_a_service_that_is_killed_under_load_answers_the_same_when_it_is_back(toy: Finished, tmp_path: Path) -> None:
    copy = shutil.copytree(toy.run, tmp_path / "smoke" / toy.run.name)
    (tmp_path / ".store").symlink_to(toy.runs / ".store")
    checked = workbench("serve", copy, "--check")
    assert checked.returncode == 0 and "with 7 others together, as recorded" in checked.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = Running(port, None)
    process = started(copy, port, tmp_path / "log")
    answers: dict[str, dict[str, Any]] = {}
    try:
        for question in QUESTIONS[:3]:
            answers[question] = part(service.ask(question).body)
        with ThreadPoolExecutor(8) as pool:
            load = [pool.submit(service.ask, f"What does load {n} ask?") for n in range(8)]
            time.sleep(0.05)
            process.kill()
            process.wait()
            ended = [one.exception() or one.result().status for one in load]
        assert all(one == 200 or isinstance(one, (OSError, http.client.HTTPException)) for one in ended)
        process = started(copy, port, tmp_path / "log")
        back = [service.ask(question) for question in QUESTIONS[:4]]
        assert {question: part(one.body) for question, one in zip(answers, back, strict=False)} == answers
        assert [one.json["served"]["by"] for one in back] == ["cache"] * 3 + ["model"]
        process.terminate()
        assert process.wait(timeout=30) == -signal.SIGTERM  # uvicorn passes the signal on once all is ended
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_no_acknowledged_vote_or_key_is_lost_where_the_service_is_killed(toy: Finished, tmp_path: Path) -> None:
    from workbench.serving.records import people
    from workbench.serving.records.database import FILE, Database
    from workbench.serving.records.tables import votes

    copy = shutil.copytree(toy.run, tmp_path / "smoke" / toy.run.name)
    (tmp_path / ".store").symlink_to(toy.runs / ".store")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = Running(port, None)
    process = started(copy, port, tmp_path / "log")
    given, keys = dict.fromkeys(range(6), 0), []
    try:
        mine = [service.ask(question).json["id"] for question in QUESTIONS[:6]]
        records = Database(tmp_path / ".service" / FILE)
        with records.writing() as connection:
            people.add_user(connection, "ann")

        def vote(number: int) -> None:
            try:
                while True:
                    said = {"vote": 1, "comment": str(given[number] + 1)}
                    assert service.call("PUT", f"/v1/answers/{mine[number]}/vote", said).status == 204
                    given[number] += 1
            except (OSError, http.client.HTTPException):
                pass  # it was killed

        with ThreadPoolExecutor(6) as pool:
            voters = [pool.submit(vote, number) for number in given]
            while min(given.values()) < 10:
                with records.writing() as connection:
                    key = people.add_key(connection, 1)
                keys.append(key)  # it is told to somebody
            process.kill()
            process.wait()
            assert [one.result() for one in voters] == [None] * 6
        process = started(copy, port, tmp_path / "log")
        with records.reading() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
            said = [int(row.comment) for row in connection.execute(votes.select().order_by(votes.c.request))]
        assert len(said) == 6 and all(given[number] <= said[number] <= given[number] + 1 for number in given)
        assert keys and {service.call("GET", "/v1/about", authorization=f"Bearer {key}").status for key in keys} == {200}
        assert service.call("PUT", f"/v1/answers/{mine[0]}/vote", {"vote": -1}).status == 204
    finally:
        process.kill()
        process.wait()


def resident() -> float:
    """Megabytes of memory of this process."""
    gc.collect()
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1000


@pytest.mark.soak
@pytest.mark.parametrize(("requests", "real"), [(20_000, False), (300, True)])
def test_memory_does_not_grow_with_requests(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, requests: int, real: bool
) -> None:
    reply = pipeline.ask(QUESTIONS[0])
    if not real:
        known = dataclasses.replace(reply)
        monkeypatch.setattr(pipeline, "growing", lambda asked, wanted: iter([(i, known) for i in range(len(asked))]))
    with running(pipeline, settings(Caching(memory_mb=1.0, disk_mb=0.0))) as service:
        sizes = []
        for n in range(requests):
            assert service.ask(f"What does request {n} ask?").status == 200
            if n % (requests // 10) == 0:
                sizes.append(resident())
    steady = sizes[len(sizes) // 3 :]
    slope = float(np.polyfit(range(len(steady)), steady, 1)[0]) * 10 / len(sizes)
    assert slope * len(sizes) < 20, sizes  # megabytes over all requests


@pytest.mark.parametrize(
    ("headers", "later", "wait"),
    [
        ([], False, 0),
        (["respond-async"], True, 0),
        (["return=minimal, Respond-Async; foo=bar , wait=10"], True, 10),
        (["wait=5", "respond-async"], True, 5),
        (['respond-async, wait="7"'], True, 7),
        (["respond-async, wait=soon, wait=3"], True, 0),
        (["respond-asynchronous", "x=respond-async"], False, 0),
        (["respond-async, wait=99999999999999999999"], True, 0),
    ],
)
def test_preferences_are_read_as_rfc_7240_has_them(headers: list[str], later: bool, wait: int) -> None:
    from workbench.serving.preferring import Preference, preferred

    assert preferred(headers) == Preference(later, wait)


def test_a_question_that_cannot_be_asked_is_refused_at_once_also_where_the_answer_is_to_be_fetched_later(
    pipeline: Pipeline, watched: Watched
) -> None:
    history = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is this."}]
    with running(pipeline) as service:
        asked = {"question": "And then?", "history": history}
        refused = service.call("POST", "/v1/answers", asked, prefer="respond-async")
        assert (refused.status, refused.json["type"]) == (422, "urn:workbench:problem:invalid")
        service.asking.stopping = True
        stopping = service.call("POST", "/v1/answers", {"question": "What now?"}, prefer="respond-async")
        assert (stopping.status, stopping.headers["retry-after"]) == (503, "5")


def test_of_answers_that_can_be_fetched_again_whoever_has_the_most_loses_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.serving import recent
    from workbench.serving.asking import Answered
    from workbench.serving.caller import Caller, Principal
    from workbench.serving.problems import GoneError, NotFoundError

    monkeypatch.setattr(recent, "MOST_RECENT", 3)

    def of(user: int, request_id: str) -> Caller:
        return Caller(str(user), request_id, Principal(user))

    async def asked() -> None:
        kept, hang = recent.Recent(), asyncio.Event()

        async def late() -> Answered:
            await hang.wait()
            return Answered(b"{}", {"by": "late"})

        task = asyncio.ensure_future(late())
        kept.expect(of(1, "pending"), task, "p")
        kept.keep(of(1, "first"), Answered(b"1", {}), "a")
        for n in range(5):
            kept.keep(of(2, f"many {n}"), Answered(b"2", {}), f"m{n}")
        assert kept.get("first", of(1, "")) == Answered(b"1", {}), "somebody else's many did not drop it"
        assert kept.get("pending", of(1, "")) is task, "what is not there yet is not dropped"
        with pytest.raises(GoneError):
            kept.refuse_gone("many 0", of(2, ""))
        with pytest.raises(NotFoundError):
            kept.get("first", of(2, ""))
        hang.set()
        await task
        await asyncio.sleep(0)
        assert kept.get("pending", of(1, "")) is task
        kept.forget(["a", "m4"])
        for user, name in ((1, "first"), (2, "many 4")):
            with pytest.raises(NotFoundError):
                kept.get(name, of(user, ""))

    asyncio.run(asked())


def test_an_answer_that_is_fetched_later_has_the_same_bytes_and_ends_as_gone(
    pipeline: Pipeline, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.serving import recent

    monkeypatch.setattr(recent, "MOST_RECENT", 2)
    asked = {"question": "What is fetched later?"}
    with running(pipeline) as service:
        watched.free.clear()
        accepted = service.call("POST", "/v1/answers", asked, prefer="respond-async; x=1")
        assert (accepted.status, accepted.headers["preference-applied"]) == (202, "respond-async")
        place = accepted.headers["location"]
        pending = service.call("GET", place)
        assert (pending.status, pending.headers["retry-after"], pending.json) == (202, "1", accepted.json)
        watched.free.set()
        waits_until(lambda: service.call("GET", place).status == 200)
        found = service.call("GET", place)
        expected = answer_part(dict(watched._growing([Asked(asked["question"])], lambda i: True))[0])
        assert b"," + expected[1:-1] + b"," in found.body
        at_once = service.call("POST", "/v1/answers", asked, prefer="respond-async, wait=20")
        assert at_once.status == 200 and b"," + expected[1:-1] + b"," in at_once.body
        assert service.ask("One more?").status == 200
        gone = service.call("GET", place)
        assert (gone.status, gone.json["type"]) == (410, "urn:workbench:problem:gone")
        assert service.call("GET", "/v1/answers/never").status == 404
        described = service.call("GET", "/openapi.json").json["paths"]["/v1/answers"]["post"]
        assert [one["name"] for one in described["parameters"]] == ["Prefer"]
        assert {"Location", "Preference-Applied"} == described["responses"]["202"]["headers"].keys()
