"""Two small pictures of numbers: the losses of a training, and quality against time."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from workbench.results import words
from workbench.results.rows import LatencyRow, LeaderboardRow, TrainingRow
from workbench.views.html import cell, foreign, sourced, text

POINTS = 400  # steps that a curve is drawn of; more are thinned out evenly
NEAR = 4.0  # percent of the picture's width and height within which two dots would hide each other's number


def losses(rows: Sequence[TrainingRow]) -> str:
    """The loss of each step of one training, and where it was measured, of the examples held back.

    Args:
        rows: of training.csv, of one adapter and seed, in the order of their steps.
    """
    steps = [(row.step, row.loss) for row in rows if row.loss is not None and isfinite(row.loss)]
    held = [(row.step, row.held_back) for row in rows if row.held_back is not None and isfinite(row.held_back)]
    top = max((loss for _, loss in (*steps, *held)), default=0.0)
    if len(steps) < 2 or top <= 0:
        return ""
    first, last = min(step for step, _ in (*steps, *held)), steps[-1][0]

    def place(step: int, loss: float) -> str:
        return f"{100 * (step - first) / max(1, last - first):.2f},{40 * (1 - loss / top):.2f}"

    thin = [*steps[: -1 : max(1, len(steps) // POINTS)], steps[-1]]
    line = f"<polyline points='{' '.join(place(*one) for one in thin)}'/>"
    dashed = f"<polyline class=wb-held points='{' '.join(place(*one) for one in held)}'/>" if len(held) > 1 else ""
    keys = {"adapter": rows[0].adapter, "seed": str(rows[0].seed)}
    highest = next((row for row in rows if row.loss == top), None)
    column, at = ("loss", highest) if highest else ("held_back", next(row for row in rows if row.held_back == top))
    highest_said = sourced(f"{top:.2f}", cell("training.csv", column, **keys, step=str(at.step)))
    seed = sourced(str(rows[0].seed), cell("training.csv", "seed", **keys, step=str(steps[0][0])))
    ends = [sourced(f"{step:,}", cell("training.csv", "step", **keys, step=str(step))) for step in (first, last)]
    said = (
        f"The loss falls from {steps[0][1]:.2f} to {steps[-1][1]:.2f}" if steps[-1][1] < steps[0][1] else "The loss does not fall"
    )
    legend = "Line: loss of each step." + (" Dashed: loss of the examples held back." if dashed else "")
    return (
        f"<figure class=wb-curve><p class=wb-quiet>{highest_said}</p>"
        f"<svg role=img aria-label='{text(said)}' viewBox='0 0 100 40' preserveAspectRatio=none>{line}{dashed}</svg>"
        f"<p class='wb-quiet wb-ends'><span>step {ends[0]}</span><span>step {ends[1]}</span></p>"
        f"<figcaption>{foreign(rows[0].adapter)}, seed {seed}: {legend} The lower edge is a loss of zero.</figcaption></figure>"
    )


def scatter(dots: Sequence[tuple[LatencyRow, LeaderboardRow]]) -> str:
    """Median seconds of an answer to the right, quality upwards; each setup is a dot with its number in the table.

    Args:
        dots: the setups' times and means, in the order of the table's numbers.
    """
    slowest, best = max(row.p50 for row, _ in dots), max(mean.mean for _, mean in dots)
    if slowest <= 0 or best <= 0:
        return ""
    places: list[tuple[float, float, list[int]]] = []
    for i, (row, mean) in enumerate(dots, 1):
        x, y = 92 * row.p50 / slowest, 88 * max(0.0, mean.mean) / best
        near = next((one for one in places if abs(one[0] - x) < NEAR and abs(one[1] - y) < 2 * NEAR), None)
        if near:
            near[2].append(i)  # dots upon each other share one place and name all their numbers
        else:
            places.append((x, y, [i]))
    marks = "".join(
        f"<span style='left:{x:.1f}%;bottom:{y:.1f}%'><i></i><bdi>{', '.join(map(str, numbers))}</bdi></span>"
        for x, y, numbers in places
    )
    said = "; ".join(f"{i}: {words.number(mean.mean)} of 100 in {row.p50:.2f} seconds" for i, (row, mean) in enumerate(dots, 1))
    return (
        f"<figure class=wb-scatter><div role=img aria-label='{text(said)}'>{marks}</div>"
        "<figcaption>Upwards: better. To the right: slower. Both axes start at zero; the numbers are those of the table."
        "</figcaption></figure>"
    )
