"""The experiment's YAML file, typed and checked: whatever is misspelt, contradictory or unknown is refused here."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from workbench.component import Component, build, digest, explain, load_class
from workbench.data import sources
from workbench.data.chunking import Chunking
from workbench.data.dataset import Dataset
from workbench.errors import InputError, unknown
from workbench.evaluation import answers, rankings
from workbench.experiment.spelled import spelled_out
from workbench.machine import Machine, resolve
from workbench.models.generator import Generator
from workbench.retrieval import rerankers
from workbench.retrieval.embedders.base import AnyEmbedder
from workbench.retrieval.embedders.endpoint import EndpointEmbedder
from workbench.retrieval.embedding import Embedder
from workbench.retrieval.expansion import Expander
from workbench.retrieval.gate import Gate
from workbench.retrieval.learning import RankedTraining
from workbench.retrieval.rerankers.base import Reranker
from workbench.retrieval.rerankers.cross_encoder import CrossEncoder
from workbench.retrieval.rerankers.maxsim import MaxSim
from workbench.retrieval.retriever import Retriever
from workbench.retrieval.rewriting import Rewriter

RETRIEVERS = {
    "bm25": "workbench.retrieval.bm25:BM25",
    "dense": "workbench.retrieval.dense:Dense",
    "fusion": "workbench.retrieval.fusion:Fusion",
}
EXPANDERS = {
    "multi_query": "workbench.retrieval.expansion:MultiQuery",
    "hyde": "workbench.retrieval.expansion:HyDE",
}
REWRITERS = {"standalone": "workbench.retrieval.rewriting:Standalone"}
AXES = ("chunking", "rewriting", "expansion", "retriever", "reranker", "retrieval", "passages", "prompt", "generator")
GENERATION_AXES = ("retrieval", "passages", "prompt", "generator")
NONE = "none"  # the reranker, the expansion and the rewriting that does nothing
ALWAYS, NEVER = "always", "never"  # of showing passages to the generator
DEFAULTS: dict[str, Any] = {"chunking": {"words": 80, "overlap": 10}, "passages": 2, "prompt": "terse"}
DEFAULTS |= {"rewriting": NONE, "expansion": NONE, "reranker": NONE, "retrieval": ALWAYS}


class Settings(BaseModel):
    """Base of the file's sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetSettings(Settings):
    """Which dataset, and what its splits are for.

    Attributes:
        name: a built-in dataset.
        beir: a folder in BEIR layout.
        folder: a folder of text files, with `questions`.
        questions: JSON lines of questions on `folder`.
        train: split that LoRA learns from.
        select: split that the configuration is chosen on.
        report: split that figures are reported from.
        hold_out: share of the train split that becomes the split `select`, where the dataset has none.
        limit: at most so many queries of each split, or of each split named, e.g. ``{dev: 150, test: 500}``.
    """

    name: str | None = None
    beir: Path | None = None
    folder: Path | None = None
    questions: Path | None = None
    train: str = "train"
    select: str = "dev"
    report: str = "test"
    hold_out: float | None = Field(default=None, gt=0, lt=1)
    limit: PositiveInt | dict[str, PositiveInt] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> DatasetSettings:
        given = [key for key in ("name", "beir", "folder") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"received {' and '.join(given) or 'no source'}; allowed: exactly one of name, beir, folder")
        if (self.folder is None) != (self.questions is None):
            raise ValueError("folder and questions belong together; give both")
        if self.select == self.report:
            raise ValueError(
                f"select and report are both {self.select!r}; choosing and reporting on one split flatters the winner"
            )
        if self.name is not None and self.name not in sources.BUILTIN:
            raise ValueError(str(unknown("dataset", self.name, sources.BUILTIN)))
        return self

    def load(self) -> Dataset:
        """Reads the dataset."""
        if self.beir is not None:
            dataset = sources.beir(self.beir)
        elif self.folder is not None:
            dataset = sources.text_folder(self.folder, self.questions)
        else:
            dataset = sources.pydocs()
        if self.hold_out:
            dataset = dataset.held_out(self.hold_out, self.train, self.select)
        if isinstance(self.limit, dict) and (strange := sorted(self.limit.keys() - dataset.splits.keys())):
            raise _at("dataset.limit", unknown(f"split of {dataset.name}", strange[0], dataset.splits))
        return dataset.limited(self.limit) if self.limit else dataset


