"""A run and its parts as a notebook shows them, each in an output of its own: the style touches nothing around it."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

from workbench.results import words
from workbench.results.compare import Compared
from workbench.results.display import Displayed
from workbench.results.run import Comparisons, Questions, Run
from workbench.results.verdict import SIGNS, graded
from workbench.views.asked import asked_of
from workbench.views.card import card
from workbench.views.html import box, css, or_box, table, text
from workbench.views.questions import everyone, strip
from workbench.views.tables import pairs, reported_pairs, setups


class Shown(Displayed):
    """A part of a page as the value of a cell.

    Attributes:
        html: the part.
    """

    def __init__(self, html: str) -> None:
        self.html = html

    def __repr__(self) -> str:
        return " ".join(unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", self.html)).split())

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self.html}


def shown(make: Callable[[Run], str], run: Run) -> Shown:
    """A part of a run's page in a notebook: ``shown(matters, run)``.

    Args:
        make: one of the functions of `workbench.views.tables`, `workbench.views.trust` and others.
        run: a finished run.
    """
    return Shown(styled(or_box(lambda: make(run))))


def styled(body: str) -> str:
    """HTML with the style of the views, for an output of a notebook."""
    return f"<style>{css()}</style><div class=wb>{body}</div>"


def run_html(run: Run) -> str:
    """The verdict and all setups."""
    return styled(f"{card(run, level=2)}<h3>All setups</h3>{setups(run)}")


def questions_html(questions: Questions) -> str:
    """The questions of the report split with the answers of the chosen setup and of the baseline, each folded."""
    asked = asked_of(questions.run)
    return styled(strip(questions.run) + (asked if isinstance(asked, str) else everyone(asked)))


def comparisons_html(comparisons: Comparisons) -> str:
    """All pairs of setups on the split that is reported, by the metric that chooses."""
    return styled(pairs(comparisons.run, reported_pairs(comparisons.run)))


def compared_html(compared: Compared) -> str:
    """Systems compared, best first: the mean of each, how it stands beside the best, and what it gains over the baseline."""
    lines, unit = [], compared.unit
    for system in compared.order:
        standing, against = compared.standing(system), compared.against_baseline.get(system)
        gap = ("–", "–", "–")
        if against is not None:
            word = graded(against, compared.matters)
            gap = (
                words.number(against.difference, unit, signed=True),
                words.between(against.low, against.high, unit, signed=True) or "–",
                f"{SIGNS.get(word, '?')} {word}",
            )
        interval = words.between(standing.low, standing.high, unit) or "–"
        shown = (standing.name, words.number(standing.mean, unit), interval, compared.beside_the_best[system], *gap)
        lines.append([text(value) for value in shown])
    if not lines:
        return styled(box("There is nothing to compare."))
    name = words.metric_name(compared.scores.metric)
    base = compared.names[compared.baseline]
    head = ("setup", f"{name} of 100" if unit == words.POINTS else name, "plausibly", "beside the best")
    said = f"{name} on {len(compared.scores.queries):,} questions of {compared.scores.split}, and the gain over {base}"
    return styled(table(said, (*head, f"gain over {base}", "plausibly", "verdict"), lines, right=(1, 2, 4, 5)))
