"""Workers behind RabbitMQ that come, go, and are ended by a question: what clients and whoever looks after the service see."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import Finished
from killing_worker import KILLS
from rabbit import Rabbit
from served_app import Running
from servers import started, waits_until
from test_service import QUESTIONS
from workers import Workers, asking, bytes_of

from workbench.pipeline import Pipeline
from workbench.results.run import PROMOTED, Run
from workbench.serving import promotion, queueing
from workbench.serving.asking import answer_part
from workbench.serving.batching import MOST_LOST

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(toy: Finished) -> Path:
    """A copy whose promotion nobody else sees."""
    return shutil.copytree(toy.run, toy.run.with_name(f"{toy.run.name}-workers"))


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    with started(Rabbit, tmp_path_factory.mktemp("rabbit")) as server:
        yield server


@pytest.fixture(scope="module")
def workers(run: Path, rabbit: Rabbit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Two processes."""
    command = (sys.executable, str(Path(__file__).with_name("killing_worker.py")))
    made = Workers(run, rabbit, tmp_path_factory.mktemp("workers"), command)
    try:
        for one in [made.begin(), made.begin()]:
            made.wait(one)
        yield made
    finally:
        made.end()


def opened(run: Path, configuration: str | None = None) -> Pipeline:
    found = Pipeline.open(run, configuration)
    found.session.keep_in_memory(1_000_000)
    return found


def promote(run: Path, configuration: str) -> None:
    """Promotes a configuration, whether or not it was measured on the report split."""
    file = run / PROMOTED
    values = yaml.safe_load(file.read_text()) if file.exists() else {}
    file.with_suffix(".new").write_text(yaml.safe_dump(values | {"configuration": configuration}))
    file.with_suffix(".new").replace(file)


class Load:
    """Clients that ask until they are stopped."""

    def __init__(self, service: Running, clients: int = 3) -> None:
        self.service, self.stopped = service, threading.Event()
        self.found: list[tuple[str, int, bytes]] = []
        self.threads = [threading.Thread(target=self.ask, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(90)

    def ask(self, client: int) -> None:
        """Asks one question after another, none twice."""
        number = 0
        while not self.stopped.is_set():
            number += 1
            text = f"{QUESTIONS[number % len(QUESTIONS)]} Client {client} asks for the {number}th time."
            answered = self.service.ask(text, 90)
            self.found.append((text, answered.status, answered.body))


def identity_of(body: bytes) -> str:
    found: str = json.loads(body)["provenance"]["identity"]
    return found


def test_a_promotion_drains_through_two_workers_and_no_question_fails(
    run: Path, rabbit: Rabbit, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third promotion is looked at although the queue of the first is still busy."""
    monkeypatch.setattr(promotion, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(queueing, "LOOK_SECONDS", 0.5)
    before = opened(run)
    quick = [row.configuration for row in Run.open(run).configurations if row.label.startswith("bm25/none/")]
    others = [one for one in quick if one != before.configuration.id][:2]
    known = {one.identity: one for one in (before, *(opened(run, other) for other in others))}
    first, second, third = known
    with (
        asking(before, rabbit, reopen=lambda chosen: opened(run, chosen), deadline=60.0) as service,
        asking(opened(run, before.configuration.id), rabbit, deadline=60.0) as old,
        Load(service) as load,
        Load(old, 1) as busy,
    ):
        waits_until(lambda: len(load.found) > 5)
        for other, identity in zip(others, (second, third), strict=True):
            promote(run, other)
            waits_until(lambda: identity_of(load.found[-1][2]) == identity, 120)  # noqa: B023
            end = len(load.found)
            waits_until(lambda: len(load.found) > end + 5)  # noqa: B023
    assert {status for _, status, _ in (*load.found, *busy.found)} == {200}
    named = [identity_of(body) for _, _, body in load.found]
    assert set(named) == set(known) and list(dict.fromkeys(named)) == [first, second, third]
    assert {identity_of(body) for _, _, body in busy.found} == {first}, "whoever serves the first is answered all the while"
    for text, _, body in [*load.found[::9], *busy.found[::9]]:
        assert bytes_of(body) == answer_part(known[identity_of(body)].ask(text))
        assert json.loads(body)["served"]["by"] == "model"


def test_a_question_that_ends_processes_is_given_up_and_readiness_says_when_none_is_left(
    run: Path, rabbit: Rabbit, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "LOOK_SECONDS", 0.2)
    for one in [workers.begin(), workers.begin()]:
        workers.wait(one)
    with asking(opened(run), rabbit, deadline=60.0) as service:
        metric = lambda: b"workbench_without_workers 1.0" in service.call("GET", "/metrics").body  # noqa: E731
        waits_until(lambda: service.call("GET", "/readyz").json["workers"] == MOST_LOST + 1)
        said = service.ask(f"{QUESTIONS[0]} It {KILLS} whoever takes it.", 70).json
        assert said["served"]["by"] == "fallback"
        waits_until(lambda: sum(one.poll() is not None for one in workers.processes) >= MOST_LOST)
        (left,) = (one for one in workers.processes if one.poll() is None)
        assert f"{MOST_LOST} processes that had taken it were lost" in workers.said(workers.processes.index(left))
        assert service.ask("What is asked next?", 70).json["served"]["by"] == "model"
        found = service.call("GET", "/readyz")
        assert (found.status, found.json["status"], found.json["workers"]) == (200, "ready", 1) and not metric()
        left.kill()
        waits_until(lambda: service.call("GET", "/readyz").status == 503)
        assert service.call("GET", "/readyz").json["status"] == "nobody computes" and metric()
