"""Files between the driver and the nodes, in pieces that fit into memory; each artifact is checked against its manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.store.store import MANIFEST, read_manifest

PIECE = 16 * 2**20  # bytes


class Depot:
    """Gives the files of a store's artifacts to nodes; runs beside the driver, and reads only."""

    def __init__(self, store: str) -> None:
        self.artifacts = Path(store) / "artifacts"

    def piece(self, stage: str, key: str, name: str, start: int) -> bytes:
        """Bytes of a file of an artifact, at most `PIECE` of them.

        Args:
            stage: the stage's name.
            key: the stage's key.
            name: of the file, in the artifact's folder.
            start: first byte.
        """
        return piece(self.artifacts / stage / key, name, start)


def piece(folder: Path, name: str, start: int) -> bytes:
    """Bytes of a file from `start`, at most `PIECE` of them.

    Raises:
        InputError: the file lies elsewhere.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"{name!r} is no file of {folder}")
    with path.open("rb") as file:
        file.seek(start)
        return file.read(PIECE)


def fetch(folder: Path, name: str, size: int, read: Callable[[str, int], bytes]) -> None:
    """Writes a file of known size from its pieces.

    Args:
        folder: where it goes.
        name: of the file, in that folder.
        size: in bytes.
        read: gives the piece of a file that begins at a byte.

    Raises:
        InputError: the file ends early, or lies elsewhere.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"{name!r} is no file of {folder}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while file.tell() < size:
            part = read(name, file.tell())
            if not part:
                raise InputError(f"{name} ended after {file.tell()} of {size} bytes")
            file.write(part)


def fetch_artifact(folder: Path, read: Callable[[str, int], bytes]) -> dict[str, Any]:
    """Writes all files of an artifact and gives its manifest.

    Args:
        folder: an empty one.
        read: gives the piece of a file that begins at a byte.
    """
    (folder / MANIFEST).write_bytes(_whole(read))
    manifest = read_manifest(folder)
    for name, known in manifest["files"].items():
        fetch(folder, name, known["bytes"], read)
    return manifest


def _whole(read: Callable[[str, int], bytes]) -> bytes:
    found = b""
    while part := read(MANIFEST, len(found)):
        found += part
    return found
