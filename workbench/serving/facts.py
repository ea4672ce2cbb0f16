"""What is served, and how good it was measured to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.results import words
from workbench.results.verdict import BASELINE, Verdict, verdict

if TYPE_CHECKING:
    from workbench.pipeline import Pipeline
    from workbench.results.rows import LeaderboardRow
    from workbench.results.run import Run
    from workbench.serving.asking import Asking


class Figure(NamedTuple):
    """How good a configuration's answers are: its row of the leaderboard, and whether that split is the one it was chosen on."""

    row: LeaderboardRow
    flattered: bool


class Served(NamedTuple):
    """What a pipeline serves.

    Attributes:
        experiment: its name.
        run: its run's id.
        label: the configuration's.
        promoted: whether the configuration is the promoted one.
        dataset: name of what is searched.
        documents: how many there are.
        figure: how good its answers are; None where that was not measured.
        verdict: whether it is better than the baseline on the report split.
        today: what the baseline is called.
        configurations: how many were measured.
    """

    experiment: str
    run: str
    label: str
    promoted: bool
    dataset: str
    documents: int
    figure: Figure | None
    verdict: Verdict | None = None
    today: str = words.TODAY
    configurations: int = 1

    @property
    def figure_text(self) -> str:
        """How good its answers are, in a sentence without its first words: the metric and the mean."""
        if self.figure is None:
            return ""
        row = self.figure.row
        interval = words.between(row.ci_low, row.ci_high)
        plausibly = f" (plausibly {interval})" if interval else ""
        failed = f", {row.failed} of them failed" if row.failed else ""
        flattered = "; this configuration was chosen on them, which flatters it" if self.figure.flattered else ""
        return f" of 100 points{plausibly}, measured on {row.n:,} questions of the {row.split} split{failed}{flattered}."

    @property
    def verdict_text(self) -> str:
        """The verdict against the baseline, or why there is none, in a sentence."""
        found, today = self.verdict, self.today
        if found is None:
            return ""
        if found.row:
            return f"Against {today}: {found.phrase}."
        if found.a == found.b:
            said = found.word if found.word == BASELINE and self.configurations > 1 else ""
            return f"This is {today} itself{f': {said}' if said else ''}."
        return f"Whether it is better than {today} was not measured on the {found.split} split."


def served(pipeline: Pipeline) -> Served:
    """Experiment, label, run, data and measured figure of what a pipeline serves."""
    run, configuration = pipeline.run, pipeline.configuration
    dataset, promoted = pipeline.session.dataset, run.promoted
    return Served(
        run.manifest["experiment"],
        run.folder.name,
        configuration.label,
        promoted is not None and promoted["configuration"] == configuration.id,
        dataset.name,
        dataset.documents.num_rows,
        measured_figure(run, configuration.id),
        verdict(run, configuration.id),
        run.today,
        len(run.configurations),
    )


def measured_figure(run: Run, configuration: str) -> Figure | None:
    """A configuration's row of the leaderboard for the metric that chose, on the report split, else on the selection split."""
    chosen_on, metric = run.select
    for split in (run.report_split, chosen_on):
        if row := run.row(configuration, split, metric):
            return Figure(row, split == chosen_on)
    return None


def about(asking: Asking) -> dict[str, Any]:
    """What is served as plain values, for programs."""
    facts, pipeline = served(asking.service.pipeline), asking.service.pipeline
    row = facts.figure.row if facts.figure else None
    measured = row and {
        "metric": row.metric, "split": row.split, "mean": row.mean, "low": row.ci_low, "high": row.ci_high,
        "n": row.n, "failed": row.failed, "chosen_on_these": facts.figure.flattered if facts.figure else None,
    }  # fmt: skip
    return {
        "experiment": facts.experiment,
        "dataset": facts.dataset,
        "documents": facts.documents,
        "promoted": facts.promoted,
        "measured": measured,
        "verdict": facts.verdict_text or None,
        "fallbacks": [one.name for one, _ in asking.service.replacements],
        "rewrites_questions": pipeline.stages.questions is not None,
        "provenance": pipeline.provenance(),
    }
