"""What replicas know together, in Redis: answers, who computes one, and what was asked; without it each goes on alone."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Finished
from served_app import running, settings
from servers import Redis, free_port, started, waits_until
from sqlalchemy import select
from test_records import entry
from typer.testing import CliRunner

from workbench import cli
from workbench.component import digest
from workbench.errors import InputError
from workbench.pipeline import Asked, Pipeline
from workbench.serving.asking import answer_part
from workbench.serving.breaker import Breaker
from workbench.serving.cache import Hit
from workbench.serving.caller import Principal
from workbench.serving.problems import BudgetSpentError, RateLimitedError
from workbench.serving.records import people
from workbench.serving.records.database import FILE, Database
from workbench.serving.records.journal import Journal, Spent
from workbench.serving.records.tables import requests
from workbench.serving.records.writer import Writer
from workbench.serving.redis_cache import ANSWERS, LEASES, RELEASE, RedisCache, opened, packed
from workbench.serving.redis_server import RedisServer, from_environment
from workbench.serving.settings import Keeping
from workbench.serving.who.limits import Limits

HIT = Hit(b'{"question":"a\nb"}', 1_750_000_000.25)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with started(Redis, tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def pipeline(toy: Finished) -> Pipeline:
    opened = Pipeline.open(toy.run)
    opened.session.keep_in_memory(1_000_000)
    return opened


def nowhere() -> RedisServer:
    """A server that is away."""
    return RedisServer(f"redis://127.0.0.1:{free_port()}/0")


async def nothing(account: tuple[int, int]) -> int:
    return 0


# --- Without a server -------------------------------------------------------------------------------------------------


def test_an_address_that_is_none_is_refused_without_saying_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_REDIS_URL", "http://me:secret@somewhere/0")
    with pytest.raises(InputError, match=r"WORKBENCH_REDIS_URL is no address .* redis://HOST:PORT/NUMBER") as refused:
        from_environment()
    assert "secret" not in str(refused.value)
    for address in ("redis://somewhere/nine", "redis://somewhere/0?colour=red"):
        with pytest.raises(InputError, match="WORKBENCH_REDIS_URL is no address of a Redis server"):
            RedisServer(address)
    assert RedisServer("redis://me:secret@somewhere:7000/3").name == "somewhere:7000/3"
    monkeypatch.setenv("WORKBENCH_REDIS_URL", "")
    assert from_environment() is None


def test_a_value_is_taken_only_under_its_own_key_and_whole() -> None:
    kept = packed("one", HIT)
    assert opened("one", kept) == HIT
    damaged = [packed("two", HIT), kept[:-1], kept + b" ", kept.replace(b" ", b"", 1), b"", b"\xff\n", HIT.body, None, 1]
    assert [opened("one", value) for value in damaged] == [None] * len(damaged)


def test_without_the_server_each_process_counts_and_computes_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def asked() -> None:
        server = nowhere()
        cache, limits = RedisCache(server, 1.0), Limits(nothing, redis=server)
        await cache.put("one", HIT)
        assert await cache.get("one") is None and not await cache.forget(["one"])
        async with cache.leased("one", lambda: True) as lease:
            assert lease.hit is None, "it is computed here"
        principal = Principal(1, 1, 2, 100)
        await limits.count(principal)
        await limits.count(principal)
        with pytest.raises(RateLimitedError):
            await limits.count(principal)
        async with limits.admitted(principal, 60):
            with pytest.raises(BudgetSpentError, match="60 may be by what is under way"):
                async with limits.admitted(principal, 60):
                    pass
        assert server.away and server.failures == 3, "then nobody waits for it any more"
        server.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(asked())
    assert len([one for one in caplog.records if "does not answer" in one.message]) == 1


def test_a_service_that_names_no_server_loads_no_client() -> None:
    code = "import sys, workbench.serving.app, workbench.serving.recording as r; print({'redis', 'psycopg'} & {*sys.modules})"
    env = {name: value for name, value in os.environ.items() if not name.startswith("WORKBENCH_")} | {"PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert found.stdout.strip() == "set()"


# --- With a server ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_answer_of_one_replica_is_the_same_bytes_from_another(pipeline: Pipeline, redis: Redis) -> None:
    question = "What does the with statement do?"
    expected = answer_part(pipeline.ask(question))[1:-1]
    found = []
    with running(pipeline) as service:
        assert "redis" not in service.call("GET", "/readyz").json
    for _ in range(2):
        with running(pipeline, redis=RedisServer(redis.url)) as service:
            found.append(service.ask(question))
            assert service.call("GET", "/readyz").json["redis"] == "there"
    assert [one.json["served"]["by"] for one in found] == ["model", "cache"]
    assert all(b"," + expected + b',"served":' in one.body for one in found)


@pytest.mark.slow
def test_equal_questions_to_two_replicas_are_computed_once(
    pipeline: Pipeline, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, free, growing = [], threading.Event(), pipeline.growing

    def held(asked: list[Asked], wanted: Callable[[int], bool]) -> Any:
        computed.append([one.question for one in asked])
        assert free.wait(60)
        yield from growing(asked, wanted)

    monkeypatch.setattr(pipeline, "growing", held)
    with (
        running(pipeline, redis=RedisServer(redis.url)) as one,
        running(pipeline, redis=RedisServer(redis.url)) as other,
        ThreadPoolExecutor(8) as pool,
    ):
        asked = [pool.submit(service.ask, "What do both replicas get?") for service in (one, other) * 4]
        waits_until(lambda: computed and one.asking.under_way == other.asking.under_way == 1)
        time.sleep(0.2)
        free.set()
        answers = [one.result() for one in asked]
        assert computed == [["What do both replicas get?"]]
    assert {one.status for one in answers} == {200}
    parts = {one.body[one.body.index(b',"question"') : one.body.index(b',"served":')] for one in answers}
    assert len(parts) == 1
    assert {one.json["served"]["by"] for one in answers} == {"model", "cache"}


@pytest.mark.slow
def test_an_answer_that_is_fetched_later_can_be_fetched_from_another_replica(
    pipeline: Pipeline, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, growing = threading.Event(), pipeline.growing

    def held(asked: list[Asked], wanted: Callable[[int], bool]) -> Any:
        assert free.wait(60)
        if asked[0].question == "What fails?":
            raise RuntimeError("it fails")
        yield from growing(asked, wanted)

    monkeypatch.setattr(pipeline, "growing", held)
    records = tmp_path / FILE
    with (
        running(pipeline, settings(fallback=()), redis=RedisServer(redis.url), records=Database(records)) as one,
        running(pipeline, settings(fallback=()), redis=RedisServer(redis.url), records=Database(records)) as other,
    ):
        places = [
            one.call("POST", "/v1/answers", {"question": text}, prefer="respond-async").headers["location"]
            for text in ("What is fetched elsewhere?", "What fails?")
        ]
        for place in places:
            pending = other.call("GET", place)
            assert (pending.status, pending.json["status"], pending.headers["retry-after"]) == (202, "accepted", "1")
        free.set()
        waits_until(lambda: all(one.call("GET", place).status != 202 for place in places))
        waits_until(lambda: other.call("GET", places[0]).status == 200)
        here, there = (service.call("GET", places[0]).body for service in (one, other))
        assert here[: here.index(b',"served":')] == there[: there.index(b',"served":')]
        refused = [service.call("GET", places[1]) for service in (one, other)]
        assert [found.status for found in refused] == [503, 503] and refused[0].json["detail"] == refused[1].json["detail"]
        assert other.call("GET", "/v1/answers/nobodys").status == 404


@pytest.mark.slow
def test_a_service_that_stops_gives_back_its_lease_and_has_written_what_it_answered(
    pipeline: Pipeline, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, script = "What is answered at the very end?", RedisCache._script

    async def slow(cache: RedisCache, text: str, *more: Any) -> Any:
        if text == RELEASE:
            await asyncio.sleep(0.5)  # the answer is there, and the service stops
        return await script(cache, text, *more)

    monkeypatch.setattr(RedisCache, "_script", slow)
    with (
        ThreadPoolExecutor(1) as pool,  # which would wait for the answer, if it ended before the service
        running(pipeline, redis=RedisServer(redis.url), records=Database(tmp_path / FILE)) as service,
    ):
        asked = pool.submit(service.ask, question)
        waits_until(lambda: service.asking.computed == 1)
    assert asked.result().status == 200
    with closing(RedisServer(redis.url)) as server:
        assert not list(server.client.scan_iter(LEASES + "*")), "the lease is given back"
    with closing(Database(tmp_path / FILE)) as records, records.reading() as connection:
        assert connection.execute(select(requests.c.http_status)).scalars().all() == [200]


@pytest.mark.slow
def test_the_lease_of_a_process_that_died_ends_and_another_computes(redis: Redis) -> None:
    async def asked() -> float:
        server = RedisServer(redis.url)
        cache, began = RedisCache(server, 1.0), time.monotonic()
        server.client.set(LEASES + "dead", "somebody", px=700)
        async with cache.leased("dead", lambda: True) as lease:
            assert lease.hit is None
            assert server.client.get(LEASES + "dead") != b"somebody"
            took = time.monotonic() - began
        assert server.client.get(LEASES + "dead") is None, "it is given back"
        async with cache.leased("dead", lambda: True):
            server.client.set(LEASES + "dead", "somebody", px=60_000)
        assert server.client.get(LEASES + "dead") == b"somebody", "another's lease is left alone"
        left = iter([True, True, False])
        async with cache.leased("dead", lambda: next(left)) as lease:
            assert lease.hit is None, "nobody waits any more"
        server.client.set(ANSWERS + "dead", packed("another", HIT))
        server.client.delete(LEASES + "dead")
        async with cache.leased("dead", lambda: True) as lease:
            assert lease.hit is None, "the answer to another question is none to this one"
        server.close()
        return took

    assert 0.5 < asyncio.run(asked()) < 10


@pytest.mark.slow
def test_an_answer_is_kept_for_its_days_and_removed_from_all_replicas(redis: Redis) -> None:
    async def asked() -> None:
        server = RedisServer(redis.url)
        cache = RedisCache(server, 2.0, clock=lambda: HIT.created + 86_400)
        await cache.put("one", HIT)
        assert 86_000 < server.client.ttl(ANSWERS + "one") <= 86_400
        assert await cache.get("one") == HIT
        assert await cache.forget(["one", "none"]) and await cache.get("one") is None
        await RedisCache(server, 0.5, clock=lambda: HIT.created + 86_400).put("old", HIT)
        assert server.client.get(ANSWERS + "old") is None
        server.close()

    asyncio.run(asked())


@pytest.mark.slow
def test_two_replicas_count_questions_and_tokens_together(redis: Redis) -> None:
    async def asked() -> None:
        servers = [RedisServer(redis.url) for _ in range(2)]
        one, other = (Limits(nothing, redis=server) for server in servers)
        few = Principal(7, 7, 3)
        for limits in (one, other, one):
            await limits.count(few)
        for limits in (one, other):
            with pytest.raises(RateLimitedError, match="more than 3 questions within a minute"):
                await limits.count(few)
        budget = Principal(8, 8, None, 100)
        async with one.admitted(budget, 40), other.admitted(budget, 40):
            with pytest.raises(BudgetSpentError, match="80 may be by what is under way"):
                async with one.admitted(budget, 40):
                    pass
            one.use(budget, 70)
        with pytest.raises(BudgetSpentError, match="70 tokens are used today"):
            async with other.admitted(budget, 40):
                pass
        async with other.admitted(budget, 30):
            pass
        for server in servers:
            server.close()

    asyncio.run(asked())


@pytest.mark.slow
def test_texts_that_are_not_to_be_kept_are_not_in_redis(pipeline: Pipeline, redis: Redis) -> None:
    wanted = settings(more={"keep": Keeping(texts=False)})
    server = RedisServer(redis.url)
    server.client.set(ANSWERS + "earlier", packed("earlier", HIT))
    with running(pipeline, wanted, redis=server) as service:
        assert service.ask("What does nobody keep?").status == 200
        assert list(server.client.scan_iter(ANSWERS + "*")) == []
    with pytest.raises(InputError, match="cannot be removed from Redis"):
        running(pipeline, wanted, redis=nowhere()).__enter__()


@pytest.mark.slow
def test_a_server_that_is_killed_costs_no_answer_and_comes_back_by_itself(
    pipeline: Pipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    questions = [f"What is asked as number {number}?" for number in range(36)]
    expected = {question: answer_part(pipeline.ask(question))[1:-1] for question in questions}
    with started(Redis, tmp_path) as redis, caplog.at_level(logging.WARNING):
        server = RedisServer(redis.url, Breaker(rest_seconds=0.5))
        with running(pipeline, redis=server) as service:

            def right(question: str) -> bool:
                found = service.ask(question)
                return found.status == 200 and expected[question] in found.body

            def state() -> tuple[str, str, float]:
                found = service.call("GET", "/readyz")
                assert found.status == 200, "it takes questions all the time"
                line = next(
                    one
                    for one in service.call("GET", "/metrics").body.decode().split("\n")
                    if one.startswith("workbench_redis_away ")
                )
                return found.json["status"], found.json["redis"], float(line.rpartition(" ")[2])

            assert all(map(right, questions[:10])) and state() == ("ready", "there", 0.0)
            redis.end(signal.SIGKILL)
            assert all(map(right, questions[:20])), "also those that it had"
            assert state() == ("degraded", "away", 1.0)
            redis.start()
            waits_until(lambda: state() == ("ready", "there", 0.0), 20)
            assert all(map(right, questions[:30]))
            assert server.client.dbsize() >= 10, "what is computed from now on is shared again"
            redis.tell(signal.SIGSTOP)  # it hangs
            try:
                assert all(map(right, questions)) and state() == ("degraded", "away", 1.0)
            finally:
                redis.tell(signal.SIGCONT)
    said = [one.message for one in caplog.records if "Redis at" in one.message]
    assert sum("does not answer" in one for one in said) == 2, said


@pytest.mark.slow
def test_a_server_that_refuses_is_said_at_the_start(tmp_path: Path) -> None:
    with started(Redis, tmp_path) as redis:
        redis_server = RedisServer(redis.url)
        redis_server.client.config_set("requirepass", "secret")
        with pytest.raises(InputError, match=r"WORKBENCH_REDIS_URL: .* refuses .*name the user and password"):
            RedisServer(redis.url).check()
        RedisServer(redis.url.replace("redis://", "redis://:secret@")).check()


@pytest.mark.slow
def test_whoever_is_forgotten_is_forgotten_in_redis(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = RedisServer(redis.url)
    with closing(Database(tmp_path / ".service" / FILE)) as records:
        with records.writing() as connection:
            ann = people.add_user(connection, "ann")
        writer = Writer(records)
        for name, user in (("mine", ann), ("another's", None)):
            Journal(writer, Keeping(), print).write(entry(name, user, name), Spent()).result(30)
            server.client.set(ANSWERS + digest(name), packed(digest(name), HIT))
        writer.stop()
    monkeypatch.setenv("WORKBENCH_REDIS_URL", redis.url)
    done = CliRunner().invoke(cli.app, ["users", "forget", "ann", "--runs", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert [server.client.exists(ANSWERS + digest(name)) for name in ("mine", "another's")] == [0, 1]
