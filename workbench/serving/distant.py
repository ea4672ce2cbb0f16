"""An actor that answers for this process, and how much of its node it holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from workbench.pipeline import Asked, Reply
from workbench.serving.batching import Batcher, LostError


class Distant:
    """A pipeline in an actor."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def growing(self, asked: Sequence[Asked], wanted: Callable[[int], float]) -> Iterator[tuple[int, Reply]]:
        """As `Pipeline.growing`.

        Raises:
            LostError: the actor is lost.
            RuntimeError: it failed at the questions.
        """
        try:
            for reference in self.actor.growing.remote(list(asked)):
                yield ray.get(reference)
        except RayTaskError as error:
            raise RuntimeError(f"an actor failed: {last_line(error)}") from error
        except RayError as error:
            raise LostError(f"an actor is lost: {last_line(error)}") from error


@dataclass(eq=False)
class Member:
    """An actor that answers, or is to.

    Attributes:
        node: Ray's name of where it is.
        actor: the handle of its process.
        processors: of the node that it holds; 0: it stands in, beside an actor that holds them for another configuration.
        batcher: sends it batches; None: it has not joined yet.
        hung: whether its process was ended, since a batch took too long.
        since: when it was started, by `time.monotonic`.
        told: whether it was said that it does not begin.
    """

    node: str
    actor: Any
    processors: int
    batcher: Batcher | None = None
    hung: bool = False
    since: float = field(default_factory=time.monotonic)
    told: bool = False

    @property
    def busy_seconds(self) -> float:
        """Seconds for which it has computed the batch that it has; 0: it has none, or has not joined."""
        return self.batcher.busy_seconds if self.batcher else 0.0

    @property
    def answers(self) -> bool:
        """Whether it takes batches."""
        return self.batcher is not None and not self.batcher.lost and not self.hung

    def end(self) -> None:
        """Ends its process; what it had is asked again by whoever takes from the same line."""
        if self.batcher:
            self.batcher.stop()
        ray.kill(self.actor)


class Everyone:
    """Actors of all configurations that are answered for at one time: of two while a promotion is served.

    Attributes:
        lock: held by whoever starts or ends an actor, or reads how much they hold.
        members: the actors.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.members: list[Member] = []

    @property
    def held(self) -> list[tuple[str, int]]:
        """Of each actor, its node and how many of its processors it holds; without those that stand in."""
        return [(one.node, one.processors) for one in self.members if one.processors]


def last_line(error: BaseException) -> str:
    """What an error says at its end, which for Ray's is the cause."""
    if isinstance(error, GetTimeoutError):
        return "it took too long; does something else use its processors?"
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1][:300]
