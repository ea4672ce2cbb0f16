"""What is sent to nodes: batches of items, whole stages, and the probe that a node passes before its first batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.errors import StageFailedError
from workbench.store.stage import Stage
from workbench.store.work import ItemWork

SECONDS = 2.0  # that a batch takes, about
FIRST = 16  # items of a node's first batch
SMALLEST, LARGEST = 4, 4_096  # items of a batch; a generator computes no fewer than four prompts at a time
SENT = 3  # times that something is sent before its stage fails
PROBED = 8  # items that each node computes as the driver did


@dataclass
class Batch:
    """Some items of a job, by their positions among its inputs."""

    job: Job
    positions: list[int]
    sent: int = 0

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{len(self.positions)} {self.job.work.kind.name}"


@dataclass
class Piece:
    """A whole stage.

    Attributes:
        stage: which.
        parcel: reference to it, packed.
        sent: how many times.
        folder: where its files are on the driver; None until they are there.
        facts: as the stage gave them.
    """

    stage: Stage[Any]
    parcel: Any
    sent: int = 0
    folder: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"stage {self.stage.name} {self.stage.key[:12]}"


@dataclass
class Probe:
    """Items that the driver computed itself; a node that gives other bytes is refused.

    Attributes:
        work: that was computed first of its kind.
        parcel: reference to it, packed.
        texts: the inputs.
        expected: the driver's values as they are stored.
    """

    work: ItemWork[Any]
    parcel: Any
    texts: list[str]
    expected: list[bytes]

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{len(self.expected)} {self.work.kind.name} to probe"

    def difference(self, values: Sequence[tuple[int, Any]]) -> str | None:
        """The first item in which a node differs, in words; or None.

        Args:
            values: (position, value) pairs of the node.
        """
        found = {i: self.work.kind.encode(value) for i, value in values}
        for i, expected in enumerate(self.expected):
            if found.get(i) != expected:
                kind = self.work.kind.name
                return (
                    f"item {i + 1} of {len(self.expected)} probed {kind} has other bytes there than here: {self.texts[i][:60]!r}"
                )
        return None


@dataclass
class Job:
    """The items that the driver waits for.

    Attributes:
        work: computes them.
        parcel: reference to it, packed.
        missing: inputs.
        left: positions that were not sent, or have to be sent again, in an order that computes well together.
        again: batches that were lost.
        flying: how many batches are under way.
        ready: values that came back.
        rates: node -> items in a second.
    """

    work: ItemWork[Any]
    parcel: Any
    missing: list[str]
    left: deque[int]
    again: deque[Batch] = field(default_factory=deque)
    flying: int = 0
    ready: list[list[tuple[int, Any]]] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether nothing is left, under way or not taken."""
        return not (self.left or self.again or self.flying or self.ready)

    @property
    def open(self) -> bool:
        """Whether something has to be sent."""
        return bool(self.left or self.again)

    def taken(self) -> list[tuple[int, Any]]:
        """All values that came back and were not taken."""
        values = [pair for batch in self.ready for pair in batch]
        self.ready.clear()
        return values

    def batch(self, node: str, nodes: int) -> Batch:
        """What is sent to a node next: as much as takes it about `SECONDS`, and a fair share of what is left.

        Args:
            node: which.
            nodes: how many compute.
        """
        if self.again:
            return self.again.popleft()
        rate = self.rates.get(node)
        wanted = FIRST if rate is None else int(rate * SECONDS)
        fair = -(-len(self.left) // (2 * nodes))
        n = max(SMALLEST, min(wanted, fair, LARGEST))
        return Batch(self, [self.left.popleft() for _ in range(min(n, len(self.left)))])


def send_again(task: Batch | Piece, node: str, reason: str) -> None:
    """Counts that what was sent was lost.

    Args:
        task: what was sent.
        node: where it was lost.
        reason: why, for people.

    Raises:
        StageFailedError: it was sent too often.
    """
    if task.sent >= SENT:
        raise StageFailedError(
            f"{task.words}: sent to nodes {SENT} times and lost, the last time on {node} ({reason}); what is stored is kept, and "
            f"the same command goes on"
        )
