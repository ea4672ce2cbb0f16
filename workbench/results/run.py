"""`Run`: the folder of a finished run, its tables and what they say."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from workbench.errors import InputError, unknown
from workbench.results import tables
from workbench.results.display import Displayed
from workbench.results.tables import Result, SeedResult

MANIFEST = "manifest.json"
PROMOTED = "promoted.yaml"
CONFIGURATIONS = ("configuration", "label")
LATENCY = (
    "configuration",
    "requests",
    *(f"{name}{end}" for name in ("p50", "p95", "tokens") for end in ("", "_low", "_high")),  # seconds; tokens of both sides
    "prompt_tokens",
    "answer_tokens",
    "answers_per_second",
    "load",
    "processor",
)


class Run(Displayed):
    """A finished run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))

    def __repr__(self) -> str:
        return f"Run {self.folder}"

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Opens a run.

        Raises:
            InputError: no such folder, or a run that was not finished.
        """
        folder = Path(folder)
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

    @cached_property
    def configurations(self) -> list[dict[str, Any]]:
        """Rows of configurations.csv."""
        return tables.read_table(self.folder / "configurations.csv")

    @cached_property
    def labels(self) -> dict[str, str]:
        """Configuration id -> label."""
        return {row["configuration"]: row["label"] for row in self.configurations}

    @cached_property
    def leaderboard(self) -> list[dict[str, Any]]:
        """Rows of leaderboard.csv."""
        return tables.read_table(self.folder / "leaderboard.csv")

    @cached_property
    def comparisons(self) -> list[dict[str, Any]]:
        """Rows of comparisons.csv."""
        return tables.read_table(self.folder / "comparisons.csv")

    @cached_property
    def effects(self) -> list[dict[str, Any]]:
        """Rows of effects.csv."""
        return tables.read_table(self.folder / "effects.csv")

    @cached_property
    def interactions(self) -> list[dict[str, Any]]:
        """Rows of interactions.csv."""
        return tables.read_table(self.folder / "interactions.csv")

    @cached_property
    def finalists(self) -> list[dict[str, Any]]:
        """Rows of finalists.csv."""
        return tables.read_table(self.folder / "finalists.csv")

    @cached_property
    def selection(self) -> dict[str, Any]:
        """The row of selection.csv: how much choosing the winner flattered it."""
        return tables.read_table(self.folder / "selection.csv")[0]

    @property
    def latency(self) -> list[dict[str, Any]]:
        """Rows of latency.csv, or none where `workbench latency` was not called."""
        path = self.folder / "latency.csv"
        return tables.read_table(path) if path.is_file() else []

    @property
    def indexes(self) -> list[dict[str, Any]]:
        """Rows of indexes.csv, or none where `workbench index check` was not called."""
        path = self.folder / "indexes.csv"
        return tables.read_table(path) if path.is_file() else []

    @cached_property
    def search(self) -> list[dict[str, Any]]:
        """Rows of search.csv, in the order of the looks; none for the whole grid."""
        return tables.read_table(self.folder / "search.csv")

    @cached_property
    def shown(self) -> list[dict[str, Any]]:
        """Rows of retrieval.csv: how many questions were answered without passages; none in a run older than that file."""
        path = self.folder / "retrieval.csv"
        return tables.read_table(path) if path.is_file() else []

    @cached_property
    def axes(self) -> list[str]:
        """Axes of the experiment, in the order in which a question passes them."""
        return [name for name in self.configurations[0] if name not in (*CONFIGURATIONS, "prompt_mismatch", "keys")]

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """Rows of results.csv."""
        return tables.read_table(self.folder / "results.csv")

    @cached_property
    def seeds(self) -> list[dict[str, Any]]:
        """Rows of seeds.csv: scores under each seed, of configurations measured with several."""
        return tables.read_table(self.folder / "seeds.csv")

    @property
    def select(self) -> tuple[str, str]:
        """Split and metric that choose."""
        return self.manifest["select"]["split"], self.manifest["select"]["metric"]

    @property
    def report_split(self) -> str:
        """Split that figures are reported from."""
        return self.manifest["report"]["split"]

    def row(self, configuration: str, split: str, metric: str) -> dict[str, Any] | None:
        """A configuration's row of the leaderboard, or None where it was not measured."""
        wanted = (configuration, split, metric)
        return next((r for r in self.leaderboard if (r["configuration"], r["split"], r["metric"]) == wanted), None)

    @property
    def best(self) -> str:
        """The configuration with the highest mean on the selection split; equal means: the lowest id."""
        split, metric = self.select
        rows = [r for r in self.leaderboard if (r["split"], r["metric"]) == (split, metric)]
        return min(rows, key=lambda r: (-r["mean"], r["configuration"]))["configuration"]

    @cached_property
    def queries(self) -> list[dict[str, Any]]:
        """Rows of queries.csv."""
        return tables.read_table(self.folder / "queries.csv")

    def scores(self, split: str, metric: str) -> tables.Scores:
        """Every score of one split by one metric.

        Raises:
            InputError: the run did not measure that.
        """
        rows = [r for r in self.results if (r["split"], r["metric"]) == (split, metric)]
        if not rows:
            measured = sorted({f"{r['metric']} on {r['split']}" for r in self.leaderboard})
            raise unknown(f"scores in {self.folder}:", f"{metric} on {split}", measured)
        groups = {row["query_id"]: row["group"] for row in self.queries if row["split"] == split}
        seeds = [SeedResult(**row) for row in self.seeds if (row["split"], row["metric"]) == (split, metric)]
        return tables.matrices([Result(**row) for row in rows], groups, seeds)[0]

    def comparison(self, a: str, b: str, split: str, metric: str) -> dict[str, Any] | None:
        """The row of comparisons.csv on two configurations, turned so that the difference is a - b."""
        for row in self.comparisons:
            if (row["split"], row["metric"]) == (split, metric) and {row["a"], row["b"]} == {a, b}:
                return row if row["a"] == a else _turned(row)
        return None

    @property
    def promoted(self) -> dict[str, Any] | None:
        """What promoted.yaml says, or None."""
        path = self.folder / PROMOTED
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None

    def promote(self, configuration: str | None = None) -> dict[str, Any]:
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
        reported = [r for r in self.leaderboard if r["configuration"] == chosen and r["split"] == self.report_split]
        if not reported:
            raise InputError(
                f"configuration {chosen} ({self.labels[chosen]}) was not measured on {self.report_split!r}, so it has no figures "
                f"to promote it with; run again with --set report.of=all"
            )
        values = next(dict(r) for r in self.configurations if r["configuration"] == chosen)
        values.pop("keys")
        record = {
            "configuration": chosen,
            "label": self.labels[chosen],
            "values": {k: v for k, v in values.items() if k not in CONFIGURATIONS},
            "chosen": {"by": "name" if configuration else "best mean", "split": split, "metric": metric},
            "figures": {r["metric"]: {k: r[k] for k in ("split", "mean", "ci_low", "ci_high", "n", "failed")} for r in reported},
            "run": self.folder.name,
        }
        temporary = self.folder / f".{PROMOTED}.tmp"
        temporary.write_text(yaml.safe_dump(record, sort_keys=False, allow_unicode=True), encoding="utf-8")
        temporary.rename(self.folder / PROMOTED)
        return record

    def find(self, name: str) -> str:
        """The id of a configuration given by id, beginning of an id, or label.

        Raises:
            InputError: none or several fit.
        """
        fitting = [c for c, label in self.labels.items() if label == name or (len(name) >= 3 and c.startswith(name))]
        if len(fitting) != 1:
            raise unknown("configuration", name, [f"{c} ({label})" for c, label in self.labels.items()])
        return fitting[0]


def _turned(row: dict[str, Any]) -> dict[str, Any]:
    """A comparison seen from its other side."""
    swapped = {"a": row["b"], "b": row["a"], "difference": -row["difference"]}
    if row["ci_low"] is not None:
        swapped |= {"ci_low": -row["ci_high"], "ci_high": -row["ci_low"]}
    return row | swapped


def finished(runs: str | Path, experiment: str | None = None) -> list[Path]:
    """Folders of finished runs below `runs`, of one experiment or of all."""
    return [manifest.parent for manifest in sorted(Path(runs).glob(f"{experiment or '*'}/*/{MANIFEST}"))]
