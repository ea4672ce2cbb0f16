"""What collections in the layout of BEIR hold: documents, queries and grades, held against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ConfigDict, Field

from workbench.data import columns as further
from workbench.data.assembling import assemble
from workbench.data.conversation import read_history
from workbench.data.dataset import Dataset, Row
from workbench.data.readers.json_lines import Filled, Identifier, Record, Text
from workbench.data.readers.text import counted, few
from workbench.errors import InputError


class CorpusRecord(Record):
    """A line of ``corpus.jsonl``; other keys are not read."""

    id: Identifier = Field(alias="_id", description="a text or a whole number")
    title: Text | None = Field(default=None, description="a text, or null")
    text: Text = Field(description="a text")


class QueryRecord(Record):
    """A line of ``queries.jsonl``; of other keys nothing is read but the columns asked for."""

    model_config = ConfigDict(extra="allow")

    id: Identifier = Field(alias="_id", description="a text or a whole number")
    text: Text = Field(description="a text")
    answers: list[Filled] | None = Field(default=None, description='a list of texts, such as ["break"], or null')
    group: Identifier | None = Field(default=None, description="a text or a whole number, or null")
    history: Any = None


class Grade(NamedTuple):
    """A judgement of a split: how relevant a document is to a query."""

    split: str
    query: str
    document: str
    grade: int


@dataclass(frozen=True)
class Collection:
    """What the parts of a collection say, before they are held against each other.

    Attributes:
        name: of the dataset.
        documents: rows of `workbench.data.dataset.DOCUMENTS`.
        asked: the queries, each with its place.
        grades: the judgements.
        corpus: what messages call the documents.
        queries: what messages call the queries.
        splits: what messages call the judgements of each split.
    """

    name: str
    documents: list[Row]
    asked: Sequence[tuple[str, QueryRecord]]
    grades: Sequence[Grade]
    corpus: str
    queries: str
    splits: Mapping[str, str]

    def dataset(self, notes: Sequence[str], columns: Sequence[str]) -> Dataset:
        """The dataset.

        Args:
            notes: what reading left out.
            columns: further columns that the queries were read with.

        Raises:
            InputError: nothing of a split is relevant, or a query is in two splits.
        """
        told = [*notes, *_empty("query", [(row.id, row.text) for _, row in self.asked])]
        known = {row.id for _, row in self.asked}
        splits = self._split_of_each()
        judgements: list[Row] = [{"query_id": one.query, "doc_id": one.document, "relevance": one.grade} for one in self.grades]
        judgements = _without(judgements, "document", {row["id"] for row in self.documents}, self.corpus, told)
        judgements = _without(judgements, "query", known, self.queries, told)
        splits = {query: split for query, split in splits.items() if query in known}
        self._check_relevant({splits[row["query_id"]] for row in judgements if row["relevance"] > 0}, told)
        first: dict[str, str] = {}
        for row in sorted(judgements, key=lambda r: (-r["relevance"], r["doc_id"])):
            first.setdefault(row["query_id"], row["doc_id"])
        kept = [
            _query(row, splits[row.id], first, where) | further.values(row, columns)
            for where, row in self.asked
            if row.id in splits
        ]
        told += _unanswered(kept, {row["query_id"] for row in judgements if row["relevance"] > 0})
        if len(kept) < len(self.asked):
            told.append(
                f"{counted(len(self.asked) - len(kept), 'query', 'left out, it is', 'left out, they are')} in no qrels file"
            )
        return assemble(self.name, self.documents, kept, judgements, told, columns)

    def _split_of_each(self) -> dict[str, str]:
        """Query -> split."""
        splits: dict[str, str] = {}
        for one in self.grades:
            if (first := splits.setdefault(one.query, one.split)) != one.split:
                where = self.splits[one.split]
                raise InputError(f"{where}: query {one.query!r} is in the splits {first} and {one.split}; allowed: one")
        return splits

    def _check_relevant(self, relevant: set[str], told: Sequence[str]) -> None:
        for split, where in self.splits.items():
            if split not in relevant:
                said = f": {told[0]}" if told else ""
                raise InputError(
                    f"{where} has no grade above 0 for a document and a query that are there, so nothing is relevant{said}; "
                    f"give one, or take the file out of the folder"
                )


def corpus_row(row: CorpusRecord) -> Row:
    """A row of `workbench.data.dataset.DOCUMENTS`."""
    return {"id": row.id, "title": row.title or "", "text": row.text}


def _unanswered(kept: Sequence[Row], answered: set[str]) -> Iterator[str]:
    """Notes on queries of each split that have no relevant document."""
    for split in sorted({row["split"] for row in kept}):
        if bare := [row["id"] for row in kept if row["split"] == split and row["id"] not in answered]:
            said = "no relevant document, so rankings are not measured on"
            one, several = f"of {split} has {said} it", f"of {split} have {said} them"
            yield f"{counted(len(bare), 'query', one, several)}: {few(bare)}"


def _without(judgements: list[Row], what: str, known: set[str], part: str, notes: list[str]) -> list[Row]:
    """Judgements on what is there; published sets name documents and queries that they do not hold, which is counted."""
    key = "doc_id" if what == "document" else "query_id"
    kept = [row for row in judgements if row[key] in known]
    if len(kept) < len(judgements):
        gone = sorted({row[key] for row in judgements} - known)
        left = counted(len(judgements) - len(kept), "judgement")
        notes.append(f"{left} left out, on {counted(len(gone), what)} that {part} does not hold: {few(gone)}")
    return kept


def _empty(what: str, texts: Sequence[tuple[str, str]]) -> list[str]:
    """A note on texts, each with its id, in which nothing stands."""
    empty = [name for name, text in texts if not text.strip()]
    return [f"{counted(len(empty), what, 'has', 'have')} no text: {few(empty)}"] if empty else []


def _query(row: QueryRecord, split: str, first: dict[str, str], where: str) -> Row:
    return {
        "id": row.id,
        "split": split,
        "text": row.text,
        "answers": row.answers,
        "group": row.group if row.group is not None else first.get(row.id, row.id),
        "history": [turn._asdict() for turn in read_history(row.history, f"{where}: history")],
    }
