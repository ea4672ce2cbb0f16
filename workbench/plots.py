"""Figures of a run. `plot_x(ax, data, ...)` draws on a matplotlib Axes and returns it; `save_figures` alone writes files.

Figures show the tables of the run folder and compute nothing that is not in them. A configuration has the same colour
and marker in every figure. With `style()` around them, figures look alike; without it they say the same.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from math import isnan
from pathlib import Path
from typing import NamedTuple, Protocol

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from workbench.errors import InputError, unknown
from workbench.evaluation.statistics import power_curve
from workbench.results.rows import (
    ComparisonRow,
    ConfigurationRow,
    EffectRow,
    IndexRow,
    LatencyRow,
    LeaderboardRow,
    SliceRow,
    SystemRow,
    Tested,
)
from workbench.results.run import Run
from workbench.results.tables import WORST
from workbench.results.verdict import beside_the_best, graded, shown
from workbench.results.words import DIRECTIONLESS, POINTS, direction, metric_name, number

STYLE = Path(__file__).with_name("workbench.mplstyle")
WIDTH = 7.5  # inches
LABEL_WIDTH = 38  # characters of a configuration's label in one line
TITLE_WIDTH = 34  # characters of a title beside such labels

# Colour-blind-safe (Okabe and Ito 2008), without yellow; seven colours and eight markers have no common factor, so the
# first 56 configurations differ in one of the two, and neighbours in both.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
WIN, LOSS, LINE = COLOURS[0], COLOURS[1], "#555555"

RANKING_AXES = ("chunking", "rewriting", "expansion", "retriever", "reranker")


class Loss(Protocol):
    """A loss after an optimiser step, as `workbench.models.training` gives them."""

    @property
    def step(self) -> int:
        """Number of the step, from 1; 0 is before the first."""

    @property
    def loss(self) -> float:
        """Mean loss, nats per answer token."""


class Counted(Protocol):
    """A figure over a number of queries."""

    @property
    def n(self) -> int:
        """Number of queries."""


class Look(NamedTuple):
    """How a configuration is drawn everywhere."""

    colour: str
    marker: str


def style() -> AbstractContextManager[None]:
    """The workbench's look, a context: figures are made *and* saved inside it."""
    return matplotlib.style.context(str(STYLE))


def figure(rows: int, names: Iterable[str] = ()) -> Figure:
    """An empty figure high enough for a plot of that many rows, whose names may be long; of no window: nothing to close."""
    return Figure(figsize=(WIDTH, height(rows, names)), layout="constrained")


def height(rows: int, names: Iterable[str] = ()) -> float:
    """Inches that a plot of that many rows takes, where the longest of its names is wrapped."""
    lines = max((_wrapped(name, LABEL_WIDTH).count("\n") + 1 for name in names), default=1)
    return 1.7 + (0.14 + 0.2 * lines) * max(rows, 2)


def looks(run: Run) -> dict[str, Look]:
    """Configuration id -> how it is drawn, by its position among the sorted ids."""
    return {c: Look(COLOURS[j % len(COLOURS)], MARKERS[j % len(MARKERS)]) for j, c in enumerate(sorted(run.labels))}


def axis_names(run: Run) -> str:
    """What the parts of a label mean: the axes that vary, as in ``retriever/reranker``."""
    return "/".join(axis for axis in run.axes if len({row.values[axis] for row in run.configurations}) > 1)


# --- Rows of the tables, as the figures and dashboards show them ------------------------------------------------------


def ranked(run: Run, split: str, metric: str) -> list[LeaderboardRow]:
    """Rows of the leaderboard, best first, equal means in the order of ids.

    Raises:
        InputError: nothing was measured by that metric on that split; the message lists what was.
    """
    rows = [row for row in run.leaderboard if (row.split, row.metric) == (split, metric)]
    if not rows:
        raise unknown("split and metric", f"{split} {metric}", {f"{r.split} {r.metric}" for r in run.leaderboard})
    return sorted(rows, key=lambda row: (-row.mean, row.configuration))


