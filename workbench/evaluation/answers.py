"""Metrics of answers, 0 to 1, higher is better: exact match, F1, contains, grounded, abstained.

Normalisation and F1 as in SQuAD's official script (Rajpurkar et al. 2016, arXiv:1606.05250). On a question that the
documents do not answer, F1 = EM = contains = 1 for the empty answer, else 0 (as in SQuAD 2.0, arXiv:1806.03822).
"""

from __future__ import annotations

import inspect
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

from workbench.component import load_function, source_digest
from workbench.data.readers.text import composed
from workbench.errors import InputError

PUNCTUATION = str.maketrans("", "", string.punctuation + "“”‘’…")
ARTICLES = re.compile(r"\b(a|an|the)\b")
WORDS = re.compile(r"\w+")

# words that say nothing about a passage: English function words and question words
FUNCTION_WORDS = frozenset(
    word
    for line in (
        "a about above after again all also am an and any are as at be because been before being below between both but by",
        "can cannot could did do does doing down during each few for from further had has have having he her here hers him",
        "his how i if in into is it its itself just may me might more most must my no nor not of off on once only or other",
        "our out over own same shall she should so some such than that the their them then there these they this those",
        "through to too under until up upon us very was we were what when where which while who whom whose why will with",
        "would you your",
    )
    for word in line.split()
)


def normalize(text: str) -> str:
    """Unicode's normal form C, lower case, without punctuation and the articles a, an, the; single spaces."""
    return " ".join(ARTICLES.sub(" ", composed(text).lower().translate(PUNCTUATION)).split())


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """1 if the normalised answer equals an accepted one."""
    return float(any(normalize(answer) == normalize(gold) for gold in accepted or [""]))


def f1(answer: str, accepted: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of normalised words, the best over accepted answers."""
    return max(_f1(normalize(answer).split(), normalize(gold).split()) for gold in accepted or [""])


def _f1(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    common = sum((Counter(answer) & Counter(gold)).values())
    return 2 * common / (len(answer) + len(gold))


def contains(answer: str, accepted: Sequence[str]) -> float:
    """1 if the words of an accepted answer stand in the answer, in a row."""
    if not accepted:
        return float(not normalize(answer))
    padded = f" {normalize(answer)} "
    return float(any((gold := normalize(text)) and f" {gold} " in padded for text in accepted))


def content_words(text: str) -> set[str]:
    """Distinct words in lower case and normal form C, without function and question words."""
    return {word for word in _words(text) if word not in FUNCTION_WORDS}


def _words(text: str) -> list[str]:
    return WORDS.findall(composed(text).lower())


def grounded(answer: str, passages: Sequence[str]) -> float:
    """Share of the answer's distinct content words that stand in the passages shown; 1 for an answer without any.

    An empty answer scores 1, so read it beside `abstained`; for the same reason nothing may be selected by it.
    """
    words = content_words(answer)
    if not words:
        return 1.0
    shown = set().union(*map(_words, passages)) if passages else set()
    return len(words & shown) / len(words)


def abstained(answer: str) -> float:
    """1 for the empty answer, which a template's abstention phrase is mapped to."""
    return float(not answer.strip())


Compare = Callable[[str, Sequence[str]], float]
Score = Callable[[str, Sequence[str] | None, Sequence[str]], float]


@dataclass(frozen=True)
class AnswerMetric:
    """A metric of answers, 0 to 1, higher is better.

    Attributes:
        name: as it stands in tables.
        function: takes the answer (empty: abstained), the accepted answers (empty: the documents do not answer the question;
            None: not known), and the texts of the passages shown; returns the score.
        key: what it is in keys of the store: its name, and for a function of one's own the digest of its file.
        compares: whether it needs the accepted answers to be known.
        selects: whether a configuration may be chosen by it.
        in_words: whether it compares words, which spaces part.
    """

    name: str
    function: Score
    key: str
    compares: bool = False
    selects: bool = True
    in_words: bool = False

    def score(self, answer: str, accepted: Sequence[str] | None, passages: Sequence[str]) -> float:
        """The score of one answer; the arguments are those of `function`.

        Raises:
            InputError: a function of one's own failed, or returned no number from 0 to 1.
        """
        return float(self.function(answer, accepted, passages))


def _comparing(name: str, function: Compare, in_words: bool) -> AnswerMetric:
    def score(answer: str, accepted: Sequence[str] | None, passages: Sequence[str]) -> float:
        return function(answer, accepted or ())

    return AnswerMetric(name, score, name, compares=True, in_words=in_words)


BUILTIN = {
    metric.name: metric
    for metric in (
        _comparing("f1", f1, in_words=True),
        _comparing("em", exact_match, in_words=False),
        _comparing("contains", contains, in_words=True),
        AnswerMetric(
            "grounded", lambda answer, accepted, shown: grounded(answer, shown), "grounded", selects=False, in_words=True
        ),
        AnswerMetric("abstained", lambda answer, accepted, shown: abstained(answer), "abstained", selects=False),
    )
}


@dataclass(frozen=True)
class OwnMetric(AnswerMetric):
    """A metric of somebody's own, whose results are checked."""

    def score(self, answer: str, accepted: Sequence[str] | None, passages: Sequence[str]) -> float:
        """As `AnswerMetric.score`."""
        given = f"for the answer {answer!r} with the accepted answers {accepted if accepted is None else list(accepted)}"
        try:
            found = self.function(answer, None if accepted is None else list(accepted), list(passages))
        except Exception as error:
            raise InputError(f"metric {self.name!r} failed {given}: {type(error).__name__}: {error}") from error
        try:
            value = float(found)
        except (TypeError, ValueError):
            value = nan
        if isinstance(found, str) or not 0 <= value <= 1:
            raise InputError(f"metric {self.name!r} returned {found!r} {given}; allowed: a number from 0 to 1, higher is better")
        return value


def own_metric(spec: str, folder: Path | None = None) -> OwnMetric:
    """The metric that ``./file.py:function`` or ``package.module:function`` names; its name is the function's.

    Args:
        spec: as written in a configuration.
        folder: where a relative file is looked for; default: the current folder.

    Raises:
        InputError: there is no such function, it takes other arguments than `AnswerMetric.function`, or has the name of a
            built-in metric.
    """
    function = load_function(spec, folder)
    name = spec.rpartition(":")[2]
    if name in BUILTIN:
        raise InputError(f"{spec!r} has the name of a built-in metric ({', '.join(BUILTIN)}); give the function another name")
    try:
        inspect.signature(function).bind("answer", [], [])
    except TypeError as error:
        raise InputError(
            f"{spec!r} takes {name}{inspect.signature(function)}; a metric takes the answer, accepted answers and passages "
            f"shown: def {name}(answer, accepted, passages)"
        ) from error
    return OwnMetric(name, function, f"{name}@{source_digest(function)}")
