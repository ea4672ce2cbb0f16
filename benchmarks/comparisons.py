"""The statistics against calling scipy pair by pair, and what more metrics and more systems cost."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import Goal, Measurement, measure, seconds, summary
from workbench.evaluation import statistics

SYSTEMS, METRICS, QUERIES = 24, 5, 2000
ROUNDS = 7


def scores(systems: int, metrics: int) -> dict[str, np.ndarray]:
    """Random scores between 0 and 1, (QUERIES, systems) for each metric."""
    rng = np.random.default_rng(0)
    return {f"m{k}": rng.beta(0.5, 0.5, (QUERIES, systems)) for k in range(metrics)}


def compare(values: dict[str, np.ndarray]) -> None:
    """All pairs by all metrics."""
    n = next(iter(values.values())).shape[1]
    statistics.compare_all(values, [f"s{j}" for j in range(n)])


def against_scipy() -> Measurement:
    """`scipy.stats.bootstrap` with its defaults on one pair, over a pair's share of comparing all."""
    from scipy import stats

    values = scores(SYSTEMS, METRICS)
    pairs = METRICS * SYSTEMS * (SYSTEMS - 1) // 2
    table = values["m0"]
    ratios = []
    compare(values)
    for round_ in range(ROUNDS):
        gap = table[:, round_] - table[:, round_ + 1]
        one = seconds(lambda gap=gap: stats.bootstrap((gap,), np.mean, rng=np.random.default_rng(0)))
        ratios.append(one * pairs / seconds(lambda: compare(values)))
    return summary(f"scipy.stats.bootstrap a pair / all pairs, {SYSTEMS} systems x {METRICS} metrics", Goal(">=", 10), ratios)


def metrics() -> Measurement:
    """Five metrics over one: they share the flips, but the largest statistic of each family is a pass of its own."""
    five, one = scores(SYSTEMS, METRICS), scores(SYSTEMS, 1)
    return measure("all pairs by five metrics / by one", Goal("<=", 3.0), lambda: compare(five), lambda: compare(one))


def many() -> Measurement:
    """All pairs of 50 systems over 10 s: the one goal here that is a time."""
    values = scores(50, 1)
    compare(values)
    ratios = [seconds(lambda: compare(values)) / 10 for _ in range(ROUNDS)]
    return summary(f"all pairs of 50 systems x {QUERIES} queries / 10 s", Goal("<=", 1.0), ratios)
