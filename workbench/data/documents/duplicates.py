"""Near copies among documents, found by sketches of their words (Broder, 1997): reported, never dropped."""

from __future__ import annotations

import heapq
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

SHINGLE = 5  # words in a row that are compared as one
SIZE = 32  # shingles of a document that are kept: those with the smallest hashes
RUN = rb"(?=(%s))" % b" ".join([rb"[^ ]++"] * SHINGLE)
ALL = re.compile(rb"(?<![^ ])" + RUN)
# about one in six of a long text: those behind a word that ends in such a letter, or in such a byte of another script
SOME = re.compile(rb"[dlp\x80\x84\x88\x8c\x90\x94\x98\x9c\xa0\xa4\xa8\xac\xb0\xb4\xb8\xbc] " + RUN)
ALIKE = 0.8  # estimated share of two documents' shingles that both have, from which on they are near copies
COMMON = 50  # documents with a shingle, above which it is taken for a heading or a licence
CHARACTERS_A_WORD = 20  # on average, above which a text has no spaces between its words, so characters are taken


def sketch(text: str) -> tuple[int, ...]:
    """The smallest hashes of a text's shingles, ascending, at most `SIZE`; empty for an empty text."""
    words = text.encode("utf-8", "replace").lower().split()
    if len(text) > CHARACTERS_A_WORD * len(words):
        words = [letter.encode("utf-8", "replace") for letter in text if not letter.isspace()]
    joined = b" ".join(words)
    shingles = SOME.findall(joined)
    if len(shingles) < SIZE:
        shingles = ALL.findall(joined) or [joined] * bool(joined)
    return tuple(sorted(set(map(zlib.crc32, shingles)))[:SIZE])


def alike(one: Sequence[int], other: Sequence[int]) -> float:
    """The estimated share of two documents' shingles that both have, from 0 to 1."""
    union = heapq.nsmallest(SIZE, {*one, *other})
    both = {*one} & {*other}
    return sum(value in both for value in union) / len(union) if union else 0.0


def groups(sketches: Mapping[str, Sequence[int]]) -> list[list[str]]:
    """Documents that are near copies of each other, each group sorted and the groups by their first.

    Args:
        sketches: document id -> its sketch.
    """
    having: dict[int, list[str]] = defaultdict(list)
    for name in sorted(sketches):
        for value in sketches[name]:
            having[value].append(name)
    leader = {name: name for name in sketches}

    def first(name: str) -> str:
        while leader[name] != name:
            leader[name] = name = leader[leader[name]]
        return name

    for name in sorted(sketches):
        for other in _candidates(name, sketches[name], having):
            if first(name) != first(other) and alike(sketches[name], sketches[other]) >= ALIKE:
                one, two = sorted((first(name), first(other)))
                leader[two] = one
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(sketches):
        found[first(name)].append(name)
    return sorted(group for group in found.values() if len(group) > 1)


def _candidates(name: str, values: Sequence[int], having: Mapping[int, list[str]]) -> list[str]:
    """Earlier documents that have enough shingles of a document's sketch; of copies in great numbers, the first."""
    shared = Counter(other for value in values for other in having[value][:COMMON] if other < name)
    return sorted(other for other, n in shared.items() if n >= ALIKE / 2 * len(values))
