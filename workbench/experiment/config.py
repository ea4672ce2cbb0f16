"""The experiment's YAML file, typed: whatever is misspelt or not allowed is refused here, before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from workbench.component import explain, no_truth
from workbench.data import columns as further
from workbench.data import labels, sources, splits
from workbench.data.dataset import Dataset
from workbench.data.documents.limits import Limits
from workbench.data.evidence import Missing, several
from workbench.data.forms import known, reading
from workbench.data.forms.hub import Hub
from workbench.data.readers import yaml_files
from workbench.data.readers.text import short
from workbench.errors import InputError, unknown
from workbench.evaluation import answers, rankings
from workbench.experiment.lora_lists import spelled_out
from workbench.machine import Machine, resolve

NONE = "none"  # the reranker, the expansion and the rewriting that does nothing
DEEPEST = 1_000_000  # passages of a ranking
SOURCES = ("name", "beir", "questions", "hub")  # of a dataset
# a setting of a dataset -> the sources that it belongs to
ASKED = ("questions", "hub")
BESIDE = {"folder": ASKED, "corpus": ASKED, "qrels": ("questions",), "form": ASKED, "columns": ASKED, "splits": ASKED}
BESIDE |= dict.fromkeys(("config", "revision", "split"), ("hub",))
FILES = ("beir", "folder", "questions", "corpus", "qrels", "labels")  # settings of a dataset that are files and folders
BASELINE = "baseline"  # what `names` calls the baseline by
ALWAYS, NEVER = "always", "never"  # of showing passages to the generator


class Settings(BaseModel):
    """Base of the file's sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: object, info: ValidationInfo) -> object:
        return no_truth(cls, value, str(info.field_name))


