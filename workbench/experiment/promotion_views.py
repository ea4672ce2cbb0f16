"""What notebook 04 shows: the promoted configuration, its honest figures, and the command that serves it."""

from __future__ import annotations

import shlex
from pathlib import Path

from workbench.results import words
from workbench.results.conclusions import named
from workbench.results.records import Promotion
from workbench.results.run import Run
from workbench.views.html import foreign, table, text
from workbench.views.notebook import Shown, styled


def finished(config: str, runs: str, run: str = "") -> Run:
    """A run: the one named, else the newest of the experiment.

    Args:
        config: the experiment's file.
        runs: folder of all runs.
        run: folder of a run; empty: the newest.

    Raises:
        InputError: there is none.
    """
    from workbench.experiment.config import read_settings

    return Run.open(run) if run else Run.latest(Path(runs), read_settings(Path(config)).experiment)


def chosen(run: Run, promoted: Promotion) -> Shown:
    """Which configuration is promoted, and why."""
    c, why = promoted["configuration"], promoted["chosen"]
    by = f"by {words.metric_name(why['metric'])} on {why['split']}"
    how = f"It was chosen {by}." if why["by"] == "best mean" else f"Somebody named it; {by} the best is {named(run, run.best)}."
    lines = [(foreign(axis), foreign(value)) for axis, value in promoted["values"].items()]
    return Shown(
        styled(
            f"<p><strong>{foreign(named(run, c))}</strong></p><p>{text(how)}</p>" + table("Its values", ("axis", "value"), lines)
        )
    )


def figures(run: Run, promoted: Promotion) -> Shown:
    """Its means on the report split."""
    head = ("metric", "mean of 100", "plausibly", "questions", "failed")
    lines = [
        (
            text(words.metric_name(metric)),
            words.number(one["mean"]),
            words.between(one["ci_low"], one["ci_high"]) or "–",
            f"{one['n']:,}",
            str(one["failed"]),
        )
        for metric, one in promoted["figures"].items()
    ]
    if not lines:
        return Shown(styled(f"<p>It was not measured on {text(run.report_split)}.</p>"))
    return Shown(styled(table(f"On {run.report_split}", head, lines, right=range(1, 5))))


def commands(run: Run) -> Shown:
    """The command that serves it."""
    return Shown(styled(f"<pre>workbench serve {text(shlex.quote(str(run.folder)))}</pre>"))
