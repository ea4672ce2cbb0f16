"""Gains over the baseline, each with the interval of its verdict: of setups, of choices, of groups of questions, of rankings."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from workbench.errors import InputError, unknown
from workbench.plots.look import (
    BAR,
    CODED,
    ROWS,
    Mark,
    Row,
    asked,
    caption,
    dot,
    draw_gains,
    gain,
    heading,
    left_out,
    name_rows,
    note,
    scaled,
    signed,
)
from workbench.plots.rows import (
    called,
    effect_name,
    effects,
    places,
    ranked,
    ranking_metrics,
    rankings,
    reference,
    slice_name,
    slices,
)
from workbench.results.conclusions import PICKED
from workbench.results.rows import Tested
from workbench.results.run import Run
from workbench.results.verdict import BETTER, LESS, MORE, OLDER, WORSE, graded
from workbench.results.words import DIRECTIONLESS, direction, estimate, metric_name, number


def plot_leaderboard(ax: Axes, run: Run, split: str, metric: str, rows: int = ROWS, explained: bool = True) -> Axes:
    """Gain of each setup over the baseline, the best on top; at the right its score, and whether it could be the best.

    The best 20 are drawn, and the baseline wherever it stands; a sentence says how many are left out and which file has them:
    more rows make no figure that anybody reads. The chosen setup is bold, and a diamond is what it gained where it was picked.

    Args:
        ax: where to draw.
        run: the run.
        split: measured on it.
        metric: measured by it.
        rows: so many are drawn.
        explained: whether it is said how to read it.

    Raises:
        InputError: nothing was measured by that metric on that split.
    """
    board, base, place = ranked(run, split, metric), reference(run, split, metric), places(run, split, metric)
    name, today = metric_name(metric), called(run, base)
    if len(board) == 1:
        (row,) = board
        score = f"{estimate(row.mean, row.ci_low, row.ci_high)} of 100 by {name}"
        return note(ax, f"The only setup, {run.names[row.configuration]}, scores {score} on {asked(run, split, board)}.")
    tested = {row.configuration: run.comparison(row.configuration, base, split, metric) for row in board}
    drawn = [row for j, row in enumerate(board) if j < rows or row.configuration == base]
    where = run.comparison(run.best, base, run.select[0], metric) if run.select[0] != run.report_split else None
    lines = []
    for row in drawn:
        c = row.configuration
        found = tested[c]
        score = f"{number(row.mean)} ({row.failed} failed)" if row.failed else number(row.mean)
        cells = signed(found, run) if found else "■", score, place[c]
        best, here = c == run.best, split == run.select[0]
        picked = where.difference if where and best and not here else None
        lines.append(Row(run.names[c], found, cells, _code(run, c, len(drawn)), best, picked, bool(where) and best and here))
    draw_gains(ax, run, lines, (gain(metric).split()[0], "score", "beside the best"), today)
    pairs = [row for row in tested.values() if row]
    heading(ax, _finding(run, pairs, "other setup", f"than {today}"), _measured(run, split, metric, pairs))
    ax.set_xlabel(f"{gain(metric, today)}, points of 100")
    flattering = ""
    if where and any(line.here or line.picked is not None for line in lines):
        flattering = f"The diamond is its gain on the {where.n:,} questions that it was picked by, which tends to flatter it."
    said = " ".join(filter(None, (_chosen(lines), flattering, left_out(len(board), len(drawn), "leaderboard.csv"))))
    caption(ax, reading(run, pairs, said) if explained else said)
    return ax


def plot_differences(ax: Axes, run: Run, split: str, metric: str, against: str) -> Axes:
    """Gain of each setup over one of them, with the interval of its verdict; filled: shown. The largest 20 are drawn.

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
    if not pairs:
        return note(ax, "There is no other setup to compare with.")
    pairs.sort(key=lambda pair: (-pair.difference, pair.a))
    today, drawn = called(run, against), pairs[:ROWS]
    lines = [Row(run.names[p.a], p, _told(run, p), _code(run, p.a, len(drawn)), bold=p.a == run.best) for p in drawn]
    draw_gains(ax, run, lines, (gain(metric).split()[0], "verdict"), today)
    which = f"{today[0].upper()}{today[1:]}: {run.names[against]}." if today != run.names[against] else ""
    heading(ax, _finding(run, pairs, "other setup", f"than {today}"), f"{_measured(run, split, metric, pairs)} {which}")
    ax.set_xlabel(f"{gain(metric)}, points of 100")
    caption(ax, reading(run, pairs, _chosen(lines), left_out(len(pairs), len(drawn), "comparisons.csv")))
    return ax


