"""A part of an experiment's work: what one of several jobs computes that know nothing of each other.

Items are divided by the digests of their inputs, so all jobs divide alike whatever their stores hold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from workbench.errors import InputError
from workbench.store.items import input_key


class LeftError(Exception):
    """A stage needs what is left to the other jobs."""


@dataclass(frozen=True)
class Part:
    """One of several parts.

    Attributes:
        number: of the part, from 1.
        of: how many parts there are.
        elsewhere: keys of stages that other parts compute.
    """

    number: int
    of: int
    elsewhere: frozenset[str] = frozenset()

    @classmethod
    def read(cls, text: str) -> Part:
        """The part that a text such as ``2/8`` names.

        Raises:
            InputError: it names none.
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        number, of = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= of:
            raise InputError(f"--only: received {text!r}; allowed: PART/PARTS, such as 2/8, with parts numbered from 1")
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def owner(self, text: str) -> int:
        """Number of the part that the item of an input belongs to."""
        return int.from_bytes(input_key(text)[-8:], "big") % self.of + 1

    def has(self, text: str) -> bool:
        """Whether the item of an input belongs to it."""
        return self.owner(text) == self.number
