"""Who computes the answers of a service: its own process, workers behind a broker, or actors of a Ray cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from workbench.errors import InputError
from workbench.serving.batching import InProcess, Workers

if TYPE_CHECKING:
    from workbench.serving.settings import ServiceSettings

HANGS_AFTER_DEADLINES = 4  # a batch that takes longer than so many deadlines is taken to hang


def broker_url() -> str | None:
    """The address of the broker that is named in the environment; None: none is.

    Raises:
        MissingExtraError: its client is not installed.
        InputError: it is none.
    """
    url = os.environ.get("WORKBENCH_BROKER_URL")
    if not url:
        return None
    from workbench.serving.broker import checked

    return checked(url)


@contextmanager
def computing(settings: ServiceSettings, workers: str | None = None, most: int | None = None) -> Iterator[Workers]:
    """Within, answers are computed by those who are named, or as the environment says.

    Args:
        settings: of the service.
        workers: ``ray`` or ``ray:HEAD:PORT``; None: the environment may name a broker.
        most: actors at once; None: as many as there are processors.

    Raises:
        InputError: what is named cannot be used, or two are named.
    """
    url = broker_url()
    if most is not None and (workers is None or most < 1):
        raise InputError(f"--max-workers: received {most}; allowed: 1 or more, with --workers ray or --workers ray:HEAD:PORT")
    if workers is not None:
        if url:
            raise InputError(
                f"--workers: received {workers!r}, and WORKBENCH_BROKER_URL names a broker; allowed: one of them, since either "
                f"computes all answers. Unset the variable, or leave --workers out"
            )
        from workbench.cluster.connecting import cluster

        with cluster(workers):
            from workbench.serving.actors import Actors

            yield Actors(most, HANGS_AFTER_DEADLINES * settings.serve.deadline)
        return
    if url:
        from workbench.serving.broker import reached
        from workbench.serving.queueing import Queue

        asyncio.run(reached(url))
        yield Queue(url, settings.serve.queue)
        return
    yield InProcess()
