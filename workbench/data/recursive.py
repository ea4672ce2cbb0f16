"""Pieces that end at the strongest break that lets them be short enough: a heading, a page, a blank line, a line, a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

HEADING = re.compile(r"#{1,6}(?:\s|$)")  # of Markdown, at the beginning of a line
SENTENCE = re.compile(r"[.!?…。！？][\"'”’»）)\]]*$")
ENDING = 8  # characters of a unit's end that are looked at
DEEPEST = 40  # columns of indentation that are told apart


class Break(NamedTuple):
    """How much two neighbouring units are apart; the larger, the better to cut there.

    Attributes:
        rank: 5 before a heading, 4 at the end of a page or over two blank lines, 3 over one, 2 at the end of a line, 1 at the end
            of a sentence, 0 elsewhere.
        outward: minus the indentation of the line that begins, so that code is rather cut between functions than within.
    """

    rank: int
    outward: int


class Ranged(Protocol):
    """Characters `start` to `end` of a text."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


def breaks(text: str, units: Sequence[Ranged]) -> list[Break]:
    """What lies between each unit and the next.

    Args:
        text: the document's.
        units: of it, in order, each behind the other.
    """
    return [_between(text, one, other) for one, other in pairwise(units)]


def _between(text: str, one: Ranged, other: Ranged) -> Break:
    gap = text[one.end : other.start]
    lines = gap.count("\n")
    if not lines and "\f" not in gap:
        return Break(int(SENTENCE.search(text[max(one.start, one.end - ENDING) : one.end]) is not None), 0)
    indented = -min(len(gap) - max(gap.rfind("\n"), gap.rfind("\f")) - 1, DEEPEST)
    if HEADING.match(text, other.start):
        return Break(5, indented)
    return Break(4 if "\f" in gap or lines > 2 else lines + 1, indented)


def runs(
    sizes: Sequence[int], between: Sequence[Break], most: int, first: int = 0, last: int | None = None
) -> Iterator[tuple[int, int]]:
    """Runs of units of at most `most` together, as (first, behind the last).

    All units are parted at the strongest breaks between them; what is parted is put together again as far as it fits, and what is
    still too large is parted at its own strongest breaks.

    Args:
        sizes: words of each unit; one that is larger than `most` is a run by itself.
        between: the break behind each unit but the last.
        most: words of a run.
        first: the first unit that is looked at.
        last: the one behind the last; None: all of them.
    """
    last = len(sizes) if last is None else last
    if last - first <= 1 or sum(sizes[first:last]) <= most:
        if first < last:
            yield first, last
        return
    strongest = max(between[first : last - 1])
    ends = [number + 1 for number in range(first, last - 1) if between[number] == strongest]
    begin, total = first, 0
    for start, end in pairwise([first, *ends, last]):
        size = sum(sizes[start:end])
        if total and total + size > most:
            yield begin, start
            begin, total = start, 0
        if size > most:
            yield from runs(sizes, between, most, start, end)
            begin, total = end, 0
        else:
            total += size
    if begin < last:
        yield begin, last
