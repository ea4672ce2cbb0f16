"""A training step by step, and the same prompts answered by the base model, by the adapter and by merged weights."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from workbench.plots.look import INK, OPEN, PAPER, Mark, at_right, caption, dot, heading, name_rows, note, scaled
from workbench.results.rows import SystemRow
from workbench.results.words import POINTS, count, direction, metric_name, number


class Loss(Protocol):
    """A loss after an optimiser step, as `workbench.models.training` gives them."""

    @property
    def step(self) -> int:
        """Number of the step, from 1; 0 is before the first."""

    @property
    def loss(self) -> float:
        """Mean loss, nats per answer token."""


def plot_training(ax: Axes, curve: Sequence[Loss], held_back: Sequence[Loss] = ()) -> Axes:
    """Loss of each step of a training, and the mean of the last tenth of the steps where there are twenty or more.

    Args:
        ax: where to draw.
        curve: losses of the steps in their order, in nats per answer token; nan leaves a gap.
        held_back: the same for the examples held back; the lowest is marked.
    """
    steps, losses = [row.step for row in curve], [row.loss for row in curve]
    if not steps:
        return note(ax, "The training has no steps.")
    window = len(losses) // 10
    smooth = window > 1
    thin = 0.8 if smooth else 1.8
    ax.plot(steps, losses, "-" if smooth else "o-", color=OPEN if smooth else INK, linewidth=thin, label="each step")
    if smooth:
        means = [sum(losses[i - window + 1 : i + 1]) / window for i in range(window - 1, len(losses))]
        ax.plot(steps[window - 1 :], means, color=INK, linestyle="-", label=f"mean of {window} steps")
    said = "Loss in nats per answer token; lower is better."
    if held_back:
        best = min(held_back, key=lambda row: row.loss)
        looks_at, found = [row.step for row in held_back], [row.loss for row in held_back]
        ax.plot(looks_at, found, "s--", color=INK, markersize=5, markerfacecolor=PAPER, label="examples held back")
        ax.plot([best.step], [best.loss], "s", color=INK, markersize=9, label=f"kept: {best.loss:.2f} after step {best.step}")
        said += " The adapter that did best on the examples held back is kept."
    if smooth or held_back:
        ax.legend(loc="upper right")
    drawn = [value for value in (*losses, *(row.loss for row in held_back)) if not isnan(value)]
    ax.set_ylim(0, 1.06 * max(drawn, default=1.0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    heading(ax, "Training of the adapter", said, up=8)
    ax.set_xlabel(f"optimizer step, of {count(len(steps), 'step')}")
    ax.set_ylabel("loss")
    return ax


def plot_systems(ax: Axes, rows: Sequence[SystemRow]) -> Axes:
    """Mean of base, adapter and merged weights with 95 % intervals."""
    if not rows:
        return note(ax, "No configuration of this experiment answers with this adapter.")
    for y, row in enumerate(rows):
        dot(ax, row.mean * POINTS.factor, y, scaled(row.ci_low, row.ci_high), Mark())
        at_right(ax, y, number(row.mean))
    name_rows(ax, [row.system for row in rows])
    name = metric_name(rows[0].metric)
    said = f"{name} on {count(rows[0].n, 'question')} of {rows[0].split}; {direction(rows[0].metric)}."
    heading(ax, "The same prompts, answered three ways", said, up=8)
    ax.set_xlabel(f"mean {name}, points of 100")
    caption(ax, "A bar shows where the mean of such questions plausibly lies (95 %).")
    return ax
