"""Taking over what another store holds: artifacts and items, each after its digests were checked.

Nothing that is here is overwritten, and nothing of the other store is changed. What was taken over stays where the process is
ended, so the same call comes to the same.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from workbench.errors import InputError
from workbench.store.items import Items
from workbench.store.progress import Progress
from workbench.store.store import BusyError, Damage, Store

COLUMNS = ["namespace", "key", "crc", "value"]  # of the table of items
ITEMS = "items"  # what damaged items are called where damage is named


@dataclass
class Merged:
    """What a merge took over.

    Attributes:
        artifacts: that are new here.
        items: likewise.
        found: artifacts that were here already.
        differing: items that are here with another value, which stays.
        busy: artifacts that another process computes here now; they are left to it.
        damaged: what was left out, and why.
    """

    artifacts: int = 0
    items: int = 0
    found: int = 0
    differing: int = 0
    busy: int = 0
    damaged: list[Damage] = field(default_factory=list)


def located(place: Path) -> Path:
    """The folder of a store: the place itself, or ``.store`` in a folder of runs.

    Raises:
        InputError: there is no store, or one of another version.
    """
    found = next((folder for folder in (place / ".store", place) if (folder / "artifacts").is_dir()), None)
    if found is None:
        raise InputError(f"there is no store in {place}; name a folder of runs, or the folder .store in it")
    _refuse_other_versions(found)
    return found


def merge(store: Store, other: Path, progress: Progress | None = None) -> Merged:
    """Takes over what another store holds.

    Args:
        store: takes it.
        other: folder of the other store, as `located` gives it.
        progress: where it is reported; default: nowhere.

    Raises:
        InputError: nothing can be written here, or both are the same store.
    """
    store.refuse_read_only()
    if other.resolve() == store.folder.resolve():
        raise InputError(f"{other} is the store that is to take it over; name another one")
    merged, progress = Merged(), progress or Progress()
    _artifacts(store, other, merged, progress)
    _items(store, other, merged, progress)
    return merged


def _artifacts(store: Store, other: Path, merged: Merged, progress: Progress) -> None:
    folders = sorted(folder for folder in (other / "artifacts").glob("*/*") if folder.is_dir())
    with progress.task("taking over artifacts", len(folders)) as report:
        for folder in folders:
            stage, key = folder.parent.name, folder.name
            try:
                new = store.adopt(stage, key, partial(_copy, folder))
            except BusyError:
                merged.busy += 1
            except InputError as error:
                merged.damaged.append(Damage(stage, key, str(error)))
            else:
                merged.artifacts += new
                merged.found += not new
            report(1)


def _copy(source: Path, folder: Path) -> None:
    with suppress(FileNotFoundError):  # removed meanwhile: the copy lacks files, and is found damaged
        shutil.copytree(source, folder, dirs_exist_ok=True)


def _items(store: Store, other: Path, merged: Merged, progress: Progress) -> None:
    path, broken = other / "items.sqlite", 0
    if not path.is_file():
        return
    try:
        theirs = Items(path, read_only=True)
        with progress.task("taking over items", theirs.count()) as report:
            for rows in theirs.rows():
                whole = [row for row in rows if row.whole]
                broken += len(rows) - len(whole)
                taken = store.items.take(whole)
                merged.items += taken.new
                merged.differing += taken.differing
                report(len(rows))
    except InputError as error:
        if str(store.items.path) in str(error):
            raise
        merged.damaged.append(Damage(ITEMS, "-", str(error)))
    if broken:
        merged.damaged.append(Damage(ITEMS, "-", f"{broken} items do not fit their checksum"))


def _refuse_other_versions(folder: Path) -> None:
    """Refuses a table of items that has another form than this version of the workbench gives it."""
    path = folder / "items.sqlite"
    if not path.is_file():
        return
    try:
        columns = Items(path, read_only=True).columns()
    except (InputError, sqlite3.DatabaseError):
        return  # it is damaged, which is said of the items when they are read
    if columns != COLUMNS:
        raise InputError(
            f"{path} has the columns {', '.join(columns) or '(none)'}; a store of this version of the workbench has "
            f"{', '.join(COLUMNS)}. Merge it with the version that wrote it"
        )
