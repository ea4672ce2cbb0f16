"""The questions of a run with the answers of two setups: what became of each, and which of them somebody asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from workbench.errors import InputError, unknown
from workbench.results.lines import QuestionRecord, RankingRecord
from workbench.results.records import AnswerRecord
from workbench.results.run import Run
from workbench.results.tags import MISREAD, MISSED, PASSED_OVER, Tags
from workbench.results.verdict import BOTH, GAINED, LOST, NEITHER, outcomes
from workbench.views.html import DAMAGED, box

NEVER, LOW, WRONG = "never retrieved", "ranked too low", "shown and misread"
PROPOSED = {NEVER: MISSED, LOW: PASSED_OVER, WRONG: MISREAD}
MOST_VALUES = 20  # of a column that questions can be chosen by
ALL, DIFFERENT, FAILED, TAGGED = "all", "different answers", "failed", "tagged"


@dataclass(frozen=True)
class Lost:
    """Where the evidence of a question was lost on its way to an answer; `word` is empty where it was not."""

    word: str
    sentence: str


class Asked:
    """Questions of a split with the answers of two setups.

    Attributes:
        run: a finished run.
        a: id of the first setup.
        b: id of the second, which it is held against.
        split: of the questions.
    """

    def __init__(self, run: Run, a: str | None = None, b: str | None = None, split: str | None = None) -> None:
        """Reads what is needed.

        Args:
            run: a finished run.
            a: label or id of the first setup; default: the chosen one.
            b: of the second; default: the baseline.
            split: of the questions; default: the one that is reported.

        Raises:
            InputError: the run lacks a file of its questions, passages or rankings, or has no such setup or split.
        """
        self.run, self.split = run, split or run.report_split
        self.a, self.b = run.find(a) if a else run.best, run.find(b) if b else run.manifest["baseline"]
        split = self.split
        if split not in (known := sorted({row.split for row in run.leaderboard})):
            raise unknown("split", split, known)
        self.questions = [one for one in run.questions if one.split == split]
        self.answers: dict[tuple[str, str], AnswerRecord] = {}
        self.seeds: dict[str, set[int | None]] = {self.a: set(), self.b: set()}
        for row in run.answers_of(split, (self.a, self.b)):
            self.seeds[row["configuration"]].add(row["seed"])
            self.answers.setdefault((row["configuration"], row["query_id"]), row)  # the first of several seeds is served
        self.outcomes = outcomes(run, self.a, self.b, split) or {}
        metric = run.select[1]
        self.scores = {
            (row.configuration, row.query_id): row.value for row in run.results if (row.split, row.metric) == (split, metric)
        }
        self._rankings = {(row.ranking, row.query_id): row for row in run.rankings if row.split == split}

    @cached_property
    def setups(self) -> list[str]:
        """The two setups; one where the chosen one is the baseline."""
        return list(dict.fromkeys([self.a, self.b]))

    @cached_property
    def tags(self) -> Tags:
        """What people said of the answers, as it was when it was first asked for.

        Raises:
            InputError: a line of tags.jsonl is damaged.
        """
        return Tags(self.run.folder)

    def ranking(self, configuration: str, query_id: str) -> RankingRecord | None:
        """What a setup's ranking finds for a question, or None where it never shows passages."""
        return self._rankings.get((self.run.ranking_of(configuration) or "", query_id))

    def lost(self, configuration: str, question: QuestionRecord) -> Lost:
        """Where a setup lost the evidence of a question."""
        answer, found = self.answers.get((configuration, question.query_id)), self.ranking(configuration, question.query_id)
        if not question.evidence or found is None:
            return Lost("", "")
        shown = len(answer["passages"]) if answer else 0
        rank = found.evidence_rank
        if answer is not None and not shown:
            return Lost("", "This setup showed no passages for this question.")
        if rank is None:
            return Lost(NEVER, "The evidence was never retrieved.")
        if answer is None:
            return Lost("", f"The evidence stands at rank {rank}.")
        if rank > shown:
            few = "only the best was shown" if shown == 1 else f"the best {shown} were shown"
            return Lost(LOW, f"The evidence stands at rank {rank}; {few}.")
        if answer["status"] != "ok":
            return Lost("", f"The evidence was shown, at rank {rank}; the answer failed.")
        right = self.outcomes.get(question.query_id) in ((BOTH, GAINED) if configuration == self.a else (BOTH, LOST))
        if right or not self.outcomes:
            return Lost("", f"The evidence was shown, at rank {rank}.")
        return Lost(WRONG, f"The evidence was shown, at rank {rank}, and the answer is wrong all the same.")

    def answer(self, configuration: str, query_id: str) -> str | None:
        """What a setup answered; None where it failed, or ranks passages only."""
        row = self.answers.get((configuration, query_id))
        return row["answer"] if row and row["status"] == "ok" else None

    def proposed(self, question: QuestionRecord) -> str:
        """The tag that says where the first setup lost this question, taken from its ranking; empty where it did not."""
        return PROPOSED.get(self.lost(self.a, question).word, "")

    def shows(self, tags: Tags) -> dict[str, list[QuestionRecord]]:
        """What can be asked for -> its questions, in their order; what no question of the run fits is there as well.

        Args:
            tags: of the run.
        """
        fits: dict[str, Callable[[QuestionRecord], bool]] = {ALL: lambda _: True}
        if self.outcomes:
            for word in (GAINED, LOST):
                fits[word] = lambda one, word=word: self.outcomes.get(one.query_id) == word  # type: ignore[misc]
        fits[DIFFERENT] = lambda one: self.answer(self.a, one.query_id) != self.answer(self.b, one.query_id)
        if self.outcomes:
            fits[NEITHER] = lambda one: self.outcomes.get(one.query_id) == NEITHER
        fits[FAILED] = lambda one: any(self._failed(c, one.query_id) for c in self.setups)
        fits[TAGGED] = lambda one: bool(tags.of(self.a, one.query_id).tags)
        for tag in tags.counts(self.a):
            fits[f"tag: {tag}"] = lambda one, tag=tag: tag in tags.of(self.a, one.query_id).tags  # type: ignore[misc]
        for word in (NEVER, LOW, WRONG):
            fits[f"evidence {word}"] = lambda one, word=word: self.lost(self.a, one).word == word  # type: ignore[misc]
        for name, value in self.parts:
            fits[f"{name}: {value}"] = lambda one, name=name, value=value: one.columns.get(name) == value  # type: ignore[misc]
        return {name: [one for one in self.questions if fit(one)] for name, fit in fits.items()}

    def _failed(self, configuration: str, query_id: str) -> bool:
        row = self.answers.get((configuration, query_id))
        return row is not None and row["status"] != "ok"

    @cached_property
    def parts(self) -> list[tuple[str, str]]:
        """Column and value of the questions, of each column that has from two to `MOST_VALUES` values."""
        values: dict[str, set[str]] = {}
        for one in self.questions:
            for name, value in one.columns.items():
                values.setdefault(name, set()).add(value)
        return [
            (name, value) for name, found in sorted(values.items()) if 1 < len(found) <= MOST_VALUES for value in sorted(found)
        ]


def asked_of(run: Run) -> Asked | str:
    """The questions of a run, or a box that says what it lacks."""
    try:
        return Asked(run)
    except InputError as error:
        return box(str(error))
    except DAMAGED as error:
        return box(f"The questions cannot be shown, since a file of the run is damaged ({type(error).__name__}: {error}).")