def compared(run: Run, split: str, metric: str) -> list[ComparisonRow]:
    """Rows of comparisons.csv on a split and metric."""
    return [row for row in run.comparisons if (row.split, row.metric) == (split, metric)]


def places(run: Run, split: str, metric: str) -> dict[str, str]:
    """Configuration id -> its place; see `workbench.results.verdict.beside_the_best`."""
    order = [row.configuration for row in ranked(run, split, metric)]
    return beside_the_best(order, lambda c: run.comparison(c, order[0], split, metric))


# --- Figures ----------------------------------------------------------------------------------------------------------


def plot_leaderboard(ax: Axes, run: Run, split: str, metric: str) -> Axes:
    """Mean of each configuration with its 95 % interval, best on top, the baseline as a line; at the right who could be best.

    Args:
        ax: where to draw.
        run: the run.
        split: measured on it.
        metric: measured by it.

    Raises:
        InputError: nothing was measured by that metric on that split.
    """
    rows, drawn, groups = ranked(run, split, metric), looks(run), places(run, split, metric)
    for y, row in enumerate(rows):
        _dot(ax, y, row.mean, row.ci_low, row.ci_high, drawn[row.configuration], factor=POINTS.factor)
        if len(rows) > 1:
            _at_right(ax, y, groups[row.configuration])
    _rows(ax, [_failing(run.names[row.configuration], row.failed) for row in rows], "")
    baseline = next((row for row in rows if row.configuration == run.manifest["baseline"]), None)
    if baseline:
        _line(ax, baseline.mean * POINTS.factor, f"baseline {number(baseline.mean)}")
    ax.set_xlabel(f"mean {metric_name(metric)}, points of 100 ({direction(metric)})\n{_n(rows)}, 95 % intervals")
    ax.set_title(f"{metric_name(metric)} on {split}", pad=24)
    return ax


def plot_differences(ax: Axes, run: Run, split: str, metric: str, against: str) -> Axes:
    """Paired difference of each configuration to one of them, with the interval of its verdict; filled: shown.

    Args:
        ax: where to draw.
        run: the run.
        split: measured on it.
        metric: measured by it.
        against: id of the configuration that is subtracted.

    Raises:
        InputError: nothing was measured by that metric on that split, or not for `against`.
    """
    ids = [row.configuration for row in ranked(run, split, metric)]
    if against not in ids:
        raise unknown("configuration", against, [f"{c} ({run.labels[c]})" for c in ids])
    pairs = [pair for c in ids if c != against and (pair := run.comparison(c, against, split, metric))]
    ax.set_title(f"{metric_name(metric)} on {split}: difference to\n{_wrapped(run.names[against], TITLE_WIDTH)}", pad=24)
    if not pairs:
        return _note(ax, "There is no other configuration to compare with.")
    pairs.sort(key=lambda pair: (-pair.difference, pair.a))
    drawn = looks(run)
    _forest(ax, run, pairs, [run.names[pair.a] for pair in pairs], "", [drawn[pair.a] for pair in pairs])
    ax.set_xlabel(f"difference in mean {metric_name(metric)}, points of 100 (right of 0: {_better(metric)})\n{_intervals(pairs)}")
    return ax


def plot_effects(ax: Axes, run: Run, metric: str) -> Axes:
    """Effect of each axis: one level minus another, averaged over the other axes; filled: shown.

    Raises:
        InputError: the metric was not measured on the selection split.
    """
    split = run.select[0]
    ranked(run, split, metric)
    rows = [row for row in run.effects if row.metric == metric]
    ax.set_title(f"What each axis does to {metric_name(metric)} on {split}", pad=24)
    if not rows:
        return _note(ax, "No axis has two levels that can be compared.")
    _forest(ax, run, rows, [_effect_name(row) for row in rows], "axis: first − second", [Look(COLOURS[0], "o")] * len(rows))
    ax.set_xlabel(
        f"effect on mean {metric_name(metric)}, points of 100 (right of 0: the first is {_better(metric)})\n{_intervals(rows)}"
    )
    return ax


