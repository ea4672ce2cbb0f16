"""Answers of other processes, by way of RabbitMQ: the same bytes, none lost, and plain words when there is no room."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Finished
from rabbit import Rabbit
from served_app import settings
from servers import started
from test_service import QUESTIONS, waits_until
from workers import Workers, asking, bytes_of

from workbench.errors import InputError
from workbench.pipeline import Asked, Pipeline
from workbench.results.run import Run
from workbench.serving import elsewhere, queueing
from workbench.serving.asking import answer_part
from workbench.serving.batching import Flight
from workbench.serving.messages import Sent, Told, read_question, read_told, told
from workbench.serving.messages import question as sent
from workbench.serving.queueing import Queue, Queued


@pytest.fixture(scope="module")
def pipeline(toy: Finished) -> Pipeline:
    opened = Pipeline.open(toy.run)
    opened.session.keep_in_memory(1_000_000)
    return opened


# --- Messages ---------------------------------------------------------------------------------------------------------


def test_a_question_and_an_answer_come_back_as_they_were_sent(pipeline: Pipeline) -> None:
    asked = Asked("What does “with” do?", [{"role": "user", "content": "Hello — ü"}])
    assert read_question(sent(Sent(asked, 12.5))) == Sent(asked, 12.5)
    reply = pipeline.ask(QUESTIONS[0])
    back = read_told(told(Told("landed", "here/1", reply, 3, 0.5)))
    assert back.reply is not None and answer_part(back.reply) == answer_part(reply)
    assert (back.what, back.worker, back.batch, back.queue_seconds) == ("landed", "here/1", 3, 0.5)
    assert read_told(told(Told("failed", "here/1", why="no memory"))).why == "no memory"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"question": "a", "history": 3, "seconds": 1}',
        b'{"question": "a", "history": [], "seconds": "x"}',
    ],
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(InputError, match="a message that"):
        read_question(body)
    with pytest.raises(InputError, match="a message that"):
        read_told(body)


@pytest.mark.parametrize(
    "url",
    [
        "redis://here:6379",
        "amqp://",
        "amqp://user:secret@here:port/",
        "here:5672",
        "http://user:secret@h",
        "amqp://guest:secret-here:5672/",
    ],
)
def test_an_address_that_is_no_brokers_is_refused_without_its_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_BROKER_URL", url)
    with pytest.raises(InputError, match="WORKBENCH_BROKER_URL is no address of a broker; allowed: amqp://") as refused:
        elsewhere.broker_url()
    assert "secret" not in str(refused.value)


def test_a_broker_that_is_not_there_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_BROKER_URL", "amqp://guest:secret@127.0.0.1:1/")
    said = r"the broker at amqp://\.\.\.@127\.0\.0\.1:1/ cannot be used"
    with pytest.raises(InputError, match=said) as refused, elsewhere.computing(settings()):
        pass
    assert "secret" not in str(refused.value)


def test_a_service_without_a_broker_imports_no_client_of_one() -> None:
    code = "import sys, workbench.serving.app, workbench.serving.elsewhere as e, workbench.serving.settings as s\n"
    code += "with e.computing(s.ServiceSettings()): print({'aio_pika', 'aiormq', 'ray'} & sys.modules.keys())"
    without = {name: value for name, value in os.environ.items() if name != "WORKBENCH_BROKER_URL"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=without, cwd=ROOT)
    assert done.stdout == "set()\n", done.stderr


class Confirms:
    """A broker that takes every message, and has no reader."""

    down_seconds = 0.0

    def __init__(self) -> None:
        self.sent: list[float] = []

    async def send(self, body: bytes, to: str, number: str, seconds: float, *more: Any, **options: Any) -> bool:
        self.sent.append(seconds)
        return True


def test_a_question_that_somebody_joins_is_sent_again_when_its_message_ends() -> None:
    async def asked() -> list[float]:
        queue, broker = Queue("amqp://here", 4), Confirms()
        queue.broker = broker  # type: ignore[assignment]
        worker = Queued(queue, "answers.x", 1)
        worker._declared = True
        flight = Flight(Asked("What?", ()), time.monotonic() + 0.2)
        worker.submit(flight)
        await asyncio.sleep(0.05)
        flight.deadline += 0.3  # of one who joins it
        while flight.wanted:
            await asyncio.sleep(0.05)
        await asyncio.gather(*worker._carrying)
        assert queue.sent == {}
        return broker.sent

    first, second = asyncio.run(asked())
    assert first <= 0.2 and 0 < second <= 0.3


# --- Behind RabbitMQ --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    with started(Rabbit, tmp_path_factory.mktemp("rabbit")) as server:
        yield server


@pytest.fixture(scope="module")
def workers(toy: Finished, rabbit: Rabbit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    made = Workers(toy.run, rabbit, tmp_path_factory.mktemp("workers"))
    try:
        made.start()
        yield made
    finally:
        made.end()


@pytest.mark.slow
def test_a_worker_behind_rabbitmq_gives_the_bytes_of_this_process(
    pipeline: Pipeline, rabbit: Rabbit, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [answer_part(pipeline.ask(question)) for question in QUESTIONS[:8]]
    with asking(pipeline, rabbit) as service:
        monkeypatch.setattr(pipeline, "growing", None)  # nothing is computed here
        with ThreadPoolExecutor(7) as pool:
            found = list(pool.map(service.ask, QUESTIONS[:7]))
        assert [bytes_of(one.body) for one in found] == expected[:7]
        assert {one.json["served"]["by"] for one in found} == {"model"}
        stream = service.call("POST", "/v1/answers", {"question": QUESTIONS[7]}, accept="text/event-stream")
        events = [event.split("\ndata: ", 1) for event in stream.body.decode().strip().split("\n\n")]
        assert events[0][0] == "event: sources" and events[-1][0] == "event: answer"
        assert bytes_of(events[-1][1].encode()) == expected[7], "the last event of a stream"
        assert service.ask(QUESTIONS[0]).json["served"]["by"] == "cache"


@pytest.mark.slow
def test_a_queue_that_is_full_refuses_and_a_worker_that_comes_answers_the_rest(
    toy: Finished, rabbit: Rabbit, workers: Workers, tmp_path: Path
) -> None:
    served = Pipeline.open(toy.run).configuration.id
    other = next(row.configuration for row in Run.open(toy.run).configurations if row.configuration != served)
    alone = Pipeline.open(toy.run, other)  # for which no worker has come
    alone.session.keep_in_memory(1_000_000)
    with asking(alone, rabbit, queue=2, deadline=120.0) as service, ThreadPoolExecutor(4) as pool:
        accepted = [pool.submit(service.ask, question, 150) for question in QUESTIONS[:2]]
        waits_until(lambda: service.asking.service.batcher.waiting == 2)
        refused = service.ask(QUESTIONS[2])
        assert (refused.status, refused.json["type"]) == (503, "urn:workbench:problem:overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        file = tmp_path / "service.yaml"
        file.write_text("serve: {queue: 2}\n")
        workers.start("--configuration", other, "--settings", str(file))
        for question, one in zip(QUESTIONS, accepted, strict=False):
            assert bytes_of(one.result().body) == answer_part(alone.ask(question))


@pytest.mark.slow
def test_nothing_accepted_is_lost_with_a_worker_or_with_the_broker(
    pipeline: Pipeline, rabbit: Rabbit, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions keep coming while a worker is killed, another one comes, and the broker is killed and comes back."""
    monkeypatch.setattr(queueing, "DOWN_SECONDS", 170.0)  # a busy machine takes long to start a broker
    workers.start()
    asked = [f"{question} Case {n}." for n in range(12) for question in QUESTIONS]
    with asking(pipeline, rabbit, queue=64, deadline=180.0, at_once=8) as service, ThreadPoolExecutor(8) as pool:
        found = [pool.submit(service.ask, question, 200) for question in asked]
        waits_until(lambda: sum(one.done() for one in found) > 10, 120)
        workers.processes[0].kill()
        waits_until(lambda: sum(one.done() for one in found) > 40, 120)
        queue = service.asking.service.workers
        rabbit.kill()
        waits_until(lambda: queue.broker.down_seconds > 0)
        rabbit.start()
        responses = [one.result() for one in found]
        assert queue.broker.down_seconds == 0
        assert queue.sent == {}, "nothing is kept in mind of questions that were answered"
    assert [one.status for one in responses] == [200] * len(asked)
    assert {one.json["served"]["by"] for one in responses} == {"model"}, "not by a fallback"
    for question, one in list(zip(asked, responses, strict=True))[::7]:
        assert bytes_of(one.body) == answer_part(pipeline.ask(question))


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_answers_what_it_has_taken(pipeline: Pipeline, rabbit: Rabbit, workers: Workers) -> None:
    with asking(pipeline, rabbit, queue=64, deadline=120.0) as service, ThreadPoolExecutor(8) as pool:
        found = [pool.submit(service.ask, f"{question} Once more.", 150) for question in QUESTIONS[:8]]
        waits_until(lambda: any(one.done() for one in found), 60)
        one = workers.processes.pop()
        one.terminate()
        assert one.wait(60) == 0
        workers.start()
        assert {each.result().json["served"]["by"] for each in found} == {"model"}


@pytest.mark.slow
def test_without_a_broker_fallbacks_answer(
    pipeline: Pipeline, rabbit: Rabbit, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "DOWN_SECONDS", 0.5)
    with asking(pipeline, rabbit, deadline=60.0) as service:
        assert service.call("GET", "/readyz", timeout=60).json["status"] == "ready"
        rabbit.kill()
        waits_until(lambda: service.call("GET", "/readyz").json["broker"] == "away")
        found = service.ask(QUESTIONS[0], 70).json
        state = service.call("GET", "/readyz")
        assert (state.status, state.json["status"]) == (200, "degraded")
        assert found["served"]["by"] == "fallback" and found["served"]["fallback"]["name"] == "passage"
