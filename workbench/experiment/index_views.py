"""What notebook 01 shows: indexes, what they miss, and how often rankings find the evidence, each with what follows from it."""

from __future__ import annotations

from workbench.experiment import notebook_tables, parity
from workbench.experiment.experiment import Experiment
from workbench.results import words
from workbench.views.html import foreign, table, text
from workbench.views.notebook import Shown, styled


def indexes(experiment: Experiment) -> Shown:
    """The distinct indexes, made where they are missing."""
    rows = notebook_tables.indexes(experiment, experiment.index())
    head = ("index", "passages cut as", "passages", "megabytes", "seconds to build")
    lines = [
        (foreign(row.kind), foreign(row.chunking), f"{row.passages:,}", f"{row.megabytes:,.2f}", f"{row.seconds:,.2f}")
        for row in rows
    ]
    longest = max(rows, key=lambda row: row.seconds)
    said = f"The longest to build took {longest.seconds:,.2f} seconds ({longest.kind}, {longest.passages:,} passages)."
    return Shown(styled(table("Distinct indexes", head, lines, right=(2, 3, 4)) + f"<p>{text(said)}</p>"))


def misses(experiment: Experiment) -> Shown:
    """Each dense index against exact search."""
    rows = parity.check(experiment)
    if not rows:
        return Shown(styled("<p>This experiment searches by words alone, so there is no index of vectors to check.</p>"))
    head = ("index", "vectors", "of the 10 best, found", "of the 100 best, found", "bytes a vector", "milliseconds a question")
    lines = [
        (
            foreign(f"{row.kind} {row.settings}".strip()),
            f"{row.vectors:,}",
            f"{100 * row.recall_at_10:.1f} %",
            f"{100 * row.recall_at_100:.1f} %",
            f"{row.bytes_per_vector:,.0f}",
            f"{1000 * row.seconds_for_one:.2f}",
        )
        for row in rows
    ]
    worst = min(rows, key=lambda row: row.recall_at_10)
    said = "Every index finds all of the ten best."
    if worst.recall_at_10 < 1:
        said = f"{worst.kind} misses {100 * (1 - worst.recall_at_10):.1f} % of the ten best passages."
    about = f"Against exact search, {rows[0].queries:,} questions"
    return Shown(styled(table(about, head, lines, right=range(1, 6)) + f"<p>{text(said)}</p>"))


def rankings(experiment: Experiment) -> Shown:
    """How good each distinct ranking is, by each metric of rankings."""
    rows = notebook_tables.rankings(experiment)
    if not rows:
        return Shown(styled("<p>No question has known evidence, so rankings have no figure.</p>"))
    metrics = list(dict.fromkeys(row.metric for row in rows))
    named = {tuple(row.values.items()): ", ".join(row.values.values()) for row in rows}
    means = {(tuple(row.values.items()), row.metric): row for row in rows}
    order = sorted(named, key=lambda key: -means[key, metrics[0]].mean)
    lines = []
    for key in order:
        cells = [means[key, metric] for metric in metrics]
        interval = f" <small>{words.between(cells[0].ci_low, cells[0].ci_high)}</small>"
        first, *others = (words.number(one.mean) for one in cells)
        lines.append((foreign(named[key]), first + interval, *others))
    best = means[order[0], metrics[0]]
    head = (", ".join(rows[0].values), *map(words.metric_name, metrics))
    said = (
        f"By {words.metric_name(best.metric)} the best is {named[order[0]]}, {words.number(best.mean)} of 100 on {best.n:,} "
        f"questions of {best.split}; whether two rankings differ is said by the comparison, not by these intervals."
    )
    return Shown(styled(table("Means of 100", head, lines, right=range(1, len(head))) + f"<p>{text(said)}</p>"))


def first_question(experiment: Experiment) -> str:
    """The text of the first question with known evidence, of the train split where there is one."""
    return notebook_tables.example(experiment)[0]
