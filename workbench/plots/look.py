"""How figures look: colours with a meaning, rows of gains, headings, captions.

Colour is never alone: beside it stands a sign or a word. A filled mark is a difference that is shown, a hollow one is not.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Transform

from workbench.results.rows import Tested
from workbench.results.run import Run
from workbench.results.verdict import BETTER as SHOWN_BETTER
from workbench.results.verdict import SIGNS, graded, shown
from workbench.results.verdict import WORSE as SHOWN_WORSE
from workbench.results.words import DIRECTIONLESS, POINTS, count, metric_name, number

STYLE = Path(__file__).with_name("workbench.mplstyle")
WIDTH = 7.5  # inches
ROWS = 20  # that a figure shows; of longer tables it says how many are left out, and which file has them
LINE = 10.8  # points between two lines of a name
CODED = 10  # rows up to which each has its code below its name

BETTER, WORSE, OPEN, PICKED = "#0b62a8", "#b3400e", "#6e7781", "#8a5a00"  # the last: where the best was picked
INK, PAPER = "#000000", "#ffffff"  # of text and axes; in an SVG they are the page's

NAME, TITLE, SAID, SMALL = 44, 75, 110, 130  # characters in a line of a row's name, a title, what stands below it, a caption
BAR = "A bar shows where the true difference plausibly lies. It leaves out 0, and its mark is filled, just when one is shown."


class Counted(Protocol):
    """A figure over a number of questions."""

    @property
    def n(self) -> int:
        """Number of questions."""


class Mark(NamedTuple):
    """How a point is drawn."""

    colour: str = INK
    shape: str = "o"
    filled: bool = True


TODAY = Mark(INK, "s")  # the setup that the others are compared with


class Row(NamedTuple):
    """A row of a plot of gains.

    Attributes:
        name: stands at its left.
        row: the difference; None for the setup that the others are compared with.
        cells: texts at its right, one a column.
        small: stands below its name, in small letters.
        bold: whether its name is.
        picked: what it gained on the questions that it was picked by; None where that is not said.
        here: whether it was picked by these very questions.
    """

    name: str
    row: Tested | None
    cells: tuple[str, ...] = ()
    small: str = ""
    bold: bool = False
    picked: float | None = None
    here: bool = False


def style() -> AbstractContextManager[None]:
    """The workbench's look, a context: figures are made *and* saved inside it."""
    return matplotlib.style.context(str(STYLE))


def figure(rows: int, names: Iterable[str] = ()) -> Figure:
    """An empty figure high enough for a plot of that many rows, whose names may be long; of no window: nothing to close."""
    return Figure(figsize=(WIDTH, height(rows, names)), layout="constrained")


def height(rows: int, names: Iterable[str] = (), frame: float = 1.9, coded: bool = True) -> float:
    """Inches that a plot of that many rows takes, of which it shows `ROWS` and the baseline.

    Args:
        rows: how many.
        names: theirs; room is made for the longest, which may be wrapped.
        frame: inches above and below the rows.
        coded: whether rows have codes below their names, where they are few.
    """
    lines = max((wrapped(name, NAME).count("\n") + 1 for name in names), default=1)
    return frame + (0.1 + 0.14 * lines + 0.12 * (coded and rows <= CODED)) * min(max(rows, 2), ROWS + 1)


def mark(row: Tested, run: Run) -> Mark:
    """Of a difference: blue for shown better, orange for shown worse, grey for an open question; filled where it is shown."""
    word = graded(row, run.matters)
    plain = INK if shown(row) and row.metric in DIRECTIONLESS else OPEN
    return Mark({SHOWN_BETTER: BETTER, SHOWN_WORSE: WORSE}.get(word, plain), filled=shown(row))


def signed(row: Tested, run: Run) -> str:
    """The sign of a verdict, and the difference: ``✓ +7.7``."""
    return f"{SIGNS.get(graded(row, run.matters), '?')} {number(row.difference, signed=True)}"


