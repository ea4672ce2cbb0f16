"""Parts of a search, or batches of texts, side by side, each in a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

from workbench.machine import threads as threads_here
from workbench.retrieval.indexes.backends import faiss

T = TypeVar("T")
U = TypeVar("U")


def side_by_side(call: Callable[[slice], T], n: int, size: int) -> list[T]:
    """`call` on the slices of `size` out of n, in order; FAISS and NumPy work without Python's lock.

    FAISS' own threads wait for one another after each call, and go on turning while they wait: beside NumPy's, which do the
    same, they halve each other's speed. Inside a thread made here FAISS starts none.
    """
    parts: Sequence[slice] = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    threads = min(threads_here(), len(parts))
    if threads < 2:
        return [call(part) for part in parts]
    with ThreadPoolExecutor(threads, initializer=lambda: faiss().omp_set_num_threads(1)) as pool:
        return list(pool.map(call, parts))


def batch_by_batch(call: Callable[[T], U], batches: Iterable[T]) -> Iterator[U]:
    """`call`, which computes with torch on the processor, on each batch, in order; as many at once as there are processors.

    A thread for each batch is faster than all threads on one: nobody waits for the others after every product.
    """
    import torch

    waiting: deque[Future[U]] = deque()
    threads = torch.get_num_threads()
    batches = iter(batches)
    first = [batch for _, batch in zip(range(2), batches, strict=False)]
    if threads < 2 or len(first) < 2:  # one batch alone has all of them
        yield from map(call, first)
        yield from map(call, batches)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
            for batch in chain(first, batches):
                waiting.append(pool.submit(call, batch))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)  # MKL has one number for all threads
