"""What an adapter brings, and what merging it into the weights changes, on the same prompts."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from workbench.evaluation.answers import AnswerMetric
from workbench.stages.answers import OpenAnswers, Prompted
from workbench.store.session import Session
from workbench.store.stage import Stage, Work

SYSTEMS = ("base", "adapter", "merged")


class WayReply(NamedTuple):
    """What one of the `SYSTEMS` replied: the text, ``ok`` or why there is none, and its scores by metric."""

    reply: str
    status: str
    scores: dict[str, float | None]


class ThreeWays(NamedTuple):
    """The replies of all `SYSTEMS` to one prompt."""

    query_id: str
    replies: dict[str, WayReply]


class Merged(NamedTuple):
    """What a merging artifact says.

    Attributes:
        rows: the replies to each prompt.
        largest: largest absolute difference of a logit of the first answer token, merged against beside the weights.
        mean: mean of these differences.
        spread: standard deviation of the logits, to read the differences by.
    """

    rows: list[ThreeWays]
    largest: float
    mean: float
    spread: float


@dataclass(frozen=True, eq=False)
class Merging(Stage[Merged]):
    """Answers of a tuned generator -> those of its base, of adapter beside weights, and of adapter merged, to the same prompts.

    The first prompts of the split are answered by all three. The artifact holds the replies with their scores, and how far
    merging moves the logits of the first answer token.
    """

    PROMPTS: ClassVar = 32
    LOGITS: ClassVar = 8  # prompts whose logits are held against each other

    name: ClassVar = "merging"
    version: ClassVar = 2  # answers are compared in normal form C
    answers: OpenAnswers
    answers_digest: str
    metrics: tuple[AnswerMetric, ...]

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.answers,)

    def settings(self) -> dict[str, Any]:
        metrics = tuple(metric.key for metric in self.metrics)
        return {"prompts": self.PROMPTS, "logits": self.LOGITS, "accepted": self.answers_digest, "metrics": metrics}

    def systems(self) -> dict[str, OpenAnswers]:
        """The three ways to answer."""
        writer, tuned = self.answers.writer, self.answers.writer.generator
        unmerged, merged = (replace(writer, generator=tuned.model_copy(update={"merge": merge})) for merge in (False, True))
        writers = (replace(writer, generator=tuned.untuned(), adapter=None), unmerged, merged)
        return {name: replace(self.answers, writer=one) for name, one in zip(SYSTEMS, writers, strict=True)}

    def work(self, session: Session) -> Work:
        prompts = len(SYSTEMS) * min(self.PROMPTS, len(session.dataset.split(self.answers.split)))
        each = self.answers.prompt_tokens(session) + self.answers.writer.generator.longest / 2
        tokens = int(prompts * each)
        return Work(self.answers.writer.work, tokens, tokens)

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        prompts = self.answers.prompts(session)[: self.PROMPTS]
        accepted = {query.id: query.answers for query in session.dataset.split(self.answers.split)}
        rows: list[dict[str, Any]] = [{"query_id": prompt.query_id} for prompt in prompts]
        tokens = 0
        for name, answers in self.systems().items():
            generations = answers.writer.written([prompt.text for prompt in prompts], session)
            for row, prompt, generation in zip(rows, prompts, generations, strict=True):
                answer = answers.answer(prompt, generation)
                scores = {m.name: answers.score(m, answer, accepted[prompt.query_id], session) for m in self.metrics}
                row[name] = {"reply": generation.text, "status": generation.status} | scores
                tokens += generation.prompt_tokens + generation.new_tokens
        found = {"rows": rows} | self._drift(prompts[: self.LOGITS], session)
        (folder / "merging.json").write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
        return {"prompts": len(prompts), "tokens": tokens}

    def _drift(self, prompts: list[Prompted], session: Session) -> dict[str, float]:
        """Largest and mean absolute difference of the first token's logits, adapter merged against beside."""
        systems = self.systems()
        beside, merged = (
            [systems[name].writer.here(session).first_logits(prompt.messages) for prompt in prompts] for name in SYSTEMS[1:]
        )
        gaps = np.abs(np.array(merged) - np.array(beside))
        return {"largest": float(gaps.max()), "mean": float(gaps.mean()), "spread": float(np.std(beside))}

    def read(self, folder: Path, session: Session) -> Merged:
        found = json.loads((folder / "merging.json").read_text(encoding="utf-8"))
        return Merged([self._row(row) for row in found["rows"]], found["largest"], found["mean"], found["spread"])

    def _row(self, row: dict[str, Any]) -> ThreeWays:
        replies = {
            name: WayReply(
                row[name]["reply"], row[name]["status"], {metric.name: row[name][metric.name] for metric in self.metrics}
            )
            for name in SYSTEMS
        }
        return ThreeWays(row["query_id"], replies)
