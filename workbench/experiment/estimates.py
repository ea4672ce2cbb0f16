"""What a plan will cost: units of work per stage, and the rates this machine showed before."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.data.chunking import WORD
from workbench.data.dataset import Query, Sample
from workbench.experiment.merging import SYSTEMS, Merging
from workbench.experiment.plan import PlannedStage, closure
from workbench.experiment.session import Session, Timing
from workbench.experiment.shots import TrainQuestions
from workbench.experiment.stages import (
    Adapter,
    Answers,
    ClosedAnswers,
    DenseRanking,
    Embeddings,
    ExpandedRanking,
    OpenAnswers,
    Questions,
    Repeated,
    Reranked,
    SelectiveAnswers,
    Stage,
    TrainedOnRankings,
)
from workbench.machine import peak_gb, precisions

RATES = "rates.json"
TOKENS_PER_WORD = 1.45  # of English with some code, for sub-word vocabularies of 30,000 to 50,000
TEMPLATE_TOKENS = 90
QUESTION_TOKENS = 20

# seconds per unit on two cores of an AMD EPYC with bfloat16, until this machine has shown its own
FIRST_RATES = {
    "embedding": 0.02,
    "pairs": 0.006,
    "training": 0.0033,
    "generation": 0.0013,
    "reranker": 0.0004,
    "embedder": 0.0004,
}
TRAININGS = ("training", "reranker", "embedder")
# timings whose unit is a token -> kind of work
BY_TOKENS = {"generation": "generation", "adapter": "training", "reranker": "reranker", "embedder": "embedder"}
# speed of the products of `machine.precisions` where these were measured, in 10^9 operations a second
REFERENCE = {"inference": 270.0, "training": 345.0}


@dataclass(frozen=True)
class Cost:
    """What computing a stage takes: units of work of one kind, model tokens, and seconds at the known rate."""

    kind: str
    units: int
    tokens: int
    seconds: float


class Estimator:
    """Estimates of stages; keeps what this machine showed in the store."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.path = session.store.folder / RATES
        self.rates = self._read()
        self._passages: dict[str, tuple[int, float]] = {}

    def cost(self, stage: Stage) -> Cost:
        """An upper bound: items that other stages or runs share are counted for each stage."""
        if isinstance(stage, Embeddings):
            return self._cost("embedding", self.passages(stage.passages)[0], 0)
        if isinstance(stage, Questions):
            leaning = [sum(len(turn.content.split()) for turn in q.history) for q in self._asked(stage.split) if q.history]
            tokens = int(sum(leaning) * TOKENS_PER_WORD + len(leaning) * (TEMPLATE_TOKENS + stage.rewriter.max_new_tokens))
            return self._cost("generation", tokens, tokens)
        if isinstance(stage, ExpandedRanking):
            tokens = self._queries(stage.split) * (TEMPLATE_TOKENS + QUESTION_TOKENS + stage.expander.max_new_tokens)
            return self._cost("generation", tokens, tokens)
        if isinstance(stage, DenseRanking):
            return self._cost("embedding", self._queries(stage.split), 0)
        if isinstance(stage, Reranked):
            top = min(stage.reranker.top, self.passages(stage.passages)[0])
            return self._cost("pairs", self._queries(stage.split) * top, 0)
        if isinstance(stage, Adapter):
            lora = stage.generator.lora
            examples = min(self._queries(stage.ranking.split), lora.examples or 10**9) * lora.epochs
            looks = examples / lora.batch_size / lora.evaluate_every / 3  # forwards only: a third of a step's work
            share = 1 - lora.held_back + lora.held_back * looks
            tokens = int(examples * share * self._prompt_tokens(stage))
            return self._cost("training", tokens, tokens)
        if isinstance(stage, TrainedOnRankings):
            settings, words = stage.training, self.passages(stage.passages)[1]
            examples = min(self._queries(stage.ranking.split), settings.examples or 10**9) * settings.epochs
            tokens = int(examples * (1 + settings.negatives) * (QUESTION_TOKENS + words * TOKENS_PER_WORD))
            return self._cost(stage.name, tokens, tokens)
        if isinstance(stage, Answers):
            tokens = int(self._queries(stage.split) * (self._asked_tokens(stage) + stage.generator.max_new_tokens / 2))
            return self._cost("generation", tokens, tokens)
        if isinstance(stage, Repeated):
            tokens = int(stage.PROMPTS * self._asked_tokens(stage.answers))
            return self._cost("generation", tokens, tokens)
        if isinstance(stage, Merging):
            prompts = len(SYSTEMS) * min(stage.PROMPTS, self._queries(stage.answers.split))
            tokens = int(prompts * (self._asked_tokens(stage.answers) + stage.answers.generator.max_new_tokens / 2))
            return self._cost("generation", tokens, tokens)
        return Cost(stage.name, self._queries_or_passages(stage), 0, 0.05)

    def total(self, planned: Sequence[PlannedStage]) -> Cost:
        """Cost of all stages of a plan that the store lacks."""
        costs = [self.cost(one.stage) for one in planned if not one.found]
        return Cost("all", len(costs), sum(c.tokens for c in costs), sum(c.seconds for c in costs))

    def passages(self, stage: Any) -> tuple[int, float]:
        """Passages of a stage, counted without storing them, and their mean length in words."""
        if isinstance(stage, TrainQuestions):
            return self._queries(stage.split), QUESTION_TOKENS / TOKENS_PER_WORD
        if stage.key not in self._passages:
            n = words = 0
            for batch in self.session.dataset.documents["text"].iterchunks():
                for text in batch:
                    length = sum(1 for _ in WORD.finditer(text.as_py()))
                    size, step = stage.chunking.words, (stage.chunking.words or 0) - stage.chunking.overlap
                    pieces = 1 if size is None else -(-max(length - stage.chunking.overlap, 1) // step) if length else 0
                    n, words = n + pieces, words + min(length, size or length) * pieces
            self._passages[stage.key] = (n, words / max(n, 1))
        return self._passages[stage.key]

    def learn(self, timings: Iterable[Timing], counts: dict[str, Any]) -> None:
        """Keeps the rates a run showed, for the next plan; recent ones weigh as much as all before."""
        shown: dict[str, tuple[float, float]] = {}
        for timing in timings:
            kind = BY_TOKENS.get(timing.stage)
            if kind and timing.tokens:
                seconds, units = shown.get(kind, (0.0, 0.0))
                shown[kind] = (seconds + timing.seconds, units + timing.tokens)
        for stage, kind, items in (("embeddings", "embedding", "embeddings"), ("reranking", "pairs", "pairs")):
            seconds = sum(t.seconds for t in timings if t.stage == stage)
            if counts[items].computed and seconds:
                shown[kind] = (seconds, counts[items].computed)
        for kind, (seconds, units) in shown.items():
            name = self._name(kind)
            rate = seconds / units
            self.rates[name] = (self.rates[name] + rate) / 2 if name in self.rates else rate
        self.rates["peak_gb"] = max(self.rates.get("peak_gb", 0.0), peak_gb())
        temporary = self.path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(self.rates, indent=1, sort_keys=True))
        temporary.rename(self.path)

    def memory_gb(self) -> float | None:
        """Peak memory of the largest run into this store, in GB; None before the first."""
        return self.rates.get("peak_gb")

    def _cost(self, kind: str, units: int, tokens: int) -> Cost:
        name = self._name(kind)
        rate = self.rates[name] if name in self.rates else FIRST_RATES[kind] * self._slower(kind)
        return Cost(kind, units, tokens, units * rate)

    def _slower(self, kind: str) -> float:
        """How many times as long as where the first rates were measured the same work takes here, by the speed of products."""
        machine, use = self.session.machine, "training" if kind in TRAININGS else "inference"
        precision = machine.for_training().precision if use == "training" else machine.precision
        return REFERENCE[use] / precisions.speed(machine.device, use, precision)

    def _name(self, kind: str) -> str:
        machine = self.session.machine
        return f"{(machine.for_training() if kind in TRAININGS else machine).arithmetic} {kind}"

    def _prompt_tokens(self, stage: OpenAnswers | Adapter) -> float:
        shots = stage.template.shots
        passages = stage.shown + (shots.count * shots.passages if shots else 0)
        asked = TEMPLATE_TOKENS * (1 + (shots.count / 2 if shots else 0))
        return asked + passages * self.passages(stage.passages)[1] * TOKENS_PER_WORD

    def _asked_tokens(self, answers: Answers) -> float:
        """Of one prompt; of those that may show passages or not, as if they did."""
        if isinstance(answers, ClosedAnswers):
            return TEMPLATE_TOKENS
        return self._prompt_tokens(answers.open if isinstance(answers, SelectiveAnswers) else answers)

    def _asked(self, split: str | Sample) -> list[Query]:
        return self.session.dataset.split(split)

    def _queries(self, split: str | Sample) -> int:
        return len(self._asked(split))

    def _queries_or_passages(self, stage: Stage) -> int:
        split = getattr(stage, "split", None)
        if split:
            return self._queries(split)
        passages = next((s for s in closure(stage) if s.name == "passages"), None)
        return self.passages(passages)[0] if passages else 0

    def _read(self) -> dict[str, float]:
        try:
            return json.loads(Path(self.path).read_text())
        except (OSError, ValueError):
            return {}
