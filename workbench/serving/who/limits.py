"""How much one key, or one person, may ask: questions in a minute, and tokens in a day.

With Redis all replicas count together; where it is away, each counts for itself.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Literal

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from workbench.serving.caller import Principal
from workbench.serving.problems import BudgetSpentError, RateLimitedError
from workbench.serving.redis_server import RedisAwayError, RedisServer

if TYPE_CHECKING:
    from limits.strategies import MovingWindowRateLimiter as SharedWindows

    from workbench.serving.who.budgets import SharedBudgets

Account = tuple[int, int]
DAY_SECONDS = 86_400


class Limits:
    """Counts questions and tokens; it is used by the tasks of one event loop."""

    def __init__(
        self,
        spent: Callable[[Account], Awaitable[int]],
        clock: Callable[[], float] = time.time,
        redis: RedisServer | None = None,
    ) -> None:
        """Nothing is counted yet.

        Args:
            spent: tokens that an account has used today, by the records.
            clock: seconds since 1970.
            redis: where all replicas count together; None: this process counts for itself.
        """
        self._spent, self.clock, self._redis = spent, clock, redis
        self._windows = MovingWindowRateLimiter(MemoryStorage())
        self._budgets: SharedBudgets | None = None
        self._shared_windows: SharedWindows | None = None
        if redis:
            self._budgets, self._shared_windows = _shared(redis)
        self._unshared: Counter[Account] = Counter()  # used, and not in Redis yet
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
        free = await self._free(limit, what, name)
        if free is None:
            return
        wait = max(1, math.ceil(free - time.time()))
        raise RateLimitedError(f"more than {limit.amount} {what} within a minute; allowed: {limit.amount}", retry_after=wait)

    async def _free(self, limit: RateLimitItemPerMinute, what: str, name: str) -> float | None:
        """When there is room again, in seconds since 1970; None: there was, and it is counted."""
        if self._redis and self._shared_windows:
            with suppress(RedisAwayError):
                windows = self._shared_windows
                return await self._redis.run(lambda _: _free(windows, limit, what, name))
        if await self._windows.hit(limit, what, name):
            return None
        return (await self._windows.get_window_stats(limit, what, name)).reset_time

    @asynccontextmanager
    async def admitted(self, principal: Principal, most: int) -> AsyncIterator[None]:
        """Within, an answer is computed, whose tokens still fit and are not known yet.

        Args:
            principal: who asks.
            most: tokens that an answer takes at most, as far as is known.

        Raises:
            BudgetSpentError: they do not.
        """
        account, allowed = principal.account, principal.tokens_per_day
        settled = None
        if allowed is not None:
            used = await self._used(account)
            self._check(allowed, used, self._under_way[account] * most, most)
            settled = await self._reserved(account, used, most, allowed)
        self._under_way[account] += 1
        try:
            yield
        finally:
            self._under_way[account] -= 1
            if not self._under_way[account]:
                del self._under_way[account]
            if settled:
                await settled()

    async def _reserved(self, account: Account, used: int, most: int, allowed: int) -> Callable[[], Awaitable[None]] | None:
        """Has all replicas know that an answer is under way; what is given is to be called at its end.

        Args:
            account: who asks.
            used: tokens that were used today, by what is known here.
            most: tokens that an answer takes at most.
            allowed: tokens in a day.

        Raises:
            BudgetSpentError: with what others have under way its tokens do not fit.
        """
        if (budgets := self._budgets) is None:
            return None
        day = self._day
        try:
            reserved = await budgets.reserve(day, account, used, most, allowed)
        except RedisAwayError:
            return None
        if not reserved.fits:
            self._check(allowed, reserved.used, reserved.under_way * most, most)

        async def settled() -> None:
            tokens = self._unshared.pop(account, 0)
            try:
                await budgets.settle(day, account, reserved.token, tokens)
            except RedisAwayError:
                self._unshared[account] += tokens

        return settled

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
        if self._budgets and principal.tokens_per_day is not None:
            self._unshared[principal.account] += tokens

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
            self._unshared.clear()


def _shared(redis: RedisServer) -> tuple[SharedBudgets, SharedWindows]:
    from limits.storage import RedisStorage
    from limits.strategies import MovingWindowRateLimiter as Windows

    from workbench.serving.who.budgets import SharedBudgets

    storage = RedisStorage("redis://", connection_pool=redis.client.connection_pool, key_prefix="workbench:limits")
    return SharedBudgets(redis), Windows(storage)


def _free(windows: SharedWindows, limit: RateLimitItemPerMinute, what: str, name: str) -> float | None:
    """As `Limits._free`, counted in Redis; it blocks."""
    if windows.hit(limit, what, name):
        return None
    return windows.get_window_stats(limit, what, name).reset_time
