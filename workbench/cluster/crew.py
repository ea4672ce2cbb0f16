"""The crew: the nodes of a Ray cluster that compute for one session, whose process alone plans and writes.

Ray finds out that a node or a process is lost and moves the data; what is lost is sent again, since an item is the same wherever
it is computed. A node joins when it is there, also late, and only after it gave the driver's bytes.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from workbench.cluster import facts, pieces
from workbench.cluster.node import Computed, Joined, Made, Node
from workbench.cluster.parcel import DifferentError, packed
from workbench.cluster.tasks import PROBED, SENT, Batch, Job, Piece, Probe, send_again
from workbench.component import file_digest
from workbench.errors import InputError, StageFailedError
from workbench.results.records import NodeRecord
from workbench.store.session import Session
from workbench.store.stage import Stage
from workbench.store.work import ItemWork

T = TypeVar("T")
DRIVER = "driver"  # what the driver computed itself, in the record
IN_FLIGHT = 2  # batches of a node: one is computed while the next one waits there
LOOKED = 1.0  # seconds between two looks at which nodes there are
PATIENCE = 60.0  # seconds after which it is said that a node does not begin


@dataclass
class Member:
    """A node that computes, or may.

    Attributes:
        node: Ray's name of it.
        name: for people.
        processors: that Ray gives the actor.
        actor: the handle of its process.
        since: when it was asked to join.
        joined: whether it has the driver's facts.
        threads: it computes with.
        passed: kinds of work whose probe it passed.
        probing: kind of work whose probe is under way.
        flying: how many batches it has.
        piece: the whole stage that it computes.
        told: whether it was said that it does not begin.
    """

    node: str
    name: str
    processors: int
    actor: Any
    since: float = field(default_factory=time.monotonic)
    joined: bool = False
    threads: int = 0
    passed: set[str] = field(default_factory=set)
    probing: str | None = None
    flying: int = 0
    piece: Piece | None = None
    told: bool = False


class RayCrew:
    """Computes items and whole stages on all nodes of the cluster that this process is connected to.

    Attributes:
        session: whose work it is.
        members: Ray's name of a node -> the member.
        refused: name of a node -> why it does not compute.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.members: dict[str, Member] = {}
        self.refused: dict[str, str] = {}
        session.machine.prepare()
        self._facts = facts.facts(session.machine)
        self._dataset = [ray.put(session.dataset)]
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        beside = ray.remote(pieces.Depot).options(num_cpus=0, max_concurrency=8, scheduling_strategy=here)
        self._depot = beside.remote(str(session.store.folder.resolve()))
        self._looked = float("-inf")
        self._lost: Counter[str] = Counter()
        self._computed: dict[str, Counter[str]] = {}
        self._of: dict[str, Member] = {}  # name -> the member as it was last
        self._probes: dict[str, Probe] = {}
        self._pieces: dict[str, Piece] = {}
        self._waiting: deque[Piece] = deque()
        self._job: Job | None = None
        self._flights: dict[Any, tuple[Member, Batch | Piece | Probe | None]] = {}  # None: it is asked for its facts

    @property
    def label(self) -> str:
        """How many nodes compute: ``on 2 nodes``."""
        n = len(self._joined())
        return f"on {n} node" if n == 1 else f"on {n} nodes"

    def assemble(self) -> None:
        """Waits until every node that is there has joined or was refused.

        Raises:
            InputError: none has joined.
        """
        self._recruit()
        while any(not member.joined and not member.told for member in self.members.values()):
            self._turn()
        if not self._joined():
            reasons = "; ".join(f"{name}: {why}" for name, why in self.refused.items())
            raise InputError(f"no node of the cluster can compute this experiment: {reasons or 'none of them has processors'}")

    def sentences(self) -> list[str]:
        """Which nodes compute and which do not, for people."""
        joined = self._joined()
        threads = sum(member.threads for member in joined)
        said = [f"{self.label} with {threads} threads in all; the times above are those of this machine alone"]
        return said + [f"node {name} is refused: {why}" for name, why in self.refused.items()]

    def record(self) -> dict[str, NodeRecord]:
        """What each node computed, and why a node was refused, for manifest.json."""
        found: dict[str, NodeRecord] = {}
        for name in [*self._computed, *(name for name in self.refused if name not in self._computed)]:
            member = self._of.get(name)
            found[name] = {
                "processors": member.processors if member else 0,
                "threads": member.threads if member else 0,
                "computed": dict(sorted(self._computed.get(name, {}).items())),
                "refused": self.refused.get(name),
            }
        return found

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
            self._count(DRIVER, work.kind.name, len(chosen))
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

    def _joined(self) -> list[Member]:
        return [member for member in self.members.values() if member.joined]

    def _count(self, name: str, kind: str, n: int) -> None:
        self._computed.setdefault(name, Counter())[kind] += n

    def _turn(self) -> None:
        """Looks for new nodes, sends what is to be sent, and takes what came back within a second."""
        if self.session.progress.stopping:
            raise KeyboardInterrupt
        self._recruit()
        self._assign()
        if not self.members:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.refused.items())
            raise StageFailedError(
                f"no node is left that computes ({reasons or 'the cluster has none'}); what is stored is kept, and the same "
                f"command goes on"
            )
        flights = list(self._flights)
        done, _ = ray.wait(flights, num_returns=1, timeout=1.0)
        if done:
            done, _ = ray.wait(flights, num_returns=len(flights), timeout=0)
        for reference in done:
            if reference in self._flights:  # what a lost node had is forgotten
                self._land(reference)

    def _recruit(self) -> None:
        """Asks nodes that are new, or whose process was lost, to join."""
        if time.monotonic() - self._looked < LOOKED:
            return
        self._looked = time.monotonic()
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            name = f"{node['NodeManagerAddress']}/{node['NodeID'][:8]}"
            processors = int(node["Resources"].get("CPU", 0)) if node["Alive"] else 0
            if processors and node["NodeID"] not in self.members and name not in self.refused:
                self._ask(node["NodeID"], name, processors)
        for member in self.members.values():
            if not member.joined and not member.told and time.monotonic() - member.since > PATIENCE:
                member.told = True
                self.session.progress.say(f"node {member.name} has not begun yet; is something else using its processors?")

    def _ask(self, node: str, name: str, processors: int) -> None:
        gpus = 1 if self.session.machine.device == "cuda" else 0
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        options = ray.remote(Node).options(num_cpus=processors, num_gpus=gpus, scheduling_strategy=there)
        actor: Any = options.remote(self.session.machine, self._dataset, self._depot)
        member = self.members[node] = self._of[name] = Member(node, name, processors, actor)
        self._flights[actor.facts.remote()] = (member, None)

    def _assign(self) -> None:
        """Sends what is waiting to nodes that are free: whole stages first, since they take longest."""
        for member in self._joined():
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
                    self._send_batch(member, job.batch(member.node, len(self._joined())))
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
                self._take_facts(member, value)
        except RayTaskError as error:
            self._failed(member, task, getattr(error, "cause", None) or error)
        except RayError as error:
            self._flights.setdefault(reference, (member, task))
            self._lose(member, error)

    def _take_facts(self, member: Member, joined: Joined) -> None:
        if different := facts.difference(self._facts, joined.facts) or joined.unlike_record:
            self._refuse(member, different)
            return
        member.joined, member.threads = True, joined.threads
        self.session.progress.say(f"node {member.name} joins with {member.threads} threads")

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
        self._count(member.name, job.work.kind.name, len(batch.positions))
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
        self._count(member.name, "stages", 1)
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
        self.refused[member.name] = reason
        self.session.progress.say(f"node {member.name} is refused: {reason}")
        self._drop(member, reason)

    def _lose(self, member: Member, error: RayError) -> None:
        reason = _last_line(error)
        self._lost[member.node] += 1
        if self._lost[member.node] >= SENT:
            self.refused[member.name] = f"it was lost {SENT} times ({reason})"
        self.session.progress.say(f"node {member.name} was lost ({reason}); its work is sent again")
        self._drop(member, reason)

    def _drop(self, member: Member, reason: str) -> None:
        self.members.pop(member.node, None)
        ray.kill(member.actor)
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
