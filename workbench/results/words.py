"""Numbers and names as people read them, the same on the command line, in notebooks, on pages, in figures and in the demo.

Metrics run from 0 to 1 and are shown as points of 100 with one decimal; a minus is a minus sign, and zero has no sign.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from math import isinf, isnan
from pathlib import Path
from typing import NamedTuple

from workbench.results.records import SettingsRecord
from workbench.results.rows import ConfigurationRow

METRICS = {"f1": "F1", "em": "exact match", "contains": "answer contained", "grounded": "groundedness", "abstained": "abstention"}
MEASURES = {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP"}
MEANS = {  # what each measure says, as one sentence; {} is its cut-off, such as "10 passages"
    "f1": "F1 compares the words of an answer with those of an accepted answer: 100 is the same words, 0 is none in common.",
    "em": "Exact match calls an answer right if it is an accepted one, but for case, articles and punctuation.",
    "contains": "By this metric an answer is right if it contains an accepted one.",
    "ndcg": "nDCG says how far up the right passages stand among the first {}: 100 is all on top, 0 is none there.",
    "recall": "Recall is the share of what is relevant that stands in the first {}.",
    "mrr": "MRR is 100 where the first passage is a right one, 50 where the second is the first right one, 33 for the third, "
    "and so on to the first {}.",
    "map": "MAP says how far up the right passages stand among the first {}: 100 is all on top, 0 is none there.",
    "precision": "Precision is the share of the first {} that are right ones.",
    "success": "Success is 100 where a right passage is among the first {}, else 0.",
}
DIRECTIONLESS = {"abstained"}  # neither more nor less of it is better in itself
MINUS = "\N{MINUS SIGN}"
TODAY = "today's setup"  # the baseline, where the experiment's file has no other name for it


class Unit(NamedTuple):
    """How a metric is shown: times `factor`, with `digits` decimals, and the noun of a difference, which may be empty."""

    factor: float
    digits: int
    noun: str


POINTS = Unit(100.0, 1, "points")
PLAIN = Unit(1.0, 3, "")  # of scores measured elsewhere that do not run from 0 to 1


def number(value: float | None, unit: Unit = POINTS, signed: bool = False, kept: bool = False) -> str:
    """A mean or a difference: ``10.8``, ``+7.7``, ``−1.2``, and ``0.0`` for what rounds to zero.

    Args:
        value: in the metric's own unit; a dash where there is none.
        unit: how it is shown.
        signed: whether a positive number has its sign.
        kept: whether more decimals are taken where these would make zero of it: the end of an interval that leaves out zero
            must not read as zero.
    """
    if value is None or isnan(value):
        return "–"
    size = abs(value) * unit.factor
    digits = unit.digits
    while kept and size > 1e-12 and float(f"{size:.{digits}f}") == 0 and digits < 12:
        digits += 1
    text = f"{size:.{digits}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else "+" if signed else "") + text


def between(low: float | None, high: float | None, unit: Unit = POINTS, signed: bool = False) -> str:
    """An interval, ``1.5 to 13.9``; empty where there is none.

    Args:
        low: its lower end, in the metric's own unit.
        high: its upper end.
        unit: how they are shown.
        signed: whether positive ends have their sign.
    """
    if low is None or high is None or isnan(low) or isnan(high):
        return ""
    return f"{number(low, unit, signed, kept=True)} to {number(high, unit, signed, kept=True)}"


def estimate(value: float, low: float | None, high: float | None, unit: Unit = POINTS) -> str:
    """A mean with its interval: ``10.8 (5.0 to 16.6)``.

    Args:
        value: the mean, in the metric's own unit.
        low: lower end of its interval; None where there is none.
        high: upper end.
        unit: how they are shown.
    """
    interval = between(low, high, unit)
    return f"{number(value, unit)} ({interval})" if interval else number(value, unit)


def gain(difference: float, low: float | None, high: float | None, unit: Unit = POINTS) -> str:
    """A difference with its interval: ``+7.7 points (+1.5 to +13.9)``.

    Args:
        difference: in the metric's own unit.
        low: lower end of its interval; None where there is none.
        high: upper end.
        unit: how they are shown.
    """
    interval, noun = between(low, high, unit, signed=True), f" {unit.noun}" if unit.noun else ""
    return f"{number(difference, unit, signed=True)}{noun}" + (f" ({interval})" if interval else "")


def p_text(p: float | None) -> str:
    """A p-value for reading: ``.032``, ``< .001``, ``1``; a dash where there is none."""
    if p is None or isnan(p):
        return "–"
    if p < 0.001:
        return "< .001"
    return "1" if p >= 0.9995 else f"{p:.3f}"[1:]


def chance(p: float) -> str:
    """A p-value as a frequency: ``about 3 of 100``."""
    if p < 0.001:
        return "fewer than 1 of 1,000"
    return f"about {max(1, round(1000 * p))} of 1,000" if p < 0.01 else f"about {min(100, round(100 * p))} of 100"


def count(n: int, noun: str) -> str:
    """``1 question``, ``1,200 questions``."""
    return f"{n:,} {noun if n == 1 else noun + 's'}"


def questions(n: float | None) -> str:
    """A number of questions, rounded up to two figures: ``about 130 questions``; or that no number would do."""
    if n is None or isnan(n):
        return ""
    if isinf(n):
        return "no number of questions"
    if n >= 1_000_000:
        return "more than a million questions"
    scale = 10 ** max(0, len(str(int(n))) - 2)
    return f"about {-(-int(n) // scale) * scale:,} questions"


def metric_name(metric: str) -> str:
    """A metric as people write it: ``f1`` -> F1, ``ndcg@10`` -> nDCG@10, ``recall@300w`` -> recall within 300 words."""
    measure, at, cutoff = metric.partition("@")
    name = MEASURES.get(measure, METRICS.get(measure, measure))
    return f"{name} within {cutoff[:-1]} words" if cutoff.endswith("w") else f"{name}{at}{cutoff}"


def meaning(metric: str) -> str:
    """What a metric says, in a sentence; empty for a metric of one's own."""
    measure, _, cutoff = metric.partition("@")
    meant = MEANS.get(measure, "")
    if ("{}" in meant) != bool(cutoff):
        return ""
    return meant.format(f"{cutoff[:-1]} words" if cutoff.endswith("w") else "passage" if cutoff == "1" else f"{cutoff} passages")


