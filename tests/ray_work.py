"""Work for tests of a cluster, importable on its nodes: what it gives of a text depends on the text alone."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from workbench.component import digest
from workbench.store.items import ItemKind
from workbench.store.session import Session
from workbench.store.work import ItemWork

KIND = ItemKind[str]("digests", "digesting", str.encode, bytes.decode)

PROBE = 8  # items of a probe, which have no trouble


class OwnError(Exception):
    """An error that cannot be made of its text alone, so that no other process can read it."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def raised(trouble: str, folder: Path) -> None:
    """What a component may come to on a node."""
    if trouble == "own":
        raise OwnError("this", "that")
    if trouble == "full" and not (folder / "full").exists():  # the first node alone
        (folder / "full").touch()
        raise OSError(errno.ENOSPC, "No space left on device")


@dataclass(frozen=True)
class Digests(ItemWork[str]):
    """Texts -> digests. It sleeps for each, and waits until so many processes compute, the driver's not counted.

    On a node it comes to some trouble, where that is named."""

    folder: str
    driver: int
    seconds: float = 0.0
    processes: int = 1
    name: str = "digests"
    trouble: str = ""

    @property
    def kind(self) -> ItemKind[str]:
        return KIND

    @property
    def namespace(self) -> str:
        return digest(["digests", self.name])

    def computed(self, missing: list[str], session: Session) -> Iterator[list[tuple[int, str]]]:
        if os.getpid() != self.driver:
            (Path(self.folder) / str(os.getpid())).touch()
            end = time.monotonic() + 60
            while len(list(Path(self.folder).iterdir())) < self.processes and time.monotonic() < end:
                time.sleep(0.1)
            if len(missing) != PROBE:
                raised(self.trouble, Path(self.folder))
        time.sleep(self.seconds * len(missing))
        yield [(i, sha256(text.encode()).hexdigest()) for i, text in enumerate(missing)]
