"""Writers: what all generated texts come from, be they answers, other wordings of a question, or rewritten questions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.component import canonical, digest
from workbench.machine import independence
from workbench.models.generator import Generation, Generator, LoadedGenerator
from workbench.store.items import ItemKind
from workbench.store.session import Session
from workbench.store.stage import Stage

ANSWERS = ItemKind[Generation](
    "answers",
    "generating",
    lambda generation: canonical(asdict(generation)).encode(),
    lambda blob: Generation(**json.loads(blob)),
)


class AdapterStage(Stage[Path]):
    """Base of the stage that trains a generator's adapter; its artifact is the folder of the LoRA weights.

    Attributes:
        seed: of the training.
    """

    if TYPE_CHECKING:  # a field of the stage

        @property
        def seed(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Writer:
    """A generator with its adapter, computing in one kind of arithmetic.

    Attributes:
        generator: the model, and how it decodes.
        adapter: the stage that trains the LoRA weights merged into it, or None.
        arithmetic: kind of arithmetic.
    """

    generator: Generator
    adapter: AdapterStage | None
    arithmetic: str

    @cached_property
    def namespace(self) -> str:
        """What all texts share that it writes: digest of generator, decoding, adapter and arithmetic."""
        adapter = self.adapter.key if self.adapter else None
        return digest(["answer", self.generator.definition(), adapter, self.arithmetic])

    @property
    def work(self) -> str:
        """The kind of work that writing is, for estimates: what is computed in integers has a speed of its own."""
        return "generation in int8" if self.generator.precision == "int8" else "generation"

    def inputs(self) -> tuple[Stage[object], ...]:
        """The stage that trains its adapter, where it has one."""
        return (self.adapter,) if self.adapter else ()

    def settings(self) -> dict[str, object]:
        """What the settings of a stage that asks it say of it; the adapter is among the stage's inputs."""
        return {"generator": self.generator.definition(), "arithmetic": self.arithmetic}

    def written(self, prompts: Sequence[str], session: Session) -> list[Generation]:
        """What it writes for conversations in canonical JSON; each distinct one is generated once and stored."""

        def compute(missing: list[str]) -> Iterator[list[tuple[int, Generation]]]:
            loaded = self.opened(session)
            for batch in loaded.generate([json.loads(text) for text in missing]):
                session.note(loaded.notes)
                yield batch

        return session.items(ANSWERS, self.namespace, prompts, compute)

    def opened(self, session: Session) -> LoadedGenerator:
        """The model in memory, its adapter merged."""

        def load() -> LoadedGenerator:
            loaded = self.generator.load(session.machine, session.ensure(self.adapter) if self.adapter else None)
            session.note(independence.notes())
            return loaded

        return session.opened(self.namespace, load)
