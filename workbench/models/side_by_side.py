"""Work of this process side by side: each piece in one thread, which divides nothing further."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Barrier, BrokenBarrierError, Lock
from typing import TypeVar

import numpy as np

T = TypeVar("T")

SHORT = 48  # tokens of a text: parts of fewer cost more than they save
DEARER = 630  # a token that looks at so many others costs twice what one costs that looks at none
_turn = Lock()


def side_by_side(work: Callable[[int], T], numbers: Sequence[int]) -> list[T]:
    """What work gives for each number, in their order; pieces that wait for each other are at most as many as torch's threads.

    Args:
        work: called with a number, in some thread.
        numbers: at least one.
    """
    import torch

    threads = torch.get_num_threads()
    if threads == 1 or len(numbers) == 1:
        return [work(number) for number in numbers]
    with _turn:  # pieces of two callers that wait for each other would fill the threads and wait for ever
        pieces = [_threads(threads).submit(work, number) for number in numbers]
        failed = [error for piece in pieces if (error := piece.exception())]
    if failed:
        raise min(failed, key=lambda error: isinstance(error, BrokenBarrierError))  # these only follow from another
    return [piece.result() for piece in pieces]


def shares(n: int, threads: int) -> list[slice]:
    """So many rows in at most as many parts as there are threads, about equally large."""
    parts = min(n, threads)
    return [slice(n * i // parts, n * (i + 1) // parts) for i in range(parts)]


def parted(tokens: int) -> list[int]:
    """Where a text is cut so that its parts take about equally long to read, one for each thread: first, inner and last ends."""
    import torch

    parts = max(1, min(torch.get_num_threads(), tokens // SHORT))
    cost = np.cumsum(1 + np.arange(tokens) / DEARER)
    inner = np.searchsorted(cost, cost[-1] * np.arange(1, parts) / parts)
    return [0, *map(int, inner), tokens]


@contextmanager
def aborting(together: Barrier) -> Iterator[None]:
    """Lets those go that wait at a barrier where the block fails."""
    try:
        yield
    except BaseException:
        together.abort()
        raise


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    """So many threads, in each of which torch computes with one.

    Torch keeps the number for each thread, and for threads to come the one that was set last; so it is set once more here.
    """
    import torch

    there = Barrier(n)

    def begin() -> None:
        torch.set_num_threads(1)
        there.wait()

    pool = ThreadPoolExecutor(n, thread_name_prefix="side-by-side", initializer=begin)
    list(pool.map(lambda _: None, range(n)))
    torch.set_num_threads(n)
    return pool
