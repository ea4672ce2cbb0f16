"""How many actors of a cluster answer, and on which nodes: as many as what waits needs, within what there is room for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Place:
    """A node that may have actors.

    Attributes:
        name: for people.
        processors: that Ray knows of.
        lost: how many actors were lost there since the last one joined.
        refused: why none is started there.
    """

    name: str
    processors: int
    lost: int = 0
    refused: str | None = None


@dataclass
class Size:
    """How many actors there are to be.

    Attributes:
        most: at once; None: as many as there are processors.
        places: nodes by Ray's name.
    """

    most: int | None
    places: dict[str, Place] = field(default_factory=dict)

    @property
    def limit(self) -> int:
        """Actors at once."""
        processors = sum(one.processors for one in self.places.values() if one.refused is None)
        return max(min(self.most or processors, processors), 1)

    @property
    def processors_each(self) -> int:
        """Processors of an actor: all are divided among as many actors as there may be, and none spans two nodes."""
        there = [one.processors for one in self.places.values() if one.refused is None]
        return max(min(sum(there) // self.limit, max(there, default=1)), 1)

    def free(self, taken: Counter[str]) -> str | None:
        """A node where there is room for one more, the emptiest first.

        Args:
            taken: how many actors each node has.
        """
        each = self.processors_each
        room = {node: one.processors - taken[node] * each for node, one in self.places.items() if one.refused is None}
        best = max(room, key=lambda node: room[node], default=None)
        return best if best is not None and room[best] >= each else None


def wanted(waiting: int, most: int, idle: int, there: int) -> int:
    """How many actors are to be added: one for each batch that waits, beyond those that are free for one.

    Args:
        waiting: questions that no batch has taken.
        most: questions in a batch.
        idle: actors that compute nothing, or are just starting.
        there: actors in all.
    """
    return max(math.ceil(waiting / most) - idle, 0 if there else 1)