def plot_slices(ax: Axes, run: Run, split: str, metric: str) -> Axes:
    """The best configuration less the baseline on each slice of the questions; its means there where the baseline is the best.

    Args:
        ax: where to draw.
        run: the run.
        split: measured on it.
        metric: measured by it.
    """
    rows = _slices(run, split, metric)
    tested = [row.tested for row in rows if row.tested]
    ax.set_title(f"{metric_name(metric)} on {split}, by slice:\n{_wrapped(run.names[run.best], TITLE_WIDTH)}", pad=24)
    if not rows:
        return _note(ax, "The experiment's file names no columns under metrics.slices.")
    look, names = looks(run)[run.best], [_slice_name(row) for row in rows]
    if len(tested) == len(rows):
        _forest(ax, run, tested, names, "column: value", [look] * len(rows))
        ax.set_xlabel(f"difference to the baseline, points of 100 (right of 0: {_better(metric)})\n{_intervals(tested)}")
        return ax
    for y, row in enumerate(rows):
        _dot(ax, y, row.mean, row.ci_low, row.ci_high, look, factor=POINTS.factor)
    _rows(ax, names, "column: value")
    ax.set_xlabel(f"mean, points of 100 ({direction(metric)})\n{_n(rows)}, 95 % intervals")
    return ax


def plot_wins(ax: Axes, run: Run, split: str, metric: str, a: str, b: str) -> Axes:
    """Difference of two configurations on each query, largest first, with the number of wins, losses and ties.

    A failed item counts as the metric's worst value, as in the leaderboard.

    Args:
        ax: where to draw.
        run: the run.
        split: measured on it.
        metric: measured by it.
        a: id of the first configuration.
        b: id of the one that is subtracted.

    Raises:
        InputError: one of them was not measured by that metric on that split.
    """
    first, second = (_values(run, c, split, metric) for c in (a, b))
    gaps = sorted((POINTS.factor * (first[query] - second[query]) for query in first.keys() & second.keys()), reverse=True)
    wins, losses = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    at = range(1, len(gaps) + 1)
    ax.bar(at[:wins], gaps[:wins], color=WIN)
    ax.bar(at[len(gaps) - losses :], gaps[len(gaps) - losses :], facecolor=LOSS, hatch="///", edgecolor="black", linewidth=0.6)
    equal = ax.axhline(0, color=LINE, linewidth=1, label=f"equal: {len(gaps) - wins - losses}")
    ax.set_xlim(0.25, len(gaps) + 0.75)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    won = Patch(color=WIN, label=f"{_better(metric)}: {wins}")
    lost = Patch(facecolor=LOSS, hatch="///", edgecolor="black", linewidth=0.6, label=f"{_worse(metric)}: {losses}")
    handles = [won, lost, equal]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0, ncols=3)
    ax.set_title(_contest(run, split, a, b), pad=26)
    ax.set_xlabel(f"queries, ordered by difference (n = {_count(len(gaps), 'query')})")
    ax.set_ylabel(f"difference in {metric_name(metric)}, points of 100\n(above 0: the first is {_better(metric)})")
    return ax


def plot_power(ax: Axes, run: Run, split: str, metric: str, a: str, b: str) -> Axes:
    """The difference of two configurations that n queries would find with 80 % power; what was asked and seen is marked.

    Args:
        ax: where to draw.
        run: the run.
        split: measured on it.
        metric: measured by it.
        a: id of the first configuration.
        b: id of the one that is subtracted.

    Raises:
        InputError: one of them was not measured by that metric on that split.
    """
    scores = run.scores(split, metric)
    for name in (a, b):
        if name not in scores.systems:
            raise unknown(f"configuration on {split}", name, scores.systems)
    gaps, seeds = scores.difference(a, b)
    n, seen = len(gaps), float(abs(gaps.mean()))
    here = float(power_curve(gaps, [n], scores.groups, by_seed=seeds)[0])
    if isnan(here):
        return _note(ax, "no power curve: the difference is the same on every query, or there is only one group of them")
    sizes = sorted({max(4, round(n * 2 ** (k / 4))) for k in range(-8, 17)})
    curve = POINTS.factor * power_curve(gaps, sizes, scores.groups, by_seed=seeds)
    ax.plot(sizes, curve, color=LINE, label="smallest detectable difference")
    _dot(ax, POINTS.factor * here, n, None, None, looks(run)[a], label=f"with the {_count(n, 'query')} asked: {number(here)}")
    ax.axhline(POINTS.factor * seen, color=LOSS, linestyle="--", label=f"size of the difference seen: {number(seen)}")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.set_ylim(bottom=0)
    ax.legend()
    ax.set_title(_contest(run, split, a, b))
    ax.set_xlabel("queries")
    ax.set_ylabel(f"difference in {metric_name(metric)}, points of 100\n(80 % power, two-sided .05)")
    return ax


