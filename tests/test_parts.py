"""Answers whose prompts are made in one process and generated in another: the same bytes, and a fault costs only its question."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from math import inf
from typing import Any

import pytest
from conftest import ROOT, Finished
from rabbit import Rabbit
from servers import started, waits_until
from test_service import QUESTIONS
from workers import Workers, asking, bytes_of

from workbench.errors import InputError
from workbench.models.answering import TOO_LONG, WRITING, Generation
from workbench.models.generator import Generator
from workbench.pipeline import Asked, Pipeline
from workbench.serving import queueing
from workbench.serving.asking import Service, answer_part
from workbench.serving.batching import Batcher, EachError, Flight
from workbench.serving.broker import Broker
from workbench.serving.generating import Distant, Generators, Prompts, generation_of, queue_of_prompts, reply_of
from workbench.serving.messages import Sent, Told, question, read_question, read_told, told
from workbench.serving.parts import part_named
from workbench.serving.queueing import Queue
from workbench.serving.settings import ServiceSettings
from workbench.serving.working import Taker

LONG = f"Where is {'☃' * 1500}?"  # few letters and many tokens


@pytest.fixture(scope="module")
def pipeline(toy: Finished) -> Pipeline:
    opened = Pipeline.open(toy.run)
    opened.session.keep_in_memory(1_000_000)
    return opened


class Sending:
    """Has another pipeline generate, by the messages that a broker would carry."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.prompts = Prompts(pipeline)

    def growing(self, prompts: Sequence[Any], wanted: Callable[[int], float]) -> Iterator[tuple[int, Generation]]:
        asked = [read_question(question(Sent(Asked("", prompt), 30.0))).asked for prompt in prompts]
        for i, reply in self.prompts.growing(asked, wanted):
            said = read_told(told(Told("grown" if reply.status == WRITING else "landed", "here/1", reply)))
            assert said.reply is not None
            yield i, generation_of(said.reply)


