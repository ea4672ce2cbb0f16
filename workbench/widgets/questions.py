"""The questions of a run one by one: two setups side by side, chosen by what became of them, and tagged by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from workbench.errors import InputError
from workbench.results import tags as tagging
from workbench.results.lines import QuestionRecord
from workbench.results.run import Run
from workbench.results.tags import TAGS, Tags
from workbench.views.asked import ALL, Asked
from workbench.views.html import foreign, text
from workbench.views.marking import short
from workbench.views.question import question
from workbench.views.questions import SIGNS
from workbench.widgets.page import Page, dropdown, footer, offer

TITLE = 110  # characters of a question in the list


class QuestionsPage(Page):
    """Two setups side by side on each question; arrow keys go through the list, the keys 1 to 5 tag.

    Attributes:
        asked: the questions with the answers of both setups.
        tags: of the run.
        shown: the questions in the list.
    """

    asked: Asked
    tags: Tags
    shown: Sequence[QuestionRecord] = ()

    def __init__(self, run: Run | None = None, a: str = "", b: str = "", runs: str | Path = "") -> None:
        """Shows two setups of a run.

        Args:
            run: a finished run; without one, there is a list to choose from.
            a: label or id of the first setup; default: the chosen one.
            b: of the second; default: the baseline.
            runs: folder of all runs.
        """
        self.choose_a, self.choose_b, self.choose_show = dropdown("setup"), dropdown("against"), dropdown("show")
        self.find = widgets.Text(description="find", placeholder="words", continuous_update=False)
        self.list = widgets.Select(description="question", rows=10, layout=widgets.Layout(width="auto"))
        self.count = widgets.HTML()
        self.buttons = [widgets.Button(description=f"{key} {tag}") for key, tag in enumerate(TAGS, 1)]
        self.own = widgets.Text(description="own tag", placeholder="Enter puts or removes it", continuous_update=False)
        self.note = widgets.Text(description="note", placeholder="Enter keeps it", continuous_update=False)
        self.standing = widgets.HTML()
        super().__init__(run, runs)
        for button, tag in zip(self.buttons, TAGS, strict=True):
            button.layout.width = "auto"
            button.on_click(lambda _, tag=tag: self.guarded(lambda: self.tag(tag))())
        self.list.observe(self.guarded(self.show_question), names="value")
        self.own.observe(self.guarded(self._put_own), names="value")
        self.note.observe(self.guarded(self._put_note), names="value")
        self._address.on_msg(lambda _, message, __: self.guarded(lambda: self.tag(TAGS[int(message["key"]) - 1]))())
        self._choose(a, b)

    def controls(self) -> list[Any]:
        """The run, both setups, which questions, and words to find."""
        return [self.choose_run, self.choose_a, self.choose_b, self.choose_show, self.find]

    def parts(self) -> list[Any]:
        """The list, the tags and the question."""
        row = widgets.Layout(flex_flow="row wrap", overflow="visible")
        return [self.count, self.list, widgets.Box([*self.buttons, self.own, self.note], layout=row), self.standing, self._body]

    def _choose(self, a: str, b: str) -> None:
        for choice, name in ((self.choose_a, a), (self.choose_b, b)):
            if name and self.run:
                choice.value = self.run.find(name)

    def opened(self, run: Run) -> None:
        """Offers the setups that were measured on the report split."""
        split = run.report_split
        measured = {row.configuration for row in run.leaderboard if row.split == split}
        options = [(f"{run.names[c]} [{run.labels[c]}]", c) for c in run.labels if c in measured]
        self.tags = Tags(run.folder)
        for choice, name, default in ((self.choose_a, "a", run.best), (self.choose_b, "b", run.manifest["baseline"])):
            known = [value for _, value in options]
            choice.options = options
            asked = self.wanted.pop(name, "")
            choice.value = run.find(asked) if asked else default if default in known else known[0]
        self.find.value = self.wanted.pop("find", "")

    def show(self) -> None:
        """Fills the list with what is asked for, and shows the question that stays chosen, else the first."""
        if self.run is None:
            return
        if getattr(self, "asked", None) is None or (self.asked.run, self.asked.a, self.asked.b) != self._chosen():
            self.asked = Asked(self.run, self.choose_a.value, self.choose_b.value)
        shows = self.asked.shows(self.tags)
        offer(self.choose_show, [(f"{name} ({len(fitting)})", name) for name, fitting in shows.items()])
        if (wanted := self.wanted.pop("show", "")) in shows:
            self.choose_show.value = wanted
        words = self.find.value.casefold()
        self.shown = [one for one in shows[self.choose_show.value or ALL] if words in self._text(one)]
        self.count.value = f"<span role=status>{len(self.shown):,} of {len(self.asked.questions):,} questions</span>"
        offer(self.list, [(self._title(one), one.query_id) for one in self.shown])
        if (wanted := self.wanted.pop("q", "")) in {one.query_id for one in self.shown}:
            self.list.value = wanted
        self.show_question()

    def _chosen(self) -> tuple[Run | None, str, str]:
        return self.run, self.choose_a.value, self.choose_b.value

    def _text(self, one: QuestionRecord) -> str:
        answers = (self.asked.answer(c, one.query_id) or "" for c in self.asked.setups)
        return " ".join([one.query_id, one.question, *answers]).casefold()

    def _title(self, one: QuestionRecord) -> str:
        sign = SIGNS.get(self.asked.outcomes.get(one.query_id, ""), "")
        mark = " [tagged]" if self.tags.of(self.asked.a, one.query_id).tags else ""
        return f"{sign} {short(one.question, TITLE)}{mark}".strip()

    @property
    def value(self) -> QuestionRecord | None:
        """The question that is shown; None where the list is empty."""
        return next((one for one in self.shown if one.query_id == self.list.value), None)

    def show_question(self) -> None:
        """Shows the question that is chosen in the list, and what stands on it."""
        one = self.value
        standing = self.tags.of(self.asked.a, one.query_id) if one else tagging.NOTHING
        for key, (button, tag) in enumerate(zip(self.buttons, TAGS, strict=True), 1):
            button.description = f"{'✓ ' if tag in standing.tags else ''}{key} {tag}"
            button.disabled = one is None
        self.note.value, self.own.value = standing.note, ""
        self.standing.value = self._standing(one) if one else ""
        super().show()

    def _standing(self, one: QuestionRecord) -> str:
        found, proposed = self.tags.of(self.asked.a, one.query_id), self.asked.proposed(one)
        said = [f"Tags: {foreign('; '.join(found.tags))}." if found.tags else "No tag yet."]
        if proposed and proposed not in found.tags:
            said.append(f"The ranking proposes: {TAGS.index(proposed) + 1} {text(proposed)}.")
        counts = self.tags.counts(self.asked.a)
        if counts:
            said.append("In all: " + ", ".join(f"{foreign(tag)} {n}" for tag, n in counts.items()) + ".")
        return " ".join(said)

    def html(self, run: Run) -> str:
        """The question in full, or that none fits."""
        one = self.value
        if one is None:
            return f"<p>No question is shown by “{text(self.choose_show.value)}” with these words.</p>{footer(run)}"
        return f"{question(self.asked, one)}{footer(run)}"

    def state(self) -> dict[str, str]:
        """Both setups, which questions, words, and the question."""
        run, asked = self.asked.run, self.asked
        sides = {"a": asked.a if asked.a != run.best else "", "b": asked.b if asked.b != run.manifest["baseline"] else ""}
        shown = {"show": self.choose_show.value if self.choose_show.value != ALL else "", "find": self.find.value}
        return sides | shown | {"q": self.list.value or ""}

    def tag(self, tag: str) -> None:
        """Puts a tag on the first setup's answer to the question shown, or takes it off where it stands.

        Args:
            tag: one of `workbench.results.tags.TAGS`, or one's own.

        Raises:
            InputError: no question is shown, or the tag cannot be kept.
        """
        one = self.value
        if one is None:
            raise InputError("no question is shown that could be tagged; choose one")
        if tag in self.tags.of(self.asked.a, one.query_id).tags:
            self.tags.take_off(self.asked.a, one.query_id, tag)
        else:
            self.tags.put(self.asked.a, one.query_id, tag)
        self.show()

    def _put_own(self) -> None:
        if self.own.value.strip():
            self.tag(" ".join(self.own.value.split()))

    def _put_note(self) -> None:
        one, note = self.value, self.note.value.strip()
        if one and note and note != self.tags.of(self.asked.a, one.query_id).note:
            self.tags.put(self.asked.a, one.query_id, "", note)
            self.show()
