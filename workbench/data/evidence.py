"""Evidence sentences -> spans: where a question's evidence stands in the documents, found at load."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from workbench.component import digest
from workbench.data import columns as further
from workbench.data.assembling import assemble
from workbench.data.conversation import read_history
from workbench.data.dataset import SPLITS, Dataset, Row
from workbench.data.finding import Finder, Page, Quote, places
from workbench.data.readers.json_lines import Filled, Identifier, Record, distinct, records
from workbench.data.readers.text import counted
from workbench.errors import InputError, unknown

__all__ = ["Missing", "QuestionRecord", "paragraph", "places", "read_questions", "with_evidence"]

Missing = Literal["refuse", "drop"]  # what becomes of a dataset much of whose evidence stands in no document
MOST_MISSING = 0.05  # share of the questions whose evidence may be missing before a dataset is refused
SHOWN_MISSING = 20  # questions whose nearest place is told
PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n")


class QuoteRecord(Record):
    """A sentence of the evidence with the document or the page it stands in."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    text: Filled
    document: Filled | None = None
    page: Annotated[int, Field(ge=1)] | None = None


Sentence = Filled | QuoteRecord


class QuestionRecord(Record):
    """A line of a questions file."""

    hint: ClassVar = " A column of your own is named under metrics.slices, or stands in the object 'metadata'."
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    id: Identifier = Field(description="a text or a whole number")
    split: str = Field(description=f"one of {', '.join(SPLITS)}")
    question: Filled = Field(description="a text that is not empty")
    answers: list[Filled] | None = Field(description='a list of texts such as ["break"], empty where nothing answers')
    evidence: Sentence | list[Sentence | list[Sentence]] | None = Field(
        description="a sentence, a list of sentences, or null for none; for a sentence may stand an object with the keys text, "
        "document and page (from 1), or a list of sentences of which one is enough"
    )
    kind: Filled | None = Field(default=None, description="a text, or null")
    history: Any = None
    metadata: dict[str, Any] | None = Field(default=None, description="an object, or null")


def several(questions: Path | Sequence[Path] | None) -> tuple[Path, ...]:
    """The files of what may be one file, several, or none."""
    if questions is None:
        return ()
    return (Path(questions),) if isinstance(questions, str | Path) else tuple(map(Path, questions))


def read_questions(path: Path | Sequence[Path], columns: Sequence[str] = ()) -> list[Row]:
    """Questions from a file of JSON lines, or from several.

    A line is ``{"id", "split", "question", "answers", "evidence"}``: `answers` a list of accepted answers, empty if
    the documents do not answer it; `evidence` a sentence (or a list of sentences) copied from a document, null if none. For a
    sentence may stand an object ``{"text", "document", "page"}``, which says where to look, or in the list a list of sentences of
    which one is enough. A line may have ``history``, what was said before (see `workbench.data.conversation`), ``kind``, what
    sort of question it is, and an object ``metadata``, of which nothing is read but the columns asked for.

    Args:
        path: the file, or the files.
        columns: further keys that a line, or its ``metadata``, may have; `workbench.data.columns` says how they are read. With
            them each row has ``columns``: name -> value.

    Raises:
        InputError: unreadable line, missing or unknown key, wrong type, or unknown split, each with the line's number; or a
            column that no question has.
    """
    files = several(path)
    model = further.with_columns(QuestionRecord, columns)
    read = list(distinct((where, row.id, row) for file in files for where, row in _lines(file, model)))
    further.refuse_missing((row for _, row in read), columns, ", ".join(map(str, files)))
    return [_question(row, columns, where) for where, row in read]


