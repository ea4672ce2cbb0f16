"""What was said before a question: the turns of a conversation, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from workbench.data.readers.json_lines import parsed
from workbench.data.readers.text import check_writable, composed, whole
from workbench.errors import InputError, unknown

ROLES = ("user", "assistant")
FORM = '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'


class Turn(NamedTuple):
    """What one side said."""

    role: str
    content: str


History = tuple[Turn, ...]


def read_history(value: Any, where: str) -> History:
    """A conversation from plain values, oldest turn first; none for null and for an empty list.

    Args:
        value: a list of ``{"role": "user" or "assistant", "content": text}``, or of `Turn`.
        where: what messages call it.

    Raises:
        InputError: anything else, with the number of the turn.
    """
    if value is not None and not isinstance(value, (list, tuple)):
        raise InputError(f"{where}: received {type(value).__name__}; allowed: {FORM}")
    return tuple(_turn(turn, f"{where}, turn {number}") for number, turn in enumerate(value or (), 1))


def read_history_file(path: Path) -> History:
    """A conversation from a JSON file.

    Raises:
        InputError: no such file, no JSON, or no conversation.
    """
    try:
        value = parsed(whole(path), f"history {path}")
    except InputError as error:
        raise InputError(f"{error}; allowed: {FORM}") from error
    if value is None:
        raise InputError(f"history {path}: received null; allowed: {FORM}")
    return read_history(value, f"history {path}")


def _turn(value: Any, where: str) -> Turn:
    row = value._asdict() if isinstance(value, Turn) else value
    if not isinstance(row, dict):
        raise InputError(f"{where}: received {type(row).__name__}; allowed: an object with the keys {', '.join(Turn._fields)}")
    for key in row:
        if key not in Turn._fields:
            raise InputError(f"{where}: {unknown('key', str(key), Turn._fields)}")
    for key in Turn._fields:
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise InputError(f"{where}: {key!r} is missing, empty or no text (received {row.get(key)!r})")
    if row["role"] not in ROLES:
        raise InputError(f"{where}: {unknown('role', row['role'], ROLES)}")
    check_writable(row["content"], where)
    return Turn(row["role"], composed(row["content"]))
