"""The views that dashboards show, each in three layers: functions without a widget in them, the widgets, their connection.

A view holds no numbers of its own: it shows the tables of the run folder, so it agrees with notebooks and command line.
"""

from __future__ import annotations

import base64
import io
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from workbench import plots
from workbench.errors import InputError
from workbench.results import conclusions, words
from workbench.results.run import Run, finished
from workbench.results.verdict import OLDER, SIGNS, graded, shown
from workbench.results.verdict import verdict as verdict_of

log = logging.getLogger(__name__)

COLUMNS = (
    "rank",
    "label",
    "name",
    "configuration",
    "mean",
    "ci_low",
    "ci_high",
    "n",
    "failed",
    "place",
    "difference",
    "low",
    "high",
    "verdict",
)

# --- Without widgets: what is shown -----------------------------------------------------------------------------------


def runs_folder(given: str | Path = "") -> Path:
    """The folder of all runs: the one given, else WORKBENCH_RUNS, else ``runs`` here or beside the notebook's folder."""
    named = str(given) or os.environ.get("WORKBENCH_RUNS", "")
    if named:
        return Path(named).expanduser().resolve()
    found = next((folder for folder in (Path("runs"), Path("../runs")) if folder.is_dir()), Path("runs"))
    return found.resolve()


def run_choices(runs: Path) -> list[tuple[str, Path]]:
    """Finished runs below a folder, newest first, each with a name for people.

    Raises:
        InputError: there is none; the message says how to make one.
    """
    found = sorted(finished(runs), key=lambda folder: (folder.name, str(folder)), reverse=True)
    if not found:
        raise InputError(
            f"There is no finished run in {runs}. This command makes one:\nworkbench run configs/quickstart.yaml --runs {runs}"
        )
    return [(run_name(folder), folder) for folder in found]


def run_name(folder: Path) -> str:
    """A run's experiment and time: ``quickstart, 21 November 2026, 11:41:37 UTC``, or its id where that holds no time."""
    experiment, (stamp, _, _) = folder.parent.name, folder.name.partition("-")
    try:
        started = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ")
    except ValueError:
        return f"{experiment}, {folder.name}"
    return f"{experiment}, {started.day} {started:%B %Y, %H:%M:%S} UTC"


def splits(run: Run) -> list[str]:
    """Measured splits, that of the selection first: all configurations are on it."""
    return sorted({row.split for row in run.leaderboard}, key=lambda split: (split != run.select[0], split))


def metrics(run: Run, split: str) -> list[str]:
    """Metrics on a split, that of the selection first, then those of answers, then those of rankings."""
    found = {row.metric for row in run.leaderboard if row.split == split}
    return sorted(found, key=lambda metric: (metric != run.select[1], "@" in metric, metric))


def leaderboard_frame(run: Run, split: str, metric: str) -> pd.DataFrame:
    """The leaderboard of a split by a metric, best first, each row compared with the baseline and with the best.

    Returns:
        Columns `COLUMNS`. Equal means share a rank. ``place`` says whether a configuration could be the best; ``difference``,
        its interval ``low`` to ``high`` and ``verdict`` are configuration - baseline, missing for the baseline and where it
        was not measured.

    Raises:
        InputError: nothing was measured by that metric on that split.
    """
    rows, places = plots.ranked(run, split, metric), plots.places(run, split, metric)
    table = []
    for row in rows:
        c = row.configuration
        against = run.comparison(c, run.manifest["baseline"], split, metric)
        rank = 1 + sum(other.mean > row.mean for other in rows)
        head = rank, run.labels[c], run.names[c], c, row.mean, row.ci_low, row.ci_high, row.n, row.failed
        compared = (against.difference, against.low, against.high, graded(against, run.matters)) if against else (None,) * 4
        table.append((*head, places[c], *compared))
    frame = pd.DataFrame(table, columns=COLUMNS)
    numbers = ["mean", "ci_low", "ci_high", "difference", "low", "high"]
    return frame.astype(dict.fromkeys(numbers, float))


def verdict(run: Run) -> str:
    """What is best, its score on the report split, and whether it beats the baseline there; as everywhere else."""
    return " ".join(conclusions.headline(run))


def reading(run: Run, split: str, metric: str) -> str:
    """How many pairs of the table are shown to differ."""
    pairs = plots.compared(run, split, metric)
    if not pairs:
        return "There is nothing to compare."
    if not all(pair.family for pair in pairs):
        return f"Which of these setups differ is not said: {OLDER}."
    found, n = sum(map(shown, pairs)), pairs[0].n
    if not found:
        return f"No two single setups can be told apart by {words.metric_name(metric)} with these {n:,} questions ({split})."
    are = "is" if found == 1 else "are"
    return f"{found} of {_pairs(len(pairs))} of setups {are} shown to differ on these {n:,} questions ({split})."


