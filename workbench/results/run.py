"""`Run`: the folder of a finished run, its tables and what they say."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from workbench.component import file_digest
from workbench.data.readers import json_lines, yaml_files
from workbench.data.readers.json_lines import Record
from workbench.data.readers.text import whole
from workbench.errors import InputError, unknown
from workbench.evaluation.search import SearchStep
from workbench.results import example, table_files, tables, words
from workbench.results.display import Displayed, opened
from workbench.results.lines import PassageRecord, QuestionRecord, RankingRecord
from workbench.results.records import AnswerRecord, Manifest, Promotion, SettingsRecord
from workbench.results.rows import (
    ComparisonRow,
    ConfigurationRow,
    CostRow,
    EffectRow,
    FinalistRow,
    IndexRow,
    InteractionRow,
    LatencyRow,
    LeaderboardRow,
    QueryRow,
    ResultRow,
    RetrievalRow,
    SeedRow,
    SelectionRow,
    SliceRow,
    TimingRow,
    TrainingRow,
)

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R", bound=NamedTuple)
M = TypeVar("M", bound=Record)

MANIFEST = "manifest.json"
FORMAT = 1  # of a run's folder
PROMOTED = "promoted.yaml"
CONFIG = "config.yaml"
ANSWERS = "answers.jsonl"
QUESTIONS = "questions.jsonl"
PASSAGES = "passages.jsonl"
RANKINGS = "rankings.jsonl"
# the tables of a run, by the names that `Run.frame` takes; file names are the same with .csv
TABLES: Mapping[str, type[NamedTuple]] = {
    "results": ResultRow,
    "seeds": SeedRow,
    "leaderboard": LeaderboardRow,
    "comparisons": ComparisonRow,
    "effects": EffectRow,
    "interactions": InteractionRow,
    "finalists": FinalistRow,
    "slices": SliceRow,
    "search": SearchStep,
    "selection": SelectionRow,
    "queries": QueryRow,
    "retrieval": RetrievalRow,
    "timings": TimingRow,
    "training": TrainingRow,
    "costs": CostRow,
    "latency": LatencyRow,
    "indexes": IndexRow,
}
# keys of a manifest without which nothing can be shown or served, with their types
SHAPE = {"experiment": str, "baseline": str, "notes": list, "select": dict, "report": dict, "dataset": dict, "machine": dict}
SHAPE |= {"libraries": dict, "files": dict}
# tables that not every run has, and what writes them
LATER = {
    "latency": "`workbench latency {}` writes it",
    "indexes": "`workbench index check {}` writes it",
    "slices": "name columns of the questions under metrics.slices in the experiment's file and run it again",
}

# what a run without a file that every run has is told
OLDER = (
    "an earlier version of the workbench wrote this run, or its folder is incomplete; run the experiment again, which writes it "
    "and costs nothing, since the store has all that was computed"
)


class Comparisons(list[ComparisonRow], Displayed):
    """Rows of comparisons.csv, which a notebook shows as a table in words."""

    def __init__(self, run: Run, rows: Iterable[ComparisonRow]) -> None:
        super().__init__(rows)
        self.run = run

    def __repr__(self) -> str:
        return f"{len(self):,} comparisons of {self.run}"


class Questions(list[QuestionRecord], Displayed):
    """Lines of questions.jsonl, which a notebook shows with the answers of the chosen setup and of the baseline."""

    def __init__(self, run: Run, rows: Iterable[QuestionRecord]) -> None:
        super().__init__(rows)
        self.run = run

    def __repr__(self) -> str:
        return f"{len(self):,} questions of {self.run}"


class Run(Displayed):
    """A finished run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest = _manifest(self.folder)

    def __repr__(self) -> str:
        return f"Run {self.folder}"

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Opens a run.

        Raises:
            InputError: no such folder, a run that was not finished, or one whose manifest is damaged.
        """
        folder = Path(folder)
        if folder.is_file():
            raise InputError(f"run {folder} is a file; name the folder of a run")
        if not folder.is_dir():
            raise InputError(f"run {folder} does not exist; `workbench run CONFIG` makes one")
        if not (folder / MANIFEST).is_file():
            raise InputError(
                f"{folder} holds no {MANIFEST}: it is no run, or one that was not finished; run the experiment again"
            )
        return cls(folder)

    @classmethod
    def latest(cls, runs: str | Path, experiment: str | None = None) -> Run:
        """The newest finished run below a folder.

        Args:
            runs: folder of all runs.
            experiment: only runs of this experiment; default: of any.

        Raises:
            InputError: there is none.
        """
        found = sorted(finished(runs, experiment), key=lambda folder: (folder.name, str(folder)))
        if not found:
            raise InputError(f"no finished run of {experiment or 'any experiment'} in {runs}; `workbench run CONFIG` makes one")
        return cls.open(found[-1])

    @classmethod
    def example(cls) -> Run:
        """The recorded run that comes with the package: a run of the quickstart, to look at without computing one.

        Raises:
            InputError: it cannot be unpacked.
        """
        return cls.open(example.unpacked())

    def frame(self, table: str) -> pd.DataFrame:
        """A table of the run as a pandas frame, a row for each of its rows; axes of configurations are columns.

        Args:
            table: ``configurations``, or a name of `TABLES`: ``leaderboard``, ``comparisons``, ``effects``, ``results``, ...

        Raises:
            InputError: no such table, or one that was not written.
        """
        if table == "configurations":
            return table_files.frame(self.configurations)
        if table not in TABLES:
            raise unknown("table", table, ["configurations", *TABLES])
        if table in LATER and not (self.folder / f"{table}.csv").is_file():
            way_out = LATER[table].format(shlex.quote(str(self.folder)))
            raise InputError(f"{self.folder} holds no {table}.csv; {way_out}")
        if table == "training":
            self._refuse_missing("training.csv")
        return table_files.frame(self._table(table, TABLES[table]), TABLES[table]._fields)

    def _table(self, name: str, kind: type[R]) -> list[R]:
        rows = table_files.read(self.folder / f"{name}.csv", kind)
        self._check_unchanged(f"{name}.csv")
        return rows

    def _check_unchanged(self, name: str) -> None:
        """Refuses a table that is no longer what the run wrote: one cut off between two lines would read well."""
        path, written = self.folder / name, self.manifest["files"].get(name)
        if written and file_digest(path) != written:
            raise InputError(f"{path} is not what the run wrote: it is damaged or was edited; run the experiment again")

    def _later(self, name: str, kind: type[R]) -> list[R]:
        """A table that not every run has; no rows where it was not written."""
        file = f"{name}.csv"
        return self._table(name, kind) if file in self.manifest["files"] or (self.folder / file).is_file() else []

    def _refuse_missing(self, name: str) -> None:
        """Refuses what runs of earlier versions lack."""
        if not (self.folder / name).is_file():
            raise InputError(f"{self.folder} holds no {name}: {OLDER}")

    def _records(self, name: str, kind: type[M]) -> list[M]:
        """The lines of a file, each checked.

        Raises:
            InputError: the file is missing or damaged; the message names the line where one is no `kind`.
        """
        self._refuse_missing(name)
        try:
            rows = [row for _, row in json_lines.records(self.folder / name, kind)]
        except InputError as error:
            raise InputError(f"{error}; run the experiment again") from error
        self._check_unchanged(name)
        return rows

    @cached_property
    def configurations(self) -> list[ConfigurationRow]:
        """Rows of configurations.csv."""
        rows = table_files.read_configurations(self.folder / "configurations.csv")
        self._check_unchanged("configurations.csv")
        return rows

    @cached_property
    def labels(self) -> dict[str, str]:
        """Configuration id -> label."""
        return {row.configuration: row.label for row in self.configurations}

    @property
    def runs(self) -> Path:
        """The folder of runs that this one lies in, whose store it was computed into."""
        last = self.folder.parts[-2:]
        whole_path = self.folder if len(last) == 2 and ".." not in last else self.folder.resolve()  # such as `.`
        return whole_path.parent.parent

    @cached_property
    def settings(self) -> SettingsRecord:
        """The experiment's file with every default filled in; empty where the folder lacks it.

        Raises:
            InputError: it is damaged.
        """
        path = self.folder / CONFIG
        if path.is_file():
            self._check_unchanged(CONFIG)
        found: SettingsRecord = yaml_files.read(path) if path.is_file() else {}
        if not isinstance(found, dict):
            raise InputError(f"{path} holds no settings; run the experiment again")
        return found

    @property
    def config(self) -> str:
        """The text of the experiment's file with every default filled in; empty where the folder lacks it.

        Raises:
            InputError: it cannot be read, or is not what the run wrote.
        """
        path = self.folder / CONFIG
        if not path.is_file():
            return ""
        self._check_unchanged(CONFIG)
        return whole(path)

    @property
    def matters(self) -> float | None:
        """The difference below which the experiment's file says that none matters, or None where it says nothing."""
        found = self.settings.get("metrics", {}).get("matters")
        return float(found) if isinstance(found, int | float) else None

    @property
    def today(self) -> str:
        """What the baseline is called: as the experiment's file names it, else ``today's setup``."""
        return self.settings.get("names", {}).get("baseline") or words.TODAY

    @cached_property
    def names(self) -> dict[str, str]:
        """Configuration id -> what it is, in plain words; see `workbench.results.words.plain_names`."""
        return words.plain_names(self.configurations, self.settings)

    @cached_property
    def leaderboard(self) -> list[LeaderboardRow]:
        """Rows of leaderboard.csv."""
        return self._table("leaderboard", LeaderboardRow)

    @cached_property
    def comparisons(self) -> Comparisons:
        """Rows of comparisons.csv."""
        return Comparisons(self, self._table("comparisons", ComparisonRow))

    @cached_property
    def effects(self) -> list[EffectRow]:
        """Rows of effects.csv."""
        return self._table("effects", EffectRow)

    @cached_property
    def interactions(self) -> list[InteractionRow]:
        """Rows of interactions.csv."""
        return self._table("interactions", InteractionRow)

    @cached_property
    def finalists(self) -> list[FinalistRow]:
        """Rows of finalists.csv."""
        return self._table("finalists", FinalistRow)

    @cached_property
    def slices(self) -> list[SliceRow]:
        """Rows of slices.csv, or none where the experiment's file names no columns under ``metrics.slices``."""
        return self._later("slices", SliceRow)

    @cached_property
    def selection(self) -> SelectionRow:
        """The row of selection.csv: how much choosing the winner flattered it."""
        return self._table("selection", SelectionRow)[0]

    @property
    def costs(self) -> list[CostRow]:
        """Rows of costs.csv, or none of a run of an earlier version."""
        return self._later("costs", CostRow)

    @property
    def latency(self) -> list[LatencyRow]:
        """Rows of latency.csv, or none where `workbench latency` was not called."""
        return self._later("latency", LatencyRow)

    @property
    def indexes(self) -> list[IndexRow]:
        """Rows of indexes.csv, or none where `workbench index check` was not called."""
        return self._later("indexes", IndexRow)

    @cached_property
    def search(self) -> list[SearchStep]:
        """Rows of search.csv, in the order of the looks; none for the whole grid."""
        return self._table("search", SearchStep)

    @cached_property
    def shown(self) -> list[RetrievalRow]:
        """Rows of retrieval.csv: how many questions were answered without passages."""
        return self._table("retrieval", RetrievalRow)

    @cached_property
    def axes(self) -> list[str]:
        """Axes of the experiment, in the order in which a question passes them."""
        return list(self.configurations[0].values)

    @cached_property
    def results(self) -> list[ResultRow]:
        """Rows of results.csv."""
        return self._table("results", ResultRow)

    @cached_property
    def seeds(self) -> list[SeedRow]:
        """Rows of seeds.csv: scores under each seed, of configurations measured with several."""
        return self._table("seeds", SeedRow)

    @property
    def answers(self) -> list[AnswerRecord]:
        """Lines of answers.jsonl; none of an experiment that only ranks passages.

        Raises:
            InputError: the file is damaged.
        """
        return list(self._answers())

    def answers_of(self, split: str, configurations: Collection[str]) -> list[AnswerRecord]:
        """Lines of answers.jsonl of some configurations on a split; the others are not kept in memory.

        Args:
            split: of the questions.
            configurations: ids.

        Raises:
            InputError: as `answers`.
        """
        return [row for row in self._answers() if row["split"] == split and row["configuration"] in configurations]

    def _answers(self) -> Iterator[AnswerRecord]:
        self._check_unchanged(ANSWERS)
        for where, row in json_lines.objects(self.folder / ANSWERS):
            if not isinstance(row, dict) or AnswerRecord.__required_keys__ - row.keys():
                raise InputError(f"{where} is no answer of a run; run the experiment again")
            yield cast(AnswerRecord, row)

    @cached_property
    def questions(self) -> Questions:
        """Lines of questions.jsonl: what was asked, what is accepted, and where the evidence stands.

        Raises:
            InputError: the file is damaged, or the run is of an earlier version and lacks it.
        """
        return Questions(self, self._records(QUESTIONS, QuestionRecord))

    @cached_property
    def passages(self) -> dict[str, PassageRecord]:
        """Id -> line of passages.jsonl; `workbench.results.records.passage_id` gives the id of a passage of an answer.

        Raises:
            InputError: as `questions`.
        """
        return {row.id: row for row in self._records(PASSAGES, PassageRecord)}

    @cached_property
    def rankings(self) -> list[RankingRecord]:
        """Lines of rankings.jsonl; `ranking_of` says which are a configuration's.

        Raises:
            InputError: as `questions`.
        """
        return self._records(RANKINGS, RankingRecord)

    @cached_property
    def training(self) -> list[TrainingRow]:
        """Rows of training.csv: losses of each training, step by step; none where nothing was trained.

        Raises:
            InputError: as `questions`.
        """
        self._refuse_missing("training.csv")
        return self._table("training", TrainingRow)

    def ranking_of(self, configuration: str) -> str | None:
        """The id in rankings.jsonl of a configuration's ranking; None where it never shows passages."""
        return next((row.keys.get("ranking") for row in self.configurations if row.configuration == configuration), None)

    @property
    def select(self) -> tuple[str, str]:
        """Split and metric that choose."""
        return self.manifest["select"]["split"], self.manifest["select"]["metric"]

    @property
    def report_split(self) -> str:
        """Split that figures are reported from."""
        return self.manifest["report"]["split"]

    def row(self, configuration: str, split: str, metric: str) -> LeaderboardRow | None:
        """A configuration's row of the leaderboard, or None where it was not measured."""
        return next((row for row in self.leaderboard if row[:3] == (configuration, split, metric)), None)

    @property
    def best(self) -> str:
        """The configuration with the highest mean on the selection split; equal means: the lowest id."""
        return self.best_row.configuration

    @property
    def best_row(self) -> LeaderboardRow:
        """The row of `best` on the selection split, by the metric that chooses."""
        rows = [row for row in self.leaderboard if (row.split, row.metric) == self.select]
        return min(rows, key=lambda row: (-row.mean, row.configuration))

    @cached_property
    def queries(self) -> list[QueryRow]:
        """Rows of queries.csv."""
        return self._table("queries", QueryRow)

    def scores(self, split: str, metric: str) -> tables.Scores:
        """Every score of one split by one metric.

        Raises:
            InputError: the run did not measure that.
        """
        rows = [row for row in self.results if (row.split, row.metric) == (split, metric)]
        if not rows:
            measured = sorted({f"{row.metric} on {row.split}" for row in self.leaderboard})
            raise unknown(f"scores in {self.folder}:", f"{metric} on {split}", measured)
        groups = {row.query_id: row.group for row in self.queries if row.split == split}
        seeds = [row for row in self.seeds if (row.split, row.metric) == (split, metric)]
        return tables.matrices(rows, groups, seeds)[0]

    def comparison(self, a: str, b: str, split: str, metric: str) -> ComparisonRow | None:
        """The row of comparisons.csv on two configurations, turned so that the difference is a - b.

        Args:
            a: id of the first configuration.
            b: id of the second.
            split: the split they were measured on.
            metric: the metric they were measured by.

        Returns:
            None where they were not compared.
        """
        for row in self.comparisons:
            if (row.split, row.metric) == (split, metric) and {row.a, row.b} == {a, b}:
                return row if row.a == a else row.turned()
        return None

    @property
    def promoted(self) -> Promotion | None:
        """What promoted.yaml says, or None."""
        path = self.folder / PROMOTED
        if not path.is_file():
            return None
        said = f"`workbench promote {shlex.quote(str(self.folder))}` writes it anew"
        try:
            promoted: Promotion = yaml_files.read(path)
        except InputError as error:
            raise InputError(f"{error}; {said}") from error
        if not isinstance(promoted, dict) or promoted.get("configuration") not in self.labels:
            raise InputError(f"{path} names no configuration of this run under the key 'configuration'; {said}")
        return promoted

    def promote(self, configuration: str | None = None) -> Promotion:
        """Marks a configuration as the one to serve: the best on the selection split, or the one named.

        Args:
            configuration: id, or the beginning of one, or label; default: `best`.

        Returns:
            What was written to promoted.yaml: the configuration, how it was chosen, its figures on the report split.

        Raises:
            InputError: unknown configuration, or one without figures on the report split.
        """
        chosen = self.find(configuration) if configuration else self.best
        split, metric = self.select
        reported = [row for row in self.leaderboard if (row.configuration, row.split) == (chosen, self.report_split)]
        if not reported:
            raise InputError(
                f"configuration {chosen} ({self.labels[chosen]}) was not measured on {self.report_split!r}, so it has no figures "
                f"to promote it with; run again with --set report.of=all"
            )
        promoted = next(row for row in self.configurations if row.configuration == chosen)
        record: Promotion = {
            "configuration": chosen,
            "label": promoted.label,
            "values": {axis: int(value) if value.isdecimal() else value for axis, value in promoted.values.items()},
            "prompt_mismatch": promoted.prompt_mismatch,
            "chosen": {"by": "name" if configuration else "best mean", "split": split, "metric": metric},
            "figures": {
                row.metric: {
                    "split": row.split,
                    "mean": row.mean,
                    "ci_low": row.ci_low,
                    "ci_high": row.ci_high,
                    "n": row.n,
                    "failed": row.failed,
                }
                for row in reported
            },
            "run": self.folder.name,
        }
        temporary = self.folder / f".{PROMOTED}.tmp"
        temporary.write_text(yaml_files.dumped(record), encoding="utf-8")
        temporary.rename(self.folder / PROMOTED)
        return record

    def compare(self, a: str = "", b: str = "") -> object:
        """Two configurations side by side on each question, as widgets in a notebook; see docs/dashboards.md.

        Args:
            a: id or label of the first; default: the best on the selection split.
            b: of the second; default: the baseline.

        Returns:
            A `workbench.widgets.QuestionsPage`.

        Raises:
            InputError: no such configuration, or the run lacks its questions.
            MissingExtraError: ipywidgets or anywidget is not installed.
        """
        return opened("compare", self, a, b)

    def find(self, name: str) -> str:
        """The id of a configuration given by id, beginning of an id, or label.

        Raises:
            InputError: none or several fit.
        """
        fitting = [c for c, label in self.labels.items() if label == name or (len(name) >= 3 and c.startswith(name))]
        if len(fitting) != 1:
            raise unknown("configuration", name, [f"{c} ({label})" for c, label in self.labels.items()])
        return fitting[0]


def _manifest(folder: Path) -> Manifest:
    """What closes a run.

    Raises:
        InputError: it cannot be read, or lacks what every run has.
    """
    path = folder / MANIFEST
    again = "the run's other files may be whole, but what they belong to is not known; run the experiment again"
    try:
        manifest: Manifest = json_lines.parsed(whole(path), str(path))
    except InputError as error:
        raise InputError(f"{error}; {again}") from error
    if not isinstance(manifest, dict):
        raise InputError(f"{path} is no object with the keys of a run; {again}")
    for key, kind in SHAPE.items():
        if not isinstance(manifest.get(key), kind):
            raise InputError(f"{path}: the key {key!r} is missing or damaged; {again}")
    if (found := manifest.get("format", FORMAT)) != FORMAT:
        raise InputError(
            f"{path} has the format {found!r}, and this version of the workbench reads {FORMAT}; open the run with the "
            f"version that wrote it"
        )
    return manifest


def finished(runs: str | Path, experiment: str | None = None) -> list[Path]:
    """Folders of finished runs below `runs`, of one experiment or of all."""
    return [manifest.parent for manifest in sorted(Path(runs).glob(f"{experiment or '*'}/*/{MANIFEST}"))]
