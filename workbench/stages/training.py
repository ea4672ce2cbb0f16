"""Train split -> weights: of embedders, cross-encoders and LoRA adapters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from workbench.component import digest
from workbench.machine import Machine, peak_gb, release_memory
from workbench.models import lora
from workbench.models.adapters import PROMPT
from workbench.models.generator import Generator
from workbench.models.lora import Example, Lora
from workbench.models.prompts import Template
from workbench.models.training import Step, TrainingSettings, set_aside_damage, steps_done
from workbench.retrieval.embedders import training
from workbench.retrieval.embedders.embedder import Embedder
from workbench.retrieval.learning import RankedExample, RankedTraining
from workbench.retrieval.rerankers import cross_encoder
from workbench.retrieval.rerankers.cross_encoder import CrossEncoder
from workbench.stages.examples import left_out, ranked_examples, training_examples
from workbench.stages.passages import QUESTION_TOKENS, TOKENS_PER_WORD, Passages
from workbench.stages.rankings import RankingStage
from workbench.stages.shots import FewShot, prompt_tokens, train_split
from workbench.stages.writers import AdapterStage
from workbench.store.session import Session
from workbench.store.stage import Stage, Work

T = TypeVar("T")
# examples, machine, seed, folder for the weights, folder of checkpoints, and what is told of each step and their number
Train = Callable[[Sequence[RankedExample], Machine, int, Path, Path, Callable[[Step, int], None]], None]


@dataclass(frozen=True, eq=False)
class TrainedOnRankings(Stage[Path]):
    """Base of trainings that tell the right passage from the best wrong ones of a ranking of the train split.

    `dropped` are ids of train questions left out, since the evaluation asks them too.
    """

    ranking: RankingStage
    passages: Passages
    answers_digest: str
    seed: int
    arithmetic: str
    dropped: tuple[str, ...]

    @property
    def training(self) -> RankedTraining:
        """How it is trained."""
        raise NotImplementedError

    def trained(self) -> dict[str, Any]:
        """What is trained."""
        raise NotImplementedError

    @property
    def train(self) -> Train:
        """Trains it."""
        raise NotImplementedError

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.ranking, self.passages)

    def settings(self) -> dict[str, Any]:
        return {
            "trained": self.trained(),
            "training": self.training.definition(),
            "judgements": self.answers_digest,
            "seed": self.seed,
            "arithmetic": self.arithmetic,
        } | left_out(self.dropped)

    def work(self, session: Session) -> Work:
        settings, words = self.training, self.passages.size(session).words
        questions = len(session.dataset.split(self.ranking.split))
        examples = min(questions, settings.examples or questions) * settings.epochs
        tokens = int(examples * (1 + settings.negatives) * (QUESTION_TOKENS + words * TOKENS_PER_WORD))
        return Work(self.name, tokens, tokens)

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        train = train_split(self.ranking, self.passages, self.dropped, session)
        chosen = ranked_examples(train, self.training, self.seed)
        work = session.store.work(self.key)
        with training_progress(session, f"training the {self.name}", self.training, len(chosen), work) as progress:
            self.train(chosen, session.machine.for_training(), self.seed, folder, work, progress)
        return {"examples": len(chosen), "tokens": progress.tokens} | left_out(self.dropped)

    def read(self, folder: Path, session: Session) -> Path:
        return folder


@dataclass(frozen=True, eq=False)
class TrainedEmbedder(TrainedOnRankings):
    """Train split -> an embedder's weights."""

    name: ClassVar = "embedder"
    whole: ClassVar = True
    embedder: Embedder

    @property
    def training(self) -> RankedTraining:
        return _given(self.embedder.train)

    def trained(self) -> dict[str, Any]:
        # what the trained weights compute in later is no part of their training
        return self.embedder.model_copy(update={"precision": None}).definition()

    @property
    def train(self) -> Train:
        return partial(training.train, self.embedder)


@dataclass(frozen=True, eq=False)
class TrainedReranker(TrainedOnRankings):
    """Train split -> a cross-encoder's weights."""

    name: ClassVar = "reranker"
    whole: ClassVar = True
    reranker: CrossEncoder

    @property
    def training(self) -> RankedTraining:
        return _given(self.reranker.train)

    def trained(self) -> dict[str, Any]:
        return self.reranker.definition() | {"settings": {"max_length": self.reranker.max_length}}

    @property
    def train(self) -> Train:
        return partial(cross_encoder.train, self.reranker)


