"""Notebooks, dashboards and example configurations: those of the checkout, or those that the installed package brought along."""

from __future__ import annotations

import shutil
from pathlib import Path

from workbench.errors import InputError

PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """Where the files of one kind lie.

    Args:
        name: ``notebooks``, ``dashboards`` or ``configs``.
    """
    installed = PACKAGE / "shipped_files" / name
    return installed if installed.is_dir() else PACKAGE.parent / name


def copy(name: str, target: Path) -> list[Path]:
    """Copies the files of one kind into a folder, which is made where it is missing; returns the copies.

    Args:
        name: ``notebooks``, ``dashboards`` or ``configs``.
        target: the folder they are written to.

    Raises:
        InputError: a file of that name is there already; then nothing is written.
    """
    sources = sorted(path for path in folder(name).iterdir() if path.suffix in {".ipynb", ".yaml"})
    there = [path.name for path in sources if (target / path.name).exists()]
    if there:
        raise InputError(f"{target} has {', '.join(there)} already; nothing is overwritten: name another folder")
    target.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, target / path.name)) for path in sources]