def draw_gains(ax: Axes, run: Run, rows: Sequence[Row], heads: Sequence[str], zero: str) -> None:
    """Differences with the intervals of their verdicts, a row each, the first on top.

    Args:
        ax: where to draw.
        run: the run.
        rows: what is drawn.
        heads: of the columns at the right.
        zero: what stands above the line at zero.
    """
    for y, row in enumerate(rows):
        if row.row is None:
            dot(ax, 0.0, y, (None, None), TODAY)
            continue
        look = Mark(PICKED, "D", shown(row.row)) if row.here else mark(row.row, run)
        dot(ax, row.row.difference * POINTS.factor, y, scaled(row.row.low, row.row.high), look)
        if row.picked is not None:
            dot(ax, row.picked * POINTS.factor, y + 0.3, (None, None), Mark(PICKED, "D", False))
    name_rows(ax, [row.name for row in rows], [row.small for row in rows], [row.bold for row in rows])
    right = 8.0
    for j, head in enumerate(heads):
        cells = [row.cells[j] for row in rows]
        _write(ax, head, (1, 1), ax.transAxes, (right, 5), quiet=True)
        for y, cell in enumerate(cells):
            at_right(ax, y, cell, right)
        right += 10 + 5.6 * max(len(text) for text in (head, *cells))
    ax.axvline(0, color=INK, linewidth=1, zorder=1)
    low, high = ax.get_xlim()
    at = -low / (high - low)
    aside: Literal["left", "right", "center"] = "left" if at < 0.25 else "right" if at > 0.75 else "center"
    _write(ax, zero, (0, 1), ax.get_xaxis_transform(), (0, 5), ha=aside, quiet=True)


def dot(ax: Axes, x: float, y: float, ends: tuple[float | None, float | None], look: Mark, upright: bool = False) -> None:
    """A mark at (x, y) with its interval, where there is one.

    Args:
        ax: where to draw.
        x: of the mark.
        y: of the mark.
        ends: of the interval.
        look: the mark.
        upright: whether the interval is one of y.
    """
    if None not in ends:
        along, across = list(ends), [x if upright else y] * 2
        both = (across, along) if upright else (along, across)
        ax.plot(*both, color=look.colour, linestyle="-", linewidth=2.4, solid_capstyle="butt", zorder=2)
    face = look.colour if look.filled else PAPER
    ax.plot([x], [y], look.shape, color=look.colour, markerfacecolor=face, markeredgewidth=1.5, zorder=3)


def scaled(low: float | None, high: float | None) -> tuple[float | None, float | None]:
    """Both ends in points of 100."""
    return (None, None) if low is None or high is None else (low * POINTS.factor, high * POINTS.factor)


def name_rows(ax: Axes, names: Sequence[str], small: Sequence[str] = (), bold: Sequence[bool] = ()) -> None:
    """Named rows, the first on top.

    Args:
        ax: where to draw.
        names: of the rows.
        small: what stands below each name, or nothing.
        bold: which names are.
    """
    below = [*small, *[""] * (len(names) - len(small))]
    # an empty line of the name leaves room for what stands below it
    labels = [wrapped(name, NAME) + ("\n" if said else "") for name, said in zip(names, below, strict=True)]
    ax.set_yticks(range(len(names)), labels)
    for tick, heavy in zip(ax.get_yticklabels(), bold, strict=False):
        tick.set_fontweight("bold" if heavy else "normal")
    for y, (label, said) in enumerate(zip(labels, below, strict=True)):
        if said:
            down = LINE / 2 * label.count("\n") + 1
            _write(ax, plain(said), (0, y), ax.get_yaxis_transform(), (-4, -down), "right", "center", size=7.5, quiet=True)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))


def at_right(ax: Axes, y: float, text: str, right: float = 8.0) -> None:
    """Text in a row, beside the plot.

    Args:
        ax: the plot.
        y: the row.
        text: what is written.
        right: points from the right edge.
    """
    _write(ax, text, (1, y), ax.get_yaxis_transform(), (right, 0), va="center")


def _write(
    ax: Axes,
    text: str,
    at: tuple[float, float],
    place: Transform | tuple[Transform, Transform],
    shift: tuple[float, float],
    ha: Literal["left", "right", "center"] = "left",
    va: Literal["baseline", "bottom", "center", "top"] = "baseline",
    size: float = 9,
    bold: bool = False,
    quiet: bool = False,
) -> None:
    """Text at a place, moved by some points."""
    ax.annotate(
        text,
        at,
        shift,
        xycoords=place,
        textcoords="offset points",
        ha=ha,
        va=va,
        fontsize=size,
        fontweight="bold" if bold else "normal",
        alpha=0.75 if quiet else 1.0,
        linespacing=1.3,
    )


