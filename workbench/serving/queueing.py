"""Questions are answered by other processes, which take them from a queue of a broker; here is the side that asks.

The queue bears the identity of what is served, so that nobody else's answers come back, and a promotion leaves the old queue to
those who read it. A question is sent again until the broker has confirmed it. What a lost worker had taken, the broker hands to
another; an answer that comes twice is taken once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from workbench.errors import InputError
from workbench.serving.batching import FIRST_GUESS_SECONDS, Flight, Landed, most_together
from workbench.serving.broker import AGAIN_SECONDS, Broker, FullError, UnreachableError
from workbench.serving.messages import Sent, Told, question, read_told
from workbench.serving.problems import NoAnswerError, OverloadedError

if TYPE_CHECKING:
    from workbench.pipeline import Pipeline

DOWN_SECONDS = 15.0  # without a broker, after which questions do not wait for it any more
KEPT_SECONDS = 60  # that replies wait for a process whose connection is lost
LOOK_SECONDS = 5.0  # between two looks at how many processes take from a queue
SEEN_SECONDS = 60.0  # after which a worker that told nothing is not counted any more

log = logging.getLogger(__name__)


def queue_of(identity: str) -> str:
    """Name of the queue of the questions that a pipeline answers."""
    return f"answers.{identity}"


class AnswerError(RuntimeError):
    """A worker failed at a question, for the reason that it told."""


class Queue:
    """The workers behind a broker.

    Attributes:
        here: whether this process computes answers.
        broker: the connection.
        replies: name of the queue of this process's replies.
        known: the queues that questions are sent to.
    """

    here = False

    def __init__(self, url: str, most: int) -> None:
        """Connects to nothing yet.

        Args:
            url: of the broker.
            most: questions that wait in a queue.
        """
        self.broker, self.most = Broker(url), most
        self.replies = f"replies.{uuid.uuid4().hex}"
        self.sent: dict[str, tuple[Queued, Flight]] = {}
        self.known: WeakSet[Queued] = WeakSet()

    def worker(self, pipeline: Pipeline) -> Queued:
        """Who computes what a pipeline answers."""
        return self.named(queue_of(pipeline.identity), most_together(pipeline))

    def named(self, name: str, most: int) -> Queued:
        """Those who take from a queue of that name, so many at once."""
        found = Queued(self, name, most)
        self.known.add(found)
        return found

    @property
    def away(self) -> bool:
        """Whether there is no connection to the broker now."""
        return self.broker.down_seconds > 0

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Within, questions can be sent and replies come in.

        Raises:
            InputError: the broker cannot be used.
        """
        await self.broker.open()
        try:
            self.channel = await self.broker.channel()
            arguments = {"x-expires": KEPT_SECONDS * 1000}  # its name is drawn by lot, and nobody else knows it
            replies = await self.channel.declare_queue(self.replies, durable=True, arguments=arguments)
            await replies.consume(self._told, no_ack=True)
            await self._look()
            looking = asyncio.ensure_future(self._look_again())
            try:
                yield
            finally:
                looking.cancel()
        finally:
            await self.broker.close()

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._look()

    async def _look(self) -> None:
        """Counts who takes from each queue; what cannot be asked now stays as it was."""
        for worker in list(self.known):
            try:
                await worker.count()
            except UnreachableError:
                continue
            except InputError as error:
                if not worker.refused:
                    log.error("questions cannot be sent: %s", error)
                worker.refused = True

    async def _told(self, message: Any) -> None:
        worker, flight = self.sent.get(message.correlation_id or "", (None, None))
        if worker is None or flight is None:
            return  # nobody waits for it any more
        try:
            worker.told(flight, read_told(message.body))
        except InputError as error:
            log.error("the reply to a question cannot be read: %s", error)


