"""The plan: configurations -> the distinct stages they need, known before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from workbench.component import digest
from workbench.data import leaks
from workbench.data.chunking import Chunking
from workbench.data.dataset import Dataset, Sample
from workbench.errors import InputError, unknown
from workbench.evaluation import answers as answer_metrics
from workbench.experiment import config
from workbench.experiment.merging import Merging
from workbench.experiment.shots import FewShot, SolvedQuestions, TrainQuestions
from workbench.experiment.stages import (
    Adapter,
    AnalyzedPassages,
    Answers,
    AnswerScores,
    ClosedAnswers,
    DenseIndex,
    DenseRanking,
    Embeddings,
    Encoder,
    ExpandedRanking,
    FusedRanking,
    OpenAnswers,
    Passages,
    Questions,
    RankingScores,
    RankingStage,
    Repeated,
    Reranked,
    ScoresStage,
    SelectiveAnswers,
    Stage,
    TextIndex,
    TextRanking,
    Threshold,
    TrainedEmbedder,
    TrainedOnRankings,
    TrainedReranker,
)
from workbench.machine import Machine
from workbench.models import prompts
from workbench.models.generator import Generator
from workbench.models.lora import Lora
from workbench.models.prompts import Shots, Template
from workbench.models.training import TrainingSettings
from workbench.retrieval.backends import arithmetic
from workbench.retrieval.dense import Dense
from workbench.retrieval.embedding import Embedder
from workbench.retrieval.expansion import Expander
from workbench.retrieval.fusion import Fusion
from workbench.retrieval.gate import Gate
from workbench.retrieval.rerankers.base import PairScorer, Reranker
from workbench.retrieval.rerankers.cross_encoder import CrossEncoder
from workbench.retrieval.rewriting import Rewriter

# axes that came later, and what went without saying
UNNAMED = (("rewriting", config.NONE), ("expansion", config.NONE), ("retrieval", config.ALWAYS))

LATE = (Answers, Threshold, ScoresStage, Repeated, Merging)  # stages that come after retrieval and fine-tuning


@dataclass(frozen=True)
class Configuration:
    """One point of the product of the axes.

    Attributes:
        id: digest of its resolved settings, 12 hexadecimal characters, the same in every run.
        values: axis -> value as in the YAML (`Chunking` for chunking, `Gate` for retrieval that is selective).
        label: the values of the axes that vary, for people.
        prompt_mismatch: whether its adapter was trained with another prompt, or with another number of passages.
    """

    id: str
    values: tuple[tuple[str, Any], ...]
    label: str
    prompt_mismatch: bool

    def __getitem__(self, axis: str) -> Any:
        return dict(self.values).get(axis)

    def columns(self) -> dict[str, str]:
        """Axis -> value as text."""
        return _columns(dict(self.values))


def _columns(values: dict[str, Any]) -> dict[str, str]:
    return {axis: value.label if isinstance(value, (Chunking, Gate)) else str(value) for axis, value in values.items()}


@dataclass(frozen=True)
class Trained:
    """Answers with the adapter of one seed, and their scores."""

    seed: int
    answers: Answers
    scores: AnswerScores


@dataclass(frozen=True)
class Measured:
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
        merging: some of the answers by base, adapter and merged weights, for the configuration that does this for its adapter.
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
    merging: Merging | None = None

    def stages(self) -> list[Stage]:
        """All stages of the configuration, each after those it reads."""
        roots = (self.ranking, self.answers, self.ranking_scores, self.answer_scores, self.repeated, self.merging)
        again = [one.scores for one in self.trained]
        return list(dict.fromkeys(stage for root in (*roots, *again) if root for stage in closure(root)))

    def all_answers(self) -> list[Answers]:
        """Answers with every seed."""
        return [one.answers for one in self.trained] or [self.answers]

    def artifacts(self) -> dict[str, Stage]:
        """The artifacts the configuration answers with, by name: what its keys in a run are, and its provenance."""
        found: dict[str, Stage] = {}
        for stage in _answering(self.ranking) if self.ranking else ():
            if stage.name in ("passages", "embeddings", "embedder", "reranker"):
                found[stage.name] = stage
            elif stage.name == "index":
                found[f"index {type(getattr(stage, 'retriever', None) or stage.index).__name__}"] = stage
        if self.ranking:
            found["ranking"] = self.ranking
        if self.questions:
            found["questions"] = self.questions
        if self.answers:
            if isinstance(self.answers, SelectiveAnswers):
                found["threshold"] = self.answers.threshold
            found["answers"] = self.answers
            if self.answers.adapter:
                found["adapter"] = self.answers.adapter
            if self.answers.few_shot:
                found |= self.answers.few_shot.artifacts()
        return found


def closure(stage: Stage) -> Iterator[Stage]:
    """A stage and all it reads, inputs first; shared ones may come again."""
    for part in stage.inputs():
        yield from closure(part)
    yield stage


def _answering(stage: Stage) -> Iterator[Stage]:
    """As `closure`, without what only a training read."""
    for part in stage.inputs():
        if isinstance(part, TrainedOnRankings):
            yield part
        else:
            yield from _answering(part)
    yield stage


class Planner:
    """Builds stages of configurations. Equal stages are the same object, so that a key is computed once."""

    def __init__(self, settings: config.ExperimentSettings, dataset: Dataset, machine: Machine, folder: Path) -> None:
        self.settings = settings
        self.dataset = dataset
        self.machine = machine
        self.folder = folder
        self.components = config.Components(settings.components, folder)
        self.axes = config.axes_of(settings, self.components)
        self.select_by = config.check_metrics(settings, self.axes)
        self._made: dict[Any, Stage] = {}
        self._training: list[str] = []  # embedders whose training is being planned
        self._templates: dict[str, Template] = {}
        self._check_dataset()
        self._check_leaks()
        for name in self.components.embedders:
            self._encoder(name)
        for name in self.axes.get("prompt", ()):
            self.template(name)

    @property
    def generating(self) -> bool:
        """Whether the experiment answers questions, or ranks passages only."""
        return "generator" in self.axes

    @cached_property
    def configurations(self) -> list[Configuration]:
        """The product of the axes, and the baseline where it lies outside; sorted by id."""
        points = [dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())]
        if self._baseline_values not in points:
            points.append(self._baseline_values)
        return sorted((self._configuration(point) for point in points), key=lambda c: c.id)

    @cached_property
    def baseline(self) -> Configuration:
        """The configuration the others are compared with: the first value of each axis unless the file says otherwise."""
        wanted = self._configuration(self._baseline_values).id
        return next(c for c in self.configurations if c.id == wanted)

    @cached_property
    def _baseline_values(self) -> dict[str, Any]:
        given = self.settings.baseline
        return {
            axis: config.axis_value(axis, given[axis], self.components) if axis in given else values[0]
            for axis, values in self.axes.items()
        }

    @property
    def answer_metrics(self) -> tuple[str, ...]:
        """Answer metrics the experiment measures."""
        return self.settings.metrics.answers if self.generating else ()

    def measured(self, configuration: Configuration, split: str) -> Measured:
        """Stages that measure a configuration on a split."""
        ranking = None if configuration["retrieval"] == config.NEVER else self.ranking(configuration, split)
        questions, judgements = self.questions(configuration, split), self.dataset.answers_digest(split)
        ranked = None
        if ranking and self.settings.metrics.rankings and len(self.dataset.judgements):
            passages = self._passages(configuration["chunking"])
            ranked = self._make(RankingScores, ranking, passages, judgements, self.settings.metrics.rankings)
        if not self.generating:
            return Measured(configuration, split, ranking, ranking_scores=ranked, questions=questions)
        trained = []
        for seed in self.seeds(self.components.generators[configuration["generator"]]):
            answers = self._answers(configuration, split, seed)
            trained.append(Trained(seed, answers, self._make(AnswerScores, answers, judgements, self.answer_metrics)))
        first = trained[0]
        repeats = split == self.settings.dataset.select and configuration.id in self._first_of_generator.values()
        repeated = self._make(Repeated, first.answers) if repeats else None
        several = tuple(trained) if len(trained) > 1 else ()
        merging = None
        shows = split == self.settings.dataset.select and configuration.id in self._first_as_trained.values()
        if shows and first.answers.adapter:
            merging = self._make(Merging, first.answers, judgements, self.answer_metrics)
        return Measured(configuration, split, ranking, first.answers, ranked, first.scores, repeated, several, questions, merging)

    @cached_property
    def _first_as_trained(self) -> dict[str, str]:
        """Generator -> the configuration that shows what merging does.

        The first by id of those that show passages to every question, and of these one that asks as the adapter was trained.
        """
        shown = [c for c in self.configurations if c["retrieval"] == config.ALWAYS]
        ordered = sorted(shown, key=lambda c: (c.prompt_mismatch, c.id))
        return {c["generator"]: c.id for c in reversed(ordered)}

    def seeds(self, generator: Generator) -> range:
        """The seeds a generator is measured with: one where nothing is trained."""
        first = self.settings.seed
        return range(first, first + (self.settings.seeds if generator.lora else 1))

    @cached_property
    def _first_of_generator(self) -> dict[str, str]:
        """Generator -> the configuration whose answers are given again: the baseline, else the first by id."""
        baseline_first = sorted(self.configurations, key=lambda c: (c.id != self.baseline.id, c.id))
        return {c["generator"]: c.id for c in reversed(baseline_first)}

    def template(self, name: str) -> Template:
        """A prompt template by its name in the file."""
        if name not in self._templates:
            template = prompts.load(name, self.folder)
            if template.shots and template.shots.retriever not in (None, *self.components.retrievers):
                known = unknown("retriever", template.shots.retriever, self.components.retrievers)
                raise InputError(f"prompt template {name}: shots.retriever: {known}")
            self._templates[name] = template
        return self._templates[name]

    def adapter(self, generator: Generator, seed: int) -> Adapter | None:
        """The stage that trains a generator's adapter with a seed, or None."""
        if generator.lora is None:
            return None
        settings = generator.lora
        base = self._baseline_values
        passages = self._passages(settings.chunking or base["chunking"])
        split = self.settings.dataset.train
        ranking = self._ranking(settings.distractors or base["retriever"], passages, split)
        template = self.template(settings.prompt or base["prompt"])
        shown = settings.passages or base["passages"]
        digest_ = self.dataset.answers_digest(split)
        arithmetic, dropped = self.machine.for_training().arithmetic, self._dropped(settings.leaks)
        shots = self._few_shot(template, passages, split)
        return self._make(Adapter, generator, template, shown, ranking, passages, digest_, seed, arithmetic, dropped, shots)

    def training_prompt(self, generator: Generator) -> tuple[str, int] | None:
        """Template name and number of passages that a generator's adapter is trained with, or None."""
        if generator.lora is None:
            return None
        return generator.lora.prompt or self._baseline_values["prompt"], generator.lora.passages or self._baseline_values[
            "passages"
        ]

    def _check_dataset(self) -> None:
        data = self.settings.dataset
        for role in ("select", "report", *(["train"] if self._trains else [])):
            if getattr(data, role) not in self.dataset.splits:
                raise InputError(
                    f"dataset.{role}: {self.dataset.name} has no split {getattr(data, role)!r}; "
                    f"allowed: {', '.join(self.dataset.splits)}"
                )
        if self.generating and any(m in answer_metrics.AGAINST_ACCEPTED for m in self.answer_metrics):
            for split in (data.select, data.report, *([data.train] if self._gates else [])):
                if any(query.answers is None for query in self.dataset.split(split)):
                    raise InputError(
                        f"dataset {self.dataset.name}: the split {split!r} has no accepted answers to score a generator with; "
                        f"leave the axis 'generator' out to compare rankings, or add answers to the queries"
                    )

    @property
    def _trains(self) -> bool:
        return bool(self._learning) or bool(self._gates)

    @property
    def _learning(self) -> dict[str, TrainingSettings | Shots]:
        """What learns from the train split, or shows it in prompts, by its place in the file."""
        named = self.components
        found: dict[str, Any] = {
            f"components.generators.{name}.lora": named.generators[name].lora for name in self._used("generator")
        }
        found |= {
            f"components.rerankers.{name}.train": config.training_of(named.rerankers[name])
            for name in self._used("reranker")
            if name != config.NONE
        }
        found |= {f"components.embedders.{name}.train": config.training_of(one) for name, one in named.embedders.items()}
        trained_with = [one.prompt for one in found.values() if isinstance(one, Lora) and one.prompt]
        asked_with = dict.fromkeys([*self._used("prompt"), *trained_with])
        found |= {f"prompt template {name}: shots": self.template(name).shots for name in asked_with}
        return {where: settings for where, settings in found.items() if settings}

    def _used(self, axis: str) -> list[Any]:
        """Values of an axis, and the baseline's; none where the experiment lacks the axis."""
        return list(dict.fromkeys([*self.axes[axis], self._baseline_values[axis]])) if axis in self.axes else []

    def _check_leaks(self) -> None:
        """Refuses training questions that the evaluation asks too, where they are not dropped."""
        for where, settings in self._learning.items():
            if settings.leaks == "refuse":
                leaks.refuse(self.leaks, where, f"{where}.leaks")

    @cached_property
    def leaks(self) -> list[leaks.Leak]:
        """Train questions that the selection or the report asks too, or nearly so; none where nothing learns."""
        data = self.settings.dataset
        train, *evaluation = (
            {query.id: query.text for query in self.dataset.split(split)} for split in (data.train, data.select, data.report)
        )
        # a split that is trained and selected on is the choice of whoever wrote the file
        asked = {i: text for questions in evaluation for i, text in questions.items() if i not in train}
        return leaks.leaks(train, asked)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out of trainings and prompts."""
        dropping = [where for where, settings in self._learning.items() if settings.leaks == "drop"]
        if not dropping or not self.leaks:
            return ()
        n = len(leaks.dropped(self.leaks))
        return (f"{n} train questions left out that the evaluation asks too, or nearly so: {', '.join(dropping)}",)

    def _dropped(self, policy: leaks.Policy) -> tuple[str, ...]:
        return leaks.dropped(self.leaks) if policy == "drop" else ()

    @property
    def _gates(self) -> list[Gate]:
        """What learns a threshold from the train split."""
        values = [*self.axes.get("retrieval", ()), self._baseline_values.get("retrieval")]
        return [value for value in values if isinstance(value, Gate)]

    def _configuration(self, values: dict[str, Any]) -> Configuration:
        varying = [axis for axis, options in self.axes.items() if len(options) > 1] or ["retriever"]
        # what an axis does by default is no part of what a configuration is: those of older files keep their ids
        given = {axis: value for axis, value in values.items() if (axis, value) not in UNNAMED}
        resolved = {axis: self._resolved(axis, value) for axis, value in given.items()}
        if "retrieval" in given:
            resolved["closed"] = self.template(values["prompt"]).closed.settings()
        mismatch = False
        if self.generating:
            trained = self.training_prompt(self.components.generators[values["generator"]])
            asked = (values["prompt"], values["passages"])
            mismatch = trained is not None and (trained != asked or values["retrieval"] == config.NEVER)
        columns = _columns(values)
        label = "/".join(columns[axis] for axis in varying)
        return Configuration(
            digest([resolved, self.settings.depth, self.settings.seed])[:12], tuple(values.items()), label, mismatch
        )

    def _resolved(self, axis: str, value: Any) -> Any:
        """Settings behind an axis value, names replaced by what they stand for."""
        if axis == "chunking":
            return value.settings()
        if axis == "retriever":
            return self._resolved_retriever(value)
        if axis in ("rewriting", "expansion"):
            writing = (self.components.rewriters if axis == "rewriting" else self.components.expanders)[value]
            return [writing.settings(), self._writer(writing).definition()["weights"]]
        if axis == "reranker":
            return None if value == config.NONE else self._with_references(self.components.rerankers[value])
        if axis == "retrieval":
            return [value.settings(), self.select_by] if isinstance(value, Gate) else value
        if axis == "prompt":
            return self._resolved_template(self.template(value))
        if axis == "generator":
            generator = self.components.generators[value]
            named = generator.definition()
            lora = self._resolved_lora(generator) if generator.lora else None
            return {"settings": named["settings"], "weights": named["weights"], "lora": lora}
        return value

    def _resolved_template(self, template: Template) -> Any:
        """Its settings, and what its solved questions come from."""
        if template.shots is None:
            return template.settings()
        base = self._baseline_values
        retriever = self._resolved_retriever(template.shots.retriever or base["retriever"])
        return [template.settings(), retriever, self._dropped(template.shots.leaks)]

    def _resolved_retriever(self, name: str) -> Any:
        retriever = self.components.retrievers[name]
        if isinstance(retriever, Fusion):
            return [retriever.settings(), [self._resolved_retriever(part) for part in retriever.of]]
        index = [retriever.index.settings()] if isinstance(retriever, Dense) else []
        return [*self._with_references(retriever), *index]

    def _with_references(self, component: Any) -> Any:
        named = self.components.references(component)
        weights = {
            field: [c.settings(), c.definition().get("weights"), *self._resolved_training(c)] for field, c in named.items()
        }
        own = [component.definition()["weights"]] if isinstance(component, CrossEncoder) else []
        return [component.settings(), weights, *own, *self._resolved_training(component)]

    def _resolved_training(self, component: Any) -> list[Any]:
        """What decides a training on rankings; nothing where there is none."""
        training = config.training_of(component)
        if training is None:
            return []
        base = self._baseline_values
        retriever = self._resolved_retriever(training.negatives_from or base["retriever"])
        return [[training.settings(), retriever, base["chunking"].settings(), *filter(None, [self._dropped(training.leaks)])]]

    def _resolved_lora(self, generator: Generator) -> Any:
        base, lora = self._baseline_values, generator.lora
        several = [self.settings.seeds] if self.settings.seeds > 1 else []
        return [
            *several,
            lora.settings(),
            self._resolved_template(self.template(lora.prompt or base["prompt"])),
            lora.passages or base["passages"],
            self._resolved_retriever(lora.distractors or base["retriever"]),
            (lora.chunking or base["chunking"]).settings(),
            *filter(None, [self._dropped(lora.leaks)]),
        ]

    def _make(self, cls: type, *args: Any) -> Any:
        """A stage, or the equal one made before."""
        identity = (cls, *map(_identity, args))
        if identity not in self._made:
            self._made[identity] = cls(*args)
        return self._made[identity]

    def _passages(self, chunking: Chunking) -> Passages:
        return self._make(Passages, chunking, self.dataset.documents_digest)

    def _embeddings(self, encoder: Encoder, passages: Passages) -> Embeddings:
        return self._make(Embeddings, encoder, passages, encoder.embedder.arithmetic(self.machine))

    def _encoder(self, name: str) -> Encoder:
        """An embedder, and the stage that trains it where it is trained."""
        if name in self._training:
            raise InputError(
                f"components.embedders.{name}.train: its wrong passages would come from a retriever that needs this embedder "
                f"trained; name another one as negatives_from, e.g. a bm25"
            )
        embedder = self.components.embedders[name]
        if config.training_of(embedder) is None:
            return Encoder(embedder, None)
        self._training.append(name)
        trained = self._trained_on_rankings(TrainedEmbedder, embedder)
        self._training.remove(name)
        return Encoder(embedder, trained)

    def _trained_on_rankings(self, cls: type[TrainedOnRankings], component: Embedder | CrossEncoder) -> TrainedOnRankings:
        base, split = self._baseline_values, self.settings.dataset.train
        passages = self._passages(base["chunking"])
        ranking = self._ranking(component.train.negatives_from or base["retriever"], passages, split)
        judgements, dropped = self.dataset.answers_digest(split), self._dropped(component.train.leaks)
        seed, arithmetic = self.settings.seed, self.machine.for_training().arithmetic
        return self._make(cls, ranking, passages, judgements, seed, arithmetic, dropped, component)

    def _ranking(
        self, name: str, passages: Passages | TrainQuestions, split: str | Sample, questions: Questions | None = None
    ) -> RankingStage:
        retriever, depth = self.components.retrievers[name], self.settings.depth
        queries = self.dataset.queries_digest(split)
        if isinstance(retriever, Fusion):
            parts = tuple(self._ranking(part, passages, split, questions) for part in retriever.of)
            return self._make(FusedRanking, retriever, parts, split, depth)
        if isinstance(retriever, Dense):
            encoder = self._encoder(retriever.embedder)
            embeddings = self._embeddings(encoder, passages)
            index = self._make(DenseIndex, retriever.index, embeddings, arithmetic(self.machine, retriever.index.learned))
            return self._make(DenseRanking, retriever, encoder, embeddings, index, split, queries, depth, questions)
        terms = self._make(AnalyzedPassages, retriever.analyzer, passages) if retriever.analyzer else None
        index = self._make(TextIndex, retriever, passages, terms, self.machine.arithmetic if retriever.computes else None)
        return self._make(TextRanking, index, split, queries, depth, questions)

    def ranking(self, configuration: Configuration, split: str | Sample) -> RankingStage:
        """The stage that ranks passages for a configuration, reranking included."""
        passages = self._passages(configuration["chunking"])
        questions = self.questions(configuration, split)
        ranking = self._expanded(configuration, self._ranking(configuration["retriever"], passages, split, questions))
        if configuration["reranker"] == config.NONE:
            return ranking
        reranker = self.components.rerankers[configuration["reranker"]]
        references = tuple(
            (field, self._encoder(reranker.embedder) if field == "embedder" else component)
            for field, component in self.components.references(reranker).items()
        )
        trained = self.trained_reranker(reranker)
        encoders = [one for _, one in references if isinstance(one, Encoder)]  # each computes in a precision of its own
        computed = sorted({one.embedder.arithmetic(self.machine) for one in encoders} or {self.machine.arithmetic})
        return self._make(Reranked, reranker, references, ranking, passages, trained, " + ".join(computed))

    def _expanded(self, configuration: Configuration, ranking: RankingStage) -> RankingStage:
        if configuration["expansion"] == config.NONE:
            return ranking
        expander = self.components.expanders[configuration["expansion"]]
        queries, arithmetic = self.dataset.queries_digest(ranking.split), self.machine.arithmetic
        return self._make(ExpandedRanking, expander, self._writer(expander), ranking, queries, arithmetic)

    def questions(self, configuration: Configuration, split: str | Sample) -> Questions | None:
        """The stage that rewrites questions, or None."""
        if configuration["rewriting"] == config.NONE:
            return None
        rewriter = self.components.rewriters[configuration["rewriting"]]
        queries, histories = self.dataset.queries_digest(split), self.dataset.histories_digest(split)
        return self._make(Questions, rewriter, self._writer(rewriter), split, queries, histories, self.machine.arithmetic)

    def _writer(self, asking: Expander | Rewriter) -> Generator:
        """The generator that an expander or a rewriter asks, as long as it wants."""
        named = self.components.generators[asking.generator].untuned()
        return named.model_copy(update={"max_new_tokens": asking.max_new_tokens})

    def trained_reranker(self, reranker: Reranker) -> TrainedReranker | None:
        """The stage that trains a reranker, or None."""
        if not isinstance(reranker, CrossEncoder) or reranker.train is None:
            return None
        return self._trained_on_rankings(TrainedReranker, reranker)

    def _answers(self, configuration: Configuration, split: str, seed: int) -> Answers:
        retrieval = configuration["retrieval"]
        if retrieval == config.NEVER:
            return self._closed(configuration, split, seed)
        shown = self._open(configuration, split, seed)
        if retrieval == config.ALWAYS:
            return shown
        learned = self._threshold(configuration, retrieval, seed)
        return self._make(SelectiveAnswers, shown, self._closed(configuration, split, seed), learned)

    def _open(self, configuration: Configuration, split: str | Sample, seed: int) -> OpenAnswers:
        ranking, passages = self.ranking(configuration, split), self._passages(configuration["chunking"])
        generator, template = self._asked(configuration)
        adapter, arithmetic = self.adapter(generator, seed), self.machine.arithmetic
        shots, shown = self._few_shot(template, passages, split, self.questions(configuration, split)), configuration["passages"]
        return self._make(OpenAnswers, ranking, passages, template, shown, generator, adapter, arithmetic, shots)

    def _closed(self, configuration: Configuration, split: str | Sample, seed: int) -> ClosedAnswers:
        generator, template = self._asked(configuration)
        queries, adapter = self.dataset.queries_digest(split), self.adapter(generator, seed)
        questions, arithmetic = self.questions(configuration, split), self.machine.arithmetic
        return self._make(ClosedAnswers, split, queries, template, generator, adapter, arithmetic, questions)

    def _asked(self, configuration: Configuration) -> tuple[Generator, Template]:
        return self.components.generators[configuration["generator"]], self.template(configuration["prompt"])

    def _threshold(self, configuration: Configuration, gate: Gate, seed: int) -> Threshold:
        sample = Sample(self.settings.dataset.train, gate.questions, self.settings.seed)
        parts = self._open(configuration, sample, seed), self._closed(configuration, sample, seed)
        return self._make(Threshold, gate, *parts, self.select_by, self.dataset.answers_digest(sample))

    def _few_shot(
        self, template: Template, passages: Passages, split: str | Sample, asked: Questions | None = None
    ) -> FewShot | None:
        """How the prompts of a split come by the solved questions their template shows, or None."""
        shots, train = template.shots, self.settings.dataset.train
        if shots is None:
            return None
        retriever = shots.retriever or self._baseline_values["retriever"]
        ranking = self._ranking(retriever, passages, train)
        judgements, dropped = self.dataset.answers_digest(train), self._dropped(shots.leaks)
        solved = self._make(SolvedQuestions, ranking, passages, shots.passages, judgements, self.settings.seed, dropped)
        nearest = None
        if shots.choose == "nearest":
            questions = self._make(TrainQuestions, train, self.dataset.queries_digest(train))
            nearest = self._ranking(retriever, questions, split, asked)
        return FewShot(shots, solved, split, nearest)


def _identity(value: Any) -> Any:
    """What makes two arguments of a stage equal: keys of stages, the text of everything else."""
    if isinstance(value, tuple):
        return tuple(map(_identity, value))
    return value.key if isinstance(value, (Stage, Encoder, FewShot)) else repr(value)


@dataclass(frozen=True)
class PlannedStage:
    """One distinct stage of a plan: how many configurations use it, and whether the store holds it."""

    stage: Stage
    uses: int
    found: bool


def plan(measured: Iterable[Measured], found: Any) -> list[PlannedStage]:
    """The distinct stages that configurations need, each after those it reads.

    Args:
        measured: configurations with their stages.
        found: function of a stage: whether the store holds it.
    """
    uses: Counter[str] = Counter()
    stages: dict[str, Stage] = {}
    for one in measured:
        for stage in one.stages():
            stages.setdefault(stage.key, stage)
        uses.update({stage.key for stage in one.stages()})
    return [PlannedStage(stage, uses[key], found(stage)) for key, stage in stages.items()]


def answer_groups(stages: Sequence[Stage]) -> list[list[Answers]]:
    """Answers stages by generator and adapter: the prompts of a group go through one queue."""
    return _by_namespace(stage for stage in stages if isinstance(stage, Answers))


def scoring_groups(stages: Sequence[Stage]) -> list[list[Reranked]]:
    """Reranked stages by scorer: the pairs of a group go through one queue."""
    return _by_namespace(s for s in stages if isinstance(s, Reranked) and isinstance(s.reranker, PairScorer))


def _by_namespace(stages: Iterable[Any]) -> list[list[Any]]:
    groups: dict[str, list[Any]] = {}
    for stage in stages:
        groups.setdefault(stage.namespace, []).append(stage)
    return list(groups.values())
