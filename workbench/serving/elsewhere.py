"""Who computes the answers of a service: its own process, or workers behind a broker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from workbench.serving.batching import InProcess, Workers

if TYPE_CHECKING:
    from workbench.serving.settings import ServiceSettings


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
def computing(settings: ServiceSettings) -> Iterator[Workers]:
    """Within, answers are computed as the environment says.

    Args:
        settings: of the service.

    Raises:
        InputError: what is named cannot be used.
    """
    if url := broker_url():
        from workbench.serving.broker import reached
        from workbench.serving.queueing import Queue

        asyncio.run(reached(url))
        yield Queue(url, settings.serve.queue)
        return
    yield InProcess()
