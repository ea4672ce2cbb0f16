"""The one verdict on two configurations of a run: every outlet reads it here.

A verdict is the conclusion of the row in the run's tables (`workbench.evaluation.families`), as one word. It is graded, so that
nothing turns over at .05 without a warning; "not shown" never means equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isinf
from typing import TYPE_CHECKING

from workbench.results import words
from workbench.results.rows import ResultRow, Tested
from workbench.results.words import DIRECTIONLESS, POINTS, Unit

if TYPE_CHECKING:  # it loads NumPy, which the demo does without until it answers
    from workbench.results.run import Run

BETTER, WORSE = "shown better", "shown worse"
MORE, LESS = "shown more", "shown less"  # of a metric of which neither is better
LEANING, OPEN = "not shown, leaning", "not shown"
EQUAL = "no difference that matters"
BASELINE = "nothing tried did better"
UNCOMPARED = "not compared"
UNKNOWN = "no verdict"  # tables of an earlier version
LEANS = 0.20  # the adjusted p up to which an open question leans to one side

SIGNS = {BETTER: "✓", WORSE: "✗", MORE: "✓", LESS: "✓", EQUAL: "=", BASELINE: "="}  # all others: a question mark
FEW = "they form fewer than six independent groups, or a few groups hold most of them"
OLDER = "this run was written by an earlier version, whose tables hold no verdicts; run it again, which computes no answer anew"


@dataclass(frozen=True)
class Verdict:
    """What a run says of configuration a less configuration b; numbers are None where there are none.

    Attributes:
        word: one of the words of this module.
        a: id of the first.
        b: id of the second.
        split: measured on it.
        metric: measured by it.
        row: the row that says it, turned to a - b; None where they were not compared.
        unit: how its numbers are shown.
    """

    word: str
    a: str
    b: str
    split: str
    metric: str
    row: Tested | None = None
    unit: Unit = POINTS

    @property
    def sign(self) -> str:
        """The word as a sign."""
        return SIGNS.get(self.word, "?")

    @property
    def number(self) -> str:
        """The difference, ``+7.7``; a dash where there is none."""
        return words.number(self.row.difference if self.row else None, self.unit, signed=True)

    @property
    def phrase(self) -> str:
        """Difference, interval and word: ``+7.7 points (+1.5 to +13.9): shown better``; the word alone without a difference."""
        return phrase(self.row, self.word, self.unit) if self.row else self.word

    @property
    def sentence(self) -> str:
        """What follows from it, in words; empty without a difference."""
        return sentence(self.row, self.word, self.unit) if self.row else ""


def verdict(run: Run, a: str | None = None, b: str | None = None, split: str | None = None, metric: str | None = None) -> Verdict:
    """The verdict of a run on two of its configurations.

    Args:
        run: a finished run.
        a: id of the first; default: the best on the selection split.
        b: id of the second; default: the baseline.
        split: default: the report split.
        metric: default: the one that chooses.
    """
    a, b = a or run.best, b or run.manifest["baseline"]
    split, metric = split or run.report_split, metric or run.select[1]
    if a == b:
        return Verdict(BASELINE if a == run.best == run.manifest["baseline"] else UNCOMPARED, a, b, split, metric)
    row = run.comparison(a, b, split, metric)
    return Verdict(UNCOMPARED if row is None else graded(row, run.matters), a, b, split, metric, row)


def graded(row: Tested, matters: float | None = None) -> str:
    """The word for a row of a table of tested differences.

    Args:
        row: the row.
        matters: differences up to this size do not matter, in the metric's own unit; None: nobody said so.
    """
    if not row.family:
        return UNKNOWN
    if row.low is None or row.high is None or row.p_adjusted is None:
        return OPEN
    if matters is not None and -matters <= row.low and row.high <= matters:
        return EQUAL
    if row.supported == "yes":
        up, down = (MORE, LESS) if row.metric in DIRECTIONLESS else (BETTER, WORSE)
        return up if row.difference > 0 else down
    return LEANING if row.p_adjusted <= LEANS else OPEN


def shown(row: Tested) -> bool:
    """Whether the data show a difference: the interval leaves out zero."""
    return row.supported == "yes"


def beside_the_best(order: Sequence[str], row: Callable[[str], Tested | None]) -> dict[str, str]:
    """Each of some systems -> ``best``, ``behind the best`` where that is shown, else ``could be the best``.

    Args:
        order: the systems, best first.
        row: the difference of one of them from the first, or None where they were not compared.
    """
    said = {order[0]: "best"}
    for system in order[1:]:
        found = row(system)
        said[system] = UNKNOWN if not (found and found.family) else "behind the best" if shown(found) else "could be the best"
    return said


def phrase(row: Tested, word: str, unit: Unit = POINTS) -> str:
    """Difference, interval and word in one line."""
    return f"{words.gain(row.difference, row.low, row.high, unit)}: {word}"


def sentence(row: Tested, word: str, unit: Unit = POINTS) -> str:
    """What a verdict means, for somebody who never heard of p-values."""
    from workbench.evaluation.families import PRIMARY

    if word == UNKNOWN:
        return OLDER[0].upper() + OLDER[1:] + "."
    if row.low is None or row.high is None or row.p_adjusted is None:
        return f"These {row.n:,} questions cannot show anything: {FEW}."
    if word == EQUAL:
        return "Whatever the true difference is, it is smaller than what the experiment's file says matters."
    chance = words.chance(row.p_adjusted)
    if row.family == PRIMARY:
        said = f"Two equally good setups would differ this much in {chance} such tests"
    else:
        said = (
            f"If all setups compared here were equally good, one of them would differ this clearly in {chance} such comparisons"
        )
    if word not in (LEANING, OPEN):
        return f"{said}."
    settle = f"; {_settling(row)}" if row.n_needed is not None and row.difference else ""
    if word == LEANING:
        return f"{said}: not enough to show it{settle}."
    noun = f" {unit.noun}" if unit.noun else ""
    fits = words.between(row.low, row.high, unit, signed=True)
    return f"{said}. No proof that they are equal: anything from {fits}{noun} fits these questions{settle}."


def _settling(row: Tested) -> str:
    """What would show a difference like the one seen."""
    if row.n_needed is not None and isinf(row.n_needed):  # the chance of trainings stays, however many questions are asked
        return "more questions alone would not show a difference like this, more trainings (`seeds`) might"
    return f"{words.questions(row.n_needed)} in all would be needed to show a difference like this"


@dataclass(frozen=True)
class Counts:
    """Questions that two configurations answer: both, the first alone, the second alone, neither.

    Attributes:
        both: answered by both.
        gained: by the first alone.
        lost: by the second alone.
        neither: by none of them.
    """

    both: int
    gained: int
    lost: int
    neither: int

    @property
    def n(self) -> int:
        """How many were asked."""
        return self.both + self.gained + self.lost + self.neither

    def sentence(self, other: str) -> str:
        """``9 of 101 answered, 7 of them not by today's setup, 2 lost that it answers, 90 wrong both ways``.

        Args:
            other: what the second is called.
        """
        return (
            f"{self.both + self.gained} of {self.n} answered, {self.gained} of them not by {other}; "
            f"{self.lost} lost that {other} answers; {self.neither} wrong both ways"
        )


COUNTED = ("contains", "em")  # metrics that are 1 for a right answer and 0 for a wrong one, the first measured counts


GAINED, LOST, BOTH, NEITHER = "gained", "lost", "right both ways", "wrong both ways"


def counted(run: Run, a: str, b: str, split: str) -> str | None:
    """The metric that says of two configurations' answers whether they are right; None where none was measured.

    Args:
        run: the run.
        a: id of the first.
        b: id of the second.
        split: both were measured on it.
    """
    measured = {(row.metric, row.configuration) for row in run.leaderboard if row.split == split}
    return next((metric for metric in COUNTED if {(metric, a), (metric, b)} <= measured), None)


def outcomes(run: Run, a: str, b: str, split: str) -> dict[str, str] | None:
    """Query id -> whether two configurations answered it: a word of `GAINED` (the first alone), `LOST`, `BOTH` and `NEITHER`.

    Args:
        run: the run.
        a: id of the first.
        b: id of the second.
        split: both were measured on it.

    Returns:
        None where no metric says right or wrong.
    """
    words_of = {(True, True): BOTH, (True, False): GAINED, (False, True): LOST, (False, False): NEITHER}
    metric = counted(run, a, b, split)
    if metric is None:
        return None
    right = {c: _right(run.results, c, split, metric) for c in (a, b)}
    return {query: words_of[right[a][query], right[b][query]] for query in right[a] if query in right[b]}


def counts(run: Run, a: str, b: str, split: str) -> Counts | None:
    """Questions answered by two configurations; None where no metric says right or wrong.

    Args:
        run: the run.
        a: id of the first.
        b: id of the second.
        split: both were measured on it.
    """
    found = outcomes(run, a, b, split)
    if found is None:
        return None
    said = list(found.values())
    return Counts(*(said.count(word) for word in (BOTH, GAINED, LOST, NEITHER)))


def _right(results: list[ResultRow], configuration: str, split: str, metric: str) -> dict[str, bool]:
    wanted = (configuration, split, metric)
    rows = [row for row in results if (row.configuration, row.split, row.metric) == wanted]
    return {row.query_id: row.value is not None and row.value >= 0.5 for row in rows}
