"""Metrics of answers, 0 to 1, higher is better: exact match, F1, contains, grounded, abstained.

Normalisation and F1 as in SQuAD's official script (Rajpurkar et al. 2016, arXiv:1606.05250). On a question that the
documents do not answer, F1 = EM = contains = 1 for the empty answer, else 0 (as in SQuAD 2.0, arXiv:1806.03822).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from workbench.data.readers.text import composed

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


# metrics that compare with the accepted answers; the others look at the answer and the passages
AGAINST_ACCEPTED: dict[str, Callable[[str, Sequence[str]], float]] = {"f1": f1, "em": exact_match, "contains": contains}
NAMES = ("f1", "em", "contains", "grounded", "abstained")
IN_WORDS = ("f1", "contains", "grounded")  # they compare words, which spaces part
NOT_FOR_SELECTION = ("grounded", "abstained")


def score(metric: str, answer: str, accepted: Sequence[str] | None, passages: Sequence[str]) -> float:
    """One metric of `NAMES` on one answer.

    Args:
        metric: its name.
        answer: the answer as the template read it; empty: abstained.
        accepted: accepted answers; empty: the documents do not answer the question. None: not known, for metrics that do not
            compare with them.
        passages: texts shown to the generator.
    """
    if metric in AGAINST_ACCEPTED:
        return AGAINST_ACCEPTED[metric](answer, accepted or ())
    return grounded(answer, passages) if metric == "grounded" else abstained(answer)
