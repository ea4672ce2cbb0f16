"""What became of every question: a row with its status, the answer once for all who got it, and what was spent.

Rows are written by the records' own thread, so that no answer waits for the disk.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, case, func, literal, select

from workbench.serving.caller import Caller
from workbench.serving.problems import ConflictError, NotFoundError
from workbench.serving.records import people
from workbench.serving.records.tables import Words, answers, conversations, counts, forgotten, requests, spending, users
from workbench.serving.records.writer import Writer
from workbench.serving.settings import Keeping

ANSWERED, ABSTAINED, FALLBACK = "answered", "abstained", "fallback"
REFUSED, OVERLOADED, LATE, LEFT, FAILED = "refused", "overloaded", "late", "left", "failed"
STATUSES = (ANSWERED, ABSTAINED, FALLBACK, REFUSED, OVERLOADED, LATE, LEFT, FAILED)

TITLE_LETTERS = 80  # of a conversation that was given no title: its first question


class Entry(NamedTuple):
    """A question and what became of it.

    Attributes:
        caller: who asked.
        at: when, in seconds since 1970.
        question: its text.
        asked: digest of identity, question and history.
        identity: of the pipeline that was served.
        run: its run's id.
        configuration: its id.
        http_status: of the response.
        status: one of `STATUSES`; None: it is read in `body`.
        seconds: from the question to the answer, or to its end without one.
        body: the answer part of the response; None: there is no answer.
        served: how it was come by.
    """

    caller: Caller
    at: float
    question: str
    asked: str
    identity: str
    run: str
    configuration: str
    http_status: int
    status: str | None
    seconds: float
    body: bytes | None = None
    served: dict[str, Any] = {}  # noqa: RUF012 - it is only read


class Spent(NamedTuple):
    """Tokens of prompts and of answers, and what they cost, in millionths of the currency."""

    prompt: int = 0
    answer: int = 0
    cost_micros: int = 0

    @property
    def tokens(self) -> int:
        """Of both."""
        return self.prompt + self.answer


def day_of(at: float) -> str:
    """The day of UTC, as 2026-11-28."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))


class Journal:
    """Writes what became of questions."""

    def __init__(self, writer: Writer, keep: Keeping | None, lost: Callable[[str], object]) -> None:
        """A journal.

        Args:
            writer: of the records.
            keep: what is kept; None: counts and spending alone.
            lost: called with the digest of a question whose row found no room: nobody could find its texts any more.
        """
        self.writer, self.keep, self.lost = writer, keep, lost

    def note(self, entry: Entry, spent: Spent) -> None:
        """Has a row written, some time."""
        if not self.writer.note(lambda connection: self._write(connection, entry, spent)) and self.keep and self.keep.texts:
            self.lost(entry.asked)

    def write(self, entry: Entry, spent: Spent) -> Future[None]:
        """Has a row written that somebody waits for."""
        return self.writer.write(lambda connection: self._write(connection, entry, spent))

    def _write(self, connection: Connection, entry: Entry, spent: Spent) -> None:
        user, key = entry.caller.principal.account
        if user and connection.execute(select(users.c.id).where(users.c.id == user)).first() is None:
            forget_asked(connection, entry.asked)
            return  # they were forgotten while they waited
        status = status_of(entry)
        day = day_of(entry.at)
        add(connection, counts, {"day": day, "status": status}, {"requests": 1})
        if spent.tokens or spent.cost_micros:
            amounts = {"prompt_tokens": spent.prompt, "answer_tokens": spent.answer, "cost_micros": spent.cost_micros}
            add(connection, spending, {"day": day, "user": user, "key": key}, amounts)
        if key:
            people.last_used(connection, [(key, entry.at)])
        if self.keep:
            texts = self.keep.texts
            answer = _answer(connection, entry) if texts and entry.body else None
            row = {"question": entry.question if texts else None, "answer": answer, "status": status}
            connection.execute(requests.insert().values(row | _values(connection, entry, spent)))


