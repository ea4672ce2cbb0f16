"""Files -> documents: what is kept is taken, the rest is read in processes of its own, and what cannot be read is listed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from workbench.component import file_digest
from workbench.data.documents import kept, pool, worker
from workbench.data.documents.kinds import ASKED_FOR, WAY_OUT, WHERE, Choice
from workbench.data.documents.limits import Limits
from workbench.data.documents.markdown import Markdown
from workbench.data.documents.parser import UnreadError
from workbench.data.documents.text import PlainText
from workbench.data.readers.text import SURROGATE
from workbench.errors import InputError, MissingExtraError

HARMLESS = (PlainText, Markdown)  # read in this process where they are small: to start another one takes longer
SMALL = 1_000_000  # bytes
CHANGED = "changed"  # the one reason that is not kept


class Outcome(NamedTuple):
    """What became of a file.

    Attributes:
        key: of its content and its parser; empty where it was not looked into.
        unread: why it is not read, or None.
    """

    key: str
    unread: UnreadError | None


def outcomes(files: Mapping[str, Path], parsers: Mapping[str, Choice | None], limits: Limits) -> dict[str, Outcome]:
    """Reads files of which no documents are kept, and says of each what became of it.

    Args:
        files: name -> the file.
        parsers: ending of a name -> the parser, as `workbench.data.documents.kinds.choices` gives them.
        limits: what each file may take.

    Returns:
        Name -> outcome, in the order of `files`.

    Raises:
        InputError: a file needs a package that is not installed.
    """
    found: dict[str, Outcome] = {}
    tasks: dict[str, pool.Task] = {}
    installed: set[str] = set()
    for name, path in files.items():
        ending = Path(name).suffix.lower().lstrip(".")
        choice = parsers.get(ending)
        if choice is None:
            found[name] = Outcome("", _no_parser(ending, ending in parsers))
            continue
        if ending not in installed:
            _check_installed(choice, ending)
            installed.add(ending)
        found[name] = _known(name, path, choice, limits, tasks)
    told = _read(tasks, limits)
    return {name: one._replace(unread=told.get(one.key, one.unread)) for name, one in found.items()}


def _no_parser(ending: str, told: bool) -> UnreadError:
    if told:
        return UnreadError("left out", f"{WHERE} says so")
    if kind := ASKED_FOR.get(ending):
        wanted = kind if kind == "code" else f"{{kind: {kind}, text: COLUMN}}"
        return UnreadError(
            "no parser", f"files in .{ending} are read where the experiment's file says so: {WHERE}: {{{ending}: {wanted}}}"
        )
    if said := WAY_OUT.get(ending):
        return UnreadError("no parser", said)
    if not ending:
        return UnreadError("no parser", "its name has no ending, which would say what reads it; give it one, such as .txt")
    way_out = f"if it is text, write `{{{ending}: text}}` below {WHERE}"
    return UnreadError("no parser", f"its name ends in .{ending}, which no parser reads unless it is named; {way_out}")


def _check_installed(choice: Choice, ending: str) -> None:
    try:
        choice.parser.check_installed()
    except MissingExtraError as error:
        raise InputError(f"{error} Or leave out the files that end in .{ending}: {WHERE}: {{{ending}: none}}") from error


def _known(name: str, path: Path, choice: Choice, limits: Limits, tasks: dict[str, pool.Task]) -> Outcome:
    """What is kept of a file; where nothing is, it is put among the tasks."""
    if SURROGATE.search(name):
        return Outcome("", UnreadError("unnameable", "its name is not UTF-8, so no file could name it; rename it"))
    try:
        content = file_digest(path)
    except OSError as error:
        return Outcome("", UnreadError("cannot be opened", (error.strerror or str(error)).lower()))
    key = kept.key(content, choice.parser)
    place = kept.place(key)
    if place.is_file():
        return Outcome(key, None)
    if unread := kept.read_unread(place, limits):
        return Outcome(key, unread)
    tasks[key] = pool.Task(path, choice, place, content)
    return Outcome(key, None)


def _read(tasks: Mapping[str, pool.Task], limits: Limits) -> dict[str, UnreadError | None]:
    """Reads files; key -> why it cannot be read, or None."""
    told: dict[str, UnreadError | None] = {}
    keys = {task.into: key for key, task in tasks.items()}

    def done(task: pool.Task, error: UnreadError | None) -> None:
        told[keys[task.into]] = error
        if error is not None and error.reason != CHANGED:
            kept.write_unread(task.into, error, limits)

    apart = []
    for task in tasks.values():
        if type(task.choice.parser) in HARMLESS and task.path.stat().st_size <= SMALL:
            done(task, worker.outcome(task.path, task.choice.parser, limits.unpacked_mb, task.into, task.content))
        else:
            apart.append(task)
    if apart:
        pool.read(apart, limits, done)
    return told


def documents(outcome: Outcome) -> list[kept.Read]:
    """The documents of a file that was read.

    Raises:
        InputError: what was kept of it was damaged meanwhile; it is removed, so that the next run reads the file again.
    """
    place = kept.place(outcome.key)
    found = kept.read(place)
    if found is None:
        place.unlink(missing_ok=True)
        raise InputError(f"what was kept of a document, {place}, is damaged and was removed; run the same again")
    return found
