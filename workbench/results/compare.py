"""Systems compared by one metric, as a table to read and to publish; from runs, or from anybody's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np

from workbench.errors import InputError, unknown
from workbench.evaluation import statistics
from workbench.evaluation.families import Plan, Plans
from workbench.results import tables
from workbench.results.display import Displayed
from workbench.results.rows import ComparisonRow
from workbench.results.run import Run
from workbench.results.tables import Bools, Floats, Scores
from workbench.results.verdict import beside_the_best, shown
from workbench.results.words import PLAIN, POINTS, Unit


class Compared(Displayed):
    """Systems compared by one metric on one split.

    Of a run, pairs are those of its tables. Of other scores all pairs are exploratory, or where a baseline is named, what is
    held against it is a family of its own. Seeds and formulas are those of `workbench.evaluation.families`.
    """

    def __init__(
        self,
        scores: Scores,
        names: Mapping[str, str] | None = None,
        baseline: str | None = None,
        seed: int = 0,
        rows: Sequence[ComparisonRow] = (),
        matters: float | None = None,
    ) -> None:
        """Compares.

        Args:
            scores: of at least two systems.
            names: system -> how it is shown; default: as it is.
            baseline: what the others are held against (system or name); default: the best system.
            seed: of the random flips.
            rows: what was concluded of all pairs before; default: they are compared now.
            matters: differences up to this size do not matter, in the metric's own unit.

        Raises:
            InputError: fewer than two systems, or an unknown baseline.
        """
        if len(scores.systems) < 2:
            raise InputError(f"only {scores.systems[0]!r} was measured by {scores.metric!r}; a comparison needs two systems")
        self.scores = scores
        self.names = dict(names or {system: system for system in scores.systems})
        self.seed = seed
        self.matters = matters
        self.order = self._order()
        self.planned = baseline is not None
        self.baseline = self._find(baseline) if baseline else self.order[0]
        self._rows = rows

    def __repr__(self) -> str:
        return f"{len(self.order)} setups compared by {self.scores.metric} on {self.scores.split}"

    def _order(self) -> list[str]:
        means = self.scores.values.mean(axis=0)
        return [self.scores.systems[j] for j in sorted(range(len(means)), key=lambda j: (-means[j], self.scores.systems[j]))]

    def _find(self, name: str) -> str:
        fitting = [system for system, shown in self.names.items() if name in (system, shown)]
        if len(fitting) != 1:
            raise unknown("baseline", name, [self.names[s] for s in self.scores.systems])
        return fitting[0]

    @property
    def unit(self) -> Unit:
        """How means and differences are shown: in points of 100 for a metric that runs from 0 to 1, or seems to."""
        return POINTS if self.scores.worst >= 0 and self.scores.perfect <= 1 else PLAIN

    @cached_property
    def pairs(self) -> list[ComparisonRow]:
        """All pairs, the better one first."""
        found = {frozenset((row.a, row.b)): row for row in self._rows or self._compare()}
        pairs = [(a, b, found[frozenset((a, b))]) for a, b in combinations(self.order, 2)]
        return [row if row.a == a else row.turned() for a, _, row in pairs]

    def _compare(self) -> list[ComparisonRow]:
        scores = self.scores
        plan = {scores.metric: Plan(self.baseline)} if self.planned else None
        values, by_seed = {scores.metric: scores.values}, tables.seeds_of([scores])
        found = statistics.compare_all(
            values, scores.systems, scores.groups, self.seed, ids=scores.queries, by_seed=by_seed, plans=plan
        )
        return [tables.comparison_row(one, scores.split, scores.metric) for one in found[scores.metric]]

    @cached_property
    def against_baseline(self) -> dict[str, ComparisonRow]:
        """System -> its difference from the baseline."""
        rows = [row.turned() if row.a == self.baseline else row for row in self.pairs if self.baseline in (row.a, row.b)]
        found = {row.a: row for row in rows}
        return {system: found[system] for system in self.order if system != self.baseline}

    @cached_property
    def beside_the_best(self) -> dict[str, str]:
        """System -> its place; see `workbench.results.verdict.beside_the_best`."""
        return beside_the_best(self.order, {row.b: row for row in self.pairs if row.a == self.order[0]}.get)

    @cached_property
    def letters(self) -> dict[str, str]:
        """System -> letters; two systems share one exactly when they are not distinguishable."""
        return statistics.letters([(row.a, row.b) for row in self.pairs if shown(row)], self.order)

    @cached_property
    def optimism(self) -> float:
        """By how much the best one's margin over the baseline is flattered if it was chosen on these very queries."""
        scores = self.scores
        return statistics.predicted_optimism(scores.values, scores.systems.index(self.baseline), scores.groups, self.seed)

    def standing(self, system: str) -> Standing:
        """What there is to say of one system."""
        j = self.scores.systems.index(system)
        values, failed = self.scores.values[:, j], self.scores.failed[:, j]
        low, high = self.scores.mean_interval(system)
        return Standing(self.names[system], float(values.mean()), low, high, int(failed.sum()))


@dataclass(frozen=True)
class Standing:
    """One system: shown name, mean with its 95 % interval, failures."""

    name: str
    mean: float
    low: float
    high: float
    failed: int


class _Measured(NamedTuple):
    """One configuration's scores in one run."""

    run: Run
    system: str
    values: Floats
    failed: Bools
    seeds: Floats | None

    @property
    def label(self) -> str:
        return self.run.labels[self.system]


