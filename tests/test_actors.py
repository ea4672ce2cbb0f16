"""Answers of actors in a real Ray cluster on this machine: the same bytes, and none lost with an actor."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import Finished
from ray_nodes import Nodes, children, command
from served_app import Response, Running, running, settings
from test_queue import bytes_of
from test_service import QUESTIONS, waits_until

from workbench.errors import InputError
from workbench.machine import record
from workbench.pipeline import Pipeline
from workbench.results.run import Run
from workbench.serving import crew_size, elsewhere
from workbench.serving.asking import answer_part
from workbench.serving.crew_size import Place, Size, wanted

if TYPE_CHECKING:
    from workbench.serving.actor_crew import Crew
    from workbench.serving.actors import Actors

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
    assert both.limit == 3 and both.free([]) == "a"
    assert both.free([("a", 1), ("a", 1)]) == "b" and both.free([("a", 1), ("a", 1), ("b", 1)]) is None
    assert both.free([("a", 2), ("b", 1)]) is None, "whoever holds them"
    assert both.shared() == "a" and Size(None).shared() is None


def test_a_node_with_graphics_cards_has_an_actor_for_each() -> None:
    two = Size(None, {"a": Place("a", 8, cards=2), "b": Place("b", 8, cards=0)})
    assert (two.limit, two.processors_each) == (2, 4)
    assert two.free([("a", 4)]) == "a" and two.free([("a", 1), ("a", 1)]) is None


def test_a_node_that_lost_its_actors_is_tried_again_and_one_with_other_bytes_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_size, "REST_SECONDS", 0.0)
    place = Place("a", 1)
    for n in range(crew_size.MOST_LOST):
        assert place.refused is None, n
        place.lose("killed")
    assert place.refused == "3 actors were lost there one after another (killed)" and place.open
    monkeypatch.setattr(crew_size, "REST_SECONDS", 1000.0)
    place.lose("killed")
    assert place.lost == 4 and not place.open
    assert Size(None, {"a": place}).reasons == "a: 4 actors were lost there one after another (killed)"
    place.join()
    assert place.open and place.lost == 0 and place.refused is None
    monkeypatch.setattr(crew_size, "REST_SECONDS", 0.0)
    place.refuse("another arithmetic")
    assert not place.open


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
def nodes() -> Iterator[Nodes]:
    """A cluster of one node with one processor, to which more may come; this process is a part of it."""
    before = dict(os.environ)
    nodes = Nodes()
    try:
        with elsewhere.computing(settings(), f"ray:{nodes.address}"):
            yield nodes
    finally:
        nodes.end()
        os.environ.clear()
        os.environ.update(before)


def answering(hangs_seconds: float = 2400.0) -> Actors:
    """Actors of the cluster that this process is a part of."""
    from workbench.serving.actors import Actors

    return Actors(None, hangs_seconds)


def actors(nodes: Nodes) -> list[int]:
    """Processes that answer for this one."""
    raylets = [nodes.raylet(node) for node in (nodes.head, *nodes.others)]
    return [pid for raylet in raylets for pid in children(raylet) if command(pid).startswith("ray::AnsweringNode")]


def readiness(service: Running) -> tuple[int, str, str | None]:
    found = service.call("GET", "/readyz", timeout=60)
    return found.status, found.json["status"], found.json.get("detail")


@pytest.mark.slow
def test_actors_give_the_bytes_of_this_process_and_lose_no_question(
    pipeline: Pipeline, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.only(1)
    monkeypatch.setattr(crew_size, "REST_SECONDS", 3.0)
    expected = [answer_part(pipeline.ask(question)) for question in QUESTIONS]
    room = settings(deadline=600.0, at_once=64)
    with running(pipeline, room, workers=answering()) as service, ThreadPoolExecutor(40) as pool:
        with monkeypatch.context() as patched:
            patched.setattr(pipeline, "growing", None)  # nothing is computed here
            assert len(actors(nodes)) == 1
            found = list(pool.map(service.ask, QUESTIONS[:4]))
            assert [bytes_of(one.body) for one in found] == expected[:4]
            stream = service.call("POST", "/v1/answers", {"question": QUESTIONS[4]}, accept="text/event-stream")
            events = [event.split("\ndata: ", 1) for event in stream.body.decode().strip().split("\n\n")]
            assert events[0][0] == "event: sources" and bytes_of(events[-1][1].encode()) == expected[4]
            asked = [*QUESTIONS[5:], *(f"{question} Case {n}." for n in range(20) for question in QUESTIONS)]
            load = [pool.submit(service.ask, question, 650) for question in asked]
            waits_until(lambda: sum(one.done() for one in load) > 20, 300)
            assert readiness(service) == (200, "ready", None)
            killed: set[int] = set()
            for _ in range(crew_size.MOST_LOST):
                waits_until(lambda: bool(set(actors(nodes)) - killed), 60)
                (found_there,) = set(actors(nodes)) - killed
                os.kill(found_there, signal.SIGKILL)
                killed.add(found_there)
            waits_until(lambda: "3 actors were lost there one after another" in str(readiness(service)), 60)
            assert readiness(service)[:2] == (503, "nobody computes")
            assert b"workbench_ready 0.0" in service.call("GET", "/metrics").body
            responses = [one.result() for one in load]
            assert readiness(service) == (200, "ready", None)
        assert {(one.status, one.json["served"]["by"]) for one in responses} == {(200, "model")}
        assert [bytes_of(one.body) for one in responses[:5]] == expected[5:]
        for question, one in list(zip(asked, responses, strict=True))[::20]:
            assert bytes_of(one.body) == answer_part(pipeline.ask(question)), "whichever computed it"
    waits_until(lambda: not actors(nodes), 60)


@pytest.mark.soak
def test_a_promotion_is_served_where_one_processor_is_all_there_is(
    toy: Finished, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer has the bytes of the identity that it names, and nobody is refused, or goes back to the one before."""
    from workbench.serving import promotion

    nodes.only(1)
    monkeypatch.setattr(promotion, "LOOK_SECONDS", 0.05)
    copy = shutil.copytree(toy.run, tmp_path / "smoke" / toy.run.name)
    (tmp_path / ".store").symlink_to(toy.runs / ".store")
    run = Run.open(copy)
    first = Pipeline.open(run)
    other = next(
        c.configuration for c in run.leaderboard if c.configuration != first.configuration.id and c.split == run.report_split
    )
    ended = threading.Event()

    def visit(service: Running, name: int) -> list[tuple[str, Response]]:
        found: list[tuple[str, Response]] = []
        while not ended.is_set():
            question = f"What does visitor {name} ask as number {len(found)}?"
            found.append((question, service.ask(question, 120)))
        return found

    room = settings(deadline=100.0, fallback=())
    with (
        running(first, room, reopen=lambda chosen: Pipeline.open(copy, chosen), workers=answering()) as service,
        ThreadPoolExecutor(3) as pool,
    ):
        before = service.asking.service.batcher
        assert [one.processors for one in before.members] == [1], "it holds the only processor"
        visits = [pool.submit(visit, service, name) for name in range(3)]
        try:
            run.promote(other)
            waits_until(lambda: service.asking.service.batcher is not before, 120)
            after = service.asking.service.batcher
            waits_until(lambda: before.stopped and [one.processors for one in after.members] == [1], 120)
            waits_until(lambda: not after.leaving and len(actors(nodes)) == 1, 60)
            assert service.ask(QUESTIONS[0], 120).json["provenance"]["configuration"] == other
        finally:
            ended.set()
        pipelines = {one.identity: one for one in (first, Pipeline.open(copy, other))}
        for visited in [one.result() for one in visits]:
            assert {(one.status, one.json["served"]["by"]) for _, one in visited} == {(200, "model")}
            named = [one.json["provenance"]["identity"] for _, one in visited]
            assert set(named) == set(pipelines) and named == sorted(named, key=lambda one: one != first.identity)
            for question, one in [visited[0], visited[-1]]:
                expected = pipelines[one.json["provenance"]["identity"]].ask(question)
                assert bytes_of(one.body) == answer_part(expected)
    waits_until(lambda: not actors(nodes), 60)


