"""The store: what stages computed, found by the digest of everything that went into it.

    <runs>/.store/artifacts/<stage>/<key>/   files of one artifact, manifest.json written last
                  items.sqlite               embeddings, pair scores and answers, one by one
                  work/<key>/                where a long stage left off (checkpoints)
                  tmp/<pid>-*/               artifacts being written
                  locks/<key>.lock

An artifact is complete or absent: it is written to a temporary folder and moved into place by one rename.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from workbench import hardware
from workbench.component import digest, file_digest
from workbench.errors import InputError
from workbench.store.items import Items

MANIFEST = "manifest.json"
# how libraries say that a disk, a quota or the largest size of a file is reached: Rust's by number, torch by what it misses
FULL = (
    "disk is full",
    "No space left",
    "(os error 27)",
    "(os error 28)",
    "(os error 122)",
    "unexpected pos",
    "failed writing file",
)
FULL_SQLITE = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_TRUNCATE", "SQLITE_IOERR_SHMSIZE")
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "lustre", "beegfs", "gpfs", "afs", "ceph", "9p"}


@dataclass(frozen=True)
class Damage:
    """An artifact whose files are not what its manifest says."""

    stage: str
    key: str
    reason: str


class BusyError(RuntimeError):
    """Another process computes what was to be written."""


class Store:
    """Artifacts and items under one folder; several processes may use it at once.

    One in a folder that cannot be written gives what is in it, and keeps new items in memory.

    Attributes:
        folder: where it lies.
        read_only: whether nothing can be written there.
        items: the table of items.
        damaged: artifacts that were found damaged.
        used: stages and keys of the artifacts that were asked for and found whole, or made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        refuse_network(self.folder)
        self.read_only = _only_readable(self.folder)
        if not self.read_only:
            try:
                for name in ("artifacts", "work", "tmp", "locks"):
                    (self.folder / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                said = f"the store {self.folder} cannot be made ({error.strerror}); name a folder that can be written with --runs"
                raise InputError(said) from error
        self.items = Items(self.folder / "items.sqlite", self.read_only)
        self.damaged: list[Damage] = []
        self.used: set[tuple[str, str]] = set()
        if not self.read_only:
            self._sweep()

    def path(self, stage: str, key: str) -> Path:
        """Where an artifact lies, whether it is there or not."""
        return self.folder / "artifacts" / stage / key

    def work(self, key: str) -> Path:
        """Folder for what a long stage keeps between attempts; removed when its artifact is complete."""
        folder = self.folder / "work" / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def has(self, stage: str, key: str) -> bool:
        """Whether an artifact is there and whole. A damaged one is removed, and named in `damaged`."""
        folder = self.path(stage, key)
        if not folder.is_dir():
            return False
        if (stage, key) in self.used:
            return True
        if reason := damage(folder):
            self.damaged.append(Damage(stage, key, reason))
            if not self.read_only:
                self._remove(folder)
            return False
        self.used.add((stage, key))
        return True

    def manifest(self, stage: str, key: str) -> dict[str, Any]:
        """An artifact's manifest: its definition, files and the seconds it took.

        Raises:
            InputError: it is damaged.
        """
        try:
            return read_manifest(self.path(stage, key))
        except InputError as error:
            raise InputError(
                f"{stage} {key[:12]} in the store {self.folder} is damaged: {error}; the next run that needs it computes it again"
            ) from error

    def refuse_read_only(self) -> None:
        """Raises an `InputError` where nothing can be written."""
        if self.read_only:
            raise InputError(f"the store {self.folder} cannot be written; name a folder that can with --runs")

    def lock(self, name: str) -> AbstractContextManager[object]:
        """Held by one process at a time; where nothing can be written, nobody waits for anybody."""
        return contextlib.nullcontext() if self.read_only else FileLock(self.folder / "locks" / f"{name}.lock")

    def create(
        self,
        stage: str,
        key: str,
        definition: dict[str, Any],
        compute: Callable[[Path], dict[str, Any] | None],
        waiting: bool = True,
    ) -> bool:
        """Computes an artifact unless it is there.

        Args:
            stage: the stage's name.
            key: the stage's key.
            definition: what the key is the digest of; kept in the manifest.
            compute: writes the artifact's files into the empty folder it is given, and may return facts about the
                work (such as tokens) for the manifest.
            waiting: whether another process that computes it is waited for; else both compute it, and the first one's is kept.

        Returns:
            Whether it was computed here. False: it was there, or another process was faster.

        Raises:
            InputError: it is not there, and the store cannot be written.
        """
        if self.read_only:
            raise InputError(
                f"{stage} {key[:12]} is not in the store {self.folder}, which cannot be written; copy the folder of runs to a "
                f"place that can, and name it there"
            )
        with self.lock(key) if waiting else contextlib.nullcontext():
            if self.has(stage, key):
                return False
            with self.temporary() as folder:
                started = time.monotonic()
                facts = compute(folder) or {}
                seconds = round(time.monotonic() - started, 3)
                _seal(folder, {"stage": stage, "key": key, "definition": definition, "seconds": seconds, "facts": facts})
                with contextlib.nullcontext() if waiting else self.lock(key):
                    if not waiting and self.has(stage, key):
                        return False
                    self._place(folder, stage, key)
            shutil.rmtree(self.folder / "work" / key, ignore_errors=True)
        return True

    def adopt(self, stage: str, key: str, fill: Callable[[Path], None]) -> bool:
        """Takes over an artifact that was made elsewhere, with its manifest; one that is there stays.

        Args:
            stage: the stage's name.
            key: the stage's key.
            fill: writes the artifact's files and its manifest into the empty folder it is given.

        Returns:
            Whether it was taken over. False: it was there.

        Raises:
            InputError: the files are not what the manifest says, or the manifest is that of another artifact.
            BusyError: another process computes it now.
        """
        if self.has(stage, key):
            return False
        with self.temporary() as folder:
            fill(folder)
            if reason := foreign(folder, stage, key) or damage(folder):
                raise InputError(reason)
            with self._at_once(key):
                if self.has(stage, key):
                    return False
                self._place(folder, stage, key)
        return True

    @contextlib.contextmanager
    def temporary(self) -> Iterator[Path]:
        """An empty folder of this process on the store's disk, removed at the end."""
        folder = self.aside()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def aside(self) -> Path:
        """An empty folder of this process on the store's disk, which is removed after the process has ended."""
        return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self.folder / "tmp"))

    @contextlib.contextmanager
    def _at_once(self, key: str) -> Iterator[None]:
        """Holds the lock of an artifact.

        Raises:
            BusyError: another process holds it.
        """
        try:
            held = FileLock(self.folder / "locks" / f"{key}.lock").acquire(timeout=0)
        except Timeout as error:
            raise BusyError(f"{key[:12]} is being computed here by another process") from error
        with held:
            yield

    def _place(self, made: Path, stage: str, key: str) -> None:
        """Moves a complete artifact to where it belongs."""
        folder = self.path(stage, key)
        folder.parent.mkdir(exist_ok=True)
        made.rename(folder)
        self.used.add((stage, key))

    def _remove(self, folder: Path) -> None:
        """Takes an artifact away in one rename, so that nobody sees half of it."""
        grave = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self.folder / "tmp"))
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            folder.rename(grave / "removed")
        shutil.rmtree(grave, ignore_errors=True)

    def _sweep(self) -> None:
        """Removes what killed processes left half-written."""
        for folder in (self.folder / "tmp").iterdir():
            owner = folder.name.split("-")[0]
            if owner.isdigit() and not hardware.alive(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)


