"""Who has what under way: sends work to nodes, takes what comes back, and sends again what was lost."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import ray
from ray.exceptions import RayError, RayTaskError

from workbench.cluster import pieces
from workbench.cluster.failures import ExhaustedError, last_line
from workbench.cluster.members import LOOKED, PATIENCE, WAITED, Member, Members
from workbench.cluster.node import Computed, Made
from workbench.cluster.parcel import DifferentError
from workbench.cluster.tasks import Batch, Job, Piece, Probe, send_again
from workbench.component import file_digest
from workbench.errors import InputError, StageFailedError
from workbench.store.session import Session
from workbench.times import duration

IN_FLIGHT = 2  # batches of a node: one is computed while the next one waits there


class Flight(NamedTuple):
    """Something that a node was sent, and when; no task: it was asked for its facts."""

    member: Member
    task: Batch | Piece | Probe | None
    sent: float


class Dispatch:
    """Sends work to the nodes and takes what they give.

    Attributes:
        session: whose work it is.
        members: the nodes.
        probes: kind of work -> what a node computes before its first batch of it.
        waiting: whole stages that were not sent, or have to be sent again.
    """

    def __init__(self, session: Session, members: Members) -> None:
        self.session = session
        self.members = members
        self.probes: dict[str, Probe] = {}
        self.waiting: deque[Piece] = deque()
        self._job: Job | None = None
        self._flights: dict[Any, Flight] = {}
        self._heard = time.monotonic()  # when something was sent, came back, or was said of who is waited for

    @contextmanager
    def sending(self, job: Job) -> Iterator[None]:
        """Within, the items of a job are sent; afterwards nothing of it is waited for."""
        self._job = job
        try:
            yield
        finally:
            self._job = None
            self._forget(job)

    def turn(self) -> None:
        """Looks for new nodes, sends what is to be sent, and takes what came back within a second.

        Raises:
            StageFailedError: no node is left that computes, or the work failed on one.
            InputError: the work refuses its input.
        """
        self.recruit()
        self.assign()
        if not self.members.joined and not self.members.awaited:
            raise StageFailedError(
                f"no node is left that computes ({self.members.reasons}); what is stored is kept, and the same command goes on"
            )
        flights = list(self._flights)
        if not flights:
            time.sleep(LOOKED / 10)
            return
        done, _ = ray.wait(flights, num_returns=1, timeout=1.0)
        if done:
            done, _ = ray.wait(flights, num_returns=len(flights), timeout=0)
            self._heard = time.monotonic()
        for reference in done:
            if reference in self._flights:  # what a lost node had is forgotten
                self._land(reference)
        self._say_who_is_waited_for()

    def recruit(self) -> None:
        """Asks nodes that are new to join."""
        for reference, member in self.members.recruit():
            self._send(reference, member, None)

    def assign(self) -> None:
        """Sends what is waiting to nodes that are free: whole stages first, since they take longest."""
        for member in self.members.joined:
            if member.piece or member.probing:
                continue
            if self.waiting:
                if not member.flying:
                    self._send_piece(member, self.waiting.popleft())
                continue
            job = self._job
            while job and job.open and member.flying < IN_FLIGHT and not member.probing:
                kind = job.work.alike
                if kind in member.passed:
                    self._send_batch(member, job.batch(member.node, len(self.members.joined)))
                else:
                    probe, member.probing = self.probes[kind], kind
                    self._send(member.actor.compute.remote(probe.parcel, probe.texts), member, probe)

    def _send(self, reference: Any, member: Member, task: Batch | Piece | Probe | None) -> None:
        self._heard = time.monotonic()
        self._flights[reference] = Flight(member, task, self._heard)

    def _send_piece(self, member: Member, piece: Piece) -> None:
        member.piece = piece
        piece.sent += 1
        self._send(member.actor.stage.remote(piece.parcel), member, piece)

    def _send_batch(self, member: Member, batch: Batch) -> None:
        member.flying += 1
        batch.job.flying += 1
        batch.sent += 1
        texts = [batch.job.missing[i] for i in batch.positions]
        self._send(member.actor.compute.remote(batch.job.parcel, texts), member, batch)

    def _land(self, reference: Any) -> None:
        """Takes what a node gave, or finds out why it gave nothing."""
        flight = self._flights[reference]
        member, task, _ = flight
        try:
            value = ray.get(reference)
            del self._flights[reference]
            if isinstance(task, Batch):
                self._take_batch(member, task, value)
            elif isinstance(task, Piece):
                self._take_piece(member, task, value)
            elif isinstance(task, Probe):
                self._take_probe(member, task, value)
            elif different := self.members.admit(member, value):
                self._refuse(member, different)
        except RayTaskError as error:
            self._flights.setdefault(reference, flight)
            self._failed(member, task, error)
        except RayError as error:
            self._flights.setdefault(reference, flight)
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

        def read(name: str, start: int) -> bytes:
            return cast(bytes, ray.get(member.actor.piece.remote(made.number, name, start), timeout=WAITED))

        try:
            for name, (size, digest) in made.files.items():
                pieces.fetch(folder, name, size, read)
                if file_digest(folder / name) != digest:
                    raise StageFailedError(f"{piece.stage.name}: {name} of node {member.name} has other bytes here than there")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        member.actor.discard.remote(made.number)
        member.piece = None
        piece.facts, piece.folder = made.facts, folder
        self.members.count(member.name, "stages", 1)
        self.session.note(made.notes)
        for text in made.fallbacks:
            self.session.fell_back(text)

    def _failed(self, member: Member, task: Batch | Piece | Probe | None, error: RayTaskError) -> None:
        """What a node says of its work: one that is unlike the driver or has no room is refused, anything else ends the stage."""
        cause = getattr(error, "cause", None) or error
        if task is None or isinstance(task, Probe) or isinstance(cause, (DifferentError, ExhaustedError)):
            self._refuse(member, last_line(cause) if isinstance(cause, RayError) else str(cause))
            return
        said = f"on node {member.name}: {last_line(cause) if isinstance(cause, RayError) else cause}"
        raise (InputError(said) if isinstance(cause, InputError) else StageFailedError(said)) from error

    def _refuse(self, member: Member, reason: str) -> None:
        """Sends a node away; what it was sent is sent to others."""
        self.members.refuse(member, reason)
        self._drop(member, reason)

    def _lose(self, member: Member, error: RayError) -> None:
        reason = last_line(error)
        if getattr(error, "actor_init_failed", False):  # it lacks what it needs, and would so the next time
            self._refuse(member, reason)
            return
        self.members.lose(member, reason)
        self._drop(member, reason)

    def _drop(self, member: Member, reason: str) -> None:
        self.members.end(member)
        for reference, flight in list(self._flights.items()):
            if flight.member is not member:
                continue
            del self._flights[reference]
            if isinstance(task := flight.task, Batch):
                task.job.flying -= 1
                send_again(task, member.name, reason)
                task.job.again.append(task)
        if member.piece:
            send_again(member.piece, member.name, reason)
            self.waiting.appendleft(member.piece)

    def _forget(self, job: Job) -> None:
        """Nothing of a job is waited for any more."""
        for reference, flight in list(self._flights.items()):
            if isinstance(flight.task, Batch) and flight.task.job is job:
                flight.member.flying -= 1
                del self._flights[reference]

    def _say_who_is_waited_for(self) -> None:
        """Says, where nothing came back for long, which nodes have what: a model may be slow, or something hangs."""
        now = time.monotonic()
        if now - self._heard < PATIENCE:
            return
        self._heard = now
        had: dict[str, str] = {}
        for member, task, sent in self._flights.values():
            if task is not None:  # nodes that do not begin are named by themselves
                had.setdefault(member.name, f"node {member.name} has {task.words} for {duration(now - sent)}")
        if had:
            self.session.progress.say(f"waiting: {'; '.join(had.values())}")
