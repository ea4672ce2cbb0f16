"""Figures of a run. `plot_x(ax, data, ...)` draws on a matplotlib Axes and returns it; `save_figures` alone writes files.

Figures show the tables of the run folder and compute nothing that is not in them. With `style()` around them, figures look
alike; without it they say the same.
"""

from workbench.plots.costs import COSTS, plot_indexes, plot_pareto
from workbench.plots.gains import plot_differences, plot_effects, plot_leaderboard, plot_ranking_metrics, plot_slices
from workbench.plots.look import ROWS, WIDTH, figure, height, style
from workbench.plots.pairs import plot_power, plot_wins
from workbench.plots.rows import axis_names, compared, places, ranked, ranking_metrics
from workbench.plots.saving import figures, save_figures
from workbench.plots.svg import svg
from workbench.plots.training import plot_systems, plot_training

__all__ = [
    "COSTS",
    "ROWS",
    "WIDTH",
    "axis_names",
    "compared",
    "figure",
    "figures",
    "height",
    "places",
    "plot_differences",
    "plot_effects",
    "plot_indexes",
    "plot_leaderboard",
    "plot_pareto",
    "plot_power",
    "plot_ranking_metrics",
    "plot_slices",
    "plot_systems",
    "plot_training",
    "plot_wins",
    "ranked",
    "ranking_metrics",
    "save_figures",
    "style",
    "svg",
]
