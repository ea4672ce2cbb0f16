"""Rankings -> prompts -> answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypedDict

import numpy as np

from workbench.component import canonical, digest
from workbench.data.dataset import Query, Sample
from workbench.evaluation.answers import AnswerMetric
from workbench.models.answering import Generation
from workbench.models.chat import Message
from workbench.models.prompts import Template
from workbench.results.records import RepeatedRecord
from workbench.retrieval import gate
from workbench.retrieval.gate import Gate, Point
from workbench.retrieval.ranking import Ranked
from workbench.stages.passages import TEMPLATE_TOKENS, Passages
from workbench.stages.questions import Questions, asked
from workbench.stages.rankings import RankingStage
from workbench.stages.shots import FewShot, prompt_tokens
from workbench.stages.writers import Writer
from workbench.store.session import Session
from workbench.store.stage import Stage, Work


class Prompted(NamedTuple):
    """A question with the passages shown and the conversation that asks it."""

    query_id: str
    passages: tuple[int, ...]
    messages: list[Message]
    closed: bool = False  # asked without passages on purpose
    cut: int = 0  # passages left out, the last of the ranking, so that the conversation fits into the generator's context

    @property
    def text(self) -> str:
        """The conversation as canonical JSON: what the answer depends on, hence what it is stored by."""
        return canonical(self.messages)


NO_PASSAGES: Ranked = (np.empty(0, np.int32), np.empty(0, np.float32))


class Answer(NamedTuple):
    """A generator's answer to a question, as an answers artifact holds it."""

    query_id: str
    prompt: str  # digest of the conversation
    reply: str  # what the generator wrote
    answer: str  # what the template reads in it; empty: abstained
    passages: list[int]
    status: str  # ok, or why there is no answer
    prompt_tokens: int
    new_tokens: int
    cut: int  # passages that did not fit into the generator's context


class Learned(TypedDict):
    """What a threshold artifact says that answering reads: how sure a ranking must be; None: minus infinity."""

    threshold: float | None


