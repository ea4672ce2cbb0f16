"""Folders of a node's process on its own disk, which are removed when it leaves, or by the next one where it was killed."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from workbench import hardware

PREFIX = "workbench-node-"


def folder(what: str) -> Path:
    """A new empty folder of this process.

    Args:
        what: lies in it, a part of its name.
    """
    _removed_at_exit()
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-{what}-"))


def remove() -> None:
    """Removes the folders of this process."""
    for one in _of(os.getpid()):
        shutil.rmtree(one, ignore_errors=True)


def remove_left_behind() -> None:
    """Removes the folders of processes on this machine that were killed."""
    for one in _all():
        owner = _owner(one)
        if owner is not None and not hardware.alive(owner):
            shutil.rmtree(one, ignore_errors=True)


@cache
def _removed_at_exit() -> None:
    atexit.register(remove)


def _of(process: int) -> list[Path]:
    return [one for one in _all() if _owner(one) == process]


def _all() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


def _owner(one: Path) -> int | None:
    owner = one.name.removeprefix(PREFIX).split("-")[0]
    return int(owner) if owner.isdigit() else None