@pytest.mark.slow
def test_a_node_whose_bytes_differ_is_refused_while_serving(
    pipeline: Pipeline, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from workbench.serving import actor_crew

    nodes.only(1)
    caplog.set_level(logging.WARNING)
    assert pipeline.session.machine.arithmetic  # now it is in the record
    falsified = json.loads(record.path().read_text())
    for machine in falsified.values():
        for name in machine["measured"]:
            if name.startswith("fingerprint"):
                machine["measured"][name] = "0" * 16
    (tmp_path / "machine.json").write_text(json.dumps(falsified))
    with running(pipeline, settings(deadline=60.0), workers=answering()) as service:
        crew = service.asking.service.batcher
        monkeypatch.setattr(actor_crew, "wanted", lambda waiting, most, idle, there: 2 - there)
        nodes.add(WORKBENCH_HOME=str(tmp_path))
        waits_until(lambda: "is refused" in caplog.text, 60)
        (place,) = [one for one in crew.size.places.values() if one.refused]
        assert f"node {place.name} is refused: arithmetic is cpu/" in caplog.text
        assert place.refused and "/0000000000000000 there and cpu/" in place.refused and not place.open
        assert service.ask(QUESTIONS[0]).status == 200 and len(crew.members) == 1
        nodes.only(1)
        waits_until(lambda: len(crew.size.places) == 1, 60)  # whoever comes from there again is asked anew
    waits_until(lambda: not actors(nodes), 60)


@pytest.mark.soak
def test_an_actor_that_hangs_is_ended_and_its_question_is_asked_again(pipeline: Pipeline, nodes: Nodes) -> None:
    nodes.only(1)
    room = settings(deadline=100.0, fallback=())
    with running(pipeline, room, workers=answering(hangs_seconds=2.0)) as service, ThreadPoolExecutor(1) as pool:
        (hung,) = actors(nodes)
        os.kill(hung, signal.SIGSTOP)
        try:
            asked = pool.submit(service.ask, QUESTIONS[0], 110)
            waits_until(lambda: hung not in actors(nodes), 60)
        finally:
            with suppress(ProcessLookupError):
                os.kill(hung, signal.SIGKILL)
        assert bytes_of(asked.result().body) == answer_part(pipeline.ask(QUESTIONS[0]))
    waits_until(lambda: not actors(nodes), 60)


@pytest.mark.slow
def test_a_service_that_stops_leaves_no_actor_of_a_promotion_that_is_under_way(pipeline: Pipeline, nodes: Nodes) -> None:
    nodes.only(1)
    cluster = answering()

    async def stopped(pool: ThreadPoolExecutor) -> Future[Crew]:
        async with cluster.connected():
            begun = pool.submit(cluster.worker, pipeline)
            while not actors(nodes):
                await asyncio.sleep(0.05)
        return begun

    with ThreadPoolExecutor(1) as pool:
        begun = asyncio.run(stopped(pool))
        with pytest.raises(RuntimeError, match="the service has stopped"):
            begun.result(60)
    waits_until(lambda: not actors(nodes), 60)
    with pytest.raises(RuntimeError, match="the service has stopped"):
        cluster.worker(pipeline)


@pytest.mark.soak
def test_a_second_actor_joins_where_more_waits_than_one_takes_and_ends_when_it_was_idle(
    pipeline: Pipeline, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.serving import actor_crew

    nodes.only(2)
    monkeypatch.setattr(actor_crew, "IDLE_SECONDS", 5.0)
    with running(pipeline, settings(deadline=900.0, at_once=64), workers=answering()) as service, ThreadPoolExecutor(40) as pool:
        crew, joined = service.asking.service.batcher, threading.Event()
        assert len(actors(nodes)) == 1

        def ask_on(name: int) -> set[tuple[int, str]]:
            found, n = set[tuple[int, str]](), 0
            while not joined.is_set():
                one = service.ask(f"What does visitor {name} ask as number {n}?", 950)
                found.add((one.status, one.json["served"]["by"]))
                n += 1
            return found

        load = [pool.submit(ask_on, name) for name in range(40)]
        try:
            waits_until(lambda: sum(one.answers for one in crew.members) == 2, 300)
            assert sorted(one.processors for one in crew.members) == [1, 1]
        finally:
            joined.set()
        assert set().union(*(one.result() for one in load)) == {(200, "model")}
        waits_until(lambda: len(crew.members) == 1 and len(actors(nodes)) == 1, 60)
        assert service.ask(QUESTIONS[0]).status == 200
