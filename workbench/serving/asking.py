"""The way of a question: cache, one computation for equal questions, admission, the model, and what answers in its place."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from workbench.component import digest
from workbench.errors import InputError
from workbench.pipeline import Asked, Reply, sources_json
from workbench.serving import fallbacks
from workbench.serving.batching import Flight, InProcess, Landed, Workers
from workbench.serving.breaker import Breaker
from workbench.serving.cache import DiskCache, Hit, MemoryCache
from workbench.serving.caller import NOBODY, Caller
from workbench.serving.problems import (
    InvalidError,
    NoAnswerError,
    OverloadedError,
    RateLimitedError,
    StartingError,
    TooLateError,
)

if TYPE_CHECKING:
    from workbench.pipeline import Pipeline
    from workbench.serving.redis_cache import RedisCache
    from workbench.serving.redis_server import RedisServer
    from workbench.serving.settings import ServiceSettings

log = logging.getLogger(__name__)
SETTLE_SECONDS = 2.0  # for what is noted of a question after its answer is there, when the service stops
MEMORY_BYTES = 64_000_000  # of vectors and scores that are kept in memory while serving
KEPT_STATUSES = ("ok", "prompt too long")  # they depend on the question alone

T = TypeVar("T")


class Answered(NamedTuple):
    """A whole answer.

    Attributes:
        body: JSON of the answer part: all that depends on question and pipeline alone, the same bytes however it was computed.
        served: how it was computed this time: by whom, in which seconds, how many together.
    """

    body: bytes
    served: dict[str, Any]

    def response(self, request_id: str) -> bytes:
        """The answer as it is sent: its bytes, between the request's id and how it was served."""
        served = json.dumps(self.served, ensure_ascii=False, separators=(",", ":")).encode()
        return b'{"id":%s,%s,"served":%s}' % (json.dumps(request_id).encode(), self.body[1:-1], served)


def answer_part(reply: Reply) -> bytes:
    """The bytes of a reply without what depends on the time it took."""
    values = reply.as_json()
    del values["seconds"]
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()


class Service:
    """A pipeline that is served, with what belongs to it alone: its worker, its breaker, its fallbacks.

    Attributes:
        pipeline: what was measured.
        workers: where its worker comes from.
        batcher: the worker that answers: a thread of this process, unless other processes do.
        breaker: keeps questions from a model that does not answer.
        replacements: what answers then, each behind a breaker of its own.
    """

    def __init__(self, pipeline: Pipeline, wanted: Sequence[Any], workers: Workers | None = None) -> None:
        self.pipeline = pipeline
        self.workers = workers or InProcess()
        self.batcher = self.workers.worker(pipeline)
        self.breaker = Breaker()
        self.replacements = [(one, Breaker()) for one in fallbacks.replacements(wanted, pipeline)]

    def key(self, asked: Asked) -> str:
        """What an answer is kept under: the exact question and history, of this pipeline."""
        history = [list(turn) if isinstance(turn, tuple) else turn for turn in asked.history]
        return digest([self.pipeline.identity, asked.question, history])


class Begun(NamedTuple):
    """A flight, the task that lands it, and the service that took it."""

    flight: Flight
    task: asyncio.Task[Answered]
    service: Service