class DatasetSettings(Settings):
    """Which dataset, and what its splits are for.

    Attributes:
        name: a built-in dataset.
        beir: a folder in BEIR layout.
        folder: a folder of documents, with `questions` or `hub`.
        questions: a file of questions, on `folder` or with documents of their own; or a list of such files.
        corpus: a file of documents, where they are not in a folder.
        qrels: judgements in TREC's format on the documents.
        labels: a CSV file with the column ``query_id``; its others are further columns of the questions, for slices.
        hub: a set of questions of the Hugging Face hub, or a folder that `datasets` saved.
        config: one of the configurations of `hub`.
        revision: a commit, tag or branch of `hub`.
        split: one of the splits of `hub`, or a part such as ``validation[:100]``.
        form: of the questions, where their columns do not tell it.
        columns: what is read of a question -> the column that says it, e.g. ``{question: Prompt}``.
        splits: share of the questions that each split gets where they have none; ``{dev: 0.5, test: 0.5}`` if left out.
        parsers: what reads the files of `folder`, by the ending of their names, beside what is built in.
        limits: what each file of `folder` may take.
        missing: ``refuse`` a dataset much of whose evidence stands in no document, or ``drop`` these questions.
        train: split that LoRA learns from.
        select: split that the configuration is chosen on.
        report: split that figures are reported from.
        hold_out: share of the train split that becomes the split `select`, where the dataset has none.
        limit: at most so many queries of each split, or of each split named, e.g. ``{dev: 150, test: 500}``.
    """

    name: str | None = None
    beir: Path | None = None
    folder: Path | None = None
    questions: Path | tuple[Path, ...] | None = None
    corpus: Path | None = None
    qrels: Path | None = None
    labels: Path | None = None
    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    split: str | None = None
    form: str | None = None
    columns: dict[str, str] | None = None
    splits: dict[str, float] | None = None
    parsers: dict[str, str | dict[str, Any] | None] = {}
    limits: Limits = Limits()
    missing: Missing = "refuse"
    train: str = "train"
    select: str = "dev"
    report: str = "test"
    hold_out: float | None = Field(default=None, gt=0, lt=1)
    limit: PositiveInt | dict[str, PositiveInt] | None = None

    @field_validator("questions")
    @classmethod
    def _each_file_once(cls, value: Path | tuple[Path, ...] | None) -> Path | tuple[Path, ...] | None:
        files = several(value)
        if value is not None and not files:
            raise ValueError("received an empty list; allowed: a file, or a list of files")
        if twice := [str(path) for number, path in enumerate(files) if path in files[:number]]:
            raise ValueError(f"{twice[0]} is named twice; name each file once")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> DatasetSettings:
        given = [key for key in SOURCES if getattr(self, key) is not None]
        if self.folder is not None and not {"questions", "hub"} & {*given}:
            raise ValueError("folder and questions belong together; give both")
        if len(given) != 1:
            raise ValueError(f"received {' and '.join(given) or 'no source'}; allowed: exactly one of {', '.join(SOURCES)}")
        for key, needed in BESIDE.items():
            if getattr(self, key) is not None and given[0] not in needed:
                raise ValueError(f"{key} stands beside {' or '.join(needed)}, not beside {given[0]}; leave it away")
        if self.splits is not None:
            splits.checked(self.splits)
        if self.form is not None and self.form not in known.NAMES:
            raise ValueError(str(unknown("form", self.form, known.NAMES)))
        if self.folder is None and (self.parsers or self.limits != Limits()):
            raise ValueError("parsers and limits are about a folder; give a folder, or leave them away")
        if given[0] not in ASKED and self.missing == "drop":
            raise ValueError("missing is about evidence that is looked for in documents; give questions or hub, or leave it away")
        if self.select == self.report:
            raise ValueError(
                f"select and report are both {self.select!r}; choosing and reporting on one split flatters the winner"
            )
        if self.name is not None and self.name not in sources.BUILTIN:
            raise ValueError(str(unknown("dataset", self.name, sources.BUILTIN)))
        return self

    def moved(self, place: Path) -> DatasetSettings:
        """The same dataset at another place; questions lie where they lay from the folder of texts.

        Args:
            place: the folder in BEIR layout, or the folder of texts.

        Raises:
            InputError: it is a built-in dataset, or there is no such folder or questions file.
        """
        old = self.folder or self.beir or next((path.parent for path in self.question_files), None)
        if old is None:
            said = f"{self.name}, is built in" if self.name else f"{self.hub}, is on a hub"
            raise InputError(f"--dataset {place}: the run's dataset, {said}; leave the option away")

        def there(path: Path) -> Path:
            return (place / os.path.relpath(path, old)).resolve()

        files = {key: one for key in FILES if (one := getattr(self, key)) is not None}
        return self.model_copy(
            update={key: tuple(map(there, one)) if isinstance(one, tuple) else there(one) for key, one in files.items()}
        )

    def absent(self) -> Path | None:
        """The first of its files and folders that is not there, or None."""
        return next((path for key in FILES for path in several(getattr(self, key)) if not path.exists()), None)

    @property
    def question_files(self) -> tuple[Path, ...]:
        """The files of questions; none where they are elsewhere."""
        return several(self.questions)

    def load(self, columns: Sequence[str] = ()) -> Dataset:
        """Reads the dataset.

        Args:
            columns: further columns of the questions, as ``metrics.slices`` names them.

        Raises:
            InputError: it cannot be read, no question has one of the columns, or one has too many values.
        """
        labelled = labels.read(self.labels) if self.labels else None
        if labelled:
            dataset = self._read([name for name in columns if name not in labelled.columns])
            dataset = labelled.on(dataset, [name for name in columns if name in labelled.columns])
        else:
            dataset = self._read(columns)
        for name in columns:
            if (n := len(set(dataset.column(name).values()) - {None})) > further.MOST:
                raise InputError(
                    f"metrics.slices: the column {name!r} has {n:,} values; allowed: at most {further.MOST}, so that questions "
                    f"share them"
                )
        if self.hold_out:
            dataset = dataset.held_out(self.hold_out, self.train, self.select)
        if isinstance(self.limit, dict) and (strange := sorted(self.limit.keys() - dataset.splits.keys())):
            raise at("dataset.limit", unknown(f"split of {dataset.name}", strange[0], dataset.splits))
        return dataset.limited(self.limit) if self.limit else dataset

    def _read(self, columns: Sequence[str]) -> Dataset:
        """All of the source, with columns of its own."""
        if self.beir is not None:
            return sources.beir(self.beir, columns)
        if self.folder is not None and self.questions is not None and self.own_form:
            files = self.question_files
            return sources.text_folder(self.folder, files, columns, self.parsers, self.limits, self.missing)
        if self.questions is not None or self.hub is not None:
            return reading.read(self.source, columns)
        return sources.pydocs(columns)

    @property
    def source(self) -> reading.Source:
        """Where questions in a form of somebody else's, and their documents, are."""
        hub = None if self.hub is None else Hub(self.hub, self.config, self.revision, self.split)
        return reading.Source(
            self.question_files, hub, self.folder, self.corpus, self.qrels, self.form, self.columns or {}, self.splits,
            self.parsers, self.limits, self.missing,
        )  # fmt: skip

    @property
    def own_form(self) -> bool:
        """Whether the dataset is in one of the project's own forms: built in, a BEIR folder, or lines with a split each."""
        if self.name is not None or self.beir is not None:
            return True
        other = (self.corpus, self.qrels, self.form, self.columns, self.splits)
        return all(one is None for one in other) and self.questions is not None and all(map(reading.is_own, self.question_files))

    def further_columns(self, wanted: Container[str]) -> dict[str, dict[str, str]]:
        """Every further column of some questions, whether `load` was asked for it or not: query id -> column -> value.

        Raises:
            InputError: the file of questions cannot be read any more.
        """
        if not self.own_form:
            return reading.every(self.source, wanted)
        if self.beir is not None:
            return further.every(sources.beir_file(self.beir, "queries.jsonl"), wanted)
        files = self.question_files or (sources.PYDOCS_QUESTIONS,)
        return {name: cells for path in files for name, cells in further.every(path, wanted).items()}


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
        answers: metrics of answers, built-in ones by name; one's own as ``./file.py:function``, which takes the answer,
            the accepted answers and the passages shown, and returns a number from 0 to 1.
        matters: differences up to this size do not matter, in the metrics' own unit (0.02 is two points of 100): a run then says
            where it shows that. Without it, "not shown" is all it can say.
        slices: columns of the questions, e.g. ``[kind]``: results are told for the questions of each value as well.
    """

    select_by: str | None = None
    matters: float | None = Field(default=None, gt=0, lt=1)
    rankings: tuple[str, ...] = ("ndcg@10", "recall@10", "mrr@10")
    answers: tuple[str, ...] = tuple(answers.BUILTIN)
    slices: tuple[str, ...] | None = None  # None is not written to config.yaml

    @field_validator("slices")
    @classmethod
    def _slices_are_columns(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in value or ():
            if not name.strip():
                raise ValueError("a column's name is empty")
            if name in further.RESERVED:
                raise ValueError(f"{name!r} tells no kinds of questions apart; allowed: columns such as kind, language, source")
        return _once(value, "column") if value else None

    @field_validator("rankings")
    @classmethod
    def _rankings_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if _as_value_error(rankings.parse, name).cutoff > DEEPEST:
                raise ValueError(f"{name!r} looks further down than any ranking goes; allowed: cut-offs up to {DEEPEST:,}")
        return _once(value)

    @field_validator("answers")
    @classmethod
    def _answers_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in answers.BUILTIN and ":" not in name:
                raise ValueError(str(unknown("answer metric", name, [*answers.BUILTIN, "./file.py:function"])))
        # grounded alone would praise a generator that never answers
        _once(value)
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


class Budget(Settings):
    """What a run may spend at servers; it ends before it would spend more, and the same command goes on with a budget anew."""

    tokens: int | None = Field(default=None, ge=1)
    money: float | None = Field(default=None, gt=0)


def _one_line(value: str) -> str:
    if not value.strip() or len(value.splitlines()) > 1:
        raise ValueError("words in one line are needed")
    return value.strip()


Words = Annotated[str, AfterValidator(_one_line)]


class ExperimentSettings(Settings):
    """The whole file.

    `seed` is what everything random starts from. With `seeds` at 3 or more, every adapter is trained with as many seeds, `seed`
    being the first: its configurations' scores are means over these, and intervals cover the chance of training. What is
    served is the adapter of `seed`. `names` maps values of axes, such as names of components, to the words that people read.
    """

    experiment: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    dataset: DatasetSettings
    components: ComponentSettings = ComponentSettings()
    baseline: dict[str, Any] = {}
    axes: dict[str, list[Any]] = {}
    depth: int = Field(default=100, ge=1, le=DEEPEST)
    search: Search = Search()
    report: Report = Report()
    metrics: Metrics = Metrics()
    names: dict[str, Words] = {}
    seed: int = Field(default=0, ge=0, lt=2**32)
    seeds: int = Field(default=1, ge=1)
    machine: MachineSettings = MachineSettings()
    budget: Budget = Budget()

    @field_validator("seeds")
    @classmethod
    def _enough_seeds(cls, value: int) -> int:
        if value == 2:
            raise ValueError("2 seeds say next to nothing of how seeds differ; allowed: 1, or 3 and more")
        return value


def _once(value: tuple[str, ...], what: str = "metric") -> tuple[str, ...]:
    if twice := [name for i, name in enumerate(value) if name in value[:i]]:
        raise ValueError(f"the {what} {twice[0]!r} is named twice; name each once")
    return value


def _as_value_error(function: Any, *args: Any) -> Any:
    """Calls a function whose `InputError` pydantic shall report with the key's place."""
    try:
        return function(*args)
    except InputError as error:
        raise ValueError(str(error)) from error


