"""Files -> documents: what is kept is taken, the rest is read in processes of its own, and what cannot be read is listed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

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
    endings = {name: Path(name).suffix.lower().lstrip(".") for name in files}
    for ending in dict.fromkeys(endings.values()):
        if choice := parsers.get(ending):
            _check_installed(choice, ending)
    with Reader(limits) as reader:
        for name, path in files.items():
            if choice := parsers.get(endings[name]):
                found[name] = reader.known(name, path, choice)
            else:
                found[name] = Outcome("", _no_parser(endings[name], endings[name] in parsers))
    return {name: one._replace(unread=reader.told.get(one.key, one.unread)) for name, one in found.items()}


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


class Reader:
    """Reads files of which nothing is kept, while the next ones are looked for; leaving the context waits for all of them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._keys: dict[Path, str] = {}
        self._pool = pool.Pool(limits, self._done)
        self.told: dict[str, UnreadError | None] = {}  # key -> why its file cannot be read, or None

    def known(self, name: str, path: Path, choice: Choice) -> Outcome:
        """What is kept of a file; where nothing is, the file is read, and `told` says in the end what became of it.

        Args:
            name: of the file.
            path: the file.
            choice: its parser.
        """
        if SURROGATE.search(name):
            return Outcome("", UnreadError("unnameable", "its name is not UTF-8, so no file could name it; rename it"))
        try:
            content, size = file_digest(path), path.stat().st_size
        except OSError as error:
            return Outcome("", UnreadError("cannot be opened", (error.strerror or str(error)).lower()))
        key = kept.key(content, choice.definition)
        place = kept.place(key)
        if place in self._keys or place.is_file():
            return Outcome(key, None)
        if unread := kept.read_unread(place, self._limits):
            return Outcome(key, unread)
        self._keys[place] = key
        task = pool.Task(path, choice, place, content, size)
        self._read(task)
        return Outcome(key, None)

    def _read(self, task: pool.Task) -> None:
        parser = task.choice.parser
        if type(parser) in HARMLESS and task.size <= SMALL:
            self._done(task, worker.outcome(task.path, parser, self._limits.unpacked_mb, task.into, task.content))
        else:
            self._pool.put(task)

    def _done(self, task: pool.Task, error: UnreadError | None) -> None:
        self.told[self._keys[task.into]] = error
        if error is not None and error.reason != CHANGED:
            kept.write_unread(task.into, error, self._limits)

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.__exit__(kind, error, trace)


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
