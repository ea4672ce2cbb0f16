"""Conversations: questions of one user that belong together, in their order."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from workbench.serving.problems import ConflictError, NotFoundError
from workbench.serving.records.tables import answers, conversations, requests

MOST_TALKS = 1000  # conversations of one user


class Talk(NamedTuple):
    """A conversation: its id, title, when it began and was changed (seconds since 1970), and how many questions it has."""

    id: str
    title: str
    created: float
    changed: float
    turns: int

    def as_json(self) -> dict[str, Any]:
        """As plain values, times as text."""
        times = {name: _iso(getattr(self, name)) for name in ("created", "changed")}
        return {"id": self.id, "title": self.title, **times, "turns": self.turns}


class Said(NamedTuple):
    """A question of a conversation and its answer: the request's id, its status, and the answer part of the response if any."""

    request_id: str
    question: str
    status: str
    body: bytes | None

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "id": self.request_id,
            "question": self.question,
            "status": self.status,
            "answer": json.loads(self.body) if self.body else None,
        }


def begin(connection: Connection, user: int | None, title: str = "") -> Talk:
    """A new conversation.

    Args:
        connection: of a transaction that writes.
        user: whose it is; None: an open service's.
        title: of it; empty: its first question.

    Raises:
        ConflictError: the user has as many as are kept.
    """
    if user is not None:
        there = connection.execute(select(func.count()).where(conversations.c.user == user)).scalar_one()
        if there >= MOST_TALKS:
            raise ConflictError(f"you have {there:,} conversations, which is all that are kept; remove one with DELETE")
    now = time.time()
    talk = Talk(uuid.uuid4().hex, title, now, now, 0)
    values = {"id": talk.id, "user": user, "title": title, "created": now, "changed": now}
    connection.execute(conversations.insert().values(values))
    return talk


def last_answered(connection: Connection, name: str) -> int:
    """The last turn of a conversation that has an answer; 0: none has."""
    answered = (requests.c.conversation == name) & requests.c.answer.is_not(None)
    return connection.execute(select(func.max(requests.c.turn)).where(answered)).scalar_one() or 0


def listed(connection: Connection, user: int | None) -> list[Talk]:
    """The conversations of a user, the one that was changed last first."""
    return _talks(connection, user)


def find(connection: Connection, name: str, user: int | None) -> Talk:
    """A user's conversation.

    Args:
        connection: that reads.
        name: its id.
        user: whose it is; None: an open service's.

    Raises:
        NotFoundError: the user has none of that id.
    """
    found = _talks(connection, user, name)
    if not found:
        raise NotFoundError(f"there is no conversation {name[:64]!r}")
    return found[0]


def said(connection: Connection, talk: Talk) -> list[Said]:
    """The questions of a conversation in their order."""
    columns = (requests.c.id, requests.c.question, requests.c.status, answers.c.body)
    joined = requests.outerjoin(answers, answers.c.digest == requests.c.answer)
    wanted = select(*columns).select_from(joined).where(requests.c.conversation == talk.id).order_by(requests.c.turn)
    return [
        Said(row.id, row.question or "", row.status, bytes(row.body) if row.body is not None else None)
        for row in connection.execute(wanted)
    ]


def history(turns: list[Said]) -> list[dict[str, str]]:
    """What a rewriter reads: the questions that were answered and what was answered, oldest first."""
    found = []
    for one in turns:
        if one.body is None:
            continue
        read = json.loads(one.body)
        found.append({"role": "user", "content": one.question})
        if text := read["answer"] or read["reply"]:
            found.append({"role": "assistant", "content": text})
    return found


def _talks(connection: Connection, user: int | None, name: str | None = None) -> list[Talk]:
    turns = select(func.count()).where(requests.c.conversation == conversations.c.id).scalar_subquery()
    columns = (conversations.c.id, conversations.c.title, conversations.c.created, conversations.c.changed, turns)
    wanted = select(*columns).where(conversations.c.user.is_not_distinct_from(user))
    if name is not None:
        wanted = wanted.where(conversations.c.id == name)
    order = (conversations.c.changed.desc(), conversations.c.id)
    return [Talk(*row) for row in connection.execute(wanted.order_by(*order))]


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
