"""How much one key, or one person, may ask: questions in a minute, and tokens in a day."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from workbench.serving.caller import Principal
from workbench.serving.problems import BudgetSpentError, RateLimitedError

Account = tuple[int, int]
DAY_SECONDS = 86_400


class Limits:
    """Counts questions and tokens; it is used by the tasks of one event loop."""

    def __init__(self, spent: Callable[[Account], Awaitable[int]], clock: Callable[[], float] = time.time) -> None:
        """Nothing is counted yet.

        Args:
            spent: tokens that an account has used today, by the records.
            clock: seconds since 1970.
        """
        self._spent, self.clock = spent, clock
        self._windows = MovingWindowRateLimiter(MemoryStorage())
        self._day = -1
        self._tokens: Counter[Account] = Counter()  # used today
        self._under_way: Counter[Account] = Counter()

    async def count(self, principal: Principal, what: Literal["questions", "changes"] = "questions") -> None:
        """Counts a question, or a change of the records: a vote, a conversation that is begun or removed.

        Args:
            principal: whose it is.
            what: is counted; each for itself.

        Raises:
            RateLimitedError: there were too many in the last minute.
        """
        if principal.per_minute is None:
            return
        await self._within(RateLimitItemPerMinute(principal.per_minute), what, str(principal.account))

    async def try_login(self, name: str, per_minute: int) -> None:
        """Counts an attempt to log in.

        Args:
            name: whose attempts are counted together.
            per_minute: attempts in a minute.

        Raises:
            RateLimitedError: there were too many in the last minute.
        """
        await self._within(RateLimitItemPerMinute(per_minute), "log-ins", name)

    async def _within(self, limit: RateLimitItemPerMinute, what: str, name: str) -> None:
        if await self._windows.hit(limit, what, name):
            return
        free = (await self._windows.get_window_stats(limit, what, name)).reset_time
        wait = max(1, math.ceil(free - time.time()))
        raise RateLimitedError(f"more than {limit.amount} {what} within a minute; allowed: {limit.amount}", retry_after=wait)

    @asynccontextmanager
    async def admitted(self, principal: Principal, most: int) -> AsyncIterator[None]:
        """Within, an answer is computed, whose tokens still fit and are not known yet.

        Args:
            principal: who asks.
            most: tokens that an answer takes at most, as far as is known.

        Raises:
            BudgetSpentError: they do not.
        """
        account = principal.account
        if principal.tokens_per_day is not None:
            used = await self._used(account)
            self._check(principal.tokens_per_day, used, self._under_way[account] * most, most)
        self._under_way[account] += 1
        try:
            yield
        finally:
            self._under_way[account] -= 1
            if not self._under_way[account]:
                del self._under_way[account]

    def _check(self, allowed: int, used: int, reserved: int, most: int) -> None:
        if used + reserved + most > allowed:
            more = f" and {reserved:,} may be by what is under way" if reserved else ""
            raise BudgetSpentError(
                f"{used:,} tokens are used today{more}, and an answer may take {most:,}; allowed: {allowed:,} in a day of UTC",
                retry_after=math.ceil(DAY_SECONDS - self.clock() % DAY_SECONDS),
            )

    def use(self, principal: Principal, tokens: int) -> None:
        """Counts tokens that were used."""
        self._turn_over()
        self._tokens[principal.account] += tokens

    async def _used(self, account: Account) -> int:
        """Tokens that were used today: by the records what others used too, and here what is not in the records yet."""
        written = await self._spent(account)
        self._turn_over()
        self._tokens[account] = max(self._tokens[account], written)
        return self._tokens[account]

    def _turn_over(self) -> None:
        today = int(self.clock() // DAY_SECONDS)
        if today != self._day:
            self._day = today
            self._tokens.clear()
