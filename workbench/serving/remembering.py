"""What a service keeps for people: votes, conversations, who is known, and what is forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

from sqlalchemy import Connection

from workbench.serving.asking import Answered, Asking, Service
from workbench.serving.caller import Caller, Principal
from workbench.serving.metrics import Metrics
from workbench.serving.problems import ConflictError, InvalidError, NotFoundError, ProblemError
from workbench.serving.records import erasing, talks, votes
from workbench.serving.records.journal import day_of, spent_on
from workbench.serving.records.writer import Writer
from workbench.serving.requests import MOST_TURNS
from workbench.serving.who.directory import Directory
from workbench.serving.who.limits import Limits

if TYPE_CHECKING:
    from workbench.serving.cache import DiskCache
    from workbench.serving.records.database import Database
    from workbench.serving.redis_server import RedisServer
    from workbench.serving.settings import ServiceSettings

LOOK_SECONDS = 2.0  # between looks at what is to be forgotten
ON_ITS_WAY_SECONDS = (0.2, 0.4, 0.8)  # between looks for what another replica has not written yet
EXPIRY_SECONDS = 3600.0  # between removals of what is too old

log = logging.getLogger(__name__)
T = TypeVar("T")
Place = tuple[int | None, str]  # whose question, and the id of its request


class Remembering(Asking):
    """Answers questions, and keeps what belongs to people: their votes and conversations.

    Attributes:
        writer: of the records; None: there are none.
        directory: who is known; None: there are no records.
        limits: what each may ask.
        metrics: counts and times what ends.
    """

    def __init__(
        self,
        service: Service,
        settings: ServiceSettings,
        disk: DiskCache | None = None,
        records: Database | None = None,
        redis: RedisServer | None = None,
    ) -> None:
        """Begins with nothing under way.

        Args:
            service: what answers.
            settings: of the service.
            disk: the answers' cache on disk, if there is one.
            records: where records are kept; None: nowhere.
            redis: what replicas know together; None: this is the only one.

        Raises:
            InputError: the secret of tokens is too short.
        """
        super().__init__(service, settings, disk, redis)
        self.writer = Writer(records) if records else None
        self.directory = Directory(records, self.writer, settings.who) if records and self.writer else None
        self.limits = Limits(self._spent_today, redis=redis)
        self.metrics = Metrics(self, self.writer)
        self._answering: Counter[Place] = Counter()  # questions that are being answered

    async def _spent_today(self, account: tuple[int, int]) -> int:
        if self.directory is None:
            return 0
        return await self.directory.read(lambda connection: spent_on(connection, day_of(self.limits.clock()), account))

    # --- Votes and conversations --------------------------------------------------------------------------------

    async def vote(
        self, request_id: str, principal: Principal, value: Literal[-1, 1], comment: str | None, correction: str | None
    ) -> None:
        """Keeps a vote; it is on the disk afterwards.

        Args:
            request_id: of the request whose answer it is on.
            principal: whose request that was, and who votes.
            value: 1 for a good answer, -1 for a bad one.
            comment: in words.
            correction: what the answer should have been.

        Raises:
            NotFoundError: they have no such request.
            ConflictError: it is still being answered.
            InvalidError: the service keeps no records, or no texts, or there is no answer.
            RateLimitedError: they have changed too much in the last minute.
            UnavailableRecordsError: the records cannot be written; the vote is not kept.
        """
        self._require("votes", texts=bool(comment or correction))
        await self.limits.count(principal, "changes")
        try:
            await self._found(
                lambda: self.write(
                    lambda connection: votes.vote(connection, request_id, principal.user, value, comment, correction)
                )
            )
        except NotFoundError:
            if (principal.user, request_id) in self._answering:
                raise ConflictError("the answer is still being written; vote on it when it is there", retry_after=1) from None
            raise
        self.metrics.vote(value)

    async def begin_talk(self, principal: Principal, title: str = "") -> talks.Talk:
        """A new conversation.

        Args:
            principal: whose it is.
            title: of it; empty: its first question.

        Raises:
            InvalidError: what is served does not rewrite questions, or the service keeps no texts.
            ConflictError: they have as many as are kept.
            RateLimitedError: they have changed too much in the last minute.
            UnavailableRecordsError: the records cannot be written.
        """
        self._require("conversations", texts=True)
        self._require_rewriting()
        await self.limits.count(principal, "changes")
        return await self.write(lambda connection: talks.begin(connection, principal.user, title))

    async def talks_of(self, principal: Principal) -> list[talks.Talk]:
        """The conversations of whoever asks."""
        return await self.read(lambda connection: talks.listed(connection, principal.user))

    async def talk(self, name: str, principal: Principal) -> tuple[talks.Talk, list[talks.Said]]:
        """A conversation of whoever asks, with what was said in it.

        Raises:
            NotFoundError: they have none of that id.
        """

        def found(connection: Connection) -> tuple[talks.Talk, list[talks.Said]]:
            talk = talks.find(connection, name, principal.user)
            return talk, talks.said(connection, talk)

        return await self.read(found)

    async def end_talk(self, name: str, principal: Principal) -> None:
        """Removes a conversation with all that was said in it.

        Raises:
            NotFoundError: whoever asks has none of that id.
            RateLimitedError: they have changed too much in the last minute.
        """
        await self.limits.count(principal, "changes")

        def ended(connection: Connection) -> list[str]:
            return erasing.end_talk(connection, talks.find(connection, name, principal.user).id).asked

        await self.forget(await self.write(ended))
        await self._overwrite()

    async def continued(self, name: str, caller: Caller) -> tuple[list[dict[str, str]], Caller]:
        """What was said in a conversation, for its next question, and the caller as the one who asks it there.

        Raises:
            InvalidError: it is too long, or what is served does not rewrite questions.
            NotFoundError: the caller has none of that id.
        """
        self._require_rewriting()

        def found(connection: Connection) -> tuple[list[talks.Said], int]:
            talk = talks.find(connection, name, caller.principal.user)
            return talks.said(connection, talk), talks.last_answered(connection, name)

        said, after = await self.read(found)
        turns = talks.history(said)
        if len(turns) > MOST_TURNS - 2:
            raise InvalidError(f"the conversation has {len(turns)} turns, and no more than {MOST_TURNS} are read; begin another")
        return turns, caller._replace(conversation=name, after=after)

    async def stored(self, request_id: str, principal: Principal) -> Answered:
        """An answer that somebody got before.

        Raises:
            NotFoundError: there is none, or it was somebody else's.
        """
        body = await self._found(lambda: self.read(lambda connection: votes.body_of(connection, request_id, principal.user)))
        return Answered(body, {"by": "records", "seconds": {}})

    async def _found(self, act: Callable[[], Awaitable[T]]) -> T:
        """What is found of a request. Where replicas share the records, another one's may be on its way.

        Raises:
            NotFoundError: it is not there, also somewhat later.
        """
        for seconds in ON_ITS_WAY_SECONDS if self.writer and self.writer.database.is_shared else ():
            try:
                return await act()
            except NotFoundError:
                await asyncio.sleep(seconds)
        return await act()

    async def read(self, act: Callable[[Connection], T]) -> T:
        """What is read in the records.

        Raises:
            NotFoundError: there are none.
            UnavailableRecordsError: they cannot be read.
        """
        if self.directory is None:
            raise NotFoundError("this service keeps no records")
        return await self.directory.read(act)

    async def write(self, act: Callable[[Connection], T]) -> T:
        """What is written into the records; it is there afterwards.

        Raises:
            NotFoundError: there are none.
            UnavailableRecordsError: they cannot be written.
        """
        if self.writer is None:
            raise NotFoundError("this service keeps no records")
        return await asyncio.wrap_future(self.writer.write(act))

    def _require(self, what: str, texts: bool) -> None:
        if self.writer is None or self.settings.keep == "none":
            raise InvalidError(f"this service keeps no records (keep: none), so there are no {what}")
        if texts and not self.settings.keeps_texts:
            raise InvalidError("this service keeps no texts (keep.texts: false): neither conversations nor words about answers")

    def _require_rewriting(self) -> None:
        pipeline = self.service.pipeline
        if pipeline.stages.questions is None:
            raise InvalidError(
                f"{pipeline.configuration.label} does not rewrite questions, so what was said before would be ignored; ask each "
                f"question by itself, or serve a configuration measured with the axis rewriting (see components.rewriters)"
            )

    # --- Forgetting ---------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def looking_after(self) -> AsyncIterator[None]:
        """Within, what is too old is removed, and what another process removed is forgotten here."""
        tasks = [asyncio.ensure_future(self._forgetting()), asyncio.ensure_future(self._expiring())] if self.writer else []
        try:
            async with self.redis.watched() if self.redis else nullcontext():
                yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    async def _overwrite(self) -> None:
        """Has what was removed overwritten in the file of the records."""
        if self.writer and not await asyncio.to_thread(self.writer.database.checkpoint):
            log.warning("what was removed may still be readable in %s; it is overwritten later", self.writer.database.name)

    async def _forgetting(self) -> None:
        last = 0  # an earlier service may have ended before it removed from its cache what was forgotten
        while not self.stopping:
            try:
                number, asked = await self.read(partial(erasing.forgotten_since, number=last))
                if await self.forget(asked):
                    last = number
            except ProblemError as problem:
                log.warning("what is to be forgotten cannot be read: %s", problem.detail)
            except Exception:
                log.exception("what is to be forgotten was not; it is tried again")
            await asyncio.sleep(LOOK_SECONDS)

    async def _expiring(self) -> None:
        keep = self.settings.keep
        days = keep.days if keep != "none" else 0.0  # what was kept before is removed
        while True:
            try:
                await self.write(lambda connection: erasing.expire(connection, days, self.settings.cache.days))
                await self._overwrite()
            except ProblemError as problem:
                log.warning("what is too old cannot be removed: %s", problem.detail)
            except Exception:
                log.exception("what is too old was not removed; it is tried again")
            await asyncio.sleep(EXPIRY_SECONDS)

    async def stop(self) -> None:
        """Likewise, and writes the records that wait."""
        await super().stop()
        if self.writer:
            await asyncio.to_thread(self.writer.stop)
        if self.directory:
            self.directory.stop()
            self.directory.database.close()
        if self.redis:
            await asyncio.to_thread(self.redis.close)
