"""Questions that wait become one batch for the pipeline, in one thread: models and indexes are not made for several.

There is no waiting for company: an idle service answers at once, and a busy one takes all that came while it was busy.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from workbench.pipeline import Asked, Pipeline, Reply

MOST_TOGETHER = 16  # questions in a batch; the machine may allow fewer
MOST_LOST = 3  # times that a question is asked: it may itself be what ends a process
FIRST_GUESS_SECONDS = 1.0  # that a batch takes, before one was timed


class Answerer(Protocol):
    """What answers questions together: a `Pipeline`."""

    def growing(self, asked: Sequence[Asked], wanted: Callable[[int], float]) -> Iterator[tuple[int, Reply]]:
        """See `Pipeline.growing`.

        Raises:
            EachError: some questions have no answer, each for a reason of its own.
        """


class Worker(Protocol):
    """Who computes: a thread of this process, or other processes.

    Attributes:
        waiting: flights that no batch has taken yet.
        expected_wait: seconds until a question that comes now has its answer, about.
        busy_seconds: seconds for which this process has computed the batch in flight; 0: there is none.
        takers: other processes that take its flights, when they were last counted; None: this process answers them.
        nobody: why nobody computes now, for people; None: somebody does, as far as this process knows.
    """

    @property
    def takers(self) -> int | None: ...

    @property
    def nobody(self) -> str | None: ...

    @property
    def waiting(self) -> int: ...

    @property
    def expected_wait(self) -> float: ...

    @property
    def busy_seconds(self) -> float: ...

    def submit(self, flight: Flight) -> None:
        """Takes a flight, and lands it at some time; called in the flight's event loop."""

    def stop(self) -> None:
        """Takes no further flights; those that no batch has taken are not landed."""


class Workers(Protocol):
    """Where workers come from: all that a service's promotions are answered by.

    Attributes:
        here: whether this process computes answers, so that it has to show that they are those measured.
        away: whether what they are reached by is away.
    """

    here: bool

    @property
    def away(self) -> bool: ...

    def worker(self, pipeline: Pipeline) -> Worker:
        """Who computes what a pipeline answers."""

    def connected(self) -> AbstractAsyncContextManager[None]:
        """Within, they can be reached."""


class Landed(NamedTuple):
    """A whole answer: the reply, how many questions were answered together, and the seconds it had waited before."""

    reply: Reply
    batch: int
    queue_seconds: float