def direction(metric: str) -> str:
    """Which end of a metric is good."""
    return "neither end is better" if metric in DIRECTIONLESS else "higher is better"


# --- Names of configurations -----------------------------------------------------------------------------------------

RETRIEVERS = {"bm25": "keyword search", "dense": "search by meaning", "fusion": "keyword and meaning search"}
NOTHING = {"none", "always"}  # values that add nothing to a setup
PHRASES = {
    "chunking": "passages {}",
    "rewriting": "questions rewritten",
    "expansion": "questions expanded",
    "reranker": "re-ranked",
    "prompt": "prompt {}",
}


def plain_names(rows: Sequence[ConfigurationRow], settings: SettingsRecord) -> dict[str, str]:
    """Configuration id -> what it is in plain words, by the axes on which the configurations differ.

    Args:
        rows: the configurations of a run.
        settings: the run's config.yaml as read; its section ``names`` maps values of axes (names of components) to words,
            other values get a default by their kind. Where it is empty, labels stay.
    """
    if not settings or not rows:
        return {row.configuration: row.label for row in rows}
    values = {axis: list(dict.fromkeys(row.values[axis] for row in rows)) for axis in rows[0].values}
    varying = [axis for axis in values if len(values[axis]) > 1] or [
        axis for axis in ("retriever", "generator") if axis in values
    ]
    words = {axis: _words_of_axis(axis, values[axis], settings) for axis in varying}
    names = {
        row.configuration: ", ".join(filter(None, (words[axis][row.values[axis]] for axis in varying))) or row.label
        for row in rows
    }
    shared = [name for name in names.values() if list(names.values()).count(name) > 1]
    return {row.configuration: row.label if names[row.configuration] in shared else names[row.configuration] for row in rows}


def value_name(axis: str, value: str, values: Sequence[str], settings: SettingsRecord) -> str:
    """A value of an axis in plain words; its code where it has none.

    Args:
        axis: such as ``retriever``.
        value: such as ``bm25``.
        values: all values of the axis: those with one and the same word get their codes beside it.
        settings: the run's config.yaml as read; empty: codes.
    """
    return (_words_of_axis(axis, values, settings)[value] if settings else "") or value


def _words_of_axis(axis: str, values: Sequence[str], settings: SettingsRecord) -> dict[str, str]:
    given = settings.get("names", {})
    words = {value: given.get(value) or _default(axis, value, settings) for value in values}
    counted = Counter(words.values())
    return {value: f"{word} ({value})" if word and counted[word] > 1 else word for value, word in words.items()}


def _default(axis: str, value: str, settings: SettingsRecord) -> str:
    """What a value is called by its kind; nothing for what adds nothing."""
    component = settings.get("components", {}).get(f"{axis}s", {}).get(value, {})
    if value in NOTHING:
        return ""
    if axis == "retriever":
        return RETRIEVERS.get(str(component.get("kind")), value)
    if axis == "generator":
        if component.get("endpoint"):
            return f"served model {component.get('model', value)}"
        return "fine-tuned model" if component.get("lora") else "untuned model" if component else value
    if axis == "passages":
        return f"{value} passage{'' if value == '1' else 's'}"
    if axis == "retrieval":
        return "without passages" if value == "never" else f"passages by {value}"
    return PHRASES.get(axis, f"{axis} {{}}").format(value)


def run_name(folder: Path) -> str:
    """A run's experiment and time: ``quickstart, 21 November 2026, 11:41:37 UTC``, or its id where that holds no time."""
    experiment, (stamp, _, _) = folder.parent.name, folder.name.partition("-")
    try:
        started = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ")
    except ValueError:
        return f"{experiment}, {folder.name}"
    return f"{experiment}, {started.day} {started:%B %Y, %H:%M:%S} UTC"
