"""Writes the folder of a run: each file is complete or absent, and the manifest comes last."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from workbench.component import Component, digest, file_digest, library_version
from workbench.data import columns as further
from workbench.data.chunking import Chunking
from workbench.data.readers import yaml_files
from workbench.errors import InputError, StageFailedError
from workbench.evaluation.families import Plans
from workbench.evaluation.search import SearchStep
from workbench.experiment.config import ALWAYS, NEVER, ExperimentSettings
from workbench.experiment.configuration import Space
from workbench.experiment.observed import Observed, costs, spent
from workbench.experiment.planner import ConfigurationStages, plan
from workbench.experiment.search import Found
from workbench.experiment.self_contained import SelfContained
from workbench.experiment.sweep import Sweep
from workbench.machine import Machine, cpu_name, precisions
from workbench.provenance import command
from workbench.results import table_files, tables
from workbench.results.records import (
    CountsRecord,
    CutRecord,
    Manifest,
    PlannedRecord,
    PlanRecord,
    TotalsRecord,
    TruncationRecord,
)
from workbench.results.rows import (
    ComparisonRow,
    ConfigurationRow,
    CostRow,
    EffectRow,
    FinalistRow,
    InteractionRow,
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
from workbench.results.run import FORMAT, MANIFEST, PASSAGES, QUESTIONS, RANKINGS
from workbench.retrieval.indexes import backends
from workbench.stages.answers import Answers, ClosedAnswers, SelectiveAnswers
from workbench.stages.indexes import EMBEDDINGS, Embeddings
from workbench.stages.reranking import PAIRS
from workbench.stages.writers import ANSWERS

LIBRARIES = ("torch", "transformers", "peft", "sentence-transformers", "faiss", "bm25s", "ir-measures", "numpy", "scipy")


def new_folder(parent: Path, started: datetime, settings: ExperimentSettings) -> Path:
    """A run's folder, created exclusively: UTC time and a short digest of time, process and settings."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = f"the folder of the run, in {parent}, cannot be made ({error.strerror}); name one that can be written with --runs"
        raise InputError(said) from error
    for attempt in range(100):
        short = digest([started.isoformat(), os.getpid(), attempt, settings.model_dump(mode="json")])[:6]
        folder = parent / f"{started:%Y%m%dT%H%M%SZ}-{short}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"{folder} cannot be made ({error.strerror}); name a folder of runs that can be written") from error
        return folder
    raise StageFailedError(f"no free run folder in {parent}")


