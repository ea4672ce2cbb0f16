"""What runs on a node: an actor that loads a component once and computes items, or a whole stage. It never sees the store."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import ray

from workbench import hardware
from workbench.cluster import facts, pieces, places
from workbench.cluster.failures import told
from workbench.cluster.parcel import Parcel, unpacked
from workbench.component import file_digest
from workbench.data.dataset import Dataset
from workbench.machine import Machine, independence
from workbench.store.progress import Progress
from workbench.store.session import Computable, Session
from workbench.store.stage import Stage
from workbench.store.store import Store

UNPACKED = 8  # parcels kept ready


class Joined(NamedTuple):
    """What a node says of itself: facts, the threads it computes with, and why it does not compute as recorded of its machine."""

    facts: dict[str, str]
    threads: int
    unlike_record: str | None


class Computed(NamedTuple):
    """Values by position, the seconds they took, and what was special about computing them."""

    values: list[tuple[int, Any]]
    seconds: float
    notes: list[str]


class Made(NamedTuple):
    """A whole stage that a node computed: its folder's number there, the files in it, facts, and what was special.

    Attributes:
        number: asks for its files.
        files: name -> size in bytes and SHA-256.
        facts: as the stage gave them.
        notes: as of a session.
        fallbacks: likewise.
    """

    number: int
    files: dict[str, tuple[int, str]]
    facts: dict[str, Any]
    notes: list[str]
    fallbacks: list[str]


class Late:
    """The dataset, fetched when something of it is first asked for."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def __getattr__(self, name: str) -> Any:
        if "_dataset" not in vars(self):
            self._dataset = ray.get(self._reference)
        return getattr(self._dataset, name)


class NodeSession(Session):
    """A session whose artifacts come from the driver and whose items are kept nowhere."""

    def __init__(self, folder: Path, dataset: Dataset, machine: Machine, depot: Any) -> None:
        """A session of a node.

        Args:
            folder: where fetched artifacts lie.
            dataset: what stages read.
            machine: what models compute on.
            depot: the actor that gives the driver's artifacts.
        """
        super().__init__(Store(folder), dataset, machine, Progress())
        self.keep_in_memory(0)
        self._depot = depot

    def ensure(self, stage: Computable[object]) -> Path:
        """Folder of a stage's artifact, fetched from the driver; it is never computed here."""
        if not self.has(stage):

            def fill(folder: Path) -> None:
                pieces.fetch_artifact(
                    folder, lambda name, start: ray.get(self._depot.piece.remote(stage.name, stage.key, name, start))
                )

            self.store.adopt(stage.name, stage.key, fill)
        return self.store.path(stage.name, stage.key)


class Node:
    """Computes what the driver sends. One of them runs on each node, in a process of its own."""

    def __init__(self, machine: Machine, dataset: list[Any], depot: Any) -> None:
        """A node that has loaded nothing.

        Args:
            machine: the driver's, as which it has to compute.
            dataset: the reference to the dataset, in a list so that it is fetched only when it is needed.
            depot: gives the driver's artifacts.
        """
        places.remove_left_behind()
        with told():
            self.folder = places.folder("files")
        self.machine, self.dataset, self.depot = machine, dataset, depot
        self.parcels: OrderedDict[str, Any] = OrderedDict()
        self.made: dict[int, Path] = {}

    @cached_property
    def session(self) -> NodeSession:
        """Computes on this machine as the driver does on its own."""
        dataset = cast(Dataset, Late(self.dataset[0]))
        return NodeSession(self.folder / "cache", dataset, facts.like(self.machine), self.depot)

    def facts(self) -> Joined:
        """What the driver compares before it sends anything."""
        with told():
            machine = self.session.machine
            return Joined(facts.facts(machine), hardware.threads(), facts.unlike_record(machine))

    def compute(self, parcel: Parcel, texts: list[str]) -> Computed:
        """Items of texts.

        Args:
            parcel: the work.
            texts: distinct inputs.
        """
        with told():
            work, started = self._unpacked(parcel), time.monotonic()
            values = [pair for batch in work.computed(texts, self.session) for pair in batch]
            return Computed(values, time.monotonic() - started, [*self.session.notes, *independence.notes()])

    def stage(self, parcel: Parcel) -> Made:
        """A whole stage, computed into a folder of this node."""
        with told():
            return self._made(self._unpacked(parcel))

    def _made(self, stage: Stage[Any]) -> Made:
        number, folder = len(self.made), Path(tempfile.mkdtemp(prefix="made-", dir=self.folder))
        self.made[number] = folder
        found = stage.compute(folder, self.session)
        shutil.rmtree(self.session.store.folder / "work" / stage.key, ignore_errors=True)
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = {path.relative_to(folder).as_posix(): (path.stat().st_size, file_digest(path)) for path in paths}
        return Made(number, files, found, [*self.session.notes, *independence.notes()], list(self.session.fallbacks))

    def piece(self, number: int, name: str, start: int) -> bytes:
        """Bytes of a file of a stage that was made here.

        Args:
            number: of the stage.
            name: of the file.
            start: first byte.
        """
        return pieces.piece(self.made[number], name, start)

    def leave(self) -> None:
        """Removes all files of this process, which computes nothing any more."""
        places.remove()

    def discard(self, number: int) -> None:
        """Removes a stage that was made here, once the driver has it."""
        shutil.rmtree(self.made[number], ignore_errors=True)

    def _unpacked(self, parcel: Parcel) -> Any:
        if parcel.digest not in self.parcels:
            while len(self.parcels) >= UNPACKED:
                self.parcels.popitem(last=False)
            self.parcels[parcel.digest] = unpacked(parcel)
        self.parcels.move_to_end(parcel.digest)
        return self.parcels[parcel.digest]
