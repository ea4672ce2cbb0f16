"""A session: a dataset, a store and a machine, with what was loaded; it makes artifacts and items exist.

It knows no stage and no model: stages bring what is computed, and how an item becomes bytes.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, cast

from workbench.data.dataset import Dataset
from workbench.machine import Machine, independence, record
from workbench.store.items import Counts, input_key
from workbench.store.memory_items import MemoryItems
from workbench.store.part import LeftError, Part
from workbench.store.progress import Progress
from workbench.store.spending import Spending
from workbench.store.store import Store
from workbench.store.work import Crew, ItemWork

OPENED = 3  # models kept in memory: one request may rewrite, expand and answer

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Computable(Protocol[T_co]):
    """What a session has to know of a stage; see `workbench.store.stage.Stage`."""

    name: ClassVar[str]
    whole: ClassVar[bool]

    @property
    def key(self) -> str:
        """Digest of all that defines the artifact."""

    @property
    def definition(self) -> dict[str, Any]:
        """All that defines the artifact."""

    def inputs(self) -> tuple[Computable[object], ...]:
        """The stages read."""

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        """Writes the artifact."""

    def read(self, folder: Path, session: Session) -> T_co:
        """Reads the artifact."""


class Timing(NamedTuple):
    """What computing something took."""

    stage: str
    key: str
    seconds: float
    tokens: int
    items: int = 0  # answers or pairs that were computed in these seconds


class Clock:
    """Seconds since it was made, less those of what was measured meanwhile once and for all on this machine."""

    def __init__(self) -> None:
        self._started, self._measuring = time.monotonic(), record.seconds_measuring()

    @property
    def seconds(self) -> float:
        """The seconds so far."""
        return time.monotonic() - self._started - (record.seconds_measuring() - self._measuring)


class Session:
    """Computes stages into a store and reads them back.

    Attributes:
        store: where artifacts and items are.
        dataset: what stages read.
        machine: what models compute on.
        progress: where progress is reported.
        computed: keys of the stages computed by this session, with their facts.
        timings: seconds and tokens of what this session computed, in order.
        notes: what was special about computing items: batches halved for lack of memory, prompts without a chat template, models
            that have to compute items one by one here.
        fallbacks: what the processor did because a GPU could not, and why.
        spending: what asking servers took, and may take.
        part: the part of the work that is computed, where other jobs compute the others; None: all.
        crew: other machines that compute; None: this process computes everything.
        left: kind of items -> those that were left to the other jobs, and the number of the part that computes each.
    """

    def __init__(self, store: Store, dataset: Dataset, machine: Machine, progress: Progress | None = None) -> None:
        self.store = store
        self.dataset = dataset
        self.machine = machine
        self.progress = progress or Progress()
        self.computed: dict[str, dict[str, Any]] = {}
        self.timings: list[Timing] = []
        self.notes: list[str] = []
        self.fallbacks: list[str] = []
        self.spending = Spending()
        self.part: Part | None = None
        self.crew: Crew[Session] | None = None
        self.left: dict[str, dict[bytes, int]] = {}
        self._left_stages: set[str] = set()
        self._asked: dict[str, dict[bytes, bool]] = {}
        self._known: dict[str, object] = {}
        self._opened: OrderedDict[str, object] = OrderedDict()
        self._memory: MemoryItems | None = None

    def keep_in_memory(self, most_bytes: int) -> None:
        """From now on items are neither read from the store nor written into it, nor counted.

        So what a visitor asks leaves nothing behind, and two services of one store do not wait for each other.

        Args:
            most_bytes: of the items that are kept in memory; 0: none, each is computed whenever it is asked for.
        """
        self._memory = MemoryItems(most_bytes)

    @property
    def recording(self) -> bool:
        """Whether items are kept in the store, as those of experiments are."""
        return self._memory is None

    def note(self, notes: Iterable[str]) -> None:
        """Says and keeps what is worth knowing of the results, each note once."""
        for text in notes:
            if text not in self.notes:
                self.notes.append(text)
                self.progress.say(text)

    def fell_back(self, text: str) -> None:
        """Says and keeps, once, that the processor did what a GPU could not."""
        if text not in self.fallbacks:
            self.fallbacks.append(text)
            self.progress.say(text)

    def has(self, stage: Computable[object]) -> bool:
        """Whether a stage's artifact is in the store and whole."""
        return self.store.has(stage.name, stage.key)

    def ensure(self, stage: Computable[object]) -> Path:
        """Folder of a stage's artifact, computed first if it is not there, with whatever it reads.

        Raises:
            LeftError: other jobs compute what it needs.
        """
        if not self.has(stage):
            if self.part and stage.key in self.part.elsewhere | self._left_stages:
                raise LeftError(stage.name)
            for damaged in self.store.damaged:
                self.progress.say(
                    f"{damaged.stage} {damaged.key[:12]} in the store was damaged ({damaged.reason}); it is computed again"
                )
            self.store.damaged.clear()
            try:
                self._compute(stage)
            except LeftError:
                self._left_stages.add(stage.key)
                raise
        return self.store.path(stage.name, stage.key)

    def begin(self, stages: Iterable[Computable[object]]) -> None:
        """Has other machines begin those whole stages that are missing and whose inputs are there, side by side."""
        if self.crew:
            ready = [one for one in stages if one.whole and not self.has(one) and all(map(self.has, one.inputs()))]
            self.crew.begin(ready)

    def _compute(self, stage: Computable[object]) -> None:
        for part in stage.inputs():
            self.ensure(part)
        facts: dict[str, Any] = {}

        def compute(folder: Path) -> dict[str, Any]:
            crew = self.crew if stage.whole else None
            facts.update(crew.stage(stage, folder, self) if crew else stage.compute(folder, self))
            return facts

        clock = Clock()
        waiting = self.part is None or stage.whole  # jobs that compute items of one stage would wait for each other
        if self.store.create(stage.name, stage.key, stage.definition, compute, waiting):
            self.computed[stage.key] = facts
            self.timings.append(Timing(stage.name, stage.key, clock.seconds, facts.get("tokens", 0)))

    def read(self, stage: Computable[T]) -> T:
        """A stage's artifact in memory, computed first if need be; kept for later calls."""
        return self.once(stage.key, lambda: stage.read(self.ensure(stage), self))

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """What `compute` gives, called at the first request for `name` in this session."""
        if name not in self._known:
            self._known[name] = compute()
        return cast(T, self._known[name])  # a name always stands for the same computation

    def opened(self, name: str, load: Callable[[], T]) -> T:
        """The model that `load` gives, kept in memory under a name; the last `OPENED` used stay."""
        if name not in self._opened:
            while len(self._opened) >= OPENED:
                self._opened.popitem(last=False)
            self._opened[name] = load()
        self._opened.move_to_end(name)
        return cast(T, self._opened[name])  # likewise

    def items(self, work: ItemWork[T], inputs: Sequence[str]) -> list[T]:
        """Values of all inputs; those the store lacks are computed once each and stored batch by batch.

        Args:
            work: computes them.
            inputs: texts, equal ones allowed.

        Returns:
            A value for each input.

        Raises:
            LeftError: some are left to other jobs; those of this job's part are stored.
        """
        kind, namespace = work.kind, work.namespace

        def compute(missing: list[str]) -> Iterator[list[tuple[int, T]]]:
            crew = None if work.local else self.crew
            return crew.items(work, missing, self) if crew else work.computed(missing, self)

        if self._memory is not None:
            return self._memory.computed(namespace, inputs, compute, kind.encode, kind.decode)
        items = self.store.items
        missing = set(items.missing(namespace, inputs))
        if self.part and not all(map(self.part.has, missing)):
            return self._items_in_part(self.part, work, inputs)
        space, asked = bytes.fromhex(namespace)[:8], self._asked.setdefault(kind.name, {})
        for text in dict.fromkeys(inputs):
            asked.setdefault(space + input_key(text)[:16], text not in missing)
        if not missing:
            return items.computed(namespace, inputs, compute, kind.encode, kind.decode)
        # a second process that wants the same items waits here and then finds them
        waited = f"{namespace}.{self.part.number}-{self.part.of}" if self.part else namespace
        verb = f"{kind.verb} {self.crew.label}" if self.crew and not work.local else kind.verb
        with self.store.lock(waited), self.progress.task(verb, len(missing)) as report:
            try:
                return items.computed(namespace, inputs, compute, kind.encode, kind.decode, report)
            finally:
                self.note(independence.notes())

    def _items_in_part(self, part: Part, work: ItemWork[T], inputs: Sequence[str]) -> list[T]:
        """As `items`, where some that are missing belong to other jobs.

        Raises:
            LeftError: the other jobs have not stored theirs here meanwhile.
        """
        self.items(work, list(filter(part.has, inputs)))
        others = self.store.items.missing(work.namespace, inputs)
        if others:
            space = bytes.fromhex(work.namespace)[:8]
            owners = {space + input_key(text)[:16]: part.owner(text) for text in others}
            self.left.setdefault(work.kind.name, {}).update(owners)
            raise LeftError(work.kind.name)
        return self.items(work, inputs)

    def counts(self) -> dict[str, Counts]:
        """Items by the name of their kind: distinct ones this session asked for, those found, those computed; none: all zero."""
        return defaultdict(Counts, {name: _counts(asked) for name, asked in self._asked.items()})


def _counts(asked: dict[bytes, bool]) -> Counts:
    found = sum(asked.values())
    return Counts(len(asked), found, len(asked) - found)
