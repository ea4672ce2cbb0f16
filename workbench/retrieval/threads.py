"""Parts of a search side by side, each in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from workbench.machine import cpu_count
from workbench.retrieval.backends import faiss

T = TypeVar("T")


def side_by_side(call: Callable[[slice], T], n: int, size: int) -> list[T]:
    """`call` on the slices of `size` out of n, in order; FAISS and NumPy work without Python's lock.

    FAISS' own threads wait for one another after each call, and go on turning while they wait: beside NumPy's, which do the
    same, they halve each other's speed. Inside a thread made here FAISS starts none.
    """
    parts: Sequence[slice] = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    threads = min(cpu_count(), len(parts))
    if threads < 2:
        return [call(part) for part in parts]
    with ThreadPoolExecutor(threads, initializer=lambda: faiss().omp_set_num_threads(1)) as pool:
        return list(pool.map(call, parts))
