"""Evidence sentences -> spans: where a question's evidence stands in the documents, found at load."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from workbench.component import digest
from workbench.data.conversation import read_history
from workbench.data.dataset import SPLITS, Dataset, Place, Row, assemble
from workbench.errors import InputError, unknown

QUESTION_KEYS = ("id", "split", "question", "answers", "evidence")
PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n")


def read_questions(path: Path) -> list[Row]:
    """Questions from a JSON-lines file.

    A line is ``{"id", "split", "question", "answers", "evidence"}``: `answers` a list of accepted answers, empty if
    the documents do not answer it; `evidence` a sentence (or a list of sentences) copied from a document, null if none. It may
    have ``history``, what was said before (see `workbench.data.conversation`).

    Raises:
        InputError: unreadable line, missing or unknown key, or unknown split, each with the line's number.
    """
    if not path.is_file():
        raise InputError(f"questions file {path} does not exist")
    questions = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            questions.append(_question(line, f"{path}, line {number}"))
    return questions


def _question(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: received {type(row).__name__}; allowed: an object with the keys {', '.join(QUESTION_KEYS)}")
    for key in QUESTION_KEYS:
        if key not in row:
            raise InputError(f"{where}: the key {key!r} is missing; needed: {', '.join(QUESTION_KEYS)}")
    for key in row:
        if key not in (*QUESTION_KEYS, "history"):
            raise InputError(f"{where}: {unknown('key', key, [*QUESTION_KEYS, 'history'])}")
    for key in ("id", "split", "question"):
        if not isinstance(row[key], str) or not row[key].strip():
            raise InputError(f"{where}: {key}: received {json.dumps(row[key], ensure_ascii=False)}; allowed: a text in quotes")
    if row["split"] not in SPLITS:
        raise InputError(f"{where}: {unknown('split', row['split'], SPLITS)}")
    check_answers(row["answers"], where)
    evidence = row["evidence"]
    row["evidence"] = [] if evidence is None else [evidence] if isinstance(evidence, str) else evidence
    if not _are_texts(row["evidence"]):
        said = json.dumps(evidence, ensure_ascii=False)
        raise InputError(f"{where}: evidence: received {said}; allowed: a sentence, a list of sentences, or null for none")
    if "history" in row:
        row["history"] = [turn._asdict() for turn in read_history(row["history"], f"{where}: history")]
    return row


def check_answers(answers: object, where: str) -> None:
    """Refuses accepted answers that are no list of texts.

    Args:
        answers: as read from a file; None: not known.
        where: file and line, for the message.

    Raises:
        InputError: another form, such as a text that is no list.
    """
    if answers is not None and not _are_texts(answers):
        said = json.dumps(answers, ensure_ascii=False)
        hint = f"; write [{said}]" if isinstance(answers, str) else ""
        raise InputError(f"{where}: answers: received {said}; allowed: a list of texts, empty where nothing answers{hint}")


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def places(evidence: str, documents: Mapping[str, str]) -> Iterator[Place]:
    """Every place a sentence stands at, any white space matching any other.

    Args:
        evidence: the sentence.
        documents: document id -> text.
    """
    pattern = re.compile(r"\s+".join(map(re.escape, evidence.split())))
    for doc_id, text in documents.items():
        for match in pattern.finditer(text):
            yield Place(doc_id, match.start(), match.end())


def paragraph(text: str, position: int) -> str:
    """The paragraph around a character, white space folded; paragraphs are separated by blank lines."""
    start = max((match.end() for match in PARAGRAPH_BREAK.finditer(text, 0, position)), default=0)
    end = PARAGRAPH_BREAK.search(text, position)
    return " ".join(text[start : end.start() if end else len(text)].split())


def with_evidence(name: str, documents: list[Row], questions: list[Row], notes: list[str]) -> Dataset:
    """A dataset judged by spans, from documents and questions with evidence sentences.

    A question whose evidence stands nowhere is left out of the dataset and named in its notes: its documents differ
    from those it was written for, and it can be neither judged nor called unanswerable. The group of a question is
    the paragraph its evidence stands in, copies of the paragraph being the same one.

    Args:
        name: the dataset's.
        documents: rows with ``id``, ``title`` and ``text``.
        questions: as `read_questions` gives them.
        notes: what is to be told of the dataset; that questions were left out is added.

    Raises:
        InputError: nothing left to ask, or what `workbench.data.dataset.assemble` refuses.
    """
    texts = {row["id"]: row["text"] for row in documents}
    queries, judgements, missing = [], [], []
    for row in questions:
        found = [list(places(sentence, texts)) for sentence in row["evidence"]]
        if not all(found):
            missing.append(row["id"])
            continue
        group = row["id"]
        if found:
            first = found[0][0]
            group = digest(paragraph(texts[first.doc_id], first.start))[:12]
        taken = {key: row.get(key) for key in ("id", "split", "answers", "history")}
        queries.append(taken | {"text": row["question"], "group": group})
        for number, where in enumerate(found):
            judgements += [{"query_id": row["id"], "evidence": number, **place._asdict()} for place in where]
    if missing:
        notes = [*notes, f"{len(missing)} questions left out, their evidence stands in no document: {', '.join(missing)}"]
    if not judgements:
        raise InputError(f"dataset {name}: the evidence of none of the {len(questions)} questions stands in the documents")
    return assemble(name, documents, queries, judgements, notes)
