"""Where datasets come from: the built-in `pydocs`, a folder in BEIR layout, a folder of text files.

A source is read once, turned into Arrow files under `workbench.weights.home()`, and opened memory-mapped afterwards.
What is stored is found by the digest of the source's content, never by its name. Texts are stored in Unicode's normal form C.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from workbench.component import digest, file_digest
from workbench.data.conversation import read_history
from workbench.data.dataset import Dataset, Row, assemble
from workbench.data.evidence import read_questions, with_evidence
from workbench.data.readers.json_lines import Filled, Identifier, Record, Text, records
from workbench.data.readers.text import check_writable, composed, lines, whole, whole_number
from workbench.errors import InputError
from workbench.weights import home

# raised when reading the same source gives another dataset
PREPARATION = 4

PYDOCS_QUESTIONS = Path(__file__).parent / "pydocs" / "questions.jsonl"
CONTAINED = 0.9  # a topic is dropped when a larger one holds more than this share of it
SHINGLE_WORDS = 5
TEXT_ENDINGS = (".txt", ".md", ".markdown")

BUILTIN = {"pydocs": "the Python language reference of the running interpreter, with questions written for it"}


def pydocs() -> Dataset:
    """The Python language reference that the interpreter carries, with the project's questions.

    Topics that are contained in larger ones are dropped and listed in the notes.
    """
    from pydoc_data.topics import topics

    source = {"topics": topics, "questions": file_digest(PYDOCS_QUESTIONS)}
    return _prepared(digest(["pydocs", PREPARATION, source]), lambda: _read_pydocs(topics))


def _read_pydocs(topics: dict[str, str]) -> Dataset:
    dropped = contained(topics)
    documents = [
        {"id": name, "title": text.strip().splitlines()[0].replace("*", "").strip(), "text": text}
        for name, text in topics.items()
        if name not in dropped
    ]
    listed = ", ".join(f"{name} (in {dropped[name]})" for name in sorted(dropped))
    notes = [f"{len(dropped)} of {len(topics)} topics dropped, more than {CONTAINED:.0%} contained in a larger one: {listed}"]
    return with_evidence("pydocs", documents, read_questions(PYDOCS_QUESTIONS), notes)


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


def beir(folder: Path) -> Dataset:
    """A folder in BEIR layout: ``corpus.jsonl``, ``queries.jsonl`` (each also gzipped) and ``qrels/SPLIT.tsv``.

    Queries may carry ``answers`` (list of strings), ``history`` (see `workbench.data.conversation`) and ``group``; without a
    group, queries that share their first relevant document form one. Queries in no qrels file belong to no split and are left
    out, with a note; so are judgements on documents and queries that the set does not hold.

    Raises:
        InputError: a file is missing or unreadable, the corpus is empty, nothing of a split is relevant, or a document has two
            grades for one query.
    """
    folder = Path(folder)
    files = [_beir_file(folder, "corpus.jsonl"), _beir_file(folder, "queries.jsonl"), *_qrels_files(folder)]
    content = {file.name: file_digest(file) for file in files}
    return _prepared(digest(["beir", PREPARATION, content]), lambda: _read_beir(folder, files))


def _beir_file(folder: Path, name: str) -> Path:
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    there = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such folder"
    raise InputError(f"BEIR folder {folder}: {name} (or {name}.gz) is missing; found: {there or 'nothing'}")


def _qrels_files(folder: Path) -> list[Path]:
    files = sorted((folder / "qrels").glob("*.tsv"))
    if not files:
        raise InputError(f"BEIR folder {folder}: qrels/SPLIT.tsv is missing; needed is at least one of train, dev, test")
    return files


class CorpusRecord(Record):
    """A line of ``corpus.jsonl``; other keys are not read."""

    id: Identifier = Field(alias="_id", description="a text or a whole number")
    title: Text | None = Field(default=None, description="a text, or null")
    text: Text = Field(description="a text")


class QueryRecord(Record):
    """A line of ``queries.jsonl``; other keys are not read."""

    id: Identifier = Field(alias="_id", description="a text or a whole number")
    text: Text = Field(description="a text")
    answers: list[Filled] | None = Field(default=None, description='a list of texts, such as ["break"], or null')
    group: Identifier | None = Field(default=None, description="a text or a whole number, or null")
    history: Any = None


def _read_beir(folder: Path, files: list[Path]) -> Dataset:
    corpus, queries, *qrels = files
    documents = [{"id": row.id, "title": row.title or "", "text": row.text} for _, row in records(corpus, CorpusRecord)]
    if not documents:
        raise InputError(f"{corpus}: the corpus is empty; at least one document is needed")
    asked = list(records(queries, QueryRecord))
    notes: list[str] = []
    splits, judgements = _judged(qrels)
    known = {row.id for _, row in asked}
    judgements = _without(judgements, "document", {row["id"] for row in documents}, corpus, notes)
    judgements = _without(judgements, "query", known, queries, notes)
    splits = {query: split for query, split in splits.items() if query in known}
    relevant = {splits[row["query_id"]] for row in judgements if row["relevance"] > 0}
    for file in qrels:
        if file.stem not in relevant:
            said = f": {notes[0]}" if notes else ""
            raise InputError(
                f"{file} has no grade above 0 for a document and a query of this folder, so nothing is relevant{said}"
            )
    first: dict[str, str] = {}
    for row in sorted(judgements, key=lambda r: (-r["relevance"], r["doc_id"])):
        first.setdefault(row["query_id"], row["doc_id"])
    kept = [_beir_query(row, splits[row.id], first, where) for where, row in asked if row.id in splits]
    if len(kept) < len(asked):
        notes.append(f"{len(asked) - len(kept)} queries left out, they are in no qrels file")
    return assemble(folder.name, documents, kept, judgements, notes)


def _judged(files: Sequence[Path]) -> tuple[dict[str, str], list[Row]]:
    """Query -> split, and the judgements of all splits."""
    splits: dict[str, str] = {}
    judgements: list[Row] = []
    for file in files:
        for query_id, doc_id, grade in _read_qrels(file):
            if splits.setdefault(query_id, file.stem) != file.stem:
                raise InputError(f"{file}: query {query_id!r} is in the splits {splits[query_id]} and {file.stem}; allowed: one")
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
            f"{', '.join(map(repr, gone[:5]))}{', ...' if len(gone) > 5 else ''}"
        )
    return kept


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
    for number, line in lines(path):
        fields = [field.strip() for field in line.split("\t")]
        if not line.strip() or (number == 1 and len(fields) == 3 and whole_number(fields[2]) is None):
            continue  # an empty line, or the header
        grade = whole_number(fields[2]) if len(fields) == 3 else None
        if grade is None:
            hint = "; TREC's four columns are parted by spaces, BEIR's three by tabs" if len(line.split()) == 4 else ""
            raise InputError(f"{path}, line {number}: received {line!r}; allowed: query-id TAB corpus-id TAB whole number{hint}")
        query, document, _ = fields
        before, at = seen.setdefault((query, document), (grade, number))
        if before != grade:
            raise InputError(
                f"{path}, line {number}: document {document!r} has the grade {grade} for query {query!r}, and in line {at} the "
                f"grade {before}; give one"
            )
        if at == number:
            yield query, document, grade


def text_folder(folder: Path, questions: Path) -> Dataset:
    """A folder of text files (each one document, its id the path) with a questions file.

    Files whose names end in `TEXT_ENDINGS` are read, hidden ones and what lies in hidden folders are not; the notes count what
    was left out. The questions have the form of `workbench.data.evidence.read_questions`.

    Raises:
        InputError: no such folder, no text files in it, or a file that is not UTF-8.
    """
    folder = Path(folder)
    found = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    hidden = [path for path in found if any(part.startswith(".") for part in path.relative_to(folder).parts)]
    files = [path for path in found if path.suffix.lower() in TEXT_ENDINGS and path not in set(hidden)]
    if not files:
        there = ", ".join(sorted(path.relative_to(folder).as_posix() for path in found)[:5]) or "nothing"
        raise InputError(f"document folder {folder}: no file ending in {', '.join(TEXT_ENDINGS)} was found in it; found: {there}")
    for file in files:
        check_writable(file.relative_to(folder).as_posix(), f"document folder {folder}: the name of the file {file.name!a}")
    rows, notes = read_questions(Path(questions)), _left_out(folder, found, files, hidden, Path(questions))
    content = {file.relative_to(folder).as_posix(): file_digest(file) for file in files}
    key = digest(["folder", PREPARATION, content, rows, notes])
    return _prepared(key, lambda: with_evidence(folder.name, [_text_document(file, folder) for file in files], rows, notes))


def _left_out(folder: Path, found: list[Path], files: list[Path], hidden: list[Path], questions: Path) -> list[str]:
    """What of a folder was not read, one sentence each."""
    notes = [f"{len(hidden)} hidden files left out"] if hidden else []
    rest = [path for path in found if path not in {*files, *hidden} and path.resolve() != questions.resolve()]
    if rest:
        shown = (path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode() for path in rest[:5])
        named = ", ".join(shown)
        endings = ", ".join(TEXT_ENDINGS)
        notes.append(
            f"{len(rest)} files left out, their names do not end in {endings}: {named}{', ...' if len(rest) > 5 else ''}"
        )
    return notes


def _text_document(file: Path, folder: Path) -> Row:
    text = composed(whole(file))
    return {"id": file.relative_to(folder).as_posix(), "title": _title(text) or file.stem, "text": text}


def _title(text: str) -> str:
    """The title in a text's front matter (between two lines ``---``), else its first line, without the signs of a heading."""
    given = text.split("\n")
    if given[0].strip() == "---" and "---" in (rest := [line.strip() for line in given[1:]]):
        end = rest.index("---")
        named = (re.fullmatch(r"title:\s*(.+)", line) for line in rest[:end])
        if title := next((match[1].strip("\"' ") for match in named if match), ""):
            return title
        given = given[end + 2 :]
    return next((line.strip("#*= ").strip() for line in given if line.strip("#*= \t")), "")


def _prepared(key: str, read: Callable[[], Dataset]) -> Dataset:
    """The dataset stored under `key`, read and stored first if need be; complete or absent."""
    folder = home() / "datasets" / key[:32]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".reading-"))
        try:
            read().save(temporary)
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Dataset.load(folder)
