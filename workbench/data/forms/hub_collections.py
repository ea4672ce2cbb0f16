"""Collections of the hub in the layout of BEIR: documents, queries and judgements are configurations of a set, or sets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.component import digest
from workbench.data import columns as further
from workbench.data.collection import Collection, CorpusRecord, Grade, QueryRecord, corpus_row
from workbench.data.dataset import Dataset
from workbench.data.forms.hub import Hub, is_saved
from workbench.data.forms.known import Questions
from workbench.data.forms.question import Asked, Corpus
from workbench.data.prepared import PREPARATION
from workbench.data.readers.json_lines import Read, distinct, record, shown
from workbench.errors import InputError

CORPUS, QUERIES = "corpus", "queries"  # names of configurations
QRELS = ("qrels", "default")  # likewise, of the judgements
APART = "-qrels"  # behind the name of a set: that of its judgements, where they are a set of their own
COLUMNS = {"query": ("query-id", "query_id"), "document": ("corpus-id", "corpus_id"), "grade": ("score",)}


@dataclass(frozen=True)
class HubCollection:
    """A collection of the hub.

    Attributes:
        name: of the set.
        corpus: its documents.
        queries: its queries.
        qrels: its judgements, in splits.
    """

    name: str
    corpus: Hub
    queries: Hub
    qrels: Hub

    def content(self) -> str:
        """Digest of what is read."""
        return digest([PREPARATION, *(part.content() for part in (self.corpus, self.queries, self.qrels))])

    def questions(self) -> Questions:
        """The queries, without their judgements."""
        asked = [
            Asked(str(row.get("_id")), str(row.get("text")), None, where, columns=further.cells(row))
            for where, row in _rows(self.queries)
        ]
        return Questions("beir", "a collection in the layout of BEIR", asked, Corpus(), "own", {}, [])

    def dataset(self, columns: Sequence[str]) -> Dataset:
        """The dataset.

        Args:
            columns: further columns of the queries that are kept.

        Raises:
            InputError: a row is of another form, an id is given twice, a document has two grades for one query, nothing of a
                split is relevant, or no query has one of the columns.
        """
        said = f"hub set {self.name}"
        read = [(where, record(row, CorpusRecord, where)) for where, row in _rows(self.corpus)]
        documents = [corpus_row(row) for _, row in distinct((where, row.id, row) for where, row in read)]
        model = further.with_columns(QueryRecord, columns)
        queries = [(where, record(row, model, where)) for where, row in _rows(self.queries)]
        asked = list(distinct((where, row.id, row) for where, row in queries))
        further.refuse_missing((row for _, row in asked), columns, said)
        grades = list(_grades(self.qrels))
        splits = {one.split: f"{said}, judgements of {one.split}" for one in grades}
        name = self.name.rstrip("/").rpartition("/")[2]
        return Collection(name, documents, asked, grades, CORPUS, QUERIES, splits).dataset((), columns)


def collection(hub: Hub) -> HubCollection | None:
    """The collection that a set of the hub is, or None where it is none.

    A set is one where it has the configurations ``corpus`` and ``queries``. Its judgements are its configuration ``qrels`` or
    ``default``, or the set whose name has ``-qrels`` behind it. A folder may hold these parts in folders of their names.

    Args:
        hub: the set; where it names a configuration, nothing else of the set is read.

    Raises:
        InputError: it is a collection, and its judgements cannot be read.
    """
    if hub.config is not None:
        return None
    folder = Path(hub.name).expanduser()
    if all(is_saved(folder / name) for name in (CORPUS, QUERIES)):
        judged = next((name for name in QRELS if is_saved(folder / name)), "")
        if not judged:
            raise InputError(f"dataset.hub: {folder} has {CORPUS} and {QUERIES}, and no judgements in {' or '.join(QRELS)}")
        corpus, queries, qrels = (replace(hub, name=str(folder / name)) for name in (CORPUS, QUERIES, judged))
        return HubCollection(hub.name, replace(corpus, split=None), replace(queries, split=None), qrels)
    try:
        judgements = _are_judgements(hub)
    except InputError as error:
        if not all(re.search(rf"\b{name}\b", str(error.__cause__)) for name in (CORPUS, QUERIES)):
            return None  # whoever reads it as a set of questions says why it cannot be read
        judgements = False
    else:
        if not judgements:
            return None
    corpus, queries = (replace(hub, config=name, split=None) for name in (CORPUS, QUERIES))
    return HubCollection(hub.name, corpus, queries, hub if judgements else _qrels(hub))


def _qrels(hub: Hub) -> Hub:
    """The judgements of a set whose configurations do not begin with them."""
    apart = replace(hub, name=f"{hub.name.rstrip('/')}{APART}", revision=None)
    tried = [*(replace(hub, config=name) for name in QRELS), apart]
    for one in tried:
        try:
            if _are_judgements(one):
                return one
        except InputError:
            continue
    raise InputError(
        f"dataset.hub: {hub.name} has documents and queries, and no judgements: neither its configurations {' and '.join(QRELS)} "
        f"nor the set {apart.name} can be read; fetch them once with a network"
    )


def _are_judgements(hub: Hub) -> bool:
    """Whether a set holds judgements; its first rows say it."""
    return all(any(name in columns for name in names) for columns in hub.columns() for names in COLUMNS.values())


def _rows(hub: Hub) -> Iterator[Read]:
    """The rows of all splits; an ``id`` is an ``_id``."""
    for part in hub.rows().values():
        for where, row in part:
            yield Read(where, row if "_id" in row or "id" not in row else {**row, "_id": row["id"]})


def _grades(hub: Hub) -> Iterator[Grade]:
    """The judgements; one that repeats another is dropped."""
    seen: dict[tuple[str, str, str], tuple[int, str]] = {}
    for name, part in hub.rows().items():
        split = hub.split_of(name) or name
        for where, row in part:
            query, document = (_id(row, COLUMNS[key], where) for key in ("query", "document"))
            grade = _whole(row, where)
            before, at = seen.setdefault((split, query, document), (grade, where))
            if before != grade:
                raise InputError(
                    f"{where}: document {document!r} has the grade {grade} for query {query!r}, and in {at.rpartition(', ')[2]} "
                    f"the grade {before}; give one"
                )
            if at == where:
                yield Grade(split, query, document, grade)


def _id(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{where}: {names[0]}: received {shown(value)}; allowed: a text or a whole number")
    return str(value)


def _whole(row: Mapping[str, Any], where: str) -> int:
    value = row.get("score")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InputError(f"{where}: score: received {shown(value)}; allowed: a whole number")
