"""The plan: configurations -> the distinct stages they need, known before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ParamSpec, TypeVar, cast

from workbench.component import Component
from workbench.data.chunking import Chunking
from workbench.data.dataset import Sample
from workbench.errors import InputError
from workbench.experiment.config import ALWAYS, NEVER, NONE
from workbench.experiment.configuration import Configuration, Space
from workbench.machine import Machine
from workbench.models.prompts import Template
from workbench.models.served import SERVED, AnyGenerator, EndpointGenerator
from workbench.retrieval.embedders.embedder import Embedder
from workbench.retrieval.fusion import Fusion
from workbench.retrieval.gate import Gate
from workbench.retrieval.indexes.backends import arithmetic
from workbench.retrieval.indexes.dense import Dense
from workbench.retrieval.learning import RankedTraining
from workbench.retrieval.rerankers.base import Reranker
from workbench.retrieval.rerankers.cross_encoder import CrossEncoder
from workbench.retrieval.retriever import TextRetriever
from workbench.stages.answers import Answers, ClosedAnswers, OpenAnswers, Repeated, SelectiveAnswers, Threshold
from workbench.stages.indexes import AnalyzedPassages, DenseIndex, Embeddings, Encoder, TextIndex
from workbench.stages.merging import Merging
from workbench.stages.passages import Passages, PassageStage
from workbench.stages.questions import Questions
from workbench.stages.rankings import DenseRanking, ExpandedRanking, FusedRanking, RankingStage, TextRanking
from workbench.stages.reranking import Reranked
from workbench.stages.scores import AnswerScores, RankingScores
from workbench.stages.shots import FewShot, SolvedQuestions, TrainQuestions
from workbench.stages.training import Adapter, TrainedEmbedder, TrainedOnRankings, TrainedReranker
from workbench.stages.writers import Writer
from workbench.store.stage import Stage

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=TrainedOnRankings)


@dataclass(frozen=True)
class Trained:
    """Answers with the adapter of one seed, and their scores."""

    seed: int
    answers: Answers
    scores: AnswerScores


@dataclass(frozen=True)
class ConfigurationStages:
    """The stages of one configuration on one split.

    Attributes:
        configuration: which.
        split: the split.
        ranking: its ranking, reranked; None where passages are never shown.
        answers: what it answers, and would answer when served; None where passages are only ranked.
        ranking_scores: metrics of the ranking, where the split is judged.
        answer_scores: metrics of `answers`.
        questions: rewrites them; None where they are as asked.
        repeated: some of the answers once more, for the configuration that does this for its generator.
        trained: with every seed, `answers` first; empty where one seed is all, or nothing is trained.
    """

    configuration: Configuration
    split: str
    ranking: RankingStage | None
    answers: Answers | None = None
    ranking_scores: RankingScores | None = None
    answer_scores: AnswerScores | None = None
    repeated: Repeated | None = None
    trained: tuple[Trained, ...] = ()
    questions: Questions | None = None

    def stages(self) -> list[Stage[object]]:
        """All stages of the configuration, each after those it reads."""
        roots = (self.ranking, self.answers, self.ranking_scores, self.answer_scores, self.repeated)
        again = [one.scores for one in self.trained]
        return list(dict.fromkeys(stage for root in (*roots, *again) if root for stage in closure(root)))

    def all_answers(self) -> list[Answers]:
        """Answers with every seed; none where passages are only ranked."""
        return [one.answers for one in self.trained] or ([self.answers] if self.answers else [])

    def computed_here(self) -> list[str]:
        """Names of the stages it answers with whose output depends on the machine: models compute them, and no server does."""
        roots = [stage for stage in (self.questions, self.ranking, self.answers) if stage]
        stages = dict.fromkeys(stage for root in roots for stage in _answering(root))
        return list(dict.fromkeys(stage.name for stage in stages if _arithmetics(stage.settings()) - {SERVED}))

    def artifacts(self) -> dict[str, Stage[object]]:
        """The artifacts the configuration answers with, by name: what its keys in a run are, and its provenance."""
        found: dict[str, Stage[object]] = {}
        for stage in _answering(self.ranking) if self.ranking else ():
            if stage.name in ("passages", "embeddings", "embedder", "reranker"):
                found[stage.name] = stage
            elif isinstance(stage, TextIndex):
                found[f"index {type(stage.retriever).__name__}"] = stage
            elif isinstance(stage, DenseIndex):
                found[f"index {type(stage.index).__name__}"] = stage
        if self.ranking:
            found["ranking"] = self.ranking
        if self.questions:
            found["questions"] = self.questions
        if self.answers:
            if isinstance(self.answers, SelectiveAnswers):
                found["threshold"] = self.answers.threshold
            found["answers"] = self.answers
            if self.answers.writer.adapter:
                found["adapter"] = self.answers.writer.adapter
            if self.answers.few_shot:
                found |= self.answers.few_shot.artifacts()
        return found


def closure(stage: Stage[object]) -> Iterator[Stage[object]]:
    """A stage and all it reads, inputs first; shared ones may come again."""
    for part in stage.inputs():
        yield from closure(part)
    yield stage


def passages_of(ranking: RankingStage) -> Passages:
    """The passages that a ranking numbers."""
    return next(stage for stage in _answering(ranking) if isinstance(stage, Passages))


def _answering(stage: Stage[object]) -> Iterator[Stage[object]]:
    """As `closure`, without what only a training read."""
    for part in stage.inputs():
        if isinstance(part, TrainedOnRankings):
            yield part
        else:
            yield from _answering(part)
    yield stage


def _arithmetics(settings: Mapping[str, object]) -> set[str]:
    """Kinds of arithmetic that the settings of a stage name, at any depth."""
    found = {str(value) for name, value in settings.items() if name == "arithmetic" and value is not None}
    return found.union(*(_arithmetics(value) for value in settings.values() if isinstance(value, dict)))


class Planner:
    """Builds the stages of configurations. Equal stages are the same object, so that a key is computed once."""

    def __init__(self, space: Space, machine: Machine) -> None:
        self.space = space
        self.settings = space.settings
        self.dataset = space.dataset
        self.machine = machine
        self.metrics = tuple(space.answer_metrics.values())
        self._made: dict[object, object] = {}
        self._training: list[str] = []  # embedders whose training is being planned
        for name in space.components.embedders:
            self._encoder(name)

    def stages(self, configuration: Configuration, split: str) -> ConfigurationStages:
        """Stages that measure a configuration on a split."""
        ranking = None if configuration["retrieval"] == NEVER else self.ranking(configuration, split)
        questions, judgements = self.questions(configuration, split), self.dataset.answers_digest(split)
        ranked = None
        if ranking and self.settings.metrics.rankings and len(self.dataset.judgements):
            passages = self._passages(configuration["chunking"])
            ranked = self._make(RankingScores, ranking, passages, judgements, self.settings.metrics.rankings)
        if not self.space.generating:
            return ConfigurationStages(configuration, split, ranking, ranking_scores=ranked, questions=questions)
        trained = []
        for seed in self.space.seeds(self.space.components.generators[configuration["generator"]]):
            answers = self._answers(configuration, split, seed)
            trained.append(Trained(seed, answers, self._make(AnswerScores, answers, judgements, self.metrics)))
        first = trained[0]
        repeats = split == self.settings.dataset.select and configuration.id in self._first_of_generator.values()
        repeated = self._make(Repeated, first.answers) if repeats and first.answers.writer.draws > 1 else None
        several = tuple(trained) if len(trained) > 1 else ()
        return ConfigurationStages(
            configuration, split, ranking, first.answers, ranked, first.scores, repeated, several, questions
        )

    def merging(self, adapter: Adapter) -> Merging | None:
        """The stage that answers some prompts by the base, by an adapter and by merged weights; no run computes it.

        The prompts are those of the first configuration by id that shows passages to every question, of these one that asks as
        the adapter was trained; None where there is none, or what was trained cannot be kept beside the weights.
        """
        if adapter.lora.method != "lora":
            return None
        generators, select = self.space.components.generators, self.settings.dataset.select
        tuned = [c for c in self.space.configurations if generators[c["generator"]].lora == adapter.generator.lora]
        shown = [c for c in tuned if c["retrieval"] == ALWAYS and generators[c["generator"]].model == adapter.generator.model]
        if not shown:
            return None
        answers = self._open(min(shown, key=lambda c: (c.prompt_mismatch, c.id)), select, adapter.seed)
        generator = answers.writer.generator
        if isinstance(generator, EndpointGenerator):
            return None
        # beside the weights an adapter computes in the machine's precision alone, so all three ways do
        answers = replace(answers, writer=self._writer(generator.in_machine_precision(), adapter.seed))
        return self._make(Merging, answers, self.dataset.answers_digest(select), self.metrics)

    @cached_property
    def _first_of_generator(self) -> dict[str, str]:
        """Generator -> the configuration whose answers are given again: the baseline, else the first by id."""
        baseline_first = sorted(self.space.configurations, key=lambda c: (c.id != self.space.baseline.id, c.id))
        return {c["generator"]: c.id for c in reversed(baseline_first)}

    def adapter(self, generator: AnyGenerator, seed: int) -> Adapter | None:
        """The stage that trains a generator's adapter with a seed, or None."""
        if isinstance(generator, EndpointGenerator) or generator.lora is None:
            return None
        settings = generator.lora
        base = self.space.base
        passages = self._passages(settings.chunking or base["chunking"])
        split = self.settings.dataset.train
        ranking = self._ranking(settings.distractors or base["retriever"], passages, split)
        template = self.space.template(settings.prompt or base["prompt"])
        shown = settings.passages or base["passages"]
        digest_ = self.dataset.answers_digest(split)
        arithmetic, dropped = self.machine.for_training().arithmetic, self.space.dropped(settings.leaks)
        shots = self._few_shot(template, passages, split)
        return self._make(Adapter, generator, template, shown, ranking, passages, digest_, seed, arithmetic, dropped, shots)

    def _make(self, cls: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """A stage, or the equal one made before."""
        identity = (cls, *map(_identity, (*args, *named.items())))
        if identity not in self._made:
            self._made[identity] = cls(*args, **named)
        return cast(T, self._made[identity])

    def _passages(self, chunking: Chunking) -> Passages:
        chunking.check(self.dataset.structure)
        if not chunking.structured:
            return self._make(Passages, chunking, self.dataset.documents_digest)
        return self._make(Passages, chunking, self.dataset.documents_digest, self.dataset.structure_digest)

    def _embeddings(self, encoder: Encoder, passages: PassageStage) -> Embeddings:
        return self._make(Embeddings, encoder, passages, encoder.embedder.arithmetic(self.machine))

    def _encoder(self, name: str) -> Encoder:
        """An embedder, and the stage that trains it where it is trained."""
        if name in self._training:
            raise InputError(
                f"components.embedders.{name}.train: its wrong passages would come from a retriever that needs this embedder "
                f"trained; name another one as negatives_from, e.g. a bm25"
            )
        embedder = self.space.components.embedders[name]
        if not isinstance(embedder, Embedder) or embedder.train is None:
            return Encoder(embedder, None)
        self._training.append(name)
        trained = self._trained_on_rankings(TrainedEmbedder, embedder, embedder.train)
        self._training.remove(name)
        return Encoder(embedder, trained)

    def _trained_on_rankings(self, cls: Callable[..., S], component: Component, training: RankedTraining) -> S:
        base, split = self.space.base, self.settings.dataset.train
        passages = self._passages(base["chunking"])
        ranking = self._ranking(training.negatives_from or base["retriever"], passages, split)
        judgements, dropped = self.dataset.answers_digest(split), self.space.dropped(training.leaks)
        seed, arithmetic = self.settings.seed, self.machine.for_training().arithmetic
        return self._make(cls, ranking, passages, judgements, seed, arithmetic, dropped, component)

    def _ranking(
        self, name: str, passages: PassageStage, split: str | Sample, questions: Questions | None = None
    ) -> RankingStage:
        retriever, depth = self.space.components.retrievers[name], self.settings.depth
        queries = self.dataset.queries_digest(split)
        if isinstance(retriever, Fusion):
            parts = tuple(self._ranking(part, passages, split, questions) for part in retriever.of)
            return self._make(FusedRanking, retriever, parts, split, depth)
        if isinstance(retriever, Dense):
            encoder = self._encoder(retriever.embedder)
            embeddings = self._embeddings(encoder, passages)
            nearest = self._make(DenseIndex, retriever.index, embeddings, arithmetic(self.machine, retriever.index.learned))
            return self._make(DenseRanking, retriever, encoder, embeddings, nearest, split, queries, depth, questions)
        if not isinstance(retriever, TextRetriever):
            raise InputError(
                f"components.retrievers.{name}: {type(retriever).__name__} is none of the retrievers that an experiment can "
                f"build; derive the class from {TextRetriever.__module__}.TextRetriever"
            )
        terms = self._make(AnalyzedPassages, retriever.analyzer, passages) if retriever.analyzer else None
        index = self._make(TextIndex, retriever, passages, terms, self.machine.arithmetic if retriever.computes else None)
        return self._make(TextRanking, index, split, queries, depth, questions)

    def ranking(self, configuration: Configuration, split: str | Sample) -> RankingStage:
        """The stage that ranks passages for a configuration, reranking included."""
        passages = self._passages(configuration["chunking"])
        questions = self.questions(configuration, split)
        ranking = self._expanded(configuration, self._ranking(configuration["retriever"], passages, split, questions))
        if configuration["reranker"] == NONE:
            return ranking
        reranker = self.space.components.rerankers[configuration["reranker"]]
        references = tuple(
            (field, self._encoder(getattr(reranker, field)) if field == "embedder" else component)
            for field, component in self.space.components.references(reranker).items()
        )
        trained = self.trained_reranker(reranker)
        encoders = [one for _, one in references if isinstance(one, Encoder)]  # each computes in a precision of its own
        computed = sorted({one.embedder.arithmetic(self.machine) for one in encoders} or {self.machine.arithmetic})
        return self._make(Reranked, reranker, references, ranking, passages, trained, " + ".join(computed))

    def _expanded(self, configuration: Configuration, ranking: RankingStage) -> RankingStage:
        if configuration["expansion"] == NONE:
            return ranking
        expander = self.space.components.expanders[configuration["expansion"]]
        writer = self._writer(self.space.asked_by(expander))
        return self._make(ExpandedRanking, expander, writer, ranking, self.dataset.queries_digest(ranking.split))

    def questions(self, configuration: Configuration, split: str | Sample) -> Questions | None:
        """The stage that rewrites questions, or None."""
        if configuration["rewriting"] == NONE:
            return None
        rewriter = self.space.components.rewriters[configuration["rewriting"]]
        queries, histories = self.dataset.queries_digest(split), self.dataset.histories_digest(split)
        writer = self._writer(self.space.asked_by(rewriter))
        return self._make(Questions, rewriter, writer, split, queries, histories)

    def _writer(self, generator: AnyGenerator, seed: int | None = None) -> Writer:
        """A generator with its adapter of a seed; without one, as it is."""
        adapter = None if seed is None else self.adapter(generator, seed)
        return self._make(Writer, generator, adapter, generator.arithmetic(self.machine))

    def trained_reranker(self, reranker: Reranker) -> TrainedReranker | None:
        """The stage that trains a reranker, or None."""
        if not isinstance(reranker, CrossEncoder) or reranker.train is None:
            return None
        return self._trained_on_rankings(TrainedReranker, reranker, reranker.train)

    def _answers(self, configuration: Configuration, split: str, seed: int) -> Answers:
        retrieval = configuration["retrieval"]
        if retrieval == NEVER:
            return self._closed(configuration, split, seed)
        shown = self._open(configuration, split, seed)
        if retrieval == ALWAYS:
            return shown
        learned = self._threshold(configuration, retrieval, seed)
        return self._make(SelectiveAnswers, shown, self._closed(configuration, split, seed), learned)

    def _open(self, configuration: Configuration, split: str | Sample, seed: int) -> OpenAnswers:
        ranking, passages = self.ranking(configuration, split), self._passages(configuration["chunking"])
        template, writer = self._asked(configuration, seed)
        shots, shown = self._few_shot(template, passages, split, self.questions(configuration, split)), configuration["passages"]
        return self._make(OpenAnswers, ranking, passages, template, shown, writer, shots)

    def _closed(self, configuration: Configuration, split: str | Sample, seed: int) -> ClosedAnswers:
        template, writer = self._asked(configuration, seed)
        queries, questions = self.dataset.queries_digest(split), self.questions(configuration, split)
        return self._make(ClosedAnswers, split, queries, template, writer, questions)

    def _asked(self, configuration: Configuration, seed: int) -> tuple[Template, Writer]:
        """How a configuration asks, and what answers."""
        generator = self.space.components.generators[configuration["generator"]]
        return self.space.template(configuration["prompt"]), self._writer(generator, seed)

    def _threshold(self, configuration: Configuration, gate: Gate, seed: int) -> Threshold:
        sample = Sample(self.settings.dataset.train, gate.questions, self.settings.seed)
        parts = self._open(configuration, sample, seed), self._closed(configuration, sample, seed)
        metric = self.space.answer_metrics[self.space.select_by]
        return self._make(Threshold, gate, *parts, metric, self.dataset.answers_digest(sample))

    def _few_shot(
        self, template: Template, passages: Passages, split: str | Sample, asked: Questions | None = None
    ) -> FewShot | None:
        """How the prompts of a split come by the solved questions their template shows, or None."""
        shots, train = template.shots, self.settings.dataset.train
        if shots is None:
            return None
        retriever = shots.retriever or self.space.base["retriever"]
        ranking = self._ranking(retriever, passages, train)
        judgements, dropped = self.dataset.answers_digest(train), self.space.dropped(shots.leaks)
        solved = self._make(SolvedQuestions, ranking, passages, shots.passages, judgements, self.settings.seed, dropped)
        nearest = None
        if shots.choose == "nearest":
            questions = self._make(TrainQuestions, train, self.dataset.queries_digest(train))
            nearest = self._ranking(retriever, questions, split, asked)
        return FewShot(shots, solved, split, nearest)


def _identity(value: object) -> object:
    """What makes two arguments of a stage equal: keys of stages, the text of everything else."""
    if isinstance(value, tuple):
        return tuple(map(_identity, value))
    if isinstance(value, Writer):
        return _identity((value.generator, value.adapter, value.arithmetic))
    return value.key if isinstance(value, (Stage, Encoder, FewShot)) else repr(value)


@dataclass(frozen=True)
class PlannedStage:
    """One distinct stage of a plan: how many configurations use it, and whether the store holds it."""

    stage: Stage[object]
    uses: int
    found: bool


def plan(measured: Iterable[ConfigurationStages], found: Callable[[Stage[object]], bool]) -> list[PlannedStage]:
    """The distinct stages that configurations need, each after those it reads.

    Args:
        measured: configurations with their stages.
        found: whether the store holds a stage.
    """
    uses: Counter[str] = Counter()
    stages: dict[str, Stage[object]] = {}
    for one in measured:
        for stage in one.stages():
            stages.setdefault(stage.key, stage)
        uses.update({stage.key for stage in one.stages()})
    return [PlannedStage(stage, uses[key], found(stage)) for key, stage in stages.items()]
