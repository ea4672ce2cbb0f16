"""Texts by their letters and digits alone, so that what two programs spell a little differently is found all the same.

Case, white space, punctuation, hyphens at the ends of lines and compatible forms (ligatures, full width) do not count; what is
found is mapped back to places in the text as it is. A decimal point counts: 1.5 is not 15.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from workbench.data.scripts import SPACELESS

CASES = bytes(byte + 32 if 65 <= byte <= 90 else byte for byte in range(256))
SIGNS = bytes(byte for byte in range(128) if not chr(byte).isalnum())
FREQUENT = tuple(sign.encode() for sign in "‘’“”–—…•·©®\u00a0\u00ad\u2011")  # dropped first, which is quicker
OTHERS = re.compile(r"[^\x00-\x7f]+")
SHORT = 12  # letters and digits; fewer have to begin and end where words do
PIECE, STEP = 12, 4  # letters and digits of a piece of a text that is searched for something near it
THOUSANDS = re.compile(r"(?:\d{3})+(?!\d)")


class _Table(dict[int, str]):
    """Code of a character -> its letters and digits, computed once."""

    def __missing__(self, code: int) -> str:
        same = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", chr(code)).casefold())
        self[code] = found = "".join(letter for letter in same if letter.isalnum())
        return found


TABLE = _Table()


def letters(text: str) -> str:
    """The letters and digits of a text, in Unicode's normal form KC, without case."""
    raw = text.encode("utf-8", "surrogatepass").translate(CASES, SIGNS)
    for sign in FREQUENT:
        raw = raw.replace(sign, b"")
    known = raw.decode("utf-8", "surrogatepass")
    return known if known.isascii() else OTHERS.sub(lambda run: run[0].translate(TABLE), known)


class Near(NamedTuple):
    """A place that has something of a text that stands nowhere.

    Attributes:
        share: of the text's pieces that stand there, from 0 to 1.
        start: the place's first character.
        end: the one behind its last.
    """

    share: float
    start: int
    end: int


class Lettered:
    """A text, its letters and digits, and where each stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.letters = letters(text)

    @cached_property
    def places(self) -> list[int]:
        """The character of the text that each letter stands at, and behind them the text's length."""
        return [number for number, one in enumerate(self.text) for _ in TABLE[ord(one)]] + [len(self.text)]

    def find(self, other: Lettered) -> Iterator[tuple[int, int]]:
        """Start and end of every place in this text whose letters and digits are those of another one.

        Where a place begins and ends as words do, those inside words do not count; of short texts they never do.
        """
        size = len(other.letters)
        found = [at for at in _occurrences(self.letters, other.letters) if self._same_numbers(at, other)]
        whole = [at for at in found if self._begins(at) and self._begins(at + size)]
        for at in whole if whole or size < SHORT else found:
            yield self.places[at], self.places[at + size - 1] + 1

    def _begins(self, at: int) -> bool:
        """Whether a word may begin at a letter, or end before it."""
        if not 0 < at < len(self.letters):
            return True
        before, here = self.places[at - 1], self.places[at]
        return here - before > 1 or bool(SPACELESS.search(self.text[before : here + 1]))

    def _same_numbers(self, at: int, other: Lettered) -> bool:
        """Whether the decimal points of two places are the same; signs that part thousands may be there or not."""
        for number in range(len(other.letters) - 1):
            if other.letters[number].isdigit() and other.letters[number + 1].isdigit():
                one, two = self._between(at + number), other._between(number)
                if bool(one) != bool(two) and not THOUSANDS.match(self.letters, at + number + 1):
                    return False
        return True

    def _between(self, at: int) -> str:
        """A point or comma that stands alone between a digit and the next, else nothing."""
        between = self.text[self.places[at] + 1 : self.places[at + 1]]
        return between if between in (".", ",") else ""

    def near(self, other: Lettered) -> Near | None:
        """The place in this text that has most of another one; None where no piece of it is here."""
        last = max(len(other.letters) - PIECE, 0)
        pieces = {start: other.letters[start : start + PIECE] for start in {*range(0, last, STEP), last}}
        # where the whole would begin, as the pieces say; a word more or less moves that a little
        begins: dict[int, set[tuple[int, int]]] = defaultdict(set)
        for start, piece in pieces.items():
            for at in _occurrences(self.letters, piece):
                begins[max(at - start, 0) // PIECE].add((start, max(at - start, 0)))
        if not begins:
            return None
        said = min(begins.values(), key=lambda one: (-len({start for start, _ in one}), min(one)))
        first, n = min(begin for _, begin in said), len({start for start, _ in said})
        end = min(first + len(other.letters), len(self.letters)) - 1
        return Near(n / len(pieces), self.places[first], self.places[end] + 1)


def _occurrences(text: str, part: str) -> Iterator[int]:
    """Where a part begins in a text, without overlaps."""
    at = text.find(part) if part else -1
    while at >= 0:
        yield at
        at = text.find(part, at + len(part))
