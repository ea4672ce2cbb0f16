"""Rows of a run's tables, as figures and dashboards show them."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.errors import unknown
from workbench.results import words
from workbench.results.rows import ComparisonRow, ConfigurationRow, EffectRow, LeaderboardRow, SliceRow
from workbench.results.run import Run
from workbench.results.verdict import beside_the_best

RANKING_AXES = ("chunking", "rewriting", "expansion", "retriever", "reranker")


def axis_names(run: Run) -> str:
    """What the parts of a label mean: the axes that vary, as in ``retriever/reranker``."""
    return "/".join(axis for axis in run.axes if len({row.values[axis] for row in run.configurations}) > 1)


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


def reference(run: Run, split: str, metric: str) -> str:
    """Id of what the others are compared with: the baseline; the best there, where the baseline was not measured."""
    ids = [row.configuration for row in ranked(run, split, metric)]
    baseline: str = run.manifest["baseline"]
    return baseline if baseline in ids else ids[0]


def called(run: Run, configuration: str) -> str:
    """The baseline's name as the experiment's file gives it, such as ``today's setup``; else what a configuration is."""
    return run.today if configuration == run.manifest["baseline"] else run.names[configuration]


def effects(run: Run, metric: str) -> list[EffectRow]:
    """Effects of choosing another value than the baseline's, an axis at a time; all where the baseline's were not measured."""
    rows = [row for row in run.effects if row.metric == metric]
    today = next((row.values for row in run.configurations if row.configuration == run.manifest["baseline"]), {})
    return [row for row in rows if today.get(row.axis) in (row.a, row.b)] or rows


def effect_name(run: Run, row: EffectRow) -> str:
    """``generator: fine-tuned model instead of untuned model``."""
    values = list(dict.fromkeys(one.values[row.axis] for one in run.configurations))
    first, second = (words.value_name(row.axis, value, values, run.settings) for value in (row.a, row.b))
    return f"{row.axis}: {first} instead of {second}"


def slices(run: Run, split: str, metric: str) -> list[SliceRow]:
    """Of the best configuration on each slice: where it was compared, against the baseline."""
    wanted = split, metric, run.best
    rows = [row for row in run.slices if (row.split, row.metric, row.configuration) == wanted]
    return [row for row in rows if row.against in ("", run.manifest["baseline"])]


def slice_name(row: SliceRow) -> str:
    """``kind: direct (40 questions)``."""
    return f"{row.column}: {row.value} ({row.n} question{'' if row.n == 1 else 's'}{', too few' if row.small == 'yes' else ''})"


def ranking_metrics(run: Run, split: str) -> list[str]:
    """Metrics of rankings that were measured on a split, sorted; they have a cut-off in their names."""
    return sorted({row.metric for row in run.leaderboard if row.split == split and "@" in row.metric})


def rankings(run: Run, split: str) -> dict[tuple[str, ...], str]:
    """Configurations with equal figures by all metrics of rankings -> what makes their ranking.

    Those that differ in the prompt alone, for example, share a ranking. The best by the first metric comes first.
    """
    found = [{row.configuration: row for row in ranked(run, split, m)} for m in ranking_metrics(run, split)]
    groups: dict[tuple[tuple[float | None, ...], ...], list[str]] = {}
    for c in found[0]:
        groups.setdefault(tuple((t[c].mean, t[c].ci_low, t[c].ci_high) for t in found), []).append(c)
    rows = {row.configuration: row for row in run.configurations}
    axes = [axis for axis in axis_names(run).split("/") if axis in RANKING_AXES]
    named = {tuple(group): _shared(run, [rows[c] for c in group], axes) for group in groups.values()}
    twice = [name for name in named.values() if not name or list(named.values()).count(name) > 1]
    return {group: run.names[group[0]] if name in twice else name for group, name in named.items()}


def _shared(run: Run, rows: Sequence[ConfigurationRow], axes: Sequence[str]) -> str:
    """What configurations have in common on some axes, in words where the run has them."""
    common = {axis: rows[0].values[axis] for axis in axes if len({row.values[axis] for row in rows}) == 1}
    if not run.settings:
        return "/".join(common.values())
    values = {axis: list(dict.fromkeys(one.values[axis] for one in run.configurations)) for axis in common}
    told = {axis: value for axis, value in common.items() if value not in words.NOTHING}
    return ", ".join(words.value_name(axis, value, values[axis], run.settings) for axis, value in told.items())
