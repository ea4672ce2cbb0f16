"""A session: a dataset, a store and a machine, with what was loaded; it makes artifacts and items exist."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from workbench.component import canonical, digest
from workbench.data.dataset import Dataset
from workbench.errors import InputError
from workbench.experiment.items import Counts, input_key
from workbench.experiment.progress import Progress
from workbench.experiment.stages import Answers, Encoder, ExpandedRanking, Questions, Reranked, Stage
from workbench.experiment.store import Store
from workbench.machine import Machine, independence
from workbench.models.generator import Generation, LoadedGenerator
from workbench.retrieval import backends
from workbench.retrieval.backends import Backend
from workbench.retrieval.rerankers.base import Pair

LOADED_GENERATORS = 3  # models kept in memory: one request may rewrite, expand and answer
ITEM_KINDS = ("embeddings", "pairs", "answers")


class Timing(NamedTuple):
    """What computing something took."""

    stage: str
    key: str
    seconds: float
    tokens: int
    items: int = 0  # answers or pairs that were computed in these seconds


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
        self._asked: dict[str, dict[bytes, bool]] = {kind: {} for kind in ITEM_KINDS}
        self._read: dict[str, Any] = {}
        self._generators: OrderedDict[str, LoadedGenerator] = OrderedDict()

    @cached_property
    def backend(self) -> Backend:
        """What searches vectors."""
        return backends.choose(self.machine)

    def fell_back(self, text: str) -> None:
        """Says, once, and notes that the processor did what a GPU could not."""
        if text not in self.fallbacks:
            self.fallbacks.append(text)
            self.progress.say(text)

    def has(self, stage: Stage) -> bool:
        """Whether a stage's artifact is in the store and whole."""
        return self.store.has(stage.name, stage.key)

    def ensure(self, stage: Stage) -> Path:
        """Folder of a stage's artifact, computed first if it is not there, with whatever it reads."""
        if not self.has(stage):
            for damaged in self.store.damaged:
                self.progress.say(
                    f"{damaged.stage} {damaged.key[:12]} in the store was damaged ({damaged.reason}); it is computed again"
                )
            self.store.damaged.clear()
            for part in stage.inputs():
                self.ensure(part)
            facts: dict[str, Any] = {}

            def compute(folder: Path) -> dict[str, Any]:
                facts.update(stage.compute(folder, self))
                return facts

            started = time.monotonic()
            if self.store.create(stage.name, stage.key, stage.definition, compute):
                self.computed[stage.key] = facts
                self.timings.append(Timing(stage.name, stage.key, time.monotonic() - started, facts.get("tokens", 0)))
        return self.store.path(stage.name, stage.key)

    def read(self, stage: Stage) -> Any:
        """A stage's artifact in memory, computed first if need be; kept for later calls."""
        if stage.key not in self._read:
            self._read[stage.key] = stage.read(self.ensure(stage), self)
        return self._read[stage.key]

    def embedded(self, encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, float32 (len(texts), d); each distinct text is embedded once and stored."""
        namespace = digest(["embedding", encoder.definition(), encoder.embedder.arithmetic(self.machine)])
        vectors = self._items(
            "embeddings",
            "embedding",
            namespace,
            texts,
            lambda missing: encoder.component(self).load(self.machine).encode(missing),
            lambda vector: vector.astype("<f4").tobytes(),
            lambda blob: np.frombuffer(blob, "<f4"),
        )
        if len({len(vector) for vector in vectors}) > 1:  # what a server answers may change between two runs
            raise InputError(
                f"vectors stored for embedder {encoder.embedder!r} and those it gives now have different dimensions; "
                f"raise its revision"
            )
        return np.stack(vectors) if vectors else np.empty((0, 0), np.float32)

    def scored(self, stage: Reranked, pairs: Sequence[Pair]) -> list[float]:
        """Scores of (query, passage text) pairs; each distinct pair is scored once and stored."""
        references = {name: one.component(self) if isinstance(one, Encoder) else one for name, one in stage.references}
        if stage.trained:
            references["trained"] = self.ensure(stage.trained)

        def compute(missing: list[str]) -> Iterator[list[tuple[int, float]]]:
            return stage.reranker.score([tuple(json.loads(text)) for text in missing], self.machine, **references)

        return self._items(
            "pairs",
            "reranking",
            stage.namespace,
            [canonical(pair) for pair in pairs],
            compute,
            lambda value: np.float64(value).tobytes(),
            lambda blob: float(np.frombuffer(blob, "<f8")[0]),
        )

    def score_together(self, stages: Sequence[Reranked]) -> None:
        """Scores the pairs of stages with one scorer in one queue, so that a passage many of them show is read once."""
        started = time.monotonic()
        before = self.counts()["pairs"].computed
        self.scored(stages[0], [pair for stage in stages for pair in stage.pairs(self)])
        if new := self.counts()["pairs"].computed - before:
            self.timings.append(Timing("reranking", stages[0].namespace, time.monotonic() - started, 0, new))

    def generate_together(self, stages: Sequence[Answers]) -> None:
        """Answers all prompts of stages with one generator and adapter, in one queue sorted by length."""
        self.generate_queue(stages[0], [prompt.text for stage in stages for prompt in stage.prompts(self)])

    def generate_queue(self, stage: Answers, prompts: Sequence[str]) -> None:
        """Answers prompts with a stage's generator, and notes what it took."""
        started = time.monotonic()
        before = self.counts()["answers"].computed
        generations = self.generated(stage, prompts)
        if new := self.counts()["answers"].computed - before:
            tokens = {p: g.prompt_tokens + g.new_tokens for p, g in zip(prompts, generations, strict=True)}
            took = time.monotonic() - started
            self.timings.append(Timing("generation", stage.namespace, took, sum(tokens.values()), new))

    def counts(self) -> dict[str, Counts]:
        """Items by kind: distinct ones this session asked for, those it found, those it computed."""
        return {kind: _counts(asked) for kind, asked in self._asked.items()}

    def generated(self, stage: Answers | ExpandedRanking | Questions, prompts: Sequence[str]) -> list[Generation]:
        """Answers to conversations in canonical JSON; each distinct one is generated once and stored."""

        def compute(missing: list[str]) -> Iterator[list[tuple[int, Generation]]]:
            generator = self.generator(stage)
            for batch in generator.generate([json.loads(text) for text in missing]):
                self._note(generator.notes)
                yield batch

        return self._items(
            "answers",
            "generating",
            stage.namespace,
            prompts,
            compute,
            lambda generation: canonical(asdict(generation)).encode(),
            lambda blob: Generation(**json.loads(blob)),
        )

    def _note(self, notes: Sequence[str]) -> None:
        for note in notes:
            if note not in self.notes:
                self.notes.append(note)
                self.progress.say(note)

    def generator(self, stage: Answers | ExpandedRanking | Questions) -> LoadedGenerator:
        """The model that answers for a stage, its adapter merged; the last ones used stay in memory."""
        if stage.namespace not in self._generators:
            adapter = self.ensure(stage.adapter) if stage.adapter else None
            if len(self._generators) >= LOADED_GENERATORS:
                self._generators.popitem(last=False)
            self._generators[stage.namespace] = stage.generator.load(self.machine, adapter)
            self._note(independence.notes())
        self._generators.move_to_end(stage.namespace)
        return self._generators[stage.namespace]

    def _items(
        self,
        kind: str,
        verb: str,
        namespace: str,
        inputs: Sequence[str],
        compute: Callable[[list[str]], Iterator[list[tuple[int, Any]]]],
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
    ) -> list[Any]:
        items = self.store.items
        missing = set(items.missing(namespace, inputs))
        space = bytes.fromhex(namespace)[:8]
        for text in dict.fromkeys(inputs):
            self._asked[kind].setdefault(space + input_key(text)[:16], text not in missing)
        if not missing:
            return items.computed(namespace, inputs, compute, encode, decode)
        # a second process that wants the same items waits here and then finds them
        lock = FileLock(self.store.folder / "locks" / f"{namespace}.lock")
        with lock, self.progress.task(verb, len(missing)) as report:
            try:
                return items.computed(namespace, inputs, compute, encode, decode, report)
            finally:
                self._note(independence.notes())


def _counts(asked: dict[bytes, bool]) -> Counts:
    found = sum(asked.values())
    return Counts(len(asked), found, len(asked) - found)
