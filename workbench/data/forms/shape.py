"""The columns of rows, with those inside of objects and lists: ``answers.text`` of ``{"answers": {"text": [...]}}``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

DEEPEST = 4  # names of a path
LOOKED_AT = 200  # rows; forms do not change further down


def columns(rows: Iterable[Any]) -> set[str]:
    """The paths of all columns of the first rows.

    An object has the paths ``name``, ``name{}`` and those of its keys behind a dot; a list ``name``, ``name[]`` and those of the
    objects in it, ``name[].key``.
    """
    found: set[str] = set()
    for number, row in enumerate(rows):
        if number == LOOKED_AT:
            break
        if isinstance(row, dict):
            found.update(_paths(row, "", DEEPEST))
    return found


def _paths(row: dict[str, Any], before: str, depth: int) -> Iterator[str]:
    for key, value in row.items():
        path = f"{before}{key}"
        yield path
        if depth == 1:
            continue
        if isinstance(value, dict):
            yield f"{path}{{}}"
            yield from _paths(value, f"{path}.", depth - 1)
        elif isinstance(value, list):
            yield f"{path}[]"
            for one in value[:LOOKED_AT]:
                if isinstance(one, dict):
                    yield from _paths(one, f"{path}[].", depth - 1)


def listed(value: Any) -> list[dict[str, Any]]:
    """A list of objects, which tables of the hub keep as an object of lists of one length: ``{"a": [1, 2]}``."""
    if isinstance(value, dict):
        length = max((len(one) for one in value.values() if isinstance(one, list)), default=0)
        return [{key: one[n] for key, one in value.items() if isinstance(one, list) and n < len(one)} for n in range(length)]
    return [one for one in value or () if isinstance(one, dict)]
