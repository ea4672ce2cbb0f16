"""What processes send each other through a broker: questions, and what becomes of them, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from workbench.errors import InputError
from workbench.pipeline import Asked, Reply, reply_of


class Sent(NamedTuple):
    """A question that was sent.

    Attributes:
        asked: the question.
        seconds: within which its answer was to be there when it was sent.
        lost: how many times a process that had taken it was lost, as far as is known.
    """

    asked: Asked
    seconds: float
    lost: int = 0


class Told(NamedTuple):
    """What a worker tells of a question.

    Attributes:
        what: ``begun``: it is among those that are computed now; ``grown``: `reply` is a longer beginning of its answer;
            ``landed``: `reply` is its answer; ``failed``: there is none, for the reason in `why`; ``full``: there is none since
            too much waits already, for the reason in `why`.
        worker: name of the worker's process.
        reply: the answer or its beginning.
        batch: how many questions were answered together.
        queue_seconds: for which the question waited in the worker's process.
        why: the reason why there is no answer.
    """

    what: str
    worker: str
    reply: Reply | None = None
    batch: int = 0
    queue_seconds: float = 0.0
    why: str = ""


TOLD = ("begun", "grown", "landed", "failed", "full")


def question(sent: Sent) -> bytes:
    """A question as it is sent."""
    history = [turn._asdict() if hasattr(turn, "_asdict") else turn for turn in sent.asked.history]
    return _json({"question": sent.asked.question, "history": history, "seconds": sent.seconds, "lost": sent.lost})


def read_question(body: bytes) -> Sent:
    """A question that was sent.

    Raises:
        InputError: the message is none.
    """
    values = _object(body)
    try:
        asked = Asked(str(values["question"]), _turns(values["history"]))
        return Sent(asked, float(values["seconds"]), int(values.get("lost", 0)))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"a message that is no question: {type(error).__name__}: {error}") from error


def told(what: Told) -> bytes:
    """What a worker tells, as it is sent."""
    return _json(what._asdict() | {"reply": what.reply.as_json() if what.reply else None})


def read_told(body: bytes) -> Told:
    """What a worker told.

    Raises:
        InputError: the message is nothing of the kind.
    """
    values = _object(body)
    try:
        reply = values.pop("reply")
        found = Told(**values, reply=reply_of(reply) if reply is not None else None)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"a message that tells nothing of a question: {type(error).__name__}: {error}") from error
    if found.what not in TOLD or (found.what in ("grown", "landed") and found.reply is None):
        raise InputError(f"a message that tells {found.what!r} of a question; allowed: {', '.join(TOLD)}")
    return found


def _turns(values: Any) -> Sequence[Any]:
    if not isinstance(values, list):
        raise ValueError("its history is no list")
    return values


def _object(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except ValueError as error:
        raise InputError(f"a message that is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError("a message that is no object of JSON")
    return values


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