class Flight:
    """A question on its way to its answer, and how many wait for it. Its futures belong to the event loop that made it.

    Attributes:
        asked: the question.
        waiting: how many requests wait for it.
        deadline: when the last of them gives up, by `time.monotonic`.
        begun: when its batch began; None while it waits.
        grown: the longest beginning of its answer so far.
        landed: the answer, or why there is none.
        landing: whether the thread that answers has given the answer, or why there is none.
        lost: how many times who had it was lost.
    """

    def __init__(self, asked: Asked, deadline: float) -> None:
        self.asked, self.deadline = asked, deadline
        self.waiting = 1  # whoever begins it
        self.submitted = time.monotonic()
        self.begun: float | None = None
        self.landing, self.lost = False, 0
        self.grown: Reply | None = None
        self.loop = asyncio.get_running_loop()
        self.landed: asyncio.Future[Landed] = self.loop.create_future()
        self._changed = asyncio.Event()

    @property
    def left(self) -> float:
        """Seconds for which somebody still waits; 0: nobody does. Asked by the thread that answers."""
        return max(self.deadline - time.monotonic(), 0.0) if self.waiting > 0 else 0.0

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits."""
        return self.left > 0

    def lost_again(self, error: LostError) -> bool:
        """Whether it can be asked again after who had it was lost; after `MOST_LOST` times it lands with the error."""
        self.lost += 1
        if self.landing or self.lost < MOST_LOST:
            return not self.landing
        _tell(self, self.land, error)
        return False

    def begin(self, when: float) -> None:
        """Its batch has begun, by `time.monotonic`."""
        self.begun = when
        self._changed.set()

    def grow(self, reply: Reply) -> None:
        """The answer has a longer beginning."""
        self.grown = reply
        self._changed.set()

    def land(self, found: Landed | BaseException) -> None:
        """The answer is there, or the reason why there is none."""
        if not self.landed.done():
            if isinstance(found, BaseException):
                self.landed.set_exception(found)
                self.landed.exception()  # nobody may be left to hear it
            else:
                self.landed.set_result(found)
        self._changed.set()

    async def changed(self) -> None:
        """Waits until the answer has grown or is there."""
        await self._changed.wait()
        self._changed.clear()


class LostError(Exception):
    """Who was to answer is lost, such as a process that was killed; others can answer the same questions."""


class EachError(Exception):
    """Some questions of a batch have no answer, and asking them again alone would not help.

    Attributes:
        errors: the reason of each, by its position.
    """

    def __init__(self, errors: Mapping[int, Exception]) -> None:
        super().__init__(str(next(iter(errors.values()))))
        self.errors = errors


class Line:
    """Flights that wait for a batch; several batchers may take from one."""

    def __init__(self) -> None:
        self._flights: deque[Flight] = deque()
        self._some = threading.Condition()

    def __len__(self) -> int:
        return len(self._flights)

    def add(self, flight: Flight) -> None:
        """A flight that comes last."""
        with self._some:
            self._flights.append(flight)
            self._some.notify()

    def put_back(self, flights: Sequence[Flight]) -> None:
        """Flights that were taken come first again."""
        with self._some:
            self._flights.extendleft(reversed(flights))
            self._some.notify_all()

    def wake(self) -> None:
        """Has all batchers look whether they are to stop."""
        with self._some:
            self._some.notify_all()

    def taken(self, most: int, stopped: Callable[[], bool]) -> list[Flight]:
        """Waits for the next batch.

        Args:
            most: how many flights.
            stopped: whether nothing is to be waited for any more.

        Returns:
            Flights that somebody waits for; none: it is stopped.
        """
        with self._some:
            while not stopped():
                found: list[Flight] = []
                while self._flights and len(found) < most:
                    flight = self._flights.popleft()
                    if flight.wanted:
                        found.append(flight)
                if found:
                    return found
                self._some.wait()
            return []


class Batcher:
    """Answers flights in a thread of its own, all that wait at once.

    Attributes:
        seconds: that a batch takes, about.
        lost: whether the answerer was lost, so that the thread has ended.
        used: when the last batch ended, by `time.monotonic`.
    """

    takers: int | None = None  # it answers by itself
    nobody: str | None = None

    def __init__(self, answerer: Answerer, most: int, line: Line | None = None) -> None:
        """Starts the thread.

        Args:
            answerer: a pipeline, which no other thread uses to generate.
            most: questions in a batch.
            line: where flights wait, with others who take from it; None: in a line of its own.
        """
        self.answerer, self.most = answerer, most
        self.seconds = FIRST_GUESS_SECONDS
        self.lost, self.used = False, time.monotonic()
        self._line = Line() if line is None else line
        self._busy_since: float | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="answering", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether its thread has ended."""
        return not self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Flights that no batch has taken yet."""
        return len(self._line)

    @property
    def expected_wait(self) -> float:
        """Seconds until a question that comes now has its answer, about."""
        return self.seconds * (len(self._line) // self.most + 1 + (self._busy_since is not None))

    @property
    def busy_seconds(self) -> float:
        """Seconds for which the batch in flight has been computed; 0: there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def submit(self, flight: Flight) -> None:
        """Queues a flight."""
        self._line.add(flight)

    def stop(self) -> None:
        """Ends the thread after the batch in flight; what waits is not answered."""
        self._stopped = True
        self._line.wake()

    def _work(self) -> None:
        while flights := self._line.taken(self.most, lambda: self._stopped):
            started = self._busy_since = time.monotonic()
            for flight in flights:
                flight.begun = started
                _tell(flight, flight.begin, started)
            try:
                self._answer(flights)
            except LostError as error:
                self.lost = True
                self._line.put_back([flight for flight in flights if flight.lost_again(error)])
                return
            finally:
                self._busy_since, self.used = None, time.monotonic()
            self.seconds += 0.3 * (self.used - started - self.seconds)

    def _answer(self, flights: Sequence[Flight]) -> None:
        from workbench.models.answering import WRITING

        left = set(range(len(flights)))
        try:
            for i, reply in self.answerer.growing([flight.asked for flight in flights], lambda i: flights[i].left):
                flight = flights[i]
                if reply.status == WRITING:
                    _tell(flight, flight.grow, reply)
                else:
                    left.discard(i)
                    flight.landing = True
                    queued = (flight.begun or 0.0) - flight.submitted
                    _tell(flight, flight.land, Landed(reply, len(flights), queued))
        except LostError:
            raise
        except EachError as error:
            for i, why in error.errors.items():
                _tell(flights[i], flights[i].land, why)
        except Exception as error:
            if len(flights) == 1:
                _tell(flights[0], flights[0].land, error)
                return
            for i in sorted(left):  # one question's fault is not to cost the others their answers
                if flights[i].wanted:
                    self._answer([flights[i]])


class InProcess:
    """A thread of this process for each pipeline."""

    here, away = True, False

    def worker(self, pipeline: Pipeline) -> Batcher:
        """The thread that answers for a pipeline."""
        return Batcher(pipeline, most_together(pipeline))

    def connected(self) -> AbstractAsyncContextManager[None]:
        """Nothing is to be reached."""
        return nullcontext()


def most_together(pipeline: Pipeline) -> int:
    """How many questions a pipeline answers in a batch, at most."""
    return min(MOST_TOGETHER, pipeline.session.machine.batch_size)


def _tell(flight: Flight, tell: Callable[[Any], None], what: object) -> None:
    """Calls a method of a flight in its event loop, unless that has ended."""
    if not flight.loop.is_closed():
        flight.loop.call_soon_threadsafe(tell, what)
