"""Processes of a Ray cluster answer the questions, each in batches; as many as are needed for what waits.

An actor joins when it computes as this process does and gave its bytes for some questions. What a lost actor had is asked again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from workbench.cluster import facts, pieces
from workbench.cluster.parcel import sealed
from workbench.errors import InputError
from workbench.pipeline import Asked, Pipeline, Reply
from workbench.serving.answering_node import AnsweringNode
from workbench.serving.asking import answer_part
from workbench.serving.batching import FIRST_GUESS_SECONDS, Batcher, Flight, Line, LostError, most_together
from workbench.serving.crew_size import Place, Size, wanted

PROBED = 4  # questions that each actor answers as this process does
LOOK_SECONDS = 0.5
IDLE_SECONDS = 60.0  # after which an actor that was not needed ends, unless it is the last
JOIN_SECONDS = 600.0  # in which an actor has to have loaded its models
MOST_LOST = 3  # actors of a node that were lost one after another before they joined, after which none is started there

log = logging.getLogger(__name__)


class Actors:
    """A cluster of which this process is a part.

    Attributes:
        here: whether this process computes answers: the first ones, with which those of the actors are compared.
        away: whether the cluster is away.
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

    def worker(self, pipeline: Pipeline) -> Crew:
        """The actors that answer for a pipeline, one of which is there.

        Raises:
            InputError: none can answer for it.
        """
        return Crew(pipeline, self.most, self.hangs_seconds)

    def connected(self) -> AbstractAsyncContextManager[None]:
        """Nothing is to be reached besides: the cluster is connected already."""
        return nullcontext()


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


@dataclass
class Member:
    """An actor that answers, or is to.

    Attributes:
        node: Ray's name of where it is.
        actor: the handle of its process.
        batcher: sends it batches; None: it has not joined yet.
    """

    node: str
    actor: Any
    batcher: Batcher | None = None


