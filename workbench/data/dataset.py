"""`Dataset`: documents, queries and judgements with their splits; immutable, Arrow-backed.

Judgements come in two forms. *Spans*: a query has pieces of evidence, and each stands at one or more places
``(doc_id, start, end)`` in the documents' texts, offsets in characters. *Documents*: a query has relevant documents
with a grade, as in BEIR.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from workbench.component import digest
from workbench.data import tables
from workbench.data.conversation import History, Turn
from workbench.errors import InputError, unknown

T = TypeVar("T")
Row = dict[str, Any]  # of a table or a file, by column
SPLITS = ("train", "dev", "test")

DOCUMENTS = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
QUERIES = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("text", pa.string()),
        ("answers", pa.list_(pa.string())),  # null: the dataset has no answers; empty: it cannot be answered
        ("group", pa.string()),  # queries of one group are not independent of each other
        ("history", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),  # null: asked by itself
    ]
)
SPANS = pa.schema(
    [("query_id", pa.string()), ("evidence", pa.int32()), ("doc_id", pa.string()), ("start", pa.int64()), ("end", pa.int64())]
)
# where pages, headings, tables, lists and code stand in the documents; see `workbench.data.documents.parser.Element`
STRUCTURE = pa.schema(
    [
        ("doc_id", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("kind", pa.string()),
        ("level", pa.int32()),
        ("label", pa.string()),
    ]
)
UNREAD = pa.schema([("file", pa.string()), ("reason", pa.string()), ("said", pa.string())])
QRELS = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("relevance", pa.int32())])


class Query(NamedTuple):
    """One question. `answers` is None where the dataset has none, empty where it cannot be answered; `history` came before it."""

    id: str
    text: str
    answers: tuple[str, ...] | None
    group: str
    history: History = ()


class Sample(NamedTuple):
    """Some questions of a split, wherever a split can be named: the first `n` in an order that `seed` decides.

    A larger sample holds the smaller one; one as large as the split is the split.
    """

    split: str
    n: int
    seed: int


class Place(NamedTuple):
    """Where a piece of evidence stands: characters `start` to `end` of a document's text."""

    doc_id: str
    start: int
    end: int


