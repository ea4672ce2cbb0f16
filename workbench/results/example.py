"""The recorded run that comes with the package: a run of the quickstart, to look at without computing one."""

from __future__ import annotations

import os
import tempfile
import zipfile
from importlib.resources import files
from pathlib import Path

from workbench.component import file_digest
from workbench.errors import InputError

ARCHIVE = "example.zip"  # beside this file: example/RUN/...


def unpacked() -> Path:
    """The folder of the recorded run, below the cache of the workbench; unpacked the first time, and again when it was changed.

    Raises:
        InputError: it cannot be written there.
    """
    archive = Path(str(files("workbench.results") / ARCHIVE))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rag-workbench" / "example"
    target = cache / file_digest(archive)[:12]
    with zipfile.ZipFile(archive) as packed:
        folder = target / Path(packed.namelist()[0]).parts[0] / Path(packed.namelist()[0]).parts[1]
        if _whole(packed, target):
            return folder
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as there:
                packed.extractall(there)
                for name in packed.namelist():  # file by file, so that two processes at once leave a whole run
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    (Path(there) / name).replace(target / name)
        except OSError as error:
            raise InputError(f"the recorded run cannot be unpacked into {cache}: {error.strerror}; set XDG_CACHE_HOME") from error
    return folder


def _whole(packed: zipfile.ZipFile, target: Path) -> bool:
    """Whether every file is there in its size; what a run's manifest says of them is checked when they are read."""
    there = [(target / one.filename, one.file_size) for one in packed.infolist()]
    return all(path.is_file() and path.stat().st_size == size for path, size in there)
