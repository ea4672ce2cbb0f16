"""Where datasets come from: the built-in `pydocs`, a folder in BEIR layout, a folder of text files.

A source is read once, turned into Arrow files under `workbench.weights.home()`, and opened memory-mapped afterwards.
What is stored is found by the digest of the source's content, never by its name.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from workbench.component import digest, file_digest
from workbench.data.conversation import read_history
from workbench.data.dataset import Dataset, Row, assemble
from workbench.data.evidence import check_answers, read_questions, with_evidence
from workbench.errors import InputError
from workbench.weights import home

# raised when reading the same source gives another dataset
PREPARATION = 2

PYDOCS_QUESTIONS = Path(__file__).parent / "pydocs" / "questions.jsonl"
CONTAINED = 0.9  # a topic is dropped when a larger one holds more than this share of it
SHINGLE_WORDS = 5

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
    out, with a note.

    Raises:
        InputError: a file is missing or unreadable, the corpus is empty, or a qrel names an unknown id.
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


def _read_beir(folder: Path, files: list[Path]) -> Dataset:
    corpus, queries, *qrels = files
    documents = [
        {"id": str(row["_id"]), "title": row.get("title") or "", "text": row["text"]}
        for row in _json_lines(corpus, ("_id", "text"))
    ]
    splits: dict[str, str] = {}
    judgements: list[Row] = []
    for file in qrels:
        for query_id, doc_id, relevance in _read_qrels(file):
            if splits.setdefault(query_id, file.stem) != file.stem:
                raise InputError(f"{file}: query {query_id!r} is in the splits {splits[query_id]} and {file.stem}; allowed: one")
            judgements.append({"query_id": query_id, "doc_id": doc_id, "relevance": relevance})
    first: dict[str, str] = {}
    for row in sorted(judgements, key=lambda r: (-r["relevance"], r["doc_id"])):
        first.setdefault(row["query_id"], row["doc_id"])
    rows = list(_json_lines(queries, ("_id", "text")))
    if strangers := sorted(set(splits) - {str(row["_id"]) for row in rows}):
        raise InputError(f"{folder / 'qrels'}: there is query {strangers[0]!r}, which is not among the queries of {queries}")
    kept = [_beir_query(row, splits, first) for row in rows if str(row["_id"]) in splits]
    notes = [f"{len(rows) - len(kept)} queries left out, they are in no qrels file"] if len(kept) < len(rows) else []
    return assemble(folder.name, documents, kept, judgements, notes)


def _beir_query(row: Row, splits: dict[str, str], first: dict[str, str]) -> Row:
    query_id = str(row["_id"])
    check_answers(row.get("answers"), f"query {query_id!r}")
    return {
        "id": query_id,
        "split": splits[query_id],
        "text": row["text"],
        "answers": row.get("answers"),
        "group": str(row.get("group") or first[query_id]),
        "history": [turn._asdict() for turn in read_history(row.get("history"), f"query {query_id!r}: history")],
    }


def _json_lines(path: Path, needed: tuple[str, ...]) -> Iterator[Row]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}, line {number}: not JSON: {error}") from error
            for key in needed:
                if key not in row:
                    raise InputError(f"{path}, line {number}: the key {key!r} is missing; found: {', '.join(row)}")
            yield row


def _read_qrels(path: Path) -> Iterator[tuple[str, str, int]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("\t")
        if number == 1 and len(fields) == 3 and not fields[2].strip().lstrip("-").isdigit():
            continue  # header
        if not line.strip():
            continue
        if len(fields) != 3 or not fields[2].strip().lstrip("-").isdigit():
            raise InputError(f"{path}, line {number}: received {line!r}; allowed: query-id TAB corpus-id TAB whole number")
        yield fields[0], fields[1], int(fields[2])


def text_folder(folder: Path, questions: Path) -> Dataset:
    """A folder of ``.txt`` and ``.md`` files (each one document, its id the path) with a questions file.

    The questions have the form of `workbench.data.evidence.read_questions`.

    Raises:
        InputError: no such folder, no text files in it, or a file that is not UTF-8.
    """
    folder = Path(folder)
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".txt", ".md")) if folder.is_dir() else []
    if not files:
        raise InputError(f"document folder {folder}: no .txt or .md file was found in it")
    rows = read_questions(Path(questions))
    content = {file.relative_to(folder).as_posix(): file_digest(file) for file in files}
    key = digest(["folder", PREPARATION, content, rows])
    return _prepared(key, lambda: with_evidence(folder.name, [_text_document(file, folder) for file in files], rows, []))


def _text_document(file: Path, folder: Path) -> Row:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"document {file} is not UTF-8 text: {error}") from error
    name = file.relative_to(folder).as_posix()
    title = next((line.strip("#*= ").strip() for line in text.splitlines() if line.strip("#*= ")), file.stem)
    return {"id": name, "title": title, "text": text}


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
