"""The nodes of a cluster: which are there, which computes as the driver does, and what each has computed."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from workbench import hardware
from workbench.cluster import facts
from workbench.cluster.head import Head
from workbench.cluster.node import Joined, Node
from workbench.cluster.tasks import SENT, Piece
from workbench.results.records import NodeRecord
from workbench.store.session import Session
from workbench.times import duration

DRIVER = "driver"  # what the driver computed itself, in the record
LOOKED = 1.0  # seconds between two looks at which nodes there are
PATIENCE = 60.0  # seconds after which it is said that a node does not begin
WAITED = 300.0  # seconds after which the others begin without it: on a busy machine a process may take minutes to start
LEAVING = 5.0  # seconds in which nodes remove their files at the end; those that compute then are not waited for


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

    @property
    def awaited(self) -> bool:
        """Whether it may still join before the others begin."""
        return not self.joined and time.monotonic() - self.since < WAITED


class Members:
    """Those that compute for a session, and those that were refused.

    Attributes:
        session: whose work they compute.
        there: Ray's name of a node -> the member.
        refused: name of a node -> why it does not compute.
    """

    def __init__(self, session: Session, depot: Any) -> None:
        """Nobody yet.

        Args:
            session: of the driver.
            depot: the actor that gives nodes the files of artifacts.
        """
        self.session = session
        self.there: dict[str, Member] = {}
        self.refused: dict[str, str] = {}
        session.machine.prepare()
        self._facts = facts.facts(session.machine)
        self._dataset = [ray.put(session.dataset)]
        self._depot = depot
        self._head = Head(ray.get_runtime_context().gcs_address)
        self._looked = float("-inf")
        self._lost: Counter[str] = Counter()
        self._asked_again: set[str] = set()  # nodes whose process was lost and that are still to be asked
        self._computed: dict[str, Counter[str]] = {}
        self._of: dict[str, Member] = {}  # name -> the member as it was last

    @property
    def joined(self) -> list[Member]:
        """Those that compute."""
        return [member for member in self.there.values() if member.joined]

    @property
    def label(self) -> str:
        """How many nodes compute: ``on 2 nodes``."""
        n = len(self.joined)
        return f"on {n} node" if n == 1 else f"on {n} nodes"

    @property
    def awaited(self) -> bool:
        """Whether a node may still join before the others begin."""
        return bool(self._asked_again) or any(member.awaited for member in self.there.values())

    @property
    def reasons(self) -> str:
        """Why nobody computes: why each node was refused, or does not begin."""
        why = [f"{name}: {reason}" for name, reason in self.refused.items()]
        why += [f"{one.name}: it has not begun within {WAITED / 60:.0f} minutes" for one in self.there.values() if not one.joined]
        return "; ".join(why) or "the cluster has no node with a processor"

    def sentences(self, seconds: float) -> list[str]:
        """Which nodes compute and which do not, for people.

        Args:
            seconds: that this machine would take for what is planned, about.
        """
        joined = self.joined
        threads = sum(member.threads for member in joined)
        here = hardware.threads()
        divided = duration(seconds * here / threads)
        said = [
            f"{self.label} with {threads} threads in all: about {divided}, where this machine alone would take about "
            f"{duration(seconds)} with {here}; if their threads are as fast as those here, and nothing waits for a server"
        ]
        return said + [f"node {name} is refused: {why}" for name, why in self.refused.items()]

    def record(self) -> dict[str, NodeRecord]:
        """What each node computed, and why a node was refused, for manifest.json."""
        found: dict[str, NodeRecord] = {}
        for name in [*self._computed, *(name for name in self.refused if name not in self._computed)]:
            member, here = self._of.get(name), hardware.threads() if name == DRIVER else 0
            found[name] = {
                "processors": member.processors if member else here,
                "threads": member.threads if member else here,
                "computed": dict(sorted(self._computed.get(name, {}).items())),
                "refused": self.refused.get(name),
            }
        return found

    def count(self, name: str, kind: str, n: int) -> None:
        """Notes that a node, or `DRIVER`, computed n items of a kind."""
        self._computed.setdefault(name, Counter())[kind] += n

    def recruit(self) -> list[tuple[Any, Member]]:
        """Asks nodes that are new, or whose process was lost, to join; at most once in `LOOKED` seconds.

        Returns:
            References to what each says of itself.

        Raises:
            StageFailedError: the head of the cluster is gone.
        """
        if time.monotonic() - self._looked < LOOKED or not self._head.there():
            return []
        self._looked, asked = time.monotonic(), []
        self._asked_again.clear()
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            name = f"{node['NodeManagerAddress']}/{node['NodeID'][:8]}"
            processors = int(node["Resources"].get("CPU", 0)) if node["Alive"] else 0
            if processors and node["NodeID"] not in self.there and name not in self.refused:
                asked.append(self._ask(node["NodeID"], name, processors))
        for member in self.there.values():
            if not member.joined and not member.told and time.monotonic() - member.since > PATIENCE:
                member.told = True
                self.session.progress.say(
                    f"node {member.name} has not begun yet; another experiment or service may have its processors. It joins as "
                    f"soon as it begins; where no node computes, it is waited for at most {WAITED / 60:.0f} minutes"
                )
        return asked

    def _ask(self, node: str, name: str, processors: int) -> tuple[Any, Member]:
        gpus = 1 if self.session.machine.device == "cuda" else 0
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        options = ray.remote(Node).options(num_cpus=processors, num_gpus=gpus, scheduling_strategy=there)
        actor: Any = options.remote(self.session.machine, self._dataset, self._depot)
        member = self.there[node] = self._of[name] = Member(node, name, processors, actor)
        return actor.facts.remote(), member

    def admit(self, member: Member, joined: Joined) -> str | None:
        """Has a node compute; or the first difference between what it says of itself and the driver."""
        if different := facts.difference(self._facts, joined.facts) or joined.unlike_record:
            return different
        member.joined, member.threads = True, joined.threads
        self.session.progress.say(f"node {member.name} joins with {member.threads} threads")
        return None

    def refuse(self, member: Member, reason: str) -> None:
        """Has a node compute nothing any more."""
        self.refused[member.name] = reason
        self.session.progress.say(f"node {member.name} is refused: {reason}")

    def lose(self, member: Member, reason: str) -> None:
        """Notes that a node was lost, which is not asked again where that happened too often."""
        self._lost[member.node] += 1
        if self._lost[member.node] >= SENT:
            self.refused[member.name] = f"it was lost {SENT} times; the last time: {reason}"
        else:
            self._asked_again.add(member.node)
        self.session.progress.say(f"node {member.name} was lost ({reason}); its work is sent again")

    def leave(self) -> None:
        """Has all nodes remove their files; those that do not within `LEAVING` seconds leave that to the next process there."""
        left = [member.actor.leave.remote() for member in self.there.values() if member.joined]
        if left:
            ray.wait(left, num_returns=len(left), timeout=LEAVING)

    def end(self, member: Member) -> None:
        """Ends a node's process."""
        self.there.pop(member.node, None)
        ray.kill(member.actor)