def _contest(run: Run, split: str, a: str, b: str) -> str:
    """A title: the one, and against whom."""
    return _wrapped(run.names[a], 50) + "\n" + _wrapped(f"against {run.names[b]}, on {split}", 50)


COSTS = {
    "p50": "median seconds to answer one question",
    "p95": "seconds within which 95 % of questions are answered",
    "tokens": "mean tokens read and written for one question",
}


def plot_pareto(ax: Axes, run: Run, split: str, metric: str, cost: str = "p50") -> Axes:
    """Mean against what an answer costs, both with 95 % intervals; the front is joined, the rest is hollow.

    On the front is what no other configuration beats in both. Costs come from latency.csv.

    Args:
        ax: where to draw.
        run: the run.
        split: measured on it.
        metric: measured by it.
        cost: one of `COSTS`.
    """
    means = {row.configuration: row for row in ranked(run, split, metric)}
    rows = sorted((row for row in run.latency if row.configuration in means), key=lambda row: _cost(row, cost)[0])
    if not rows:
        return _note(ax, "No latency was measured; `workbench latency RUN` does.")
    drawn, best = looks(run), -1.0
    front: list[tuple[float, float]] = []
    for row in rows:
        mean, (value, low, high) = means[row.configuration], _cost(row, cost)
        if mean.mean > best:
            best = mean.mean
            front.append((value, best))
        look = drawn[row.configuration]
        if mean.ci_low is not None and mean.ci_high is not None:
            ends = [POINTS.factor * mean.ci_low, POINTS.factor * mean.ci_high]
            ax.plot([value] * 2, ends, color=look.colour, linewidth=1.8)
        name = _wrapped(run.names[row.configuration], 60)
        _dot(ax, POINTS.factor * mean.mean, value, low, high, look, label=name, filled=front[-1] == (value, mean.mean))
    costs, best_means = zip(*front, strict=True)
    ax.plot(costs, [POINTS.factor * one for one in best_means], color=LINE, linestyle="--", linewidth=1, zorder=1, label="front")
    ax.set_xlim(left=0)
    columns = 2 if all(len(run.names[row.configuration]) < 30 for row in rows) else 1
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0, ncols=columns)
    ax.set_xlabel(f"{COSTS[cost]} (lower is better)\n{_count(rows[0].requests, 'request')} each")
    ax.set_ylabel(f"{metric_name(metric)} on {split}, of 100\n({direction(metric)})")
    return ax


def _cost(row: LatencyRow, cost: str) -> tuple[float, float | None, float | None]:
    """One of `COSTS` with its interval."""
    costs = {
        "p50": (row.p50, row.p50_low, row.p50_high),
        "p95": (row.p95, row.p95_low, row.p95_high),
        "tokens": (row.tokens, row.tokens_low, row.tokens_high),
    }
    return costs[cost]