def _only_readable(folder: Path) -> bool:
    """Whether a store is there, and nothing can be written into it."""
    parts = [folder, *(folder / name for name in ("artifacts", "work", "tmp", "locks", "items.sqlite"))]
    return folder.is_dir() and not all(os.access(part, os.W_OK) for part in parts if part.exists())


def _seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest, with size and digest of every file, after them."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    with (folder / MANIFEST).open("w") as file:
        json.dump(manifest | {"files": files}, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact.

    Raises:
        InputError: it cannot be read, or has another form.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{MANIFEST} cannot be read ({type(error).__name__})") from error
    wanted: dict[str, type | tuple[type, ...]] = {
        "stage": str,
        "key": str,
        "definition": dict,
        "seconds": (int, float),
        "facts": dict,
        "files": dict,
    }
    if not isinstance(manifest, dict) or any(not isinstance(manifest.get(key), kind) for key, kind in wanted.items()):
        raise InputError(f"{MANIFEST} has another form than an artifact's: {', '.join(wanted)} are needed")
    if any(not isinstance(one, dict) or {"bytes", "sha256"} - one.keys() for one in manifest["files"].values()):
        raise InputError(f"{MANIFEST} has another form than an artifact's: bytes and sha256 of every file are needed")
    return manifest


def foreign(folder: Path, stage: str, key: str) -> str | None:
    """Why a manifest is not that of an artifact of this stage and key, or None. Its key is the digest of its definition."""
    try:
        manifest = read_manifest(folder)
    except InputError as error:
        return str(error)
    if (manifest["stage"], manifest["key"]) != (stage, key):
        return f"{MANIFEST} is that of {manifest['stage']} {manifest['key'][:12]}"
    if _digest_of(manifest["definition"]) != key:
        return f"{MANIFEST} has another definition than the key is the digest of"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if further := sorted(there - manifest["files"].keys() - {MANIFEST}):
        return f"{MANIFEST} does not name {further[0]}"
    if absent := sorted(manifest["files"].keys() - there):  # what lies elsewhere is no part of it, whatever its digest
        return f"{absent[0]} is missing"
    return None


def _digest_of(definition: dict[str, Any]) -> str | None:
    """The key of a definition; None where it holds what no definition does, such as a number that is none."""
    try:
        return digest(definition)
    except (ValueError, RecursionError):
        return None


def damage(folder: Path) -> str | None:
    """What is wrong with an artifact's files, or None."""
    try:
        manifest = read_manifest(folder)
    except InputError as error:
        return str(error)
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
        if file_digest(path) != expected["sha256"]:
            return f"{name} has other content than when it was written"
    return None


def refuse_network(folder: Path) -> None:
    """Refuses a folder on a network file system, where SQLite's log and file locks are not safe.

    Raises:
        InputError: naming the file system and the way out.
    """
    kind = file_system(folder.resolve())
    if kind in NETWORK_FILE_SYSTEMS:
        raise InputError(
            f"{folder} lies on a network file system ({kind}), where locks are unsafe; choose a local folder with --runs"
        )


def file_system(folder: Path) -> str:
    """Type of the file system a path lies on, as the kernel names it; empty where that is not known."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    inside = [(point, kind) for point, kind in mounts if folder.is_relative_to(point.replace("\\040", " "))]
    return max(inside, key=lambda mount: len(mount[0]), default=("", ""))[1]


def disk_full(error: BaseException | None) -> bool:
    """Whether an error says that no more can be written: disk, quota or file size limit."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(sign in str(error) for sign in FULL) or getattr(error, "sqlite_errorname", "") in FULL_SQLITE:
            return True
        error = error.__cause__ or error.__context__
    return False
