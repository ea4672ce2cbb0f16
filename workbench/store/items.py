"""Items: results kept one by one (embedding of a text, score of a pair, answer to a prompt), in SQLite.

An item is found by its namespace (digest of everything but the input) and the digest of its input. A killed process
loses at most the batch it was computing.
"""

from __future__ import annotations

import hashlib
import shlex
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from workbench.errors import InputError

T = TypeVar("T")
DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CANTOPEN", "SQLITE_ERROR")  # as SQLite calls a file that is no table
CHUNK = 500  # keys asked for in one query; SQLite allows 999 variables in its oldest builds


@dataclass(frozen=True)
class Counts:
    """Items of one kind in one go: distinct ones asked for, those found, those computed."""

    distinct: int = 0
    found: int = 0
    computed: int = 0


class Row(NamedTuple):
    """An item as it lies in a table: two digests, the checksum of its value, and the value."""

    namespace: bytes
    key: bytes
    crc: int
    value: bytes

    @property
    def whole(self) -> bool:
        """Whether the value is what was written. A table that something else has written may hold anything."""
        digests = isinstance(self.namespace, bytes) and isinstance(self.key, bytes)
        return digests and isinstance(self.value, bytes) and zlib.crc32(self.value) == self.crc


class Taken(NamedTuple):
    """Items that were taken over, and those that are here with another value, which stayed."""

    new: int
    differing: int


@dataclass(frozen=True)
class ItemKind(Generic[T]):
    """A kind of items.

    Attributes:
        name: what plan.json counts them under.
        verb: what progress calls computing them.
        encode: value -> bytes.
        decode: bytes -> value.
    """

    name: str
    verb: str
    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]


