"""`Experiment`: from a YAML file to a finished run folder, step by step.

The notebooks and the command line call the same three steps: `index`, `finetune`, `compare`. A step computes what the
store lacks and reads the rest, so calling one again, or in another process, costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.experiment import config, results
from workbench.experiment.estimates import Estimator
from workbench.experiment.examples import training_examples
from workbench.experiment.folder import Run
from workbench.experiment.plan import (
    Configuration,
    Measured,
    PlannedStage,
    Planner,
    Trained,
    answer_groups,
    closure,
    plan,
    scoring_groups,
)
from workbench.experiment.progress import Progress, for_terminal
from workbench.experiment.results import Result, SeedResult
from workbench.experiment.searcher import Searcher
from workbench.experiment.session import Session
from workbench.experiment.stages import (
    Adapter,
    Answers,
    DenseIndex,
    Passages,
    Repeated,
    Reranked,
    ScoresStage,
    Stage,
    TextIndex,
    Threshold,
)
from workbench.experiment.store import Store
from workbench.experiment.writer import RunWriter, new_folder
from workbench.models.lora import Example

LATE = (Answers, Threshold, ScoresStage, Repeated)  # stages that come after retrieval and fine-tuning
FINALISTS = 4  # winner, its untuned twin, runner-up, baseline


class Experiment:
    """An experiment's file, its dataset, and the store it computes into.

    Attributes:
        settings: the file.
        session: computes stages.
        planner: knows configurations and their stages.
        runs: folder of all runs.
        estimated_seconds: what the plan said before the first step; None until then.
        planned: key -> stage as the plan found it when it was first asked for.
    """

    def __init__(self, settings: config.ExperimentSettings, runs: Path, progress: Progress | None = None) -> None:
        self.settings = settings
        self.runs = Path(runs)
        dataset, machine = settings.dataset.load(), settings.machine.resolve()
        self.planner = Planner(settings, dataset, machine, Path())
        self.session = Session(Store(self.runs / ".store"), dataset, machine, progress)
        self.estimated_seconds: float | None = None
        self.planned: dict[str, PlannedStage] = {}

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
        self.prepare(wanted)
        return [self._index_facts(stage) for stage in wanted if isinstance(stage, (TextIndex, DenseIndex))]

    def rankings(self) -> list[dict[str, Any]]:
        """Quality of every distinct ranking on the selection split: one row for each and metric, with intervals."""
        first = {one.ranking.key: one for one in reversed(self.selected_on) if one.ranking_scores}
        scored = {key: one.ranking_scores for key, one in first.items()}
        self.ensure(scored.values())
        split = self.settings.dataset.select
        rows = [Result(key, split, *score) for key, stage in scored.items() for score in self.session.read(stage)]
        axes = [axis for axis in ("chunking", "rewriting", "expansion", "retriever", "reranker") if axis in self.planner.axes]
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
            "seed": adapter.seed,
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
        ranking = self.planner.ranking(self.planner.baseline, split)
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
        report = self.settings.dataset.report
        if self.settings.search.strategy == "grid" and self.settings.report.of == "all":
            # nothing waits for the selection, so both splits go through the queues together
            self.measure([*self.selected_on, *(self.planner.measured(c, report) for c in self.configurations)])
        selected, steps = Searcher(self).search()
        rows = list(self.results(selected))
        reported = [self.planner.measured(c, report) for c in self.finalists(rows)]
        self.measure(reported)
        rows += self.results(reported)
        folder = new_folder(self.runs / self.settings.experiment, started, self.settings)
        self.estimator.learn(self.session.timings, self.session.counts())
        rows.sort(key=lambda row: tuple(map(str, row)))
        RunWriter(self, folder, started, steps).write(rows, [*selected, *reported])
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
            self.planned.setdefault(one.stage.key, one)
        return [one.stage for one in planned]

    def ensure(self, stages: Iterable[Stage]) -> None:
        """Computes the stages that the store lacks, in their order."""
        for stage in stages:
            self.session.ensure(stage)

    def measure(self, measured: Sequence[Measured]) -> None:
        """Computes what configurations need: first all that comes before answers, then one queue for each generator."""
        missing = [s for s in self.need(measured) if not self.session.has(s)]
        self.prepare(s for s in missing if not isinstance(s, LATE))
        self.learn(missing)
        self.answer(missing)
        self.ensure(missing)

    def learn(self, stages: Iterable[Stage]) -> None:
        """Learns the thresholds among stages, from answers to train questions that go through one queue for each generator."""
        thresholds = [s for s in stages if isinstance(s, Threshold) and not self.session.has(s)]
        self.answer(dict.fromkeys(part for one in thresholds for part in (one.open, one.closed)))
        self.ensure(thresholds)

    def answer(self, stages: Iterable[Stage]) -> None:
        """Computes the answers among stages, in one queue for each generator."""
        for group in answer_groups([s for s in stages if not self.session.has(s)]):
            self.session.generate_together(group)
            self.ensure(group)

    def prepare(self, stages: Iterable[Stage]) -> None:
        """Computes what comes before answers: first what needs no reranking, then the pairs of all stages with one scorer."""
        missing = [s for s in stages if not self.session.has(s)]
        self.ensure(s for s in missing if not isinstance(s, Reranked))
        for group in scoring_groups(missing):
            self.session.score_together(group)
        self.ensure(missing)

    def results(self, measured: Sequence[Measured]) -> Iterator[Result]:
        """Every score of configurations; means over the seeds where there are several."""
        for one in measured:
            stages = (one.ranking_scores, None if one.trained else one.answer_scores)
            for score in (score for stage in stages if stage for score in self.session.read(stage)):
                yield Result(one.configuration.id, one.split, *score)
            for rows in zip(*(self._seed_results(one, trained) for trained in one.trained), strict=True):
                yield results.over_seeds(rows)

    def seed_results(self, measured: Sequence[Measured]) -> Iterator[SeedResult]:
        """Scores with each of several seeds."""
        for one in measured:
            for trained in one.trained:
                yield from self._seed_results(one, trained)

    def _seed_results(self, one: Measured, trained: Trained) -> Iterator[SeedResult]:
        for score in self.session.read(trained.scores):
            yield SeedResult(one.configuration.id, one.split, trained.seed, *score)

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
