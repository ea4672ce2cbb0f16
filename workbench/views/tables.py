"""What each choice brings, all setups, and parts of the questions: the tables of a run, as HTML."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from math import isfinite

from workbench.results import words
from workbench.results.conclusions import PICKED, named
from workbench.results.rows import ComparisonRow, CostRow, LeaderboardRow, Tested
from workbench.results.run import Run
from workbench.results.verdict import SIGNS, beside_the_best, graded, shown
from workbench.views.card import compared, interval_of, mean_of
from workbench.views.curves import scatter
from workbench.views.html import box, cell, foreign, sourced, table, text

MOST = 50  # setups that a table shows; leaderboard.csv has all


def tested(row: Tested, matters: float | None, addresses: dict[str, str]) -> tuple[str, str, str]:
    """A difference, its interval and its verdict, as cells of a table.

    Args:
        row: the row of the run's table.
        matters: the run's.
        addresses: of the cells ``difference``, ``low``, ``high`` and ``supported``.
    """
    interval = words.between(row.low, row.high, signed=True)
    word = graded(row, matters)
    look = ("wb-shown" if row.difference > 0 else "wb-lost") if shown(row) else ""
    said = f"<span class='{look}'>{SIGNS.get(word, '?')} {sourced(word, addresses['supported'])}</span>"
    between = sourced(interval, addresses["low"], addresses["high"]) if interval else "–"
    return sourced(words.number(row.difference, signed=True), addresses["difference"]), between, said


def _addresses(file: str, keys: dict[str, str]) -> dict[str, str]:
    return {column: cell(file, column, **keys) for column in ("difference", "low", "high", "supported")}


def matters(run: Run) -> str:
    """What each choice brings, averaged over the others, on the questions that chose."""
    split, metric = run.select
    rows = [row for row in run.effects if row.metric == metric]
    if not rows:
        return (
            "<p>Only one setup was measured, so no choice can be compared.</p>"
            if len(run.configurations) == 1
            else f"<p>No choice was compared by {text(words.metric_name(metric))}.</p>"
        )
    lines = []
    for row in sorted(rows, key=lambda row: (not shown(row), -abs(row.difference))):
        values = list(dict.fromkeys(one.values[row.axis] for one in run.configurations))
        a, b = (words.value_name(row.axis, value, values, run.settings) for value in (row.a, row.b))
        keys = {"axis": row.axis, "a": row.a, "b": row.b, "split": row.split, "metric": row.metric}
        lines.append(
            (f"{foreign(row.axis)}: {foreign(a)}, not {foreign(b)}", *tested(row, run.matters, _addresses("effects.csv", keys)))
        )
    keys = {"axis": rows[0].axis, "a": rows[0].a, "b": rows[0].b, "split": split, "metric": metric}
    n = sourced(f"{rows[0].n:,}", cell("effects.csv", "n", **keys))
    said = (
        f"<p>What each choice brings, all else equal, averaged over the other choices; measured on the {n} questions of "
        f"{text(split)}, in points of {text(words.metric_name(metric))}. {text(PICKED)}</p>"
    )
    return said + table("What each choice brings", ("choice", "gain", "plausibly", "verdict"), lines, right=(1, 2))


def setups(run: Run, metric: str | None = None) -> str:
    """Every setup with its score on the report split, and how it stands beside the best and the baseline.

    Args:
        run: a finished run.
        metric: of the scores; default: the one that chooses.
    """
    metric = metric or run.select[1]
    split, baseline = run.report_split, run.manifest["baseline"]
    rows = [row for row in run.leaderboard if (row.split, row.metric) == (split, metric)]
    rows.sort(key=lambda row: (-row.mean, row.configuration))
    if not rows:
        return box(f"No setup was measured on {split} by {metric}.")
    places = beside_the_best(
        [row.configuration for row in rows], lambda c: run.comparison(c, rows[0].configuration, split, metric)
    )
    found = [row for row in run.comparisons if (row.split, row.metric) == (split, metric)]
    lines = [_setup(run, row, places[row.configuration], baseline) for row in rows[:MOST]]
    head = ["setup", "of 100", "plausibly", "beside the best", f"gain over {run.today}", "plausibly", "verdict"]
    prices = {row.configuration: row for row in run.costs if row.split == split and row.money is not None}
    if prices:
        lines = [(*line, _price(prices.get(row.configuration))) for line, row in zip(lines, rows, strict=False)]
        head.append(f"{next(iter(prices.values())).currency} for 1,000 answers")
    left_out = [f"{len(rows) - MOST} more are in leaderboard.csv."] if len(rows) > MOST else []
    if unmeasured := len(run.configurations) - len(rows):
        others = "1 other was" if unmeasured == 1 else f"{unmeasured} others were"
        left_out.append(f"{others} not measured on {split}, since {run.select[0]} did not put them among the best.")
    chosen = f"Chosen on {text(run.select[0])}: {foreign(named(run, run.best))}."
    said = "".join(f"<p>{line}</p>" for line in [chosen, *(sourced(line, cell("configurations.csv", "*")) for line in left_out)])
    folded = f"<details><summary>For statisticians: all pairs</summary>{pairs(run, found)}</details>" if found else ""
    return said + table(f"Setups on {split}, by {words.metric_name(metric)}", head, lines, right=(1, 2, 4, 5, 7)) + folded


def _price(row: CostRow | None) -> str:
    """What a thousand answers of a setup cost; those of a model on this machine cost nothing that is known."""
    if row is None or row.money is None:
        return "–"
    return sourced(f"{1000 * row.money:,.2f}", cell("costs.csv", "money", configuration=row.configuration, split=row.split))


def _setup(run: Run, row: LeaderboardRow, place: str, baseline: str) -> tuple[str, ...]:
    c, marks = row.configuration, []
    if c == run.best:
        marks.append("chosen")
    if c == baseline:
        marks.append(run.today)
    name, label = run.names[c], run.labels[c]
    title = foreign(name) + (f" <small>{foreign(label)}</small>" if name != label else "")
    title += "".join(f" <span class=wb-tag>{text(mark)}</span>" for mark in marks)
    found = run.comparison(c, baseline, row.split, row.metric) if c != baseline else None
    gap: tuple[str, str, str] = ("–", "–", "–")
    if found is not None:
        columns = ("difference", "low", "high", "supported")
        gap = tested(found, run.matters, {name: compared(run, c, baseline, row.split, row.metric, name) for name in columns})
    return title, mean_of(row), interval_of(row) or "–", text(place), *gap


def pairs(run: Run, rows: Sequence[ComparisonRow]) -> str:
    """Pairs of setups for statisticians: those shown to differ come first, then the largest differences.

    Args:
        run: their run.
        rows: of its comparisons.csv, of one split and metric.
    """
    if not rows:
        return box("There is no pair of setups to compare.")
    split, metric = rows[0].split, rows[0].metric
    lines = []
    for row in sorted(rows, key=lambda row: (not shown(row), -abs(row.difference)))[:MOST]:
        keys = {"a": row.a, "b": row.b, "split": split, "metric": metric}
        p = sourced(words.p_text(row.p_adjusted), cell("comparisons.csv", "p_adjusted", **keys))
        needed = f"{row.n_needed:,.0f}" if row.n_needed is not None and isfinite(row.n_needed) else "–"
        n = sourced(needed, cell("comparisons.csv", "n_needed", **keys))
        title = f"{foreign(run.labels[row.a])} less {foreign(run.labels[row.b])}"
        lines.append((title, *tested(row, run.matters, _addresses("comparisons.csv", keys)), p, n))
    head = ("pair", "difference", "plausibly", "verdict", "adjusted p", "questions needed to show it")
    left_out = f"<p>{text(f'{len(rows) - MOST:,} more are in comparisons.csv.')}</p>" if len(rows) > MOST else ""
    return left_out + table(f"Pairs on {split}, by {words.metric_name(metric)}", head, lines, right=(1, 2, 4, 5))


def reported_pairs(run: Run) -> list[ComparisonRow]:
    """Comparisons of all setups on the split that is reported, by the metric that chooses."""
    return [row for row in run.comparisons if (row.split, row.metric) == (run.report_split, run.select[1])]


def slices(run: Run) -> str:
    """The chosen setup on the questions of each slice, against the baseline."""
    metric, split, baseline, best = run.select[1], run.report_split, run.manifest["baseline"], run.best
    own = [row for row in run.slices if (row.split, row.metric) == (split, metric)]
    rows = [row for row in own if row.configuration == best and row.against in ("", baseline)]
    if not rows:
        return ""
    lines = []
    for row in sorted(rows, key=lambda row: (row.column, -row.n, row.value)):
        keys = {
            "split": split,
            "column": row.column,
            "value": row.value,
            "metric": metric,
            "configuration": best,
            "against": row.against,
        }
        few = " <small>too few to show anything</small>" if row.small == "yes" else ""
        gap: tuple[str, str, str] = ("–", "–", "–")
        if row.tested:
            gap = tested(row.tested, run.matters, _addresses("slices.csv", keys))
        n, mean = (
            sourced(f"{row.n:,}", cell("slices.csv", "n", **keys)),
            sourced(words.number(row.mean), cell("slices.csv", "mean", **keys)),
        )
        lines.append((f"{foreign(row.column)}: {foreign(row.value)}{few}", n, mean, *gap))
    head = ("questions", "number", "of 100", f"gain over {run.today}", "plausibly", "verdict")
    said = (
        f"<p>{foreign(named(run, best))} on parts of the questions of {text(split)}; verdicts allow for all slices together.</p>"
    )
    return said + table(f"Slices of {split}, by {words.metric_name(metric)}", head, lines, right=(1, 2, 3, 4))


def timing(run: Run) -> str:
    """How long an answer takes, beside how good it is."""
    rows = sorted((row for row in run.latency if row.configuration in run.names), key=lambda row: row.p50)
    if not rows:
        name = text(shlex.quote(f"runs/{run.manifest['experiment']}/{run.folder.resolve().name}"))
        return f"<p>The time of an answer was not measured; <code>workbench latency {name}</code> measures it.</p>"
    metric, lines, dots = run.select[1], [], []
    for i, row in enumerate(rows, 1):
        keys = {"configuration": row.configuration}
        mean = run.row(row.configuration, run.report_split, metric)
        seconds = [
            sourced(f"{value:.2f}", cell("latency.csv", name, **keys)) for name, value in (("p50", row.p50), ("p95", row.p95))
        ]
        dots += [(row, mean)] if mean else []
        number = f"<bdi>{i}</bdi>&nbsp; " if len(rows) > 1 else ""
        lines.append((number + foreign(named(run, row.configuration)), *seconds, mean_of(mean) if mean else "–"))
    head = ("setup", "median, seconds", "95th percentile, seconds", f"{words.metric_name(metric)} of 100")
    drawn = scatter(dots) if len(dots) > 1 and len(dots) == len(rows) else ""
    return drawn + table("Seconds of an answer, one at a time", head, lines, right=(1, 2, 3))
