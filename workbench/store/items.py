"""Items: results kept one by one (embedding of a text, score of a pair, answer to a prompt), in SQLite.

An item is found by its namespace (digest of everything but the input) and the digest of its input. A killed process
loses at most the batch it was computing.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from workbench.errors import InputError

T = TypeVar("T")
CHUNK = 500  # keys asked for in one query; SQLite allows 999 variables in its oldest builds


@dataclass(frozen=True)
class Counts:
    """Items of one kind in one go: distinct ones asked for, those found, those computed."""

    distinct: int = 0
    found: int = 0
    computed: int = 0


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
        self.connection = sqlite3.connect(
            ":memory:" if read_only else path, timeout=60, isolation_level=None, check_same_thread=False
        )
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS items (namespace BLOB, key BLOB, crc INTEGER, value BLOB, UNIQUE (namespace, key))"
        )
        self.tables = [self.connection]
        if read_only and path.is_file():
            self.tables.append(_only_read(path))

    def get(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Values of those keys that are there. One whose checksum does not fit counts as absent."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            asked = f"SELECT key, crc, value FROM items WHERE namespace = ? AND key IN ({','.join('?' * len(part))})"
            for table in self.tables:
                rows = table.execute(asked, (bytes.fromhex(namespace), *part))
                found |= {key: value for key, crc, value in rows if zlib.crc32(value) == crc}
        return found

    def put(self, namespace: str, values: dict[bytes, bytes]) -> None:
        """Stores values in one transaction; an item that is there is replaced."""
        space = bytes.fromhex(namespace)
        rows = [(space, key, zlib.crc32(value), value) for key, value in values.items()]
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            self.connection.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", rows)
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def damaged(self) -> int:
        """Number of items whose checksum does not fit."""
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


def _only_read(path: Path) -> sqlite3.Connection:
    """A table in a place that cannot be written: as others change it, or, where that takes files beside it, as it lies there."""
    for how in ("mode=ro", "mode=ro&immutable=1"):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", timeout=60, uri=True, check_same_thread=False)
        try:
            connection.execute("SELECT 1 FROM items LIMIT 1").fetchall()
        except sqlite3.OperationalError:
            connection.close()
            continue
        return connection
    raise InputError(f"{path} can be neither read nor written; copy the folder of runs to a place of your own")


def input_key(text: str) -> bytes:
    """Digest an input is found by, 32 bytes."""
    return hashlib.sha256(text.encode()).digest()
