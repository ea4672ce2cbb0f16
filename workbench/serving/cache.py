"""Answers by the digest of what they answer: in memory, and in a table of SQLite that outlives the process.

The key is the digest of the pipeline's identity and the exact question, so a hit is the same bytes as a miss. A table that is
locked, full or damaged makes the cache smaller, and no answer wrong.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from workbench.serving.breaker import Breaker

log = logging.getLogger(__name__)
WAIT_SECONDS = 0.1  # for a table that another process holds; a miss is better than a wait


class Hit(NamedTuple):
    """The bytes of an answer, and when it was computed, in seconds since 1970."""

    body: bytes
    created: float


class MemoryCache:
    """Answers within a number of bytes; those that were used longest ago make room."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._hits: OrderedDict[str, Hit] = OrderedDict()

    def get(self, key: str) -> Hit | None:
        """The answer, if it is there."""
        if key in self._hits:
            self._hits.move_to_end(key)
        return self._hits.get(key)

    def put(self, key: str, hit: Hit) -> None:
        """Keeps an answer."""
        if before := self._hits.pop(key, None):
            self.bytes -= len(before.body)
        self._hits[key] = hit
        self.bytes += len(hit.body)
        while self.bytes > self.most_bytes:
            self.bytes -= len(self._hits.popitem(last=False)[1].body)

    def forget(self, key: str) -> None:
        """Removes an answer."""
        if before := self._hits.pop(key, None):
            self.bytes -= len(before.body)


class DiskCache:
    """Answers in a table. It is used by one thread at a time, and never raises: what goes wrong is logged."""

    def __init__(self, path: Path, most_bytes: int, days: float, clock: Callable[[], float] = time.time) -> None:
        """Opens nothing yet.

        Args:
            path: of the table.
            most_bytes: of the answers in it; the ones used longest ago make room.
            days: for which an answer is kept.
            clock: seconds since 1970.
        """
        self.path, self.most_bytes, self.days, self.clock = path, most_bytes, days, clock
        self.breaker = Breaker()
        self._connection: sqlite3.Connection | None = None

    def get(self, key: str) -> Hit | None:
        """The answer, if it is there, whole and not too old."""
        return self._guarded(lambda table: self._found(table, key))

    def put(self, key: str, hit: Hit) -> None:
        """Keeps an answer."""
        self._guarded(lambda table: self._kept(table, key, hit))

    def forget(self, *keys: str) -> bool:
        """Removes answers, so that nothing of them is left in the file; False: it cannot be written, and they are there still."""
        try:
            table = self._table()
            table.executemany("DELETE FROM answers WHERE key = ?", [(key,) for key in keys])
            ((busy, *_),) = table.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if busy:
                raise sqlite3.OperationalError("another process reads it")
        except (sqlite3.Error, OSError) as error:
            log.warning("%d answers cannot be removed from %s for now (%s)", len(keys), self.path, error)
            self.close()
            return False
        return True

    def close(self) -> None:
        """Closes the table."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _guarded(self, act: Callable[[sqlite3.Connection], object]) -> Hit | None:
        if not self.breaker.allows():
            return None
        try:
            found = act(self._table())
        except (sqlite3.Error, OSError) as error:
            log.warning("the answers kept in %s cannot be used (%s)", self.path, error)
            self.breaker.failed()
            self.close()
            return None
        self.breaker.succeeded()
        return found if isinstance(found, Hit) else None

    def _table(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.touch(mode=0o600, exist_ok=True)  # it holds texts of people
            table = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                table.execute("PRAGMA journal_mode=WAL")
                table.execute("PRAGMA synchronous=NORMAL")
                table.execute("PRAGMA secure_delete=ON")
                table.execute(
                    "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, body BLOB, crc INTEGER, created REAL, used REAL)"
                )
            except sqlite3.Error:
                table.close()
                raise
            self._connection = table
        return self._connection

    def _found(self, table: sqlite3.Connection, key: str) -> Hit | None:
        row = table.execute("SELECT body, crc, created FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        body, crc, created = row
        if not isinstance(body, bytes) or zlib.crc32(key.encode() + body) != crc or self._too_old(created):
            table.execute("DELETE FROM answers WHERE key = ?", (key,))
            return None
        table.execute("UPDATE answers SET used = ? WHERE key = ?", (self.clock(), key))
        return Hit(body, created)

    def _too_old(self, created: float) -> bool:
        return self.clock() - created > self.days * 86_400

    def _kept(self, table: sqlite3.Connection, key: str, hit: Hit) -> None:
        table.execute("BEGIN IMMEDIATE")
        try:
            row = (key, hit.body, zlib.crc32(key.encode() + hit.body), hit.created, self.clock())
            table.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", row)
            table.execute("DELETE FROM answers WHERE created < ?", (self.clock() - self.days * 86_400,))
            (size,) = table.execute("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM answers").fetchone()
            while size > self.most_bytes:
                oldest, length = table.execute("SELECT key, LENGTH(body) FROM answers ORDER BY used LIMIT 1").fetchone()
                table.execute("DELETE FROM answers WHERE key = ?", (oldest,))
                size -= length
        except BaseException:
            table.execute("ROLLBACK") if table.in_transaction else None
            raise
        table.execute("COMMIT")
