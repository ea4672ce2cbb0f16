"""Taking over what another store holds: artifacts and items, each after its digests were checked.

Nothing that is here is overwritten, and nothing of the other store is changed. What was taken over stays where the process is
ended, so the same call comes to the same.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from workbench.errors import InputError
from workbench.store.items import Items, Row
from workbench.store.progress import Progress
from workbench.store.store import BusyError, Damage, Store, disk_full

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
    """Copies the files of an artifact; whether somebody may write them there says nothing of the copies.

    Raises:
        InputError: one cannot be read.
    """
    for path in sorted(source.rglob("*")):
        if not path.is_file():  # folders follow from their files; what is no file fits no manifest
            continue
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, copy)
        except OSError as error:
            if disk_full(error) or str(error.filename) != str(path):
                raise
            raise InputError(f"{path.relative_to(source)} cannot be read ({error.strerror})") from error


def _items(store: Store, other: Path, merged: Merged, progress: Progress) -> None:
    path, broken = other / "items.sqlite", 0
    if not path.exists():
        return
    theirs = Items(path, read_only=True)
    with progress.task("taking over items", _count(theirs)) as report:
        for rows in _rows(theirs, merged):
            whole = [row for row in rows if row.whole]
            broken += len(rows) - len(whole)
            taken = store.items.take(whole)
            merged.items += taken.new
            merged.differing += taken.differing
            report(len(rows))
    if broken:
        merged.damaged.append(Damage(ITEMS, "-", f"{broken} items do not fit their checksum"))


def _count(theirs: Items) -> int:
    """How many items another table has; 0 where it cannot be read, which is said when its rows are."""
    try:
        return theirs.count()
    except (InputError, sqlite3.DatabaseError):
        return 0


def _rows(theirs: Items, merged: Merged) -> Iterator[list[Row]]:
    """The rows of another table up to where it is damaged, which is noted."""
    try:
        yield from theirs.rows()
    except (InputError, sqlite3.DatabaseError) as error:
        merged.damaged.append(Damage(ITEMS, "-", str(error)))


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