@dataclass(frozen=True)
class Judgements:
    """Relevance judgements of one split.

    Attributes:
        kind: ``spans`` or ``documents``.
        spans: query id -> its pieces of evidence -> the places each stands at (``spans`` only).
        documents: query id -> document id -> grade above 0 (``documents`` only).
    """

    kind: Literal["spans", "documents"]
    spans: dict[str, list[list[Place]]]
    documents: dict[str, dict[str, int]]

    @property
    def judged(self) -> set[str]:
        """Ids of the queries that have at least one judgement."""
        return set(self.spans or self.documents)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Documents, queries and judgements.

    Attributes:
        name: for people; never part of a key.
        documents: `DOCUMENTS`, sorted by id.
        queries: `QUERIES`, sorted by id; behind them further columns of texts, null where a query has none.
        judgements: `SPANS` or `QRELS`, sorted.
        notes: what loading dropped or missed, one sentence each.
        documents_digest: content digest of `documents`.
        structure: `STRUCTURE`, sorted; empty where the documents were not parsed.
        unread: `UNREAD`: files of the source that are not among the documents, each with the reason.
    """

    name: str
    documents: pa.Table
    queries: pa.Table
    judgements: pa.Table
    notes: tuple[str, ...]
    documents_digest: str
    structure: pa.Table = field(default_factory=STRUCTURE.empty_table)
    unread: pa.Table = field(default_factory=UNREAD.empty_table)

    @property
    def kind(self) -> Literal["spans", "documents"]:
        """Form of the judgements."""
        return "spans" if self.judgements.schema.equals(SPANS) else "documents"

    @cached_property
    def splits(self) -> dict[str, int]:
        """Number of queries of each split that has any."""
        counts = {row["values"]: row["counts"] for row in pc.value_counts(self.queries["split"]).to_pylist()}
        return {split: counts[split] for split in sorted(counts, key=lambda s: (SPLITS.index(s) if s in SPLITS else 9, s))}

    @cached_property
    def structure_digest(self) -> str:
        """Content digest of `structure`."""
        return tables.content_digest(self.structure)

    def split(self, name: str | Sample) -> list[Query]:
        """Queries of a split, or of a sample of one, sorted by id.

        Raises:
            InputError: the dataset has no such split.
        """
        return self._remembered(("split", name), lambda: self._read_split(name))

    def _read_split(self, name: str | Sample) -> list[Query]:
        if isinstance(name, Sample):
            drawn = sorted(self.split(name.split), key=lambda query: _order(f"{name.seed} {query.id}"))
            return sorted(drawn[: name.n], key=lambda query: query.id)
        if name not in self.splits:
            raise unknown(f"split of {self.name}", name, self.splits)
        rows = self.queries.filter(pc.equal(self.queries["split"], name)).to_pylist()
        return [_query(row) for row in rows]

    @cached_property
    def _memory(self) -> dict[tuple[str, str | Sample], Any]:
        return {}

    def _remembered(self, key: tuple[str, str | Sample], compute: Callable[[], T]) -> T:
        """A value computed once; a dataset does not change, and plans ask for its splits hundreds of times."""
        if key not in self._memory:
            self._memory[key] = compute()
        value: T = self._memory[key]
        return value

    def judged(self, split: str | Sample) -> Judgements:
        """Judgements on the queries of a split."""
        ids = pa.array([query.id for query in self.split(split)])
        rows = self.judgements.filter(pc.is_in(self.judgements["query_id"], ids)).to_pylist()
        spans: dict[str, dict[int, list[Place]]] = defaultdict(lambda: defaultdict(list))
        grades: dict[str, dict[str, int]] = defaultdict(dict)
        for row in rows:
            if self.kind == "spans":
                spans[row["query_id"]][row["evidence"]].append(Place(row["doc_id"], row["start"], row["end"]))
            elif row["relevance"] > 0:
                grades[row["query_id"]][row["doc_id"]] = row["relevance"]
        return Judgements(self.kind, {q: [e[i] for i in sorted(e)] for q, e in spans.items()}, dict(grades))

    def column(self, name: str) -> dict[str, str | None]:
        """Query id -> value of a further column, over all splits; no stage reads it, and it is in no key.

        Raises:
            InputError: the dataset was read without this column.
        """
        further = [field for field in self.queries.column_names if field not in QUERIES.names]
        if name not in further:
            raise unknown(f"column of {self.name}", name, further)
        return dict(zip(self.queries["id"].to_pylist(), self.queries[name].to_pylist(), strict=True))

    def queries_digest(self, split: str | Sample) -> str:
        """Digest of ids and texts of a split's queries: what retrieval and generation see of them."""
        return self._remembered(("queries", split), lambda: digest([[query.id, query.text] for query in self.split(split)]))

    def histories_digest(self, split: str | Sample) -> str:
        """Digest of what was said before a split's queries: what rewriting sees beside them."""
        return self._remembered(("histories", split), lambda: digest([[query.id, query.history] for query in self.split(split)]))

    def answers_digest(self, split: str | Sample) -> str:
        """Digest of answers and judgements of a split: what scoring and training see beside the queries."""
        return self._remembered(("answers", split), lambda: self._answers_digest(split))

    def _answers_digest(self, split: str | Sample) -> str:
        judged = self.judged(split)
        return digest(
            {
                "answers": [[query.id, query.answers] for query in self.split(split)],
                "spans": judged.spans,
                "documents": judged.documents,
            }
        )

    def limited(self, per_split: int | Mapping[str, int]) -> Dataset:
        """The same documents with at most `per_split` queries of each split; with a mapping, of the splits it names.

        Which ones is decided by a hash of their ids, hence the same for every order and every split.
        """
        keep: list[str] = []
        for split in self.splits:
            ids = [query.id for query in self.split(split)]
            most = per_split if isinstance(per_split, int) else per_split.get(split)
            keep += sorted(ids, key=_order)[:most]
        mask = pc.is_in(self.queries["id"], pa.array(keep))
        judged = pc.is_in(self.judgements["query_id"], pa.array(keep))
        return replace(self, queries=self.queries.filter(mask), judgements=self.judgements.filter(judged))

    def held_out(self, share: float, source: str, target: str) -> Dataset:
        """The same dataset with about a share of one split's queries in another, which has none so far.

        Whole groups move, chosen by a hash of their names, so that no query has a near relative in the other split.

        Raises:
            InputError: there is no split `source`, `target` has queries, or all would end up on one side.
        """
        if target in self.splits:
            raise InputError(f"dataset {self.name}: the split {target!r} exists, so none is held out; leave hold_out away")
        groups = sorted({query.group for query in self.split(source)}, key=_order)
        moved = set(groups[: round(share * len(groups))])
        if not 0 < len(moved) < len(groups):
            raise InputError(
                f"dataset {self.name}: holding out {share:g} of {len(groups)} groups of {source!r} leaves one side empty"
            )
        rows = self.queries.to_pylist()
        splits = [target if row["split"] == source and row["group"] in moved else row["split"] for row in rows]
        queries = self.queries.set_column(1, QUERIES.field("split"), pa.array(splits, pa.string()))
        return replace(self, queries=queries)

    def save(self, folder: Path) -> None:
        """Writes the tables and what is known of them into an empty folder."""
        tables.write(folder / "documents.arrow", self.documents)
        tables.write(folder / "queries.arrow", self.queries)
        tables.write(folder / "judgements.arrow", self.judgements)
        for name, table in (("structure", self.structure), ("unread", self.unread)):
            if table.num_rows:
                tables.write(folder / f"{name}.arrow", table)
        meta = {"name": self.name, "notes": self.notes, "documents_digest": self.documents_digest}
        (folder / "dataset.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Opens what `save` wrote, memory-mapped."""
        meta = json.loads((folder / "dataset.json").read_text())
        return cls(
            meta["name"],
            tables.read(folder / "documents.arrow"),
            tables.read(folder / "queries.arrow"),
            tables.read(folder / "judgements.arrow"),
            tuple(meta["notes"]),
            meta["documents_digest"],
            **{path.stem: tables.read(path) for path in (folder / "structure.arrow", folder / "unread.arrow") if path.is_file()},
        )


def _order(text: str) -> bytes:
    """A place in an order that depends on nothing but the text."""
    return hashlib.sha256(text.encode()).digest()


def _query(row: Row) -> Query:
    answers = None if row["answers"] is None else tuple(row["answers"])
    return Query(row["id"], row["text"], answers, row["group"], tuple(Turn(**turn) for turn in row.get("history") or ()))
