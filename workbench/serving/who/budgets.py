"""Tokens that an account uses in a day, counted by all replicas together in Redis, with what is under way and not known yet."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.serving.redis_server import RedisServer

if TYPE_CHECKING:
    from redis import Redis

Account = tuple[int, int]
DAY_MS, LONGEST_MS = 2 * 86_400_000, 600_000  # after which a day's count, and what a process that died had under way, are gone

# Tokens used and answers under way; a further answer is noted where all of them fit into what is allowed.
RESERVE = """
local used = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1]))
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local under_way = redis.call('ZCARD', KEYS[2])
local most, allowed = tonumber(ARGV[2]), tonumber(ARGV[3])
local fits = (used + under_way * most + most <= allowed) and 1 or 0
if fits == 1 then
    redis.call('ZADD', KEYS[2], now + ARGV[5], ARGV[4])
    redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
return {fits, string.format('%.0f', used), under_way}
"""
SETTLE = """
redis.call('ZREM', KEYS[2], ARGV[1])
if tonumber(ARGV[2]) > 0 then
    redis.call('INCRBY', KEYS[1], ARGV[2])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
"""


class Reserved(NamedTuple):
    """Whether an answer's tokens fit, and what the account had used and under way before: tokens, and answers.

    Attributes:
        token: by which what is under way is settled.
        fits: whether it was noted.
        used: tokens that were used today.
        under_way: answers that were under way.
    """

    token: str
    fits: bool
    used: int
    under_way: int


class SharedBudgets:
    """What accounts have used today. Every method raises `RedisAwayError` where the server is away."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    async def reserve(self, day: int, account: Account, known: int, most: int, allowed: int) -> Reserved:
        """Notes that an answer is under way, if its tokens fit.

        Args:
            day: number of the day since 1970.
            account: whose answer it is.
            known: tokens that the account has used by what is known here.
            most: tokens that an answer takes at most.
            allowed: tokens in a day.
        """
        token = secrets.token_hex(16)
        values = [known, most, allowed, token, LONGEST_MS]
        fits, used, under_way = await self._run(RESERVE, day, account, values)
        return Reserved(token, bool(fits), int(used), int(under_way))

    async def settle(self, day: int, account: Account, token: str, tokens: int) -> None:
        """Notes that an answer is not under way any more.

        Args:
            day: number of the day since 1970.
            account: whose answer it was.
            token: of what was reserved.
            tokens: that were used.
        """
        await self._run(SETTLE, day, account, [token, tokens, DAY_MS])

    async def _run(self, script: str, day: int, account: Account, values: list[Any]) -> Any:
        user, key = account
        names = [f"workbench:tokens:{day}:{user}:{key}", f"workbench:under-way:{user}:{key}"]

        def act(client: Redis) -> Any:
            return client.eval(script, len(names), *names, *map(str, values))

        return await self.server.run(act)
