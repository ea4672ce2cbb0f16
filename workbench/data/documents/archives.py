"""Zip archives with documents in them, opened only where what is in them is as large as allowed."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.data.documents.forms import NOT_ITS_NAME
from workbench.data.documents.parser import Unpacking, UnreadError

ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
ENTITIES = re.compile(rb"<!(DOCTYPE|ENTITY)", re.IGNORECASE)
OLE_SAID = "it is of the format before 2007, which is not read; save it in the newer one"


@contextmanager
def opened(path: Path, limits: Unpacking) -> Iterator[zipfile.ZipFile]:
    """An archive whose parts are within the limits.

    Args:
        path: the archive.
        limits: how many bytes its parts may have together.

    Raises:
        UnreadError: it is cut off, encrypted, or too large when unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, limits)
            yield archive
    except zipfile.BadZipFile as error:
        raise UnreadError("truncated", f"it is no whole archive ({error}); fetch it again") from error
    except (zipfile.LargeZipFile, NotImplementedError) as error:
        raise UnreadError("damaged", f"it is packed in a way that is not read ({error})") from error


def _check(archive: zipfile.ZipFile, limits: Unpacking) -> None:
    parts = archive.infolist()
    # reading stops at the size that is declared, so a false declaration unpacks no more
    size = sum(part.file_size for part in parts)
    if size > limits.unpacked:
        raise UnreadError(
            "too large", f"unpacked it has {size:,} bytes; allowed: {limits.unpacked:,} (dataset.limits.unpacked_mb)"
        )
    if any(part.flag_bits & 1 for part in parts):
        raise UnreadError("encrypted", "parts of it are encrypted; save it without a password")


def part(archive: zipfile.ZipFile, name: str) -> bytes:
    """A part of an archive.

    Raises:
        UnreadError: it is missing.
    """
    try:
        return archive.read(name)
    except KeyError as error:
        raise UnreadError(NOT_ITS_NAME, f"it is an archive without the part {name!r}") from error


def check_no_ole(path: Path) -> None:
    """Refuses Office files that are encrypted or of the older format, neither of which is an archive.

    Raises:
        UnreadError: it is one.
    """
    with path.open("rb") as file:
        if not file.read(8).startswith(b"\xd0\xcf\x11\xe0"):
            return
        encrypted = ENCRYPTED_PACKAGE in file.read()
    if encrypted:
        raise UnreadError("encrypted", "it opens with a password only; save it without one")
    raise UnreadError(NOT_ITS_NAME, OLE_SAID)


def check_no_entities(archive: zipfile.ZipFile) -> None:
    """Refuses XML that defines entities: none of these formats needs them, and a few lines of them can fill a memory.

    Raises:
        UnreadError: a part defines some.
    """
    for info in archive.infolist():
        if info.filename.endswith((".xml", ".rels")) and ENTITIES.search(archive.read(info)[:4096]):
            raise UnreadError("damaged", f"its part {info.filename!r} defines entities, which no such file needs")