def test_prompts_that_others_answer_give_the_same_bytes_and_load_no_generator(
    toy: Finished, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [Asked(one) for one in (*QUESTIONS[:4], LONG)]
    expected = list(pipeline.growing(asked))
    assert dict(expected)[4].status == TOO_LONG
    apart = Pipeline.open(toy.run)
    apart.session.keep_in_memory(1_000_000)
    apart.generating = Sending(pipeline)
    monkeypatch.setattr(Generator, "load", None)  # its weights are loaded by nothing else
    found = list(apart.growing(asked))
    assert [(i, answer_part(reply)) for i, reply in found] == [(i, answer_part(reply)) for i, reply in expected]
    assert any(reply.status == WRITING for _, reply in found), "beginnings come through"


def test_what_is_written_comes_back_as_it_was_sent() -> None:
    for one in (Generation("a “b”\n", 31, 5), Generation("", 9000, 0, TOO_LONG), Generation("a", 3, 1, WRITING)):
        assert generation_of(reply_of(one)) == one


def test_a_question_that_fails_alone_costs_the_others_of_its_batch_nothing() -> None:
    class Failing:
        def growing(self, asked: Sequence[Asked], wanted: Callable[[int], float]) -> Iterator[tuple[int, Any]]:
            calls.append(len(asked))
            assert 0 < wanted(0) <= 30
            for i, one in enumerate(asked):
                if one.question != "bad":
                    yield i, reply_of(Generation(one.question, 1, 1))
            raise EachError({i: ValueError("this one") for i, one in enumerate(asked) if one.question == "bad"})

    async def asked() -> list[Any]:
        flights = [Flight(Asked(text), time.monotonic() + 30) for text in ("a", "bad", "b")]
        batcher = Batcher(Failing(), 3)
        with batcher._line._some:  # so that they are taken together
            for flight in flights:
                batcher._line._flights.append(flight)
            batcher._line._some.notify()
        found = await asyncio.gather(*(flight.landed for flight in flights), return_exceptions=True)
        batcher.stop()
        return found

    calls: list[int] = []
    first, bad, last = asyncio.run(asked())
    assert (first.reply.reply, last.reply.reply, str(bad)) == ("a", "b", "this one")
    assert calls == [3], "none is asked twice"


def test_prompts_are_queued_by_what_generates_alone(toy: Finished, pipeline: Pipeline) -> None:
    configurations = [row.configuration for row in pipeline.run.configurations]
    opened = [Pipeline.open(toy.run, one) for one in configurations]
    names = {one.configuration.label: queue_of_prompts(one) for one in opened if one.answering}
    writers = {one.configuration.label: one.answering.writer.namespace for one in opened if one.answering}
    assert len(set(names.values())) == len(set(writers.values())) < len(names)
    assert all(name.startswith("generate.") for name in names.values())


def test_a_part_that_there_is_not_is_refused(toy: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--part: received 'gpu'; allowed: rag or llm"):
        part_named("gpu", ServiceSettings(), "amqp://here")
    ranks = Pipeline.open(toy.run)
    monkeypatch.setattr(Pipeline, "answering", None)
    with pytest.raises(InputError, match="only ranks passages, so there is no generator to be run apart; leave --part out"):
        queue_of_prompts(ranks)
    with pytest.raises(InputError, match="only ranks passages"):
        ranks.generated([])


# --- Behind RabbitMQ --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    with started(Rabbit, tmp_path_factory.mktemp("rabbit")) as server:
        yield server


@contextmanager
def distant(rabbit: Rabbit, pipeline: Pipeline, most: int, taker: bool) -> Iterator[Distant]:
    """What sends the prompts of a pipeline, in an event loop of its own, and who takes them there, if anybody is to."""

    async def until_ended() -> None:
        loop = asyncio.get_running_loop()
        async with queue.connected():
            ready.set_result(Distant(queue, pipeline, loop, 2.0, threading.Event()))
            if not taker:
                await asyncio.to_thread(ended.wait)
                await queue.channel.queue_delete(queue_of_prompts(pipeline))  # others give it another bound
                return
            broker = Broker(rabbit.url)
            await broker.open()
            one = Taker(Service(pipeline, (), Generators()), queue_of_prompts(pipeline), broker, most)
            await one.begin()
            await asyncio.to_thread(ended.wait)
            await one.end(5.0)
            await broker.close()

    queue, ended, ready = Queue(rabbit.url, most), threading.Event(), Future[Distant]()
    thread = threading.Thread(target=lambda: asyncio.run(until_ended()))
    thread.start()
    try:
        yield ready.result(30)
    finally:
        ended.set()
        thread.join(30)


@pytest.fixture(scope="module")
def other(toy: Finished, pipeline: Pipeline) -> Pipeline:
    """A pipeline with another generator, whose prompts nobody takes."""
    opened = (Pipeline.open(toy.run, row.configuration) for row in pipeline.run.configurations)
    found = next(one for one in opened if one.answering and queue_of_prompts(one) != queue_of_prompts(pipeline))
    found.session.keep_in_memory(1_000_000)
    return found


def prompts(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


@pytest.mark.slow
def test_prompts_that_find_no_room_or_nobody_say_so_and_expire(rabbit: Rabbit, other: Pipeline) -> None:
    with distant(rabbit, other, most=1, taker=False) as sends:
        with pytest.raises(EachError) as failed:
            list(sends.growing(prompts("a", "b", "c"), lambda i: inf))
        said = sorted(type(one).__name__ for one in failed.value.errors.values())
        assert said == ["NoAnswerError", "OverloadedError", "OverloadedError"]
        with pytest.raises(EachError, match="no process of the role llm answered within 2 s"):
            list(sends.growing(prompts("d"), lambda i: inf))  # for which there is room: the first has expired
        assert list(sends.growing(prompts("e"), lambda i: 0.0)) == [], "nobody waits for it"


@pytest.mark.slow
def test_a_prompt_that_fails_costs_only_itself(rabbit: Rabbit, other: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def generated(asked: Sequence[Any], wanted: Callable[[int], float] = lambda i: inf) -> Iterator[tuple[int, Generation]]:
        assert not any("bad" in one[0]["content"] for one in asked), "a fault of the generator"
        return Pipeline.generated(other, asked, wanted)

    asked = prompts("What is here?", "bad", "What is there?")
    expected = {i: found for i, found in other.generated([asked[0], asked[2]]) if found.status != WRITING}
    monkeypatch.setattr(other, "generated", generated)
    with distant(rabbit, other, most=8, taker=True) as sends:
        found = {}
        with pytest.raises(EachError, match="AssertionError at worker") as failed:
            for i, one in sends.growing(asked, lambda i: inf):
                found[i] = one
    assert list(failed.value.errors) == [1] and found == {0: expected[0], 2: expected[1]}


@pytest.fixture(scope="module")
def workers(toy: Finished, rabbit: Rabbit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """A process of the role rag, which waited for the one of the role llm, and another of the role llm."""
    made = Workers(toy.run, rabbit, tmp_path_factory.mktemp("workers"))
    try:
        said = (ROOT / "docs" / "operations.md").read_text()
        (rag_line, llm_line) = re.findall(r"^workbench work runs/quickstart/RUN (--part \w+) ", said, re.MULTILINE)
        rag = made.begin(*rag_line.split())
        waits_until(lambda: "no process answers prompts; start one with `workbench work" in made.said(0), 120)
        first, second = made.begin(*llm_line.split()), made.begin(*llm_line.split())
        for one in (first, second, rag):
            made.wait(one)
        yield made
    finally:
        made.end()


@pytest.mark.slow
def test_two_roles_give_the_bytes_of_one_process(pipeline: Pipeline, rabbit: Rabbit, workers: Workers) -> None:
    expected = [answer_part(pipeline.ask(text)) for text in (*QUESTIONS[:8], LONG)]
    assert queue_of_prompts(pipeline) in workers.said(1) and f"answers.{pipeline.identity}" in workers.said(0)
    with asking(pipeline, rabbit, deadline=60.0) as service, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: service.ask(text, 60), (*QUESTIONS[:7], LONG)))
        assert [bytes_of(one.body) for one in found] == [*expected[:7], expected[8]]
        assert {one.json["served"]["by"] for one in found} == {"model"}
        stream = service.call("POST", "/v1/answers", {"question": QUESTIONS[7]}, 60, accept="text/event-stream")
        events = [event.split("\ndata: ", 1) for event in stream.body.decode().strip().split("\n\n")]
        assert [name for name, _ in events[:2]] == ["event: sources", "event: text"], "beginnings pass through both queues"
        assert events[-1][0] == "event: answer" and bytes_of(events[-1][1].encode()) == expected[7]


@pytest.mark.slow
def test_prompts_of_a_killed_process_go_to_another(pipeline: Pipeline, rabbit: Rabbit, workers: Workers) -> None:
    asked = [f"{text} Case {n}." for n in range(4) for text in QUESTIONS]
    with asking(pipeline, rabbit, deadline=60.0, at_once=8) as service, ThreadPoolExecutor(8) as pool:
        found = [pool.submit(service.ask, text, 70) for text in asked]
        waits_until(lambda: sum(one.done() for one in found) > 8, 60)
        workers.processes[1].kill()
        responses = [one.result() for one in found]
    assert [one.status for one in responses] == [200] * len(asked)
    assert {one.json["served"]["by"] for one in responses} == {"model"}
    for text, one in list(zip(asked, responses, strict=True))[::5]:
        assert bytes_of(one.body) == answer_part(pipeline.ask(text))


@pytest.mark.slow
def test_without_a_process_that_generates_a_question_ends_by_its_deadline(
    pipeline: Pipeline, rabbit: Rabbit, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "LOOK_SECONDS", 0.5)
    for one in workers.processes[1:]:
        one.kill()
        one.wait()
    with asking(pipeline, rabbit, deadline=3.0) as service:
        found = service.ask("What is asked when nobody generates?", 20)
        assert found.status == 504 or found.json["served"]["by"] == "fallback"
        waits_until(lambda: service.call("GET", "/readyz").json["status"] == "nobody computes")
        workers.start("--part", "llm")
        waits_until(lambda: service.call("GET", "/readyz").json["status"] == "ready")
        waits_until(lambda: service.ask("What is asked then?", 20).json["served"]["by"] == "model", 30)
