"""The configurations of an experiment: the points of the product of its axes, and what each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from workbench.component import digest
from workbench.data import leaks, scripts
from workbench.data.chunking import Chunking
from workbench.data.dataset import Dataset
from workbench.data.leaks import Policy
from workbench.data.readers.text import counted, few
from workbench.errors import InputError, unknown
from workbench.evaluation import rankings
from workbench.experiment.axes import axes_of, axis_value
from workbench.experiment.components import Components, training_of
from workbench.experiment.config import ALWAYS, BASELINE, NEVER, NONE, ExperimentSettings, at
from workbench.experiment.metrics import answer_metrics, check_metrics
from workbench.models import prompts
from workbench.models.lora import Lora
from workbench.models.prompts import Shots, Template
from workbench.models.served import AnyGenerator, EndpointGenerator
from workbench.models.training import TrainingSettings
from workbench.retrieval.bm25 import BM25
from workbench.retrieval.embedders.embedder import Embedder
from workbench.retrieval.expansion import Expander
from workbench.retrieval.fusion import Fusion
from workbench.retrieval.gate import Gate
from workbench.retrieval.indexes.dense import Dense
from workbench.retrieval.rerankers.cross_encoder import CrossEncoder
from workbench.retrieval.rewriting import Rewriter
from workbench.store.spending import Spending

# axes that came later, and what went without saying
UNNAMED = (("rewriting", NONE), ("expansion", NONE), ("retrieval", ALWAYS))


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


class Space:
    """All configurations of an experiment's file, with the components and templates they name; checked against the dataset.

    Attributes:
        settings: the file.
        dataset: what is asked and searched.
        folder: where files that the experiment names are looked for.
        components: the file's components, by name.
        axes: axis -> its values, defaults filled in.
        answer_metrics: name -> metric of answers; empty where none are written.
        select_by: the metric that chooses.
    """

    def __init__(self, settings: ExperimentSettings, dataset: Dataset, folder: Path) -> None:
        self.settings = settings
        self.dataset = dataset
        self.folder = folder
        self.components = Components(settings.components, folder)
        self.axes = axes_of(settings, self.components)
        self.answer_metrics = answer_metrics(settings, folder) if self.generating else {}
        self.select_by = check_metrics(settings, self.axes, self.answer_metrics)
        self._templates: dict[str, Template] = {}
        self._check_dataset()
        self._check_leaks()
        for name in self.axes.get("prompt", ()):
            self.template(name)
        if settings.names:
            self._check_names()

    def _check_names(self) -> None:
        """Refuses plain words for what is no value of an axis, no component and not the baseline."""
        families = self.settings.components.model_dump().values()
        named = {name for family in families for name in family} | {BASELINE}
        named |= {value for one in self.configurations for value in one.columns().values()}
        if strange := sorted(self.settings.names.keys() - named):
            raise at("names", unknown("value of an axis", strange[0], sorted(named)))

    @property
    def generating(self) -> bool:
        """Whether the experiment answers questions, or ranks passages only."""
        return "generator" in self.axes

    @cached_property
    def configurations(self) -> list[Configuration]:
        """The product of the axes, and the baseline where it lies outside; sorted by id."""
        points = [dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())]
        if self.base not in points:
            points.append(self.base)
        return sorted((self._configuration(point) for point in points), key=lambda c: c.id)

    @cached_property
    def baseline(self) -> Configuration:
        """The configuration the others are compared with: the first value of each axis unless the file says otherwise."""
        wanted = self._configuration(self.base).id
        return next(c for c in self.configurations if c.id == wanted)

    @cached_property
    def base(self) -> dict[str, Any]:
        """Axis -> value of the baseline, which also fills in what a training does not name."""
        given = self.settings.baseline
        return {
            axis: axis_value(axis, given[axis], self.components) if axis in given else values[0]
            for axis, values in self.axes.items()
        }

    @property
    def currency(self) -> str:
        """In which servers' prices are stated; empty where none is.

        Raises:
            InputError: prices are in several currencies, which cannot be added up.
        """
        named = {
            name: one.price.currency
            for name, one in self.components.generators.items()
            if isinstance(one, EndpointGenerator) and one.price
        }
        if len(set(named.values())) > 1:
            told = ", ".join(f"{name}: {currency}" for name, currency in named.items())
            raise InputError(f"components.generators: prices in several currencies ({told}) cannot be added up; use one")
        return next(iter(named.values()), "")

    def spending(self) -> Spending:
        """What may be spent at servers.

        Raises:
            InputError: money is limited, and a server's price is not stated.
        """
        budget = self.settings.budget
        if budget.money is not None:
            for name, one in self.components.generators.items():
                if isinstance(one, EndpointGenerator) and one.price is None:
                    raise InputError(
                        f"budget.money: what components.generators.{name} costs is not known; give it a price, e.g. "
                        f"price: {{input: 0.15, output: 0.6}}, or limit budget.tokens"
                    )
        return Spending(budget.tokens, budget.money)

    def seeds(self, generator: AnyGenerator) -> range:
        """The seeds a generator is measured with: one where nothing is trained."""
        first = self.settings.seed
        return range(first, first + (self.settings.seeds if generator.lora else 1))

    def template(self, name: str) -> Template:
        """A prompt template by its name in the file."""
        if name not in self._templates:
            template = prompts.load(name, self.folder)
            if template.shots and template.shots.retriever not in (None, *self.components.retrievers):
                known = unknown("retriever", template.shots.retriever, self.components.retrievers)
                raise InputError(f"prompt template {name}: shots.retriever: {known}")
            self._templates[name] = template
        return self._templates[name]

    def training_prompt(self, generator: AnyGenerator) -> tuple[str, int] | None:
        """Template name and number of passages that a generator's adapter is trained with, or None."""
        if generator.lora is None:
            return None
        return generator.lora.prompt or self.base["prompt"], generator.lora.passages or self.base["passages"]

    def asked_by(self, asking: Expander | Rewriter) -> AnyGenerator:
        """The generator that an expander or a rewriter asks, as long as it wants."""
        named = self.components.generators[asking.generator].untuned()
        return named.writing(asking.max_new_tokens)

    def _check_dataset(self) -> None:
        data = self.settings.dataset
        for role in ("select", "report", *(["train"] if self._trains else [])):
            if getattr(data, role) not in self.dataset.splits:
                raise InputError(
                    f"dataset.{role}: {self.dataset.name} has no split {getattr(data, role)!r}; "
                    f"allowed: {', '.join(self.dataset.splits)}{self._way_out(role)}{self._left_out()}"
                )
        if self._trains and data.train == data.report:
            raise InputError(
                f"dataset.train and dataset.report are both {data.report!r}, so what is trained would be reported on the very "
                f"questions it learned from; name another split for one of them"
            )
        if any(metric.compares for metric in self.answer_metrics.values()):
            for split in (data.select, data.report, *([data.train] if self._gates else [])):
                self._check_answered(split)

    def _check_answered(self, split: str) -> None:
        asked = self.dataset.split(split)
        lacking = [query.id for query in asked if query.answers is None]
        if not lacking:
            return
        if len(lacking) == len(asked):
            raise InputError(
                f"dataset {self.dataset.name}: the split {split!r} has no accepted answers to score a generator with; "
                f"leave the axis 'generator' out to compare rankings, or add answers to the queries"
            )
        have = "has" if len(lacking) == 1 else "have"
        raise InputError(
            f"dataset {self.dataset.name}: {len(lacking)} of {len(asked)} questions of the split {split!r} {have} no accepted "
            f"answer to score a generator with: {few(lacking)}; write what is right, `[]` where the documents do not answer the "
            f"question, or leave the axis 'generator' out to compare rankings"
        )

    def _left_out(self) -> str:
        """What loading left out, which may be the reason why something is not there."""
        return "".join(f"; {note}" for note in self.dataset.notes if "files of qrels" in note)

    def _way_out(self, role: str) -> str:
        """How a set without a split to choose on gets one."""
        data, there = self.settings.dataset, self.dataset.splits
        if role != "select" or data.train not in there or data.train == data.report:
            return ""
        return (
            f". A part of the split {data.train!r} can be held out to choose on: write `hold_out: 0.25` below `dataset:`, or add "
            f"--set dataset.hold_out=0.25"
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
            f"components.rerankers.{name}.train": training_of(named.rerankers[name])
            for name in self._used("reranker")
            if name != NONE
        }
        found |= {f"components.embedders.{name}.train": training_of(one) for name, one in named.embedders.items()}
        trained_with = [one.prompt for one in found.values() if isinstance(one, Lora) and one.prompt]
        asked_with = dict.fromkeys([*self._used("prompt"), *trained_with])
        found |= {f"prompt template {name}: shots": self.template(name).shots for name in asked_with}
        return {where: settings for where, settings in found.items() if settings}

    def _used(self, axis: str) -> list[Any]:
        """Values of an axis, and the baseline's; none where the experiment lacks the axis."""
        return list(dict.fromkeys([*self.axes[axis], self.base[axis]])) if axis in self.axes else []

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

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What cannot be measured here, what loading dropped, what is assumed of models, and what trainings leave out."""
        found = [*self._unreadable(), *self._too_shallow(), *self.dataset.notes]
        named = {name: one for name, one in self.components.embedders.items() if isinstance(one, Embedder)}
        found += [f"components.embedders.{name}: {one.assumed}" for name, one in named.items() if one.assumed]
        dropping = [where for where, settings in self._learning.items() if settings.leaks == "drop"]
        if dropping and self.leaks:
            n = len(leaks.dropped(self.leaks))
            found.append(
                f"{counted(n, 'train question')} left out that the evaluation asks too, or nearly so: {', '.join(dropping)}"
            )
        return tuple(found)

    def _unreadable(self) -> list[str]:
        """A caution where questions or answers are written in a script without spaces, which what counts words cannot read."""
        splits = self.settings.dataset.select, self.settings.dataset.report
        asked = {query.id: query for split in splits for query in self.dataset.split(split)}
        found = {i: script for i, q in asked.items() if (script := scripts.unspaced_in([q.text, *(q.answers or ())]))}
        if not found:
            return []
        bm25 = ["BM25"] if any(map(self._reads_words, self._used("retriever"))) else []
        in_words = [name for name in self.settings.metrics.rankings if rankings.parse(name).in_words]
        chunks = ["chunking in words"] if any(one.words or one.recursive for one in self._used("chunking")) else []
        counting = [*bm25, *in_words, *(name for name, metric in self.answer_metrics.items() if metric.in_words), *chunks]
        if not counting:
            return []
        return [
            f"CAUTION: {len(found)} of {len(asked)} questions, such as {min(found)!r}, or their answers are written without "
            f"spaces between words ({', '.join(sorted(set(found.values())))}). What counts words takes a phrase of theirs for "
            f"one word, so that little is found and matched, however good a system is. Concerned here: {', '.join(counting)}. "
            f"Figures of dense retrieval by an embedder of that language, em, and cut-offs in passages can be read"
        ]

    def _too_shallow(self) -> list[str]:
        """A caution where a metric looks further down than rankings go."""
        depth = self.settings.depth
        wanted = {name: rankings.parse(name) for name in self.settings.metrics.rankings}
        deeper = {name: one.cutoff for name, one in wanted.items() if not one.in_words and one.cutoff > depth}
        if not deeper or self.dataset.documents.num_rows <= depth:
            return []
        return [
            f"CAUTION: rankings end after {depth:,} passages (depth), and {', '.join(deeper)} would look further down: what "
            f"stands there counts as not found. Write `depth: {max(deeper.values())}` to rank so many"
        ]

    def _reads_words(self, name: str) -> bool:
        """Whether a retriever, or a part of it, is BM25."""
        retriever = self.components.retrievers[name]
        return isinstance(retriever, BM25) or (isinstance(retriever, Fusion) and any(map(self._reads_words, retriever.of)))

    def dropped(self, policy: Policy) -> tuple[str, ...]:
        """Ids of train questions that a training or a prompt with this policy leaves out."""
        return leaks.dropped(self.leaks) if policy == "drop" else ()

    @property
    def _gates(self) -> list[Gate]:
        """What learns a threshold from the train split."""
        values = [*self.axes.get("retrieval", ()), self.base.get("retrieval")]
        return [value for value in values if isinstance(value, Gate)]

    def _configuration(self, values: dict[str, Any]) -> Configuration:
        # the baseline may lie outside the axes: without its value two configurations would have one label
        varying = [axis for axis, options in self.axes.items() if {*map(str, options)} != {str(self.base[axis])}] or ["retriever"]
        # what an axis does by default is no part of what a configuration is: those of older files keep their ids
        given = {axis: value for axis, value in values.items() if (axis, value) not in UNNAMED}
        resolved = {axis: self._resolved(axis, value) for axis, value in given.items()}
        if "retrieval" in given:
            resolved["closed"] = self.template(values["prompt"]).closed.settings()
        mismatch = False
        if self.generating:
            trained = self.training_prompt(self.components.generators[values["generator"]])
            asked = (values["prompt"], values["passages"])
            mismatch = trained is not None and (trained != asked or values["retrieval"] == NEVER)
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
            return [writing.settings(), self.asked_by(writing).definition()["weights"]]
        if axis == "reranker":
            return None if value == NONE else self._with_references(self.components.rerankers[value])
        if axis == "retrieval":
            return [value.settings(), self.answer_metrics[self.select_by].key] if isinstance(value, Gate) else value
        if axis == "prompt":
            return self._resolved_template(self.template(value))
        if axis == "generator":
            generator = self.components.generators[value]
            named = generator.definition()
            lora = self._resolved_lora(generator.lora) if generator.lora else None
            return {"settings": named["settings"], "weights": named["weights"], "lora": lora}
        return value

    def _resolved_template(self, template: Template) -> Any:
        """Its settings, and what its solved questions come from."""
        if template.shots is None:
            return template.settings()
        base = self.base
        retriever = self._resolved_retriever(template.shots.retriever or base["retriever"])
        return [template.settings(), retriever, self.dropped(template.shots.leaks)]

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
        training = training_of(component)
        if training is None:
            return []
        base = self.base
        retriever = self._resolved_retriever(training.negatives_from or base["retriever"])
        return [[training.settings(), retriever, base["chunking"].settings(), *filter(None, [self.dropped(training.leaks)])]]

    def _resolved_lora(self, lora: Lora) -> list[Any]:
        base = self.base
        several = [self.settings.seeds] if self.settings.seeds > 1 else []
        return [
            *several,
            lora.settings(),
            self._resolved_template(self.template(lora.prompt or base["prompt"])),
            lora.passages or base["passages"],
            self._resolved_retriever(lora.distractors or base["retriever"]),
            (lora.chunking or base["chunking"]).settings(),
            *filter(None, [self.dropped(lora.leaks)]),
        ]
