"""Sixteen texts of mixed length that models are checked on; see `machine.independence`."""

from __future__ import annotations

from workbench.machine.independence import ITEMS, NEIGHBOURS

WORDS = (3, 5, 8, 12, 16, 22, 30, 80)  # of the texts, again and again
SOURCE = (
    "the lock keeps two threads from writing while a third one reads what was stored before it went to sleep and every key "
    "of that table has one value but no value knows its key so whoever looks for it must walk through all 4,096 rows of 32 "
    "bytes each unless an index says where they are; rebuilding takes minutes, not hours (see chapter nine). Why would anyone "
    "wait? Because costs fall when batches grow, and since nobody asks twice for what is already there"
)


def text(number: int) -> str:
    """The text of a number from 0 to `ITEMS` + `NEIGHBOURS` - 1; those that differ by `ITEMS` have as many words."""
    if not 0 <= number < ITEMS + NEIGHBOURS:
        raise IndexError(f"there are texts 0 to {ITEMS + NEIGHBOURS - 1}, not {number}")
    words = SOURCE.split()
    step = 2 * number + 1  # each text reads the words in an order of its own
    return " ".join(words[(number + i * step) % len(words)] for i in range(WORDS[number % len(WORDS)]))
