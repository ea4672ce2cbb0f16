"""How many actors of a cluster answer, and on which nodes: as many as what waits needs, within what there is room for."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

MOST_LOST = 3  # actors of a node that were lost one after another before they joined, after which it rests
REST_SECONDS = 60.0  # after which a node that lost its actors, or could not answer, is tried again


@dataclass
class Place:
    """A node that may have actors.

    Attributes:
        name: for people.
        processors: that Ray knows of.
        cards: graphics cards, each for one actor; None: actors need none.
        lost: how many actors were lost there since the last one joined.
        refused: why none is started there.
        again: when it is tried again all the same, by `time.monotonic`.
    """

    name: str
    processors: int
    cards: int | None = None
    lost: int = 0
    refused: str | None = None
    again: float = math.inf

    @property
    def open(self) -> bool:
        """Whether actors may be started there."""
        return self.refused is None or time.monotonic() >= self.again

    @property
    def most(self) -> int:
        """Actors at once."""
        return self.processors if self.cards is None else min(self.processors, self.cards)

    def join(self) -> None:
        """An actor there gave the bytes that it has to give."""
        self.lost, self.refused, self.again = 0, None, math.inf

    def refuse(self, why: str) -> None:
        """No actor is started there any more, as long as the node is the same."""
        self.refused, self.again = why, math.inf

    def rest(self, why: str) -> None:
        """No actor is started there for a while."""
        self.refused, self.again = why, time.monotonic() + REST_SECONDS

    def lose(self, why: str) -> None:
        """An actor was lost there; after `MOST_LOST` of them, the node rests."""
        self.lost += 1
        if self.lost >= MOST_LOST:
            self.rest(f"{self.lost} actors were lost there one after another ({why})")


@dataclass
class Size:
    """How many actors there are to be.

    Attributes:
        asked: at once, at most; None: as many as there are processors.
        places: nodes by Ray's name.
    """

    asked: int | None
    places: dict[str, Place] = field(default_factory=dict)

    @property
    def limit(self) -> int:
        """Actors at once."""
        room = sum(one.most for one in self._open.values())
        return max(min(self.asked or room, room), 1)

    @property
    def processors_each(self) -> int:
        """Processors of an actor: all are divided among as many actors as there may be, and none spans two nodes."""
        there = [one.processors for one in self._open.values()]
        return max(min(sum(there) // self.limit, max(there, default=1)), 1)

    def free(self, held: Sequence[tuple[str, int]]) -> str | None:
        """A node where there is room for one more, the emptiest first.

        Args:
            held: of each actor, its node and how many of its processors it holds.
        """
        each, left = self.processors_each, Counter({node: one.processors for node, one in self._open.items()})
        there = Counter(node for node, _ in held)
        for node, processors in held:
            if node in left:
                left[node] -= processors
        room = [node for node, one in self._open.items() if left[node] >= each and there[node] < one.most]
        return max(room, key=lambda node: left[node], default=None)

    def shared(self) -> str | None:
        """A node where one more computes beside those that hold its processors; None: no node may have actors."""
        may = self._open
        return max(may, key=lambda node: may[node].processors, default=None)

    @property
    def reasons(self) -> str:
        """Why nodes have no actors, for people."""
        reasons = [f"{one.name}: {one.refused}" for one in list(self.places.values()) if not one.open]
        return "; ".join(reasons) or "none of them has processors"

    @property
    def _open(self) -> dict[str, Place]:
        return {node: one for node, one in self.places.items() if one.open and one.most}


def wanted(waiting: int, most: int, idle: int, there: int) -> int:
    """How many actors are to be added: one for each batch that waits, beyond those that are free for one.

    Args:
        waiting: questions that no batch has taken.
        most: questions in a batch.
        idle: actors that compute nothing, or are just starting.
        there: actors in all.
    """
    return max(math.ceil(waiting / most) - idle, 0 if there else 1)