def plot_indexes(ax: Axes, rows: Sequence[IndexRow]) -> Axes:
    """Queries per second against recall@10 of indexes, each with its bytes per vector; rows as in indexes.csv."""
    if not rows:
        return _note(ax, "No dense index is in this experiment.")
    for j, row in enumerate(rows):
        look = Look(COLOURS[j % len(COLOURS)], MARKERS[j % len(MARKERS)])
        name = f"{row.kind} {row.settings}".strip()
        label = f"{name}: {row.bytes_per_vector:,.0f} bytes a vector"
        ax.plot(row.recall_at_10, row.queries_per_second, look.marker, color=look.colour, markersize=8, label=label)
    ax.set_yscale("log")
    low = min(row.recall_at_10 for row in rows)
    ax.set_xlim(low - 0.1 * (1.05 - low), 1.0 + 0.1 * (1.05 - low))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0, ncols=2)
    ax.set_xlabel(f"recall@10 against exact search, n = {rows[0].queries} queries (higher is better)")
    ax.set_ylabel("queries per second, asked together\n(higher is better)")
    return ax


def plot_training(ax: Axes, curve: Sequence[Loss], held_back: Sequence[Loss] = ()) -> Axes:
    """Loss of each step of a training, and the mean of the last tenth of the steps where there are twenty or more.

    Args:
        ax: where to draw.
        curve: losses of the steps in their order, in nats per answer token; nan leaves a gap.
        held_back: the same for the examples held back; the lowest is marked.
    """
    steps, losses = [row.step for row in curve], [row.loss for row in curve]
    ax.set_title("Training of the adapter")
    if not steps:
        return _note(ax, "The training has no steps.")
    window = len(losses) // 10
    smooth = window > 1
    ax.plot(steps, losses, color=COLOURS[4], marker=None if smooth else "o", linewidth=1, label="each step")
    if smooth:
        means = [sum(losses[i - window + 1 : i + 1]) / window for i in range(window - 1, len(losses))]
        ax.plot(steps[window - 1 :], means, color=COLOURS[0], label=f"mean of {window} steps")
    if held_back:
        best = min(held_back, key=lambda row: row.loss)
        looks_at, found = [row.step for row in held_back], [row.loss for row in held_back]
        ax.plot(looks_at, found, color=COLOURS[5], marker="s", markersize=5, label="held back")
        label = f"kept: {best.loss:.2f} after step {best.step}"
        ax.plot(best.step, best.loss, "s", color=COLOURS[5], markerfacecolor="white", markersize=11, label=label)
    if smooth or held_back:
        ax.legend(loc="upper right")
    drawn = [value for value in (*losses, *(row.loss for row in held_back)) if not isnan(value)]
    ax.set_ylim(0, 1.06 * max(drawn, default=1.0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(f"optimizer step (n = {_count(len(steps), 'step')})")
    ax.set_ylabel("loss, nats per answer token\n(lower is better)")
    return ax


def plot_systems(ax: Axes, rows: Sequence[SystemRow]) -> Axes:
    """Mean of base, adapter and merged weights with 95 % intervals."""
    if not rows:
        return _note(ax, "No configuration of this experiment answers with this adapter.")
    for y, row in enumerate(rows):
        look = Look(COLOURS[y % len(COLOURS)], MARKERS[y % len(MARKERS)])
        _dot(ax, y, row.mean, row.ci_low, row.ci_high, look, factor=POINTS.factor)
        _at_right(ax, y, number(row.mean))
    _rows(ax, [row.system for row in rows], "")
    _at_right(ax, -1, "mean")
    metric = rows[0].metric
    ax.set_title("The same prompts, three ways", pad=24)
    said = f"mean {metric_name(metric)} on {rows[0].split}, points of 100 ({direction(metric)})"
    ax.set_xlabel(f"{said}\n{_n(rows)}, 95 % intervals")
    return ax


def plot_ranking_metrics(ax: Axes, run: Run, split: str) -> Axes:
    """Metrics of rankings, one row each, a marker with 95 % interval for every ranking that differs.

    Configurations with equal figures by all of these metrics, such as those that differ in the prompt alone, share a marker:
    that of the first in the order of ids. The best by the first metric comes first.

    Raises:
        InputError: no metric of rankings was measured on that split.
    """
    metrics = ranking_metrics(run, split)
    if not metrics:
        raise InputError(f"run {run.folder.name} has no metric of rankings on {split!r}; such metrics are named like ndcg@10")
    tables = _ranking_tables(run, split)
    distinct = _distinct_rankings(run, tables)
    drawn, step = looks(run), 0.7 / len(distinct)
    for j, (configuration, label) in enumerate(distinct.items()):
        for i, metric in enumerate(metrics):
            row = tables[metric][configuration]
            y = i + (j - (len(distinct) - 1) / 2) * step
            name = _wrapped(label, 60) if i == 0 else None
            _dot(ax, y, row.mean, row.ci_low, row.ci_high, drawn[configuration], name, factor=POINTS.factor)
    _rows(ax, [metric_name(metric) for metric in metrics], "")
    for y, _ in pairwise(range(len(metrics))):
        ax.axhline(y + 0.5, color="#D9D9D9", linewidth=0.8)
    ax.set_title(f"Rankings on {split}")
    ax.set_xlabel(
        f"mean, points of 100 (higher is better)\n{_n([row for t in tables.values() for row in t.values()])}, 95 % intervals"
    )
    columns = 2 if len(distinct) > 4 and all(len(label) < 30 for label in distinct.values()) else 1
    below = offset_copy(ax.transAxes, fig=ax.get_figure(root=True), y=-56, units="points")
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, borderpad=0, ncols=columns)
    return ax


def save_figures(run: Run, folder: str | Path) -> list[Path]:
    """Writes the figures of a run as PNG, 150 dots per inch, into a folder, which is made where it does not exist.

    Always leaderboard.png (the selection split, and below it the report split), differences.png (to the baseline, on the report
    split) and effects.png; slices.png where the experiment's file names columns under ``metrics.slices``; wins.png and power.png
    where the best configuration is not the baseline and both were reported; pareto.png where latency was measured; indexes.png
    where indexes were checked; rankings.png where rankings were measured.

    Returns:
        The files written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with style():
        for name, drawn in _figures(run):
            written.append(folder / f"{name}.png")
            drawn.savefig(written[-1], dpi=150)
    return written


def figures(run: Run) -> dict[str, Figure]:
    """The figures that `save_figures` writes, by name, for showing in a notebook (inside `style`)."""
    with style():
        return dict(_figures(run))


def ranking_metrics(run: Run, split: str) -> list[str]:
    """Metrics of rankings that were measured on a split, sorted; they have a cut-off in their names."""
    return sorted({row.metric for row in run.leaderboard if row.split == split and "@" in row.metric})


def _figures(run: Run) -> Iterator[tuple[str, Figure]]:
    """Name and figure of everything that fits the run."""
    (select, metric), baseline = run.select, run.manifest["baseline"]
    reported_any = any((row.split, row.metric) == (run.report_split, metric) for row in run.leaderboard)
    report = run.report_split if reported_any else select
    yield "leaderboard", _leaderboards(run, list(dict.fromkeys([select, report])), metric)
    reported = [row.configuration for row in ranked(run, report, metric)]
    drawn = figure(len(reported) - 1, run.names.values())
    plot_differences(drawn.subplots(), run, report, metric, baseline if baseline in reported else run.best)
    yield "differences", drawn
    effects = [row for row in run.effects if row.metric == metric]
    drawn = figure(len(effects), map(_effect_name, effects))
    plot_effects(drawn.subplots(), run, metric)
    yield "effects", drawn
    if slices := _slices(run, report, metric):
        drawn = figure(len(slices), map(_slice_name, slices))
        plot_slices(drawn.subplots(), run, report, metric)
        yield "slices", drawn
    if run.best != baseline and {run.best, baseline} <= set(reported):
        drawn = figure(6)
        plot_wins(drawn.subplots(), run, report, metric, run.best, baseline)
        yield "wins", drawn
        drawn = figure(6)
        plot_power(drawn.subplots(), run, report, metric, run.best, baseline)
        yield "power", drawn
    if run.latency:
        drawn = figure(24)
        for ax, cost in zip(drawn.subplots(len(COSTS)), COSTS, strict=True):
            plot_pareto(ax, run, report, metric, cost)
            if cost != next(iter(COSTS)) and (legend := ax.get_legend()):
                legend.remove()  # one above all of them
        yield "pareto", drawn
    if run.indexes:
        drawn = figure(9)
        plot_indexes(drawn.subplots(), run.indexes)
        yield "indexes", drawn
    if ranking_metrics(run, report):
        tables = _ranking_tables(run, report)
        distinct = _distinct_rankings(run, tables)
        lines = sum(_wrapped(label, 60).count("\n") + 1 for label in distinct.values())
        drawn = figure(round(len(tables) * (1 + 0.6 * len(distinct)) + 0.8 * lines))
        plot_ranking_metrics(drawn.subplots(), run, report)
        yield "rankings", drawn


def _leaderboards(run: Run, splits: Sequence[str], metric: str) -> Figure:
    """One leaderboard below the other, on one scale."""
    heights = [height(len(ranked(run, split, metric)), run.names.values()) for split in splits]
    drawn = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    axes = drawn.subplots(len(splits), squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for ax, split in zip(axes, splits, strict=True):
        plot_leaderboard(ax, run, split, metric)
        ax.tick_params(labelbottom=True)
    return drawn


# --- Parts of figures -------------------------------------------------------------------------------------------------


def _dot(
    ax: Axes,
    y: float,
    x: float,
    low: float | None,
    high: float | None,
    look: Look,
    label: str | None = None,
    filled: bool = True,
    factor: float = 1.0,
) -> None:
    """A marker at (x, y), with its interval where there is one; x and the interval times a factor."""
    if low is not None and high is not None:
        ends = [low * factor, high * factor]
        ax.plot(ends, [y, y], color=look.colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
    face = look.colour if filled else "white"
    at = [x * factor], [y]
    ax.plot(*at, look.marker, color=look.colour, markerfacecolor=face, markeredgewidth=1.5, label=label, zorder=3)


def _forest(ax: Axes, run: Run, rows: Sequence[Tested], names: Sequence[str], title: str, drawn: Sequence[Look]) -> None:
    """Differences with the intervals of their verdicts, a line at zero, and the verdicts at the right edge."""
    for y, (row, look) in enumerate(zip(rows, drawn, strict=True)):
        _dot(ax, y, row.difference, row.low, row.high, look, filled=shown(row), factor=POINTS.factor)
        _at_right(ax, y, f"{number(row.difference, signed=True)}  {graded(row, run.matters)}")
    _at_right(ax, -1, "verdict")
    _rows(ax, names, title)
    _line(ax, 0.0, "no difference")


def _intervals(rows: Sequence[Tested]) -> str:
    """What the bars of differences are."""
    older = "" if all(row.family for row in rows) else "; no verdicts: the run is of an earlier version"
    return f"{_n(rows)}; a bar leaves out 0 exactly when a difference is shown{older}"


def _rows(ax: Axes, names: Sequence[str], title: str) -> None:
    """Named rows, the first on top."""
    ax.set_yticks(range(len(names)), [_wrapped(name, LABEL_WIDTH) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    if title:
        _above(ax, _wrapped(title, LABEL_WIDTH), 0, -4, "right")


def _at_right(ax: Axes, y: float, text: str) -> None:
    """Text at the right edge, in a row, or above the first for y = -1."""
    if y < 0:
        _above(ax, text, 1, 8, "left")
        return
    ax.annotate(text, (1, y), (8, 0), xycoords=ax.get_yaxis_transform(), textcoords="offset points", ha="left", va="center")


def _above(ax: Axes, text: str, x: float, points: float, alignment: str) -> None:
    """A heading above the Axes, at x (fraction of its width) and some points aside."""
    ax.annotate(text, (x, 1), (points, 6), xycoords="axes fraction", textcoords="offset points", ha=alignment, color=LINE)


def _line(ax: Axes, x: float, text: str) -> None:
    """A dashed vertical line with its meaning above it, which near an edge stands inside, clear of the headings there."""
    ax.axvline(x, color=LINE, linestyle="--", linewidth=1.2, zorder=1)
    low, high = ax.get_xlim()
    side = "left" if x < low + 0.25 * (high - low) else "right" if x > low + 0.75 * (high - low) else "center"
    ax.annotate(text, (x, 1), (0, 6), xycoords=ax.get_xaxis_transform(), textcoords="offset points", ha=side, color=LINE)


def _note(ax: Axes, text: str) -> Axes:
    """Says in an empty figure why it is empty."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center")
    return ax


