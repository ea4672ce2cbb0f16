"""Evidence sentences -> spans: where a question's evidence stands in the documents, found at load."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from workbench.component import digest
from workbench.data import columns as further
from workbench.data.conversation import read_history
from workbench.data.dataset import SPLITS, Dataset, Place, Row, assemble
from workbench.data.readers.json_lines import Filled, Identifier, Record, distinct, records
from workbench.errors import InputError, unknown

PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n")


class QuestionRecord(Record):
    """A line of a questions file."""

    hint: ClassVar = " A column of your own is named under metrics.slices, or stands in the object 'metadata'."
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    id: Identifier = Field(description="a text or a whole number")
    split: str = Field(description=f"one of {', '.join(SPLITS)}")
    question: Filled = Field(description="a text that is not empty")
    answers: list[Filled] | None = Field(description='a list of texts such as ["break"], empty where nothing answers')
    evidence: Filled | list[Filled] | None = Field(description="a sentence, a list of sentences, or null for none")
    kind: Filled | None = Field(default=None, description="a text, or null")
    history: Any = None
    metadata: dict[str, Any] | None = Field(default=None, description="an object, or null")


def read_questions(path: Path, columns: Sequence[str] = ()) -> list[Row]:
    """Questions from a file of JSON lines.

    A line is ``{"id", "split", "question", "answers", "evidence"}``: `answers` a list of accepted answers, empty if
    the documents do not answer it; `evidence` a sentence (or a list of sentences) copied from a document, null if none. It may
    have ``history``, what was said before (see `workbench.data.conversation`), ``kind``, what sort of question it is, and an
    object ``metadata``, of which nothing is read but the columns asked for.

    Args:
        path: the file.
        columns: further keys that a line, or its ``metadata``, may have; `workbench.data.columns` says how they are read. With
            them each row has ``columns``: name -> value.

    Raises:
        InputError: unreadable line, missing or unknown key, wrong type, or unknown split, each with the line's number; or a
            column that no question has.
    """
    if not path.is_file():
        raise InputError(f"questions file {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    model = further.with_columns(QuestionRecord, columns)
    read = list(distinct((where, row.id, row) for where, row in records(path, model)))
    if not read:
        raise InputError(f"questions file {path} is empty; at least one question is needed, one JSON object a line")
    further.refuse_missing((row for _, row in read), columns, str(path))
    return [_question(row, columns, where) for where, row in read]


def _question(row: QuestionRecord, columns: Sequence[str], where: str) -> Row:
    if row.split not in SPLITS:
        raise InputError(f"{where}: {unknown('split', row.split, SPLITS)}")
    evidence = [row.evidence] if isinstance(row.evidence, str) else row.evidence or []
    found: Row = {"id": row.id, "split": row.split, "question": row.question, "answers": row.answers, "evidence": evidence}
    if row.kind is not None:
        found["kind"] = row.kind
    if columns:
        found["columns"] = further.values(row, columns)
    if "history" in row.model_fields_set:
        found["history"] = [turn._asdict() for turn in read_history(row.history, f"{where}: history")]
    return found


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


def with_evidence(
    name: str, documents: list[Row], questions: list[Row], notes: list[str], columns: Sequence[str] = ()
) -> Dataset:
    """A dataset judged by spans, from documents and questions with evidence sentences.

    A question whose evidence stands nowhere is left out of the dataset and named in its notes: its documents differ
    from those it was written for, and it can be neither judged nor called unanswerable. The group of a question is
    the paragraph its evidence stands in, copies of the paragraph being the same one.

    Args:
        name: the dataset's.
        documents: rows with ``id``, ``title`` and ``text``.
        questions: as `read_questions` gives them.
        notes: what is to be told of the dataset; that questions were left out is added.
        columns: further columns that the questions were read with.

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
        taken = {key: row.get(key) for key in ("id", "split", "answers", "history")} | row.get("columns", {})
        queries.append(taken | {"text": row["question"], "group": group})
        for number, where in enumerate(found):
            judgements += [{"query_id": row["id"], "evidence": number, **place._asdict()} for place in where]
    if missing:
        notes = [*notes, f"{len(missing)} questions left out, their evidence stands in no document: {', '.join(missing)}"]
    if not judgements:
        raise InputError(
            f"dataset {name}: the evidence of none of the {len(questions)} questions stands in the documents; copy it letter by "
            f"letter: case, quotation marks, dashes and signs that cannot be seen count, white space does not"
        )
    return assemble(name, documents, queries, judgements, notes, columns)
