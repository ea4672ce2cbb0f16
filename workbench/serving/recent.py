"""Answers that can be fetched once more, by whose they are and the id of their request; also those that are not there yet."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from workbench.serving.asking import Answered
from workbench.serving.caller import Caller
from workbench.serving.problems import GoneError, NotFoundError

MOST_RECENT = 1000  # answers that are kept; whoever has the most loses the oldest first
MOST_GONE = 10_000  # ids of those before them

Place = tuple[int | None, str]  # whose answer, and the id of its request


class Kept(NamedTuple):
    """An answer, or the task that brought it or says why there is none; and the digest of what it answers."""

    found: asyncio.Task[Answered] | Answered
    asked: str


class Recent:
    """The answers of one process. What is not there yet is never dropped: how much that may be, admission says."""

    def __init__(self) -> None:
        self._coming: dict[Place, Kept] = {}
        self._kept: dict[int | None, OrderedDict[str, Kept]] = {}
        self._gone: OrderedDict[Place, None] = OrderedDict()

    def keep(self, caller: Caller, found: Answered, asked: str) -> None:
        """Keeps an answer for the one who asked.

        Args:
            caller: who asked.
            found: the answer.
            asked: digest of pipeline, question and history.
        """
        self._keep(_place(caller), Kept(found, asked))

    def expect(self, caller: Caller, task: asyncio.Task[Answered], asked: str) -> None:
        """Keeps the task that brings an answer, for the one who asked.

        Args:
            caller: who asked; an answer in a conversation is not kept once it is there, since the records hold it.
            task: brings the answer.
            asked: digest of pipeline, question and history.
        """
        place = _place(caller)
        self._coming[place] = coming = Kept(task, asked)

        def ended(task: asyncio.Task[Answered]) -> None:
            if self._coming.get(place) is not coming:
                return  # the same id was used again
            del self._coming[place]
            failed = task.cancelled() or task.exception() is not None
            if failed or caller.conversation is None:
                self._keep(place, coming)

        task.add_done_callback(ended)

    def get(self, request_id: str, caller: Caller) -> asyncio.Task[Answered] | Answered:
        """What is kept for the one who asks.

        Raises:
            NotFoundError: there is no such answer of theirs, or it is too long ago.
        """
        user = caller.principal.user
        answers = self._kept.get(user)
        kept = self._coming.get((user, request_id)) or (answers and answers.get(request_id))
        if not kept:
            raise NotFoundError(f"there is no answer {request_id[:64]!r}; the last {MOST_RECENT:,} are kept")
        return kept.found

    def refuse_gone(self, request_id: str, caller: Caller) -> None:
        """Refuses an answer of the one who asks that was kept here.

        Raises:
            GoneError: it was.
        """
        if (caller.principal.user, request_id) in self._gone:
            raise GoneError(f"the answer {request_id[:64]!r} is kept no more; the last {MOST_RECENT:,} are. Ask again")

    def forget(self, asked: Sequence[str]) -> None:
        """Removes the answers to what has these digests."""
        which = set(asked)
        for answers in self._kept.values():
            for request_id in [name for name, kept in answers.items() if kept.asked in which]:
                del answers[request_id]

    def _keep(self, place: Place, kept: Kept) -> None:
        user, request_id = place
        self._coming.pop(place, None)
        answers = self._kept.setdefault(user, OrderedDict())
        answers[request_id] = kept
        answers.move_to_end(request_id)
        while sum(map(len, self._kept.values())) > MOST_RECENT:
            self._drop()
        while len(self._gone) > MOST_GONE:
            self._gone.popitem(last=False)

    def _drop(self) -> None:
        """Drops the oldest answer of whoever has the most."""
        user = max(self._kept, key=lambda user: len(self._kept[user]))
        self._gone[user, self._kept[user].popitem(last=False)[0]] = None
        if not self._kept[user]:
            del self._kept[user]


def _place(caller: Caller) -> Place:
    return caller.principal.user, caller.request_id
