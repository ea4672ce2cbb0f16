"""Whether what a model makes of an item depends on the item alone, checked on this machine at the model's first use.

The workbench stores results item by item, computes items together for speed, and serves them one at a time. That is right
only where an item comes out with the same bits alone, together with others, beside other neighbours, and with any number of
threads. Batches are shaped so that this holds on the processors tried; on the machine at hand it is checked, once for each
model. Where it does not hold, the model computes in batches that copies fill up to one size, else items one by one, or in
one thread, whichever holds first; and the workbench says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from workbench.component import digest, library_version
from workbench.hardware import threads
from workbench.machine import fingerprint, record
from workbench.machine.machine import Machine

# raised when other items are checked, or checked otherwise; also when models come to form other batches
VERSION = 3
ITEMS = 8  # checked
NEIGHBOURS = 8  # other items that stand beside some of them
LIBRARIES = ("transformers", "sentence-transformers")  # how they call torch decides too

HERE = ": on this machine "  # in every note

Batches = Literal["any", "full", "one"]
SPECIAL = {
    "full": "the last bits of an item depend on how many are computed together, so copies fill every batch up to one size",
    "one": "the last bits of an item depend on the items computed beside it, so they are computed one by one",
}


@dataclass(frozen=True)
class Mode:
    """How a model computes here so that each item depends on itself alone.

    Attributes:
        batches: ``any``: batches of any size; ``full``: copies fill every batch up to one size; ``one``: items one by one.
        one_thread: whether it has to compute in one thread.
        model: its name, for people.
        repeatable: whether an item comes out the same twice; where it does not, nothing here helps.
    """

    batches: Batches = "any"
    one_thread: bool = False
    model: str = ""
    repeatable: bool = True

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Torch's threads inside the block as this mode wants them."""
        with fingerprint.torch_threads(1) if self.one_thread else nullcontext():
            yield

    @property
    def note(self) -> str | None:
        """What people should know of it; None where there is nothing special."""
        if not self.repeatable:
            return f"{self.model}{HERE}an item does not come out the same twice, whatever is computed beside it"
        said = [SPECIAL[self.batches]] if self.batches in SPECIAL else []
        said += ["the last bits depend on the number of threads, so it computes in one"] if self.one_thread else []
        return f"{self.model}{HERE}{'; '.join(said)}. That takes longer" if said else None


# the quickest first; two threads are seldom worth more than whole batches
TRIED = tuple(Mode(batches, one_thread) for one_thread in (False, True) for batches in ("any", "full", "one"))


class Model(Protocol):
    """A model that can be checked.

    Attributes:
        mode: how it computes.
        copies: how many of each of the items checked fill its usual batches.
    """

    mode: Mode
    copies: int

    def bits(self, numbers: Sequence[int]) -> list[bytes]:
        """What it makes of sample items, as bits, computed in one pass in its `mode`; nothing is empty.

        Args:
            numbers: of the items, from 0 to `ITEMS` + `NEIGHBOURS` - 1; see `machine.samples`.
        """


# how the models used in this process compute, where that is special; those who show results show it
used: dict[str, Mode] = {}


def check(model: Model, definition: str, name: str, machine: Machine) -> None:
    """Gives a model its mode: checked at its first use on a machine, then read from the machine's record.

    Args:
        model: just loaded.
        definition: digest of its weights and of all else that decides how it computes.
        name: what it is, for people.
        machine: where it computes.
    """
    versions = [library_version(library) for library in LIBRARIES]
    key = digest([definition, machine.arithmetic, max(2, threads()), versions])[:16]

    def measure() -> dict[str, object]:
        sys.stderr.write(
            f"  checking once on this machine that {name} gives the same result alone and in batches, which takes some seconds, "
            "for a generator a minute or more ...\n"
        )
        return asdict(checked(model)) | {"model": name}

    model.mode = Mode(**record.kept(f"independence {VERSION} {key}", measure))
    if model.mode.note:
        used[name] = model.mode


def notes() -> list[str]:
    """What is special about how models of this process compute, in words."""
    return [mode.note for _, mode in sorted(used.items()) if mode.note]


def is_note(text: str) -> bool:
    """Whether a note of a run is one on how a model computed."""
    return HERE in text


def kept() -> list[Mode]:
    """How each model that was checked on this machine computes."""
    return [Mode(**value) for value in record.named(f"independence {VERSION} ")]


def checked(model: Model) -> Mode:
    """The first of the modes `TRIED` that holds for the items checked."""
    for mode in TRIED:
        model.mode = mode
        if _holds(model):
            return mode
    return Mode("one", one_thread=True, repeatable=False)


def _holds(model: Model) -> bool:
    """Whether the items checked come out alike twice, alone, together and beside others, with one thread and with all."""
    many = 1 if model.mode.one_thread else max(2, threads())
    alone = _alone(model, many)
    if not all(alone):
        raise ValueError("a model gave nothing for a sample item, so that there is nothing to compare")
    if model.mode.batches == "one":
        return _alone(model, 1) == alone
    looks = ((_together, many), (_beside_others, many), (_in_large_batches, many), (_alone, 1), (_together, 1))
    return all(look(model, n) == alone for look, n in looks)


def _alone(model: Model, n: int) -> list[bytes]:
    """The bits of the items checked, each computed alone with n threads."""
    with fingerprint.torch_threads(n):
        return [model.bits([item])[0] for item in range(ITEMS)]


def _together(model: Model, n: int) -> list[bytes]:
    """The bits of the items checked, computed in one pass with n threads."""
    with fingerprint.torch_threads(n):
        return model.bits(range(ITEMS))


def _in_large_batches(model: Model, n: int) -> list[bytes]:
    """The bits of the items checked, computed in one pass with copies of them that fill the model's usual batches."""
    with fingerprint.torch_threads(n):
        return model.bits(list(range(ITEMS)) * model.copies)[:ITEMS]


def _beside_others(model: Model, n: int) -> list[bytes]:
    """The bits of the items checked, computed backwards, each behind an item that is not checked, with n threads.

    In two passes of 11 and 5, since libraries treat the last rows of an odd number of rows differently.
    """
    numbers = [number for item in reversed(range(ITEMS)) for number in (ITEMS + item % NEIGHBOURS, item)]
    with fingerprint.torch_threads(n):
        return (model.bits(numbers[:11]) + model.bits(numbers[11:]))[::-2]
