"""`Experiment`: from a YAML file to a finished run folder, step by step; `Run`: a run folder.

The notebooks and the command line call the same three steps: `index`, `finetune`, `compare`. A step computes what the
store lacks and reads the rest, so calling one again, or in another process, costs nothing.
"""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from workbench.component import canonical, digest, file_digest, library_version
from workbench.errors import InputError, StageFailedError, unknown
from workbench.experiment import config, results
from workbench.experiment.estimates import Estimator
from workbench.experiment.examples import training_examples
from workbench.experiment.plan import Configuration, Measured, PlannedStage, Planner, answer_groups, closure, plan
from workbench.experiment.progress import Progress, for_terminal
from workbench.experiment.results import Result
from workbench.experiment.search import Step
from workbench.experiment.searcher import Searcher
from workbench.experiment.session import Session, Timing
from workbench.experiment.stages import (
    Adapter,
    Answers,
    DenseIndex,
    Passages,
    PassageTable,
    RankingScores,
    Repeated,
    ScoresStage,
    Stage,
    TextIndex,
)
from workbench.experiment.store import Store
from workbench.machine import cpu_name
from workbench.models.lora import Example

LATE = (Answers, ScoresStage, Repeated)  # stages that come after retrieval and fine-tuning
MANIFEST = "manifest.json"
FINALISTS = 4  # winner, its untuned twin, runner-up, baseline
PROMOTED = "promoted.yaml"
CONFIGURATIONS = ("configuration", "label")
LATENCY = (
    "configuration",
    "requests",
    *(f"{name}{end}" for name in ("p50", "p95") for end in ("", "_low", "_high")),  # seconds
    "prompt_tokens",
    "answer_tokens",
    "answers_per_second",
    "load",
    "processor",
)
SEARCH = tuple(field.name for field in fields(Step))
TIMINGS = ("stage", "key", "uses", "computed", "seconds", "tokens")
LIBRARIES = ("torch", "transformers", "peft", "sentence-transformers", "faiss", "bm25s", "ir-measures", "numpy", "scipy")


