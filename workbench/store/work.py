"""What computes items, so that it can be sent to where it is computed; and a crew: other machines that compute."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from workbench.store.items import ItemKind

T = TypeVar("T")
S_contra = TypeVar("S_contra", contravariant=True)


class ItemWork(ABC, Generic[T]):
    """Computes items of one namespace from their inputs. It can be pickled."""

    @property
    @abstractmethod
    def kind(self) -> ItemKind[T]:
        """What the items are."""

    @property
    def local(self) -> bool:
        """Whether only the process that has the store can compute them, since it asks a server and counts what is spent."""
        return False

    @property
    def alike(self) -> str:
        """What work has in common that computes alike: a machine that gives the same bytes of one is taken to do so of all."""
        return type(self).__name__

    def order(self, text: str) -> Any:
        """What inputs are sorted by before they are divided: those next to each other take least when computed together."""
        return -len(text)

    @property
    @abstractmethod
    def namespace(self) -> str:
        """Digest of everything but the input that decides a value."""

    @abstractmethod
    def computed(self, missing: list[str], session: Any) -> Iterator[list[tuple[int, T]]]:
        """Computes values.

        Args:
            missing: distinct inputs.
            session: has the machine, what was loaded, and the artifacts that are read.

        Yields:
            Batches of (position, value).
        """


class Crew(Protocol[S_contra]):
    """Other machines that compute for a session, which alone writes the store. An `S_contra` is the session."""

    @property
    def label(self) -> str:
        """How many they are, for progress: ``on 2 nodes``."""

    def record(self) -> Any:
        """What each machine computed, as JSON values."""

    def items(self, work: ItemWork[T], missing: list[str], session: S_contra) -> Iterator[list[tuple[int, T]]]:
        """As `ItemWork.computed`, on all machines together; batches come as they are done."""

    def begin(self, stages: Sequence[Any]) -> None:
        """Has whole stages computed, side by side where there are several machines, without waiting for them."""

    def stage(self, stage: Any, folder: Path, session: S_contra) -> dict[str, Any]:
        """Computes a whole stage into a folder; returns its facts. One that was begun is waited for."""
