"""Which configurations are measured: on the selection split all, axis by axis, or as a race; on the report split finalists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.errors import InputError
from workbench.evaluation import search
from workbench.evaluation.search import MODELS_FIRST, SearchStep
from workbench.experiment.configuration import Configuration
from workbench.experiment.planner import ConfigurationStages
from workbench.experiment.sweep import Sweep
from workbench.results import tables
from workbench.results.rows import ResultRow

FINALISTS = 4  # winner, its untuned twin, runner-up, baseline


@dataclass(frozen=True)
class Found:
    """What a search measured.

    Attributes:
        rows: every score, sorted.
        measured: configurations measured on the whole selection split, the baseline among them, then those on the report split.
        ranked: configurations by their mean on the selection split, best first; equal means in the order of ids.
        twins: what differs from the best by nothing but its tuning.
        steps: what the search saw on its way.
    """

    rows: list[ResultRow]
    measured: list[ConfigurationStages]
    ranked: list[Configuration]
    twins: list[Configuration]
    steps: list[SearchStep]


class Searcher:
    """Measures what the strategy of an experiment's file wants measured."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.session = sweep.session
        self.space = sweep.space
        self.settings = sweep.settings
        self.split, self.metric = sweep.settings.dataset.select, sweep.space.select_by
        self.by_id = {one.configuration.id: one for one in sweep.selected_on}

    def search(self) -> Found:
        """Measures on the selection split, then the finalists on the report split."""
        planner, report = self.sweep.planner, self.settings.dataset.report
        if self.settings.search.strategy == "grid" and self.settings.report.of == "all":
            # nothing waits for the selection, so both splits go through the queues together
            self.sweep.measure([*self.sweep.selected_on, *(planner.stages(c, report) for c in self.space.configurations)])
        selected, steps = self.select()
        rows = list(self.sweep.results(selected))
        ranked = self._ranked(rows)
        reported = [planner.stages(c, report) for c in self._finalists(ranked)]
        self.sweep.measure(reported)
        rows += self.sweep.results(reported)
        return Found(
            sorted(rows, key=lambda row: tuple(map(str, row))),
            [*selected, *reported],
            ranked,
            self._untuned_twin(ranked[0]),
            steps,
        )

    def expected_finalists(self) -> list[Configuration]:
        """The finalists where the store holds the whole grid's scores; else as many configurations, which cost about the same.

        Reads scores and computes nothing.
        """
        n = len(self.space.configurations) if self.settings.report.of == "all" else FINALISTS
        stages = [stage for one in self.sweep.selected_on for stage in one.stages()]
        if self.settings.search.strategy != "grid" or not all(map(self.session.has, stages)):
            return self.space.configurations[:n]
        return self._finalists(self._ranked(list(self.sweep.results(self.sweep.selected_on))))

    def select(self) -> tuple[list[ConfigurationStages], list[SearchStep]]:
        """Configurations measured on the whole selection split, the baseline among them, and what the search saw on its way."""
        self.sweep.need(self.sweep.selected_on)  # a plan counts the whole grid, of which a strategy may save some
        if self.settings.search.strategy == "grid":
            self.sweep.measure(self.sweep.selected_on)
            return self.sweep.selected_on, []
        return self._greedy() if self.settings.search.strategy == "greedy" else self._race()

    def _ranked(self, rows: Sequence[ResultRow]) -> list[Configuration]:
        """Configurations measured on the selection split by their mean."""
        found = tables.matrices([r for r in rows if r.split == self.split and r.metric == self.metric], self.sweep.groups)
        if not found:
            raise InputError(
                f"metrics.select_by: no query of {self.split!r} is scored by {self.metric!r}; choose another metric or split"
            )
        means = dict(zip(found[0].systems, found[0].values.mean(axis=0), strict=True))
        return sorted((c for c in self.space.configurations if c.id in means), key=lambda c: (-means[c.id], c.id))

    def _finalists(self, ranked: Sequence[Configuration]) -> list[Configuration]:
        """Configurations for the report split: winner, its untuned twin, runner-up and baseline; or all of them."""
        if self.settings.report.of == "all":
            return sorted(ranked, key=lambda c: c.id)
        chosen = [*ranked[:2], self.space.baseline, *self._untuned_twin(ranked[0])]
        return sorted({c.id: c for c in chosen}.values(), key=lambda c: c.id)

    def _untuned_twin(self, winner: Configuration) -> list[Configuration]:
        """The configurations that differ from a tuned one by nothing but the tuning."""
        generators = self.space.components.generators
        name = winner["generator"]
        if name is None or generators[name].lora is None:
            return []
        bare = generators[name].untuned()
        twins = {n for n in self.space.axes["generator"] if generators[n] == bare}
        others = [dict(c.values) | {"generator": name} for c in self.space.configurations]
        return [
            c
            for c, same in zip(self.space.configurations, others, strict=True)
            if c["generator"] in twins and same == dict(winner.values)
        ]

    def _greedy(self) -> tuple[list[ConfigurationStages], list[SearchStep]]:
        """Axis by axis from the baseline."""
        design = {c.id: c.columns() for c in self.space.configurations}
        varying = [axis for axis in self.space.axes if len({point[axis] for point in design.values()}) > 1]
        settings = self.settings
        wished = MODELS_FIRST if settings.search.order == "models first" else [*settings.axes, *varying]
        order = [axis for axis in dict.fromkeys(wished) if axis in varying]
        means: dict[str, float] = {}

        def measured(wanted: Sequence[str]) -> Mapping[str, float]:
            means.update(self._means([c for c in wanted if c not in means]))
            return means

        path = search.greedy(design, measured, self.space.baseline.id, order)
        n = len(self.session.dataset.split(self.split))
        steps = []
        for number, (axis, (end, near)) in enumerate(zip(order, path, strict=True), 1):
            for c in near:
                status, why = ("kept", f"best by {axis}") if c == end else ("dropped", f"not the best by {axis}")
                steps.append(SearchStep(number, c, n, means[c], None, None, status, why))
        why = "no step of the path led past it"
        steps += [SearchStep(len(order), c, 0, None, None, None, "not looked at", why) for c in sorted(design) if c not in means]
        return [self.by_id[c] for c in sorted(means)], steps

    def _means(self, wanted: Sequence[str]) -> dict[str, float]:
        chosen = [self.by_id[c] for c in wanted]
        self.sweep.measure(chosen)
        rows = [row for row in self.sweep.results(chosen) if row.metric == self.metric]
        found = tables.matrices(rows, self.sweep.groups)
        return {c: float(one.column(c).mean()) for one in found for c in one.systems}

    def _race(self) -> tuple[list[ConfigurationStages], list[SearchStep]]:
        """All on growing samples of the questions."""
        self.sweep.before_answers(dict.fromkeys(stage for one in self.by_id.values() for stage in one.stages()))
        groups = [query.group for query in self.session.dataset.split(self.split)]
        steps = search.race(list(self.by_id), groups, self._scores, self.settings.seed)
        last = max(step.step for step in steps)
        left = {step.configuration for step in steps if step.step == last} | {self.space.baseline.id}
        measured = [self.by_id[c] for c in sorted(left)]
        self.sweep.measure(measured)
        return measured, steps

    def _scores(self, wanted: Sequence[str], positions: Sequence[int]) -> np.ndarray:
        """Scores (len(positions), len(wanted)) of configurations on some questions of the split."""
        each = [self.by_id[c].all_answers() for c in wanted]
        stages = list(dict.fromkeys(stage for seeds in each for stage in seeds))
        queries = {query.id: query for query in self.session.dataset.split(self.split)}
        columns, metric = {}, self.sweep.space.answer_metrics[self.metric]
        for stage, rows in self.sweep.sampled(stages, positions).items():
            values = [stage.score(metric, row, queries[row.query_id].answers, self.session) for row in rows]
            columns[stage] = np.array([tables.WORST if value is None else value for value in values])
        return np.column_stack([np.mean([columns[stage] for stage in seeds], axis=0) for seeds in each])