def heading(ax: Axes, title: str, said: str = "", up: float = 22) -> None:
    """What follows from a plot, and below it in plain letters what was measured; both are the Axes' label, too.

    They begin at the figure's left edge where the plot has the whole width.

    Args:
        ax: the plot.
        title: what follows.
        said: what was measured.
        up: points above the Axes.
    """
    ax.set_label(f"{title}. {said}".rstrip(". ") + ".")
    title, said, place = wrapped(title, TITLE), wrapped(said, SAID), (_left(ax), ax.transAxes)
    if said:
        _write(ax, said, (0, 1), place, (6, up), va="bottom")
        up += 13 * (said.count("\n") + 1) + 2
    _write(ax, title, (0, 1), place, (6, up), va="bottom", size=12, bold=True)


def caption(ax: Axes, text: str, down: float = 38) -> None:
    """How to read a plot, in small letters, so many points below it."""
    lines = "\n".join(wrapped(line, SMALL) for line in text.split("\n"))
    _write(ax, lines, (0, 0), (_left(ax), ax.transAxes), (6, -down), va="top", size=8, quiet=True)


def _left(ax: Axes) -> Transform:
    """Of the figure, where the plot has its whole width; else of the plot."""
    spec, figure = ax.get_subplotspec(), ax.get_figure(root=True)
    return figure.transFigure if figure and spec and spec.is_first_col() and spec.is_last_col() else ax.transAxes


def listed(ax: Axes, names: Sequence[str]) -> None:
    """A numbered list of names below a plot, whose marks have these numbers; see `numbered`."""
    lines = [f"{j}   {wrapped(name, SAID)}" for j, name in enumerate(names, 1)]
    _write(ax, "\n".join(lines), (0, 0), ax.transAxes, (0, -38), va="top")


def numbered(ax: Axes, at: tuple[float, float], j: int) -> None:
    """The number of a mark beside it."""
    _write(ax, str(j), at, ax.transData, (-6, 4), "right", "bottom", bold=True)


def note(ax: Axes, text: str) -> Axes:
    """Says in an empty figure why it is empty."""
    ax.set_axis_off()
    ax.set_label(text)
    ax.text(0.5, 0.5, wrapped(text, 80), transform=ax.transAxes, ha="center", va="center")
    return ax


def wrapped(label: str, width: int) -> str:
    """A long label in several lines, broken behind a slash or a space, and behind a hyphen where no word fits otherwise."""
    parts = label.replace("/", "/ ")
    lines = textwrap.wrap(parts, width, break_on_hyphens=any(len(part) > width for part in parts.split()))
    return plain("\n".join(line.replace("/ ", "/") for line in lines))


def plain(text: str) -> str:
    """Text for matplotlib, which would read mathematics between two dollar signs, and end with an error where it is none."""
    return text.replace("$", r"\$")


def asked(run: Run, split: str, rows: Sequence[Counted]) -> str:
    """How many questions were asked, and whether the best was picked by them: ``100 fresh questions (test)``."""
    low, high = min(row.n for row in rows), max(row.n for row in rows)
    many = count(high, "question") if low == high else f"{low:,} to {count(high, 'question')}"
    if split != run.select[0]:
        return f"{many.replace(' question', ' fresh question')} ({split})"
    return f"the {many} that the best was picked by ({split})"


def left_out(total: int, drawn: int, table: str) -> str:
    """What a figure does not show of a table; nothing where it shows all."""
    return f"{total - drawn} of {total} are left out; {table} has them." if total > drawn else ""


def gain(metric: str, over: str = "") -> str:
    """``gain in F1 over today's setup``; of a metric without a good end, ``difference in abstention from today's setup``."""
    noun, than = ("difference", "from") if metric in DIRECTIONLESS else ("gain", "over")
    return f"{noun} in {metric_name(metric)}" + (f" {than} {over}" if over else "")


def better(metric: str) -> str:
    """The word for a higher mean."""
    return "more" if metric in DIRECTIONLESS else "better"


def worse(metric: str) -> str:
    """The word for a lower mean."""
    return "less" if metric in DIRECTIONLESS else "worse"
