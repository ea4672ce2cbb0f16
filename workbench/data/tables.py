"""Arrow tables on disk: written once, opened memory-mapped, so that a large one need not fit in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from workbench.component import canonical

# how JSON writes signs; the backslash first, since the others are written with one
SIGNS = {b"\\": b"\\\\", b'"': b'\\"', b"\n": b"\\n", b"\t": b"\\t", b"\f": b"\\f", b"\r": b"\\r", b"\b": b"\\b"}
RARE = bytes([*range(8), 11, *range(14, 32)])  # all other control characters
LONG = 1000  # characters


def write(path: Path, table: pa.Table) -> None:
    """Writes a table as an Arrow IPC file; the same table gives the same bytes."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=65_536)


def read(path: Path) -> pa.Table:
    """Opens a table memory-mapped: columns are read from disk when they are used."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def content_digest(table: pa.Table) -> str:
    """SHA-256 of a table's rows in their order, independent of how it is cut into batches."""
    sha = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=4096):
        written = _long if batch.nbytes > LONG * batch.num_rows else _short
        for row in batch.to_pylist():
            sha.update(written(row) + b"\n")
    return sha.hexdigest()


def _short(row: Mapping[str, Any]) -> bytes:
    return canonical(row).encode()


def _long(row: Mapping[str, Any]) -> bytes:
    """The same as `_short`, some times as fast where a text is long."""
    return b"{%b}" % b",".join(b"%b:%b" % (_value(name), _value(row[name])) for name in sorted(row))


def _value(value: object) -> bytes:
    if not isinstance(value, str) or len(value) <= LONG:
        return canonical(value).encode()
    raw = value.encode()
    if len(raw.translate(None, RARE)) < len(raw):
        return canonical(value).encode()
    for sign, written in SIGNS.items():
        raw = raw.replace(sign, written)
    return b'"%b"' % raw
