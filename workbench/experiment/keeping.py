"""Looking after a store: what is kept, why, how large; checking it; removing what no finished run points to."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.data.readers import json_lines
from workbench.data.readers.text import whole
from workbench.errors import InputError, unknown
from workbench.results.run import finished
from workbench.store.store import MANIFEST, Store, damage, read_manifest

DAY = 86_400


@dataclass(frozen=True)
class Kept:
    """One artifact: its stage and key, folder, bytes, seconds it took, age in days, and the finished runs that point to it."""

    stage: str
    key: str
    folder: Path
    bytes: int
    seconds: float
    days: float
    runs: tuple[str, ...]


def kept(store: Store, runs: Path) -> list[Kept]:
    """All artifacts of a store, largest first.

    Args:
        store: the store.
        runs: folder of the runs that may point to them.
    """
    pointing = pointers(runs)
    found = []
    for folder in sorted((store.folder / "artifacts").glob("*/*")):
        try:
            manifest, written = read_manifest(folder), (folder / MANIFEST).stat().st_mtime
        except InputError:
            manifest, written = {"seconds": 0.0}, folder.stat().st_mtime
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        days = max(0.0, time.time() - written) / DAY
        used = tuple(sorted(pointing.get(folder.name, ())))
        found.append(Kept(folder.parent.name, folder.name, folder, size, manifest["seconds"], days, used))
    return sorted(found, key=lambda k: (-k.bytes, k.stage, k.key))


def pointers(runs: Path) -> dict[str, set[str]]:
    """Key -> finished runs whose plan holds it.

    Raises:
        InputError: the plan of a run cannot be read.
    """
    found: dict[str, set[str]] = {}
    for folder in finished(runs):
        path = folder / "plan.json"
        try:
            keys = [stage["key"] for stage in json_lines.parsed(whole(path), str(path))["stages"]]
        except (InputError, LookupError, TypeError) as error:
            why = error if isinstance(error, InputError) else f"{path} has another form than a run's plan"
            raise InputError(
                f"{why}, so what {folder} needs of the store is not known; remove that folder, or move it out of {runs}"
            ) from error
        for key in keys:
            found.setdefault(key, set()).add(f"{folder.parent.name}/{folder.name}")
    return found


def find(store: Store, key: str) -> tuple[str, str]:
    """Stage and key of the artifact whose key begins so.

    Raises:
        InputError: none or several do.
    """
    fitting = sorted(folder for folder in (store.folder / "artifacts").glob(f"*/{key}*"))
    if len(fitting) != 1:
        everything = [f"{f.name[:12]} ({f.parent.name})" for f in (store.folder / "artifacts").glob("*/*")]
        raise unknown("key" if not fitting else f"key ({len(fitting)} artifacts begin so)", key, everything)
    return fitting[0].parent.name, fitting[0].name


def verify(store: Store) -> list[tuple[str, str, str]]:
    """(stage, key, what is wrong) of every damaged artifact, all digests computed anew; damaged items as stage ``items``."""
    broken = []
    for folder in sorted((store.folder / "artifacts").glob("*/*")):
        if reason := damage(folder):
            broken.append((folder.parent.name, folder.name, reason))
    try:
        if n := store.items.damaged():
            broken.append(("items", "-", f"{n} items do not fit their checksum; they count as absent and are computed again"))
    except InputError as error:
        broken.append(("items", "-", str(error)))
    return broken


def collect(
    store: Store, runs: Path, keep_days: float | None = None, max_gb: float | None = None, pointed: bool = False
) -> list[Kept]:
    """Removes artifacts; returns those removed.

    Args:
        store: the store.
        runs: folder of runs; what a finished one points to stays.
        keep_days: younger artifacts stay.
        max_gb: remove the oldest only until the artifacts take no more than so many GB (10^9 bytes).
        pointed: also remove what finished runs point to.

    Raises:
        InputError: neither limit is given, or a negative one.
    """
    if keep_days is None and max_gb is None:
        raise InputError("gc needs a limit: --keep-days N, --max-gb N, or both")
    store.refuse_read_only()
    if not (keep_days or 0) >= 0 or not (max_gb or 0) >= 0:  # nan is neither
        raise InputError(f"gc: received --keep-days {keep_days}, --max-gb {max_gb}; allowed: numbers from 0")
    everything = kept(store, runs)
    total = sum(one.bytes for one in everything)
    removed = []
    for one in sorted(everything, key=lambda k: -k.days):
        free = pointed or not one.runs
        old = keep_days is None or one.days >= keep_days
        full = max_gb is None or total > max_gb * 1e9
        if free and old and full:
            shutil.rmtree(one.folder)
            total -= one.bytes
            removed.append(one)
    return removed


def summary(store: Store, artifacts: list[Kept]) -> dict[str, Any]:
    """Artifacts, their GB, and the GB of the items."""
    items = sum(path.stat().st_size for path in store.folder.glob("items.sqlite*"))
    return {"artifacts": len(artifacts), "gb": sum(k.bytes for k in artifacts) / 1e9, "items_gb": items / 1e9}
