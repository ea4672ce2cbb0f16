"""Answers of actors in a real Ray cluster on this machine: the same bytes, and none lost with an actor."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec

import pytest
from conftest import Finished
from ray_nodes import ATTEMPTS, SETTINGS, children, command
from served_app import running, settings
from test_queue import bytes_of
from test_service import QUESTIONS, waits_until

from workbench.errors import InputError
from workbench.pipeline import Pipeline
from workbench.serving import elsewhere
from workbench.serving.asking import answer_part
from workbench.serving.batching import Workers
from workbench.serving.crew_size import Place, Size, wanted

pytestmark = pytest.mark.skipif(
    find_spec("ray") is None and os.environ.get("CI") != "true", reason="the extra `distributed` is not installed"
)


@pytest.fixture(scope="module")
def pipeline(toy: Finished) -> Pipeline:
    opened = Pipeline.open(toy.run)
    opened.session.keep_in_memory(1_000_000)
    return opened


# --- How many ---------------------------------------------------------------------------------------------------------


def test_actors_are_added_for_each_batch_that_waits() -> None:
    assert wanted(waiting=0, most=16, idle=0, there=0) == 1, "one is always there"
    assert wanted(waiting=0, most=16, idle=1, there=1) == 0
    assert wanted(waiting=1, most=16, idle=1, there=1) == 0, "the one that is free takes it"
    assert wanted(waiting=33, most=16, idle=0, there=1) == 3
    assert wanted(waiting=33, most=16, idle=2, there=3) == 1, "those that are starting count"


def test_processors_are_divided_among_as_many_actors_as_there_may_be() -> None:
    def size(most: int | None, *processors: int) -> tuple[int, int]:
        found = Size(most, {str(n): Place(str(n), one) for n, one in enumerate(processors)})
        return found.limit, found.processors_each

    assert size(None, 4, 4) == (8, 1)
    assert size(2, 4, 4) == (2, 4)
    assert size(1, 4, 4) == (1, 4), "an actor lies on one node"
    assert size(9, 2) == (2, 1), "none without a processor"
    assert size(None) == (1, 1)
    places = {"a": Place("a", 2), "b": Place("b", 1), "c": Place("c", 8, refused="another arithmetic")}
    both = Size(None, places)
    assert both.limit == 3 and both.free(Counter()) == "a"
    assert both.free(Counter(a=2)) == "b" and both.free(Counter(a=2, b=1)) is None


@pytest.mark.parametrize(("workers", "most"), [(None, 2), ("ray", 0)])
def test_a_number_of_actors_that_cannot_be_is_refused(workers: str | None, most: int) -> None:
    with pytest.raises(InputError, match="--max-workers"), elsewhere.computing(settings(), workers, most):
        pass


def test_a_broker_and_a_cluster_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_BROKER_URL", "amqp://guest:guest@127.0.0.1:1/")
    with pytest.raises(InputError, match="allowed: one of them"), elsewhere.computing(settings(), "ray"):
        pass


# --- In a cluster -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Workers]:
    """A cluster on this machine, which has two processors whatever this machine has."""
    from workbench import hardware

    before, real = dict(os.environ), hardware.threads
    os.environ.update(SETTINGS)
    hardware.threads = lambda: 2
    with ExitStack() as open_until_the_end:
        for attempt in range(ATTEMPTS):
            try:
                who = open_until_the_end.enter_context(elsewhere.computing(settings(), "ray"))
                break
            except InputError:
                if attempt == ATTEMPTS - 1:
                    raise
        hardware.threads = real
        yield who
    os.environ.clear()
    os.environ.update(before)


def actors() -> list[int]:
    """Processes that answer for this one."""
    raylets = [pid for pid in children(os.getpid()) if "raylet" in command(pid)]
    return [pid for raylet in raylets for pid in children(raylet) if command(pid).startswith("ray::AnsweringNode")]


@pytest.mark.slow
def test_actors_give_the_bytes_of_this_process_and_lose_no_question(
    pipeline: Pipeline, cluster: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [answer_part(pipeline.ask(question)) for question in QUESTIONS]
    room = settings(deadline=600.0, at_once=64)
    with running(pipeline, room, workers=cluster) as service, ThreadPoolExecutor(40) as pool:
        monkeypatch.setattr(pipeline, "growing", None)  # nothing is computed here
        assert len(actors()) == 1
        found = list(pool.map(service.ask, QUESTIONS[:4]))
        assert [bytes_of(one.body) for one in found] == expected[:4]
        stream = service.call("POST", "/v1/answers", {"question": QUESTIONS[4]}, accept="text/event-stream")
        events = [event.split("\ndata: ", 1) for event in stream.body.decode().strip().split("\n\n")]
        assert events[0][0] == "event: sources" and bytes_of(events[-1][1].encode()) == expected[4]
        asked = [*QUESTIONS[5:], *(f"{question} Case {n}." for n in range(20) for question in QUESTIONS)]
        load = [pool.submit(service.ask, question, 650) for question in asked]
        waits_until(lambda: sum(one.done() for one in load) > 20, 300)
        os.kill(actors()[0], signal.SIGKILL)
        responses = [one.result() for one in load]
    assert {(one.status, one.json["served"]["by"]) for one in responses} == {(200, "model")}
    assert [bytes_of(one.body) for one in responses[:5]] == expected[5:]
    monkeypatch.undo()
    for question, one in list(zip(asked, responses, strict=True))[::20]:
        assert bytes_of(one.body) == answer_part(pipeline.ask(question)), "whichever computed it"
    waits_until(lambda: not actors(), 60)


@pytest.mark.soak
def test_a_second_actor_joins_where_more_waits_than_one_takes(pipeline: Pipeline, cluster: Workers) -> None:
    with running(pipeline, settings(deadline=900.0, at_once=64), workers=cluster) as service, ThreadPoolExecutor(40) as pool:
        asked = (f"{question} Time {n}." for n in range(500) for question in QUESTIONS)
        load = [pool.submit(service.ask, question, 950) for question in asked]
        waits_until(lambda: len(service.asking.service.batcher._joined()) == 2, 600)
        for one in load:
            one.cancel()
