"""The actors that answer for one pipeline, each in batches; as many as are needed for what waits.

An actor joins when it computes as this process does and gave its bytes for some questions. What a lost actor had is asked again.
Where another configuration holds all processors, as the one before a promotion does, the first actor stands in beside its actors,
until there is room for one with processors of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from workbench.cluster import pieces
from workbench.errors import InputError
from workbench.pipeline import Pipeline
from workbench.serving.answering_node import AnsweringNode
from workbench.serving.batching import FIRST_GUESS_SECONDS, Batcher, Flight, Line, most_together
from workbench.serving.crew_size import Place, Size, wanted
from workbench.serving.distant import Distant, Everyone, Member, last_line
from workbench.serving.joining import Expected

LOOK_SECONDS = 0.5
IDLE_SECONDS = 60.0  # after which an actor that was not needed ends, unless it is the last
PATIENCE = 60.0  # after which it is said that an actor does not begin
CARD = 0.6  # of a graphics card that an actor asks for: no two fit on one, and one that stands in fits beside either
BESIDE = 0.4  # of a graphics card, for one that stands in

log = logging.getLogger(__name__)


class Crew:
    """The actors that answer for one pipeline: a `workbench.serving.batching.Worker`.

    Attributes:
        line: flights that wait for an actor.
        members: actors that answer, or are to.
        leaving: actors that end after the batch that they have.
    """

    takers: int | None = None  # this process sends them batches

    def __init__(self, pipeline: Pipeline, most: int | None, hangs_seconds: float, everyone: Everyone) -> None:
        """Nobody yet; `begin` starts the first actor.

        Args:
            pipeline: what answers.
            most: actors at once; None: as many as there are processors.
            hangs_seconds: that a batch takes at most.
            everyone: the actors of all configurations.
        """
        self.machine, self.hangs_seconds, self.everyone = pipeline.session.machine, hangs_seconds, everyone
        self.together = most_together(pipeline)
        self.size, self.line = Size(most), Line()
        self.members, self.leaving = list[Member](), list[Member]()
        self._stopped = threading.Event()
        self._expected = Expected(pipeline)
        self._dataset = [ray.put(pipeline.session.dataset)]
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        beside = ray.remote(pieces.Depot).options(
            num_cpus=0, max_concurrency=8, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here
        )
        self._depot: Any = beside.remote(str(pipeline.session.store.folder.resolve()))

    def begin(self) -> None:
        """Starts an actor, and returns when it has joined.

        Raises:
            InputError: no actor can answer.
            RuntimeError: it was stopped meanwhile.
        """
        try:
            while not self._answering():
                self._look()
                with self.everyone.lock:
                    if self.stopped:
                        raise RuntimeError("the service has stopped, so that no actor is started")
                    if not self.members and self.size.shared() is None:
                        raise InputError(f"no node of the cluster can answer for this run: {self.size.reasons}")
                time.sleep(LOOK_SECONDS / 5)
        except BaseException:
            self.stop()
            raise
        threading.Thread(target=self._watch, name="actors", daemon=True).start()

    @property
    def stopped(self) -> bool:
        """Whether its actors have ended for good."""
        return self._stopped.is_set()

    @property
    def nobody(self) -> str | None:
        """Why nobody computes now, for people; None: somebody does."""
        if self._answering():
            return None
        return "no actor has joined yet; one is starting" if list(self.members) else f"no node can answer: {self.size.reasons}"

    @property
    def waiting(self) -> int:
        """Flights that no actor has taken yet."""
        return len(self.line)

    @property
    def expected_wait(self) -> float:
        """Seconds until a question that comes now has its answer, about."""
        joined = self._answering()
        seconds = sum(one.seconds for one in joined) / len(joined) if joined else FIRST_GUESS_SECONDS
        busy = all(one.busy_seconds for one in joined)
        return seconds * (len(self.line) // (self.together * max(len(joined), 1)) + 1 + busy)

    @property
    def busy_seconds(self) -> float:
        """Seconds for which the slowest batch has been computed."""
        return max((one.busy_seconds for one in self._answering()), default=0.0)

    def submit(self, flight: Flight) -> None:
        """Queues a flight."""
        self.line.add(flight)

    def stop(self) -> None:
        """Ends the actors; what waits is not answered."""
        with self.everyone.lock:
            if self.stopped:
                return
            self._stopped.set()
            for member in [*self.members, *self.leaving]:
                self._end(member)
            ray.kill(self._depot)

    def _answering(self) -> list[Batcher]:
        return [one.batcher for one in list(self.members) if one.batcher and one.answers]

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                self._look()
            except Exception:  # of a cluster that is being lost
                log.exception("the actors cannot be looked after")

    def _look(self) -> None:
        """Lets lost actors go, ends those that are not needed or hang, and starts as many as what waits needs."""
        nodes = ray.nodes()  # type: ignore[no-untyped-call]  # before the lock is taken, since this may take long
        with self.everyone.lock:
            if self.stopped:
                return
            self._let_go()
            self._recruit(nodes)
            self._grow()
            self._relieve()
            self._shrink()

    def _let_go(self) -> None:
        for member in [one for one in self.members if one.batcher and one.batcher.lost]:
            self._lose(member, "its process ended")
        for member in [one for one in self.leaving if one.batcher is None or one.batcher.ended]:
            self._end(member)
        for member in [*self.members, *self.leaving]:
            if member.busy_seconds > self.hangs_seconds and not member.hung:
                log.error(
                    "an actor on %s has worked at the same questions for %g s; it is ended",
                    self._name(member),
                    self.hangs_seconds,
                )
                member.hung = True
                ray.kill(member.actor)
            if member.batcher is None and not member.told and time.monotonic() - member.since > PATIENCE:
                member.told = True
                log.warning(
                    "an actor on %s has not joined after %g s; does something else use its processors?",
                    self._name(member),
                    PATIENCE,
                )

    def _recruit(self, nodes: list[dict[str, Any]]) -> None:
        """Notes which nodes there are."""
        there = {node["NodeID"]: node for node in nodes if node["Alive"]}
        for node, known in there.items():
            resources = known["Resources"]
            processors = int(resources.get("CPU", 0))
            cards = int(resources.get("GPU", 0)) if self.machine.device == "cuda" else None
            if processors and node not in self.size.places:
                self.size.places[node] = Place(f"{known['NodeManagerAddress']}/{node[:8]}", processors, cards)
        for node in self.size.places.keys() - there.keys():
            del self.size.places[node]

    def _grow(self) -> None:
        idle = sum(not one.busy_seconds for one in self.members)
        for _ in range(wanted(len(self.line), self.together, idle, len(self.members))):
            node = self.size.free(self.everyone.held)
            if node is not None and len(self.members) < self.size.limit:
                self._start(node, self.size.processors_each)
            elif not self.members and (node := self.size.shared()) is not None:
                self._start(node, 0)
            else:
                return

    def _relieve(self) -> None:
        """An actor that stands in ends when one with processors of its own answers, which is started when there is room."""
        standing = [one for one in self.members if not one.processors]
        own = [one for one in self.members if one.processors]
        if any(one.answers for one in own):
            for member in standing:
                self._leave(member)
        elif standing and not own and (node := self.size.free(self.everyone.held)) is not None:
            self._start(node, self.size.processors_each)

    def _shrink(self) -> None:
        for member in list(self.members):
            idle_since = member.batcher.used if member.batcher and not member.busy_seconds else None
            if idle_since is None or len(self.line) or len(self._answering()) < 2:
                continue
            if time.monotonic() - idle_since > IDLE_SECONDS:
                self._leave(member)

    def _start(self, node: str, processors: int) -> None:
        """Starts an actor, which answers once it has joined.

        Args:
            node: Ray's name of it.
            processors: that the actor holds; 0: it stands in.
        """
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        cards = (CARD if processors else BESIDE) if self.machine.device == "cuda" else 0
        options = ray.remote(AnsweringNode).options(num_cpus=processors, num_gpus=cards, scheduling_strategy=there)
        member = Member(node, options.remote(self.machine, self._dataset, self._depot), processors)
        self.members.append(member)
        self.everyone.members.append(member)
        threading.Thread(target=self._join, args=(member,), name="joining", daemon=True).start()

    def _join(self, member: Member) -> None:
        """Lets an actor answer, or refuses its node."""
        different: str | None = None
        lost: Exception | None = None
        try:
            different = self._expected.different(member.actor)
        except Exception as error:
            lost = error
        with self.everyone.lock:
            if member not in self.members:  # it was ended meanwhile
                return
            place = self.size.places.get(member.node)
            if place is None:  # its node is gone
                self._end(member)
            elif isinstance(lost, RayTaskError):
                place.rest(f"it cannot answer ({last_line(lost)})")
                log.warning("node %s is left out for a while: %s", place.name, place.refused)
                self._end(member)
            elif lost:
                self._lose(member, last_line(lost))
            elif different:
                place.refuse(different)
                log.warning("node %s is refused: %s", place.name, different)
                self._end(member)
            else:
                place.join()
                member.batcher = Batcher(Distant(member.actor), self.together, self.line)

    def _lose(self, member: Member, why: str) -> None:
        log.warning("an actor on %s was lost (%s); its questions are asked again", self._name(member), why)
        if place := self.size.places.get(member.node):
            place.lose(why)
            if place.refused:
                log.warning("node %s is left out for a while: %s", place.name, place.refused)
        self._end(member)

    def _leave(self, member: Member) -> None:
        """Has an actor end after the batch that it has."""
        self.members.remove(member)
        self.leaving.append(member)
        if member.batcher:
            member.batcher.stop()

    def _end(self, member: Member) -> None:
        for them in (self.members, self.leaving, self.everyone.members):
            if member in them:
                them.remove(member)
        member.end()

    def _name(self, member: Member) -> str:
        place = self.size.places.get(member.node)
        return place.name if place else member.node[:8]
