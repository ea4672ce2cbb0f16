"""Redis, as a service uses it: what several replicas know together. Without it each goes on alone.

A command runs in a thread to its end, whoever leaves meanwhile: one that was cancelled would leave its reply to the next.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from workbench.errors import InputError, MissingExtraError
from workbench.serving.breaker import Breaker

if TYPE_CHECKING:
    from redis import Redis

VARIABLE = "WORKBENCH_REDIS_URL"
FORMS = "redis://HOST:PORT/NUMBER, rediss:// for TLS, or unix:///PATH"
TIMEOUT_SECONDS = 0.25  # for one command; an answer is computed sooner than many of them are waited for
REST_SECONDS = 2.0  # for which nobody waits for a server that failed three times in a row
LOOK_SECONDS = 2.0  # between looks at whether it is there
THREADS = 4

log = logging.getLogger(__name__)
T = TypeVar("T")


class RedisAwayError(Exception):
    """Redis did not answer, so whoever asked does without it."""


class RedisServer:
    """Runs commands; it is used by the tasks of one event loop.

    Attributes:
        name: address of the server, without a password.
        client: of the library; its commands block.
        errors: of the library, where the server does not answer or refuses.
        failures: commands that failed since the beginning.
    """

    def __init__(self, url: str, breaker: Breaker | None = None) -> None:
        """Connects to nothing yet.

        Args:
            url: address of the server, in one of `FORMS`.
            breaker: keeps commands from a server that does not answer; default: one that opens after three failures.

        Raises:
            MissingExtraError: the client's package is not installed.
            InputError: the address is none.
        """
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ModuleNotFoundError as error:
            raise MissingExtraError("redis", "scale", VARIABLE) from error
        try:
            self.client: Redis = redis.Redis.from_url(
                url,
                protocol=2,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),  # by default a dead server is tried for seconds
            )
            if urlsplit(url).scheme in ("redis", "rediss") and not re.fullmatch(r"/?\d*", urlsplit(url).path):
                raise ValueError("its path is the number of a database")  # the client would take another path for 0
            self.client.connection_pool.make_connection()  # what the address names besides is looked at here alone
        except (ValueError, TypeError) as error:
            raise InputError(f"{VARIABLE} is no address of a Redis server; allowed: {FORMS}") from error  # it may hold a password
        self.errors: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        self._refused: tuple[type[Exception], ...] = (redis.AuthenticationError, redis.ResponseError)
        self.name, self.failures = _shown(self.client), 0
        self.breaker = breaker or Breaker(rest_seconds=REST_SECONDS)
        self._said = False  # that it is away
        self._closed = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="redis")
        self._lock = threading.Lock()

    @property
    def away(self) -> bool:
        """Whether nobody waits for it, since it failed several times in a row."""
        return self._said

    def check(self) -> None:
        """Asks the server once, before anything is served.

        Raises:
            InputError: it refuses; where it does not answer at all, the log says so, and it is asked again while serving.
        """
        try:
            self.client.ping()
        except self._refused as error:
            raise InputError(f"{VARIABLE}: {self.name} refuses ({error}); name the user and password in the address") from error
        except self.errors as error:
            self._away(error)

    async def run(self, act: Callable[[Redis], T]) -> T:
        """What commands give, within `TIMEOUT_SECONDS` each.

        Args:
            act: runs commands, in a thread.

        Raises:
            RedisAwayError: the server did not answer, or has not several times in a row.
        """
        with self._lock:
            allowed = not self._closed and self.breaker.allows()
        if not allowed:
            raise RedisAwayError
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._run, act)
        return await asyncio.shield(running)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Within, the server is asked every few seconds, so that its coming and going is known while nobody asks a question."""
        task = asyncio.ensure_future(self._watch())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def close(self) -> None:
        """Waits for the commands under way, and closes the connections; from now on the server is away."""
        self._closed = True
        self._threads.shutdown()
        self.client.close()

    async def _watch(self) -> None:
        while True:
            with suppress(RedisAwayError):
                await self.run(lambda client: client.ping())
            await asyncio.sleep(LOOK_SECONDS)

    def _run(self, act: Callable[[Redis], T]) -> T:
        with self._lock:
            if self.breaker.state == "open":  # it failed while this waited for a thread
                raise RedisAwayError
        try:
            found = act(self.client)
        except self.errors as error:
            with self._lock:
                self.failures += 1
                self.breaker.failed()
                if self.breaker.state != "closed":
                    self._away(error)
            self.client.connection_pool.disconnect(inuse_connections=False)  # the others are as dead
            raise RedisAwayError from error
        except BaseException:
            with self._lock:
                self.breaker.undecided()
            raise
        with self._lock:
            self.breaker.succeeded()
            if self._said:
                self._said = False
                log.warning("Redis at %s answers again", self.name)
        return found

    def _away(self, error: Exception) -> None:
        if not self._said:
            self._said = True
            log.warning("Redis at %s does not answer (%s); this process goes on without it", self.name, _reason(error))


def from_environment() -> RedisServer | None:
    """The server that the environment names; None: it names none.

    Raises:
        MissingExtraError: the client's package is not installed.
        InputError: the address is none, or the server refuses.
    """
    if not (url := os.environ.get("WORKBENCH_REDIS_URL")):
        return None
    server = RedisServer(url)
    server.check()
    return server


def _shown(client: Redis) -> str:
    """The address, without a password."""
    known = client.connection_pool.connection_kwargs
    place = known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}"
    return f"{place}/{known.get('db') or 0}"


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