class Experiment:
    """An experiment's file, its dataset, and the store it computes into.

    Attributes:
        settings: the file.
        session: computes stages.
        planner: knows configurations and their stages.
        runs: folder of all runs.
        estimated_seconds: what the plan said before the first step; None until then.
    """

    def __init__(self, settings: config.ExperimentSettings, runs: Path, progress: Progress | None = None) -> None:
        self.settings = settings
        self.runs = Path(runs)
        dataset, machine = settings.dataset.load(), settings.machine.resolve()
        self.planner = Planner(settings, dataset, machine, Path())
        self.session = Session(Store(self.runs / ".store"), dataset, machine, progress)
        self.estimated_seconds: float | None = None
        self._planned: dict[str, PlannedStage] = {}

    @classmethod
    def load(
        cls, path: str | Path, runs: str | Path = "runs", overrides: Sequence[str] = (), progress: Progress | None = None
    ) -> Experiment:
        """An experiment from its YAML file.

        Args:
            path: the file.
            runs: folder of all runs; the store lies in its ``.store``.
            overrides: ``key.path=value`` texts that replace single values of the file.
            progress: where to report; default: bars on a terminal, else lines on standard error.

        Raises:
            InputError: whatever in file or dataset is misspelt, contradictory, missing or unknown.
        """
        return cls(config.read_settings(Path(path), overrides), Path(runs), progress or for_terminal())

    @property
    def configurations(self) -> list[Configuration]:
        """All configurations, sorted by id."""
        return self.planner.configurations

    @property
    def notes(self) -> tuple[str, ...]:
        """What loading the dataset dropped or missed."""
        return self.session.dataset.notes

    @cached_property
    def selected_on(self) -> list[Measured]:
        """Stages of all configurations on the selection split."""
        return [self.planner.measured(c, self.settings.dataset.select) for c in self.configurations]

    def plan(self) -> list[PlannedStage]:
        """Distinct stages of the selection, each after those it reads; what the report needs follows from its outcome."""
        return plan(self.selected_on, self.session.has)

    def planned_costs(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The plan by stage name, with what computing the missing ones costs, and the totals.

        The finalists are known only after the selection, so their report is counted as that of the first configurations:
        as many stages, about the same cost.
        """
        report = self.settings.dataset.report
        n = len(self.configurations) if self.settings.report.of == "all" else min(FINALISTS, len(self.configurations))
        reported = [self.planner.measured(c, report) for c in self.configurations[:n]]
        planned = plan([*self.selected_on, *reported], self.session.has)
        rows: dict[str, dict[str, Any]] = {}
        for one in planned:
            empty = dict.fromkeys(("distinct", "uses", "found", "missing", "tokens", "seconds"), 0)
            row = rows.setdefault(one.stage.name, {"stage": one.stage.name} | empty)
            row["distinct"] += 1
            row["uses"] += one.uses
            row["found"] += one.found
            row["missing"] += not one.found
            if not one.found:
                cost = self.estimator.cost(one.stage)
                row["tokens"] += cost.tokens
                row["seconds"] += cost.seconds
        total = {key: sum(row[key] for row in rows.values()) for key in ("missing", "tokens", "seconds")}
        return list(rows.values()), total | {"memory_gb": self.estimator.memory_gb()}

    @cached_property
    def estimator(self) -> Estimator:
        """Knows the rates this machine showed."""
        return Estimator(self.session)

    def index(self) -> list[dict[str, Any]]:
        """Cuts, embeds, indexes and ranks; returns one row of facts for each index."""
        self._note_estimate()
        wanted = [s for s in self.need(self.selected_on) if not isinstance(s, (Adapter, *LATE))]
        self.ensure(wanted)
        return [self._index_facts(stage) for stage in wanted if isinstance(stage, (TextIndex, DenseIndex))]

    def rankings(self) -> list[dict[str, Any]]:
        """Quality of every distinct ranking on the selection split: one row for each and metric, with intervals."""
        first = {one.ranking.key: one for one in reversed(self.selected_on)}
        scored = {key: s for key, one in first.items() for s in one.scores if isinstance(s, RankingScores)}
        self.ensure(scored.values())
        split = self.settings.dataset.select
        rows = [Result(key, split, *score) for key, stage in scored.items() for score in self.session.read(stage)]
        axes = [axis for axis in ("chunking", "retriever", "reranker") if axis in self.planner.axes]
        named = {key: {axis: one.configuration.columns()[axis] for axis in axes} for key, one in first.items()}
        board = results.leaderboard(results.matrices(rows, self.groups))
        return [
            named[r["configuration"]] | {k: r[k] for k in ("split", "metric", "mean", "ci_low", "ci_high", "n")} for r in board
        ]

    def finetune(self) -> list[Adapter]:
        """Trains every adapter the configurations use; returns their stages."""
        self._note_estimate()
        adapters = [s for s in self.need(self.selected_on) if isinstance(s, Adapter)]
        self.ensure(adapters)
        return adapters

    def training_curve(self, adapter: Adapter) -> list[dict[str, Any]]:
        """Losses of a training: step, loss (nats per answer token), learning_rate, tokens."""
        return results.read_table(self.session.ensure(adapter) / "training.csv")

    def training_facts(self, adapter: Adapter) -> dict[str, Any]:
        """What a training was: base, rank, epochs, examples, tokens, seconds, first and last loss."""
        curve = self.training_curve(adapter)
        manifest = self.session.store.manifest(adapter.name, adapter.key)
        lora = adapter.generator.lora
        return {
            "base": adapter.generator.model,
            "rank": lora.rank,
            "epochs": lora.epochs,
            "examples": manifest["facts"]["examples"],
            "tokens": manifest["facts"]["tokens"],
            "seconds": manifest["seconds"],
            "first loss": curve[0]["loss"],
            "last loss": curve[-1]["loss"],
            "key": adapter.key[:12],
        }

    def training_example(self, adapter: Adapter) -> Example:
        """The first example an adapter learned from."""
        return training_examples(adapter, self.session)[0]

    def example(self) -> tuple[str, list[dict[str, Any]]]:
        """The first judged question of the train (else selection) split, and its five best passages by the baseline's ranking."""
        data, splits = self.settings.dataset, self.session.dataset.splits
        split = data.train if data.train in splits else data.select
        judged = self.session.dataset.judged(split).judged
        query = next((q for q in self.session.dataset.split(split) if q.id in judged), self.session.dataset.split(split)[0])
        ranking = self.planner.measured(self.planner.baseline, split).ranking
        passages = self.session.read(next(s for s in closure(ranking) if isinstance(s, Passages)))
        ids, scores = ranking.rank([query.text], self.session)[0]
        return query.text, [
            {"score": round(float(score), 3), "title": passages.shown(n).title, "text": " ".join(passages.shown(n).text.split())}
            for n, score in zip(ids[:5].tolist(), scores[:5], strict=True)
        ]

    def compare(self, folder: str | Path | None = None) -> Run:
        """Answers, scores and compares all configurations; writes a run.

        Args:
            folder: of a finished run of this experiment, which is then opened and nothing computed; default: a new run.
        """
        if folder:
            return Run.open(folder)
        started = datetime.now(UTC)
        self._note_estimate()
        selected, steps = Searcher(self).search()
        rows = list(self.results(selected))
        reported = [self.planner.measured(c, self.settings.dataset.report) for c in self.finalists(rows)]
        self.measure(reported)
        rows += self.results(reported)
        folder = new_folder(self.runs / self.settings.experiment, started, self.settings)
        self.estimator.learn(self.session.timings, self.session.counts())
        rows.sort(key=lambda row: tuple(map(str, row)))
        _Writer(self, folder, started, steps).write(rows, [*selected, *reported])
        return Run.open(folder)

    def finalists(self, rows: Sequence[Result]) -> list[Configuration]:
        """Configurations for the report split: winner, its untuned twin, runner-up and baseline; or all of them."""
        ranked = self.ranked(rows)
        if self.settings.report.of == "all":
            return sorted(ranked, key=lambda c: c.id)
        chosen = [*ranked[:2], self.planner.baseline, *self._untuned_twin(ranked[0])]
        return sorted({c.id: c for c in chosen}.values(), key=lambda c: c.id)

    def ranked(self, rows: Sequence[Result]) -> list[Configuration]:
        """Configurations measured on the selection split by their mean, best first; equal means in the order of ids."""
        split, metric = self.settings.dataset.select, self.planner.select_by
        found = results.matrices([r for r in rows if r.split == split and r.metric == metric], self.groups)
        if not found:
            raise InputError(f"metrics.select_by: no query of {split!r} is scored by {metric!r}; choose another metric or split")
        means = dict(zip(found[0].systems, found[0].values.mean(axis=0), strict=True))
        return sorted((c for c in self.configurations if c.id in means), key=lambda c: (-means[c.id], c.id))

    @cached_property
    def groups(self) -> dict[str, str]:
        """Query id -> group, over the selection and report splits."""
        data = self.settings.dataset
        return {q.id: q.group for split in (data.select, data.report) for q in self.session.dataset.split(split)}

    def _untuned_twin(self, winner: Configuration) -> list[Configuration]:
        generators = self.planner.components.generators
        name = winner["generator"]
        if name is None or generators[name].lora is None:
            return []
        bare = generators[name].model_copy(update={"lora": None})
        twins = {n for n in self.planner.axes["generator"] if generators[n] == bare}
        others = [dict(c.values) | {"generator": name} for c in self.configurations]
        return [
            c
            for c, same in zip(self.configurations, others, strict=True)
            if c["generator"] in twins and same == dict(winner.values)
        ]

    def _note_estimate(self) -> None:
        """Keeps what the plan says before anything is computed, to be held against what it took."""
        if self.estimated_seconds is None:
            self.estimated_seconds = float(self.planned_costs()[1]["seconds"])

    def need(self, measured: Sequence[Measured]) -> list[Stage]:
        """Distinct stages of configurations; each is noted as planned at the first time it is asked for."""
        planned = plan(measured, self.session.has)
        for one in planned:
            self._planned.setdefault(one.stage.key, one)
        return [one.stage for one in planned]

    def ensure(self, stages: Iterable[Stage]) -> None:
        """Computes the stages that the store lacks, in their order."""
        for stage in stages:
            self.session.ensure(stage)

    def measure(self, measured: Sequence[Measured]) -> None:
        """Computes what configurations need: first all that comes before answers, then one queue for each generator."""
        missing = [s for s in self.need(measured) if not self.session.has(s)]
        self.ensure(s for s in missing if not isinstance(s, LATE))
        for group in answer_groups(missing):
            self.session.generate_together(group)
            self.ensure(group)
        self.ensure(missing)

    def results(self, measured: Sequence[Measured]) -> Iterable[Result]:
        """Every score of configurations."""
        for one in measured:
            for stage in one.scores:
                for score in self.session.read(stage):
                    yield Result(one.configuration.id, one.ranking.split, *score)

    def _index_facts(self, stage: TextIndex | DenseIndex) -> dict[str, Any]:
        folder = self.session.ensure(stage)
        manifest = self.session.store.manifest(stage.name, stage.key)
        passages = stage.passages if isinstance(stage, TextIndex) else stage.embeddings.passages
        return {
            "index": type(stage.retriever if isinstance(stage, TextIndex) else stage.index).__name__,
            "chunking": passages.chunking.label,
            "passages": len(self.session.read(passages)),
            "megabytes": round(sum(f["bytes"] for f in manifest["files"].values()) / 1e6, 2),
            "seconds": manifest["seconds"],
            "key": stage.key[:12],
            "folder": str(folder),
        }


def new_folder(parent: Path, started: datetime, settings: config.ExperimentSettings) -> Path:
    """A run's folder, created exclusively: UTC time and a short digest of time, process and settings."""
    parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(100):
        short = digest([started.isoformat(), os.getpid(), attempt, settings.model_dump(mode="json")])[:6]
        folder = parent / f"{started:%Y%m%dT%H%M%SZ}-{short}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise StageFailedError(f"no free run folder in {parent}")


class _Writer:
    """Writes the files of a run, the manifest last."""

    def __init__(self, experiment: Experiment, folder: Path, started: datetime, steps: Sequence[Step]) -> None:
        self.experiment = experiment
        self.steps = steps
        self.session = experiment.session
        self.settings = experiment.settings
        self.folder = folder
        self.started = started

    def write(self, rows: Sequence[Result], measured: Sequence[Measured]) -> None:
        """All files of the contract; each is complete or absent, and the manifest comes last."""
        scores = results.matrices(rows, self.experiment.groups)
        axes = list(self.experiment.planner.axes)
        settings, configurations, baseline = self.settings, self.experiment.configurations, self.experiment.planner.baseline
        steps: dict[str, Callable[[], object]] = {
            "config.yaml": lambda: yaml.safe_dump(resolved(self.experiment), sort_keys=False, allow_unicode=True),
            "configurations.csv": lambda: ([*CONFIGURATIONS, *axes, "prompt_mismatch", "keys"], self._configurations()),
            "results.csv": lambda: (results.RESULTS, [row._asdict() for row in rows]),
            "leaderboard.csv": lambda: (results.LEADERBOARD, results.leaderboard(scores)),
            "comparisons.csv": lambda: (results.COMPARISONS, results.comparisons(scores, settings.seed)),
            "effects.csv": lambda: (
                results.EFFECTS,
                results.effects(scores, configurations, baseline, settings.dataset.select, settings.seed),
            ),
            "interactions.csv": lambda: (
                results.INTERACTIONS,
                results.interactions(scores, configurations, baseline, settings.dataset.select, settings.seed),
            ),
            "finalists.csv": lambda: (
                results.FINALISTS,
                results.finalists(scores, settings.dataset.report, baseline.id, settings.seed),
            ),
            "search.csv": lambda: (SEARCH, [vars(step) for step in self.steps]),
            "selection.csv": lambda: (results.SELECTION, [self._selection(scores, rows)]),
            "queries.csv": lambda: (results.QUERIES, self._queries()),
            "answers.jsonl": lambda: "".join(line + "\n" for line in self._answers(measured)),
            "plan.json": lambda: json.dumps(self._plan(measured), indent=1),
            "timings.csv": lambda: (TIMINGS, self._timings(measured)),
            MANIFEST: lambda: json.dumps(self._manifest(rows, measured), indent=1, ensure_ascii=False),
        }
        with self.session.progress.task("writing", len(steps)) as report:
            for name, content in steps.items():
                self._file(name, content())
                report(1, name)

    def _file(self, name: str, content: Any) -> None:
        """Writes one file: a text, or a table as (columns, rows)."""
        if isinstance(content, str):
            self._text(name, content)
        else:
            results.write_table(self.folder / name, *content)

    def _text(self, name: str, text: str) -> None:
        temporary = self.folder / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.rename(self.folder / name)

    def _configurations(self) -> list[dict[str, Any]]:
        rows = []
        for one in self.experiment.selected_on:
            c, keys = one.configuration, {name: stage.key for name, stage in one.artifacts().items()}
            mismatch = str(c.prompt_mismatch).lower()
            head = {"configuration": c.id, "label": c.label, "prompt_mismatch": mismatch, "keys": canonical(keys)}
            rows.append(head | c.columns())
        return rows

    def _selection(self, scores: Sequence[results.Scores], rows: Sequence[Result]) -> dict[str, Any]:
        data, metric = self.settings.dataset, self.experiment.planner.select_by
        by = {(one.split, one.metric): one for one in scores}
        winner, baseline = self.experiment.ranked(rows)[0].id, self.experiment.planner.baseline.id
        report = by.get((data.report, metric))
        return results.selection(by[data.select, metric], report, winner, baseline, self.settings.seed)

    def _queries(self) -> list[dict[str, str]]:
        data = self.settings.dataset
        return [
            {"split": split, "query_id": q.id, "group": q.group, "question": q.text}
            for split in sorted({data.select, data.report})
            for q in sorted(self.session.dataset.split(split), key=lambda q: q.id)
        ]

    def _answers(self, measured: Sequence[Measured]) -> list[str]:
        lines = []
        for one in sorted(measured, key=lambda m: (m.configuration.id, m.ranking.split)):
            if one.answers is None:
                continue
            passages: PassageTable = self.session.read(one.answers.passages)
            for row in sorted(self.session.read(one.answers), key=lambda r: r.query_id):
                shown = [passages.place(n)._asdict() for n in row.passages]
                head = {"configuration": one.configuration.id, "split": one.ranking.split}
                lines.append(json.dumps(head | row._asdict() | {"passages": shown}, ensure_ascii=False))
        return lines

    def _plan(self, measured: Sequence[Measured]) -> dict[str, Any]:
        """What was planned and what was computed; the two must agree."""
        uses = {one.stage.key: one.uses for one in plan(measured, self.session.has)}
        stages = []
        for key, one in sorted(self.experiment._planned.items(), key=lambda item: (item[1].stage.name, item[0])):
            computed = key in self.session.computed
            if computed == one.found:
                happened = "was computed although the plan had found it" if computed else "was planned but not computed"
                # another process may have computed it between plan and run; only the first is a fault of ours
                if computed:
                    raise StageFailedError(f"stage {one.stage.name} {key[:12]} {happened}")
            stages.append(
                {"stage": one.stage.name, "key": key, "uses": uses.get(key, one.uses), "found": one.found, "computed": computed}
            )
        items = {kind: vars(counts) for kind, counts in self.session.counts().items()}
        totals = {
            "planned": len(stages),
            "found": sum(s["found"] for s in stages),
            "computed": sum(s["computed"] for s in stages),
        }
        took = sum(timing.seconds for timing in self.session.timings)
        seconds = {"estimated": round(self.experiment.estimated_seconds or 0.0, 1), "computing": round(took, 1)}
        return {"stages": stages, "items": items, "totals": totals, "seconds": seconds}

    def _timings(self, measured: Sequence[Measured]) -> list[dict[str, Any]]:
        uses = {one.stage.key: one.uses for one in plan(measured, self.session.has)}
        timed: list[Timing] = self.session.timings
        return [
            {"stage": t.stage, "key": t.key, "uses": uses.get(t.key, ""), "computed": 1, "seconds": t.seconds, "tokens": t.tokens}
            for t in timed
        ]

    def _manifest(self, rows: Sequence[Result], measured: Sequence[Measured]) -> dict[str, Any]:
        from workbench import __version__

        machine, dataset = self.session.machine, self.session.dataset
        data = self.settings.dataset
        return {
            "experiment": self.settings.experiment,
            "workbench": __version__,
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "select": {"split": data.select, "metric": self.experiment.planner.select_by},
            "search": self.settings.search.model_dump(),
            "report": {"split": data.report, "of": self.settings.report.of},
            "baseline": self.experiment.planner.baseline.id,
            "seed": self.settings.seed,
            "failures": failures(rows),
            "repeated": {one.configuration["generator"]: self.session.read(one.repeated) for one in measured if one.repeated},
            "dataset": {
                "name": dataset.name,
                "documents": dataset.documents_digest,
                "queries": {s: dataset.queries_digest(s) for s in dataset.splits},
                "judgements": {s: dataset.answers_digest(s) for s in dataset.splits},
                "sizes": {"documents": dataset.documents.num_rows} | dataset.splits,
                "notes": list(dataset.notes),
            },
            "machine": {
                "arithmetic": machine.arithmetic,
                "reason": machine.reason,
                "processor": cpu_name(),
                "python": platform.python_version(),
                "system": platform.system(),
            },
            "libraries": {name: library_version(name) for name in LIBRARIES},
            "files": {
                path.name: file_digest(path)
                for path in sorted(self.folder.iterdir())
                if path.is_file() and not path.name.startswith(".")
            },
        }


def failures(rows: Iterable[Result]) -> dict[str, int]:
    """How many answers have no score, by what went wrong; they stay in every mean as the worst value."""
    failed = {(row.configuration, row.split, row.query_id, row.status) for row in rows if row.value is None}
    return dict(sorted(Counter(status for *_, status in failed).items()))


def resolved(experiment: Experiment) -> dict[str, Any]:
    """The experiment's file with every default filled in."""
    values = experiment.settings.model_dump(mode="json", exclude_none=True)
    components = experiment.planner.components
    for family in ("embedders", "retrievers", "rerankers", "generators"):
        given = values["components"][family]
        for name, component in getattr(components, family).items():
            kind = {"kind": given[name]["kind"]} if "kind" in given[name] else {}
            given[name] = component.model_dump(mode="json", exclude_none=True) | kind
    values["axes"] = {
        axis: [c.model_dump() if hasattr(c, "model_dump") and c.words else "whole" if hasattr(c, "words") else c for c in options]
        for axis, options in experiment.planner.axes.items()
    }
    values["metrics"]["select_by"] = experiment.planner.select_by
    return values


class Run:
    """A finished run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))

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
        return results.read_table(self.folder / "configurations.csv")

    @cached_property
    def labels(self) -> dict[str, str]:
        """Configuration id -> label."""
        return {row["configuration"]: row["label"] for row in self.configurations}

    @cached_property
    def leaderboard(self) -> list[dict[str, Any]]:
        """Rows of leaderboard.csv."""
        return results.read_table(self.folder / "leaderboard.csv")

    @cached_property
    def comparisons(self) -> list[dict[str, Any]]:
        """Rows of comparisons.csv."""
        return results.read_table(self.folder / "comparisons.csv")

    @cached_property
    def effects(self) -> list[dict[str, Any]]:
        """Rows of effects.csv."""
        return results.read_table(self.folder / "effects.csv")

    @cached_property
    def interactions(self) -> list[dict[str, Any]]:
        """Rows of interactions.csv."""
        return results.read_table(self.folder / "interactions.csv")

    @cached_property
    def finalists(self) -> list[dict[str, Any]]:
        """Rows of finalists.csv."""
        return results.read_table(self.folder / "finalists.csv")

    @cached_property
    def selection(self) -> dict[str, Any]:
        """The row of selection.csv: how much choosing the winner flattered it."""
        return results.read_table(self.folder / "selection.csv")[0]

    @property
    def latency(self) -> list[dict[str, Any]]:
        """Rows of latency.csv, or none where `workbench latency` was not called."""
        path = self.folder / "latency.csv"
        return results.read_table(path) if path.is_file() else []

    @cached_property
    def search(self) -> list[dict[str, Any]]:
        """Rows of search.csv, in the order of the looks; none for the whole grid."""
        return results.read_table(self.folder / "search.csv")

    @cached_property
    def axes(self) -> list[str]:
        """Axes of the experiment, in the order of its file."""
        return [name for name in self.configurations[0] if name not in (*CONFIGURATIONS, "prompt_mismatch", "keys")]

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """Rows of results.csv."""
        return results.read_table(self.folder / "results.csv")

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
        return results.read_table(self.folder / "queries.csv")

    def scores(self, split: str, metric: str) -> results.Scores:
        """Every score of one split by one metric.

        Raises:
            InputError: the run did not measure that.
        """
        rows = [r for r in self.results if (r["split"], r["metric"]) == (split, metric)]
        if not rows:
            measured = sorted({f"{r['metric']} on {r['split']}" for r in self.leaderboard})
            raise unknown(f"scores in {self.folder}:", f"{metric} on {split}", measured)
        groups = {row["query_id"]: row["group"] for row in self.queries if row["split"] == split}
        return results.matrices([Result(**row) for row in rows], groups)[0]

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
