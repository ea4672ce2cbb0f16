"""Splits of questions that came without: whole documents or conversations, in the order of a hash of their names."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from workbench.data.dataset import SPLITS
from workbench.data.readers.text import counted
from workbench.errors import InputError, unknown

SHARES: Mapping[str, float] = {"dev": 0.5, "test": 0.5}
SMALL = 30  # independent questions, below which a split can show only large differences
# so many questions that one system answers and the other does not, all for one of them, have a chance of at most 5 % where the
# systems are equally good: 2 * .5**6 = .03
FEWEST = 6


def checked(shares: Mapping[str, float]) -> dict[str, float]:
    """Shares of splits, in their usual order.

    Raises:
        InputError: an unknown split, a share that is not above 0, or a sum that is not 1.
    """
    for name in shares:
        if name not in SPLITS:
            raise InputError(f"dataset.splits: {unknown('split', name, SPLITS)}")
    if any(not share > 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(f"dataset.splits: received {dict(shares)}; allowed: shares above 0 whose sum is 1")
    return {name: shares[name] for name in SPLITS if name in shares}


def assigned(units: Sequence[str], shares: Mapping[str, float]) -> list[str]:
    """A split for each question, so that no unit is divided; the same for every order of the questions.

    Units go to the first split until it has its share of the questions as nearly as whole units allow, then to the next. Each
    split gets a unit at least.

    Args:
        units: of each question.
        shares: of the splits, as `checked` gives them.

    Raises:
        InputError: there are fewer units than splits.
    """
    sizes = Counter(units)
    order = sorted(sizes, key=lambda unit: hashlib.sha256(unit.encode()).digest())
    if len(order) < len(shares):
        raise InputError(
            f"the questions are about {len(order)} document or conversation, which cannot be divided into "
            f"{' and '.join(shares)}; give each question a split"
        )
    split_of: dict[str, str] = {}
    names, wanted, taken = list(shares), 0.0, 0
    for number, name in enumerate(names):
        wanted += shares[name] * len(units)
        later = len(names) - number - 1
        while order and len(order) > later:
            size = sizes[order[0]]
            begun = name in split_of.values()
            if later and begun and taken + size / 2 > wanted:
                break
            split_of[order.pop(0)] = name
            taken += size
    return [split_of[unit] for unit in units]


def small(split: str, groups: int) -> str | None:
    """What a split of few independent questions can show at best; None where there are enough.

    Args:
        split: its name.
        groups: how many of its questions do not depend on each other.
    """
    if groups >= SMALL:
        return None
    independent = counted(groups, "independent question")
    if groups < FEWEST:
        return (
            f"CAUTION: the split {split} has {independent}, too few to show any difference; at least {FEWEST} "
            f"are needed, better {SMALL} and more"
        )
    least = 100 * FEWEST / groups
    return (
        f"CAUTION: the split {split} has {independent}. The smallest difference that it could show is "
        f"{least:.0f} points of 100: {FEWEST} questions that only one of two setups answers, and none that only the other does"
    )
