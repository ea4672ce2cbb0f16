"""The order of work: the one place that decides what is computed when.

First everything that comes before answers: what needs no reranking, then the pairs of all stages with one scorer in one
queue. Then thresholds, since they decide which prompts are asked. Then the prompts of all stages with one writer in one
queue, sorted by length. Last what reads answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TypeVar

from workbench.component import digest
from workbench.experiment.planner import ConfigurationStages, PlannedStage, Planner, Trained, plan
from workbench.provenance import code
from workbench.results import tables
from workbench.results.rows import ResultRow, SeedRow
from workbench.retrieval.rerankers.base import PairScorer
from workbench.stages.answers import Answer, Answers, Repeated, Threshold
from workbench.stages.reranking import PAIRS, Reranked
from workbench.stages.scores import ScoresStage
from workbench.stages.training import Adapter
from workbench.stages.writers import ANSWERS
from workbench.store.session import Clock, Session, Timing
from workbench.store.stage import Stage

S = TypeVar("S")
AT_ONCE = 4  # times as many prompts as a server is sent at a time, before all answers are waited for
LATE = (Answers, Threshold, ScoresStage, Repeated)  # stages that come after retrieval and fine-tuning


class Sweep:
    """Computes what the configurations of an experiment need, each distinct stage and item once.

    Attributes:
        planner: knows the stages of configurations.
        session: computes single stages.
        planned: key -> stage as the plan found it when it was first asked for.
        estimated_seconds: what the plan said before the first step; None until then.
        code: the code that computes, as it was when the experiment was opened.
        measuring: configurations that are being measured, or were last.
    """

    def __init__(self, planner: Planner, session: Session) -> None:
        self.planner = planner
        self.space = planner.space
        self.settings = planner.settings
        self.session = session
        self.planned: dict[str, PlannedStage] = {}
        self.estimated_seconds: float | None = None
        self.code = code()
        self.measuring: Sequence[ConfigurationStages] = ()

    @cached_property
    def selected_on(self) -> list[ConfigurationStages]:
        """Stages of all configurations on the selection split."""
        return [self.planner.stages(c, self.settings.dataset.select) for c in self.space.configurations]

    @cached_property
    def groups(self) -> dict[str, str]:
        """Query id -> group, over the selection and report splits."""
        data = self.settings.dataset
        return {q.id: q.group for split in (data.select, data.report) for q in self.session.dataset.split(split)}

    def need(self, measured: Sequence[ConfigurationStages]) -> list[Stage[object]]:
        """Distinct stages of configurations; each is noted as planned at the first time it is asked for."""
        planned = plan(measured, self.session.has)
        for one in planned:
            self.planned.setdefault(one.stage.key, one)
        return [one.stage for one in planned]

    def ensure(self, stages: Iterable[Stage[object]]) -> None:
        """Computes the stages that the store lacks, in their order; several machines begin later ones as soon as they can."""
        stages = list(stages)
        for i, stage in enumerate(stages):
            if stage.whole:
                self.session.begin(stages[i:])
            self.session.ensure(stage)

    def index(self) -> list[Stage[object]]:
        """Computes what comes before fine-tuning and answers; returns the stages."""
        wanted = [s for s in self.need(self.selected_on) if not isinstance(s, (Adapter, *LATE))]
        self.prepare(wanted)
        return wanted

    def finetune(self) -> list[Adapter]:
        """Trains the adapters of all configurations; returns their stages."""
        adapters = [s for s in self.need(self.selected_on) if isinstance(s, Adapter)]
        self.ensure(adapters)
        return adapters

    def measure(self, measured: Sequence[ConfigurationStages]) -> None:
        """Computes all that configurations need."""
        missing = [s for s in self.need(measured) if not self.session.has(s)]
        self.before_answers(missing)
        self.measuring = measured
        self.answer(missing)
        self.ensure(missing)

    def before_answers(self, stages: Iterable[Stage[object]]) -> None:
        """Computes those among stages that answers read."""
        stages = list(stages)
        self.prepare(stages)
        self.learn(stages)

    def prepare(self, stages: Iterable[Stage[object]]) -> None:
        """Computes those among stages that come before answers."""
        missing = [s for s in stages if not isinstance(s, LATE) and not self.session.has(s)]
        self.ensure(s for s in missing if not isinstance(s, Reranked))
        for group in scoring_groups(missing):
            self.score_together(group)
        self.ensure(missing)

    def learn(self, stages: Iterable[Stage[object]]) -> None:
        """Learns the thresholds among stages, from answers to train questions that go through one queue for each writer."""
        thresholds = [s for s in stages if isinstance(s, Threshold) and not self.session.has(s)]
        self.answer(dict.fromkeys(part for one in thresholds for part in (one.open, one.closed)))
        self.ensure(thresholds)

    def answer(self, stages: Iterable[Stage[object]]) -> None:
        """Computes the answers among stages: in one queue for each writer, those of servers question by question."""
        missing = [s for s in stages if isinstance(s, Answers) and not self.session.has(s)]
        for group in answer_groups(s for s in missing if not s.writer.served):
            self.write_together(group, [prompt.text for stage in group for prompt in stage.prompts(self.session)])
            self.ensure(group)
        served = [s for s in missing if s.writer.served]
        self.ask_in_turn(served)
        self.ensure(served)

    def ask_in_turn(self, stages: Sequence[Answers]) -> None:
        """Asks servers question by question over all stages, in an order that has nothing to do with the questions.

        So whatever ends it, a budget, an outage or a person, leaves a fair sample of the questions, answered in all stages.
        """
        prompts = {stage: stage.prompts(self.session) for stage in stages}
        asked: dict[str, list[tuple[Answers, str]]] = {}
        for stage, those in prompts.items():
            for prompt in those:
                asked.setdefault(prompt.query_id, []).append((stage, prompt.text))
        together = max((stage.writer.parallel for stage in stages), default=1) * AT_ONCE
        for part in _parts([asked[query_id] for query_id in in_turn(asked)], together):
            for group in answer_groups(stages):
                self.write_together(group, [text for stage, text in part if stage in group])

    def sampled(self, stages: Sequence[Answers], positions: Sequence[int]) -> dict[Answers, list[Answer]]:
        """Answers to some questions of the split, given by their positions in it, in one queue for each writer."""
        prompts = {stage: [stage.prompts(self.session)[i] for i in positions] for stage in stages}
        for group in answer_groups(stages):
            self.write_together(group, [prompt.text for stage in group for prompt in prompts[stage]])
        found = {}
        for stage, asked in prompts.items():
            written = stage.writer.written([prompt.text for prompt in asked], self.session)
            found[stage] = [stage.answer(prompt, one) for prompt, one in zip(asked, written, strict=True)]
        return found

    def score_together(self, stages: Sequence[Reranked]) -> None:
        """Scores the pairs of stages with one scorer in one queue, so that a passage many of them show is read once."""
        clock, before = Clock(), self.session.counts()[PAIRS.name].computed
        stages[0].scores([pair for stage in stages for pair in stage.pairs(self.session)], self.session)
        if new := self.session.counts()[PAIRS.name].computed - before:
            self._timed("reranking", stages[0].namespace, clock, 0, new)

    def write_together(self, stages: Sequence[Answers], prompts: Sequence[str]) -> None:
        """Answers prompts of stages with one writer in one queue, sorted by length."""
        clock, before, writer = Clock(), self.session.counts()[ANSWERS.name].computed, stages[0].writer
        missing = set(self.session.store.items.missing(writer.namespace, prompts))
        written = writer.written(prompts, self.session)
        if new := self.session.counts()[ANSWERS.name].computed - before:
            asked = zip(prompts, written, strict=True)
            tokens = {prompt: one.prompt_tokens + one.new_tokens for prompt, one in asked if prompt in missing}
            self._timed(writer.work, writer.namespace, clock, sum(tokens.values()), new)

    def _timed(self, what: str, namespace: str, clock: Clock, tokens: int, items: int) -> None:
        self.session.timings.append(Timing(what, namespace, clock.seconds, tokens, items))

    def results(self, measured: Sequence[ConfigurationStages]) -> Iterator[ResultRow]:
        """Every score of configurations; means over the seeds where there are several."""
        for one in measured:
            stages: tuple[ScoresStage | None, ...] = (one.ranking_scores, None if one.trained else one.answer_scores)
            for score in (score for stage in stages if stage for score in self.session.read(stage)):
                yield ResultRow(one.configuration.id, one.split, *score)
            for rows in zip(*(self._seed_results(one, trained) for trained in one.trained), strict=True):
                yield tables.over_seeds(rows)

    def seed_results(self, measured: Sequence[ConfigurationStages]) -> Iterator[SeedRow]:
        """Scores with each of several seeds."""
        for one in measured:
            for trained in one.trained:
                yield from self._seed_results(one, trained)

    def _seed_results(self, one: ConfigurationStages, trained: Trained) -> Iterator[SeedRow]:
        for score in self.session.read(trained.scores):
            yield SeedRow(one.configuration.id, one.split, trained.seed, *score)


def in_turn(query_ids: Iterable[str]) -> list[str]:
    """The order in which servers are asked questions: by the digests of their ids, so that any beginning is a fair sample."""
    return sorted(query_ids, key=lambda query_id: (digest(query_id), query_id))


def _parts(questions: Iterable[list[tuple[Answers, str]]], size: int) -> Iterator[list[tuple[Answers, str]]]:
    """Whole questions, as many as are needed for `size` prompts at a time."""
    part: list[tuple[Answers, str]] = []
    for question in questions:
        part += question
        if len({text for _, text in part}) >= size:
            yield part
            part = []
    if part:
        yield part


def answer_groups(stages: Iterable[Stage[object]]) -> list[list[Answers]]:
    """Answers stages by writer: the prompts of a group go through one queue."""
    return _grouped((stage.writer.namespace, stage) for stage in stages if isinstance(stage, Answers))


def scoring_groups(stages: Iterable[Stage[object]]) -> list[list[Reranked]]:
    """Reranked stages by scorer: the pairs of a group go through one queue."""
    return _grouped((s.namespace, s) for s in stages if isinstance(s, Reranked) and isinstance(s.reranker, PairScorer))


def _grouped(stages: Iterable[tuple[str, S]]) -> list[list[S]]:
    groups: dict[str, list[S]] = {}
    for namespace, stage in stages:
        groups.setdefault(namespace, []).append(stage)
    return list(groups.values())
