"""Two replicas behind nginx, sharing Redis and PostgreSQL: what clients see while parts of it are killed and come back."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT, Finished, program
from servers import Postgres as PostgresServer
from servers import Process, Redis, free_port, started, waits_until
from sqlalchemy import func, select

from workbench.pipeline import Pipeline
from workbench.results.run import Run
from workbench.serving.asking import answer_part
from workbench.serving.records import people
from workbench.serving.records.postgres import Postgres
from workbench.serving.records.tables import requests
from workbench.serving.records.tables import votes as votes_table

pytestmark = pytest.mark.slow

DEPLOY = ROOT / "workbench" / "serving" / "deploy"
QUESTIONS = [f"What is asked as number {number}?" for number in range(400)]


class Replica(Process):
    """`workbench serve` in a process of its own; what it serves is read when it starts."""

    def __init__(self, folder: Path, served: Path, port: int, env: dict[str, str]) -> None:
        self.port, self.served = port, served
        super().__init__([], folder / f"replica-{port}.log", self.ready, cwd=folder, env=env)

    def start(self) -> float:
        """Starts it on the run that is served now; the seconds until it is ready."""
        run = self.served.read_text()
        self.command = [
            sys.executable,
            "-m",
            "workbench.cli",
            "serve",
            run,
            "--port",
            str(self.port),
            "--settings",
            "service.yaml",
        ]
        return super().start()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an address of this machine alone."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with closing(connection):
            connection.request("GET", path, headers={"authorization": f"Bearer {KEYS[0]}"} if KEYS else {})
            response = connection.getresponse()
            return response.status, response.read().decode()

    def ready(self) -> bool:
        """Whether it takes questions."""
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def computed(self) -> float:
        """How many answers its model has given."""
        (line,) = re.findall(r"^workbench_answers_computed_total (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return float(line)


KEYS: list[str] = []  # of the user who asks


class House(NamedTuple):
    """Everything that runs, the bytes that are right for each identity, and how to reach it."""

    folder: Path
    replicas: tuple[Replica, Replica]
    redis: Redis
    postgres: PostgresServer
    nginx: Process
    port: int
    trusted: ssl.SSLContext
    served: Path
    runs: dict[str, Path]  # identity -> run whose promoted configuration has it
    right: dict[str, Callable[[str], bytes]]

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """One request by the proxy."""
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=60, context=self.trusted)
        with closing(connection):
            headers = {"content-type": "application/json", "authorization": f"Bearer {KEYS[0]}"}
            connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            response = connection.getresponse()
            return response.status, response.read()


def proxied(folder: Path, ports: tuple[int, int]) -> tuple[Process, int, ssl.SSLContext]:
    """nginx before two replicas, as `deploy/nginx.conf` has it, with a certificate of its own."""
    nginx, openssl, port = program("nginx", "nginx-light"), program("openssl", "openssl"), free_port()
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run(
        [*made, "-keyout", folder / "key.pem", "-out", folder / "fullchain.pem"], check=True, capture_output=True, timeout=60
    )
    conf = (DEPLOY / "nginx.conf").read_text().replace("listen 443", f"listen 127.0.0.1:{port}")
    conf = conf.replace("# server 127.0.0.1:7861", "server 127.0.0.1:7861").replace("answers.example", "localhost")
    for written, used in zip(("7860", "7861"), ports, strict=True):
        conf = conf.replace(f"127.0.0.1:{written}", f"127.0.0.1:{used}")
    conf = conf.replace("/etc/ssl/answers", str(folder))
    (folder / "nginx.conf").write_text(f"pid {folder}/nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n{conf}\n}}\n")
    alone = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "nginx.log"), "-g", alone]
    trusted = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))

    def listens() -> bool:
        try:
            urllib.request.urlopen(f"https://localhost:{port}/readyz", timeout=5, context=trusted)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    return Process(command, folder / "nginx.out", listens), port, trusted


def promoted_otherwise(toy: Finished) -> Path:
    """A copy of the run in the same folder of runs, with another promoted configuration that answers."""
    copied = shutil.copytree(toy.run, toy.run.with_name(f"{toy.run.name}-2"))
    run = Run.open(copied)
    now = Pipeline.open(run).configuration.id
    reported = [row.configuration for row in run.leaderboard if row.split == run.report_split]
    run.promote(next(one for one in reported if one != now))
    return copied


@pytest.fixture(scope="module")
def house(toy: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("replicas")
    (folder / "service.yaml").write_text("who: {open: never, per_minute: 100000}\nserve: {grace: 5.0}\n")
    served = folder / "served"
    served.write_text(str(toy.run))
    runs, right = {}, {}
    for run in (toy.run, promoted_otherwise(toy)):
        pipeline = Pipeline.open(run)
        pipeline.session.keep_in_memory(1_000_000)
        runs[pipeline.identity] = run
        right[pipeline.identity] = known(pipeline)
    with (
        started(Redis, folder) as redis,
        started(PostgresServer, folder) as postgres,
        closing(Postgres(postgres.url)) as records,
    ):
        with records.writing() as connection:
            KEYS[:] = [people.add_key(connection, people.add_user(connection, "ann"))]
        env = os.environ | {
            "PYTHONPATH": str(ROOT), "WORKBENCH_REDIS_URL": redis.url, "WORKBENCH_DATABASE_URL": postgres.url,
            "WORKBENCH_JWT_KEY": "one secret of thirty-two bytes for both", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        ports = free_port(), free_port()
        replicas = Replica(folder, served, ports[0], env), Replica(folder, served, ports[1], env)
        nginx, port, trusted = proxied(folder, ports)
        try:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(Replica.start, replicas))
            nginx.start()
            yield House(folder, replicas, redis, postgres, nginx, port, trusted, served, runs, right)
        finally:
            nginx.end()
            for one in replicas:
                one.end(signal.SIGKILL)


def known(pipeline: Pipeline) -> Callable[[str], bytes]:
    """The bytes of answers, each computed once in this process."""
    kept: dict[str, bytes] = {}
    lock = threading.Lock()

    def right(question: str) -> bytes:
        with lock:
            if question not in kept:
                kept[question] = answer_part(pipeline.ask(question))[1:-1]
            return kept[question]

    return right


class Load:
    """Clients that ask and vote until they are stopped; what came back is held against what is right at the end."""

    def __init__(self, house: House, clients: int = 3, pause: float = 0.05) -> None:
        self.house, self.pause = house, pause
        self.answers: list[tuple[float, str, bytes]] = []
        self.votes: list[tuple[float, str, int]] = []
        self.errors: Counter[str] = Counter()
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(number,)) for number in range(clients)]

    def ask(self, number: int) -> None:
        """Asks one question after another, half of them asked by all, and votes on each answer twice."""
        chosen = random.Random(number)
        while not self.stopped.is_set():
            question = chosen.choice(QUESTIONS[:40])
            try:
                status, body = self.house.call("POST", "/v1/answers", {"question": question})
                if status != 200:
                    self.errors[f"question {status}"] += 1
                    continue
                self.answers.append((time.monotonic(), question, body))
                name = json.loads(body)["id"]
                for vote in (1, -1):
                    status, _ = self.house.call("PUT", f"/v1/answers/{name}/vote", {"vote": vote})
                    if status == 204:
                        self.votes.append((time.monotonic(), name, vote))
                    else:
                        self.errors[f"vote {status}"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.errors[type(error).__name__] += 1
            time.sleep(self.pause)

    def check(self) -> None:
        """Every answer is right for the identity that it names; every acknowledged vote is there, once, as it was last given."""
        for _, question, body in self.answers:
            identity = json.loads(body)["provenance"]["identity"]
            assert self.house.right[identity](question) in body, question
        last = {name: vote for _, name, vote in self.votes}
        with closing(Postgres(self.house.postgres.url)) as records, records.reading() as connection:
            wanted = select(requests.c.id, votes_table.c.vote).join(votes_table).where(requests.c.id.in_(list(last)))
            found = connection.execute(wanted).all()
        assert len(found) == len(last), "each acknowledged vote is there once"
        wrong = {row.id for row in found if row.vote != last[row.id]}
        assert len(wrong) <= self.errors.total(), "only one whose successor was not acknowledged may be another"


@contextmanager
def loaded(house: House, **more: Any) -> Iterator[Load]:
    load = Load(house, **more)
    for thread in load.threads:
        thread.start()
    try:
        yield load
    finally:
        load.stopped.set()
        for thread in load.threads:
            thread.join(120)
    load.check()


def grows(load: Load, more: int = 6) -> Callable[[], bool]:
    """Whether more answers and votes have come since now."""
    answers, votes = len(load.answers), len(load.votes)
    return lambda: len(load.answers) >= answers + more and len(load.votes) >= votes + more


def told(what: str, load: Load, **more: float) -> None:
    """Shows what clients saw, for docs/log.md (`pytest -s`)."""
    said = ", ".join(f"{name} {value:.1f}" for name, value in more.items())
    sys.stderr.write(f"\n{what}: {len(load.answers)} answers, {len(load.votes)} votes, errors {dict(load.errors)}; {said}\n")


# --- What two replicas know together ----------------------------------------------------------------------------------


def test_equal_questions_to_both_replicas_are_generated_once(house: House) -> None:
    before = [one.computed() for one in house.replicas]
    for number in range(5):
        question, found = f"What do all ask as number {number}?", []
        asking = [
            threading.Thread(target=lambda: found.append(house.call("POST", "/v1/answers", {"question": question})))  # noqa: B023
            for _ in range(6)
        ]
        for one in asking:
            one.start()
        for one in asking:
            one.join(120)
        assert [status for status, _ in found] == [200] * 6
        assert all(house.right[json.loads(body)["provenance"]["identity"]](question) in body for _, body in found)
    computed = [now.computed() - then for now, then in zip(house.replicas, before, strict=True)]
    assert sum(computed) == 5, f"one generation for each question: {computed}"


# --- Parts that are killed --------------------------------------------------------------------------------------------


def test_redis_killed_and_returned_costs_no_answer_and_no_vote(house: House) -> None:
    with loaded(house) as load:
        waits_until(grows(load))
        house.redis.end(signal.SIGKILL)
        waits_until(grows(load, 12))
        waits_until(lambda: all('"degraded"' in one.get("/readyz")[1] for one in house.replicas))
        house.redis.start()
        back = waits_until(lambda: all('"ready"' in one.get("/readyz")[1] for one in house.replicas))
        waits_until(grows(load))
    assert load.errors.total() == 0, load.errors
    told("Redis killed and returned", load, seconds_until_used_again=back)


def test_postgres_restarted_loses_nothing_that_was_acknowledged(house: House) -> None:
    with loaded(house) as load:
        waits_until(grows(load))
        house.postgres.end(signal.SIGQUIT)  # as after a crash
        time.sleep(1.5)
        said = [house.call("POST", "/v1/answers", {"question": QUESTIONS[0]}) for _ in range(6)]
        house.postgres.start()
        back = waits_until(grows(load))
    assert set(load.errors) <= {"question 503", "vote 503", "vote 404"}, load.errors
    told("PostgreSQL crashed and restarted", load, seconds_until_six_more_votes=back)
    kinds = {(status, json.loads(body)["type"]) for status, body in said}
    assert kinds == {(503, "urn:workbench:problem:records-unavailable")}, "the service says so, and not that there is none"
    with closing(Postgres(house.postgres.url)) as records, records.reading() as connection:
        asked = [json.loads(body)["id"] for _, _, body in load.answers]
        kept = connection.execute(select(func.count()).select_from(requests).where(requests.c.id.in_(asked))).scalar_one()
    assert kept == len(asked), "the records of all answers were written afterwards"


def test_a_replica_killed_under_load_costs_no_acknowledged_vote(house: House) -> None:
    with loaded(house) as load:
        waits_until(grows(load))
        house.replicas[0].end(signal.SIGKILL)
        alone = waits_until(grows(load))
        back = house.replicas[0].start()
        waits_until(grows(load))
    told("one replica killed", load, seconds_until_six_more=alone, seconds_until_ready_again=back)
    assert set(load.errors) <= {"vote 404"} and load.errors.total() <= 6, f"on answers whose record died with it: {load.errors}"


# --- A promotion rolled through them ----------------------------------------------------------------------------------


SYSTEMCTL = """#!/bin/sh
[ "$1" = restart ] || exit 1
echo "${2#workbench@}" > restarting && while [ -e restarting ]; do sleep 0.1; done
"""  # what the runbook calls, where no systemd runs: whoever starts the replicas is told


def test_a_promotion_is_rolled_through_the_replicas_and_each_answer_names_what_gave_it(house: House) -> None:
    first, second = house.runs
    (block,) = re.findall(r"```sh\n(for port in 7860 7861.*?)```", (ROOT / "docs" / "replicas.md").read_text(), re.DOTALL)
    (house.folder / "bin").mkdir()
    (house.folder / "bin" / "systemctl").write_text(SYSTEMCTL)
    (house.folder / "bin" / "systemctl").chmod(0o755)
    for written, one in zip(("7860", "7861"), house.replicas, strict=True):
        block = block.replace(written, str(one.port))
    asked = house.folder / "restarting"
    with loaded(house) as load:
        waits_until(grows(load))
        began = time.monotonic()
        house.served.write_text(str(house.runs[second]))
        path = f"{house.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        rolling = subprocess.Popen(["sh", "-eu", "-c", block], cwd=house.folder, env=os.environ | {"PATH": path})
        try:
            while rolling.poll() is None:
                if asked.exists() and (port := asked.read_text().strip()):
                    (one,) = (one for one in house.replicas if str(one.port) == port)
                    one.end(signal.SIGTERM)
                    one.start()
                    asked.unlink()
                time.sleep(0.05)
        finally:
            if rolling.poll() is None:
                rolling.kill()
        assert rolling.returncode == 0
        took = time.monotonic() - began
        waits_until(grows(load, 12))
        end = len(load.answers)
        waits_until(grows(load, 12))
    told("a promotion rolled through", load, seconds=took)
    named = [json.loads(body)["provenance"]["identity"] for _, _, body in load.answers]
    assert set(named) == {first, second}
    assert set(named[end:]) == {second}
    assert list(itertools.groupby(named[:3])) and named[0] == first
    assert load.errors.total() == 0, load.errors
