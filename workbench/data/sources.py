"""Where datasets come from: the built-in `pydocs`, a folder in BEIR layout, a folder of text files.

A source is read once, turned into Arrow files under `workbench.weights.home()`, and opened memory-mapped afterwards.
What is stored is found by the digest of the source's content, never by its name. Texts are stored in Unicode's normal form C.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from workbench.component import digest, file_digest
from workbench.data import columns as further
from workbench.data.conversation import read_history
from workbench.data.dataset import Dataset, Row, assemble
from workbench.data.documents.folder import text_folder
from workbench.data.evidence import read_questions, with_evidence
from workbench.data.prepared import PREPARATION, prepared
from workbench.data.readers.json_lines import Filled, Identifier, Record, Text, distinct, records
from workbench.data.readers.text import few, lines, short, whole_number
from workbench.errors import InputError

__all__ = ["BUILTIN", "PYDOCS_QUESTIONS", "beir", "beir_file", "contained", "pydocs", "text_folder"]

PYDOCS_QUESTIONS = Path(__file__).parent / "pydocs" / "questions.jsonl"
CONTAINED = 0.9  # a topic is dropped when a larger one holds more than this share of it
SHINGLE_WORDS = 5
QRELS_ENDINGS = (".tsv", ".tsv.gz")
HEADING = re.compile(r'"?(?!nan\b|inf|null\b|none\b)[a-z][a-z _-]+"?', re.IGNORECASE)  # over the grades of a file of judgements

BUILTIN = {"pydocs": "the Python language reference of the running interpreter, with questions written for it"}


def pydocs(columns: Sequence[str] = ()) -> Dataset:
    """The Python language reference that the interpreter carries, with the project's questions.

    Topics that are contained in larger ones are dropped and listed in the notes.

    Args:
        columns: further columns of the questions that are kept; there is ``kind``.

    Raises:
        InputError: there is no such column.
    """
    from pydoc_data.topics import topics

    source = {"topics": topics, "questions": file_digest(PYDOCS_QUESTIONS)}
    return prepared(digest(["pydocs", PREPARATION, source, *columns]), lambda: _read_pydocs(topics, columns))


def _read_pydocs(topics: dict[str, str], columns: Sequence[str]) -> Dataset:
    dropped = contained(topics)
    documents = [
        {"id": name, "title": text.strip().splitlines()[0].replace("*", "").strip(), "text": text}
        for name, text in topics.items()
        if name not in dropped
    ]
    listed = ", ".join(f"{name} (in {dropped[name]})" for name in sorted(dropped))
    notes = [f"{len(dropped)} of {len(topics)} topics dropped, more than {CONTAINED:.0%} contained in a larger one: {listed}"]
    return with_evidence("pydocs", documents, read_questions(PYDOCS_QUESTIONS, columns), notes, columns)


def contained(texts: dict[str, str]) -> dict[str, str]:
    """Texts that are nearly part of another: name -> the larger text, kept itself, that holds most of it.

    Measured on distinct shingles of `SHINGLE_WORDS` words: dropped when more than `CONTAINED` of a text's stand in
    one larger text that is not dropped.
    """
    shingles = {name: _shingles(text) for name, text in texts.items()}
    kept: list[str] = []
    dropped: dict[str, str] = {}
    for name in sorted(texts, key=lambda n: (-len(texts[n]), n)):
        shares = {other: len(shingles[name] & shingles[other]) / len(shingles[name]) for other in kept}
        best = max(shares, key=shares.__getitem__, default=None)
        if best is not None and shares[best] > CONTAINED:
            dropped[name] = best
        else:
            kept.append(name)
    return dropped


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}


def beir(folder: Path, columns: Sequence[str] = ()) -> Dataset:
    """A folder in BEIR layout: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/SPLIT.tsv``, each also gzipped.

    Queries may carry ``answers`` (list of strings), ``history`` (see `workbench.data.conversation`) and ``group``; without a
    group, queries that share their first relevant document form one. Queries in no qrels file belong to no split and are left
    out, with a note; so are judgements on documents and queries that the set does not hold.

    Args:
        folder: the folder.
        columns: further keys of the queries, or of their ``metadata``, that are kept; see `workbench.data.columns`.

    Raises:
        InputError: a file is missing or unreadable, the corpus is empty, nothing of a split is relevant, a document has two
            grades for one query, or no query has one of the columns.
    """
    folder = Path(folder)
    files = [beir_file(folder, "corpus.jsonl"), beir_file(folder, "queries.jsonl"), *_qrels_files(folder)]
    content = {file.relative_to(folder).as_posix(): file_digest(file) for file in files}
    others = [file.name for file in _visible(folder / "qrels") if file not in files]
    said = f"{len(others)} files of qrels left out, their names do not end in .tsv or .tsv.gz: {few(others)}"
    notes = [said] if others else []
    key = digest(["beir", PREPARATION, content, notes, *columns])
    return prepared(key, lambda: _read_beir(folder, files, notes, columns))


def beir_file(folder: Path, name: str) -> Path:
    """One of the files of a folder in BEIR layout, gzipped or not.

    Raises:
        InputError: it is missing, or there twice.
    """
    files = [file for file in (folder / name, folder / f"{name}.gz") if file.is_file()]
    if len(files) > 1:
        raise InputError(f"BEIR folder {folder} holds {files[0].name} and {files[1].name}; keep one of them")
    if files:
        return files[0]
    there = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such folder"
    if folder.is_file():
        raise InputError(f"BEIR folder {folder} is a file; name the folder that it is in")
    raise InputError(f"BEIR folder {folder}: {name} (or {name}.gz) is missing; found: {there or 'nothing'}")


def _qrels_files(folder: Path) -> list[Path]:
    """Files of judgements, one a split.

    Raises:
        InputError: there is none, or a split has two.
    """
    there = _visible(folder / "qrels")
    files = [file for file in there if file.name.endswith(QRELS_ENDINGS)]
    if not files:
        raise InputError(
            f"BEIR folder {folder}: qrels/SPLIT.tsv (or SPLIT.tsv.gz) is missing; needed is at least one of train, dev, test; "
            f"found in qrels: {', '.join(file.name for file in there) or 'nothing'}"
        )
    for one, other in pairwise(files):  # sorted, so that dev.tsv and dev.tsv.gz are neighbours
        if _split_of(one) == _split_of(other):
            raise InputError(f"BEIR folder {folder}: qrels holds {one.name} and {other.name}; keep one of them")
    return files


def _visible(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("[!.]*") if file.is_file()) if folder.is_dir() else []


def _split_of(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".tsv")


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


def _read_beir(folder: Path, files: list[Path], notes: list[str], columns: Sequence[str]) -> Dataset:
    corpus, queries, *qrels = files
    listed = distinct((where, row.id, row) for where, row in records(corpus, CorpusRecord))
    documents = [{"id": row.id, "title": row.title or "", "text": row.text} for _, row in listed]
    if not documents:
        raise InputError(f"{corpus}: the corpus is empty; at least one document is needed")
    model = further.with_columns(QueryRecord, columns)
    asked = list(distinct((where, row.id, row) for where, row in records(queries, model)))
    if not asked:
        raise InputError(f"{queries} is empty; at least one query is needed, one JSON object a line")
    further.refuse_missing((row for _, row in asked), columns, str(queries))
    notes = [*notes, *_empty("queries", [(row.id, row.text) for _, row in asked])]
    splits, judgements = _judged(qrels)
    known = {row.id for _, row in asked}
    judgements = _without(judgements, "document", {row["id"] for row in documents}, corpus, notes)
    judgements = _without(judgements, "query", known, queries, notes)
    splits = {query: split for query, split in splits.items() if query in known}
    relevant = {splits[row["query_id"]] for row in judgements if row["relevance"] > 0}
    for file in qrels:
        if _split_of(file) not in relevant:
            said = f": {notes[0]}" if notes else ""
            raise InputError(
                f"{file} has no grade above 0 for a document and a query of this folder, so nothing is relevant{said}"
            )
    first: dict[str, str] = {}
    for row in sorted(judgements, key=lambda r: (-r["relevance"], r["doc_id"])):
        first.setdefault(row["query_id"], row["doc_id"])
    kept = [
        _beir_query(row, splits[row.id], first, where) | further.values(row, columns) for where, row in asked if row.id in splits
    ]
    answered = {row["query_id"] for row in judgements if row["relevance"] > 0}
    for split in sorted(relevant):
        if bare := [row["id"] for row in kept if row["split"] == split and row["id"] not in answered]:
            notes.append(
                f"{len(bare)} queries of {split} have no relevant document, so rankings are not measured on them: {few(bare)}"
            )
    if len(kept) < len(asked):
        notes.append(f"{len(asked) - len(kept)} queries left out, they are in no qrels file")
    return assemble(folder.name, documents, kept, judgements, notes, columns)


def _judged(files: Sequence[Path]) -> tuple[dict[str, str], list[Row]]:
    """Query -> split, and the judgements of all splits."""
    splits: dict[str, str] = {}
    judgements: list[Row] = []
    for file in files:
        for query_id, doc_id, grade in _read_qrels(file):
            split = _split_of(file)
            if (first := splits.setdefault(query_id, split)) != split:
                raise InputError(f"{file}: query {query_id!r} is in the splits {first} and {split}; allowed: one")
            judgements.append({"query_id": query_id, "doc_id": doc_id, "relevance": grade})
    return splits, judgements


def _without(judgements: list[Row], what: str, known: set[str], file: Path, notes: list[str]) -> list[Row]:
    """Judgements on what is there; published sets name documents and queries that they do not hold, which is counted."""
    key = "doc_id" if what == "document" else "query_id"
    kept = [row for row in judgements if row[key] in known]
    if len(kept) < len(judgements):
        gone = sorted({row[key] for row in judgements} - known)
        several = {"document": "documents", "query": "queries"}[what]
        notes.append(
            f"{len(judgements) - len(kept)} judgements left out, on {len(gone)} {several} that {file.name} does not hold: "
            f"{few(gone)}"
        )
    return kept


def _empty(what: str, texts: Sequence[tuple[str, str]]) -> list[str]:
    """A note on texts, each with its id, in which nothing stands."""
    empty = [name for name, text in texts if not text.strip()]
    return [f"{len(empty)} {what} have no text: {few(empty)}"] if empty else []


def _beir_query(row: QueryRecord, split: str, first: dict[str, str], where: str) -> Row:
    return {
        "id": row.id,
        "split": split,
        "text": row.text,
        "answers": row.answers,
        "group": row.group if row.group is not None else first.get(row.id, row.id),
        "history": [turn._asdict() for turn in read_history(row.history, f"{where}: history")],
    }


def _read_qrels(path: Path) -> Iterator[tuple[str, str, int]]:
    """Query, document and grade of each line; one that repeats another is dropped."""
    seen: dict[tuple[str, str], tuple[int, int]] = {}
    begun = False
    for number, line in lines(path):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        begun, first = True, not begun
        if first and len(fields) == 3 and HEADING.fullmatch(fields[2]):
            continue
        grade = whole_number(fields[2]) if len(fields) == 3 else None
        if grade is None:
            hint = "; TREC's four columns are parted by spaces, BEIR's three by tabs" if len(line.split()) == 4 else ""
            form = "query-id TAB corpus-id TAB whole number"
            raise InputError(f"{path}, line {number}: received {short(line)}; allowed: {form}{hint}")
        query, document, _ = fields
        before, at = seen.setdefault((query, document), (grade, number))
        if before != grade:
            raise InputError(
                f"{path}, line {number}: document {document!r} has the grade {grade} for query {query!r}, and in line {at} the "
                f"grade {before}; give one"
            )
        if at == number:
            yield query, document, grade