class RunWriter:
    """Writes the files of a run, the manifest last."""

    def __init__(self, sweep: Sweep, folder: Path, started: datetime, columns: Mapping[str, Mapping[str, str]]) -> None:
        """A folder to write into.

        Args:
            sweep: has computed the run.
            folder: of the run.
            started: when the run began, UTC.
            columns: query id -> further column of the question -> value.
        """
        self.sweep = sweep
        self.space = sweep.space
        self.session = sweep.session
        self.settings = sweep.settings
        self.folder = folder
        self.started = started
        self.columns = columns

    def write(self, found: Found) -> None:
        """All files of the contract; each is complete or absent, and the manifest comes last."""
        rows, measured = found.rows, found.measured
        seeds = sorted(self.sweep.seed_results(measured), key=lambda row: tuple(map(str, row)))
        scores = tables.matrices(rows, self.sweep.groups, seeds)
        axes, design = list(self.space.axes), {c.id: c.columns() for c in self.space.configurations}
        settings, baseline = self.settings, self.space.baseline.id
        select, report, seed = settings.dataset.select, settings.dataset.report, settings.seed
        chosen, twins = found.ranked[0].id, [c.id for c in found.twins]
        plans = Plans(report, self.space.select_by, baseline, chosen, twins)
        observed = Observed(self.session, measured)
        self.session.note(observed.notes())
        compared = [
            row
            for row in tables.comparisons(scores, seed, plans)
            if row.metric not in self.space.answer_metrics or observed.comparable(row)
        ]
        # effects, interactions and slices take all configurations together
        together = [s for s in scores if s.metric not in self.space.answer_metrics or s.split not in observed.mixed]
        write, alone = table_files.write, self._self_contained(measured)
        files: dict[str, Callable[[Path], None]] = {
            "config.yaml": lambda path: _text(path, [yaml_files.dumped(resolved(self.space, self.session.machine))]),
            "configurations.csv": lambda path: table_files.write_configurations(path, axes, self._configurations()),
            "results.csv": lambda path: write(path, ResultRow, rows),
            "seeds.csv": lambda path: write(path, SeedRow, seeds),
            "leaderboard.csv": lambda path: write(path, LeaderboardRow, tables.leaderboard(scores)),
            "comparisons.csv": lambda path: write(path, ComparisonRow, compared),
            "effects.csv": lambda path: write(path, EffectRow, tables.effects(together, design, baseline, select, seed)),
            "interactions.csv": lambda path: write(
                path, InteractionRow, tables.interactions(together, design, baseline, select, seed)
            ),
            "finalists.csv": lambda path: write(path, FinalistRow, tables.finalists(compared, report, baseline)),
            "search.csv": lambda path: write(path, SearchStep, found.steps),
            "selection.csv": lambda path: write(path, SelectionRow, [self._selection(scores, found.ranked[0].id)]),
            "costs.csv": lambda path: write(path, CostRow, list(costs(measured, self.session))),
            "queries.csv": lambda path: write(path, QueryRow, self._queries()),
            "retrieval.csv": lambda path: write(path, RetrievalRow, self._shown(measured)),
            "answers.jsonl": lambda path: _text(path, self._answers(measured)),
            QUESTIONS: lambda path: _text(path, alone.questions()),
            PASSAGES: lambda path: _text(path, alone.passages()),
            RANKINGS: lambda path: _text(path, alone.rankings()),
            "training.csv": lambda path: write(path, TrainingRow, alone.training()),
            "plan.json": lambda path: _text(path, [json.dumps(self._plan(measured), indent=1)]),
            "timings.csv": lambda path: write(path, TimingRow, self._timings(measured)),
        }
        if columns := self._columns():
            groups = self.sweep.groups
            same = {(one.split, one.metric) for one in together}
            alike = [row for row in rows if (row.split, row.metric) in same]
            files["slices.csv"] = lambda path: write(path, SliceRow, tables.slices(alike, groups, seeds, columns, plans, seed))
        files[MANIFEST] = lambda path: _text(
            path, [json.dumps(self._manifest(rows, measured, observed), indent=1, ensure_ascii=False)]
        )
        with self.session.progress.task("writing", len(files)) as done:
            for name, write_file in files.items():
                write_file(self.folder / name)
                done(1, name)

    def _configurations(self) -> list[ConfigurationRow]:
        rows = []
        for one in self.sweep.selected_on:
            c, keys = one.configuration, {name: stage.key for name, stage in one.artifacts().items()}
            rows.append(ConfigurationRow(c.id, c.label, c.columns(), c.prompt_mismatch, keys))
        return rows

    def _selection(self, scores: Sequence[tables.Scores], winner: str) -> SelectionRow:
        data, metric = self.settings.dataset, self.space.select_by
        by = {(one.split, one.metric): one for one in scores}
        report = by.get((data.report, metric))
        return tables.selection(by[data.select, metric], report, winner, self.space.baseline.id, self.settings.seed)

    def _columns(self) -> dict[str, dict[str, str]]:
        """Column that the results are told apart by -> query id -> value."""
        dataset, names = self.session.dataset, self.settings.metrics.slices or ()
        return {name: {query: value or further.NONE for query, value in dataset.column(name).items()} for name in names}

    def _queries(self) -> list[QueryRow]:
        data = self.settings.dataset
        return [
            QueryRow(split, q.id, q.group, q.text)
            for split in sorted({data.select, data.report})
            for q in sorted(self.session.dataset.split(split), key=lambda q: q.id)
        ]

    def _self_contained(self, measured: Sequence[ConfigurationStages]) -> SelfContained:
        data = self.settings.dataset
        # the key in the store of the ranking on the selection split, which configurations.csv holds among its keys
        names = {one.configuration.id: one.ranking.key for one in self.sweep.selected_on if one.ranking}
        return SelfContained(self.session, measured, sorted({data.select, data.report}), names, self.columns)

    def _answers(self, measured: Sequence[ConfigurationStages]) -> Iterator[str]:
        for one in _answering(measured):
            passages = self.session.read(one.answers.passages) if one.answers.passages else None
            head = {"configuration": one.configuration, "split": one.split, "seed": one.seed}
            for row in sorted(self.session.read(one.answers), key=lambda r: r.query_id):
                shown = [passages.place(n)._asdict() for n in row.passages] if passages else []
                yield json.dumps(head | row._asdict() | {"passages": shown}, ensure_ascii=False) + "\n"

    def _shown(self, measured: Sequence[ConfigurationStages]) -> list[RetrievalRow]:
        """How many questions were answered without passages, and the threshold that decided it."""
        rows = []
        for one in _answering(measured):
            answers = one.answers
            found = self.session.read(answers)
            counted = one.configuration, one.split, one.seed, len(found), sum(not row.passages for row in found)
            if isinstance(answers, SelectiveAnswers):
                learned = answers.threshold
                rows.append(RetrievalRow(*counted, learned.gate.label, learned.value(self.session), learned.key))
            else:
                when = NEVER if isinstance(answers, ClosedAnswers) else ALWAYS
                rows.append(RetrievalRow(*counted, when, None, ""))
        return rows

    def _plan(self, measured: Sequence[ConfigurationStages]) -> PlanRecord:
        """What was planned and what was computed; the two must agree."""
        uses = self._uses(measured)
        stages: list[PlannedRecord] = []
        for key, one in sorted(self.sweep.planned.items(), key=lambda item: (item[1].stage.name, item[0])):
            computed = key in self.session.computed
            if computed and one.found:  # not the other way round: another process may have computed it meanwhile
                raise StageFailedError(
                    f"stage {one.stage.name} {key[:12]} was computed although the plan had found it in the store"
                )
            record: PlannedRecord = {
                "stage": one.stage.name,
                "key": key,
                "uses": uses.get(key, one.uses),
                "found": one.found,
                "computed": computed,
            }
            stages.append(record)
        totals: TotalsRecord = {
            "planned": len(stages),
            "found": sum(record["found"] for record in stages),
            "computed": sum(record["computed"] for record in stages),
        }
        took = sum(timing.seconds for timing in self.session.timings)
        seconds = {"estimated": round(self.sweep.estimated_seconds or 0.0, 1), "computing": round(took, 1)}
        return {"stages": stages, "items": self._items(), "totals": totals, "seconds": seconds}

    def _items(self) -> dict[str, CountsRecord]:
        counts = self.session.counts()
        found: dict[str, CountsRecord] = {}
        for kind in (EMBEDDINGS.name, PAIRS.name, ANSWERS.name):
            one = counts[kind]
            found[kind] = {"distinct": one.distinct, "found": one.found, "computed": one.computed}
        return found

    def _uses(self, measured: Sequence[ConfigurationStages]) -> dict[str, int]:
        """Key of a stage -> configurations that use it."""
        return {one.stage.key: one.uses for one in plan(measured, self.session.has)}

    def _timings(self, measured: Sequence[ConfigurationStages]) -> list[TimingRow]:
        uses = self._uses(measured)
        rows = []
        for t in self.session.timings:
            each = t.seconds / t.items if t.items else None
            rows.append(TimingRow(t.stage, t.key, uses.get(t.key), 1, t.seconds, t.tokens, t.items or None, each))
        return rows

    def _cut(self, measured: Sequence[ConfigurationStages]) -> dict[str, CutRecord]:
        """Prompts, by generator, that were too long for it, and the passages left out of them."""
        found: dict[str, CutRecord] = {}
        for one in measured:
            for answers in one.all_answers():
                cuts = [row.cut for row in self.session.read(answers) if row.cut]
                if cuts:
                    total = found.setdefault(one.configuration["generator"], {"prompts": 0, "passages": 0})
                    total["prompts"] += len(cuts)
                    total["passages"] += sum(cuts)
        return dict(sorted(found.items()))

    def _manifest(self, rows: Sequence[ResultRow], measured: Sequence[ConfigurationStages], observed: Observed) -> Manifest:
        machine, dataset = self.session.machine, self.session.dataset
        backend = backends.choose(machine)
        data = self.settings.dataset
        return {
            "format": FORMAT,
            "experiment": self.settings.experiment,
            "code": self.sweep.code,
            "command": command(),
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "select": {"split": data.select, "metric": self.space.select_by},
            "search": {"strategy": self.settings.search.strategy, "order": self.settings.search.order},
            "report": {"split": data.report, "of": self.settings.report.of},
            "baseline": self.space.baseline.id,
            "seed": self.settings.seed,
            "seeds": self.settings.seeds,
            "failures": failures(rows),
            "cut": self._cut(measured),
            "notes": list(self.session.notes),
            "truncation": self._truncation(measured),
            "repeated": {one.configuration["generator"]: self.session.read(one.repeated) for one in measured if one.repeated},
            "served": observed.records(),
            "spent": spent(self.session),
            "dataset": {
                "name": dataset.name,
                "documents": dataset.documents_digest,
                "queries": {s: dataset.queries_digest(s) for s in dataset.splits},
                "judgements": {s: dataset.answers_digest(s) for s in dataset.splits},
                "sizes": {"documents": dataset.documents.num_rows} | dataset.splits,
                "notes": list(self.space.notes),
            },
            "machine": {
                "arithmetic": machine.arithmetic,
                "reason": machine.reason,
                "training": machine.for_training().arithmetic,
                # seconds of the products that models make, by use and precision: what `precision: auto` goes by
                "products": precisions.measured(machine.device),
                "vectors": {"searched by": backend.name, "reason": backend.reason},
                "fallbacks": self.session.fallbacks,
                "processor": cpu_name(),
                "python": platform.python_version(),
                "system": platform.system(),
            },
            "nodes": self.session.crew.record() if self.session.crew else {},
            "libraries": {name: library_version(name) for name in LIBRARIES},
            "files": {
                path.name: file_digest(path)
                for path in sorted(self.folder.iterdir())
                if path.is_file() and not path.name.startswith(".")
            },
        }

    def _truncation(self, measured: Sequence[ConfigurationStages]) -> list[TruncationRecord]:
        """What each embedder did not read of the passages it embedded; null where its server does not say."""
        names = {one: name for name, one in sorted(self.space.components.embedders.items(), reverse=True)}
        found: list[TruncationRecord] = []
        for stage in {s.key: s for one in measured for s in one.stages() if isinstance(s, Embeddings)}.values():
            facts = self.session.store.manifest(stage.name, stage.key)["facts"]
            record: TruncationRecord = {
                "embedder": names[stage.encoder.embedder],
                "chunking": stage.passages.label,
                "passages": facts["passages"],
                "truncation": facts["truncation"],
            }
            found.append(record)
        return sorted(found, key=lambda record: (record["embedder"], record["chunking"]))