def table_html(frame: pd.DataFrame, marks: Mapping[str, str], axes: str, today: str = words.TODAY) -> str:
    """A `leaderboard_frame` as an HTML table.

    Args:
        frame: the rows.
        marks: configuration id -> words for it.
        axes: what labels are made of.
        today: what the baseline is called.
    """
    names = ["rank", f"setup <small>{_breakable(axes)}</small>", "of 100 points <small>95 % interval</small>", "beside the best"]
    names += [f"gain over {escape(today)} <small>plausibly</small>", "verdict", "n"]
    head = "".join(f"<th scope=col>{name}</th>" for name in names)
    body = "".join(_table_row(row, marks.get(row.configuration, "")) for row in frame.itertuples())
    return f"<table class='wb-table'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _table_row(row: Any, mark: str) -> str:
    badges = "".join(f" <span class='wb-mark'>{escape(word)}</span>" for word in mark.split())
    baseline = "baseline" in mark.split()
    gap = "–" if pd.isna(row.difference) else _estimate_html(row.difference, row.low, row.high, signed=True)
    said = "–" if baseline or pd.isna(row.difference) else f"{SIGNS.get(row.verdict, '?')} {row.verdict}"
    n = f"{row.n} <small>{row.failed} failed</small>" if row.failed else row.n
    label = _breakable(row.label)
    name = f"{escape(row.name)} <small>{label}</small>" if row.name != row.label else label
    cells = [f"<td title='{escape(row.configuration)}'>{name}{badges}</td>"]
    values = [_estimate_html(row.mean, row.ci_low, row.ci_high), escape(row.place), gap, escape(said), n]
    cells += [f"<td>{value}</td>" for value in values]
    return f"<tr{' class=wb-chosen' if 'chosen' in mark.split() else ''}><td>{row.rank}</td>{''.join(cells)}</tr>"


def _breakable(label: str) -> str:
    return escape(label).replace("/", "/<wbr>")


def marks(run: Run) -> dict[str, str]:
    """Configuration id -> words for it: chosen, baseline, promoted."""
    promoted = run.promoted
    named = [("chosen", run.best), ("baseline", run.manifest["baseline"]), ("promoted", promoted and promoted["configuration"])]
    return {c: " ".join(word for word, of in named if of == c) for _, c in named if c}


def leaderboard_figure(run: Run, split: str, metric: str) -> Figure:
    """`plots.plot_leaderboard` as a figure of its own."""
    with plots.style():
        drawn = plots.figure(len(plots.ranked(run, split, metric)), run.names.values())
        plots.plot_leaderboard(drawn.subplots(), run, split, metric)
    return drawn


def _signed(run: Run) -> str:
    """The verdict with its sign, which does not depend on colour, as HTML."""
    return f"<strong>{verdict_of(run).sign}</strong> {escape(verdict(run))}"


def figure_html(drawn: Figure, description: str) -> str:
    """A figure as an HTML image, never wider than the page; the description is for those who cannot see it."""
    file = io.BytesIO()
    with plots.style():
        drawn.savefig(file, format="png")
    width = round(drawn.get_figwidth() * 96)
    data = base64.b64encode(file.getvalue()).decode()
    return f"<img class='wb-figure' width={width} alt='{escape(description)}' src='data:image/png;base64,{data}'>"


def error_html(error: Exception) -> str:
    """An error as a box: what the user can mend in its own words, anything else with its type."""
    text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return f"<div class='wb-error' role=alert>{escape(text)}</div>"


def _estimate_html(value: float, low: float | None, high: float | None, signed: bool = False) -> str:
    """``12.3 <small>4.5 to 20.1</small>``, in points of 100."""
    number, interval = words.number(value, signed=signed), words.between(low, high, signed=signed)
    return f"{number} <small>{interval}</small>" if interval else number


def _pairs(n: int) -> str:
    return f"{n} pair{'' if n == 1 else 's'}"


# --- Widgets and their connection -------------------------------------------------------------------------------------

# Shades are mixed from the page's own text colour, so that they fit light and dark pages.
CSS = """<style>
.wb-view {max-width: 1080px; overflow: hidden}
.wb-view .widget-html-content, .wb-view .jupyter-widgets.widget-html-content {line-height: 1.45; overflow-x: auto}
.wb-verdict {font-size: 16px; border-left: 4px solid #0072B2; padding: 2px 0 2px 14px; margin: 10px 0; max-width: 860px}
.wb-caveats {font-size: 14px; opacity: .8; margin-top: 4px}
.wb-reading {margin: 6px 0; max-width: 860px; font-size: 14px}
.wb-table {border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; margin: 8px 0; text-align: left}
.wb-table th {font-weight: 600; vertical-align: bottom; padding: 4px 12px 4px 0;
  border-bottom: 1.5px solid color-mix(in srgb, currentColor 65%, transparent)}
.wb-table td {border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent); padding: 5px 12px 5px 0;
  white-space: nowrap; vertical-align: top}
.wb-table td:nth-child(2) {white-space: normal; min-width: 190px}
.wb-table small {opacity: .75; font-weight: 400; font-size: 12px}
.wb-table th small, .wb-table td:last-child small {display: block}
.wb-table tr.wb-chosen td {background: color-mix(in srgb, #0072B2 14%, transparent)}
.wb-mark {font-size: 11px; border: 1px solid currentColor; border-radius: 3px; padding: 0 4px; white-space: nowrap; opacity: .85}
.wb-figure {max-width: 100%; height: auto}
.wb-error {border-left: 4px solid #D55E00; background: color-mix(in srgb, #D55E00 12%, transparent); padding: 10px 14px;
  margin: 10px 0; font-size: 15px; white-space: pre-wrap}
.wb-wide {overflow-x: auto}
</style>"""


