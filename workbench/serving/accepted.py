"""Questions whose answers are fetched later, as all replicas know them: one of them answers, and any is asked for the answer.

The answer itself is in the records that the replicas share; Redis says that it is still being written, or why there is none.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from workbench.component import digest
from workbench.serving.caller import Caller
from workbench.serving.problems import PROBLEMS, ProblemError
from workbench.serving.redis_server import RedisAwayError, RedisServer

PREFIX = "workbench:later:"
PENDING = b"pending"
FAILED_SECONDS = 3600  # for which it is known why there is no answer

_named = {kind.name: kind for kind in PROBLEMS}


class Accepted:
    """What replicas know of such questions. It never raises for a server that is away, which knows none."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    async def begin(self, caller: Caller, seconds: float) -> None:
        """Notes that an answer is being written.

        Args:
            caller: who asks.
            seconds: after which it is not any more, whatever became of the process.
        """
        await self._set(caller, PENDING, seconds)

    async def end(self, caller: Caller, problem: ProblemError | None = None) -> None:
        """Notes that the answer is there, or why there is none."""
        if problem is not None:
            known = {"name": problem.name, "detail": problem.detail, "retry_after": problem.retry_after, "more": problem.more}
            await self._set(caller, json.dumps(known).encode(), FAILED_SECONDS)
            return
        with suppress(RedisAwayError):
            await self.server.run(lambda client: client.delete(_key(caller)))

    async def is_pending(self, caller: Caller) -> bool:
        """Whether some replica writes the answer.

        Args:
            caller: who asks for it, by the id of the request that asked the question.

        Raises:
            ProblemError: why there is none.
        """
        try:
            found: Any = await self.server.run(lambda client: client.get(_key(caller)))
        except RedisAwayError:
            return False
        if found is None:
            return False
        if found == PENDING:
            return True
        known = json.loads(found)
        raise _named[known["name"]](known["detail"], known["retry_after"], **known["more"])

    async def _set(self, caller: Caller, value: bytes, seconds: float) -> None:
        with suppress(RedisAwayError):
            await self.server.run(lambda client: client.set(_key(caller), value, px=round(seconds * 1000)))


def _key(caller: Caller) -> str:
    return PREFIX + digest([caller.principal.user, caller.request_id])
