"""What lies in a folder of documents: its files, and what is not looked into."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from workbench.data.readers.text import counted, few
from workbench.errors import InputError

HIDDEN = (".", "~$")  # how names of hidden files begin, and of those by which Office says that a document is open
ELSEWHERE = ".icloud"


class Listed(NamedTuple):
    """What lies in a folder and in the folders in it.

    Attributes:
        files: path from the folder, parted by ``/`` -> the file, sorted; hidden files are not among them.
        strange: what is neither a file nor a folder, such as a socket.
        notes: what was left out, a sentence each.
    """

    files: dict[str, Path]
    strange: tuple[str, ...]
    notes: tuple[str, ...]


def listed(folder: Path) -> Listed:
    """The files of a folder. Links to files are followed, those to folders, which may lead in a circle, are not.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        said = "is a file; name the folder that it is in" if folder.exists() else "does not exist"
        raise InputError(f"document folder {folder} {said}")
    closed: list[str] = []
    paths = list(_walk(folder, closed))
    visible = [path for path in paths if not any(part.startswith(HIDDEN) for part in path.relative_to(folder).parts)]
    files = {_name(path, folder): path for path in visible if path.is_file()}
    links = [_name(path, folder) for path in visible if path.is_symlink() and not path.is_file()]
    strange = [_name(path, folder) for path in visible if not path.is_symlink() and not path.is_file()]
    hidden = sum(path.is_file() for path in paths) - len(files)
    notes = [f"{counted(hidden, 'hidden file')} left out"] if hidden else []
    if absent := [_name(path, folder) for path in paths if path.name.startswith(".") and path.suffix == ELSEWHERE]:
        stand = "stands for a file that is" if len(absent) == 1 else "stand for files that are"
        notes.append(f"{len(absent)} of them {stand} in iCloud alone; fetch first: {few(absent)}")
    if links:
        one = "left out, which leads to a folder or to nothing; copy what it leads to into the folder"
        several = "left out, which lead to folders or to nothing; copy what they lead to into the folder"
        notes.append(f"{counted(len(links), 'link', one, several)}: {few(links)}")
    if closed:
        which = "it" if len(closed) == 1 else "them"
        notes.append(f"{counted(len(closed), 'folder')} cannot be opened, nothing in {which} is read: {few(sorted(closed))}")
    return Listed(files, tuple(strange), tuple(notes))


def _walk(folder: Path, closed: list[str]) -> Sequence[Path]:
    """Everything in a folder but the folders, sorted; links to folders included."""

    def note(error: OSError) -> None:
        closed.append(shown(_name(Path(error.filename), folder)))

    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=note):
        found += [Path(place) / name for name in names]
        found += [path for path in (Path(place) / name for name in folders) if path.is_symlink()]
    return sorted(found)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def shown(name: str) -> str:
    """A name as it can be written in a line: bytes that are no text, and what cannot be seen or turns the line, as escapes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)