class Asking:
    """Answers questions of many clients; it is used by the tasks of one event loop.

    Attributes:
        service: what is served now; another one from a promotion on.
        stopping: whether no further question is taken.
        redis: what several replicas know together; None: this is the only one.
        shared: the answers in it; None: there are none, or no texts of people may be kept.
        computed: answers that the model gave; equal questions at one time share one.
    """

    def __init__(
        self, service: Service, settings: ServiceSettings, disk: DiskCache | None = None, redis: RedisServer | None = None
    ) -> None:
        """Begins with nothing under way.

        Args:
            service: what answers.
            settings: of the service.
            disk: the answers' cache on disk, if there is one.
            redis: what several replicas know together; None: this is the only one.
        """
        self.service, self.settings, self.disk = service, settings, disk
        self.redis, self.shared = redis, _shared(redis, settings)
        self.memory = MemoryCache(int(settings.cache.memory_mb * 1e6))
        self.stopping, self.computed = False, 0
        self._flights: dict[str, Begun] = {}
        self._landing: set[asyncio.Task[Answered]] = set()
        self._clients: Counter[str] = Counter()
        self._disk_thread = ThreadPoolExecutor(1, thread_name_prefix="answers-on-disk")
        self._other_thread = ThreadPoolExecutor(1, thread_name_prefix="answering-instead")

    @property
    def under_way(self) -> int:
        """Questions that are being answered or wait."""
        return len(self._flights)

    @property
    def unsettled(self) -> int:
        """Questions whose end is not noted everywhere yet, as in the caches."""
        return len(self._landing)

    async def answer(self, asked: Asked, caller: Caller = NOBODY) -> Answered:
        """The answer to a question; raises what `growing` raises.

        Args:
            asked: the question.
            caller: who asks; those of one name have a limited number of requests under way.
        """
        async with aclosing(self.growing(asked, caller)) as replies:
            async for found in replies:
                if isinstance(found, Answered):
                    return found
        raise AssertionError("a question ends with its answer or an error")

    async def growing(self, asked: Asked, caller: Caller = NOBODY) -> AsyncGenerator[Reply | Answered, None]:
        """The answer to a question, and its beginnings while it is written.

        Args:
            asked: the question.
            caller: as in `answer`.

        Yields:
            Replies with the status ``writing``, then the answer.

        Raises:
            workbench.serving.problems.ProblemError: why there is none.
        """
        if self.stopping:
            raise StartingError("the service stops; ask again when it is back", retry_after=5)
        service = self.service
        try:
            service.pipeline.check(asked)
        except InputError as error:
            raise InvalidError(str(error)) from error
        key = service.key(asked)
        if hit := await self._kept(key):
            yield _from_cache(hit)
            return
        async with self.admitted(caller):
            async for found in self._followed(asked):
                yield found

    @asynccontextmanager
    async def admitted(self, caller: Caller) -> AsyncIterator[None]:
        """Within, a question is answered that is in no cache.

        Args:
            caller: who asks.

        Raises:
            RateLimitedError: too many of the caller's are under way.
        """
        if self._clients[caller.name] >= self.settings.serve.at_once:
            limit = self.settings.serve.at_once
            raise RateLimitedError(f"{limit} requests of this client are under way; allowed: {limit} at once", retry_after=1)
        self._clients[caller.name] += 1
        try:
            yield
        finally:
            self._clients[caller.name] -= 1
            if not self._clients[caller.name]:
                del self._clients[caller.name]

    async def search(self, question: str, k: int) -> bytes:
        """The best passages for a question and where they come from, as JSON.

        Args:
            question: the question.
            k: how many passages, at most.
        """
        if self.stopping:
            raise StartingError("the service stops; ask again when it is back", retry_after=5)
        pipeline = self.service.pipeline
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._other_thread, pipeline.search, question, k)
        values = {"question": question, "sources": sources_json(found), "provenance": pipeline.provenance()}
        return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()

    async def _followed(self, asked: Asked) -> AsyncIterator[Reply | Answered]:
        """A question's flight, joined or begun, until its answer or the deadline."""
        service = self.service  # which may be another one since the caches were asked
        key = service.key(asked)
        deadline = time.monotonic() + self.settings.serve.deadline
        if begun := self._flights.get(key):
            begun.flight.waiting += 1
            begun.flight.deadline = max(begun.flight.deadline, deadline)
        else:
            begun = self._begin(service, key, asked, deadline)
        flight, task, _ = begun
        told: Reply | None = None
        try:
            while not task.done():
                if flight.grown is not told and flight.grown is not None:
                    told = flight.grown
                    yield told
                    continue
                changed = asyncio.ensure_future(flight.changed())
                try:
                    left = deadline - time.monotonic()
                    await asyncio.wait({changed, task}, timeout=max(left, 0.0), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                if time.monotonic() >= deadline and not task.done():
                    raise TooLateError(f"there was no answer within {self.settings.serve.deadline:g} s", retry_after=5)
            yield task.result()
        finally:
            flight.waiting -= 1
            if not flight.waiting and not task.done():
                self._down(key, flight)
                flight.landed.cancel()

    def _begin(self, service: Service, key: str, asked: Asked, deadline: float) -> Begun:
        """A new flight and the task that lands it.

        Raises:
            OverloadedError: too many wait already, or for too long.
        """
        flight = Flight(asked, deadline)
        if self.shared:
            task = asyncio.ensure_future(self._leased(self.shared, service, key, flight))
        else:
            task = asyncio.ensure_future(self._landed(service, key, flight, self._submitted(service, flight)))
        self._landing.add(task)
        task.add_done_callback(self._landing.discard)
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # where nobody is left to hear it
        self._flights[key] = Begun(flight, task, service)
        return self._flights[key]

    async def _leased(self, shared: RedisCache, service: Service, key: str, flight: Flight) -> Answered:
        """The flight's answer, by whichever replica computes it."""
        try:
            async with shared.leased(key, lambda: not flight.landed.done()) as lease:
                if lease.hit:
                    self.memory.put(key, lease.hit)
                    return _from_cache(lease.hit)
                tried = not flight.landed.done() and self._submitted(service, flight)
                return await self._landed(service, key, flight, tried)
        finally:
            self._down(key, flight)

    def _submitted(self, service: Service, flight: Flight) -> bool:
        """Whether the model is asked; else the flight has landed already.

        Raises:
            OverloadedError: too many wait already, or for too long.
        """
        if not service.breaker.allows():
            flight.land(NoAnswerError("the model has not answered several times in a row"))
            return False
        try:
            self._admit(service)
        except OverloadedError:
            service.breaker.undecided()
            raise
        service.batcher.submit(flight)
        return True

    def _admit(self, service: Service) -> None:
        room, batcher = self.settings.serve, service.batcher
        if batcher.waiting >= room.queue:
            raise OverloadedError(
                f"{batcher.waiting} questions wait already, which is all that may", retry_after=math.ceil(batcher.expected_wait)
            )
        if batcher.expected_wait > room.deadline and batcher.waiting:
            raise OverloadedError(
                f"an answer would take about {batcher.expected_wait:.0f} s, and must be there within {room.deadline:g} s",
                retry_after=math.ceil(batcher.expected_wait - room.deadline),
            )

    async def _landed(self, service: Service, key: str, flight: Flight, tried: bool) -> Answered:
        """The flight's answer, kept in the cache, or that of a fallback."""
        try:
            why = ""
            try:
                landed = await self._until_late(flight)
            except (asyncio.CancelledError, StartingError, OverloadedError):
                if tried:
                    service.breaker.undecided()
                raise
            except Exception as error:
                why = self._not_answered(service, flight, error, tried)
            else:
                if landed.reply.status not in _silent():
                    service.breaker.succeeded()
                    return await self._computed(key, landed)
                service.breaker.failed()
                why = landed.reply.status
            return await self._instead(service, flight, why)
        finally:
            self._down(key, flight)

    def _down(self, key: str, flight: Flight) -> None:
        """Whoever asks from now on begins anew."""
        if (begun := self._flights.get(key)) and begun.flight is flight:
            del self._flights[key]

    async def _until_late(self, flight: Flight) -> Landed:
        """What lands, or TimeoutError once nobody waits any more for a batch that does not end."""
        while not flight.landed.done():
            left = flight.deadline - time.monotonic()  # which may move on
            if left <= 0:
                raise TimeoutError
            await asyncio.wait({flight.landed}, timeout=left)
        return flight.landed.result()

    def _not_answered(self, service: Service, flight: Flight, error: Exception, tried: bool) -> str:
        """Notes a failure of the model; says why it failed, for people."""
        if not tried:
            return str(error)
        if isinstance(error, TimeoutError):
            if flight.begun is None:
                service.breaker.undecided()  # it waited for others
            else:
                service.breaker.failed()
            return f"the model gave no answer within {self.settings.serve.deadline:g} s"
        log.error("no reply to question %s", service.key(flight.asked)[:12], exc_info=error)  # a log keeps no texts of people
        service.breaker.failed()
        return "the model failed; the log of the server says more"

    async def _computed(self, key: str, landed: Landed) -> Answered:
        reply = landed.reply
        self.computed += 1
        body = answer_part(reply)
        if reply.status in KEPT_STATUSES:
            await self._keep(key, Hit(body, time.time()))
        seconds = {name: round(value, 4) for name, value in {"queue": landed.queue_seconds, **reply.seconds}.items()}
        return Answered(body, {"by": "model", "seconds": seconds, "batch": landed.batch})

    async def _instead(self, service: Service, flight: Flight, why: str) -> Answered:
        """The first fallback's answer.

        Raises:
            TooLateError: none answers, and the deadline is over.
            NoAnswerError: none answers.
        """
        loop = asyncio.get_running_loop()
        for one, breaker in service.replacements:
            if not breaker.allows():
                continue
            try:
                left = max(flight.deadline - time.monotonic(), 1.0)
                reply = await asyncio.wait_for(loop.run_in_executor(self._other_thread, one.answer, flight.asked), left)
            except Exception as error:
                log.warning("the fallback %s did not answer: %s", one.name, error)
                breaker.failed()
                continue
            breaker.succeeded()
            seconds = {name: round(value, 4) for name, value in reply.seconds.items()}
            served = {"by": "fallback", "seconds": seconds, "fallback": fallbacks.marked(reply, one.name, why)}
            return Answered(answer_part(reply), served)
        if time.monotonic() >= flight.deadline:
            raise TooLateError(f"{why}, and nothing answers in its place", retry_after=5)
        raise NoAnswerError(f"{why}, and nothing answers in its place", retry_after=30)

    # --- What is kept -------------------------------------------------------------------------------------------

    async def _kept(self, key: str) -> Hit | None:
        hit = self.memory.get(key)
        if hit or (self.disk is None and self.shared is None):
            return hit
        if self.shared:
            hit = await self.shared.get(key)
        if self.disk and not hit:
            hit = await self._on_disk(self.disk.get, key)
        if hit:
            self.memory.put(key, hit)
        return hit

    async def _keep(self, key: str, hit: Hit) -> None:
        self.memory.put(key, hit)
        if self.shared:
            await self.shared.put(key, hit)
        if self.disk is not None:
            await self._on_disk(self.disk.put, key, hit)

    async def forget(self, keys: Sequence[str]) -> bool:
        """Removes answers from the caches; False: they may still be in one that cannot be written."""
        for key in keys:
            self.memory.forget(key)
        if not keys:
            return True
        gone = self.shared is None or await self.shared.forget(keys)
        return (self.disk is None or await self._on_disk(self.disk.forget, *keys)) and gone

    async def _on_disk(self, act: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk_thread, act, *arguments)

    # --- Stopping and changing ----------------------------------------------------------------------------------

    async def replace(self, service: Service) -> None:
        """Serves another pipeline from now on; questions under way are answered by the one that took them."""
        before, self.service = self.service, service
        while any(begun.service is before for begun in self._flights.values()):
            await asyncio.sleep(0.05)
        before.batcher.stop()

    async def stop(self) -> None:
        """Takes no further question, waits for those under way as long as there is grace, and ends them."""
        self.stopping = True
        until = time.monotonic() + self.settings.serve.grace
        while self._flights and time.monotonic() < until:
            await asyncio.sleep(0.02)
        for begun in list(self._flights.values()):
            begun.flight.land(StartingError("the service stops; ask again when it is back", retry_after=5))
        until = time.monotonic() + SETTLE_SECONDS
        while self.unsettled and time.monotonic() < until:
            await asyncio.sleep(0.02)
        self.service.batcher.stop()
        if self.disk is not None:
            await self._on_disk(self.disk.close)


def _silent() -> tuple[str, ...]:
    """Statuses of answers that a server did not give."""
    from workbench.models.served import SILENT

    return (SILENT,)


def _shared(redis: RedisServer | None, settings: ServiceSettings) -> RedisCache | None:
    if redis is None or not settings.keeps_texts:
        return None
    from workbench.serving.redis_cache import RedisCache

    return RedisCache(redis, settings.cache.days)


def _from_cache(hit: Hit) -> Answered:
    return Answered(hit.body, {"by": "cache", "seconds": {"total": 0.0}, "cached_at": _iso(hit.created)})


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