def read_settings(
    path: Path,
    overrides: Sequence[str] = (),
    folder: Path | None = None,
    moved: Callable[[Any], Any] = lambda values: values,
) -> ExperimentSettings:
    """An experiment's file, checked as far as it can be by itself.

    Args:
        path: the YAML file.
        overrides: ``key.path=value`` texts that replace single values, the value in YAML.
        folder: what relative paths count from; default: the file's folder.
        moved: gives the file's values with files in place of others that are elsewhere now.

    Raises:
        InputError: no such file, unreadable YAML, an unknown key or a value that is not allowed.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"experiment file {path} is a folder; name the YAML file in it")
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise InputError(
            f"experiment file {path} does not exist; in {path.parent}: {', '.join(there) or 'no .yaml file'}; "
            "`workbench configs copy` writes the examples"
        )
    values = yaml_files.read(path)
    if not isinstance(values, dict):
        found = {type(None): "nothing, the file is empty", list: "a list"}.get(type(values), f"the value {short(str(values))}")
        raise InputError(f"{path}: received {found}; allowed: keys {', '.join(ExperimentSettings.model_fields)}")
    for override in overrides:
        _override(values, override)
    values = spelled_out(_absolute(moved(values), (folder or path.parent).resolve()))
    try:
        return ExperimentSettings.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path}: " + "; ".join(explain(ExperimentSettings, e, "") for e in error.errors())) from error


def _absolute(value: Any, folder: Path, key: str = "") -> Any:
    """The same settings with relative files made absolute, so that they still mean the same in the run's folder."""
    if isinstance(value, dict):
        # below `parsers` a key is the ending of a name, and what stands there names a class as `kind` does
        return {k: _absolute(v, folder, "kind" if key == "parsers" else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_absolute(v, folder, key) for v in value]
    if not isinstance(value, str) or Path(value).is_absolute() or not names_file(key, value):
        return value
    return str((folder / Path(value).expanduser()).resolve())


def names_file(key: str, value: str) -> bool:
    """Whether a setting is a path, or a class or function in a file: by its key, and by how it is written."""
    if key in FILES or (key == "prompt" and value.endswith(".yaml")):
        return True
    if key in ("kind", "answers"):
        return ".py:" in value
    return key in ("model", "name", "hub") and value.startswith((".", "~", "/"))


def _override(values: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--set received {text!r}; allowed: key.path=value, e.g. metrics.select_by=em")
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"--set {text!r}: {parent!r} is no section of the experiment's file")
    values[last] = yaml_files.parsed(value, f"--set {text!r}")


def at(where: str, error: InputError) -> InputError:
    """An error with the place in the file that it is about."""
    return InputError(f"{where}: {error}")