@dataclass(frozen=True, eq=False)
class Adapter(AdapterStage):
    """Train split -> LoRA weights, with the prompt template they were trained in and where they come from."""

    name: ClassVar = "adapter"
    whole: ClassVar = True
    generator: Generator
    template: Template
    shown: int
    ranking: RankingStage
    passages: Passages
    answers_digest: str
    seed: int
    arithmetic: str
    dropped: tuple[str, ...]
    few_shot: FewShot | None

    @property
    def lora(self) -> Lora:
        """How it is trained."""
        return _given(self.generator.lora)

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.ranking, self.passages, *(self.few_shot.inputs() if self.few_shot else ()))

    def settings(self) -> dict[str, Any]:
        return {
            "base": self.generator.definition()["weights"],
            "lora": self.lora.definition(),
            "template": self.template.definition(),
            "passages": self.shown,
            "answers": self.answers_digest,
            "seed": self.seed,
            "arithmetic": self.arithmetic,
        } | left_out(self.dropped)

    def work(self, session: Session) -> Work:
        settings, questions = self.lora, len(session.dataset.split(self.ranking.split))
        examples = min(questions, settings.examples or questions) * settings.epochs
        looks = examples / settings.batch_size / settings.evaluate_every / 3  # forwards only: a third of a step's work
        share = 1 - settings.held_back + settings.held_back * looks
        tokens = int(examples * share * prompt_tokens(self.template, self.shown, self.passages, session))
        return Work("training", tokens, tokens)

    def examples(self, session: Session) -> list[Example]:
        """What it learns from."""
        train = train_split(self.ranking, self.passages, self.dropped, session)
        ids = [query.id for query in train.queries]
        shots = dict(zip(ids, self.few_shot.of_split(session), strict=True)) if self.few_shot else {}
        return training_examples(train, self.template, self.shown, self.lora, self.seed, shots)

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        settings = self.lora
        chosen = self.examples(session)
        (folder / PROMPT).write_text(json.dumps(self.template.settings(), indent=1, ensure_ascii=False))
        (folder / "origin.json").write_text(json.dumps(self._origin(chosen, session), indent=1))
        apart = len(lora.held_back(settings, len(chosen), self.seed))
        work, machine = session.store.work(self.key), session.machine.for_training()
        with training_progress(session, "fine-tuning", settings, len(chosen) - apart, work) as progress:
            read = lora.train(settings, self.generator.model, chosen, machine, self.seed, folder, work, progress)
        facts = {"examples": len(chosen), "tokens": progress.tokens, "tokens_read": read, "peak_gb": round(peak_gb(), 2)}
        return facts | ({"held_back": apart} if apart else {}) | left_out(self.dropped)

    def _origin(self, chosen: Sequence[Example], session: Session) -> dict[str, Any]:
        """Digests of what the adapter was made from."""
        return {
            "base": self.generator.definition()["weights"],
            "template": digest(self.template.definition()),
            "documents": session.dataset.documents_digest,
            "queries": session.dataset.queries_digest(self.ranking.split),
            "judgements": self.answers_digest,
            "examples": digest([[one.messages, one.answer] for one in chosen]),
            "seed": self.seed,
        }

    def read(self, folder: Path, session: Session) -> Path:
        return folder


def _given(settings: T | None) -> T:
    """The settings of a training; a component without them is trained by no stage."""
    if settings is None:
        raise ValueError("this component is not trained here: its settings name no training")
    return settings


class TrainingProgress:
    """Reports the steps of a training; `tokens` counts those this process read."""

    def __init__(self, report: Callable[[int, str], None]) -> None:
        self.report = report
        self.tokens = 0

    def __call__(self, step: Step, total: int) -> None:
        self.tokens += step.tokens
        self.report(1, f"loss {step.loss:.3f}")


@contextmanager
def training_progress(session: Session, name: str, settings: TrainingSettings, n: int, work: Path) -> Iterator[TrainingProgress]:
    """Progress of a training; a damaged checkpoint is said before it begins, and memory is given back when it has ended.

    Args:
        session: what trains.
        name: of the training, for people.
        settings: of the training.
        n: number of examples.
        work: folder of the checkpoints.
    """
    if said := set_aside_damage(work):
        session.note([said])
    total, done = settings.epochs * -(-n // settings.batch_size), steps_done(work)
    if done:
        session.progress.say(f"  {name} goes on after step {done} of {total}, where it was ended before")
    with session.progress.task(name, total, done) as report:
        yield TrainingProgress(report)
    release_memory()