def _json(value: Manifest) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _text(path: Path, parts: Iterable[str]) -> None:
    """Writes a file in one step: it is complete or absent; its parts are never in memory together."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(parts)
    temporary.rename(path)


class Answering(NamedTuple):
    """Answers of a configuration on a split, with the seed of the adapter where there is one."""

    configuration: str
    split: str
    seed: int | None
    answers: Answers


def _answering(measured: Sequence[ConfigurationStages]) -> Iterator[Answering]:
    """Answers with each seed, sorted by configuration and split."""
    for one in sorted(measured, key=lambda m: (m.configuration.id, m.split)):
        for answers in one.all_answers():
            # the seed of the adapter; nothing else in an answer is random
            seed = answers.writer.adapter.seed if answers.writer.adapter else None
            yield Answering(one.configuration.id, one.split, seed, answers)


def failures(rows: Iterable[ResultRow]) -> dict[str, int]:
    """How many answers have no score, by what went wrong; they stay in every mean as the worst value."""
    failed = {(row.configuration, row.split, row.query_id, row.status) for row in rows if row.status != "ok"}
    return dict(sorted(Counter(status for *_, status in failed).items()))


def _written(value: Any) -> Any:
    """A value of an axis as it stands in a file."""
    if isinstance(value, Chunking) and value == Chunking(words=None, overlap=0):
        return "whole"
    return value.model_dump() if isinstance(value, Component) else value


def _stated(model: BaseModel) -> dict[str, Any]:
    """Settings as they stand in a file; a null is left out only where leaving it out means null too."""
    values = model.model_dump(mode="json")
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if value is None and field.get_default(call_default_factory=True) is None:
            del values[name]
        elif isinstance(value, BaseModel):
            values[name] = _stated(value)
    return values


def resolved(space: Space, machine: Machine) -> dict[str, Any]:
    """The experiment's file with every default filled in."""
    values = _stated(space.settings)
    for family in ("embedders", "retrievers", "rewriters", "expanders", "rerankers", "generators"):
        given = values["components"][family]
        for name, component in getattr(space.components, family).items():
            kind = {"kind": given[name]["kind"]} if "kind" in given[name] else {}
            shown = _stated(component)
            # what a component decided by itself, such as the prompts that a model names
            decided = {k: v for k, v in component.settings().items() if v is not None and k not in shown}
            given[name] = shown | decided | kind
    values["axes"] = {axis: [_written(value) for value in options] for axis, options in space.axes.items()}
    values["metrics"]["select_by"] = space.select_by
    # the precisions measured here: served elsewhere, or after another measurement, it has to be in the same
    values["machine"] |= {"precision": machine.precision, "training": machine.for_training().precision}
    return values
