"""Systems compared by one metric, as a table to read and to publish; from runs, or from anybody's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from workbench.errors import InputError, unknown
from workbench.evaluation import statistics
from workbench.results import tables
from workbench.results.rows import ComparisonRow
from workbench.results.run import Run
from workbench.results.tables import Bools, Floats, Scores

ALPHA = 0.05  # two systems whose Holm-adjusted p is below it do not share a letter


class Compared:
    """Systems compared by one metric on one split.

    Two families of tests: every system against the baseline, and all pairs (whence the letters); p is adjusted within
    each. Seeds and formulas are those of `workbench.evaluation.statistics`.
    """

    def __init__(
        self, scores: Scores, names: Mapping[str, str] | None = None, baseline: str | None = None, seed: int = 0
    ) -> None:
        """Compares.

        Args:
            scores: of at least two systems.
            names: system -> how it is shown; default: as it is.
            baseline: what the others are held against (system or name); default: the best system.
            seed: of the random flips.

        Raises:
            InputError: fewer than two systems, or an unknown baseline.
        """
        if len(scores.systems) < 2:
            raise InputError(f"only {scores.systems[0]!r} was measured by {scores.metric!r}; a comparison needs two systems")
        self.scores = scores
        self.names = dict(names or {system: system for system in scores.systems})
        self.seed = seed
        self.order = self._order()
        self.baseline = self._find(baseline) if baseline else self.order[0]

    def _order(self) -> list[str]:
        means = self.scores.values.mean(axis=0)
        return [self.scores.systems[j] for j in sorted(range(len(means)), key=lambda j: (-means[j], self.scores.systems[j]))]

    def _find(self, name: str) -> str:
        fitting = [system for system, shown in self.names.items() if name in (system, shown)]
        if len(fitting) != 1:
            raise unknown("baseline", name, [self.names[s] for s in self.scores.systems])
        return fitting[0]

    @cached_property
    def pairs(self) -> list[statistics.PairedComparison]:
        """All pairs, the better one first."""
        return self._compare(None)

    @cached_property
    def against_baseline(self) -> dict[str, statistics.PairedComparison]:
        """System -> its difference from the baseline."""
        found = self._compare([(system, self.baseline) for system in self.order if system != self.baseline])
        return {one.a: one for one in found}

    def _compare(self, pairs: Sequence[tuple[str, str]] | None) -> list[statistics.PairedComparison]:
        columns = [self.scores.systems.index(system) for system in self.order]
        scores = self.scores
        values = {scores.metric: scores.values[:, columns]}
        by_seed = {metric: means[:, columns] for metric, means in tables.seeds_of([scores]).items()}
        found = statistics.compare_all(values, self.order, scores.groups, self.seed, pairs, ids=scores.queries, by_seed=by_seed)
        return found[scores.metric]

    @cached_property
    def letters(self) -> dict[str, str]:
        """System -> letters; two systems share one exactly when they are not distinguishable."""
        return statistics.letters([(one.a, one.b) for one in self.pairs if one.p_holm < ALPHA], self.order)

    @cached_property
    def optimism(self) -> float:
        """By how much the best one's margin over the baseline is flattered if it was chosen on these very queries."""
        scores = self.scores
        return statistics.predicted_optimism(scores.values, scores.systems.index(self.baseline), scores.groups, self.seed)

    def standing(self, system: str) -> Standing:
        """What there is to say of one system."""
        j = self.scores.systems.index(system)
        values, failed = self.scores.values[:, j], self.scores.failed[:, j]
        low, high = statistics.mean_interval(values, self.scores.groups, by_seed=self.scores.seeds(system))
        return Standing(self.names[system], float(values.mean()), low, high, int(failed.sum()), self.needed_n(system))

    def needed_n(self, system: str) -> float:
        """How many queries would show the difference seen from the baseline with 80 % power; nan for the baseline."""
        gaps, seeds = self.scores.difference(system, self.baseline)
        return statistics.needed_n(gaps, self.scores.groups, by_seed=seeds)


@dataclass(frozen=True)
class Standing:
    """One system: shown name, mean with its 95 % interval, failures, queries needed to tell it from the baseline."""

    name: str
    mean: float
    low: float
    high: float
    failed: int
    needed_n: float


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


def of_runs(runs: Sequence[Run], split: str | None = None, metric: str | None = None, baseline: str | None = None) -> Compared:
    """All configurations of one or several runs, by their labels.

    A configuration with the same scores in several runs appears once; two that share a label are named with their run.

    Args:
        runs: finished runs on one dataset.
        split: default: the report split of the first run.
        metric: default: the one the first run selected by.
        baseline: default: the first run's.

    Raises:
        InputError: runs on other documents, questions or judgements; a split or metric that a run did not measure.
    """
    split, metric = split or runs[0].report_split, metric or runs[0].select[1]
    for run in runs[1:]:
        _check_same_dataset(runs[0], run, split)
    parts = [run.scores(split, metric) for run in runs]
    found: list[_Measured] = []
    for run, part in zip(runs, parts, strict=True):
        for j, system in enumerate(part.systems):
            one = _Measured(run, system, part.values[:, j], part.failed[:, j], part.seeds(system))
            if not any(_same(one, other) for other in found):
                found.append(one)
    labels = [one.label for one in found]
    several = [labels.count(label) > 1 for label in labels]
    names = {f"{one.system} {one.run.folder.name}": _name(one, more) for one, more in zip(found, several, strict=True)}
    values, failed = np.stack([one.values for one in found], axis=1), np.stack([one.failed for one in found], axis=1)
    scores = replace(parts[0], systems=tuple(names), values=values, failed=failed, by_seed=_by_seed(found))
    first = runs[0].manifest
    return Compared(scores, names, baseline or f"{first['baseline']} {runs[0].folder.name}", first["seed"])


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


def _check_same_dataset(first: Run, other: Run, split: str) -> None:
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
    names, scores = compared.names, compared.scores
    return [
        ComparisonRow(names[one.a], names[one.b], scores.split, scores.metric, one.n, *tables.figures(one))
        for one in compared.pairs
    ]
