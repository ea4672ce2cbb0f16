"""Removing texts: of a person, of a conversation, and of what is older than it may be.

What is removed here is removed from the answers' cache as well; `asked` names it there.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, select

from workbench.data.readers.json_lines import parsed
from workbench.errors import InputError
from workbench.serving.records.database import Database, scrub
from workbench.serving.records.people import User
from workbench.serving.records.tables import (
    answers,
    conversations,
    exports,
    forgotten,
    keys,
    requests,
    spending,
    users,
    votes,
    writers,
)

REMEMBERED_SECONDS = 86_400.0  # for which a transaction's number is known, and services are told what to forget, at least
TOGETHER = 500  # values in a condition


class Erased(NamedTuple):
    """What was removed.

    Attributes:
        requests: how many.
        asked: digests of questions that nobody else asked: the keys of the cache.
        files: exported files, and how many lines of each were removed; None: the file was not there.
        questions: ids of the exported questions, by which runs know them.
    """

    requests: int
    asked: list[str]
    files: dict[Path, int | None] = {}  # noqa: RUF012 - it is only read
    questions: frozenset[str] = frozenset()


def forget(database: Database, user: User, cache: Path) -> Erased:
    """Removes a person: texts, votes, conversations, keys, spending and name, from records, cache and exported files.

    Running services learn of it within seconds. Nothing that was removed can be read in a file afterwards.

    Args:
        database: the records.
        user: who is forgotten.
        cache: file of the answers' cache; there may be none.

    Raises:
        InputError: a file could not be cleaned since another process uses it; `scrub_all` does it later.
    """
    with database.writing() as connection:
        files = _exported(connection, user.id)
        erased = erase(connection, requests.c.user == user.id)
        connection.execute(delete(conversations).where(conversations.c.user == user.id))
        connection.execute(delete(keys).where(keys.c.user == user.id))
        connection.execute(delete(spending).where(spending.c.user == user.id))
        connection.execute(delete(exports).where(exports.c.user == user.id))
        cleaned = {path: _without(path, lines) for path, lines in files.items()}
        forget_cached(cache, erased.asked)
        connection.execute(delete(users).where(users.c.id == user.id))
    scrub_all(database, cache)
    return Erased(erased.requests, erased.asked, cleaned, frozenset(name for lines in files.values() for name in lines))


def scrub_all(database: Database, cache: Path) -> None:
    """Leaves nothing of what was removed in the files of cache and records.

    Raises:
        InputError: another process uses one of them.
    """
    database.close()
    scrub(cache)
    database.scrub()


def erase(connection: Connection, which: ColumnElement[bool]) -> Erased:
    """Removes requests with their votes, and the answers that nobody else got.

    Args:
        connection: of a transaction that writes.
        which: condition on requests.
    """
    found = connection.execute(select(requests.c.number, requests.c.asked, requests.c.answer).where(which)).all()
    numbers = [row.number for row in found]
    for part in _parts(numbers):
        connection.execute(delete(votes).where(votes.c.request.in_(part)))
        connection.execute(delete(requests).where(requests.c.number.in_(part)))
    asked = _unused(connection, requests.c.asked, sorted({row.asked for row in found}))
    for part in _parts(_unused(connection, requests.c.answer, sorted({row.answer for row in found if row.answer}))):
        connection.execute(delete(answers).where(answers.c.digest.in_(part)))
    if asked:
        connection.execute(forgotten.insert(), [{"asked": one, "at": time.time()} for one in asked])
    return Erased(len(numbers), asked)


def expire(connection: Connection, days: float, cached_days: float = 0.0) -> Erased:
    """Removes what is older than it may be: requests, answers, and conversations that nothing is left of.

    Args:
        connection: of a transaction that writes.
        days: for which records are kept.
        cached_days: for which a service that does not run now may hold answers in its cache, which it is told then to remove.
    """
    before = time.time() - days * 86_400
    erased = erase(connection, requests.c.at < before)
    used = select(requests.c.conversation).where(requests.c.conversation.is_not(None))
    connection.execute(delete(conversations).where(conversations.c.changed < before, conversations.c.id.not_in(used)))
    for table, seconds in ((forgotten, max(cached_days * 86_400, REMEMBERED_SECONDS)), (writers, REMEMBERED_SECONDS)):
        connection.execute(delete(table).where(table.c.at < time.time() - seconds))
    return erased


def end_talk(connection: Connection, name: str) -> Erased:
    """Removes a conversation with its questions and answers."""
    erased = erase(connection, requests.c.conversation == name)
    connection.execute(delete(conversations).where(conversations.c.id == name))
    return erased


def forgotten_since(connection: Connection, number: int) -> tuple[int, list[str]]:
    """What was forgotten after a number of that table: the last number now, and digests."""
    found = connection.execute(select(forgotten).where(forgotten.c.number > number).order_by(forgotten.c.number)).all()
    return (found[-1].number if found else number), [row.asked for row in found]


def forget_cached(path: Path, asked: Sequence[str]) -> None:
    """Removes answers from the cache's file.

    Args:
        path: of the file; there may be none.
        asked: digests of their questions.

    Raises:
        InputError: another process holds it, or it is damaged.
    """
    if not path.is_file() or not asked:
        return
    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None)
    try:
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("DELETE FROM answers WHERE key = ?", [(one,) for one in asked])
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise InputError(
            f"answers cannot be removed from {path} ({error}); nothing was forgotten, run the command again"
        ) from error
    finally:
        connection.close()


def empty_cache(path: Path) -> None:
    """Removes all answers from the cache's file; nothing of them is left in it.

    Args:
        path: of the file; there may be none.

    Raises:
        InputError: another process holds it, or it is damaged.
    """
    if not path.is_file():
        return
    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None)
    try:
        connection.execute("DELETE FROM answers")
    except sqlite3.Error as error:
        raise InputError(
            f"answers that were kept before cannot be removed from {path} ({error}); stop the service that uses it, or remove "
            f"the file"
        ) from error
    finally:
        connection.close()
    scrub(path)


def _exported(connection: Connection, user: int) -> dict[Path, set[str]]:
    """Exported files with the ids of the lines that hold a person's texts."""
    found: dict[Path, set[str]] = {}
    for row in connection.execute(select(exports.c.path, exports.c.line).where(exports.c.user == user)):
        found.setdefault(Path(row.path), set()).add(row.line)
    return found


def _without(path: Path, lines: set[str]) -> int | None:
    """Removes questions from an exported file by their ids; how many were there, None where there is no such file."""
    if not path.is_file():
        return None
    kept, removed = [], 0
    with path.open(encoding="utf-8", newline="\n") as file:  # texts may hold other signs that end lines elsewhere
        for line in file:
            if line.strip() and str(parsed(line, f"{path}").get("id")) in lines:
                removed += 1
            else:
                kept.append(line)
    replace(path, "".join(kept))
    return removed


def replace(path: Path, text: str) -> None:
    """Writes a file in one piece: it is the old one or the new one, never a part."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".", delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _unused(connection: Connection, column: ColumnElement[str], values: Sequence[str]) -> list[str]:
    """Those of the values that no request has any more."""
    used: set[str] = set()
    for part in _parts(values):
        used.update(connection.execute(select(column).where(column.in_(part)).distinct()).scalars())
    return [value for value in values if value not in used]


def _parts(values: Sequence[object]) -> Iterator[Sequence[object]]:
    return (values[start : start + TOGETHER] for start in range(0, len(values), TOGETHER))
