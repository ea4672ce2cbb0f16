"""Scores -> the tables of a run: results, leaderboard, comparisons, effects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from workbench.evaluation import statistics
from workbench.evaluation.families import FEW_GROUPS, Plans
from workbench.results.rows import (
    ComparisonRow,
    EffectRow,
    FinalistRow,
    InteractionRow,
    LeaderboardRow,
    ResultRow,
    SeedRow,
    SelectionRow,
    SliceRow,
)

C = TypeVar("C")
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

WORST, PERFECT = 0.0, 1.0  # of every metric the workbench computes

Design = Mapping[str, Mapping[str, str]]  # configuration id -> axis -> value
# difference, its t interval, p, Holm's p, smallest detectable difference
Figures = tuple[float, float | None, float | None, float | None, float | None, float | None]
# family, adjusted p, interval, whether it is supported, queries needed
Conclusion = tuple[str, float | None, float | None, float | None, str, float | None]


def over_seeds(rows: Sequence[SeedRow]) -> ResultRow:
    """The result of a query by a metric: the mean over seeds, failures as the worst value; failed where all failed."""
    first, failed = rows[0], [row.status for row in rows if row.value is None]
    value = None if len(failed) == len(rows) else sum(WORST if r.value is None else r.value for r in rows) / len(rows)
    status = f"{failed[0]} with {len(failed)} of {len(rows)} seeds" if failed else "ok"
    return ResultRow(first.configuration, first.split, first.query_id, first.metric, value, status)


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of several configurations on the same queries of one split, by one metric.

    Attributes:
        metric: its name.
        split: the split.
        systems: configuration ids, column order.
        queries: query ids, row order.
        groups: group of each query.
        values: float64 (n_queries, n_systems); a failure holds `worst`.
        failed: bool, same shape.
        worst: the metric's worst value.
        perfect: its best value.
        by_seed: float64 (n_seeds, n_systems), means under each seed; None: no system was measured with several.
        scaled: whether `worst` and `perfect` are the metric's own; else they are the smallest and the largest value seen.
    """

    metric: str
    split: str
    systems: tuple[str, ...]
    queries: tuple[str, ...]
    groups: tuple[str, ...]
    values: Floats
    failed: Bools
    worst: float = WORST
    perfect: float = PERFECT
    by_seed: Floats | None = None
    scaled: bool = True

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The smallest and the largest value of the metric: 0 and 1 where it seems to run between these, None if not known."""
        if self.scaled:
            return self.worst, self.perfect
        return (WORST, PERFECT) if self.worst >= WORST and self.perfect <= PERFECT else None

    def mean_interval(self, system: str) -> statistics.Interval:
        """The 95 % interval of a system's mean, inside the bounds of the metric where they are known."""
        return statistics.mean_interval(self.column(system), self.groups, by_seed=self.seeds(system), bounds=self.bounds)

    def column(self, system: str) -> Floats:
        """Scores of one system, float64 (n_queries,)."""
        return self.values[:, self.systems.index(system)]

    def seeds(self, system: str) -> Floats | None:
        """Means of one system under each seed, float64 (n_seeds,), or None."""
        return None if self.by_seed is None else self.by_seed[:, self.systems.index(system)]

    def difference(self, a: str, b: str) -> tuple[Floats, Floats | None]:
        """Scores of a less those of b, float64 (n_queries,); the same of their means under each seed, (n_seeds,), or None."""
        gaps, first, second = self.column(a) - self.column(b), self.seeds(a), self.seeds(b)
        return gaps, None if first is None or second is None else first - second


def matrices(results: Sequence[ResultRow], groups: Mapping[str, str], seeds: Sequence[SeedRow] = ()) -> list[Scores]:
    """Results as matrices, one for each split and metric, sorted.

    Args:
        results: rows; every configuration of a split has the same queries.
        groups: query id -> group.
        seeds: what the results of configurations with several seeds are means of.
    """
    means = _means_by_seed(seeds)
    cells: dict[tuple[str, str], dict[tuple[str, str], float | None]] = {}
    for row in results:
        cells.setdefault((row.split, row.metric), {})[row.query_id, row.configuration] = row.value
    found = []
    for (split, metric), values in sorted(cells.items()):
        queries = tuple(sorted({query for query, _ in values}))
        systems = tuple(sorted({system for _, system in values}))
        table = np.array([[values[q, s] if values[q, s] is not None else np.nan for s in systems] for q in queries], float)
        failed = np.isnan(table)
        named = tuple(groups[q] for q in queries)
        one = Scores(metric, split, systems, queries, named, np.where(failed, WORST, table), failed)
        random = {system: means[split, metric, system] for system in systems if (split, metric, system) in means}
        found.append(replace(one, by_seed=_by_seed(one, random)) if random else one)
    return found


