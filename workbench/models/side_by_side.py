"""Work of this process side by side: each piece in one thread, which divides nothing further."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

T = TypeVar("T")

WORTHWHILE = 16  # tokens of a text: a thread of its own for less costs more than it saves


def side_by_side(work: Callable[[int], T], numbers: Sequence[int], size: int = WORTHWHILE) -> list[T]:
    """What work gives for each number, in their order.

    Args:
        work: called with a number, in some thread.
        numbers: at least one.
        size: of the largest piece, in tokens.
    """
    import torch

    threads = torch.get_num_threads()
    if threads == 1 or len(numbers) == 1:
        return [work(number) for number in numbers]
    return list(_threads(threads).map(work, numbers))


def shares(n: int, threads: int) -> list[slice]:
    """So many rows in at most as many parts as there are threads, about equally large."""
    parts = min(n, threads)
    return [slice(n * i // parts, n * (i + 1) // parts) for i in range(parts)]


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
