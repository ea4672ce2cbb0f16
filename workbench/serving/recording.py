"""Asking within what each may ask, with a record of what became of each question."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from workbench.component import digest
from workbench.pipeline import Asked, Pipeline, Reply
from workbench.serving.asking import Answered, Asking, Service, answer_part
from workbench.serving.caller import NOBODY, Caller
from workbench.serving.problems import ConflictError, NoAnswerError, NotFoundError, ProblemError, TooLateError
from workbench.serving.recent import Recent
from workbench.serving.records.journal import (
    FAILED,
    LATE,
    LEFT,
    OVERLOADED,
    REFUSED,
    Entry,
    Journal,
    Spent,
    forget_asked,
)
from workbench.serving.remembering import Remembering
from workbench.serving.streaming import LEFT as LEFT_STATUS
from workbench.serving.tracing import Tracing, wanted

if TYPE_CHECKING:
    from workbench.serving.cache import DiskCache
    from workbench.serving.records.database import Database
    from workbench.serving.redis_server import RedisServer
    from workbench.serving.settings import ServiceSettings

log = logging.getLogger(__name__)


class Recording(Remembering):
    """Answers questions, within what each may ask, and keeps records of them.

    Attributes:
        tracing: sends traces of it; None: no collector is named.
        recent: answers that can be fetched once more.
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
            InputError: the secret of tokens is too short, or a collector of traces is named and the extra ``tracing`` is missing.
        """
        super().__init__(service, settings, disk, records, redis)
        keep = None if settings.keep == "none" else settings.keep
        self.journal = Journal(self.writer, keep, self._lost) if self.writer else None
        self.tracing = Tracing() if wanted() else None
        self.recent = Recent()
        self._unrecorded: set[object] = set()  # questions of which it is not recorded yet what became of them
        self._losing: set[asyncio.Future[bool]] = set()
        self._talking: set[str] = set()  # conversations in which a question is being answered
        self._comparing = ThreadPoolExecutor(1, thread_name_prefix="comparing")
        self._most_tokens: dict[str, int] = {}  # that an answer of an identity took

    async def growing(self, asked: Asked, caller: Caller = NOBODY) -> AsyncGenerator[Reply | Answered, None]:
        service = self.service
        async with self._recorded(service.pipeline, service.key(asked), asked, caller) as answered:
            await self.limits.count(caller.principal)
            with self._under_way(caller):
                async with aclosing(super().growing(asked, caller)) as replies:
                    async for found in replies:
                        if isinstance(found, Answered):
                            await answered(found)
                        yield found

    @asynccontextmanager
    async def _recorded(
        self, pipeline: Pipeline, key: str, asked: Asked, caller: Caller
    ) -> AsyncIterator[Callable[[Answered], Awaitable[None]]]:
        """Within, a question is answered; what becomes of it is recorded once, whatever that is.

        Args:
            pipeline: what is to answer.
            key: digest of pipeline, question and history.
            asked: the question.
            caller: who asks.

        Yields:
            Records the answer.
        """
        started, at, ended, this = time.monotonic(), time.time(), False, object()
        self._unrecorded.add(this)
        about = (caller, at, asked.question, key, pipeline.identity, pipeline.run.folder.name, pipeline.configuration.id)

        def entry(http_status: int, status: str | None) -> Entry:
            nonlocal ended
            ended = True
            self._unrecorded.discard(this)
            return Entry(*about, http_status, status, time.monotonic() - started)

        async def answered(found: Answered) -> None:
            await self._record(entry(200, None)._replace(body=found.body, served=found.served))

        try:
            yield answered
        except ProblemError as problem:
            if not ended:
                await self._record(entry(problem.status, _status(problem)))
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if not ended:
                self._note(entry(LEFT_STATUS, LEFT))
            raise
        except Exception:
            if not ended:
                self._note(entry(500, FAILED))
            raise
        finally:
            self._unrecorded.discard(this)

    @contextmanager
    def _under_way(self, caller: Caller) -> Iterator[None]:
        """Within, a question is answered.

        Raises:
            ConflictError: one of the same conversation is already, whose answer the question would not know.
        """
        place, talk = (caller.principal.user, caller.request_id), caller.conversation
        if talk in self._talking:
            raise ConflictError("a question of this conversation is being answered; ask when its answer is there", retry_after=1)
        self._answering[place] += 1
        if talk is not None:
            self._talking.add(talk)
        try:
            yield
        finally:
            self._talking.discard(talk or "")
            self._answering[place] -= 1
            if not self._answering[place]:
                del self._answering[place]

    @asynccontextmanager
    async def admitted(self, caller: Caller) -> AsyncIterator[None]:
        pipeline = self.service.pipeline
        least = pipeline.answering.writer.generator.longest if pipeline.answering else 0
        most = self._most_tokens.get(pipeline.identity, least)
        async with self.limits.admitted(caller.principal, most), super().admitted(caller):
            yield

    async def search(self, question: str, k: int, caller: Caller = NOBODY) -> bytes:
        await self.limits.count(caller.principal)
        async with Asking.admitted(self, caller):  # no tokens are used
            return await super().search(question, k)

    async def beside(self, pipeline: Pipeline, asked: Asked, caller: Caller = NOBODY) -> Reply:
        """What another pipeline answers, which is kept in no cache.

        Args:
            pipeline: what answers, in a thread of its own: also after a visitor has left, nobody else uses it meanwhile.
            asked: the question.
            caller: who asks.

        Raises:
            ProblemError: the caller has asked or used too much, or there is no answer.
        """
        key = digest([pipeline.identity, asked.question, list(asked.history)])
        async with self._recorded(pipeline, key, asked, caller) as answered:
            await self.limits.count(caller.principal)
            async with self.admitted(caller):
                try:
                    reply = await asyncio.get_running_loop().run_in_executor(self._comparing, pipeline.ask, *asked)
                except Exception as error:
                    label = pipeline.configuration.label
                    log.exception("request %s was not answered by %s", caller.request_id, label)
                    raise NoAnswerError(f"{label} did not answer; the log of the server says more") from error
            await answered(Answered(answer_part(reply), {"by": "comparison", "seconds": reply.seconds}))
        return reply

    async def _record(self, entry: Entry) -> None:
        """Has what became of a question written; that of a conversation is there afterwards, since the next one rests on it."""
        spent = self._spent(entry)
        self._count(entry, spent)
        if self.journal is None:
            return
        if entry.caller.conversation is None:
            self.journal.note(entry, spent)
        else:
            await self._continue(self.journal, entry, spent)

    async def _continue(self, journal: Journal, entry: Entry, spent: Spent) -> None:
        """Has the next turn of a conversation written. One that comes too late is a request that was refused.

        Raises:
            NotFoundError: the conversation was deleted in the meantime, so nothing of the question is kept.
            ConflictError: another question of it was answered in the meantime.
            UnavailableRecordsError: the records cannot be written.
        """
        try:
            await asyncio.wrap_future(journal.write(entry, spent))
        except (ConflictError, NotFoundError) as problem:
            if isinstance(problem, NotFoundError):
                journal.writer.note(partial(forget_asked, asked=entry.asked))
            alone = entry.caller._replace(conversation=None)
            journal.note(entry._replace(caller=alone, question="", http_status=problem.status, status=REFUSED, body=None), spent)
            raise

    def _note(self, entry: Entry) -> None:
        self._count(entry, Spent())
        if self.journal:
            self.journal.note(entry, Spent())

    def _count(self, entry: Entry, spent: Spent) -> None:
        self.metrics.question(entry, spent)
        if self.tracing:
            self.tracing.question(entry, spent)

    def _spent(self, entry: Entry) -> Spent:
        """What an answer took; one that was kept took nothing."""
        if entry.body is None or entry.served.get("by") == "cache":
            return Spent()
        tokens = json.loads(entry.body)["tokens"]
        prompt, answer = tokens.get("prompt", 0), tokens.get("answer", 0)
        prices = self.settings.prices  # of a million tokens, so a token costs as many millionths
        spent = Spent(prompt, answer, round(prompt * prices.prompt + answer * prices.answer))
        self._most_tokens[entry.identity] = max(self._most_tokens.get(entry.identity, 0), spent.tokens)
        self.limits.use(entry.caller.principal, spent.tokens)
        return spent

    def _lost(self, asked: str) -> None:
        """The record of an answer found no room, so its texts are not to be kept where nobody could find them."""
        task = asyncio.ensure_future(self.forget([asked]))
        self._losing.add(task)
        task.add_done_callback(self._losing.discard)

    async def forget(self, keys: Sequence[str]) -> bool:
        self.recent.forget(keys)
        return await super().forget(keys)

    @property
    def unsettled(self) -> int:
        return super().unsettled + len(self._unrecorded)

    async def stop(self) -> None:
        """Likewise, and sends the traces that wait."""
        await super().stop()
        if self.tracing:
            await asyncio.to_thread(self.tracing.stop)


def _status(problem: ProblemError) -> str:
    if isinstance(problem, TooLateError):
        return LATE
    if isinstance(problem, NoAnswerError):
        return FAILED
    return OVERLOADED if problem.status == 503 else REFUSED
