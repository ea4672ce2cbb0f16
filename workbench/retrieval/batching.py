"""Batches of texts of equal width, so that the arithmetic of a text does not depend on how long the texts beside it are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

BUCKET = 32
BATCH_TOKENS = 2048  # padded tokens per forward pass; only memory and speed depend on it


def width(length: int) -> int:
    """Tokens that a text of this length is padded to: the next multiple of `BUCKET`."""
    return max(1, -(-length // BUCKET)) * BUCKET


def full(wide: int) -> int:
    """Texts of a width in a batch at most."""
    return max(1, -(-BATCH_TOKENS // wide))


def batches(lengths: Sequence[int], together: bool = True) -> Iterator[tuple[list[int], int]]:
    """Positions of texts of one width, and that width; longest first, `BATCH_TOKENS` padded tokens or one text a batch.

    Args:
        lengths: tokens of each text.
        together: whether a batch may hold several texts.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-width(lengths[i]), i))
    start = 0
    while start < len(order):
        wide = width(lengths[order[start]])
        end, most = start + 1, full(wide) if together else 1
        while end < len(order) and end - start < most and width(lengths[order[end]]) == wide:
            end += 1
        yield order[start:end], wide
        start = end


def filled(rows: Sequence[T], n: int) -> list[T]:
    """Rows, with copies of the first behind them so that there are n at least."""
    return [*rows, *[rows[0]] * (n - len(rows))]


def padded(rows: Sequence[Sequence[int] | np.ndarray], wide: int, value: int) -> torch.Tensor:
    """Rows of whole numbers, each a list or int32 (n,), padded on the right with `value`: int64 (len(rows), wide)."""
    import torch

    found = np.full((len(rows), wide), value, np.int64)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return torch.from_numpy(found)
