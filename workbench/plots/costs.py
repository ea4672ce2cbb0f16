"""Quality against what it costs: of setups, and of indexes."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from workbench.plots.look import BAR, INK, TODAY, dot, gain, heading, listed, mark, note, numbered, scaled, signed, wrapped
from workbench.plots.rows import called, ranked, reference
from workbench.results.rows import IndexRow, LatencyRow
from workbench.results.run import Run
from workbench.results.words import POINTS, count, direction, metric_name

MONEY = "money"
COSTS = {
    "p50": "median seconds to answer one question",
    "p95": "seconds within which 95 % of questions are answered",
    "tokens": "mean tokens read and written for one question",
    MONEY: "mean money for one answer",
}


def plot_pareto(ax: Axes, run: Run, split: str, metric: str, cost: str = "p50", named: bool = True) -> Axes:
    """Gain over the baseline against what an answer costs, each setup with its number in a list below; the front is joined.

    On the front is what no other setup beats in both. Upright bars are the intervals of the verdicts; costs, with their 95 %
    intervals, come from latency.csv, money from costs.csv.

    Args:
        ax: where to draw.
        run: the run.
        split: measured on it.
        metric: measured by it.
        cost: one of `COSTS`.
        named: whether the list of names stands below.
    """
    means, base = {row.configuration: row.mean for row in ranked(run, split, metric)}, reference(run, split, metric)
    rows = spendings(run, split, cost, means)
    if not rows:
        why = "No price of a generator is stated." if cost == MONEY else "No latency was measured; `workbench latency RUN` does."
        return note(ax, why)
    today, names, at = called(run, base), [], []
    what = gain(metric, today)
    for j, row in enumerate(rows, 1):
        c, value, low, high = row.configuration, row.value, row.low, row.high
        pair = run.comparison(c, base, split, metric) if c != base else None
        gap = POINTS.factor * (pair.difference if pair else means[c] - means[base])
        look = mark(pair, run) if pair else TODAY
        if pair:
            dot(ax, value, gap, scaled(pair.low, pair.high), look, upright=True)
        dot(ax, value, gap, (low, high), look)
        numbered(ax, (value, gap), j)
        at.append((value, gap))
        said = signed(pair, run) if pair else today
        names.append(f"{run.names[c]} ({said})")
    front = [point for point in at if not any(o != point and o[0] <= point[0] and o[1] >= point[1] for o in at)]
    x, y = zip(*sorted(set(front)), strict=True)
    ax.plot(x, y, color=INK, linestyle="--", linewidth=1, zorder=1, label="front")
    ax.axhline(0, color=INK, linewidth=1, linestyle="-", zorder=0)
    ax.set_xlim(left=0)
    if named:
        listed(ax, names)
    ax.set_xlabel(f"{COSTS[cost]} (lower is better), {rows[0].measured}")
    ax.set_ylabel(f"{wrapped(what, 34)},\npoints of 100")
    if cost == next(iter(COSTS)) or (cost == MONEY and not run.latency):
        said = f"{metric_name(metric)} on {split}; {direction(metric)}. A dashed line joins what no other setup beats in both."
        heading(ax, f"{what[0].upper()}{what[1:]} against what an answer costs", f"{said} {BAR}", up=8)
    return ax


class Spending(NamedTuple):
    """What an answer of a configuration costs: a value with its interval where there is one, and what it was measured on."""

    configuration: str
    value: float
    low: float | None
    high: float | None
    measured: str


def spendings(run: Run, split: str, cost: str, known: Container[str]) -> list[Spending]:
    """One of `COSTS` of the configurations it is known of; money from costs.csv, all else from latency.csv.

    Args:
        run: the run.
        split: whose answers cost money.
        cost: one of `COSTS`.
        known: configurations that are wanted.
    """
    if cost == MONEY:
        paid = [row for row in run.costs if row.split == split and row.configuration in known and row.money is not None]
        return [
            Spending(row.configuration, row.money or 0.0, None, None, f"{row.currency}, {count(row.n, 'answer')} each")
            for row in sorted(paid, key=lambda row: (row.money or 0.0, row.configuration))
        ]
    rows = sorted((row for row in run.latency if row.configuration in known), key=lambda row: (row.p50, row.configuration))
    return [Spending(row.configuration, *_cost(row, cost), f"{count(row.requests, 'request')} each") for row in rows]


def _cost(row: LatencyRow, cost: str) -> tuple[float, float | None, float | None]:
    """One of `COSTS` with its interval."""
    costs = {
        "p50": (row.p50, row.p50_low, row.p50_high),
        "p95": (row.p95, row.p95_low, row.p95_high),
        "tokens": (row.tokens, row.tokens_low, row.tokens_high),
    }
    return costs[cost]


def plot_indexes(ax: Axes, rows: Sequence[IndexRow]) -> Axes:
    """Questions per second against recall@10 of indexes, each with its number in a list below; rows as in indexes.csv."""
    if not rows:
        return note(ax, "No dense index is in this experiment.")
    for j, row in enumerate(rows, 1):
        ax.plot([row.recall_at_10], [row.queries_per_second], "o", color=INK)
        numbered(ax, (row.recall_at_10, row.queries_per_second), j)
    ax.set_yscale("log")
    low = min(row.recall_at_10 for row in rows)
    ax.set_xlim(low - 0.1 * (1.05 - low), 1.0 + 0.1 * (1.05 - low))
    listed(ax, [f"{f'{row.kind} {row.settings}'.strip()}: {row.bytes_per_vector:,.0f} bytes a vector" for row in rows])
    said = f"{count(rows[0].queries, 'question')}, {rows[0].vectors:,} vectors. Up and to the right is better."
    heading(ax, "What an index finds of the 10 nearest passages, and how fast", said, up=8)
    ax.set_xlabel("share of exact search's first 10 passages that are found (recall@10)")
    ax.set_ylabel("questions per second, asked together")
    return ax
