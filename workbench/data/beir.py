"""A folder in the layout of the BEIR benchmark: a corpus, queries, and a file of judgements for each split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from workbench.component import digest, file_digest
from workbench.data import columns as further
from workbench.data.collection import Collection, CorpusRecord, Grade, QueryRecord, corpus_row
from workbench.data.dataset import Dataset
from workbench.data.prepared import PREPARATION, prepared
from workbench.data.readers.json_lines import distinct, records
from workbench.data.readers.text import counted, few, lines, short, whole_number
from workbench.errors import InputError

QRELS_ENDINGS = (".tsv", ".tsv.gz")
HEADING = re.compile(r'"?(?!nan\b|inf|null\b|none\b)[a-z][a-z _-]+"?', re.IGNORECASE)  # over the grades of a file of judgements


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
    why = "left out, its name does not end", "left out, their names do not end"
    said = f"{counted(len(others), 'file')} of qrels {why[len(others) != 1]} in .tsv or .tsv.gz: {few(others)}"
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


def _read_beir(folder: Path, files: list[Path], notes: list[str], columns: Sequence[str]) -> Dataset:
    corpus, queries, *qrels = files
    documents = [corpus_row(row) for _, row in distinct((where, row.id, row) for where, row in records(corpus, CorpusRecord))]
    if not documents:
        raise InputError(f"{corpus}: the corpus is empty; at least one document is needed")
    model = further.with_columns(QueryRecord, columns)
    asked = list(distinct((where, row.id, row) for where, row in records(queries, model)))
    if not asked:
        raise InputError(f"{queries} is empty; at least one query is needed, one JSON object a line")
    further.refuse_missing((row for _, row in asked), columns, str(queries))
    grades = [Grade(_split_of(file), *one) for file in qrels for one in _read_qrels(file)]
    splits = {_split_of(file): str(file) for file in qrels}
    return Collection(folder.name, documents, asked, grades, corpus.name, queries.name, splits).dataset(notes, columns)


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