def _lines(path: Path, model: type[QuestionRecord]) -> list[tuple[str, QuestionRecord]]:
    if not path.is_file():
        raise InputError(f"questions file {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    if not (read := list(records(path, model))):
        raise InputError(f"questions file {path} is empty; at least one question is needed, one JSON object a line")
    return read


def _question(row: QuestionRecord, columns: Sequence[str], where: str) -> Row:
    if row.split not in SPLITS:
        raise InputError(f"{where}: {unknown('split', row.split, SPLITS)}")
    given = [] if row.evidence is None else row.evidence if isinstance(row.evidence, list) else [row.evidence]
    evidence = [_plain(one) for one in given]
    found: Row = {"id": row.id, "split": row.split, "question": row.question, "answers": row.answers, "evidence": evidence}
    if row.kind is not None:
        found["kind"] = row.kind
    if columns:
        found["columns"] = further.values(row, columns)
    if "history" in row.model_fields_set:
        found["history"] = [turn._asdict() for turn in read_history(row.history, f"{where}: history")]
    return found


def _plain(piece: Sentence | list[Sentence]) -> Any:
    """A piece of evidence as JSON."""
    if isinstance(piece, list):
        return [_plain(one) for one in piece]
    return piece if isinstance(piece, str) else piece.model_dump(exclude_none=True)


def paragraph(text: str, position: int) -> str:
    """The paragraph around a character, white space folded; paragraphs are separated by blank lines."""
    start = max((match.end() for match in PARAGRAPH_BREAK.finditer(text, 0, position)), default=0)
    end = PARAGRAPH_BREAK.search(text, position)
    return " ".join(text[start : end.start() if end else len(text)].split())


def with_evidence(
    name: str,
    documents: list[Row],
    questions: list[Row],
    notes: list[str],
    columns: Sequence[str] = (),
    missing: Missing = "drop",
    pages: Mapping[str, Sequence[Page]] | None = None,
    unread: Mapping[str, str] | None = None,
) -> Dataset:
    """A dataset judged by spans, from documents and questions with evidence sentences.

    A sentence is found where it stands letter by letter, white space aside; one that stands nowhere in this way is found by its
    letters and digits alone, and named in the notes. A question whose evidence is found in neither way is left out of the dataset
    and named with the nearest place: it can be neither judged nor called unanswerable. The group of a question is the paragraph
    its evidence stands in, copies of the paragraph being the same one.

    Args:
        name: the dataset's.
        documents: rows with ``id``, ``title`` and ``text``.
        questions: as `read_questions` gives them.
        notes: what is to be told of the dataset; that questions were left out is added.
        columns: further columns that the questions were read with.
        missing: ``refuse``, where evidence of more than `MOST_MISSING` of the questions is missing, or ``drop``.
        pages: document id -> its pages, which evidence may name.
        unread: file -> why it is not among the documents.

    Raises:
        InputError: nothing left to ask, too much of the evidence is missing, or what `workbench.data.dataset.assemble` refuses.
    """
    texts = {row["id"]: row["text"] for row in documents}
    finder = Finder(texts, pages)
    queries, judgements = [], []
    lost: dict[str, list[Quote]] = {}
    lettered, elsewhere = [], []
    for row in questions:
        pieces = [_piece(one) for one in row["evidence"]]
        found = [finder.find(piece) for piece in pieces]
        if gone := next((piece for piece, one in zip(pieces, found, strict=True) if not one.places), None):
            lost[row["id"]] = gone
            continue
        lettered += [row["id"]] * any(one.lettered for one in found)
        elsewhere += [row["id"]] * any(one.elsewhere for one in found)
        group = row["id"]
        if found:
            first = found[0].places[0]
            group = digest(paragraph(texts[first.doc_id], first.start))[:12]
        taken = {key: row.get(key) for key in ("id", "split", "answers", "history")} | row.get("columns", {})
        queries.append(taken | {"text": row["question"], "group": group})
        for number, one in enumerate(found):
            judgements += [{"query_id": row["id"], "evidence": number, **place._asdict()} for place in one.places]
    told = {
        query: finder.nearest(piece, partial(_why_unread, unread or {})) for query, piece in list(lost.items())[:SHOWN_MISSING]
    }
    if missing == "refuse" and len(lost) > MOST_MISSING * len(questions):
        raise too_many(name, lost, told, len(questions), notes)
    if not judgements:
        raise InputError(
            f"dataset {name}: the evidence of none of the {len(questions)} questions stands in the documents; copy it letter by "
            f"letter: case, quotation marks, dashes and signs that cannot be seen count, white space does not"
        )
    return assemble(name, documents, queries, judgements, [*notes, *_told(lost, told, lettered, elsewhere)], columns)


def _piece(given: Any) -> list[Quote]:
    """A piece of evidence as its line gives it: a sentence, an object, or a list of them of which one is enough."""
    if isinstance(given, list):
        return [quote for one in given for quote in _piece(one)]
    return [Quote(given) if isinstance(given, str) else Quote(**given)]


def _why_unread(unread: Mapping[str, str], document: str) -> str:
    return next((why for file, why in unread.items() if document in (file, Path(file).name, Path(file).stem)), "")


def _told(
    lost: Mapping[str, Sequence[Quote]], told: Mapping[str, str], lettered: Sequence[str], elsewhere: Sequence[str]
) -> Iterator[str]:
    """Notes on how evidence was found, and on what was not."""
    if lettered:
        said = "evidence that is found by its letters and digits alone, signs and case aside"
        yield f"{counted(len(lettered), 'question', 'has', 'have')} {said}: {', '.join(lettered)}"
    if elsewhere:
        said = "evidence that stands on another page than is named"
        yield f"{counted(len(elsewhere), 'question', 'has', 'have')} {said}: {', '.join(elsewhere)}"
    if lost:
        said = "evidence stands in no document"
        yield f"{counted(len(lost), 'question')} left out, {'its' if len(lost) == 1 else 'their'} {said}: {', '.join(lost)}"
        yield from (f"evidence of question {query!r}, {said}" for query, said in told.items())


def too_many(
    name: str,
    lost: Sequence[str] | Mapping[str, Any],
    told: Mapping[str, str],
    questions: int,
    notes: Sequence[str] = (),
) -> InputError:
    """The refusal of a dataset much of whose evidence stands in no document.

    Args:
        name: the dataset's.
        lost: ids of the questions whose evidence is missing.
        told: question -> what comes nearest to its evidence.
        questions: how many there are in all.
        notes: on the documents; files that were not read may hold it.
    """
    left = "".join(f". {note}" for note in notes if " not read: " in note)
    first = "; ".join(f"question {query!r}, {said}" for query, said in list(told.items())[:3])
    more = f"; and {len(lost) - 3} more" if len(lost) > 3 else ""
    return InputError(
        f"dataset {name}: the evidence of {len(lost)} of the {questions} questions stands in no document, which is more than "
        f"{MOST_MISSING:.0%}: {first}{more}; copy it from the documents, or leave these questions out with dataset.missing: "
        f"drop{left}"
    )