class LeaderboardView(widgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Choose a run, a split and a metric; see what is best, the table and the figure.

    Whatever goes wrong is shown in the page.
    """

    _run: Run  # the one chosen

    def __init__(self, runs: str | Path = "") -> None:
        """Shows the newest finished run below a folder; see `runs_folder` for the default."""
        self._runs = runs_folder(runs)
        self._frame: pd.DataFrame | None = None
        self._said = ""
        self._busy = False
        self._choose_run, self._choose_split, self._choose_metric = (_dropdown(name) for name in ("run", "split", "metric"))
        self._verdict, self._table, self._figure, self._error = (widgets.HTML() for _ in range(4))
        self._controls = widgets.Box([self._choose_run, self._choose_split, self._choose_metric])
        self._controls.layout = widgets.Layout(flex_flow="row wrap", overflow="visible")
        super().__init__([widgets.HTML(CSS), self._controls, self._error, self._verdict, self._table, self._figure])
        self.add_class("wb-view")
        self._choose_run.observe(self._guarded(self._open), names="value")
        self._choose_split.observe(self._guarded(self._offer_metrics), names="value")
        self._choose_metric.observe(self._guarded(self._show), names="value")
        self._guarded(self._start)()

    @property
    def value(self) -> pd.DataFrame | None:
        """The table shown, as `leaderboard_frame` gives it; None while an error is shown."""
        return self._frame

    def __repr__(self) -> str:
        return self._said

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget, and for a page without widgets what it says."""
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        return bundle | {"text/plain": repr(self)}

    def _start(self) -> None:
        self._controls.layout.display = "none"  # nothing to choose from, if the next line fails
        _offer(self._choose_run, run_choices(self._runs))
        self._controls.layout.display = "flex"
        self._open()

    def _open(self) -> None:
        self._run = Run.open(self._choose_run.value)
        _offer(self._choose_split, [(_split_name(self._run, split), split) for split in splits(self._run)])
        self._offer_metrics()

    def _offer_metrics(self) -> None:
        _offer(self._choose_metric, [(words.metric_name(m), m) for m in metrics(self._run, self._choose_split.value)])
        self._show()

    def _show(self) -> None:
        run, split, metric = self._run, self._choose_split.value, self._choose_metric.value
        frame = leaderboard_frame(run, split, metric)
        said = f"<div class='wb-reading'>{escape(reading(run, split, metric))}</div>"
        best = f"{words.metric_name(metric)} on {split}; best is {frame['label'][0]}; the table has the figures"
        self._said = verdict(run)
        careful = f"<div class='wb-caveats'>{escape(conclusions.flattery(run))}</div>"
        self._verdict.value = f"<div class='wb-verdict'>{_signed(run)}{careful}</div>"
        self._table.value = said + table_html(frame, marks(run), plots.axis_names(run), run.today)
        self._figure.value = figure_html(leaderboard_figure(run, split, metric), best)
        self._error.value = ""
        self._frame = frame

    def _guarded(self, act: Callable[[], None]) -> Callable[..., None]:
        """An action that shows its error instead of tables and figures, and does not set off another one meanwhile."""

        def guarded(_: object = None) -> None:
            if self._busy:
                return
            self._busy = True
            try:
                act()
            except Exception as error:
                log.exception("the leaderboard cannot be shown")
                self._frame, self._said = None, f"{type(error).__name__}: {error}"
                self._verdict.value = self._table.value = self._figure.value = ""
                self._error.value = error_html(error)
            finally:
                self._busy = False

        return guarded


def _split_name(run: Run, split: str) -> str:
    """``dev (chosen here)``, ``test (reported)``."""
    roles = [role for role, of in (("chosen here", run.select[0]), ("reported", run.report_split)) if of == split]
    return f"{split} ({', '.join(roles)})" if roles else split


def _dropdown(name: str) -> widgets.Dropdown:
    layout = widgets.Layout(width="auto", max_width="100%", margin="2px 24px 2px 0")
    return widgets.Dropdown(description=name, layout=layout, style={"description_width": "auto"})


def _offer(choice: widgets.Dropdown, options: Sequence[tuple[str, object]]) -> None:
    """New options; what was chosen stays chosen where it is still offered, otherwise it is the first."""
    kept = choice.value
    choice.options = options
    choice.value = kept if kept in [value for _, value in options] else options[0][1]
