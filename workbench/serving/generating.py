"""Generating apart from the rest: prompts go through a queue of the broker to processes that hold nothing but the generator.

The queue bears a digest of all that decides what is written for a prompt, so whoever takes from it writes the same. A prompt
travels as a question does: the conversation is its history, and what is written is the reply.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from math import isinf
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from workbench.component import digest
from workbench.errors import InputError
from workbench.models.answering import WRITING, Generation
from workbench.pipeline import Asked, Reply
from workbench.serving.batching import Batcher, EachError, Flight, most_together
from workbench.serving.problems import NoAnswerError
from workbench.serving.queueing import Queue
from workbench.version import __version__

if TYPE_CHECKING:
    from workbench.models.chat import Message
    from workbench.pipeline import Pipeline

Found = SimpleQueue[tuple[int, Reply | Exception]]  # position of a prompt, and what became of it
LOOK_SECONDS = 0.25  # between two looks at whether answers are still waited for


def queue_of_prompts(pipeline: Pipeline) -> str:
    """Name of the queue of the prompts that the generator of a pipeline answers.

    Raises:
        InputError: it has no generator of its own.
    """
    label, answering = pipeline.configuration.label, pipeline.answering
    if answering is None:
        raise InputError(f"--part: {label} only ranks passages, so there is no generator to be run apart; leave --part out")
    if answering.writer.served:
        raise InputError(f"--part: the generator of {label} is behind a server, so it runs apart already; leave --part out")
    return f"generate.{digest([answering.writer.namespace, __version__])}"


def reply_of(generation: Generation) -> Reply:
    """What was written, as it travels."""
    tokens = {"prompt": generation.prompt_tokens, "answer": generation.new_tokens}
    return Reply("", None, generation.text, generation.status, (), {}, {}, tokens)


def generation_of(reply: Reply) -> Generation:
    """What was written, from how it travelled."""
    return Generation(reply.reply, reply.tokens["prompt"], reply.tokens["answer"], reply.status)


class Prompts:
    """Answers prompts that travel as questions, by a pipeline's generator alone."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def growing(self, asked: Sequence[Asked], wanted: Callable[[int], float]) -> Iterator[tuple[int, Reply]]:
        """As `Pipeline.generated`, of conversations that travel as histories."""
        for i, generation in self.pipeline.generated([one.history for one in asked], wanted):
            yield i, reply_of(generation)


class Generators:
    """A thread of this process for each pipeline, which answers prompts."""

    here, away = True, False

    def worker(self, pipeline: Pipeline) -> Batcher:
        """The thread that answers prompts."""
        return Batcher(Prompts(pipeline), most_together(pipeline))

    def connected(self) -> AbstractAsyncContextManager[None]:
        """Nothing is to be reached."""
        return nullcontext()


class Distant:
    """The processes that answer the prompts of a pipeline, for the threads that make prompts: its `Pipeline.generating`."""

    def __init__(
        self, queue: Queue, pipeline: Pipeline, loop: asyncio.AbstractEventLoop, seconds: float, ending: threading.Event
    ) -> None:
        """Sends nothing yet.

        Args:
            queue: connects to the broker.
            pipeline: whose generator answers.
            loop: in which the queue is used.
            seconds: for which a prompt is waited for where nobody says how long.
            ending: set when the process ends, so that nothing is waited for any more.
        """
        self.worker = queue.named(queue_of_prompts(pipeline), most_together(pipeline))
        self.seconds, self.ending = seconds, ending
        self.loop = loop
        self._following: set[asyncio.Task[None]] = set()

    def growing(self, prompts: Sequence[Sequence[Message]], wanted: Callable[[int], float]) -> Iterator[tuple[int, Generation]]:
        """As `Pipeline.generated`; called in any thread but the event loop's.

        Raises:
            EachError: some prompts have no answer; those of the others were given before.
        """
        found: Found = SimpleQueue()
        patience = [self.seconds if isinf(left) else left for left in map(wanted, range(len(prompts)))]
        sent = asyncio.run_coroutine_threadsafe(self._sent(prompts, patience, found), self.loop).result()
        errors: dict[int, Exception] = {}
        left = set(range(len(prompts)))
        try:
            while left := {i for i in left if wanted(i) > 0}:
                if late := {i for i in left if self.ending.is_set() or not sent[i].wanted}:
                    errors |= {i: NoAnswerError(f"no process of the role llm answered within {patience[i]:g} s") for i in late}
                    left -= late
                try:
                    i, said = found.get(timeout=LOOK_SECONDS)
                except Empty:
                    continue
                if i not in left:
                    continue
                if isinstance(said, Exception) or said.status != WRITING:
                    left.discard(i)
                if isinstance(said, Exception):
                    errors[i] = said
                else:
                    yield i, generation_of(said)
        finally:
            self.loop.call_soon_threadsafe(_left, sent)
        if errors:
            raise EachError(errors)

    async def _sent(self, prompts: Sequence[Sequence[Message]], patience: Sequence[float], found: Found) -> list[Flight]:
        """The flights of prompts that were sent; what becomes of them is put into `found`."""
        now = time.monotonic()
        flights = [Flight(Asked("", prompt), now + seconds) for prompt, seconds in zip(prompts, patience, strict=True)]
        for i, flight in enumerate(flights):
            self.worker.submit(flight)
            task = asyncio.ensure_future(_followed(i, flight, found))
            self._following.add(task)
            task.add_done_callback(self._following.discard)
        return flights


def _left(flights: Sequence[Flight]) -> None:
    """Nobody waits for these any more."""
    for flight in flights:
        flight.waiting = 0
        flight.land(NoAnswerError("nobody waits for it any more"))


async def _followed(i: int, flight: Flight, found: Found) -> None:
    """Puts each longer beginning of a flight's answer into `found`, then the answer or why there is none."""
    told: Reply | None = None
    while not flight.landed.done():
        await flight.changed()
        if flight.grown is not None and flight.grown is not told and not flight.landed.done():
            told = flight.grown
            found.put((i, told))
    error = flight.landed.exception()
    if error is None:
        found.put((i, flight.landed.result().reply))
    elif isinstance(error, Exception):
        found.put((i, error))