class Queued:
    """Those who take questions from one queue.

    Attributes:
        queue: their connection, and what was sent over it.
        name: of the queue.
        most: questions in a batch of one of them.
        seconds: that a batch takes.
        takers: processes that take from it, when they were last counted.
        refused: whether the broker was found to refuse the queue.
    """

    busy_seconds = 0.0  # this process computes nothing, so it cannot hang at it

    def __init__(self, queue: Queue, name: str, most: int) -> None:
        self.queue, self.name, self.most = queue, name, most
        self.seconds, self.takers, self.refused = FIRST_GUESS_SECONDS, 0, False
        self._seen: dict[str, float] = {}  # when each worker last told something
        self._declared = False
        self._carrying: set[asyncio.Task[None]] = set()

    @property
    def nobody(self) -> str | None:
        """Why nobody computes now; None: somebody did when they were last counted."""
        if self.takers:
            return None
        return f"no process takes questions from the queue {self.name}; start one with `workbench work RUN`"

    @property
    def waiting(self) -> int:
        """Flights that no batch has taken yet, of this process."""
        return sum(worker is self and flight.begun is None for worker, flight in self.queue.sent.values())

    @property
    def expected_wait(self) -> float:
        """Seconds until a question that comes now has its answer, about, as far as the workers are known."""
        now = time.monotonic()
        self._seen = {name: at for name, at in self._seen.items() if now - at < SEEN_SECONDS}
        together = self.most * max(len(self._seen), 1)
        return self.seconds * (self.waiting // together + 1 + (len(self.queue.sent) > self.waiting))

    def submit(self, flight: Flight) -> None:
        """Sends a flight's question."""
        task = asyncio.ensure_future(self._carried(flight))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    def stop(self) -> None:
        """Nobody counts any more who takes from the queue; there is nothing to end, since they are other processes."""
        self.queue.known.discard(self)

    def told(self, flight: Flight, said: Told) -> None:
        """Takes what a worker told of a question."""
        now = time.monotonic()
        self._seen[said.worker] = now
        if said.what == "begun":
            flight.begin(now)
        elif said.what == "grown" and said.reply:
            if flight.grown is None or len(said.reply.reply) > len(flight.grown.reply):  # else a second worker has begun anew
                flight.grow(said.reply)
        elif said.what == "landed" and said.reply:
            begun = now if flight.begun is None else flight.begun
            self.seconds += 0.3 * (now - begun - self.seconds)
            flight.land(Landed(said.reply, said.batch, begun - flight.submitted))
        elif said.what == "failed":
            flight.land(AnswerError(said.why))
        elif said.what == "full":
            flight.land(OverloadedError(said.why, retry_after=math.ceil(self.expected_wait)))

    async def _carried(self, flight: Flight) -> None:
        """Sends a question until it is answered or nobody waits any more.

        A message holds until the deadline that the question had when it was sent; whoever joined it later waits longer, so it is
        sent again then.
        """
        numbers = []
        try:
            while flight.wanted and not flight.landed.done():
                numbers.append(uuid.uuid4().hex)
                self.queue.sent[numbers[-1]] = (self, flight)
                until = await self._send(numbers[-1], flight)
                await asyncio.wait({flight.landed}, timeout=max(until - time.monotonic(), 0.0))
        except Exception as error:
            flight.land(error)
        finally:
            for number in numbers:
                del self.queue.sent[number]

    async def _send(self, number: str, flight: Flight) -> float:
        """Sends a question once.

        Returns:
            Until when the message holds, by `time.monotonic`.

        Raises:
            NoAnswerError: the broker has not been there for long.
        """
        broker, until = self.queue.broker, flight.deadline
        while flight.wanted and not flight.landed.done():
            try:
                await self._declare()
                until = flight.deadline
                left = until - time.monotonic()
                body = question(Sent(flight.asked, left))
                if await broker.send(body, self.name, number, left, self.queue.replies, lasting=True):
                    return until
                self._declared = False  # it was removed, since nobody had used it for long
            except FullError:
                said = f"{self.queue.most} questions wait in the queue already, which is all that may"
                flight.land(OverloadedError(said, retry_after=math.ceil(self.expected_wait)))
            except UnreachableError as error:
                if broker.down_seconds > DOWN_SECONDS:
                    raise NoAnswerError("the broker of questions cannot be reached") from error
                await asyncio.sleep(AGAIN_SECONDS)
        return until

    async def _declare(self) -> None:
        """Makes the queue exist, also where no worker has come yet.

        Raises:
            UnreachableError: the broker does not answer.
        """
        if not self._declared:
            await self.count()

    async def count(self) -> int:
        """How many processes take from the queue, which exists afterwards.

        Raises:
            InputError: it was made with another bound.
            UnreachableError: the broker does not answer.
        """
        try:
            async with asyncio.timeout(AGAIN_SECONDS * 10):
                channel = await self.queue.broker.channel()  # of its own: a refusal closes it
                try:
                    found = await self.queue.broker.declare(channel, self.name, self.queue.most, robust=False)
                finally:
                    await channel.close()
        except InputError:
            raise
        except Exception as error:  # whatever a connection that is being made again raises
            raise UnreachableError(str(error) or type(error).__name__) from error
        self._declared, self.takers = True, int(found.declaration_result.consumer_count)
        return self.takers
