"""Answers in Redis by the digest of what they answer, and who computes one: of equal questions to all replicas one is computed.

Whoever computes holds a lease, which ends with the process; the others wait for the answer, and take over where the lease ends.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from workbench.errors import InputError
from workbench.serving.cache import Hit
from workbench.serving.redis_server import VARIABLE, RedisAwayError, RedisServer

ANSWERS, LEASES = "workbench:answer:", "workbench:lease:"
LEASE_SECONDS = 5.0  # after which the answer of a process that died is computed by another one
RENEW_SECONDS = 1.5
POLL_SECONDS, LONGEST_POLL_SECONDS = 0.05, 0.25  # between looks for what another replica computes
TOGETHER = 500  # keys in one command

# the answer, or 1 where whoever asks is to compute it, or 0 where somebody else does
TAKE = """
local found = redis.call('GET', KEYS[1])
if found then return found end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
"""
RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Lease(NamedTuple):
    """What came of waiting for a lease: the answer that somebody else computed, or None: it is to be computed here."""

    hit: Hit | None


class RedisCache:
    """Answers that all replicas share. It never raises: a server that is away holds none, and leases nothing."""

    def __init__(self, server: RedisServer, days: float, clock: Callable[[], float] = time.time) -> None:
        """Asks for nothing yet.

        Args:
            server: where the answers are.
            days: for which an answer is kept.
            clock: seconds since 1970.
        """
        self.server, self.days, self.clock = server, days, clock

    async def get(self, key: str) -> Hit | None:
        """The answer, if it is there, whole and under its own key."""
        try:
            return opened(key, await self.server.run(lambda client: client.get(ANSWERS + key)))
        except RedisAwayError:
            return None

    async def put(self, key: str, hit: Hit) -> None:
        """Keeps an answer until it is too old."""
        left = round((hit.created + self.days * 86_400 - self.clock()) * 1000)
        if left > 0:
            with suppress(RedisAwayError):
                await self.server.run(lambda client: client.set(ANSWERS + key, packed(key, hit), px=left))

    async def forget(self, keys: Sequence[str]) -> bool:
        """Removes answers; False: the server is away, and they may be there still."""
        try:
            await self.server.run(lambda client: remove(client, keys))
        except RedisAwayError:
            return False
        return True

    @asynccontextmanager
    async def leased(self, key: str, waits: Callable[[], bool]) -> AsyncIterator[Lease]:
        """Within, no other replica computes the answer, or it is there.

        Args:
            key: of the answer.
            waits: whether anybody still waits for it.

        Yields:
            The answer; or, without it, the lease of it, or what goes for one where the server is away.
        """
        token, given, pause = secrets.token_hex(16), False, POLL_SECONDS
        try:
            while waits():
                found = await self._taken(key, token)
                if isinstance(found, Hit):
                    yield Lease(found)
                    return
                if given := found:
                    break
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, LONGEST_POLL_SECONDS)
        except RedisAwayError:
            pass
        if not given:
            yield Lease(None)
            return
        renewing = asyncio.ensure_future(self._renew(key, token))
        try:
            yield Lease(None)
        finally:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
            with suppress(RedisAwayError):
                await self._script(RELEASE, [LEASES + key], token)

    async def _taken(self, key: str, token: str) -> Hit | bool:
        """The answer, or whether this is who computes it.

        Raises:
            RedisAwayError: the server is away.
        """
        found = await self._script(TAKE, [ANSWERS + key, LEASES + key], token, round(LEASE_SECONDS * 1000))
        if not isinstance(found, bytes):
            return bool(found == 1)
        if hit := opened(key, found):
            return hit
        await self.server.run(lambda client: remove(client, [key]))  # it is damaged
        return False

    async def _renew(self, key: str, token: str) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with suppress(RedisAwayError):
                await self._script(RENEW, [LEASES + key], token, round(LEASE_SECONDS * 1000))

    async def _script(self, script: str, keys: Sequence[str], *values: str | int) -> Any:
        return await self.server.run(lambda client: client.eval(script, len(keys), *keys, *map(str, values)))


def packed(key: str, hit: Hit) -> bytes:
    """An answer as it is kept: its key, when it was computed, a checksum, and its bytes."""
    return b"%s %r %d\n%s" % (key.encode(), hit.created, _checksum(key, hit.body), hit.body)


def opened(key: str, kept: Any) -> Hit | None:
    """An answer that was kept under a key; None where there is none, where it is another's, or damaged."""
    if not isinstance(kept, bytes):
        return None
    head, _, body = kept.partition(b"\n")
    try:
        name, created, checksum = head.decode().split(" ")
        if name != key or int(checksum) != _checksum(key, body):
            return None
        return Hit(body, float(created))
    except ValueError:
        return None


def remove(client: Any, keys: Sequence[str]) -> None:
    """Removes answers.

    Args:
        client: of the server.
        keys: of the answers.
    """
    for start in range(0, len(keys), TOGETHER):
        client.delete(*(ANSWERS + key for key in keys[start : start + TOGETHER]))


def empty(server: RedisServer) -> None:
    """Removes all answers, of whichever service.

    Raises:
        InputError: the server is away.
    """
    try:
        names = list(server.client.scan_iter(ANSWERS + "*", count=TOGETHER))
        remove(server.client, [name.decode().removeprefix(ANSWERS) for name in names])
    except server.errors as error:
        raise InputError(
            f"no texts are to be kept (keep), and answers that were kept before cannot be removed from Redis at {server.name} "
            f"({error}); start it, or serve without {VARIABLE}"
        ) from error


def _checksum(key: str, body: bytes) -> int:
    return zlib.crc32(key.encode() + body)
