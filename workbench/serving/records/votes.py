"""What people say of answers: a vote, a comment, and what the answer should have been. Another vote replaces the one before."""

from __future__ import annotations

import time
from typing import Literal, NamedTuple

from sqlalchemy import Connection, Row, func, select

from workbench.serving.problems import InvalidError, NotFoundError
from workbench.serving.records.journal import ABSTAINED, ANSWERED, FALLBACK
from workbench.serving.records.tables import answers, requests, votes


class Votes(NamedTuple):
    """How many answers were found good and bad."""

    up: int
    down: int


def request_of(connection: Connection, request_id: str, user: int | None) -> Row[int, str | None, str]:
    """Number, answer and status of a user's request.

    Args:
        connection: that reads.
        request_id: of the request; of several of one id the last.
        user: whose it is; None: an open service's.

    Raises:
        NotFoundError: the user has none of that id.
    """
    wanted = select(requests.c.number, requests.c.answer, requests.c.status)
    wanted = wanted.where(requests.c.id == request_id, requests.c.user.is_not_distinct_from(user))
    found = connection.execute(wanted.order_by(requests.c.number.desc()).limit(1)).first()
    if found is None:
        raise NotFoundError(f"there is no answer {request_id[:64]!r}")
    return found


def vote(
    connection: Connection,
    request_id: str,
    user: int | None,
    value: Literal[-1, 1],
    comment: str | None = None,
    correction: str | None = None,
) -> None:
    """Keeps a vote on an answer, in the place of an earlier one.

    Args:
        connection: of a transaction that writes.
        request_id: of the request that was answered.
        user: whose request it was, and who votes.
        value: 1 for a good answer, -1 for a bad one.
        comment: in words.
        correction: what the answer should have been.

    Raises:
        NotFoundError: the user has no such request.
        InvalidError: it has no answer.
    """
    request = request_of(connection, request_id, user)
    if request.status not in (ANSWERED, ABSTAINED, FALLBACK):
        raise InvalidError(f"the request has no answer to vote on: it is {request.status}")
    values = {"request": request.number, "vote": value, "comment": comment, "correction": correction, "at": time.time()}
    if not connection.execute(votes.update().where(votes.c.request == request.number).values(values)).rowcount:
        connection.execute(votes.insert().values(values))


def body_of(connection: Connection, request_id: str, user: int | None) -> bytes:
    """The answer part of a user's request.

    Args:
        connection: that reads.
        request_id: of the request.
        user: whose it is.

    Raises:
        NotFoundError: the user has no such request, or it has no answer.
    """
    digest = request_of(connection, request_id, user).answer
    body = connection.execute(select(answers.c.body).where(answers.c.digest == digest)).scalar()
    if body is None:
        raise NotFoundError(f"the request {request_id[:64]!r} has no answer")
    return bytes(body)


def counted(connection: Connection) -> Votes:
    """How many answers are found good and bad."""
    found = select(votes.c.vote, func.count().label("number")).group_by(votes.c.vote)
    by_vote = {row.vote: row.number for row in connection.execute(found)}
    return Votes(by_vote.get(1, 0), by_vote.get(-1, 0))
