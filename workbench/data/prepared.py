"""Datasets that were read once: kept as Arrow files under `workbench.weights.home()`, found by the digest of their source."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from workbench.component import file_digest
from workbench.data.dataset import Dataset
from workbench.weights import home

# raised when reading the same source gives another dataset
PREPARATION = 6
WRITTEN = "files.json"  # beside the Arrow files: their digests


def prepared(key: str, read: Callable[[], Dataset]) -> Dataset:
    """The dataset stored under `key`, read and stored first if need be; complete or absent, and read again where damaged."""
    folder = home() / "datasets" / key[:32]
    if not _is_whole(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".reading-"))
        try:
            made = temporary / "made"
            made.mkdir()
            read().save(made)
            (made / WRITTEN).write_text(json.dumps({file.name: file_digest(file) for file in sorted(made.iterdir())}))
            if folder.exists() and not _is_whole(folder):
                folder.rename(temporary / "damaged")
            made.rename(folder)
        except OSError:
            if not _is_whole(folder):  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Dataset.load(folder)


def _is_whole(folder: Path) -> bool:
    """Whether the files of a stored dataset are those that were written."""
    try:
        written = json.loads((folder / WRITTEN).read_text())
        return bool(written) and all(file_digest(folder / name) == digest for name, digest in written.items())
    except (OSError, ValueError, AttributeError):
        return False
