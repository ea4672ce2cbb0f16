"""A process that answers questions, or prompts, from a broker's queue, as `workbench work` starts it.

A question is acknowledged once its answer was sent, so the broker hands what a killed process had taken to another one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.experiment.bundled import bundle_at
from workbench.pipeline import Pipeline
from workbench.serving import logs
from workbench.serving.asking import MEMORY_BYTES, Service
from workbench.serving.batching import MOST_LOST, Flight, most_together
from workbench.serving.broker import AGAIN_SECONDS, VARIABLE, Broker, FullError, UnreachableError, reached
from workbench.serving.elsewhere import HANGS_AFTER_DEADLINES, broker_url
from workbench.serving.messages import Sent, Told, question, read_question, told
from workbench.serving.packages import require_extra
from workbench.serving.parts import Whole, part_named
from workbench.serving.problems import OverloadedError
from workbench.serving.promotion import watching
from workbench.serving.queueing import KEPT_SECONDS
from workbench.serving.settings import ServiceSettings, read_service
from workbench.store.progress import Progress
from workbench.store.telling import for_people

TELL_SECONDS = 0.1  # between two beginnings of an answer that are sent, at least
LOOK_SECONDS = 1.0
HANGS = 70  # exit status of a process whose batch hangs; others get its questions

log = logging.getLogger(__name__)


class Taker:
    """Takes from the queue of one pipeline, up to a batch that is computed and what waits beside it.

    Attributes:
        takes: name of the queue.
    """

    def __init__(self, service: Service, takes: str, broker: Broker, most: int) -> None:
        """Takes nothing yet.

        Args:
            service: the pipeline and the thread that answers.
            takes: name of the queue.
            broker: an open connection.
            most: questions that wait in the queue.
        """
        self.service, self.takes, self.broker, self.most = service, takes, broker, most
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self.under_way: set[asyncio.Task[None]] = set()
        self.last = time.monotonic()  # when a question came

    async def begin(self) -> None:
        """Takes questions from now on.

        Raises:
            InputError: the queue was made with another bound.
        """
        self.channel = await self.broker.channel()
        await self.channel.set_qos(prefetch_count=most_together(self.service.pipeline))
        self.queue = await self.broker.declare(self.channel, self.takes, self.most)
        self.tag = await self.queue.consume(self._taken)

    async def end(self, seconds: float) -> None:
        """Takes no further question, and waits for those that were taken.

        Args:
            seconds: for which it waits; what is left goes to others.
        """
        with suppress(Exception):  # of a connection that is lost, from which nothing more comes
            async with asyncio.timeout(AGAIN_SECONDS * 10):
                await self.queue.cancel(self.tag)
        if self.under_way:
            await asyncio.wait(self.under_way, timeout=seconds)
        self.service.batcher.stop()
        with suppress(Exception):
            async with asyncio.timeout(AGAIN_SECONDS * 10):
                await self.channel.close()  # hands back what is left

    async def _taken(self, message: Any) -> None:
        self.last = time.monotonic()
        task = asyncio.ensure_future(self._answered(message))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)

    async def _answered(self, message: Any) -> None:
        """Answers a question; it is acknowledged after that, or handed back where the answer could not be sent."""
        try:
            sent = read_question(message.body)
        except InputError as error:
            log.error("a message of the queue %s is thrown away: %s", self.takes, error)
            await _settled(message.reject(requeue=False))
            return
        try:
            if message.redelivered:
                await self._once_more(message, sent)
                await _settled(message.ack())
                return
            flight = Flight(sent.asked, time.monotonic() + sent.seconds)
            self.service.batcher.submit(flight)
            await self._follow(message, flight)
        except (FullError, UnreachableError) as error:
            log.warning("a message could not be sent (%s); the question that it is about is handed back", str(error) or "full")
            await asyncio.sleep(AGAIN_SECONDS)
            await _settled(message.nack(requeue=True))
            return
        await _settled(message.ack())

    async def _once_more(self, message: Any, sent: Sent) -> None:
        """Sends a question that another process had taken again, with how often that was; too often, and it has no answer.

        The broker says of a message that it was taken before, and not how often, and the question may be what ends processes.

        Raises:
            FullError: there is no room for it now.
            UnreachableError: the broker did not confirm it.
        """
        lost = sent.lost + 1
        if lost < MOST_LOST:
            body = question(sent._replace(lost=lost))
            number, back = message.correlation_id or "", message.reply_to
            await self.broker.send(body, self.takes, number, sent.seconds, back, lasting=True)
            return
        log.error("a question is given up: %d processes that had taken it were lost", lost)
        await self._tell(message, Told("failed", self.name, why=f"each of {lost} processes that had taken it was lost"))

    async def _follow(self, message: Any, flight: Flight) -> None:
        """Tells what becomes of a question, until it is answered or nobody waits any more.

        Raises:
            FullError: a message was refused.
            UnreachableError: the broker did not confirm it.
        """
        begun, grown, landed = False, None, False
        while not landed and (left := flight.deadline - time.monotonic()) > 0:
            changed = asyncio.ensure_future(flight.changed())
            either: set[asyncio.Future[Any]] = {changed, flight.landed}
            await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            if flight.begun is not None and not begun:
                begun = True
                await self._tell(message, Told("begun", self.name))
            if landed := flight.landed.done():
                await self._tell(message, self._end_of(flight))
            elif flight.grown is not grown:
                grown = flight.grown
                await self._tell(message, Told("grown", self.name, grown))
                await asyncio.wait({flight.landed}, timeout=TELL_SECONDS)

    def _end_of(self, flight: Flight) -> Told:
        error = flight.landed.exception()
        if error is None:
            found = flight.landed.result()
            return Told("landed", self.name, found.reply, found.batch, found.queue_seconds)
        if isinstance(error, OverloadedError):
            return Told("full", self.name, why=str(error))
        log.error("a question was not answered", exc_info=error)
        return Told("failed", self.name, why=f"{type(error).__name__} at worker {self.name}, whose log says more")

    async def _tell(self, message: Any, what: Told) -> None:
        if message.reply_to:
            await self.broker.send(told(what), message.reply_to, message.correlation_id or "", KEPT_SECONDS)


class Working:
    """Takes questions for what is served, also for another promotion of the run.

    Attributes:
        service: what answers now.
        takers: who takes from queues, the one for what is served last.
    """

    def __init__(self, service: Service, settings: ServiceSettings, part: Whole) -> None:
        """Connects to nothing yet.

        Args:
            service: what answers.
            settings: of the service.
            part: what this process takes on.
        """
        self.service, self.settings, self.part = service, settings, part
        self.broker = Broker(part.url)
        self.takers: list[Taker] = []
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self, say: Callable[[str], None]) -> None:
        """Takes questions until the process is told to end by SIGTERM or SIGINT.

        Args:
            say: told when it has begun.

        Raises:
            InputError: the broker cannot be used.
        """
        stop = asyncio.Event()
        for one in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(one, stop.set)
        await self.broker.open()
        try:
            taker = await self._begin(self.service)
            say(f"answering {self.service.pipeline.configuration.label} from {taker.takes}")
            while not stop.is_set():
                self._look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await stop.wait()
            await asyncio.gather(*(one.end(self.settings.serve.grace) for one in self.takers))
        finally:
            for task in self._ending:
                task.cancel()
            await self.broker.close()

    async def replace(self, service: Service) -> None:
        """Takes questions of another pipeline too, and of the one before until none has come within a deadline.

        Returns at once, since the queue of the one before may be busy for long, while yet another promotion is made.
        """
        before = list(self.takers)
        now = await self._begin(service)
        self.service = service
        log.warning("answering %s from %s now", service.pipeline.configuration.label, now.takes)
        for one in before:
            if one.takes == now.takes or one is before[-1]:
                quiet = 0.0 if one.takes == now.takes else self.settings.serve.deadline
                task = asyncio.ensure_future(self._end(one, quiet))
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    async def _end(self, taker: Taker, quiet: float) -> None:
        """Ends a taker when no question has come for some seconds."""
        while quiet and (taker.under_way or time.monotonic() - taker.last < quiet):
            await asyncio.sleep(LOOK_SECONDS)
        if taker in self.takers:  # else it has ended: the same queue is taken from by another one
            self.takers.remove(taker)
            await taker.end(self.settings.serve.grace)

    async def _begin(self, service: Service) -> Taker:
        taker = Taker(service, self.part.queue(service.pipeline), self.broker, self.settings.serve.queue)
        await taker.begin()
        self.takers.append(taker)
        return taker

    def _look(self) -> None:
        """Ends the process where a batch hangs, since nothing else ends a computation inside it."""
        limit = HANGS_AFTER_DEADLINES * self.settings.serve.deadline
        if any(one.service.batcher.busy_seconds > limit for one in self.takers):
            log.critical("the model has worked at the same questions for more than %g s; the process ends", limit)
            os._exit(HANGS)


async def _settled(act: Any) -> None:
    """Acknowledges or hands back a message, unless the connection it came by is lost: then the broker hands it on by itself."""
    with suppress(Exception):
        async with asyncio.timeout(AGAIN_SECONDS * 10):
            await act


def work(
    run: str | Path,
    configuration: str | None = None,
    progress: Progress | None = None,
    dataset: Path | None = None,
    settings: Path | None = None,
    part: str | None = None,
) -> None:
    """Answers the questions of a run's configuration that services send through a broker, until interrupted.

    Args:
        run: folder of a finished run, or of an unpacked bundle.
        configuration: id, beginning of one, or label; default: the promoted one, else the best. Without it, another promotion of
            a run is answered as soon as it is made.
        progress: where to report; default: standard error.
        dataset: where the run's data lie now; default: where they were.
        settings: file of the service's settings; default: the defaults.
        part: ``rag``: prompts are made of questions here, and answered by processes of the part ``llm``, which takes prompts;
            default: both are done here.

    Raises:
        MissingExtraError: what a service, or the client of the broker, needs is not installed.
        InputError: no such run, configuration, settings or part, or a broker that cannot be used.
        StageFailedError: the gate; see `workbench.serving.gate`.
    """
    require_extra()
    url = broker_url()
    if url is None:
        raise InputError(f"{VARIABLE} is not set; name the broker from which questions come, such as amqp://USER:PASSWORD@HOST/")
    progress, known = progress or for_people(), read_service(settings).model_copy(update={"fallback": ()})
    taken_on = part_named(part, known, url)
    asyncio.run(reached(url))  # before the models are loaded, which takes longer
    pipeline = Pipeline.open(run, configuration, progress, dataset)
    taken_on.queue(pipeline)  # which refuses what has no such part
    pipeline.session.keep_in_memory(MEMORY_BYTES)

    def reopen(chosen: str) -> Pipeline:
        return taken_on.prepared(Pipeline.open(run, chosen, Progress(), dataset))

    async def until_stopped() -> None:
        async with taken_on.connected():
            await taken_on.check(taken_on.prepared(pipeline), progress.say)
            pipeline.session.progress = Progress()
            logs.configure(known.logs.form, known.logs.level)
            working = Working(Service(pipeline, (), taken_on.workers), known, taken_on)
            async with watching(working, known, None if configuration or bundle_at(run) else reopen):
                await working.run(progress.say)

    asyncio.run(until_stopped())