def plot_effects(ax: Axes, run: Run, metric: str) -> Axes:
    """What another choice brings than the baseline's, averaged over all other choices; filled: shown.

    The 20 largest are drawn. Differences between two other values of an axis are in effects.csv alone.

    Raises:
        InputError: the metric was not measured on the selection split.
    """
    split = run.select[0]
    ranked(run, split, metric)
    rows = effects(run, metric)
    if not rows:
        return note(ax, "No axis has two values that can be compared.")
    largest = sorted(rows, key=lambda row: -abs(row.difference))[:ROWS]
    drawn, everything = [row for row in rows if row in largest], sum(row.metric == metric for row in run.effects)
    lines = [Row(effect_name(run, row), row, _told(run, row)) for row in drawn]
    draw_gains(ax, run, lines, (gain(metric).split()[0], "verdict"), "no difference")
    said = f"Each choice by itself, averaged over all others. {_measured(run, split, metric, rows)}"
    heading(ax, _finding(run, rows, "single change", "than today's choice"), said)
    ax.set_xlabel(f"{gain(metric)}, points of 100")
    few = left_out(len(rows), len(drawn), "effects.csv")
    more = f"effects.csv also has {everything - len(rows)} pairs without today's choice." if everything > len(rows) else ""
    caption(ax, reading(run, rows, PICKED, few, more))
    return ax


def plot_slices(ax: Axes, run: Run, split: str, metric: str) -> Axes:
    """The gain of the best setup over the baseline on each slice of the questions; its means where the baseline is the best.

    At most 20 are drawn, the first in slices.csv.

    Args:
        ax: where to draw.
        run: the run.
        split: measured on it.
        metric: measured by it.
    """
    rows = slices(run, split, metric)
    if not rows:
        return note(ax, "The experiment's file names no columns under metrics.slices.")
    drawn = rows[:ROWS]
    names, tested = [slice_name(row) for row in drawn], [row.tested for row in drawn if row.tested]
    more = left_out(len(rows), len(drawn), "slices.csv")
    said = f"{metric_name(metric)} on {split}; {direction(metric)}. The setup: {run.names[run.best]}."
    if len(tested) == len(drawn):
        lines = [Row(name, row, _told(run, row)) for name, row in zip(names, tested, strict=True)]
        draw_gains(ax, run, lines, (gain(metric).split()[0], "verdict"), run.today)
        up, down = _tally(run, tested)
        found = f"{up} of {len(tested)}" + (f", and shown to be worse on {down}" if down else "") if up or down else ""
        end = f"shown to be better on {found}" if found else f"not shown to be better or worse on any of {len(tested)}"
        if metric in DIRECTIONLESS:
            end = f"shown to differ on {up + down} of {len(tested)}"
        heading(ax, f"The chosen setup is {end} groups of questions", said)
        ax.set_xlabel(f"{gain(metric, run.today)}, points of 100")
        caption(ax, reading(run, tested, more))
        return ax
    for y, row in enumerate(drawn):
        dot(ax, row.mean * 100, y, scaled(row.ci_low, row.ci_high), Mark())
    name_rows(ax, names)
    heading(ax, "The score of the chosen setup by group of questions", said)
    ax.set_xlabel(f"mean {metric_name(metric)}, points of 100")
    caption(ax, f"A bar shows where the mean of such questions plausibly lies (95 %). {more}")
    return ax