def forget_asked(connection: Connection, asked: str) -> None:
    """Has services remove the answer to a question from their caches, unless somebody else asked it."""
    others = select(requests.c.number).where(requests.c.asked == asked).limit(1)
    if connection.execute(others).first() is None:
        connection.execute(forgotten.insert().values(asked=asked, at=time.time()))


def status_of(entry: Entry) -> str:
    """What became of a question: one of `STATUSES`."""
    if entry.status or entry.body is None:
        return entry.status or FAILED
    if entry.served.get("by") == FALLBACK:
        return FALLBACK
    read = json.loads(entry.body)
    if read.get("status") != "ok":
        return FAILED
    return ABSTAINED if read.get("answer") == "" else ANSWERED


def _answer(connection: Connection, entry: Entry) -> str:
    """Digest of the answer, which is stored where it is not yet."""
    assert entry.body is not None
    digest = hashlib.sha256(entry.body).hexdigest()
    if connection.execute(select(answers.c.digest).where(answers.c.digest == digest)).first() is None:
        values = {"digest": digest, "identity": entry.identity, "body": entry.body, "created": entry.at}
        connection.execute(answers.insert().values(values))
    return digest


def _values(connection: Connection, entry: Entry, spent: Spent) -> dict[str, Any]:
    principal, seconds = entry.caller.principal, entry.served.get("seconds", {})
    return {
        "id": entry.caller.request_id, "at": entry.at, "user": principal.user, "key": principal.key,
        "asked": entry.asked, "identity": entry.identity, "run": entry.run, "configuration": entry.configuration,
        "served_by": entry.served.get("by"), "http_status": entry.http_status, "seconds_total": round(entry.seconds, 4),
        "seconds_queue": seconds.get("queue"), "seconds_retrieval": seconds.get("retrieval"),
        "seconds_generation": seconds.get("generation"), "prompt_tokens": spent.prompt, "answer_tokens": spent.answer,
        "cost_micros": spent.cost_micros, "batch": entry.served.get("batch"),
    } | _turn(connection, entry)  # fmt: skip


def _turn(connection: Connection, entry: Entry) -> dict[str, Any]:
    """The next turn of the question's conversation.

    Raises:
        NotFoundError: the conversation was deleted in the meantime.
        ConflictError: another question of it was answered in the meantime, so that the answer lacks what was said there.
    """
    name = entry.caller.conversation
    if name is None:
        return {}
    title = case((conversations.c.title == "", literal(entry.question[:TITLE_LETTERS], Words())), else_=conversations.c.title)
    there = conversations.update().where(conversations.c.id == name)
    changed = connection.execute(there.values(changed=entry.at, title=title))
    if not changed.rowcount:
        raise NotFoundError(f"the conversation {name!r} was deleted while the question was answered")
    turn, answered = requests.c.turn, case((requests.c.answer.is_not(None), requests.c.turn))
    last, last_answered = connection.execute(
        select(func.max(turn), func.max(answered)).where(requests.c.conversation == name)
    ).one()
    if entry.body is not None and entry.caller.after not in (None, last_answered or 0):
        raise ConflictError("another question of the conversation was answered in the meantime; ask again")
    return {"conversation": name, "turn": (last or 0) + 1}


def add(connection: Connection, table: Table, place: dict[str, Any], amounts: dict[str, int]) -> None:
    """Adds to numbers of a row, which is made where there is none.

    Args:
        connection: of a transaction that writes.
        table: whose row.
        place: the row's primary key.
        amounts: column -> what is added.
    """
    there = [table.c[name] == value for name, value in place.items()]
    more = {name: table.c[name] + amount for name, amount in amounts.items()}
    if not connection.execute(table.update().where(*there).values(more)).rowcount:
        connection.execute(table.insert().values(place | amounts))


def spent_on(connection: Connection, day: str, account: tuple[int, int]) -> int:
    """Tokens that an account has used on a day.

    Args:
        connection: that reads.
        day: of UTC.
        account: user and key, 0 for none.
    """
    user, key = account
    tokens = select(spending.c.prompt_tokens + spending.c.answer_tokens)
    found = connection.execute(tokens.where(spending.c.day == day, spending.c.user == user, spending.c.key == key))
    return int(found.scalar() or 0)