def _means_by_seed(rows: Iterable[SeedRow]) -> dict[tuple[str, str, str], list[float]]:
    """Split, metric and configuration -> means under each seed, in the order of the seeds; failures are the worst value."""
    values: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    for r in rows:
        by_seed = values.setdefault((r.split, r.metric, r.configuration), {})
        by_seed.setdefault(r.seed, []).append(WORST if r.value is None else r.value)
    return {key: [float(np.mean(by_seed[seed])) for seed in sorted(by_seed)] for key, by_seed in values.items()}


def _by_seed(scores: Scores, random: Mapping[str, Sequence[float]]) -> Floats:
    """Means (n_seeds, n_systems); those of a system without chance are the same under each seed."""
    n_seeds = len(next(iter(random.values())))
    fixed = scores.values.mean(axis=0)
    return np.column_stack([random.get(system, [fixed[j]] * n_seeds) for j, system in enumerate(scores.systems)])


def leaderboard(scores: Iterable[Scores]) -> list[LeaderboardRow]:
    """Mean, interval, failures and best case of every configuration by every metric."""
    rows = []
    for one in scores:
        for j, system in enumerate(one.systems):
            column, failed = one.values[:, j], one.failed[:, j]
            low, high = one.mean_interval(system)
            best = float(np.where(failed, one.perfect, column).mean())
            counts = len(column), int(failed.sum())
            rows.append(
                LeaderboardRow(system, one.split, one.metric, float(column.mean()), *counts, known(low), known(high), best)
            )
    return sorted(rows, key=lambda row: (row.split, row.metric, row.configuration))


def comparisons(scores: Sequence[Scores], seed: int, plans: Plans | None = None) -> list[ComparisonRow]:
    """All pairs of configurations by every metric, each in its family of tests; Holm's p over the pairs of a split and metric.

    Args:
        scores: of every split and metric.
        seed: of the random sign flips.
        plans: what was planned before; without it all pairs are exploratory.
    """
    rows = []
    for same in _same_queries(scores):
        one = same[0]
        values, by_seed = {s.metric: s.values for s in same}, seeds_of(same)
        named = {s.metric: plans.plan(s.split, s.metric) for s in same} if plans else None
        found = statistics.compare_all(values, one.systems, one.groups, seed, ids=one.queries, by_seed=by_seed, plans=named)
        for metric, pairs in found.items():
            rows += [comparison_row(c, one.split, metric) for c in pairs]
    return sorted(rows, key=lambda row: (row.split, row.metric, row.a, row.b))


def comparison_row(found: statistics.PairedComparison, split: str, metric: str) -> ComparisonRow:
    """A comparison as a row of comparisons.csv."""
    return ComparisonRow(found.a, found.b, split, metric, found.n, *figures(found), *conclusion(found))


def finalists(compared: Sequence[ComparisonRow], split: str, baseline: str) -> list[FinalistRow]:
    """What was measured on the report split less the baseline; Holm's p over these few differences by each metric.

    Args:
        compared: rows of comparisons.csv.
        split: the report split.
        baseline: id of the configuration that the others are held against.
    """
    pairs = [row for row in compared if row.split == split and baseline in (row.a, row.b)]
    rows = []
    for metric in dict.fromkeys(row.metric for row in pairs):
        same = [row.turned() if row.a == baseline else row for row in pairs if row.metric == metric]
        adjusted = statistics.holm([math.nan if row.p is None else row.p for row in same])
        for row, p in zip(same, adjusted.tolist(), strict=True):
            older = row.n, row.difference, row.ci_low, row.ci_high, row.p, known(p), row.smallest_detectable
            tested = row.family, row.p_adjusted, row.low, row.high, row.supported
            rows.append(FinalistRow(row.a, row.b, split, metric, *older, row.n_needed, *tested))
    return sorted(rows, key=lambda row: (row.metric, row.configuration))