class ComponentSettings(Settings):
    """Components by the names that the axes use. Values are resolved to `Component` objects by `Experiment`."""

    embedders: dict[str, dict[str, Any]] = {}
    retrievers: dict[str, dict[str, Any]] = {}
    rewriters: dict[str, dict[str, Any]] = {}
    expanders: dict[str, dict[str, Any]] = {}
    rerankers: dict[str, dict[str, Any]] = {}
    generators: dict[str, dict[str, Any]] = {}

    @field_validator("rewriters", "expanders", "rerankers")
    @classmethod
    def _none_is_taken(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if NONE in value:
            raise ValueError(f"the name {NONE!r} stands for no {str(info.field_name)[:-1]}; choose another")
        return value


class Search(Settings):
    """How the space of configurations is searched on the selection split.

    Attributes:
        strategy: ``grid`` measures all; ``greedy`` decides axis by axis, from the baseline; ``racing`` measures all on growing
            samples of the questions and drops those clearly behind.
        order: in which ``greedy`` decides the axes: ``models first`` or ``file``.
    """

    strategy: Literal["grid", "greedy", "racing"] = "grid"
    order: Literal["models first", "file"] = "models first"


class Report(Settings):
    """Which configurations are measured on the report split: the finalists, or all."""

    of: Literal["finalists", "all"] = "finalists"


class Metrics(Settings):
    """What is measured.

    Attributes:
        select_by: the metric that chooses; default: ``f1`` with a generator, else the first ranking metric.
        rankings: metrics of rankings, e.g. ``ndcg@10``, ``recall@300w``.
        answers: metrics of answers.
    """

    select_by: str | None = None
    rankings: tuple[str, ...] = ("ndcg@10", "recall@10", "mrr@10")
    answers: tuple[str, ...] = ("f1", "em", "contains", "grounded", "abstained")

    @field_validator("rankings")
    @classmethod
    def _rankings_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            _as_value_error(rankings.parse, name)
        return value

    @field_validator("answers")
    @classmethod
    def _answers_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in answers.NAMES:
                raise ValueError(str(unknown("answer metric", name, answers.NAMES)))
        # grounded alone would praise a generator that never answers
        return (*value, "abstained") if "grounded" in value and "abstained" not in value else value


class MachineSettings(Settings):
    """What to compute with; see `workbench.machine.resolve`. None of it but the precisions changes results."""

    device: str = "auto"
    batch_size: int | str = "auto"
    precision: str = "auto"
    training: str = "auto"
    index: str = "auto"

    def resolve(self) -> Machine:
        """The machine these settings mean here."""
        return resolve(self.device, self.precision, self.batch_size, self.index, self.training)


class ExperimentSettings(Settings):
    """The whole file.

    `seed` is what everything random starts from. With `seeds` at 3 or more, every adapter is trained with as many seeds, `seed`
    being the first: its configurations' scores are means over these, and intervals cover the chance of training. What is
    served is the adapter of `seed`.
    """

    experiment: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    dataset: DatasetSettings
    components: ComponentSettings = ComponentSettings()
    baseline: dict[str, Any] = {}
    axes: dict[str, list[Any]] = {}
    depth: int = Field(default=100, ge=1)
    search: Search = Search()
    report: Report = Report()
    metrics: Metrics = Metrics()
    seed: int = Field(default=0, ge=0)
    seeds: int = Field(default=1, ge=1)
    machine: MachineSettings = MachineSettings()

    @field_validator("seeds")
    @classmethod
    def _enough_seeds(cls, value: int) -> int:
        if value == 2:
            raise ValueError("2 seeds say next to nothing of how seeds differ; allowed: 1, or 3 and more")
        return value


def _as_value_error(function: Any, *args: Any) -> Any:
    """Calls a function whose `InputError` pydantic shall report with the key's place."""
    try:
        return function(*args)
    except InputError as error:
        raise ValueError(str(error)) from error


class Components:
    """The components of a file, built, with the names they refer to each other by checked."""

    def __init__(self, settings: ComponentSettings, folder: Path) -> None:
        where = "components"
        self.embedders = {n: _embedder(v, f"{where}.embedders.{n}") for n, v in settings.embedders.items()}
        self.retrievers: dict[str, Retriever] = {
            n: _build_kind(Retriever, v, f"{where}.retrievers.{n}", folder, _retriever_class)
            for n, v in settings.retrievers.items()
        }
        self.rewriters: dict[str, Rewriter] = {
            n: _build_kind(Rewriter, v, f"{where}.rewriters.{n}", folder, _rewriter_class) for n, v in settings.rewriters.items()
        }
        self.expanders: dict[str, Expander] = {
            n: _build_kind(Expander, v, f"{where}.expanders.{n}", folder, _expander_class) for n, v in settings.expanders.items()
        }
        self.rerankers: dict[str, Reranker] = {
            n: _build_kind(Reranker, v, f"{where}.rerankers.{n}", folder, _reranker_class) for n, v in settings.rerankers.items()
        }
        self.generators = {n: build(Generator, v, f"{where}.generators.{n}") for n, v in settings.generators.items()}
        self._check_references()
        self._check_servers()

    def references(self, component: Component) -> dict[str, Component]:
        """The components that a component's fields name, by field."""
        named = {"embedder": self.embedders, "generator": self.generators}
        return {field: those[getattr(component, field)] for field, those in named.items() if field in component.references}

    def _check_references(self) -> None:
        families = (
            ("rewriters", self.rewriters),
            ("retrievers", self.retrievers),
            ("expanders", self.expanders),
            ("rerankers", self.rerankers),
        )
        for family, named in families:
            for name, component in named.items():
                for field, those in (("embedder", self.embedders), ("generator", self.generators)):
                    if field in component.references and getattr(component, field) not in those:
                        where = f"components.{family}.{name}.{field}"
                        raise _at(where, unknown(field, getattr(component, field), those))
        for family, named in (("embedders", self.embedders), ("rerankers", self.rerankers)):
            for name, component in named.items():
                training = training_of(component)
                if training and training.negatives_from and training.negatives_from not in self.retrievers:
                    where = f"components.{family}.{name}.train.negatives_from"
                    raise _at(where, unknown("retriever", training.negatives_from, self.retrievers))
        for name, retriever in self.retrievers.items():
            self._check_fusion(name, retriever, ())
        for name, generator in self.generators.items():
            distractors = generator.lora and generator.lora.distractors
            if distractors and distractors not in self.retrievers:
                raise _at(f"components.generators.{name}.lora.distractors", unknown("retriever", distractors, self.retrievers))

    def _check_servers(self) -> None:
        """Two servers' vectors under one definition would be taken for the same."""
        seen: dict[str, tuple[str, str]] = {}
        for name, one in self.embedders.items():
            if isinstance(one, EndpointEmbedder):
                other, endpoint = seen.setdefault(digest(one.definition()), (name, one.endpoint))
                if endpoint != one.endpoint:
                    raise InputError(
                        f"components.embedders.{name}: {one.model!r} is served at {one.endpoint} and, as {other}, at {endpoint}; "
                        f"give each a revision, since nothing else tells their vectors apart"
                    )
        for name, reranker in self.rerankers.items():
            named = self.embedders[reranker.embedder] if isinstance(reranker, MaxSim) else None
            if isinstance(named, EndpointEmbedder):
                raise InputError(
                    f"components.rerankers.{name}.embedder: a server gives one vector for a text, and {reranker.kind} compares "
                    f"tokens; name an embedder with weights"
                )

    def _check_fusion(self, name: str, retriever: Retriever, above: tuple[str, ...]) -> None:
        for part in getattr(retriever, "of", ()):
            where = f"components.retrievers.{name}.of"
            if part not in self.retrievers:
                raise _at(where, unknown("retriever", part, self.retrievers))
            if part in (*above, name):
                raise InputError(f"{where}: {part!r} is fused with itself")
            self._check_fusion(part, self.retrievers[part], (*above, name))


def _embedder(values: dict[str, Any], where: str) -> AnyEmbedder:
    """Weights here, or a server's."""
    return build(EndpointEmbedder if "endpoint" in values else Embedder, values, where)


def training_of(component: Component) -> RankedTraining | None:
    """How an embedder or a reranker is trained on the train split, or None."""
    return component.train if isinstance(component, (Embedder, CrossEncoder)) else None


def _at(where: str, error: InputError) -> InputError:
    return InputError(f"{where}: {error}")


def _build_kind(base: type, values: Any, where: str, folder: Path, find: Any) -> Any:
    if not isinstance(values, dict) or "kind" not in values:
        raise InputError(f"{where}: the key 'kind' is required; it names the class, e.g. {{kind: bm25}}")
    kind = str(values["kind"])
    if ":" in kind:
        cls = load_class(kind, base, folder)
    else:
        try:
            cls = find(kind)
        except InputError as error:
            raise _at(f"{where}.kind", error) from error
    return build(cls, values, where)


def _retriever_class(kind: str) -> type[Retriever]:
    if kind not in RETRIEVERS:
        raise unknown("kind of retriever", kind, [*RETRIEVERS, "./file.py:Class", "package.module:Class"])
    return load_class(RETRIEVERS[kind], Retriever)


def _rewriter_class(kind: str) -> type[Rewriter]:
    if kind not in REWRITERS:
        raise unknown("kind of rewriter", kind, [*REWRITERS, "./file.py:Class", "package.module:Class"])
    return load_class(REWRITERS[kind], Rewriter)


def _expander_class(kind: str) -> type[Expander]:
    if kind not in EXPANDERS:
        raise unknown("kind of expander", kind, [*EXPANDERS, "./file.py:Class", "package.module:Class"])
    return load_class(EXPANDERS[kind], Expander)


def _reranker_class(kind: str) -> type[Reranker]:
    kinds = sorted(m.name for m in pkgutil.iter_modules(rerankers.__path__) if m.name != "base")
    if kind not in kinds:
        raise unknown("kind of reranker", kind, [*kinds, "./file.py:Class", "package.module:Class"])
    module = importlib.import_module(f"workbench.retrieval.rerankers.{kind}")
    return next(
        c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Reranker) and c.__module__ == module.__name__
    )