class Items:
    """A table of items. Values are bytes; a checksum is kept beside each.

    One that is only read keeps what is put into it in memory, for this process alone.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only

    @cached_property
    def connection(self) -> sqlite3.Connection:
        """The table that is written, opened when it is first needed."""
        with self._whole():
            place = ":memory:" if self.read_only else self.path
            connection = sqlite3.connect(place, timeout=60, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS items (namespace BLOB, key BLOB, crc INTEGER, value BLOB, UNIQUE (namespace, key))"
            )
            return connection

    @cached_property
    def tables(self) -> list[sqlite3.Connection]:
        """The tables that are read."""
        with self._whole():
            return [self.connection, *(_only_read(self.path) if self.read_only and self.path.exists() else [])]

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Says what a damaged file means, instead of what SQLite calls it.

        Raises:
            InputError: the file is no table of items, or no longer one.
        """
        try:
            yield
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", None) or ""
            if not name.startswith(DAMAGED):
                raise
            beside = f"{shlex.quote(str(self.path))}*"
            raise InputError(
                f"{self.path}, where embeddings, scores and answers are kept one by one, cannot be read ({error}); "
                f"move it away with the files beside it ({beside}): what it held is computed again, all artifacts stay"
            ) from error

    def get(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Values of those keys that are there. One whose checksum does not fit counts as absent."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            asked = f"SELECT key, crc, value FROM items WHERE namespace = ? AND key IN ({','.join('?' * len(part))})"
            with self._whole():
                for table in self.tables:
                    rows = table.execute(asked, (bytes.fromhex(namespace), *part))
                    found |= {key: value for key, crc, value in rows if zlib.crc32(value) == crc}
        return found

    def put(self, namespace: str, values: dict[bytes, bytes]) -> None:
        """Stores values in one transaction; an item that is there is replaced."""
        space = bytes.fromhex(namespace)
        rows = [(space, key, zlib.crc32(value), value) for key, value in values.items()]
        with self._whole(), self._transaction():
            self.connection.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All that is written inside is stored, or nothing of it; no other process writes meanwhile."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with suppress(sqlite3.OperationalError):  # SQLite has rolled back itself where the disk is full
                self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def take(self, rows: Sequence[Row]) -> Taken:
        """Takes over items from elsewhere in one transaction, those that are here and whole stay as they are.

        Args:
            rows: of another table, whose checksums fit.
        """
        spaces: dict[bytes, dict[bytes, Row]] = {}
        for row in rows:
            spaces.setdefault(row.namespace, {})[row.key] = row
        new: list[Row] = []
        differing = 0
        with self._whole(), self._transaction():
            for space, those in spaces.items():
                found = self.get(space.hex(), list(those))
                new += [row for key, row in those.items() if key not in found]
                differing += sum(value != those[key].value for key, value in found.items())
            self.connection.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", new)
        return Taken(len(new), differing)

    def columns(self) -> list[str]:
        """Names of the columns that the table has."""
        return [row[1] for row in self.tables[-1].execute("PRAGMA table_info(items)")]

    def count(self) -> int:
        """Number of items, damaged ones too."""
        with self._whole():
            return sum(table.execute("SELECT COUNT(*) FROM items").fetchone()[0] for table in self.tables)

    def rows(self, together: int = 10_000) -> Iterator[list[Row]]:
        """All items as they lie in the table, damaged ones too, in parts of at most `together`.

        Raises:
            InputError: the file they are in is damaged.
        """
        for table in self.tables:
            last = 0
            while True:
                with self._whole():
                    found = table.execute(
                        "SELECT rowid, namespace, key, crc, value FROM items WHERE rowid > ? ORDER BY rowid LIMIT ?",
                        (last, together),
                    ).fetchall()
                if not found:
                    break
                last = found[-1][0]
                yield [Row(*row[1:]) for row in found]

    def damaged(self) -> int:
        """Number of items whose checksum does not fit.

        Raises:
            InputError: the file they are in is damaged.
        """
        with self._whole():
            rows = (row for table in self.tables for row in table.execute("SELECT crc, value FROM items"))
            return sum(zlib.crc32(value) != crc for crc, value in rows)

    def missing(self, namespace: str, inputs: Sequence[str]) -> list[str]:
        """Distinct inputs, in their order, whose item is not there."""
        distinct = list(dict.fromkeys(inputs))
        found = self.get(namespace, [input_key(text) for text in distinct])
        return [text for text in distinct if input_key(text) not in found]

    def computed(
        self,
        namespace: str,
        inputs: Sequence[str],
        compute: Callable[[list[str]], Iterator[list[tuple[int, T]]]],
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
        on_batch: Callable[[int], None] = lambda n: None,
    ) -> list[T]:
        """Values of all inputs; those not stored are computed once each and stored batch by batch.

        Args:
            namespace: 64 hexadecimal characters.
            inputs: texts, equal ones allowed.
            compute: from the distinct missing inputs to batches of (position, value).
            encode: value -> bytes.
            decode: bytes -> value; what is returned always went through both, stored before or not.
            on_batch: told the number of values after each batch was stored.

        Returns:
            A value for each input.
        """
        distinct = list(dict.fromkeys(inputs))
        keys = {text: input_key(text) for text in distinct}
        found = self.get(namespace, list(keys.values()))
        missing = [text for text in distinct if keys[text] not in found]
        for batch in compute(missing) if missing else ():
            values = {keys[missing[i]]: encode(value) for i, value in batch}
            self.put(namespace, values)
            found |= values
            on_batch(len(values))
        decoded = {text: decode(found[keys[text]]) for text in distinct}
        return [decoded[text] for text in inputs]


def _only_read(path: Path) -> list[sqlite3.Connection]:
    """A table in a place that cannot be written: as others change it, or, where that takes files beside it, as it lies there.

    None where a process was ended before it made its table.
    """
    said = ""
    for how in ("mode=ro", "mode=ro&immutable=1"):
        try:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", timeout=60, uri=True, check_same_thread=False)
        except sqlite3.OperationalError as error:
            said = str(error)
            continue
        try:
            tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        except sqlite3.OperationalError as error:
            connection.close()
            said = str(error)
            continue
        return [connection] if tables else []
    raise InputError(f"{path} can be neither read nor written ({said}); copy the folder of runs to a place of your own")


def input_key(text: str) -> bytes:
    """Digest an input is found by, 32 bytes."""
    return hashlib.sha256(text.encode()).digest()