def plot_ranking_metrics(ax: Axes, run: Run, split: str, metric: str, rows: int = ROWS, named: bool = True) -> Axes:
    """Gain of each ranking over the baseline's by a metric of rankings, a row each; at the right its score.

    Configurations with equal figures by all metrics of rankings, such as those that differ in the prompt alone, share a row.
    The best by the first of these metrics comes first; at most 20 are drawn, and the baseline's.

    Args:
        ax: where to draw.
        run: the run.
        split: measured on it.
        metric: a metric of rankings.
        rows: so many are drawn.
        named: whether the rows are named; not in a plot beside another.

    Raises:
        InputError: no such metric was measured on that split.
    """
    if metric not in ranking_metrics(run, split):
        raise InputError(f"run {run.folder.name} has no metric of rankings {metric!r} on {split!r}; such are named like ndcg@10")
    base, found = reference(run, split, metric), rankings(run, split)
    means = {row.configuration: row for row in ranked(run, split, metric)}
    drawn = [group for j, group in enumerate(found) if j < rows or base in group]
    lines = []
    for group in drawn:
        row = None if base in group else run.comparison(group[0], base, split, metric)
        cells = (f"{number(means[group[0]].mean)} {signed(row, run)[0] if row else '■'}",)
        lines.append(Row(found[group] if named else "", row, cells, bold=run.best in group))
    draw_gains(ax, run, lines, ("score",), "today")
    ax.set_title(metric_name(metric), loc="left", fontsize=9, fontweight="bold", pad=18)
    ax.set_label(f"{metric_name(metric)} of rankings on {split}.")
    return ax


def _told(run: Run, row: Tested) -> tuple[str, str]:
    return signed(row, run), graded(row, run.matters)


def _code(run: Run, configuration: str, rows: int) -> str:
    """What stands below a name: the code of the setup, where there is room and it says something else."""
    label = run.labels[configuration]
    return label if rows <= CODED and label != run.names[configuration] else ""


def _chosen(rows: Sequence[Row]) -> str:
    return "Bold: the chosen setup." if any(row.bold for row in rows) else ""


def _tally(run: Run, rows: Sequence[Tested]) -> tuple[int, int]:
    """How many differences are shown to be better, or more, and how many to be worse, or less."""
    found = [graded(row, run.matters) for row in rows]
    return sum(word in (BETTER, MORE) for word in found), sum(word in (WORSE, LESS) for word in found)


def _finding(run: Run, rows: Sequence[Tested], noun: str, than: str = "") -> str:
    """What follows from the verdicts of a figure: ``2 of 7 other setups are shown to be better than today's setup, 1 worse``."""
    n, (up, down) = len(rows), _tally(run, rows)
    than = f" {than}" if than else ""
    if not all(row.family for row in rows):
        return f"How much each {noun} differs{than.replace(' than', ' from')}"
    first, said = (f"The {noun}", "is") if n == 1 else (f"None of {n} {noun}s", "is")
    if not up and not down:
        return f"{first} is {'not ' if n == 1 else ''}shown to be better or worse{than}"
    if n > 1:
        many = up + down if rows[0].metric in DIRECTIONLESS else up or down
        whole = "Both" if n == 2 else f"All {n}"
        first, said = f"{whole if many == n else f'{many} of {n}'} {noun}s", "is" if many == 1 else "are"
    if rows[0].metric in DIRECTIONLESS:
        return f"{first} {said} shown to differ{than.replace(' than', ' from')}"
    also = f", {down} worse" if up and down else ""
    return f"{first} {said} shown to be {'better' if up else 'worse'}{than}{also}"


def _measured(run: Run, split: str, metric: str, rows: Sequence[Tested]) -> str:
    return f"{metric_name(metric)} on {asked(run, split, rows)}; {direction(metric)}."


def reading(run: Run, rows: Sequence[Tested], *more: str) -> str:
    """How to read a plot of gains."""
    if not all(row.family for row in rows):
        return " ".join(filter(None, (OLDER[0].upper() + OLDER[1:] + ".", *more)))
    signs = ["✓ shown"] if rows[0].metric in DIRECTIONLESS else ["✓ shown better", "✗ shown worse"]
    signs += ["? not shown", *(["= no difference that matters"] if run.matters is not None else [])]
    return "\n".join((", ".join(signs), BAR, " ".join(filter(None, more)))).rstrip()
