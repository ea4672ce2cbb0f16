"""What a stage is: a pure step whose output is stored under the digest of everything that defines it.

A stage's key covers its name and version, its settings with the versions of components and libraries, the kind of
arithmetic where models compute, the digests of sources it reads, and the *keys* of the stages it reads. Keys never
depend on computed output, so all of them are known before anything runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from workbench.component import digest
from workbench.store.session import Session

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Work:
    """What computing a stage takes, as far as it is known beforehand; an upper bound.

    Items that other stages or runs share are counted for each stage.

    Attributes:
        kind: which rate of the machine applies to the units; empty: it takes next to no time.
        units: how much there is of that kind: texts, pairs or tokens.
        tokens: how many tokens language models and trainings read and write.
        money: what servers take for it at the stated price; 0 where none is stated.
        pool: name of the items that it shares with other stages of the same pool, as far as they ask for the same; empty: none.
    """

    kind: str = ""
    units: int = 0
    tokens: int = 0
    money: float = 0.0
    pool: str = ""


class Stage(Generic[T_co]):
    """Base of all stages; what a stage reads is a `T_co`. Subclasses are frozen dataclasses of components and stages.

    Class attributes:
        name: of the kind of stage.
        version: raised when the meaning of its output changes.
        whole: whether computing it is one piece of work that makes no items: another process can do it alone.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    whole: ClassVar[bool] = False

    def inputs(self) -> tuple[Stage[object], ...]:
        """Stages whose artifacts this one reads."""
        return ()

    def settings(self) -> dict[str, Any]:
        """What defines the output beside the inputs: component definitions, digests of sources, arithmetic."""
        raise NotImplementedError

    @cached_property
    def definition(self) -> dict[str, Any]:
        """All that goes into the key."""
        keys = [stage.key for stage in self.inputs()]
        return {"stage": self.name, "version": self.version, "settings": self.settings(), "inputs": keys}

    @cached_property
    def key(self) -> str:
        """Digest of `definition`, 64 hexadecimal characters."""
        return digest(self.definition)

    def work(self, session: Session) -> Work:
        """What computing it takes; tells without computing anything."""
        return Work()

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        """Writes the artifact's files into an empty folder; returns facts on the work, e.g. tokens."""
        raise NotImplementedError

    def read(self, folder: Path, session: Session) -> T_co:
        """The artifact in memory (or memory-mapped)."""
        raise NotImplementedError
