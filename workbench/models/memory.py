"""Work in smaller batches where memory does not suffice for the whole one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from workbench.errors import InputError
from workbench.models.decoding import MIN_ROWS

T = TypeVar("T")
R = TypeVar("R")

# how torch's allocators for the processor put it; on a GPU the error has a class of its own
MESSAGES = ("not enough memory", "can't allocate memory", "out of memory")


class Batches:
    """Computes batches, and halves them where memory does not suffice, down to `MIN_ROWS` rows.

    Results are the same: a row's arithmetic does not depend on the rows beside it.

    Attributes:
        most: rows that were computed at once after memory had run out; None: it never did.
        notes: what was halved, for people.
    """

    def __init__(self) -> None:
        self.most: int | None = None
        self.notes: list[str] = []

    def compute(self, rows: Sequence[T], width: int, compute: Callable[[Sequence[T]], list[R]]) -> list[R]:
        """`compute` of all rows, in their order.

        Args:
            rows: what is computed.
            width: tokens of a row, for the message.
            compute: results of some rows, in one batch.

        Raises:
            InputError: memory does not even suffice for `MIN_ROWS` rows.
        """
        found: list[R] = []
        while len(found) < len(rows):
            part = rows[len(found) : len(found) + (self.most or len(rows))]
            try:
                found += compute(part)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._halve(len(part), width, error)
            else:
                continue
            _free()  # here nothing refers to the failed batch any more: the error is gone with its frames
        return found

    def _halve(self, rows: int, width: int, error: BaseException) -> None:
        if rows <= MIN_ROWS:
            raise InputError(
                f"memory does not suffice for {MIN_ROWS} prompts of {width} tokens, the smallest batch; "
                f"show fewer or shorter passages, or use a smaller model. What is answered so far is kept"
            ) from error
        self.most = max(MIN_ROWS, rows // 2)
        self.notes.append(f"memory did not suffice for {rows} prompts of {width} tokens at once; it goes on with {self.most}")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was short, on a GPU or in main memory."""
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in MESSAGES)


def _free() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
