"""Documents cut where their structure says: at headings and pages, with tables and code in one piece."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Literal, NamedTuple

import pyarrow as pa

from workbench.data import recursive
from workbench.data.scripts import WORD
from workbench.data.sentences import sentences

# what a configuration calls parts of documents -> the kind of `workbench.data.documents.parser.Element`
AT = {"headings": "heading", "pages": "page", "chapters": "chapter", "cells": "cell"}
KEEP = {"tables": "table", "code": "code", "lists": "list"}
PATH = " > "  # between the headings above a passage


class Part(NamedTuple):
    """A part of a document, as its structure names it: characters `start` to `end`."""

    start: int
    end: int
    kind: str
    level: int = 0
    label: str = ""


class Section(NamedTuple):
    """What lies between two places at which a document is cut, and the headings above it, the outermost first."""

    start: int
    end: int
    path: tuple[str, ...] = ()


class Unit(NamedTuple):
    """What is never cut: a word, a sentence, or something that is kept whole, with its number of words."""

    start: int
    end: int
    words: int


@dataclass(frozen=True)
class Cutting:
    """How documents are cut by their structure.

    Attributes:
        most: words of a passage, or sentences, but for what is kept whole; None: a section is one passage.
        overlap: words or sentences that a passage shares with the one before it in its section, at most.
        at: keys of `AT`.
        keep: keys of `KEEP`.
        language: of the sentences that are not cut; empty: they are.
        counted: what there are `most` of in a passage.
        recursive: whether passages end at the strongest break that lets them be short enough, instead of being as long as fits.
    """

    most: int | None
    overlap: int
    at: Sequence[str]
    keep: Sequence[str]
    language: str = ""
    counted: Literal["words", "sentences"] = "words"
    recursive: bool = False

    def passages(self, text: str, parts: Sequence[Part]) -> Iterator[Section]:
        """The passages of a document in their order; a section without words gives none.

        Args:
            text: the document's.
            parts: its structure, in the order in which the parts begin.
        """
        kinds = {KEEP[name] for name in self.keep}
        words = self.most if self.counted == "words" else None
        kept = list(_kept(text, [part for part in parts if part.kind in kinds], words))
        begin = [part.start for part in kept]
        for section in sections(text, parts, {AT[name] for name in self.at}, kept):
            inside = kept[bisect_left(begin, section.start) : bisect_left(begin, section.end)]
            units = list(_units(text, section, inside, self._pieces))
            for first, last in self._runs(text, units):
                yield section._replace(start=units[first].start, end=units[last - 1].end)

    def _runs(self, text: str, units: Sequence[Unit]) -> Iterable[tuple[int, int]]:
        """Passages as units, (first, behind the last)."""
        if not units:
            return ()
        if self.most is None:
            return [(0, len(units))]
        sizes = [unit.words if self.counted == "words" else 1 for unit in units]
        if self.recursive:
            return recursive.runs(sizes, recursive.breaks(text, units), self.most)
        return windows(sizes, self.most, self.overlap)

    def _pieces(self, text: str, start: int, end: int) -> Iterator[Unit]:
        """What is not cut of a part of a text of which nothing else is kept: sentences, or words."""
        if not self.language:
            yield from _words(text, start, end)
            return
        for begin, behind in sentences(text, self.language, start, end):
            words = list(_words(text, begin, behind))
            if self.counted == "words" and self.most is not None and len(words) > self.most:
                yield from words
            else:
                yield Unit(begin, behind, len(words))


def sections(text: str, parts: Sequence[Part], kinds: set[str], kept: Sequence[Part]) -> Iterator[Section]:
    """The sections of a document, which together are all of it.

    One begins where a part of the `kinds` does, but not inside of what is kept whole. Headings with nothing between them begin
    one section.

    Args:
        text: the document's.
        parts: its structure, in the order in which the parts begin.
        kinds: of the parts at which it is cut.
        kept: what is not cut, in order, each behind the other.
    """
    starts = [part.start for part in kept]

    def inside(place: int) -> bool:
        number = bisect_left(starts, place) - 1
        return number >= 0 and place < kept[number].end

    begin = [part for part in parts if part.kind in kinds and not inside(part.start)]
    headings = [part for part in begin if part.kind == "heading"]
    follows = {other.start for one, other in pairwise(headings) if not text[one.end : other.start].strip()}
    cuts = sorted({0, len(text)} | {part.start for part in begin if part.kind != "heading" or part.start not in follows})
    path: list[Part] = []
    left = deque(headings)
    for start, end in pairwise(cuts):
        while left and left[0].start < end:
            heading = left.popleft()
            path = [*(above for above in path if above.level < heading.level), heading]
        yield Section(start, end, tuple(part.label for part in path if part.label))


def windows(sizes: Sequence[int], most: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Runs of units, each as long as fits, as (first, behind the last).

    Args:
        sizes: words of each unit; one that is larger than `most` is a run by itself.
        most: words of a run.
        overlap: words that a run shares with the one before, at most, and less where the next unit would not fit then.
    """
    first = 0
    while first < len(sizes):
        total, last = sizes[first], first + 1
        while last < len(sizes) and total + sizes[last] <= most:
            total += sizes[last]
            last += 1
        yield first, last
        if last == len(sizes):
            return
        shared, begin = 0, last
        while begin - 1 > first and shared + sizes[begin - 1] <= min(overlap, most - sizes[last]):
            begin -= 1
            shared += sizes[begin]
        first = begin


def _kept(text: str, parts: Sequence[Part], words: int | None) -> Iterator[Part]:
    """Of parts that lie in each other the outermost; of one that is too long for a passage, those in it."""
    end = 0
    places = {(part.start, part.end): part for part in parts if part.start < part.end}
    for part, following in zip_longest(places.values(), [*places.values()][1:]):
        if part.start < end:
            continue
        holds = following is not None and following.start < part.end
        if holds and words is not None and sum(1 for _ in _words(text, part.start, part.end)) > words:
            continue
        yield part
        end = part.end


def _units(
    text: str, section: Section, kept: Iterable[Part], pieces: Callable[[str, int, int], Iterator[Unit]]
) -> Iterator[Unit]:
    """The pieces of a section and what of it is kept whole, in order.

    Args:
        text: the document's.
        section: of it.
        kept: what is kept whole in it, in order, each behind the other.
        pieces: of characters of the text that lie between what is kept.
    """
    at = section.start
    for part in kept:
        yield from pieces(text, at, part.start)
        if inside := list(_words(text, part.start, part.end)):
            yield Unit(inside[0].start, inside[-1].end, len(inside))
        at = part.end
    yield from pieces(text, at, section.end)


def _words(text: str, start: int, end: int) -> Iterator[Unit]:
    return (Unit(match.start(), match.end(), 1) for match in WORD.finditer(text, start, max(start, end)))


def titled(title: str, path: Sequence[str]) -> str:
    """A document's title with the headings above a passage behind it; a first heading that is the title is not repeated."""
    below = path[1:] if path and path[0].casefold() == title.casefold() else path
    return PATH.join(filter(None, [title, *below]))


def by_document(structure: pa.Table) -> Mapping[str, list[Part]]:
    """Document id -> its parts, in the order in which they begin, the longer first.

    Args:
        structure: `workbench.data.dataset.STRUCTURE`.
    """
    found: dict[str, list[Part]] = {}
    for row in structure.to_pylist():
        found.setdefault(row.pop("doc_id"), []).append(Part(**row))
    return {name: sorted(parts, key=lambda part: (part.start, -part.end)) for name, parts in found.items()}
