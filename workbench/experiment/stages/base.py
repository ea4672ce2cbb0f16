"""What every stage is."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.component import digest

if TYPE_CHECKING:
    from workbench.experiment.session import Session


class Stage:
    """Base of all stages. Subclasses are frozen dataclasses of components and of the stages they read."""

    name: ClassVar[str]
    version: ClassVar[int] = 1

    def inputs(self) -> tuple[Stage, ...]:
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

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        """Writes the artifact's files into an empty folder; returns facts on the work, e.g. tokens."""
        raise NotImplementedError

    def read(self, folder: Path, session: Session) -> Any:
        """The artifact in memory (or memory-mapped)."""
        raise NotImplementedError
