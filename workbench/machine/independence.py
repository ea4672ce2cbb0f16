"""Whether what a model makes of an item depends on the item alone, checked on this machine at the model's first use.

The workbench stores results item by item, computes items together for speed, and serves them one at a time. That is right
only where an item comes out with the same bits alone, together with others, in other company, and with any number of
threads. Batches are shaped so that this holds on the processors tried; on the machine at hand it is checked, once for each
model. Where it does not hold, the model computes items one by one, or in one thread, and the workbench says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace

from workbench.component import digest, library_version
from workbench.hardware import threads
from workbench.machine import fingerprint, record
from workbench.machine.machine import Machine

VERSION = 1  # raised when other items are checked, or checked otherwise
ITEMS = 8  # checked
COMPANY = 8  # other items that stand beside some of them
LIBRARIES = ("transformers", "sentence-transformers")  # how they call torch decides too

# what a model has to make of items, given by their numbers from 0 to ITEMS + COMPANY - 1, in one pass: the bits of each
Compute = Callable[[Sequence[int]], list[bytes]]


@dataclass(frozen=True)
class Way:
    """How a model computes here so that each item depends on itself alone.

    Attributes:
        together: whether several items pass through it together.
        one_thread: whether it has to compute in one thread.
        model: its name, for people.
    """

    together: bool = True
    one_thread: bool = False
    model: str = ""

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Computing some items inside the block: in one thread, where it has to be, and not without saying what is special."""
        for notes in _listening if self.note else ():
            if self.note not in notes:
                notes.append(self.note)
        with fingerprint.torch_threads(1) if self.one_thread else nullcontext():
            yield

    @property
    def note(self) -> str | None:
        """What people should know of it; None where there is nothing special."""
        ways = [] if self.together else ["its items are computed one by one"]
        ways += ["in one thread"] if self.one_thread else []
        if not ways:
            return None
        cause = "the number of threads" if self.together else "the items computed beside it"
        return f"{self.model}: here the last bits of an item depend on {cause}, so {' and '.join(ways)}; that takes longer"


_listening: list[list[str]] = []


@contextmanager
def noted() -> Iterator[list[str]]:
    """What was special about how models computed inside the block, in words; the list grows while they compute."""
    notes: list[str] = []
    _listening.append(notes)
    try:
        yield notes
    finally:
        _listening.remove(notes)


def way(model: str, what: str, machine: Machine, compute: Compute) -> Way:
    """How a model is used on a machine: checked at its first use there, then read from the machine's record.

    Args:
        model: digest of its weights and of all else that decides how it computes.
        what: its name, for people.
        machine: where it computes.
        compute: what it makes of items in one pass.
    """
    versions = [library_version(name) for name in LIBRARIES]
    said = digest([model, machine.arithmetic, versions])[:16]
    found = record.kept(f"independence {VERSION} {said}", lambda: asdict(replace(checked(compute), model=what)))
    return replace(Way(**found), model=what)


def kept() -> list[Way]:
    """How each model that was checked on this machine is used."""
    return [Way(**value) for value in record.named(f"independence {VERSION} ")]


def checked(compute: Compute) -> Way:
    """The quickest way that holds for the items checked.

    They are computed alone, together and in other company with all threads, and together with one. Where these differ, all of it
    is computed with one thread and with all to see what the bits depend on.
    """
    many = max(2, threads())
    alone = _alone(compute, many)
    if alone == _together(compute, many) == _in_company(compute, many) == _together(compute, 1):
        return Way()
    found = {n: [look(compute, n) for look in (_alone, _together, _in_company)] for n in (1, many)}
    alone, *batches = found[1]
    return Way(together=all(batch == alone for batch in batches), one_thread=found[1] != found[many])


def _alone(compute: Compute, n: int) -> list[bytes]:
    """The bits of the items checked, each computed alone with n threads."""
    with fingerprint.torch_threads(n):
        return [compute([item])[0] for item in range(ITEMS)]


def _together(compute: Compute, n: int) -> list[bytes]:
    """The bits of the items checked, computed in one pass with n threads."""
    with fingerprint.torch_threads(n):
        return compute(range(ITEMS))


def _in_company(compute: Compute, n: int) -> list[bytes]:
    """The bits of the items checked, computed backwards, each behind an item that is not checked, with n threads.

    In two passes of 11 and 5, since libraries treat the last rows of an odd number of rows otherwise.
    """
    company = [number for item in reversed(range(ITEMS)) for number in (ITEMS + item % COMPANY, item)]
    with fingerprint.torch_threads(n):
        return (compute(company[:11]) + compute(company[11:]))[::-2]