class Answers(Stage[list[Answer]]):
    """Base of stages whose artifact is a generator's answers to the questions of a split.

    Attributes:
        split: whose questions.
        ranking: what passages are shown from; None: none are shown.
        passages: those of the ranking.
        template: how questions are asked, and answers read.
        writer: what answers.
        few_shot: finds the solved questions that prompts show, or None.
    """

    name: ClassVar = "answers"
    version: ClassVar = 2

    if TYPE_CHECKING:  # some stages have these as fields, others read them off their parts

        @property
        def split(self) -> str | Sample: ...

        @property
        def ranking(self) -> RankingStage | None: ...

        @property
        def passages(self) -> Passages | None: ...

        @property
        def template(self) -> Template: ...

        @property
        def writer(self) -> Writer: ...

        @property
        def few_shot(self) -> FewShot | None: ...

    def prompt_tokens(self, session: Session) -> float:
        """About how many tokens one prompt has."""
        raise NotImplementedError

    def work(self, session: Session) -> Work:
        each = self.prompt_tokens(session) + self.writer.generator.longest / 2
        writer, questions = self.writer, len(session.dataset.split(self.split))
        # rankings of the same questions often begin with the same passages, and then the prompts are the same
        pool = f"{self.writer.namespace} {digest(self.template.definition())} {each:.0f} {self.split}"
        return writer.planned(
            questions, self.prompt_tokens(session), writer.generator.longest / (1 if writer.served else 2), pool
        )

    def prompts(self, session: Session) -> list[Prompted]:
        """The prompts of the split, in the order of its queries."""
        queries = self.queries(session)
        rows = session.read(self.ranking).rows() if self.ranking else [NO_PASSAGES] * len(queries)
        return [self.prompted(query.id, query.text, row, session) for query, row in zip(queries, rows, strict=True)]

    def queries(self, session: Session) -> list[Query]:
        """The queries of the split, rewritten where they are."""
        raise NotImplementedError

    def prompted(self, query_id: str, question: str, ranked: Ranked, session: Session) -> Prompted:
        """The prompt of one question on its ranked passages.

        Args:
            query_id: its id; solved questions shown before it are looked up by it.
            question: its text.
            ranked: its passages, best first.
            session: reads what the prompt is made of.
        """
        raise NotImplementedError

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        prompts = self.prompts(session)
        generations = self.writer.written([prompt.text for prompt in prompts], session)
        rows = [self.answer(prompt, generation) for prompt, generation in zip(prompts, generations, strict=True)]
        with (folder / "answers.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows)
        return {"prompts": len(prompts), "tokens": sum(row.prompt_tokens + row.new_tokens for row in rows)}

    def answer(self, prompt: Prompted, generation: Generation) -> Answer:
        """What is kept of a generation."""
        read = self.template.read_closed if prompt.closed else self.template.read
        return Answer(
            prompt.query_id,
            digest(prompt.messages),
            generation.text,
            read(generation.text),
            list(prompt.passages),
            generation.status,
            generation.prompt_tokens,
            generation.new_tokens,
            prompt.cut,
        )

    def score(self, metric: AnswerMetric, row: Answer, accepted: Sequence[str] | None, session: Session) -> float | None:
        """One metric of one answer; None where there is no answer.

        Args:
            metric: the metric.
            row: the answer.
            accepted: accepted answers; empty: the documents hold none; None: not known.
            session: reads the passages shown.
        """
        passages = self.passages
        shown = [session.read(passages).full_text(n) for n in row.passages] if passages else []
        return metric.score(row.answer, accepted, shown) if row.status == "ok" else None

    def read(self, folder: Path, session: Session) -> list[Answer]:
        with (folder / "answers.jsonl").open(encoding="utf-8") as lines:
            return [Answer(**json.loads(line)) for line in lines]


@dataclass(frozen=True, eq=False)
class OpenAnswers(Answers):
    """Ranking -> prompts with its best passages -> answers."""

    ranking: RankingStage
    passages: Passages
    template: Template
    shown: int
    writer: Writer
    few_shot: FewShot | None

    @property
    def split(self) -> str | Sample:
        return self.ranking.split

    def inputs(self) -> tuple[Stage[object], ...]:
        shots = self.few_shot.inputs() if self.few_shot else ()
        return (self.ranking, self.passages, *self.writer.inputs(), *shots)

    def settings(self) -> dict[str, Any]:
        return {"template": self.template.definition(), "passages": self.shown} | self.writer.settings()

    def prompt_tokens(self, session: Session) -> float:
        return prompt_tokens(self.template, self.shown, self.passages, session)

    def queries(self, session: Session) -> list[Query]:
        return self.ranking.queries(session)

    def prompted(self, query_id: str, question: str, ranked: Ranked, session: Session) -> Prompted:
        passages = session.read(self.passages)
        numbers = tuple(int(n) for n in ranked[0][: self.shown])
        shown = [passages.shown(n) for n in numbers]
        shots = self.few_shot.of_question(query_id, question, session) if self.few_shot else ()
        messages, n = self.template.fill_within(question, shown, self.writer.generator.fits, shots)
        return Prompted(query_id, numbers[:n], messages, cut=len(numbers) - n)


@dataclass(frozen=True, eq=False)
class ClosedAnswers(Answers):
    """Questions -> answers without any passage: what the generator knows by itself."""

    split: str | Sample
    queries_digest: str
    template: Template
    writer: Writer
    questions: Questions | None = None

    @property
    def ranking(self) -> None:
        return None

    @property
    def passages(self) -> None:
        return None

    @property
    def few_shot(self) -> None:
        return None

    def inputs(self) -> tuple[Stage[object], ...]:
        return (*([self.questions] if self.questions else []), *self.writer.inputs())

    def settings(self) -> dict[str, Any]:
        # all that reading an answer takes of the template with passages
        reads = {"version": Template.version, "abstention": self.template.abstention, "citations": self.template.citations}
        own = {"queries": self.queries_digest, "template": self.template.closed.definition(), "reads": reads}
        return own | self.writer.settings()

    def prompt_tokens(self, session: Session) -> float:
        return TEMPLATE_TOKENS

    def queries(self, session: Session) -> list[Query]:
        return asked(self.split, self.questions, session)

    def prompted(self, query_id: str, question: str, ranked: Ranked, session: Session) -> Prompted:
        return Prompted(query_id, (), self.template.fill_closed(question), closed=True)


@dataclass(frozen=True, eq=False)
class SelectiveAnswers(Answers):
    """Ranking -> prompts with passages where the ranking is sure enough, else without -> answers."""

    open: OpenAnswers
    closed: ClosedAnswers
    threshold: Threshold

    # as its two parts, which differ in none of them

    @property
    def split(self) -> str | Sample:
        return self.open.split

    @property
    def ranking(self) -> RankingStage:
        return self.open.ranking

    @property
    def passages(self) -> Passages:
        return self.open.passages

    @property
    def template(self) -> Template:
        return self.open.template

    @property
    def writer(self) -> Writer:
        return self.open.writer

    @property
    def few_shot(self) -> FewShot | None:
        return self.open.few_shot

    def inputs(self) -> tuple[Stage[object], ...]:
        return (*self.open.inputs(), self.threshold)

    def settings(self) -> dict[str, Any]:
        return {"open": self.open.settings(), "closed": self.closed.settings()}

    def prompt_tokens(self, session: Session) -> float:
        return self.open.prompt_tokens(session)  # as if passages were always shown

    def queries(self, session: Session) -> list[Query]:
        return self.open.queries(session)

    def prompted(self, query_id: str, question: str, ranked: Ranked, session: Session) -> Prompted:
        part = self.open if self.threshold.shows(ranked, session) else self.closed
        return part.prompted(query_id, question, ranked, session)


@dataclass(frozen=True, eq=False)
class Threshold(Stage[Learned]):
    """Answers to train questions with passages and without -> how sure a ranking must be for its passages to be shown.

    The threshold with the highest mean score is taken, of equal ones that with the fewest questions without passages. An adapter
    trained here has seen some of these questions and their answers, which may flatter either way of asking.
    """

    name: ClassVar = "threshold"
    version: ClassVar = 2  # answers are compared in normal form C
    gate: Gate
    open: OpenAnswers
    closed: ClosedAnswers
    metric: AnswerMetric
    answers_digest: str

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.open.ranking, self.open, self.closed)

    def settings(self) -> dict[str, Any]:
        return {"gate": self.gate.definition(), "metric": self.metric.key, "accepted": self.answers_digest}

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        sureness = [self.gate.sureness(scores) for _, scores in session.read(self.open.ranking).rows()]
        shown, hidden = self._scores(self.open, session), self._scores(self.closed, session)
        points = gate.curve(sureness, shown, hidden)
        values = {"when": self.gate.when, "metric": self.metric.name, "questions": len(sureness)}
        values |= _point(gate.best(points)) | {"always": fsum(shown) / len(shown), "never": fsum(hidden) / len(hidden)}
        (folder / "threshold.json").write_text(json.dumps(values | {"curve": [_point(one) for one in points]}, indent=1))
        return {"questions": len(sureness)}

    def read(self, folder: Path, session: Session) -> Learned:
        learned: Learned = json.loads((folder / "threshold.json").read_text())
        return learned

    def value(self, session: Session) -> float:
        """The threshold; minus infinity where passages are shown to every question that has any."""
        found = session.read(self)["threshold"]
        return -inf if found is None else found

    def shows(self, ranked: Ranked, session: Session) -> bool:
        """Whether the passages of a ranking are shown."""
        return self.gate.sureness(ranked[1]) > self.value(session)

    def _scores(self, answers: Answers, session: Session) -> list[float]:
        accepted = {query.id: query.answers for query in session.dataset.split(answers.split)}
        found = [answers.score(self.metric, row, accepted[row.query_id], session) for row in session.read(answers)]
        return [0.0 if value is None else value for value in found]  # a failure is the worst value


