"""Scores -> the tables of a run: results, leaderboard, comparisons, effects."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.evaluation import statistics

WORST, PERFECT = 0.0, 1.0  # of every metric the workbench computes

RESULTS = ("configuration", "split", "query_id", "metric", "value", "status")
LEADERBOARD = ("configuration", "split", "metric", "mean", "n", "failed", "ci_low", "ci_high", "best")
TESTED = ("n", "difference", "ci_low", "ci_high", "p", "p_holm", "smallest_detectable")
COMPARISONS = ("a", "b", "split", "metric", *TESTED)
SEEDS = ("configuration", "split", "seed", "query_id", "metric", "value", "status")
SHOWN = ("configuration", "split", "seed", "questions", "without_passages", "retrieval", "threshold", "key")
QUERIES = ("split", "query_id", "group", "question")
EFFECTS = ("axis", "a", "b", "split", "metric", "n", "cells", *TESTED[1:])
FINALISTS = ("configuration", "baseline", "split", "metric", *TESTED, "n_needed")
INTERACTIONS = ("axis", "a", "b", "given", "given_a", "given_b", "split", "metric", "cells", *TESTED)
SELECTION = (
    "configuration",
    "baseline",
    "metric",
    "candidates",
    "select_margin",
    "report_margin",
    "optimism",
    "ci_low",
    "ci_high",
    "predicted_optimism",
)


Design = Mapping[str, Mapping[str, str]]  # configuration id -> axis -> value


class Result(NamedTuple):
    """One row of results.csv; value None where it failed."""

    configuration: str
    split: str
    query_id: str
    metric: str
    value: float | None
    status: str


class SeedResult(NamedTuple):
    """One row of seeds.csv: what one of several seeds scored; value None where it failed."""

    configuration: str
    split: str
    seed: int
    query_id: str
    metric: str
    value: float | None
    status: str


def over_seeds(rows: Sequence[SeedResult]) -> Result:
    """The result of a query by a metric: the mean over seeds, failures as the worst value; failed where all failed."""
    first, failed = rows[0], [row.status for row in rows if row.value is None]
    value = None if len(failed) == len(rows) else sum(WORST if r.value is None else r.value for r in rows) / len(rows)
    status = f"{failed[0]} with {len(failed)} of {len(rows)} seeds" if failed else "ok"
    return Result(first.configuration, first.split, first.query_id, first.metric, value, status)


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
    """

    metric: str
    split: str
    systems: tuple[str, ...]
    queries: tuple[str, ...]
    groups: tuple[str, ...]
    values: np.ndarray
    failed: np.ndarray
    worst: float = WORST
    perfect: float = PERFECT
    by_seed: np.ndarray | None = None

    def column(self, system: str) -> np.ndarray:
        """Scores of one system, float64 (n_queries,)."""
        return self.values[:, self.systems.index(system)]

    def seeds(self, system: str) -> np.ndarray | None:
        """Means of one system under each seed, float64 (n_seeds,), or None."""
        return None if self.by_seed is None else self.by_seed[:, self.systems.index(system)]

    def difference(self, a: str, b: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Scores of a less those of b, (n_queries,), and the same of their means under each seed, (n_seeds,) or None."""
        gaps = self.column(a) - self.column(b)
        return gaps, None if self.by_seed is None else self.seeds(a) - self.seeds(b)


def matrices(results: Sequence[Result], groups: Mapping[str, str], seeds: Sequence[SeedResult] = ()) -> list[Scores]:
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


def _means_by_seed(rows: Iterable[SeedResult]) -> dict[tuple[str, str, str], list[float]]:
    """Split, metric and configuration -> means under each seed, in the order of the seeds; failures are the worst value."""
    values: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    for r in rows:
        by_seed = values.setdefault((r.split, r.metric, r.configuration), {})
        by_seed.setdefault(r.seed, []).append(WORST if r.value is None else r.value)
    return {key: [float(np.mean(by_seed[seed])) for seed in sorted(by_seed)] for key, by_seed in values.items()}


def _by_seed(scores: Scores, random: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Means (n_seeds, n_systems); those of a system without chance are the same under each seed."""
    n_seeds = len(next(iter(random.values())))
    fixed = scores.values.mean(axis=0)
    return np.column_stack([random.get(system, [fixed[j]] * n_seeds) for j, system in enumerate(scores.systems)])


def leaderboard(scores: Iterable[Scores]) -> list[dict[str, Any]]:
    """Mean, interval, failures and best case of every configuration by every metric."""
    rows = []
    for one in scores:
        for j, system in enumerate(one.systems):
            column, failed = one.values[:, j], one.failed[:, j]
            interval = statistics.mean_interval(column, one.groups, by_seed=one.seeds(system))
            best = np.where(failed, one.perfect, column).mean()
            rows.append(
                dict(
                    zip(
                        LEADERBOARD,
                        (system, one.split, one.metric, column.mean(), len(column), int(failed.sum()), *interval, best),
                        strict=True,
                    )
                )
            )
    return sorted(rows, key=lambda row: (row["split"], row["metric"], row["configuration"]))


def comparisons(scores: Sequence[Scores], seed: int) -> list[dict[str, Any]]:
    """All pairs of configurations by every metric; p adjusted over the pairs of a split and metric."""
    rows = []
    for same in _same_queries(scores):
        one = same[0]
        values, by_seed = {s.metric: s.values for s in same}, seeds_of(same)
        found = statistics.compare_all(values, one.systems, one.groups, seed, ids=one.queries, by_seed=by_seed)
        for metric, pairs in found.items():
            rows += [row(COMPARISONS, c, a=c.a, b=c.b, split=one.split, metric=metric) for c in pairs]
    return sorted(rows, key=lambda row: (row["split"], row["metric"], row["a"], row["b"]))


def finalists(scores: Iterable[Scores], split: str, baseline: str, seed: int) -> list[dict[str, Any]]:
    """What was measured on the report split against the baseline; p adjusted over these few differences by each metric."""
    rows = []
    for one in scores:
        others = [system for system in one.systems if system != baseline]
        if one.split != split or baseline not in one.systems or not others:
            continue
        pairs = [(system, baseline) for system in others]
        values = {one.metric: one.values}
        found = statistics.compare_all(values, one.systems, one.groups, seed, pairs, ids=one.queries, by_seed=seeds_of([one]))
        for c in found[one.metric]:
            gaps, seeds = one.difference(c.a, c.b)
            needed = statistics.needed_n(gaps, one.groups, by_seed=seeds)
            named = {"configuration": c.a, "baseline": c.b, "split": split, "metric": one.metric, "n_needed": needed}
            rows.append(row(FINALISTS, c, **named))
    return sorted(rows, key=lambda row: (row["metric"], row["configuration"]))


def selection(select: Scores, report: Scores | None, winner: str, baseline: str, seed: int) -> dict[str, Any]:
    """How much the winner's margin over the baseline was flattered by choosing it.

    Args:
        select: scores of all configurations where the winner was chosen.
        report: scores on the report split by the same metric, with winner and baseline among them.
        winner: the configuration chosen.
        baseline: the configuration it is held against.
        seed: of the split halves.
    """
    chosen = select.column(winner) - select.column(baseline)
    predicted = statistics.predicted_optimism(select.values, select.systems.index(baseline), select.groups, seed)
    values = {"configuration": winner, "baseline": baseline, "metric": select.metric, "candidates": len(select.systems)}
    values |= {"select_margin": float(chosen.mean()), "predicted_optimism": predicted}
    values |= dict.fromkeys(("report_margin", "optimism", "ci_low", "ci_high"))
    if report is not None:
        fresh = report.column(winner) - report.column(baseline)
        optimism = statistics.observed_optimism(chosen, fresh, select.groups, report.groups)
        values |= {"report_margin": float(fresh.mean()), "optimism": optimism.value}
        values |= {"ci_low": optimism.low, "ci_high": optimism.high}
    return values


def interactions(scores: Sequence[Scores], design: Design, baseline: str, split: str, seed: int) -> list[dict[str, Any]]:
    """How the effect of each axis (a - b) changes between two values of another: at `given_a` less at `given_b`."""
    rows = []
    for metric, c in _contrasts(statistics.interactions, scores, design, baseline, split, seed):
        (a, b), (given_a, given_b) = c.levels
        named = {"axis": c.axes[0], "a": a, "b": b, "given": c.axes[1], "given_a": given_a, "given_b": given_b}
        rows.append(row(INTERACTIONS, c, **named, split=split, metric=metric, cells=c.cells))
    return sorted(rows, key=lambda row: tuple(map(str, (row["metric"], *(row[name] for name in INTERACTIONS[:6])))))


def effects(scores: Sequence[Scores], design: Design, baseline: str, split: str, seed: int) -> list[dict[str, Any]]:
    """Contrasts of each axis, averaged over the other axes, on a split that all configurations were measured on.

    `b` is the baseline's value where it is one of the two, so that a difference says what leaving the baseline brings.
    """
    rows = [
        row(EFFECTS, e, axis=e.axis, a=e.a, b=e.b, split=split, metric=metric, cells=e.cells)
        for metric, e in _contrasts(statistics.effects, scores, design, baseline, split, seed)
    ]
    return sorted(rows, key=lambda row: (row["metric"], row["axis"], row["a"], row["b"]))


def _contrasts(
    analyse: Callable[..., dict[str, list[Any]]],
    scores: Sequence[Scores],
    design: Design,
    baseline: str,
    split: str,
    seed: int,
) -> Iterator[tuple[str, Any]]:
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


def seeds_of(scores: Iterable[Scores]) -> dict[str, np.ndarray]:
    """Metric -> means under each seed, of the metrics measured with several."""
    return {one.metric: one.by_seed for one in scores if one.by_seed is not None}


def _same_queries(scores: Iterable[Scores]) -> list[list[Scores]]:
    """Scores by several metrics on the same queries and systems, together: they share one matrix of random flips."""
    together: dict[Any, list[Scores]] = {}
    for one in scores:
        together.setdefault((one.split, one.queries, one.systems), []).append(one)
    return list(together.values())


def row(fields: Sequence[str], finding: statistics.Finding, **named: Any) -> dict[str, Any]:
    """A finding as a row of a table with the given columns; `named` are those that are not its own."""
    values = {
        "n": finding.n,
        "difference": finding.difference,
        "ci_low": finding.low,
        "ci_high": finding.high,
        "p": finding.p,
        "p_holm": finding.p_holm,
        "smallest_detectable": finding.smallest_detectable,
    }
    return {field: (values | named)[field] for field in fields}


def cell(value: Any) -> str:
    """A value in a table: floats with six decimals, nothing for a missing one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value + 0.0:.6f}".replace("-0.000000", "0.000000")
    return str(value)


def write_table(path: Path, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as CSV in one step: complete or absent."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(fields)
        writer.writerows([cell(row[field]) for field in fields] for row in rows)
    temporary.rename(path)


def read_table(path: Path) -> list[dict[str, Any]]:
    """Reads a table of a run: numbers as float, counts as int, empty cells as None."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: _parsed(key, value) for key, value in row.items()} for row in csv.DictReader(file)]


TEXT_COLUMNS = {*RESULTS, *QUERIES, *INTERACTIONS[:6], "label", "stage", "key", "keys", "baseline", "settings", "reason"} - {
    "value"
}


def _parsed(key: str, value: str) -> Any:
    if key in TEXT_COLUMNS:
        return value
    if value == "":
        return None
    try:
        return int(value) if value.lstrip("-").isdigit() else float(value)
    except ValueError:
        return value
