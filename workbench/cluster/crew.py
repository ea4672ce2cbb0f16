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
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from workbench.cluster import pieces
from workbench.cluster.members import DRIVER, WAITED, Member, Members
from workbench.cluster.node import Computed, Made
from workbench.cluster.parcel import DifferentError, packed
from workbench.cluster.tasks import PROBED, Batch, Job, Piece, Probe, send_again
from workbench.component import file_digest
from workbench.errors import InputError, StageFailedError
from workbench.results.records import NodeRecord
from workbench.store.session import Session
from workbench.store.stage import Stage
from workbench.store.work import ItemWork

T = TypeVar("T")
IN_FLIGHT = 2  # batches of a node: one is computed while the next one waits there


class RayCrew:
    """Computes items and whole stages on all nodes of the cluster that this process is connected to.

    Attributes:
        session: whose work it is.
        members: the nodes.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        beside = ray.remote(pieces.Depot).options(num_cpus=0, max_concurrency=8, scheduling_strategy=here)
        self.members = Members(session, beside.remote(str(session.store.folder.resolve())))
        self._probes: dict[str, Probe] = {}
        self._pieces: dict[str, Piece] = {}
        self._waiting: deque[Piece] = deque()
        self._job: Job | None = None
        self._flights: dict[Any, tuple[Member, Batch | Piece | Probe | None]] = {}  # None: it is asked for its facts

    @property
    def label(self) -> str:
        """How many nodes compute: ``on 2 nodes``."""
        return self.members.label

    def assemble(self) -> None:
        """Waits until every node that is there has joined, was refused, or has not begun for long.

        Raises:
            InputError: none has joined.
        """
        self._recruit()
        while any(member.awaited for member in self.members.there.values()):
            self._turn()
        if not self.members.joined:
            slow = f"none has begun within {WAITED / 60:.0f} minutes" if self.members.there else "none of them has processors"
            why = self.members.reasons or slow
            raise InputError(f"no node of the cluster can compute this experiment: {why}")

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

        Args:
            work: computes them.
            missing: distinct inputs.
            session: the driver's; it computes the probe.

        Raises:
            StageFailedError: nodes were lost too often, or none is left.
            InputError: the work refuses an input.
        """
        positions = sorted(range(len(missing)), key=lambda i: (work.order(missing[i]), i))
        parcel, kind = ray.put(packed(work)), work.alike
        if kind not in self._probes:
            chosen = positions[:: max(1, len(positions) // PROBED)][:PROBED]
            texts = [missing[i] for i in chosen]
            values = dict(pair for batch in work.computed(texts, session) for pair in batch)
            expected = [work.kind.encode(values[i]) for i in range(len(chosen))]
            self._probes[kind] = Probe(work, parcel, texts, expected)
            self.members.count(DRIVER, work.kind.name, len(chosen))
            yield [(position, values[i]) for i, position in enumerate(chosen)]
            probed = set(chosen)
            positions = [position for position in positions if position not in probed]
        job = self._job = Job(work, parcel, missing, deque(positions))
        try:
            while not job.done:
                while job.ready:
                    yield job.ready.pop()
                if not job.done:
                    self._turn()
        finally:
            self._job = None
            self._forget(job)

    def begin(self, stages: Sequence[Stage[Any]]) -> None:
        """Has whole stages computed side by side, as far as nodes are free."""
        for stage in stages:
            if stage.key not in self._pieces:
                piece = self._pieces[stage.key] = Piece(stage, ray.put(packed(stage)))
                self._waiting.append(piece)
        self._assign()

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
                self._turn()
            report(1)
        for path in piece.folder.iterdir():
            shutil.move(path, folder / path.name)
        shutil.rmtree(piece.folder)
        del self._pieces[stage.key]
        return piece.facts

    def _turn(self) -> None:
        """Looks for new nodes, sends what is to be sent, and takes what came back within a second."""
        if self.session.progress.stopping:
            raise KeyboardInterrupt
        self._recruit()
        self._assign()
        if not self.members.there:
            why = self.members.reasons or "the cluster has none"
            raise StageFailedError(f"no node is left that computes ({why}); what is stored is kept, and the same command goes on")
        flights = list(self._flights)
        done, _ = ray.wait(flights, num_returns=1, timeout=1.0)
        if done:
            done, _ = ray.wait(flights, num_returns=len(flights), timeout=0)
        for reference in done:
            if reference in self._flights:  # what a lost node had is forgotten
                self._land(reference)

    def _recruit(self) -> None:
        """Asks nodes that are new to join."""
        for reference, member in self.members.recruit():
            self._flights[reference] = (member, None)

    def _assign(self) -> None:
        """Sends what is waiting to nodes that are free: whole stages first, since they take longest."""
        for member in self.members.joined:
            if member.piece or member.probing:
                continue
            if self._waiting:
                if not member.flying:
                    self._send_piece(member, self._waiting.popleft())
                continue
            job = self._job
            while job and job.open and member.flying < IN_FLIGHT and not member.probing:
                kind = job.work.alike
                if kind in member.passed:
                    self._send_batch(member, job.batch(member.node, len(self.members.joined)))
                else:
                    probe, member.probing = self._probes[kind], kind
                    self._flights[member.actor.compute.remote(probe.parcel, probe.texts)] = (member, probe)

    def _send_piece(self, member: Member, piece: Piece) -> None:
        member.piece = piece
        piece.sent += 1
        self._flights[member.actor.stage.remote(piece.parcel)] = (member, piece)

    def _send_batch(self, member: Member, batch: Batch) -> None:
        member.flying += 1
        batch.job.flying += 1
        batch.sent += 1
        texts = [batch.job.missing[i] for i in batch.positions]
        self._flights[member.actor.compute.remote(batch.job.parcel, texts)] = (member, batch)

    def _land(self, reference: Any) -> None:
        """Takes what a node gave, or finds out why it gave nothing."""
        member, task = self._flights[reference]
        try:
            value = ray.get(reference)
            del self._flights[reference]
            if isinstance(task, Batch):
                self._take_batch(member, task, value)
            elif isinstance(task, Piece):
                self._take_piece(member, task, value)
            elif isinstance(task, Probe):
                self._take_probe(member, task, value)
            else:
                if different := self.members.admit(member, value):
                    self._refuse(member, different)
        except RayTaskError as error:
            self._failed(member, task, getattr(error, "cause", None) or error)
        except RayError as error:
            self._flights.setdefault(reference, (member, task))
            self._lose(member, error)

    def _take_probe(self, member: Member, probe: Probe, computed: Computed) -> None:
        member.probing = None
        if different := probe.difference(computed.values):
            self._refuse(member, different)
        else:
            member.passed.add(probe.work.alike)

    def _take_batch(self, member: Member, batch: Batch, computed: Computed) -> None:
        member.flying -= 1
        job = batch.job
        job.flying -= 1
        job.rates[member.node] = len(batch.positions) / max(computed.seconds, 1e-3)
        job.ready.append([(batch.positions[i], value) for i, value in computed.values])
        self.members.count(member.name, job.work.kind.name, len(batch.positions))
        self.session.note(computed.notes)

    def _take_piece(self, member: Member, piece: Piece, made: Made) -> None:
        """Fetches the files of a stage while its node waits, so that the node is free for another."""
        folder = self.session.store.aside()
        for name, (size, digest) in made.files.items():
            pieces.fetch(folder, name, size, lambda name, start: ray.get(member.actor.piece.remote(made.number, name, start)))
            if file_digest(folder / name) != digest:
                raise StageFailedError(f"{piece.stage.name}: {name} of node {member.name} has other bytes here than there")
        member.actor.discard.remote(made.number)
        member.piece = None
        piece.facts, piece.folder = made.facts, folder
        self.members.count(member.name, "stages", 1)
        self.session.note(made.notes)
        for text in made.fallbacks:
            self.session.fell_back(text)

    def _failed(self, member: Member, task: Batch | Piece | Probe | None, cause: Exception) -> None:
        """What a node says of its work: a node that is unlike the driver is refused, anything else ends the stage."""
        if task is None or isinstance(cause, DifferentError) or isinstance(task, Probe):
            self._refuse(member, str(cause) if isinstance(cause, InputError) else f"{type(cause).__name__}: {_last_line(cause)}")
            return
        said = f"on node {member.name}: {cause}"
        raise InputError(said) if isinstance(cause, InputError) else StageFailedError(said)

    def _refuse(self, member: Member, reason: str) -> None:
        """Sends a node away; what it was sent is sent to others."""
        self.members.refuse(member, reason)
        self._drop(member, reason)

    def _lose(self, member: Member, error: RayError) -> None:
        reason = _last_line(error)
        self.members.lose(member, reason)
        self._drop(member, reason)

    def _drop(self, member: Member, reason: str) -> None:
        self.members.end(member)
        for reference, (one, task) in list(self._flights.items()):
            if one is not member:
                continue
            del self._flights[reference]
            if isinstance(task, Batch):
                task.job.flying -= 1
                send_again(task, member.name, reason)
                task.job.again.append(task)
        if member.piece:
            send_again(member.piece, member.name, reason)
            self._waiting.appendleft(member.piece)

    def _forget(self, job: Job) -> None:
        """Nothing of a job is waited for any more."""
        for reference, (member, task) in list(self._flights.items()):
            if isinstance(task, Batch) and task.job is job:
                member.flying -= 1
                del self._flights[reference]


def _last_line(error: BaseException) -> str:
    """What an error says at its end, which for Ray's is the cause."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1][:300]