def _wrapped(label: str, width: int) -> str:
    """A long label in several lines, broken behind a slash or a space, and behind a hyphen where no word fits otherwise."""
    parts = label.replace("/", "/ ")
    lines = textwrap.wrap(parts, width, break_on_hyphens=any(len(part) > width for part in parts.split()))
    # a label is a text: between two dollar signs matplotlib would read mathematics, and end with an error where it is none
    return "\n".join(line.replace("/ ", "/") for line in lines).replace("$", r"\$")


def _slices(run: Run, split: str, metric: str) -> list[SliceRow]:
    """Of the best configuration on each slice: where it was compared, against the baseline."""
    wanted = split, metric, run.best
    rows = [row for row in run.slices if (row.split, row.metric, row.configuration) == wanted]
    return [row for row in rows if row.against in ("", run.manifest["baseline"])]


def _slice_name(row: SliceRow) -> str:
    return f"{row.column}: {row.value} ({row.n}{', too few' if row.small == 'yes' else ''})"


def _effect_name(row: EffectRow) -> str:
    return f"{row.axis}: {row.a} − {row.b}"


def _failing(label: str, failed: int) -> str:
    return f"{label} ({failed} failed)" if failed else label


def _count(n: int, noun: str) -> str:
    """``1 query``, ``12 queries``."""
    return f"{n} {noun if n == 1 else noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"


