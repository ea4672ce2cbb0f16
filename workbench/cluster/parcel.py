"""What is sent to a node: a stage or the work on items, with the source of the user's own components.

What a key or a namespace is the digest of is computed again on the node, so that other weights or libraries there are found.
"""

from __future__ import annotations

import pickle
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from workbench.cluster import places
from workbench.component import Source, imported_sources, load_file
from workbench.errors import InputError
from workbench.store.stage import Stage
from workbench.store.store import disk_full
from workbench.store.work import ItemWork


class DifferentError(InputError):
    """What was sent would be computed from something else on this node."""


class Parcel(NamedTuple):
    """Something pickled, the digest it has to have where it is unpacked, and the files of the user's that it needs."""

    content: bytes
    digest: str
    sources: list[Source]


def packed(thing: Stage[Any] | ItemWork[Any]) -> Parcel:
    """A stage or work, ready to be sent.

    Raises:
        InputError: the thing cannot be sent.
    """
    return sealed(thing, _digest(thing))


def sealed(thing: object, known: str) -> Parcel:
    """Anything, ready to be sent.

    Args:
        thing: what is sent.
        known: its digest, which `opened` does not compute again.

    Raises:
        InputError: the thing cannot be sent.
    """
    try:
        content = pickle.dumps(thing)
    except Exception as error:  # what a component of the user's holds raises its own kinds
        name = type(thing).__name__
        raise InputError(f"{name} cannot be sent to other machines ({error}); leave --workers out for this experiment") from error
    # a pickle names the modules of its classes, and the name of a module imported from a file holds the file's digest
    sources = [source for module, source in imported_sources().items() if module.encode() in content]
    return Parcel(content, known, sources)


def unpacked(parcel: Parcel) -> Any:
    """What was packed.

    Raises:
        DifferentError: a file of the user's cannot be imported here, weights are missing, or they or libraries differ from those
            where it was packed.
    """
    try:
        return _unpacked(parcel)
    except DifferentError:
        raise
    except Exception as error:  # whatever a class that is missing here, or a file of the user's, raises
        if disk_full(error):
            raise
        raise DifferentError(f"what was sent cannot be read there: {type(error).__name__}: {error}") from error


def opened(parcel: Parcel) -> Any:
    """What was sealed; whether it is the same here is for the caller to find out."""
    for source in parcel.sources:
        folder = _sources() / source.digest
        folder.mkdir(exist_ok=True)
        (folder / source.name).write_bytes(source.content)
        load_file(source.name, folder)
    return pickle.loads(parcel.content)


def _unpacked(parcel: Parcel) -> Any:
    thing = opened(parcel)
    forget(thing)
    if (found := _digest(thing)) != parcel.digest:
        raise DifferentError(
            f"{type(thing).__name__} is something else there: other weights or versions of libraries decide what it computes "
            f"({found[:12]}, here {parcel.digest[:12]})"
        )
    return thing


@cache
def _sources() -> Path:
    """The folder of files that were sent to this process."""
    return places.folder("sources")


def forget(thing: object) -> None:
    """Drops what an object and the parts of it remember of what defines them; the keys of the stages they read stay."""
    for part in (thing, *vars(thing).values()):
        kept = {"key", "definition"} if isinstance(part, Stage) and part is not thing else set()
        known = {name for cls in type(part).__mro__ for name, value in vars(cls).items() if isinstance(value, cached_property)}
        for name in known - kept:
            getattr(part, "__dict__", {}).pop(name, None)


def _digest(thing: Stage[Any] | ItemWork[Any]) -> str:
    return thing.key if isinstance(thing, Stage) else thing.namespace
