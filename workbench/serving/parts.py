"""What a process behind a broker takes on: whole answers, all of them but generating (`rag`), or generating alone (`llm`)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from workbench.errors import InputError, StageFailedError
from workbench.serving.batching import EachError, InProcess, Workers
from workbench.serving.broker import UnreachableError
from workbench.serving.elsewhere import HANGS_AFTER_DEADLINES
from workbench.serving.gate import gate
from workbench.serving.generating import Distant, Generators, queue_of_prompts
from workbench.serving.problems import NoAnswerError, OverloadedError
from workbench.serving.queueing import Queue, queue_of

if TYPE_CHECKING:
    from workbench.pipeline import Pipeline
    from workbench.serving.settings import ServiceSettings

AGAIN_SECONDS = 1.0  # between two looks at whether there is a process of the role llm


class Whole:
    """Takes questions, and computes the whole of their answers.

    Attributes:
        workers: compute what is taken.
    """

    def __init__(self, settings: ServiceSettings, url: str) -> None:
        """Connects to nothing yet.

        Args:
            settings: of the service.
            url: of the broker.
        """
        self.settings, self.url = settings, url
        self.workers: Workers = InProcess()

    def queue(self, pipeline: Pipeline) -> str:
        """Name of the queue that is taken from.

        Raises:
            InputError: the pipeline's generator cannot be run apart.
        """
        return queue_of(pipeline.identity)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Within, other processes that compute a part can be reached."""
        yield

    def prepared(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline, so that it computes this part alone."""
        return pipeline

    async def check(self, pipeline: Pipeline, say: Callable[[str], None]) -> None:
        """Computes measured answers again, and loads all that questions need.

        Args:
            pipeline: what answers, prepared.
            say: told what was found, or what is waited for.

        Raises:
            StageFailedError: the gate; see `workbench.serving.gate`.
        """
        say(gate(pipeline, self.settings.serve.gate))
        pipeline.warm()


class Llm(Whole):
    """Takes prompts, and generates."""

    def __init__(self, settings: ServiceSettings, url: str) -> None:
        super().__init__(settings, url)
        self.workers = Generators()

    def queue(self, pipeline: Pipeline) -> str:
        """As `Whole.queue`."""
        return queue_of_prompts(pipeline)


class Rag(Whole):
    """Takes questions, and has processes of the role llm answer the prompts that it makes of them."""

    def __init__(self, settings: ServiceSettings, url: str) -> None:
        super().__init__(settings, url)
        self.prompts, self.ending = Queue(url, settings.serve.queue), threading.Event()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """As `Whole.connected`."""
        self.loop = asyncio.get_running_loop()
        async with self.prompts.connected():
            try:
                yield
            finally:
                self.ending.set()  # threads that wait for a prompt are not to keep the process

    def prepared(self, pipeline: Pipeline) -> Pipeline:
        """As `Whole.prepared`."""
        seconds = HANGS_AFTER_DEADLINES * self.settings.serve.deadline
        pipeline.generating = Distant(self.prompts, pipeline, self.loop, seconds, self.ending)
        return pipeline

    async def check(self, pipeline: Pipeline, say: Callable[[str], None]) -> None:
        """As `Whole.check`; begins anew until there is a process of the role llm that answers."""
        name, said = queue_of_prompts(pipeline), ""
        while True:
            missing = await self._missing(pipeline)
            if not missing:
                try:
                    say(await asyncio.to_thread(gate, pipeline, self.settings.serve.gate))
                    await asyncio.to_thread(pipeline.warm)
                    return
                except EachError as error:
                    first = next(iter(error.errors.values()))
                    if not isinstance(first, (NoAnswerError, OverloadedError)):
                        raise StageFailedError(f"not served: a process of the role llm failed at a prompt: {first}") from error
                    missing = str(first)
            if missing != said:
                said = missing
                say(f"{missing}; prompts go to the queue {name}. This is tried again until it succeeds")
            await asyncio.sleep(AGAIN_SECONDS)

    async def _missing(self, pipeline: Pipeline) -> str:
        """Why no prompt can be answered now; empty: they can, as far as is known."""
        assert isinstance(pipeline.generating, Distant), "it is prepared"
        try:
            if await pipeline.generating.worker.count():
                return ""
        except UnreachableError as error:
            return f"the broker of prompts cannot be reached ({error})"
        return f"no process answers prompts; start one with `workbench work {pipeline.run.folder} --part llm`"


PARTS = {"rag": Rag, "llm": Llm}


def part_named(name: str | None, settings: ServiceSettings, url: str) -> Whole:
    """What a process takes on.

    Args:
        name: ``rag`` or ``llm``; None: whole answers.
        settings: of the service.
        url: of the broker.

    Raises:
        InputError: there is no such part.
    """
    if name is None:
        return Whole(settings, url)
    if name not in PARTS:
        raise InputError(f"--part: received {name!r}; allowed: {' or '.join(PARTS)}, or leave it out for whole answers")
    return PARTS[name](settings, url)
