"""Writes the folder of a run: each file is complete or absent, and the manifest comes last."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from workbench.component import Component, canonical, digest, file_digest, library_version
from workbench.data.chunking import Chunking
from workbench.data.passages import PassageTable
from workbench.errors import StageFailedError
from workbench.evaluation.search import Step
from workbench.experiment.config import ALWAYS, NEVER, ExperimentSettings
from workbench.experiment.configuration import Space
from workbench.experiment.planner import Measured, plan
from workbench.experiment.search import Found
from workbench.experiment.sweep import Sweep
from workbench.machine import Machine, cpu_name, precisions
from workbench.results import tables
from workbench.results.run import CONFIGURATIONS, MANIFEST
from workbench.results.tables import Result
from workbench.retrieval.indexes import backends
from workbench.stages.answers import Answers, ClosedAnswers, SelectiveAnswers
from workbench.stages.indexes import EMBEDDINGS, Embeddings
from workbench.stages.reranking import PAIRS
from workbench.stages.writers import ANSWERS
from workbench.store.session import Timing
from workbench.version import __version__

SEARCH = tuple(field.name for field in fields(Step))
TIMINGS = ("stage", "key", "uses", "computed", "seconds", "tokens", "items", "seconds_per_item")
LIBRARIES = ("torch", "transformers", "peft", "sentence-transformers", "faiss", "bm25s", "ir-measures", "numpy", "scipy")


def new_folder(parent: Path, started: datetime, settings: ExperimentSettings) -> Path:
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


class RunWriter:
    """Writes the files of a run, the manifest last."""

    def __init__(self, sweep: Sweep, folder: Path, started: datetime) -> None:
        self.sweep = sweep
        self.space = sweep.space
        self.session = sweep.session
        self.settings = sweep.settings
        self.folder = folder
        self.started = started

    def write(self, found: Found) -> None:
        """All files of the contract; each is complete or absent, and the manifest comes last."""
        rows, measured = found.rows, found.measured
        seeds = sorted(self.sweep.seed_results(measured), key=lambda row: tuple(map(str, row)))
        scores = tables.matrices(rows, self.sweep.groups, seeds)
        axes, design = list(self.space.axes), {c.id: c.columns() for c in self.space.configurations}
        settings, baseline = self.settings, self.space.baseline.id
        steps: dict[str, Callable[[], object]] = {
            "config.yaml": lambda: yaml.safe_dump(
                resolved(self.space, self.session.machine), sort_keys=False, allow_unicode=True
            ),
            "configurations.csv": lambda: ([*CONFIGURATIONS, *axes, "prompt_mismatch", "keys"], self._configurations()),
            "results.csv": lambda: (tables.RESULTS, [row._asdict() for row in rows]),
            "seeds.csv": lambda: (tables.SEEDS, [row._asdict() for row in seeds]),
            "leaderboard.csv": lambda: (tables.LEADERBOARD, tables.leaderboard(scores)),
            "comparisons.csv": lambda: (tables.COMPARISONS, tables.comparisons(scores, settings.seed)),
            "effects.csv": lambda: (
                tables.EFFECTS,
                tables.effects(scores, design, baseline, settings.dataset.select, settings.seed),
            ),
            "interactions.csv": lambda: (
                tables.INTERACTIONS,
                tables.interactions(scores, design, baseline, settings.dataset.select, settings.seed),
            ),
            "finalists.csv": lambda: (
                tables.FINALISTS,
                tables.finalists(scores, settings.dataset.report, baseline, settings.seed),
            ),
            "search.csv": lambda: (SEARCH, [vars(step) for step in found.steps]),
            "selection.csv": lambda: (tables.SELECTION, [self._selection(scores, found.ranked[0].id)]),
            "queries.csv": lambda: (tables.QUERIES, self._queries()),
            "retrieval.csv": lambda: (tables.SHOWN, self._shown(measured)),
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
            tables.write_table(self.folder / name, *content)

    def _text(self, name: str, text: str) -> None:
        temporary = self.folder / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.rename(self.folder / name)

    def _configurations(self) -> list[dict[str, Any]]:
        rows = []
        for one in self.sweep.selected_on:
            c, keys = one.configuration, {name: stage.key for name, stage in one.artifacts().items()}
            mismatch = str(c.prompt_mismatch).lower()
            head = {"configuration": c.id, "label": c.label, "prompt_mismatch": mismatch, "keys": canonical(keys)}
            rows.append(head | c.columns())
        return rows

    def _selection(self, scores: Sequence[tables.Scores], winner: str) -> dict[str, Any]:
        data, metric = self.settings.dataset, self.space.select_by
        by = {(one.split, one.metric): one for one in scores}
        report = by.get((data.report, metric))
        return tables.selection(by[data.select, metric], report, winner, self.space.baseline.id, self.settings.seed)

    def _queries(self) -> list[dict[str, str]]:
        data = self.settings.dataset
        return [
            {"split": split, "query_id": q.id, "group": q.group, "question": q.text}
            for split in sorted({data.select, data.report})
            for q in sorted(self.session.dataset.split(split), key=lambda q: q.id)
        ]

    def _answers(self, measured: Sequence[Measured]) -> list[str]:
        lines = []
        for head, answers in _answering(measured):
            passages: PassageTable | None = self.session.read(answers.passages) if answers.passages else None
            for row in sorted(self.session.read(answers), key=lambda r: r.query_id):
                shown = [passages.place(n)._asdict() for n in row.passages]
                lines.append(json.dumps(head | row._asdict() | {"passages": shown}, ensure_ascii=False))
        return lines

    def _shown(self, measured: Sequence[Measured]) -> list[dict[str, Any]]:
        """How many questions were answered without passages, and the threshold that decided it."""
        rows = []
        for head, answers in _answering(measured):
            found = self.session.read(answers)
            without = sum(not row.passages for row in found)
            counted = head | {"questions": len(found), "without_passages": without}
            if isinstance(answers, SelectiveAnswers):
                learned = answers.threshold
                counted |= {"retrieval": learned.gate.label, "threshold": learned.value(self.session), "key": learned.key}
            else:
                never = isinstance(answers, ClosedAnswers)
                counted |= {"retrieval": NEVER if never else ALWAYS, "threshold": None, "key": ""}
            rows.append(counted)
        return rows

    def _plan(self, measured: Sequence[Measured]) -> dict[str, Any]:
        """What was planned and what was computed; the two must agree."""
        uses = {one.stage.key: one.uses for one in plan(measured, self.session.has)}
        stages = []
        for key, one in sorted(self.sweep.planned.items(), key=lambda item: (item[1].stage.name, item[0])):
            computed = key in self.session.computed
            if computed == one.found:
                happened = "was computed although the plan had found it" if computed else "was planned but not computed"
                # another process may have computed it between plan and run; only the first is a fault of ours
                if computed:
                    raise StageFailedError(f"stage {one.stage.name} {key[:12]} {happened}")
            stages.append(
                {"stage": one.stage.name, "key": key, "uses": uses.get(key, one.uses), "found": one.found, "computed": computed}
            )
        counts = self.session.counts()
        items = {kind.name: vars(counts[kind.name]) for kind in (EMBEDDINGS, PAIRS, ANSWERS)}
        totals = {
            "planned": len(stages),
            "found": sum(s["found"] for s in stages),
            "computed": sum(s["computed"] for s in stages),
        }
        took = sum(timing.seconds for timing in self.session.timings)
        seconds = {"estimated": round(self.sweep.estimated_seconds or 0.0, 1), "computing": round(took, 1)}
        return {"stages": stages, "items": items, "totals": totals, "seconds": seconds}

    def _timings(self, measured: Sequence[Measured]) -> list[dict[str, Any]]:
        uses = {one.stage.key: one.uses for one in plan(measured, self.session.has)}
        timed: list[Timing] = self.session.timings
        return [
            {"stage": t.stage, "key": t.key, "uses": uses.get(t.key, ""), "computed": 1, "seconds": t.seconds, "tokens": t.tokens}
            | {"items": t.items or "", "seconds_per_item": t.seconds / t.items if t.items else ""}
            for t in timed
        ]

    def _cut(self, measured: Sequence[Measured]) -> dict[str, dict[str, int]]:
        """Prompts, by generator, that were too long for it, and the passages left out of them."""
        found: dict[str, dict[str, int]] = {}
        for one in measured:
            for answers in one.all_answers() if one.answers else ():
                cuts = [row.cut for row in self.session.read(answers) if row.cut]
                if cuts:
                    total = found.setdefault(one.configuration["generator"], {"prompts": 0, "passages": 0})
                    total["prompts"] += len(cuts)
                    total["passages"] += sum(cuts)
        return dict(sorted(found.items()))

    def _manifest(self, rows: Sequence[Result], measured: Sequence[Measured]) -> dict[str, Any]:
        machine, dataset = self.session.machine, self.session.dataset
        backend = backends.choose(machine)
        data = self.settings.dataset
        return {
            "experiment": self.settings.experiment,
            "workbench": __version__,
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "select": {"split": data.select, "metric": self.space.select_by},
            "search": self.settings.search.model_dump(),
            "report": {"split": data.report, "of": self.settings.report.of},
            "baseline": self.space.baseline.id,
            "seed": self.settings.seed,
            "seeds": self.settings.seeds,
            "failures": failures(rows),
            "cut": self._cut(measured),
            "notes": list(self.session.notes),
            "truncation": self._truncation(measured),
            "repeated": {one.configuration["generator"]: self.session.read(one.repeated) for one in measured if one.repeated},
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
            "libraries": {name: library_version(name) for name in LIBRARIES},
            "files": {
                path.name: file_digest(path)
                for path in sorted(self.folder.iterdir())
                if path.is_file() and not path.name.startswith(".")
            },
        }

    def _truncation(self, measured: Sequence[Measured]) -> list[dict[str, Any]]:
        """What each embedder did not read of the passages it embedded; null where its server does not say."""
        names = {one: name for name, one in sorted(self.space.components.embedders.items(), reverse=True)}
        found = []
        for stage in {s.key: s for one in measured for s in one.stages() if isinstance(s, Embeddings)}.values():
            facts = self.session.store.manifest(stage.name, stage.key)["facts"]
            if "truncation" in facts:  # artifacts of older versions do not say
                head = {"embedder": names[stage.encoder.embedder], "chunking": stage.passages.label}
                found.append(head | facts)
        return sorted(found, key=lambda row: (row["embedder"], row["chunking"]))


def _answering(measured: Sequence[Measured]) -> Iterator[tuple[dict[str, Any], Answers]]:
    """Answers with each seed, sorted, and what says whose they are."""
    for one in sorted(measured, key=lambda m: (m.configuration.id, m.split)):
        for answers in one.all_answers() if one.answers else ():
            # the seed of the adapter; nothing else in an answer is random
            seed = answers.writer.adapter.seed if answers.writer.adapter else None
            yield {"configuration": one.configuration.id, "split": one.split, "seed": seed}, answers


def failures(rows: Iterable[Result]) -> dict[str, int]:
    """How many answers have no score, by what went wrong; they stay in every mean as the worst value."""
    failed = {(row.configuration, row.split, row.query_id, row.status) for row in rows if row.status != "ok"}
    return dict(sorted(Counter(status for *_, status in failed).items()))


def _written(value: Any) -> Any:
    """A value of an axis as it stands in a file."""
    if isinstance(value, Chunking) and value.words is None:
        return "whole"
    return value.model_dump() if isinstance(value, Component) else value


def resolved(space: Space, machine: Machine) -> dict[str, Any]:
    """The experiment's file with every default filled in."""
    values = space.settings.model_dump(mode="json", exclude_none=True)
    for family in ("embedders", "retrievers", "rewriters", "expanders", "rerankers", "generators"):
        given = values["components"][family]
        for name, component in getattr(space.components, family).items():
            kind = {"kind": given[name]["kind"]} if "kind" in given[name] else {}
            shown = component.model_dump(mode="json", exclude_none=True)
            # what a component decided by itself, such as the prompts that a model names
            decided = {k: v for k, v in component.settings().items() if v is not None and k not in shown}
            given[name] = shown | decided | kind
    values["axes"] = {axis: [_written(value) for value in options] for axis, options in space.axes.items()}
    values["metrics"]["select_by"] = space.select_by
    # the precisions measured here: served elsewhere, or after another measurement, it has to be in the same
    values["machine"] |= {"precision": machine.precision, "training": machine.for_training().precision}
    return values