def slices(
    results: Sequence[ResultRow],
    groups: Mapping[str, str],
    seeds: Sequence[SeedRow],
    columns: Mapping[str, Mapping[str, str]],
    plans: Plans,
    seed: int,
) -> list[SliceRow]:
    """Means of all configurations on each slice of the questions, and the planned comparisons on each.

    Compared are, on every split, what `plans` compares on the report split: the finalists with the baseline, and the one chosen
    with its untuned twins. A metric that measures no question of a slice has no rows there.

    Args:
        results: rows; every configuration of a split has the same queries.
        groups: query id -> group.
        seeds: what the results of configurations with several seeds are means of.
        columns: column -> query id -> value.
        plans: which comparisons were planned.
        seed: of the random sign flips.
    """
    parts = [
        (column, value, part) for column, values in columns.items() for value, part in _parts(results, groups, seeds, values)
    ]
    finalists = sorted({row.configuration for row in results if row.split == plans.split})
    pairs = _planned(finalists, plans)
    rows: list[SliceRow] = []
    for whole in matrices(results, groups):
        same = [one for one in parts if (one[2].split, one[2].metric) == (whole.split, whole.metric)]
        there = [pair for pair in pairs if set(pair) <= set(whole.systems)]
        at = {query: i for i, query in enumerate(whole.queries)}
        named = [statistics.Slice(np.array([at[q] for q in part.queries], dtype=np.intp), part.by_seed) for *_, part in same]
        found = statistics.compare_slices(whole.values, whole.systems, named, there, whole.groups, seed, whole.queries)
        for (column, value, part), compared in zip(same, found, strict=True):
            rows += _slice_rows(column, value, part, compared)
    return sorted(rows, key=lambda row: row[:6])


def _parts(
    results: Sequence[ResultRow], groups: Mapping[str, str], seeds: Sequence[SeedRow], values: Mapping[str, str]
) -> Iterator[tuple[str, Scores]]:
    """Value of a column and the scores on its questions, for every value, split and metric."""
    by_value: dict[str, tuple[list[ResultRow], list[SeedRow]]] = {}
    for row in results:
        by_value.setdefault(values[row.query_id], ([], []))[0].append(row)
    for one in seeds:
        by_value[values[one.query_id]][1].append(one)
    for value, (own, own_seeds) in by_value.items():
        yield from ((value, part) for part in matrices(own, groups, own_seeds))


def _planned(finalists: Sequence[str], plans: Plans) -> list[tuple[str, str]]:
    """Pairs that were planned to be compared: each finalist with the baseline, the one chosen with its twins."""
    twins = [twin for twin in sorted(plans.twins) if twin in finalists and plans.baseline not in (plans.chosen, twin)]
    return [(c, plans.baseline) for c in finalists if c != plans.baseline] + [(plans.chosen, twin) for twin in twins]


def _slice_rows(column: str, value: str, part: Scores, compared: Sequence[statistics.PairedComparison]) -> Iterator[SliceRow]:
    """Rows of one slice by one metric: a configuration has one for each comparison in which it stands first, at least one."""
    n_groups = len(set(part.groups))
    small = "yes" if n_groups < FEW_GROUPS else "no"
    for row in leaderboard([part]):
        head = part.split, column, value, part.metric, row.configuration
        mean = row.n, n_groups, small, row.failed, row.mean, row.ci_low, row.ci_high
        own = [c for c in compared if c.a == row.configuration]
        if not own:
            yield SliceRow._make((*head, "", *mean, None, "", None, None, None, None, "", None))
        for c in own:
            family, *concluded = conclusion(c)
            yield SliceRow._make((*head, c.b, *mean, c.difference, family, known(c.tested.p), *concluded))


def selection(select: Scores, report: Scores | None, winner: str, baseline: str, seed: int) -> SelectionRow:
    """How much the winner's margin over the baseline was flattered by choosing it.

    Args:
        select: scores of all configurations where the winner was chosen.
        report: scores on the report split by the same metric, with winner and baseline among them.
        winner: the configuration chosen.
        baseline: the configuration it is held against.
        seed: of the split halves.
    """
    chosen, _ = select.difference(winner, baseline)
    predicted = statistics.predicted_optimism(select.values, select.systems.index(baseline), select.groups, seed)
    head = winner, baseline, select.metric, len(select.systems), float(chosen.mean())
    if report is None:
        return SelectionRow(*head, None, None, None, None, known(predicted))
    fresh, _ = report.difference(winner, baseline)
    optimism = statistics.observed_optimism(chosen, fresh, select.groups, report.groups)
    observed = known(optimism.value), known(optimism.low), known(optimism.high)
    return SelectionRow(*head, float(fresh.mean()), *observed, known(predicted))


