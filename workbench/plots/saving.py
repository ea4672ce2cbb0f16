"""All figures that fit a run, and their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from workbench.plots.costs import COSTS, plot_indexes, plot_pareto, spendings
from workbench.plots.gains import plot_differences, plot_effects, plot_leaderboard, plot_ranking_metrics, plot_slices, reading
from workbench.plots.look import ROWS, SMALL, WIDTH, asked, figure, height, left_out, style, wrapped
from workbench.plots.pairs import plot_power, plot_wins
from workbench.plots.rows import called, effect_name, effects, ranked, ranking_metrics, rankings, reference, slice_name, slices
from workbench.plots.svg import svg
from workbench.results.run import Run

BESIDE = 3  # metrics of rankings in one line of plots
FEW = 5  # rows below which the selection split is left out of the leaderboard


def save_figures(run: Run, folder: str | Path) -> list[Path]:
    """Writes the figures of a run into a folder, which is made where it does not exist: each as PNG, for slides, and as SVG.

    PNGs have 150 dots per inch; SVGs hold their text as text, take the colours of text and background from the page, and are the
    same bytes each time. Always leaderboard (the report split, and below it the selection split, where more setups were measured
    there), differences (to the baseline, on the report split) and effects; slices where the experiment's file names columns under
    ``metrics.slices``; wins and power where the best configuration is not the baseline and both were reported; pareto where
    latency was measured; indexes where indexes were checked; rankings where rankings were measured. No plot has more than 20 rows
    and the baseline; a sentence below says which file has the others.

    Returns:
        The files written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with style():
        for name, drawn in _figures(run):
            picture, text = folder / f"{name}.png", folder / f"{name}.svg"
            drawn.savefig(picture, dpi=150)
            text.write_text(svg(drawn), encoding="utf-8")
            written += [picture, text]
    return written


def figures(run: Run) -> dict[str, Figure]:
    """The figures that `save_figures` writes, by name, for showing in a notebook (inside `style`)."""
    with style():
        return dict(_figures(run))


def _figures(run: Run) -> Iterator[tuple[str, Figure]]:
    """Name and figure of everything that fits the run."""
    (select, metric), baseline = run.select, run.manifest["baseline"]
    reported_any = any((row.split, row.metric) == (run.report_split, metric) for row in run.leaderboard)
    report = run.report_split if reported_any else select
    yield "leaderboard", _leaderboards(run, report, metric)
    reported = [row.configuration for row in ranked(run, report, metric)]
    drawn = figure(len(reported) - 1, (run.names[c] for c in reported[:ROWS]))
    plot_differences(drawn.subplots(), run, report, metric, reference(run, report, metric))
    yield "differences", drawn
    found = effects(run, metric)
    drawn = figure(len(found), (effect_name(run, row) for row in found))
    plot_effects(drawn.subplots(), run, metric)
    yield "effects", drawn
    if parts := slices(run, report, metric):
        drawn = figure(len(parts), map(slice_name, parts))
        plot_slices(drawn.subplots(), run, report, metric)
        yield "slices", drawn
    if run.best != baseline and {run.best, baseline} <= set(reported):
        drawn = figure(6)
        plot_wins(drawn.subplots(), run, report, metric, run.best, baseline)
        yield "wins", drawn
        drawn = figure(6)
        plot_power(drawn.subplots(), run, report, metric, run.best, baseline)
        yield "power", drawn
    if costs := [cost for cost in COSTS if spendings(run, report, cost, reported)]:
        listed = len(spendings(run, report, costs[-1], reported))
        drawn = Figure(figsize=(WIDTH, 3 * len(costs) + 0.17 * listed), layout="constrained")
        for ax, cost in zip(drawn.subplots(len(costs), squeeze=False)[:, 0], costs, strict=True):
            plot_pareto(ax, run, report, metric, cost, named=cost == costs[-1])
        yield "pareto", drawn
    if run.indexes:
        drawn = Figure(figsize=(WIDTH, 3.8 + 0.17 * len(run.indexes)), layout="constrained")
        plot_indexes(drawn.subplots(), run.indexes)
        yield "indexes", drawn
    if ranking_metrics(run, report):
        yield "rankings", _rankings(run, report)


def _leaderboards(run: Run, report: str, metric: str) -> Figure:
    """The report split, and below it the selection split, where more setups were measured there and there is room."""
    select, first = run.select[0], ranked(run, report, metric)
    room = ROWS - len(first)
    more = select != report and room >= FEW and len(ranked(run, select, metric)) > len(first)
    parts = {report: ROWS, select: room} if more else {report: ROWS}
    shown = [ranked(run, split, metric)[:rows] for split, rows in parts.items()]
    heights = [height(len(rows), (run.names[row.configuration] for row in rows)) for rows in shown]
    drawn = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    axes = drawn.subplots(len(parts), squeeze=False, height_ratios=[len(rows) for rows in shown])[:, 0]
    for ax, (split, rows) in zip(axes, parts.items(), strict=True):
        plot_leaderboard(ax, run, split, metric, rows, explained=split == report)
    return drawn


def _rankings(run: Run, split: str) -> Figure:
    """A plot for each metric of rankings, side by side, with the same rows."""
    metrics, found = ranking_metrics(run, split), rankings(run, split)
    lines = -(-len(metrics) // BESIDE)
    columns = -(-len(metrics) // lines)
    kept = ROWS // lines
    size = 1.2 + lines * height(min(kept + 1, len(found)), found.values(), frame=0.8, coded=False)
    drawn = Figure(figsize=(WIDTH, size), layout="constrained")
    axes = list(drawn.subplots(lines, columns, squeeze=False).flat)
    for j, (ax, metric) in enumerate(zip(axes, metrics, strict=False)):
        plot_ranking_metrics(ax, run, split, metric, kept, named=j % columns == 0)
    for ax in axes[len(metrics) :]:
        ax.set_axis_off()
    base = reference(run, split, metrics[0])
    drawn.suptitle("How well each ranking finds the evidence", x=0.01, ha="left", fontsize=12, fontweight="bold")
    pairs = [row for row in run.comparisons if row.split == split and row.metric in metrics]
    asked_of = asked(run, split, ranked(run, split, metrics[0]))
    said = f"Gain over the ranking of {called(run, base)} (■), and score of 100; higher is better. On {asked_of}."
    drawn_rows = sum(j < kept or base in group for j, group in enumerate(found))
    more = left_out(len(found), drawn_rows, "leaderboard.csv")
    text = reading(run, pairs, "Bold: the chosen setup's.", more) if pairs else ""
    below = "\n".join(wrapped(line, SMALL) for line in f"{said}\n{text}".split("\n"))
    drawn.supxlabel(below, x=0.01, ha="left", fontsize=8, linespacing=1.3)
    return drawn
