"""Processes of a Ray cluster answer the questions of a service, and of two configurations while a promotion is served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from workbench.errors import InputError
from workbench.serving.actor_crew import Crew
from workbench.serving.distant import Everyone

if TYPE_CHECKING:
    from workbench.pipeline import Pipeline


class Actors:
    """A cluster of which this process is a part, and that answers for one service.

    Attributes:
        here: whether this process computes answers: the first ones, with which those of the actors are compared.
        away: whether the cluster is away, without which this process would have ended.
        most: actors at once; None: as many as there are processors.
    """

    here, away = True, False

    def __init__(self, most: int | None, hangs_seconds: float) -> None:
        """A cluster without actors.

        Args:
            most: actors at once; None: as many as there are processors.
            hangs_seconds: that a batch takes at most; an actor that takes longer is ended.
        """
        self.most, self.hangs_seconds = most, hangs_seconds
        self._everyone = Everyone()
        self._crews: list[Crew] = []
        self._ended = False

    def worker(self, pipeline: Pipeline) -> Crew:
        """The actors that answer for a pipeline, one of which is there.

        Raises:
            InputError: none can answer for it.
            RuntimeError: the service has stopped.
        """
        if pipeline.answering and pipeline.answering.writer.served:
            label = pipeline.configuration.label
            raise InputError(
                f"{label} is written by a server, which other processes do not make quicker; serve it without --workers"
            )
        crew = Crew(pipeline, self.most, self.hangs_seconds, self._everyone)
        with self._everyone.lock:
            self._crews = [one for one in self._crews if not one.stopped] + [crew]
            if self._ended:
                crew.stop()
        crew.begin()
        return crew

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """The cluster is connected already; afterwards no actor is left, nor one started by a promotion that is under way."""
        try:
            yield
        finally:
            with self._everyone.lock:
                self._ended = True
                for crew in self._crews:
                    crew.stop()
