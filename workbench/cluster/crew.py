"""The crew: the nodes of a Ray cluster that compute for one session, whose process alone plans and writes.

Ray finds out that a node or a process is lost and moves the data; what is lost is sent again, since an item is the same wherever
it is computed. A node joins when it is there, also late, and only after it gave the driver's bytes.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from workbench.cluster import pieces
from workbench.cluster.dispatch import Dispatch
from workbench.cluster.members import DRIVER, Members
from workbench.cluster.parcel import packed
from workbench.cluster.tasks import PROBED, Job, Piece, Probe
from workbench.errors import InputError
from workbench.results.records import NodeRecord
from workbench.store.session import Session
from workbench.store.stage import Stage
from workbench.store.work import ItemWork

T = TypeVar("T")


class RayCrew:
    """Computes items and whole stages on all nodes of the cluster that this process is connected to.

    Attributes:
        session: whose work it is.
        members: the nodes.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # it only reads, so a lost one is begun anew, and asked again
        options = ray.remote(pieces.Depot).options(
            num_cpus=0, max_concurrency=8, scheduling_strategy=here, max_restarts=-1, max_task_retries=-1
        )
        self.members = Members(session, options.remote(str(session.store.folder.resolve())))
        self._dispatch = Dispatch(session, self.members)
        self._pieces: dict[str, Piece] = {}

    @property
    def label(self) -> str:
        """How many nodes compute: ``on 2 nodes``."""
        return self.members.label

    def assemble(self) -> None:
        """Waits until every node that is there has joined, was refused, or has not begun for long.

        Raises:
            InputError: none has joined.
        """
        self._dispatch.recruit()
        while self.members.awaited:
            self._dispatch.turn()
        if not self.members.joined:
            raise InputError(f"no node of the cluster can compute this experiment: {self.members.reasons}")

    def leave(self) -> None:
        """Has the nodes remove their files, as far as they answer within seconds."""
        self.members.leave()

    def sentences(self, seconds: float) -> list[str]:
        """Which nodes compute and which do not, for people.

        Args:
            seconds: that this machine would take for what is planned, about.
        """
        return self.members.sentences(seconds)

    def record(self) -> dict[str, NodeRecord]:
        """What each node computed, and why a node was refused, for manifest.json."""
        return self.members.record()

    def items(self, work: ItemWork[T], missing: list[str], session: Session) -> Iterator[list[tuple[int, T]]]:
        """Values of missing inputs, batch by batch, in the order in which nodes give them.

        Where somebody asked to stop, what is under way is waited for and given, and nothing more is sent.

        Args:
            work: computes them.
            missing: distinct inputs.
            session: the driver's; it computes the probe.

        Raises:
            StageFailedError: nodes were lost too often, or none is left.
            InputError: the work refuses an input.
        """
        positions = sorted(range(len(missing)), key=lambda i: (work.order(missing[i]), i))
        parcel, kind, probes = ray.put(packed(work)), work.alike, self._dispatch.probes
        if kind not in probes:
            chosen = positions[:: max(1, len(positions) // PROBED)][:PROBED]
            texts = [missing[i] for i in chosen]
            values = dict(pair for batch in work.computed(texts, session) for pair in batch)
            expected = [work.kind.encode(values[i]) for i in range(len(chosen))]
            probes[kind] = Probe(work, parcel, texts, expected)
            self.members.count(DRIVER, work.kind.name, len(chosen))
            yield [(position, values[i]) for i, position in enumerate(chosen)]
            probed = set(chosen)
            positions = [position for position in positions if position not in probed]
        job = Job(work, parcel, missing, deque(positions))
        with self._dispatch.sending(job):
            while not job.done:
                if session.progress.stopping:
                    job.left.clear()
                    job.again.clear()
                if job.ready and not (session.progress.stopping and job.flying):  # then it is given at once, at the end
                    yield job.taken()
                elif not job.done:
                    self._dispatch.turn()
        if session.progress.stopping:
            raise KeyboardInterrupt

    def begin(self, stages: Sequence[Stage[Any]]) -> None:
        """Has whole stages computed side by side, as far as nodes are free."""
        for stage in stages:
            if stage.key not in self._pieces:
                piece = self._pieces[stage.key] = Piece(stage, ray.put(packed(stage)))
                self._dispatch.waiting.append(piece)
        self._dispatch.assign()

    def stage(self, stage: Stage[Any], folder: Path, session: Session) -> dict[str, Any]:
        """Computes a whole stage into a folder, or waits for it where it was begun.

        Args:
            stage: which.
            folder: an empty one.
            session: the driver's.

        Returns:
            The stage's facts.

        Raises:
            StageFailedError: nodes were lost too often, or none is left.
            InputError: the stage refuses its input.
        """
        self.begin([stage])
        piece = self._pieces[stage.key]
        with session.progress.task(f"{stage.name} {self.label}", 1) as report:
            while piece.folder is None:
                if session.progress.stopping:
                    raise KeyboardInterrupt
                self._dispatch.turn()
            report(1)
        for path in piece.folder.iterdir():
            shutil.move(path, folder / path.name)
        shutil.rmtree(piece.folder)
        del self._pieces[stage.key]
        return piece.facts
