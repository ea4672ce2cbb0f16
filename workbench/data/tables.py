"""Arrow tables on disk: written once, opened memory-mapped, so that a large one need not fit in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa

from workbench.component import canonical


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
        for row in batch.to_pylist():
            sha.update(canonical(row).encode() + b"\n")
    return sha.hexdigest()