class Crew:
    """The actors that answer for one pipeline: a `workbench.serving.batching.Worker`."""

    takers: int | None = None  # this process sends them batches

    def __init__(self, pipeline: Pipeline, most: int | None, hangs_seconds: float) -> None:
        """Starts an actor, and returns when it has joined.

        Args:
            pipeline: what answers.
            most: actors at once; None: as many as there are processors.
            hangs_seconds: that a batch takes at most.

        Raises:
            InputError: no actor can answer for it.
        """
        if pipeline.answering and pipeline.answering.writer.served:
            label = pipeline.configuration.label
            raise InputError(
                f"{label} is written by a server, which other processes do not make quicker; serve it without --workers"
            )
        self.pipeline, self.hangs_seconds = pipeline, hangs_seconds
        self.together = most_together(pipeline)
        self.size, self.line, self.members = Size(most), Line(), list[Member]()
        self._stopped, self._lock = threading.Event(), threading.Lock()
        machine = pipeline.session.machine
        machine.prepare()
        self._facts = facts.facts(machine)
        self._parcel = ray.put(sealed(pipeline, pipeline.identity))
        texts = [query.text for query in pipeline.session.dataset.split(pipeline.run.report_split)[:PROBED]]
        self._probed = [Asked(text) for text in texts]
        self._expected = [answer_part(reply) for reply in pipeline.answers(self._probed)]
        self._dataset = [ray.put(pipeline.session.dataset)]
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        beside = ray.remote(pieces.Depot).options(num_cpus=0, max_concurrency=8, scheduling_strategy=here)
        self._depot: Any = beside.remote(str(pipeline.session.store.folder.resolve()))
        while not self._joined():
            self._look()
            if not self.members:
                raise InputError(f"no node of the cluster can answer for this run: {self._why_none()}")
            time.sleep(LOOK_SECONDS / 5)
        threading.Thread(target=self._watch, name="actors", daemon=True).start()

    @property
    def waiting(self) -> int:
        """Flights that no actor has taken yet."""
        return len(self.line)

    @property
    def expected_wait(self) -> float:
        """Seconds until a question that comes now has its answer, about."""
        joined = self._joined()
        seconds = sum(one.seconds for one in joined) / len(joined) if joined else FIRST_GUESS_SECONDS
        busy = all(one.busy_seconds for one in joined)
        return seconds * (len(self.line) // (self.together * max(len(joined), 1)) + 1 + busy)

    @property
    def busy_seconds(self) -> float:
        """Seconds for which the slowest batch has been computed."""
        return max((one.busy_seconds for one in self._joined()), default=0.0)

    def submit(self, flight: Flight) -> None:
        """Queues a flight."""
        self.line.add(flight)

    def stop(self) -> None:
        """Ends the actors; what waits is not answered."""
        self._stopped.set()
        with self._lock:
            for member in self.members:
                self._end(member)
            self.members.clear()
            ray.kill(self._depot)

    def _joined(self) -> list[Batcher]:
        return [member.batcher for member in list(self.members) if member.batcher and not member.batcher.lost]

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                with self._lock:
                    if not self._stopped.is_set():
                        self._look()
            except Exception:  # of a cluster that is being lost
                log.exception("the actors cannot be looked after")

    def _look(self) -> None:
        """Lets lost actors go, ends those that are not needed or hang, and starts as many as what waits needs."""
        for member in [one for one in self.members if one.batcher and one.batcher.lost]:
            self._lose(member, "it is lost")
        for member in [one for one in self.members if one.batcher and one.batcher.busy_seconds > self.hangs_seconds]:
            log.error("an actor on %s has worked at the same questions for %g s; it is ended", member.node, self.hangs_seconds)
            ray.kill(member.actor)
        self._recruit()
        idle = sum(one.batcher is None or not one.batcher.busy_seconds for one in self.members)
        for _ in range(wanted(len(self.line), self.together, idle, len(self.members))):
            taken = Counter(one.node for one in self.members)
            node = self.size.free(taken)
            if node is None or len(self.members) >= self.size.limit:
                return
            self._start(node)
        now = time.monotonic()
        for member in list(self.members):
            idle_since = member.batcher and not member.batcher.busy_seconds and member.batcher.used
            if len(self._joined()) > 1 and idle_since and now - idle_since > IDLE_SECONDS and not len(self.line):
                self.members.remove(member)
                self._end(member)

    def _recruit(self) -> None:
        """Looks which nodes there are."""
        there = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        for node, known in there.items():
            processors = int(known["Resources"].get("CPU", 0))
            if processors and node not in self.size.places:
                self.size.places[node] = Place(f"{known['NodeManagerAddress']}/{node[:8]}", processors)
        for node in self.size.places.keys() - there.keys():
            del self.size.places[node]

    def _start(self, node: str) -> None:
        """Starts an actor, which answers once it has joined."""
        machine = self.pipeline.session.machine
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        options = ray.remote(AnsweringNode).options(
            num_cpus=self.size.processors_each, num_gpus=1 if machine.device == "cuda" else 0, scheduling_strategy=there
        )
        member = Member(node, options.remote(machine, self._dataset, self._depot))
        self.members.append(member)
        threading.Thread(target=self._join, args=(member,), name="joining", daemon=True).start()

    def _join(self, member: Member) -> None:
        """Lets an actor answer, or refuses its node."""
        try:
            different = self._different(member)
        except RayTaskError as error:
            different = f"it cannot answer ({last_line(error)})"
        except RayError as error:
            self._lose(member, last_line(error))
            return
        if different is None:
            if place := self.size.places.get(member.node):
                place.lost = 0
            member.batcher = Batcher(Distant(member.actor), self.together, self.line)
            return
        if place := self.size.places.get(member.node):
            place.refused = different
            log.warning("node %s is refused: %s", place.name, different)
        self._drop(member)

    def _different(self, member: Member) -> str | None:
        """In what an actor differs from this process, in words; None: it gives the same bytes."""
        joined = ray.get(member.actor.facts.remote(), timeout=JOIN_SECONDS)
        if different := facts.difference(self._facts, joined.facts) or joined.unlike_record:
            return different
        identity = ray.get(member.actor.open.remote(self._parcel), timeout=JOIN_SECONDS)
        if identity != self.pipeline.identity:
            return f"it would answer from something else there ({identity[:12]}, here {self.pipeline.identity[:12]})"
        found = ray.get(member.actor.answers.remote(self._probed), timeout=JOIN_SECONDS)
        for asked, reply, expected in zip(self._probed, found, self._expected, strict=True):
            if answer_part(reply) != expected:
                return f"its answer has other bytes there than here: {asked.question[:60]!r}"
        return None

    def _lose(self, member: Member, why: str) -> None:
        if place := self.size.places.get(member.node):
            place.lost += 1
            log.warning("an actor on %s was lost (%s); its questions are asked again", place.name, why)
            if place.lost >= MOST_LOST:
                place.refused = f"{MOST_LOST} actors were lost there ({why})"
        self._drop(member)

    def _drop(self, member: Member) -> None:
        if member in self.members:
            self.members.remove(member)
        self._end(member)

    def _end(self, member: Member) -> None:
        if member.batcher:
            member.batcher.stop()
        ray.kill(member.actor)

    def _why_none(self) -> str:
        reasons = [f"{one.name}: {one.refused}" for one in self.size.places.values() if one.refused]
        return "; ".join(reasons) or "none of them has processors"


def last_line(error: BaseException) -> str:
    """What an error says at its end, which for Ray's is the cause."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1][:300]
