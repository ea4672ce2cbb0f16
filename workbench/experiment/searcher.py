"""Searches an experiment's configurations on its selection split: all of them, axis by axis, or as a race."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import InputError
from workbench.evaluation import answers as answer_metrics
from workbench.experiment import results, search
from workbench.experiment.plan import LATE, Measured, answer_groups
from workbench.experiment.search import MODELS_FIRST, Step

if TYPE_CHECKING:
    from workbench.experiment.run import Experiment


class Searcher:
    """Measures what the strategy of an experiment's file wants measured."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.session = experiment.session
        self.planner = experiment.planner
        self.split, self.metric = experiment.settings.dataset.select, experiment.planner.select_by
        self.by_id = {one.configuration.id: one for one in experiment.selected_on}

    def search(self) -> tuple[list[Measured], list[Step]]:
        """Configurations measured on the whole selection split, the baseline among them, and what the search saw on its way."""
        strategy = self.experiment.settings.search.strategy
        self.experiment.need(self.experiment.selected_on)  # a plan counts the whole grid, of which a strategy may save some
        if strategy == "grid":
            self.experiment.measure(self.experiment.selected_on)
            return self.experiment.selected_on, []
        return self.greedy() if strategy == "greedy" else self.race()

    def greedy(self) -> tuple[list[Measured], list[Step]]:
        """Axis by axis from the baseline."""
        design = {c.id: c.columns() for c in self.planner.configurations}
        varying = [axis for axis in self.planner.axes if len({point[axis] for point in design.values()}) > 1]
        settings = self.experiment.settings
        wished = MODELS_FIRST if settings.search.order == "models first" else [*settings.axes, *varying]
        order = [axis for axis in dict.fromkeys(wished) if axis in varying]
        means: dict[str, float] = {}

        def measured(wanted: Sequence[str]) -> Mapping[str, float]:
            means.update(self._means([c for c in wanted if c not in means]))
            return means

        path = search.greedy(design, measured, self.planner.baseline.id, order)
        n = len(self.session.dataset.split(self.split))
        steps = []
        for number, (axis, (end, near)) in enumerate(zip(order, path, strict=True), 1):
            for c in near:
                status, why = ("kept", f"best by {axis}") if c == end else ("dropped", f"not the best by {axis}")
                steps.append(Step(number, c, n, means[c], None, None, status, why))
        why = "no step of the path led past it"
        steps += [Step(len(order), c, 0, None, None, None, "not looked at", why) for c in sorted(design) if c not in means]
        return [self.by_id[c] for c in sorted(means)], steps

    def _means(self, wanted: Sequence[str]) -> dict[str, float]:
        chosen = [self.by_id[c] for c in wanted]
        self.experiment.measure(chosen)
        rows = [row for row in self.experiment.results(chosen) if row.metric == self.metric]
        found = results.matrices(rows, self.experiment.groups)
        return {c: float(one.column(c).mean()) for one in found for c in one.systems}

    def race(self) -> tuple[list[Measured], list[Step]]:
        """All on growing samples of the questions.

        Raises:
            InputError: the experiment chooses by a ranking metric.
        """
        if self.metric not in answer_metrics.NAMES:
            raise InputError(
                f"search.strategy: 'racing' saves answers, but metrics.select_by is {self.metric!r}, which needs none; use 'grid'"
            )
        stages = dict.fromkeys(stage for one in self.by_id.values() for stage in one.stages())
        self.experiment.prepare(stage for stage in stages if not isinstance(stage, LATE))
        self.experiment.learn(stages)
        groups = [query.group for query in self.session.dataset.split(self.split)]
        steps = search.race(list(self.by_id), groups, self._scores, self.experiment.settings.seed)
        last = max(step.step for step in steps)
        left = {step.configuration for step in steps if step.step == last} | {self.planner.baseline.id}
        measured = [self.by_id[c] for c in sorted(left)]
        self.experiment.measure(measured)
        return measured, steps

    def _scores(self, wanted: Sequence[str], positions: Sequence[int]) -> np.ndarray:
        """Scores (len(positions), len(wanted)) of configurations on some questions of the split."""
        each = [self.by_id[c].all_answers() for c in wanted]
        stages = list(dict.fromkeys(stage for seeds in each for stage in seeds))
        prompts = {stage: [stage.prompts(self.session)[i] for i in positions] for stage in stages}
        for group in answer_groups(stages):
            self.session.generate_queue(group[0], [prompt.text for stage in group for prompt in prompts[stage]])
        queries = {query.id: query for query in self.session.dataset.split(self.split)}
        columns = {}
        for stage in stages:
            generations = self.session.generated(stage, [prompt.text for prompt in prompts[stage]])
            rows = [stage.answer(prompt, found) for prompt, found in zip(prompts[stage], generations, strict=True)]
            values = [stage.score(self.metric, row, queries[row.query_id].answers, self.session) for row in rows]
            columns[stage] = np.array([results.WORST if value is None else value for value in values])
        return np.column_stack([np.mean([columns[stage] for stage in seeds], axis=0) for seeds in each])