def _n(rows: Sequence[Counted]) -> str:
    """Number of queries, ``n = 12 queries``, or its range where rows differ."""
    low, high = min(row.n for row in rows), max(row.n for row in rows)
    return f"n = {_count(high, 'query')}" if low == high else f"n = {low} to {high} queries"


def _values(run: Run, configuration: str, split: str, metric: str) -> dict[str, float]:
    """Query id -> value; a failure has the worst."""
    wanted = (configuration, split, metric)
    found = {
        row.query_id: WORST if row.value is None else row.value
        for row in run.results
        if (row.configuration, row.split, row.metric) == wanted
    }
    if not found:
        name = run.labels.get(configuration, configuration)
        raise InputError(f"{name} was not measured by {metric} on {split!r} in run {run.folder.name}")
    return found


def _better(metric: str) -> str:
    return "more" if metric in DIRECTIONLESS else "better"


def _worse(metric: str) -> str:
    return "less" if metric in DIRECTIONLESS else "worse"


def _ranking_tables(run: Run, split: str) -> dict[str, dict[str, LeaderboardRow]]:
    """Metric of rankings -> configuration id, best first -> row of the leaderboard."""
    return {m: {row.configuration: row for row in ranked(run, split, m)} for m in ranking_metrics(run, split)}


def _distinct_rankings(run: Run, tables: Mapping[str, Mapping[str, LeaderboardRow]]) -> dict[str, str]:
    """The first configuration of each group with equal figures -> what its group shares of the axes that make a ranking."""
    groups: dict[tuple[tuple[float | None, ...], ...], list[str]] = {}
    for c in next(iter(tables.values())):
        groups.setdefault(tuple((t[c].mean, t[c].ci_low, t[c].ci_high) for t in tables.values()), []).append(c)
    rows = {row.configuration: row for row in run.configurations}
    axes = [axis for axis in axis_names(run).split("/") if axis in RANKING_AXES]
    return {group[0]: _shared([rows[c] for c in group], axes) or run.labels[group[0]] for group in groups.values()}


def _shared(rows: Sequence[ConfigurationRow], axes: Sequence[str]) -> str:
    return "/".join(rows[0].values[axis] for axis in axes if len({row.values[axis] for row in rows}) == 1)
