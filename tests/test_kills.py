"""Two replicas that share Redis and have two workers answer by way of RabbitMQ, while both servers are killed and come back."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Finished
from rabbit import Rabbit
from servers import Redis, free_port, started, waits_until
from sqlalchemy import select
from test_replicas import Replica, known
from toys import PLACES
from workers import Workers, bytes_of

from workbench.pipeline import Pipeline
from workbench.serving.records.database import FILE, Database
from workbench.serving.records.tables import requests
from workbench.serving.records.tables import votes as votes_table

pytestmark = pytest.mark.soak

SETTINGS = """
who: {{per_minute: 100000}}
serve: {{deadline: 60.0, grace: 5.0}}
cache: {{folder: {folder}, disk_mb: 0}}
"""


class Load:
    """Clients that ask, every third question to be fetched later, and vote on what they got, until they are stopped."""

    def __init__(self, replicas: tuple[Replica, Replica], clients: int = 4) -> None:
        self.replicas = replicas
        self.answers: list[tuple[str, bytes]] = []
        self.votes: dict[str, int] = {}
        self.accepted, self.slowest = 0, 0.0
        self.errors: Counter[str] = Counter()
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(120)

    def ask(self, client: int) -> None:
        """One question after another, to either replica; half of them are asked by all."""
        chosen, number = random.Random(client), 0
        while not self.stopped.is_set():
            number += 1
            shared = number % 2
            case = chosen.randrange(30) if shared else f"{number} of client {client}"
            text = f"What does the {chosen.choice(PLACES)} keep? Case {case}."
            replica, began = self.replicas[chosen.randrange(2)], time.monotonic()
            found = self.fetched(replica, text) if number % 3 == 0 else self.answered(replica, text)
            self.slowest = max(self.slowest, time.monotonic() - began)
            if found is not None:
                self.answers.append((text, found))
                self.vote(replica, json.loads(found)["id"])
            time.sleep(0.05)

    def call(self, replica: Replica, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=90)
        with closing(connection):
            sent = None if body is None else json.dumps(body).encode()
            connection.request(method, path, sent, {"content-type": "application/json"} | headers)
            response = connection.getresponse()
            return response.status, response.read()

    def answered(self, replica: Replica, text: str) -> bytes | None:
        """The response to a question; None: it was refused, which is counted."""
        status, body = self.call(replica, "POST", "/v1/answers", {"question": text})
        if status != 200:
            self.errors[f"question {status} {json.loads(body)['type']}"] += 1
        return body if status == 200 else None

    def fetched(self, replica: Replica, text: str) -> bytes | None:
        """The response to a question that was accepted first."""
        status, body = self.call(replica, "POST", "/v1/answers", {"question": text}, prefer="respond-async")
        if status != 202:
            self.errors[f"later {status}"] += 1
            return None
        self.accepted += 1
        while status == 202:
            time.sleep(0.1)
            status, body = self.call(replica, "GET", f"/v1/answers/{json.loads(body)['id']}")
        if status != 200:
            self.errors[f"accepted, then {status} {json.loads(body)['type']}"] += 1
        return body if status == 200 else None

    def vote(self, replica: Replica, name: str) -> None:
        """Votes up, then down instead."""
        for vote in (1, -1):
            status, _ = self.call(replica, "PUT", f"/v1/answers/{name}/vote", {"vote": vote})
            if status == 204:
                self.votes[name] = vote
            else:
                self.errors[f"vote {status}"] += 1


@pytest.fixture
def rabbit(tmp_path: Path) -> Iterator[Rabbit]:
    (tmp_path / "rabbit").mkdir()
    made = Rabbit(tmp_path / "rabbit")
    try:
        made.start()
        yield made
    finally:
        made.end()


def test_redis_and_rabbitmq_killed_under_load_lose_nothing_that_was_acknowledged(
    toy: Finished, tmp_path: Path, rabbit: Rabbit
) -> None:
    pipeline = Pipeline.open(toy.run)
    pipeline.session.keep_in_memory(1_000_000)
    right: Callable[[str], bytes] = known(pipeline)
    (tmp_path / "service.yaml").write_text(SETTINGS.format(folder=tmp_path / "records"))
    (tmp_path / "served").write_text(str(toy.run))
    with started(Redis, tmp_path) as redis:
        env = os.environ | {
            "PYTHONPATH": str(ROOT), "WORKBENCH_REDIS_URL": redis.url, "WORKBENCH_BROKER_URL": rabbit.url,
            "WORKBENCH_JWT_KEY": "one secret of thirty-two bytes for both", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        ports = free_port(), free_port()
        replicas = tuple(Replica(tmp_path, tmp_path / "served", port, env) for port in ports)
        first, second = replicas
        workers = Workers(toy.run, rabbit, tmp_path)
        try:
            begun = [workers.begin(), workers.begin()]
            for one in begun:
                workers.wait(one)
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(Replica.start, replicas))
            state = lambda: [json.loads(one.get("/readyz")[1]) for one in replicas]  # noqa: E731
            with Load((first, second)) as load:
                waits_until(lambda: len(load.answers) > 20)
                redis.end(signal.SIGKILL)
                rabbit.kill()
                waits_until(lambda: all(one["status"] == "degraded" and one["broker"] == "away" for one in state()))
                before = len(load.answers)
                redis.start()
                rabbit.start()
                there = {"status": "ready", "broker": "there", "redis": "there", "workers": 2}
                back = waits_until(lambda: all(there.items() <= one.items() for one in state()))
                during, now = len(load.answers) - before, len(load.answers)
                waits_until(lambda: len(load.answers) > now + 20)
        finally:
            workers.end()
            for one in replicas:
                one.end(signal.SIGTERM)
    assert load.errors.total() == 0, load.errors
    by = Counter(json.loads(body)["served"]["by"] for _, body in load.answers)
    for text, body in load.answers:
        if json.loads(body)["served"]["by"] != "fallback":
            assert bytes_of(body) == b"{" + right(text) + b"}", text
    with closing(Database(tmp_path / "records" / FILE)) as records, records.reading() as connection:
        rows = connection.execute(select(requests.c.id, votes_table.c.vote).join(votes_table)).all()
    assert sorted((row.id, row.vote) for row in rows) == sorted(load.votes.items()), (
        "each vote is there once, as it was last given"
    )
    sys.stderr.write(
        f"\n{len(load.answers)} answers {dict(by)}, {load.accepted} of them fetched later, {len(load.votes)} votes; {during} "
        f"answers until all was used again, {back:.1f} s after both servers ran; the slowest took {load.slowest:.1f} s\n"
    )
