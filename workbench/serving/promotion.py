"""Another promotion of a run is served as soon as it is made, once its answers came out as measured."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from workbench.errors import InputError, StageFailedError
from workbench.pipeline import Pipeline
from workbench.results.run import PROMOTED, Run
from workbench.serving.asking import MEMORY_BYTES, Service
from workbench.serving.gate import gate

if TYPE_CHECKING:
    from workbench.serving.settings import ServiceSettings


class Serving(Protocol):
    """What serves a pipeline, and another one from a promotion on."""

    service: Service

    async def replace(self, service: Service) -> None:
        """Serves another pipeline; returns when nobody is answered by the one before any more."""


LOOK_SECONDS = 2.0
TAKEN_SECONDS = 0.5  # between two looks at whether other processes answer for it already
AGAIN_SECONDS = 10.0  # until a promotion that failed for a reason that may pass is tried again

log = logging.getLogger(__name__)


@asynccontextmanager
async def watching(asking: Serving, settings: ServiceSettings, reopen: Callable[[str], Pipeline] | None) -> AsyncIterator[None]:
    """Within, promotions of the served run are looked for.

    Args:
        asking: serves what is promoted.
        settings: of the service.
        reopen: the pipeline of a configuration of the run; None: nothing is looked for.
    """
    task = asyncio.ensure_future(_watch(asking, settings, reopen)) if reopen else None
    try:
        yield
    finally:
        if task:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _watch(asking: Serving, settings: ServiceSettings, reopen: Callable[[str], Pipeline]) -> None:
    file = asking.service.pipeline.run.folder / PROMOTED
    known = _state(file)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if (now := _state(file)) == known:
            continue
        try:
            service = await asyncio.to_thread(_opened, asking, settings, reopen)
            if service and not await _is_taken(service, file, now):
                continue  # yet another one was made meanwhile
            if service:
                await asking.replace(service)
        except (InputError, StageFailedError):  # it stays so until another one is promoted
            log.exception("another promotion of %s cannot be served; what was served before still is", file.parent)
        except Exception:
            log.exception("another promotion of %s is not served yet; it is tried again", file.parent)
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        known = now


async def _is_taken(service: Service, file: Path, now: tuple[int, int] | None) -> bool:
    """Waits until processes take the questions of a service, where others than this one answer.

    Args:
        service: of the configuration that was promoted.
        file: of the promotion.
        now: its state then.

    Returns:
        Whether they do; False: yet another promotion was made.
    """
    said = False
    while service.batcher.takers == 0:
        if _state(file) != now:
            service.batcher.stop()
            return False
        if not said:
            said = True
            log.warning("%s is served as soon as a worker takes its questions", service.pipeline.configuration.label)
        await asyncio.sleep(TAKEN_SECONDS)
    return True


def _state(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _opened(asking: Serving, settings: ServiceSettings, reopen: Callable[[str], Pipeline]) -> Service | None:
    """The service of the configuration that is promoted now; None where it is the one that is served."""
    before = asking.service.pipeline
    run = Run.open(before.run.folder)
    promoted = run.promoted
    if promoted is None or promoted["configuration"] == before.configuration.id:
        return None
    pipeline = reopen(promoted["configuration"])  # with models of its own: those that are served are in use
    pipeline.session.keep_in_memory(MEMORY_BYTES)
    workers = asking.service.workers
    if workers.here:
        log.warning("%s", gate(pipeline, settings.serve.gate))
        pipeline.warm()
    return Service(pipeline, settings.fallback, workers)