def _point(point: Point) -> dict[str, Any]:
    """A point as JSON, which knows no infinity."""
    return point._asdict() | {"threshold": None if point.threshold == -inf else point.threshold}


@dataclass(frozen=True, eq=False)
class Repeated(Stage[RepeatedRecord]):
    """Answers -> how many of them come out the same again, in another batch: the noise floor of a generator.

    The artifact says how many were generated again and which of them differed. Where none did, running an experiment again
    changes no score, and the batch size changes none either.
    """

    PROMPTS: ClassVar = 8
    SERVED: ClassVar = 30  # of a server, whose answers may differ for no reason that anybody knows

    name: ClassVar = "repeated"
    answers: Answers

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.answers,)

    def settings(self) -> dict[str, Any]:
        draws = {"draws": self.answers.writer.draws} if self.answers.writer.served else {}
        return {"prompts": self._count} | draws

    def work(self, session: Session) -> Work:
        count = min(self._count, len(session.dataset.split(self.answers.split)))
        writer = self.answers.writer
        again = count * (writer.draws - 1) if writer.served else count
        return writer.planned(again, self.answers.prompt_tokens(session), writer.generator.longest if writer.served else 0)

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        prompts = self.answers.prompts(session)[: self._count]
        texts = [prompt.text for prompt in prompts]
        first = self.answers.writer.written(texts, session)
        again = self._drawn(texts, session) if self.answers.writer.served else [self._generated(prompts, session)]
        differing = [
            prompt.query_id for i, prompt in enumerate(prompts) if any(_said(one[i]) != _said(first[i]) for one in again)
        ]
        (folder / "repeated.json").write_text(json.dumps({"answers": len(prompts), "differing": differing}))
        tokens = sum(one.prompt_tokens + one.new_tokens for draw in again for one in draw)
        return {"answers": len(prompts), "tokens": tokens}

    @property
    def _count(self) -> int:
        return self.SERVED if self.answers.writer.served else self.PROMPTS

    def _generated(self, prompts: Sequence[Prompted], session: Session) -> list[Generation]:
        """The answers once more, in one batch."""
        generator = self.answers.writer.opened(session)
        found = {i: again for batch in generator.generate([p.messages for p in prompts], len(prompts)) for i, again in batch}
        return [found[i] for i in range(len(prompts))]

    def _drawn(self, texts: Sequence[str], session: Session) -> list[list[Generation]]:
        """The further draws, which are stored."""
        writer = self.answers.writer
        return [writer.written(texts, session, draw) for draw in range(2, writer.draws + 1)]

    def read(self, folder: Path, session: Session) -> RepeatedRecord:
        found: RepeatedRecord = json.loads((folder / "repeated.json").read_text())
        return found


def _said(generation: Generation) -> tuple[str, str]:
    return generation.text, generation.status
