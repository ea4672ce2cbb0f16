"""Writers: what all generated texts come from, be they answers, other wordings of a question, or rewritten questions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.component import canonical, digest
from workbench.errors import InputError
from workbench.machine import independence
from workbench.models.answering import Generation
from workbench.models.generator import LoadedGenerator
from workbench.models.served import AnyGenerator, EndpointGenerator, LoadedEndpointGenerator
from workbench.stages import served
from workbench.store.items import ItemKind
from workbench.store.session import Session
from workbench.store.stage import Stage, Work
from workbench.store.work import ItemWork

ANSWERS = ItemKind[Generation](
    "answers",
    "generating",
    lambda generation: canonical(_stored(generation)).encode(),
    lambda blob: Generation(**json.loads(blob)),
)


def _stored(generation: Generation) -> dict[str, object]:
    """The fields of an answer that are stored: what a server said, only where one was asked."""
    return {name: value for name, value in asdict(generation).items() if name != "served" or value is not None}


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

    generator: AnyGenerator
    adapter: AdapterStage | None
    arithmetic: str

    @cached_property
    def namespace(self) -> str:
        """What all texts share that it writes: digest of generator, decoding, adapter and arithmetic."""
        adapter = self.adapter.key if self.adapter else None
        one = self.generator
        generator = one.asked() if isinstance(one, EndpointGenerator) else one.definition()
        return digest(["answer", generator, adapter, self.arithmetic])

    @property
    def work(self) -> str:
        """The kind of work that writing is, for estimates."""
        return self.generator.work

    @property
    def served(self) -> bool:
        """Whether a server writes."""
        return isinstance(self.generator, EndpointGenerator)

    @property
    def parallel(self) -> int:
        """Requests that a server is sent at a time, at most; 1 where none is."""
        return self.generator.parallel if isinstance(self.generator, EndpointGenerator) else 1

    @property
    def draws(self) -> int:
        """Answers to each of the prompts that the noise floor is measured on."""
        return self.generator.draws if isinstance(self.generator, EndpointGenerator) else 2

    def planned(self, prompts: int, prompt_tokens: float, new_tokens: float, pool: str = "") -> Work:
        """What writing takes, as far as it is known beforehand.

        Args:
            prompts: how many.
            prompt_tokens: of each.
            new_tokens: of each answer, at most.
            pool: see `Work`.
        """
        one = self.generator
        price = one.price if isinstance(one, EndpointGenerator) else None
        tokens = int(prompts * (prompt_tokens + new_tokens))
        return Work(self.work, tokens, tokens, prompts * price.of(prompt_tokens, new_tokens) if price else 0.0, pool)

    def inputs(self) -> tuple[Stage[object], ...]:
        """The stage that trains its adapter, where it has one."""
        return (self.adapter,) if self.adapter else ()

    def settings(self) -> dict[str, object]:
        """What the settings of a stage that asks it say of it; the adapter is among the stage's inputs."""
        return {"generator": self.generator.definition(), "arithmetic": self.arithmetic}

    def written(self, prompts: Sequence[str], session: Session, draw: int = 1) -> list[Generation]:
        """What it writes for conversations in canonical JSON; each distinct one is generated once and stored.

        Args:
            prompts: the conversations.
            session: keeps what is written.
            draw: number of the answer to the same prompt, for servers, which may answer otherwise each time.
        """
        return session.items(Writing(self, draw), prompts)

    def opened(self, session: Session) -> LoadedGenerator | LoadedEndpointGenerator:
        """The model in memory, its adapter merged; or the client that asks a server."""
        one = self.generator
        if isinstance(one, EndpointGenerator):  # takes no memory, and knows what was found out about its server in this session
            return session.once(f"client {self.namespace}", lambda: one.load(session.machine))

        def load() -> LoadedGenerator:
            loaded = one.load(session.machine, session.ensure(self.adapter) if self.adapter else None)
            session.note(independence.notes())
            return loaded

        return session.opened(self.namespace, load)

    def here(self, session: Session) -> LoadedGenerator:
        """The model in memory, whose weights are on this machine.

        Raises:
            InputError: a server has them.
        """
        loaded = self.opened(session)
        if isinstance(loaded, LoadedEndpointGenerator):
            raise InputError(f"{loaded.name}: its weights are not on this machine, and this needs them; name weights as model")
        return loaded


@dataclass(frozen=True, eq=False)
class Writing(ItemWork[Generation]):
    """Conversations in canonical JSON -> what a writer writes; `draw` is the number of the answer to the same prompt."""

    writer: Writer
    draw: int = 1

    @property
    def kind(self) -> ItemKind[Generation]:
        return ANSWERS

    @property
    def alike(self) -> str:
        return f"{super().alike} {self.writer.arithmetic}"

    @property
    def namespace(self) -> str:
        written = self.writer.namespace
        return written if self.draw == 1 else digest(["draw", written, self.draw])

    @property
    def local(self) -> bool:
        return self.writer.served

    def computed(self, missing: list[str], session: Session) -> Iterator[list[tuple[int, Generation]]]:
        loaded, asked = self.writer.opened(session), [json.loads(text) for text in missing]
        if isinstance(loaded, LoadedEndpointGenerator):
            yield from served.answered(loaded, self.writer.namespace, asked, session, "answers" if self.draw == 1 else "draws")
            return
        for batch in loaded.generate(asked):
            session.note(loaded.notes)
            yield batch