def interactions(scores: Sequence[Scores], design: Design, baseline: str, split: str, seed: int) -> list[InteractionRow]:
    """How the effect of each axis (a - b) changes between two values of another: at `given_a` less at `given_b`.

    Args:
        scores: of every split and metric.
        design: what each configuration is.
        baseline: id of the baseline, whose values are the second of each pair.
        split: a split that all configurations were measured on.
        seed: of the random sign flips.
    """
    rows = []
    for metric, c in _contrasts(statistics.interactions, scores, design, baseline, split, seed):
        (a, b), (given_a, given_b) = (tuple(map(str, pair)) for pair in c.levels)
        axis, given = c.axes
        rows.append(InteractionRow(axis, a, b, given, given_a, given_b, split, metric, c.cells, c.n, *figures(c), *conclusion(c)))
    return sorted(rows, key=lambda row: (row.metric, *row[:6]))


def effects(scores: Sequence[Scores], design: Design, baseline: str, split: str, seed: int) -> list[EffectRow]:
    """Contrasts of each axis, averaged over the other axes.

    `b` is the baseline's value where it is one of the two, so that a difference says what leaving the baseline brings.

    Args:
        scores: of every split and metric.
        design: what each configuration is.
        baseline: id of the baseline.
        split: a split that all configurations were measured on.
        seed: of the random sign flips.
    """
    rows = [
        EffectRow(e.axis, str(e.a), str(e.b), split, metric, e.n, e.cells, *figures(e), *conclusion(e))
        for metric, e in _contrasts(statistics.effects, scores, design, baseline, split, seed)
    ]
    return sorted(rows, key=lambda row: (row.metric, row.axis, row.a, row.b))


def _contrasts(  # type: ignore[explicit-any]  # `effects` and `interactions` have one signature
    analyse: Callable[..., dict[str, list[C]]],
    scores: Sequence[Scores],
    design: Design,
    baseline: str,
    split: str,
    seed: int,
) -> Iterator[tuple[str, C]]:
    """Metric and contrast for everything that `analyse` (effects or interactions) finds on a split."""
    for same in _same_queries(one for one in scores if one.split == split):
        one = same[0]
        order, levels = _levels(one.systems, design, baseline)
        values = {s.metric: s.values[:, order] for s in same}
        by_seed = {metric: means[:, order] for metric, means in seeds_of(same).items()}
        for metric, found in analyse(values, levels, one.groups, seed, ids=one.queries, by_seed=by_seed).items():
            yield from ((metric, contrast) for contrast in found)


def _levels(systems: Sequence[str], design: Design, baseline: str) -> tuple[list[int], list[Mapping[str, str]]]:
    """An order of columns and their levels in it, such that the levels of the baseline come last on each axis.

    Depends on what the configurations are, not on the order in which the file names axes and values.
    """
    base = design[baseline]
    axes = sorted(base)
    levels = [[(design[system][axis] == base[axis], design[system][axis]) for axis in axes] for system in systems]
    order = sorted(range(len(systems)), key=lambda j: levels[j])
    return order, [{axis: design[systems[j]][axis] for axis in axes} for j in order]


def seeds_of(scores: Iterable[Scores]) -> dict[str, Floats]:
    """Metric -> means under each seed, float64 (n_seeds, n_systems), of the metrics measured with several."""
    return {one.metric: one.by_seed for one in scores if one.by_seed is not None}


def _same_queries(scores: Iterable[Scores]) -> list[list[Scores]]:
    """Scores by several metrics on the same queries and systems, together: they share one matrix of random flips."""
    together: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[Scores]] = {}
    for one in scores:
        together.setdefault((one.split, one.queries, one.systems), []).append(one)
    return list(together.values())


def figures(finding: statistics.Finding) -> Figures:
    """What a row says of a difference: the difference, its t interval, p, Holm's p, smallest detectable; None for nan."""
    tested = finding.low, finding.high, finding.tested.p, finding.p_holm, finding.smallest_detectable
    low, high, p, p_holm, smallest = map(known, tested)
    return finding.difference, low, high, p, p_holm, smallest


def conclusion(finding: statistics.Finding) -> Conclusion:
    """What a row concludes from it: family, adjusted p, interval, ``yes`` or ``no``, queries needed; None for nan."""
    tested = finding.tested
    p_adjusted, low, high = map(known, (tested.p_adjusted, tested.low, tested.high))
    needed = known(tested.n_needed)
    whole = needed if needed is None or math.isinf(needed) else int(needed)
    return tested.family, p_adjusted, low, high, "yes" if tested.supported else "no", whole


def known(value: float) -> float | None:
    """A figure of a row: None where it is nan, which is an empty cell in the file."""
    return None if math.isnan(value) else float(value)
