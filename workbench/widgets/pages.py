"""The pages that only show: what a run found, and its trainings."""

from __future__ import annotations

from typing import Any

from workbench.results import words
from workbench.results.run import Run
from workbench.views.asked import Asked, asked_of
from workbench.views.card import card
from workbench.views.html import or_box, section
from workbench.views.questions import strip, telling
from workbench.views.report import training
from workbench.views.tables import matters, setups, timing
from workbench.views.trust import trust
from workbench.widgets.page import Page, dropdown, footer, offer


class VerdictPage(Page):
    """Whether the best setup beats the baseline, what matters, all setups by a metric, and how far to trust it."""

    def controls(self) -> list[Any]:
        """The run, and the metric of the table."""
        if not hasattr(self, "choose_metric"):
            self.choose_metric = dropdown("metric")
        return [self.choose_run, self.choose_metric]

    def opened(self, run: Run) -> None:
        """Offers the metrics of the report split, the one that chooses first."""
        found = {row.metric for row in run.leaderboard if row.split == run.report_split}
        names = sorted(found, key=lambda name: (name != run.select[1], "@" in name, name))
        offer(self.choose_metric, [(words.metric_name(name), name) for name in names])
        if self.wanted.get("metric") in names:
            self.choose_metric.value = self.wanted["metric"]

    def state(self) -> dict[str, str]:
        """The metric."""
        return {"metric": self.choose_metric.value or ""}

    def html(self, run: Run) -> str:
        """The card and the parts below it; a part that a damaged file spoils says so, and the others stay."""
        asked = asked_of(run)
        told = telling(asked) if isinstance(asked, Asked) else ""
        parts = [
            section("questions", "Question by question", or_box(lambda: strip(run)) + told, 3),
            section("matters", "What matters", or_box(lambda: matters(run)), 3),
            section("setups", "All setups", or_box(lambda: setups(run, self.choose_metric.value)), 3),
            section("time", "Quality and time", or_box(lambda: timing(run)), 3),
            section("trust", "Can you trust this?", or_box(lambda: trust(run)), 3),
        ]
        return or_box(lambda: card(run, level=2)) + "".join(parts) + footer(run)


class TrainingPage(Page):
    """The losses of a run's trainings."""

    def html(self, run: Run) -> str:
        """The curves and a table."""
        return f"<h2>Training</h2>{training(run)}{footer(run)}"
