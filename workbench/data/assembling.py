"""Rows of documents, queries and judgements -> a dataset, checked."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from workbench.data import tables
from workbench.data.dataset import DOCUMENTS, QRELS, QUERIES, SPANS, Dataset, Row
from workbench.data.readers.text import counted
from workbench.errors import InputError


def assemble(
    name: str,
    documents: Sequence[Row],
    queries: Sequence[Row],
    judgements: Sequence[Row],
    notes: Sequence[str],
    columns: Sequence[str] = (),
) -> Dataset:
    """A `Dataset` from rows, checked.

    Args:
        name: for messages.
        documents: rows of `DOCUMENTS`.
        queries: rows of `QUERIES`.
        judgements: rows of `SPANS` or of `QRELS`.
        notes: what the caller dropped or missed.
        columns: further columns of the queries, named otherwise than those of `QUERIES`; a row may lack them.

    Raises:
        InputError: no documents or no queries, an id given twice, or a judgement on an unknown id.
    """
    if not documents:
        raise InputError(f"dataset {name}: the corpus is empty; at least one document is needed")
    if not queries:
        raise InputError(f"dataset {name}: there are no queries; at least one is needed")
    doc_ids, query_ids = _distinct(name, "document", documents), _distinct(name, "query", queries)
    for row in judgements:
        if row["doc_id"] not in doc_ids:
            raise InputError(
                f"dataset {name}: query {row['query_id']!r} is judged on document {row['doc_id']!r}, which is not in the corpus"
            )
        if row["query_id"] not in query_ids:
            raise InputError(f"dataset {name}: a judgement names query {row['query_id']!r}, which is not among the queries")
    empty = [row["id"] for row in documents if not row["text"].strip() and not row["title"].strip()]
    if len(empty) == len(documents):
        raise InputError(f"dataset {name}: none of its {len(documents)} documents has a text; at least one is needed")
    if empty:
        few = f"{', '.join(map(repr, empty[:5]))}{', ...' if len(empty) > 5 else ''}"
        notes = [*notes, f"{counted(len(empty), 'document', 'has', 'have')} no text: {few}"]
    schema = SPANS if judgements and "evidence" in judgements[0] else QRELS
    table = pa.Table.from_pylist(sorted(documents, key=lambda row: row["id"]), DOCUMENTS)
    asked = pa.schema([*QUERIES, *(pa.field(column, pa.string()) for column in columns)])
    return Dataset(
        name,
        table,
        pa.Table.from_pylist(sorted(queries, key=lambda row: row["id"]), asked),
        pa.Table.from_pylist(sorted(judgements, key=lambda row: tuple(row[f.name] for f in schema)), schema),
        tuple(notes),
        tables.content_digest(table),
    )


def _distinct(name: str, what: str, rows: Sequence[Row]) -> set[str]:
    seen: set[str] = set()
    for row in rows:
        if row["id"] in seen:
            raise InputError(f"dataset {name}: {what} id {row['id']!r} is given twice; ids must be distinct")
        seen.add(row["id"])
    return seen
