"""Texts -> sentences, by the library sentencex; what it takes for one and is too long to be one is parted at its lines."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from workbench.data.documents.parser import imported
from workbench.data.scripts import WORD

LIBRARY = "sentencex"
EXTRA = "documents"
LONGEST = 1000  # characters of a sentence; a table has no full stops, so all of it would be one


def check_installed() -> None:
    """Refuses what needs sentences where the library is not there.

    Raises:
        MissingExtraError: it is not installed.
    """
    imported(LIBRARY, EXTRA, "cutting documents at sentences")


def sentences(text: str, language: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The sentences of a part of a text in their order without white space around them: first character, the one behind the last.

    One that is longer than `LONGEST` is parted into its lines, and a line that still is into as many words as fit.

    Args:
        text: the text.
        language: its code, such as en; one that the library does not know is read as English.
        start: where the part begins.
        end: where it ends.
    """
    if start >= end:
        return
    found = imported(LIBRARY, EXTRA, "cutting documents at sentences").get_sentence_boundaries(language, text[start:end])
    cuts = sorted({start, end, *(start + one["end_index"] for one in found)})
    for one in pairwise(cuts):
        yield from (part for whole in _trimmed(text, *one) for part in _parts(text, *whole))


def _parts(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    if end - start <= LONGEST:
        yield start, end
        return
    at = start
    for line in text[start:end].splitlines(keepends=True):
        for trimmed in _trimmed(text, at, at + len(line)):
            yield from _packed(text, *trimmed)
        at += len(line)


def _packed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A line in parts of whole words, each of at most `LONGEST` characters unless one word is longer."""
    begin = last = start
    for word in WORD.finditer(text, start, end):
        if word.end() - begin > LONGEST and last > begin:
            yield begin, last
            begin = word.start()
        last = word.end()
    yield begin, last


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A part of a text without the white space around it; nothing where there is no more in it."""
    inside = text[start:end]
    if bare := inside.strip():
        begin = start + inside.index(bare[0])
        yield begin, begin + len(bare)
