"""Questions that stand in the training data and in the evaluation too, word for word or nearly.

Two texts are nearly the same when the Jaccard similarity of their character shingles reaches `NEAR`. Candidates come from
an inverted index over each text's rarest shingles alone: of two sets that similar, at least one shingle must be among the
first |x| - ceil(NEAR |x|) + 1 of both in any common order (Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity
search", section 4). So the work grows with the number of near pairs rather than with the product of the sizes.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from workbench.data.readers.text import counted
from workbench.errors import InputError

NEAR = 0.8  # similarity from which two questions count as one
SHINGLE = 4  # characters: a mended typing error or another ending stays above `NEAR`, another word mostly does not
NAMED = 10  # pairs that an error names

Policy = Literal["refuse", "drop"]


class Leak(NamedTuple):
    """A training question that an evaluation question repeats, and the similarity of their shingles."""

    train_id: str
    train: str
    evaluation_id: str
    evaluation: str
    similarity: float

    def __str__(self) -> str:
        how = "equal" if normalized(self.train) == normalized(self.evaluation) else f"{self.similarity:.2f} alike"
        return f"{self.train_id} {self.train!r} and {self.evaluation_id} {self.evaluation!r} ({how})"


def normalized(text: str) -> str:
    """A text without case, punctuation, kinds of white space and kinds of the same letter."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def leaks(training: Mapping[str, str], evaluation: Mapping[str, str]) -> list[Leak]:
    """Every pair of a training and an evaluation question that are equal or nearly so, most alike first.

    Args:
        training: id -> question.
        evaluation: id -> question.
    """
    sides = [{i: _shingles(normalized(text)) for i, text in side.items()} for side in (training, evaluation)]
    counts = Counter(shingle for side in sides for shingles in side.values() for shingle in shingles)
    index: dict[str, list[str]] = defaultdict(list)
    for i, shingles in sides[1].items():
        for shingle in _rarest(shingles, counts):
            index[shingle].append(i)
    found = []
    for i, shingles in sides[0].items():
        for j in {j for shingle in _rarest(shingles, counts) for j in index.get(shingle, ())}:
            similarity = _jaccard(shingles, sides[1][j])
            if similarity >= NEAR:
                found.append(Leak(i, training[i], j, evaluation[j], similarity))
    return sorted(found, key=lambda leak: (-leak.similarity, leak.train_id, leak.evaluation_id))


def _shingles(text: str) -> frozenset[str]:
    """Runs of `SHINGLE` characters, with the text's ends marked; never empty."""
    marked = f" {text} "
    return frozenset(marked[i : i + SHINGLE] for i in range(max(1, len(marked) - SHINGLE + 1)))


def _rarest(shingles: frozenset[str], counts: Counter[str]) -> list[str]:
    """The shingles of which two sets that are similar enough must share one."""
    order = sorted(shingles, key=lambda s: (counts[s], s))
    return order[: len(order) - math.ceil(NEAR * len(order)) + 1]


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def refuse(found: Sequence[Leak], where: str, setting: str) -> None:
    """Raises where there is any leak.

    Args:
        found: the leaks.
        where: the training, for the message.
        setting: the key that leaves such questions out instead.

    Raises:
        InputError: with the first pairs and the ways out.
    """
    if not found:
        return
    pairs = "; ".join(map(str, found[:NAMED]))
    more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
    raise InputError(
        f"{where}: {counted(len(found), 'pair')} of a training and an evaluation question {'is' if len(found) == 1 else 'are'} "
        f"equal or nearly so, which would flatter what is trained: {pairs}{more}. Allowed: mend the data, or {setting}=drop, "
        f"which leaves these training questions out"
    )


def dropped(found: Iterable[Leak]) -> tuple[str, ...]:
    """Ids of the training questions in leaks, sorted."""
    return tuple(sorted({leak.train_id for leak in found}))
