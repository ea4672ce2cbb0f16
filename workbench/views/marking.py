"""Texts with some of their characters marked: accepted answers, evidence, and the words that another answer lacks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple

from workbench.views.html import text

LONGEST = 4000  # characters of a text that is shown; what is cut off is said
MOST_WORDS = 400  # of an answer whose words are told apart; the time grows with their square


class Place(NamedTuple):
    """Characters `start` to before `end`."""

    start: int
    end: int


def marked(body: str, answers: Sequence[str], evidence: Iterable[Place] = (), own: Iterable[Place] = ()) -> str:
    """A text as HTML; one that is longer than `LONGEST` is cut, which is said.

    Args:
        body: the text.
        answers: each is marked wherever it stands as words, whatever its case.
        evidence: what is underlined.
        own: what is bold.
    """
    cut = short(body)
    shown = body if cut == body else body[:LONGEST]
    layers = (("u", list(evidence)), ("b", list(own)), ("mark", _found(shown, answers)))
    inside = {edge for _, places in layers for place in places for edge in place if 0 < edge < len(shown)}
    parts = []
    for start, end in pairwise(sorted({0, len(shown)} | inside)):
        names = [name for name, places in layers if any(place.start <= start and end <= place.end for place in places)]
        opened, closed = "".join(f"<{name}>" for name in names), "".join(f"</{name}>" for name in reversed(names))
        parts.append(f"{opened}{text(shown[start:end])}{closed}")
    return f"<bdi>{''.join(parts)}</bdi>{text(cut[len(shown) :])}"


def _found(shown: str, answers: Sequence[str]) -> list[Place]:
    wanted = sorted({answer for answer in answers if answer.strip()}, key=len, reverse=True)
    pattern = r"(?<!\w)(?:" + "|".join(map(re.escape, wanted)) + r")(?!\w)"
    return [Place(*match.span()) for match in re.finditer(pattern, shown, re.IGNORECASE)] if wanted else []


def own_words(answer: str, other: str) -> list[Place]:
    """Where an answer has words that another answer lacks; nowhere in very long ones.

    Args:
        answer: the text.
        other: what it is held against.
    """
    words = [Place(*match.span()) for match in re.finditer(r"\S+", answer)]
    others = other.casefold().split()
    if max(len(words), len(others)) > MOST_WORDS:
        return []
    blocks = SequenceMatcher(None, answer.casefold().split(), others, autojunk=False).get_opcodes()
    return [Place(words[i].start, words[j - 1].end) for kind, i, j, _, _ in blocks if kind in ("replace", "delete")]


def short(body: str, most: int = LONGEST) -> str:
    """A text, or its beginning and how much more there is, where saying so takes less room than the rest.

    Args:
        body: the text.
        most: characters that are shown.
    """
    rest = f" … ({len(body) - most:,} more characters)"
    return body if len(body) - most <= len(rest) else f"{body[:most]}{rest}"