def of_runs(
    runs: Sequence[Run],
    split: str | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    systems: Sequence[str] = (),
) -> Compared:
    """Configurations of one or several runs, by their labels.

    A configuration with the same scores in several runs appears once; two that share a label are named with their run.

    Args:
        runs: finished runs on one dataset.
        split: default: the report split of the first run.
        metric: default: the one the first run selected by.
        baseline: default: the first run's, or where it is not among `systems` the first of these.
        systems: only these: ids of configurations, beginnings of them, or labels; default: all.

    Raises:
        InputError: runs on other documents, questions or judgements; a split or metric that a run did not measure; a system that
            none or several of them have.
    """
    split, metric = split or runs[0].report_split, metric or runs[0].select[1]
    for run in runs[1:]:
        check_same_dataset(runs[0], run, split)
    parts = [run.scores(split, metric) for run in runs]
    found: list[_Measured] = []
    for run, part in zip(runs, parts, strict=True):
        for j, system in enumerate(part.systems):
            one = _Measured(run, system, part.values[:, j], part.failed[:, j], part.seeds(system))
            if not any(_same(one, other) for other in found):
                found.append(one)
    chosen = [_named(found, name) for name in systems]
    found = [one for one in found if not chosen or one in chosen]
    labels = [one.label for one in found]
    several = [labels.count(label) > 1 for label in labels]
    names = {f"{one.system} {one.run.folder.name}": _name(one, more) for one, more in zip(found, several, strict=True)}
    values, failed = np.stack([one.values for one in found], axis=1), np.stack([one.failed for one in found], axis=1)
    scores = replace(parts[0], systems=tuple(names), values=values, failed=failed, by_seed=_by_seed(found))
    first, alone = runs[0], {one.run.folder for one in found} == {runs[0].folder}
    rows = _rows_of(first, split, metric) if alone else ()
    base = baseline or f"{first.manifest['baseline']} {first.folder.name}"
    if chosen and not baseline and base not in names:
        base = f"{chosen[0].system} {chosen[0].run.folder.name}"
    return Compared(scores, names, base, first.manifest["seed"], rows, first.matters)


def _named(found: Sequence[_Measured], name: str) -> _Measured:
    """The one that a name means.

    Raises:
        InputError: none, or several.
    """
    exact = [one for one in found if name in (one.system, one.label)]
    fitting = exact or [one for one in found if name and one.system.startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        those = ", ".join(f"{one.system} of run {one.run.folder.name}" for one in fitting)
        raise InputError(
            f"several systems are called {name!r} ({those}); name one by its id, and each run that has another by itself"
        )
    raise unknown("system", name, [one.label for one in found])


def _rows_of(run: Run, split: str, metric: str) -> list[ComparisonRow]:
    """What the tables of a run say of its pairs; where an earlier version wrote them, concluded now. By names as in `of_runs`."""
    rows = [row for row in run.comparisons if (row.split, row.metric) == (split, metric)]
    if not all(row.family for row in rows):
        plans = Plans(run.report_split, run.select[1], run.manifest["baseline"], run.best)
        rows = tables.comparisons([run.scores(split, metric)], run.manifest["seed"], plans)
    return [row._replace(a=f"{row.a} {run.folder.name}", b=f"{row.b} {run.folder.name}") for row in rows]


def _by_seed(found: Sequence[_Measured]) -> Floats | None:
    """Means (n_seeds, len(found)) under each seed, the same under all for what was measured with one; None if all were."""
    counts = {len(one.seeds): one.run.folder for one in found if one.seeds is not None}
    if len(counts) > 1:
        said = ", ".join(f"{n} in {folder}" for n, folder in sorted(counts.items()))
        raise InputError(
            f"the runs repeat their trainings with different numbers of seeds ({said}); compare runs with equal ones"
        )
    if not counts:
        return None
    n_seeds = next(iter(counts))
    return np.stack([np.full(n_seeds, one.values.mean()) if one.seeds is None else one.seeds for one in found], axis=1)


def _same(a: _Measured, b: _Measured) -> bool:
    return a.system == b.system and np.array_equal(a.values, b.values) and np.array_equal(a.failed, b.failed)


def _name(one: _Measured, several: bool) -> str:
    return f"{one.label} ({one.run.manifest['experiment']} {one.run.folder.name})" if several else one.label


def check_same_dataset(first: Run, other: Run, split: str) -> None:
    """Refuses runs whose scores on a split cannot be paired.

    Raises:
        InputError: other documents, questions or judgements.
    """
    measured, own = (_digests(run, split) for run in (first, other))
    for part, a in measured.items():
        b = own[part]
        if a != b:
            raise InputError(
                f"{other.folder} was measured on other {part} than {first.folder} ({split}: {str(b)[:12]}, not {str(a)[:12]}): "
                "differences of paired scores need one dataset; compare them in separate calls"
            )


def _digests(run: Run, split: str) -> dict[str, str | None]:
    """Digests of what a run asked and searched on a split."""
    dataset = run.manifest["dataset"]
    queries, judgements = dataset["queries"].get(split), dataset["judgements"].get(split)
    return {"documents": dataset["documents"], "queries": queries, "judgements": judgements}


def pair_rows(compared: Compared) -> list[ComparisonRow]:
    """All pairs as rows of comparisons.csv, by shown names."""
    names = compared.names
    return [row._replace(a=names[row.a], b=names[row.b]) for row in compared.pairs]
