"""Two setups question by question, and how many questions would tell them apart."""

from __future__ import annotations

from math import isnan

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from workbench.errors import InputError, unknown
from workbench.evaluation.statistics import power_curve
from workbench.plots.look import BETTER, INK, OPEN, PAPER, WORSE, Mark, better, dot, heading, note, worse
from workbench.plots.rows import called
from workbench.results.run import Run
from workbench.results.tables import WORST
from workbench.results.words import DIRECTIONLESS, POINTS, count, metric_name, number


def plot_wins(ax: Axes, run: Run, split: str, metric: str, a: str, b: str) -> Axes:
    """Difference of two setups on each question, largest first, with the number of wins, losses and ties.

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
    at, name = range(1, len(gaps) + 1), metric_name(metric)
    up, down = (INK, INK) if metric in DIRECTIONLESS else (BETTER, WORSE)
    ax.bar(at[:wins], gaps[:wins], color=up)
    ax.bar(at[len(gaps) - losses :], gaps[len(gaps) - losses :], facecolor=PAPER, hatch="/////", edgecolor=down)
    equal = ax.axhline(0, color=INK, linewidth=1, label=f"= equal: {len(gaps) - wins - losses}")
    ax.set_xlim(0.25, len(gaps) + 0.75)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    won = Patch(color=up, label=f"▲ {better(metric)}: {wins}")
    lost = Patch(facecolor=PAPER, hatch="/////", edgecolor=down, label=f"▼ {worse(metric)}: {losses}")
    handles = [won, lost, equal]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0, ncols=3)
    told = f"{better(metric)} on {wins} of {count(len(gaps), 'question')}, {worse(metric)} on {losses}"
    heading(ax, f"Question by question: {told}", _contest(run, split, metric, a, b))
    ax.set_xlabel("questions, ordered by difference")
    ax.set_ylabel(f"difference in {name}, points of 100")
    return ax


def plot_power(ax: Axes, run: Run, split: str, metric: str, a: str, b: str) -> Axes:
    """The difference of two setups that n questions would find with 80 % power; what was asked and seen is marked.

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
        return note(
            ax,
            "How many questions are needed cannot be said: the difference is the same on every question, or the questions form "
            "only one group.",
        )
    sizes = sorted({max(4, round(n * 2 ** (k / 4))) for k in range(-8, 17)})
    curve = POINTS.factor * power_curve(gaps, sizes, scores.groups, by_seed=seeds)
    ax.plot(sizes, curve, color=INK, linestyle="-", label="smallest difference that so many questions would show")
    dot(ax, n, POINTS.factor * here, (None, None), Mark())
    ax.annotate(f"{count(n, 'question')}: {number(here)}", (n, POINTS.factor * here), (8, 6), textcoords="offset points")
    ax.axhline(POINTS.factor * seen, color=OPEN, linestyle="--", label=f"size of the difference seen: {number(seen)}")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_ylim(bottom=0)
    ax.legend()
    found = f"{count(n, 'question')} would show a difference of {number(here)} points in 8 of 10 tests"
    heading(ax, found, _contest(run, split, metric, a, b), up=8)
    ax.set_xlabel("number of questions")
    ax.set_ylabel(f"difference in {metric_name(metric)}, points of 100")
    return ax


def _contest(run: Run, split: str, metric: str, a: str, b: str) -> str:
    """The one, and against whom."""
    other = called(run, b)
    which = "" if other == run.names[b] else f" ({run.names[b]})"
    return f"{run.names[a]}, against {other}{which}; {metric_name(metric)} on {split}"


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