def read_settings(path: Path, overrides: Sequence[str] = ()) -> ExperimentSettings:
    """An experiment's file, checked as far as it can be by itself.

    Args:
        path: the YAML file; relative paths in it count from its folder.
        overrides: ``key.path=value`` texts that replace single values, the value in YAML.

    Raises:
        InputError: no such file, unreadable YAML, an unknown key or a value that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise InputError(f"experiment file {path} does not exist; in {path.parent}: {', '.join(there) or 'no .yaml file'}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: received {type(values).__name__}; allowed: keys {', '.join(ExperimentSettings.model_fields)}")
    for override in overrides:
        _override(values, override)
    values = spelled_out(_absolute(values, path.parent.resolve()))
    try:
        return ExperimentSettings(**values)
    except ValidationError as error:
        raise InputError(f"{path}: " + "; ".join(explain(ExperimentSettings, e, "") for e in error.errors())) from error


def _absolute(value: Any, folder: Path, key: str = "") -> Any:
    """The same settings with relative files made absolute, so that they still mean the same in the run's folder."""
    if isinstance(value, dict):
        return {k: _absolute(v, folder, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_absolute(v, folder, key) for v in value]
    if not isinstance(value, str) or Path(value).is_absolute():
        return value
    if key in ("beir", "folder", "questions") or (key == "prompt" and value.endswith(".yaml")):
        return str((folder / value).resolve())
    if (key == "kind" and ".py:" in value) or (key in ("model", "name") and value.startswith(".")):
        return str((folder / value).resolve())
    return value


def _override(values: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--set received {text!r}; allowed: key.path=value, e.g. metrics.select_by=em")
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"--set {text!r}: {parent!r} is no section of the experiment's file")
    values[last] = yaml.safe_load(value)


def axes_of(settings: ExperimentSettings, components: Components) -> dict[str, list[Any]]:
    """Values of every axis that the experiment has, defaults filled in; names and forms checked.

    Without generators the axes `passages`, `prompt` and `generator` do not exist.
    """
    for section in ("axes", "baseline"):
        for key in getattr(settings, section):
            if key not in AXES:
                raise _at(section, unknown("axis", key, AXES))
    generating = "generator" in settings.axes or "generator" in settings.baseline
    used = AXES if generating else tuple(a for a in AXES if a not in GENERATION_AXES)
    if not generating and (extra := [a for a in GENERATION_AXES if a in settings.axes or a in settings.baseline]):
        raise InputError(f"axes: {extra[0]!r} was given without 'generator'; without one only rankings are compared")
    axes = {}
    for axis in used:
        values = settings.axes.get(axis)
        if values is None:
            values = [settings.baseline[axis]] if axis in settings.baseline else [_default(axis, components)]
        if not values:
            raise InputError(f"axes.{axis}: the list is empty; give at least one value or leave the axis out")
        axes[axis] = [_axis_value(axis, value, components, f"axes.{axis}") for value in values]
        if len({str(v) for v in axes[axis]}) < len(axes[axis]):
            raise InputError(f"axes.{axis}: a value is given twice: {values}")
    return axes


def _default(axis: str, components: Components) -> Any:
    if axis in DEFAULTS:
        return DEFAULTS[axis]
    named = components.retrievers if axis == "retriever" else components.generators
    if not named:
        raise InputError(f"components.{axis}s: none is defined; an experiment needs at least one {axis}")
    return next(iter(named))


def axis_value(axis: str, value: Any, components: Components) -> Any:
    """One value of an axis, checked: a `Chunking`, a `Gate`, a number, or a name."""
    return _axis_value(axis, value, components, f"baseline.{axis}")


def _axis_value(axis: str, value: Any, components: Components, where: str) -> Any:
    if axis == "chunking":
        if value == "whole":
            return Chunking(words=None, overlap=0)
        if not isinstance(value, dict):
            raise InputError(f"{where}: received {value!r}; allowed: whole, or {{words: 80, overlap: 10}}")
        return build(Chunking, value, where)
    if axis == "retrieval":
        return _retrieval(value, where)
    if axis == "passages":
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{where}: received {value!r}; allowed: a whole number from 1")
        return value
    if axis == "prompt":
        return str(value)
    named = {
        "rewriting": components.rewriters,
        "expansion": components.expanders,
        "retriever": components.retrievers,
        "reranker": components.rerankers,
        "generator": components.generators,
    }[axis]
    optional = axis in ("rewriting", "expansion", "reranker")
    if optional and value in (NONE, None):
        return NONE
    if value not in named:
        raise _at(where, unknown(axis, value, [*named, NONE] if optional else named))
    return value


def _retrieval(value: Any, where: str) -> str | Gate:
    if value in (ALWAYS, NEVER):
        return value
    if not isinstance(value, dict):
        raise InputError(f"{where}: received {value!r}; allowed: {ALWAYS}, {NEVER}, or {{when: top_score}}, {{when: margin}}")
    return build(Gate, value, where)


def check_metrics(settings: ExperimentSettings, axes: dict[str, list[Any]]) -> str:
    """The metric that selects, after refusing contradictory ones.

    Raises:
        InputError: a metric that nothing computes here, `grounded` chosen to select, or `@k` metrics across chunkings.
    """
    generating = "generator" in axes
    names = [*settings.metrics.rankings, *(settings.metrics.answers if generating else ())]
    select_by = settings.metrics.select_by or ("f1" if generating else settings.metrics.rankings[0])
    if select_by in answers.NOT_FOR_SELECTION:
        raise InputError(
            f"metrics.select_by: {select_by!r} would choose a generator that never answers; allowed: f1, em, contains"
        )
    if select_by not in names:
        raise _at("metrics.select_by", unknown("metric", select_by, [n for n in names if n not in answers.NOT_FOR_SELECTION]))
    retrieval = [*axes.get("retrieval", ()), settings.baseline.get("retrieval", ALWAYS)]
    if any(value != ALWAYS for value in retrieval) and select_by not in answers.NAMES:
        raise InputError(
            f"metrics.select_by: {select_by!r} measures rankings, whether their passages are shown or not, but axes.retrieval "
            f"decides on showing them; allowed: f1, em, contains"
        )
    if len(axes["chunking"]) > 1:
        for name in settings.metrics.rankings:
            if not rankings.parse(name).in_words:
                raise InputError(
                    f"metrics.rankings: {name!r} cannot be compared across {len(axes['chunking'])} chunkings, since "
                    f"larger passages hold more of everything; allowed: cut-offs in words read, e.g. recall@300w"
                )
    return select_by
