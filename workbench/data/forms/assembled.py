"""Questions of any form with their documents -> a dataset: evidence found, documents named, splits made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from workbench.component import digest
from workbench.data import finding, splits
from workbench.data.assembling import assemble
from workbench.data.dataset import Dataset, Place, Row
from workbench.data.evidence import MOST_MISSING, SHOWN_MISSING, Missing, paragraph, too_many
from workbench.data.finding import Page
from workbench.data.forms.corpora import Chunk
from workbench.data.forms.library import Library
from workbench.data.forms.question import Asked, Piece
from workbench.data.readers.json_lines import distinct
from workbench.data.readers.text import counted
from workbench.errors import InputError

SHOWN = 5  # questions that a note names


@dataclass(frozen=True)
class Found:
    """A question, where its pieces of evidence stand, and which documents are relevant to it."""

    asked: Asked
    id: str
    pieces: list[list[Place]]
    relevant: Mapping[str, int]
    lettered: bool = False


def dataset(
    name: str,
    asked: Sequence[Asked],
    documents: Sequence[Row],
    notes: Sequence[str],
    columns: Sequence[str] = (),
    shares: Mapping[str, float] | None = None,
    chunks: Sequence[Row] = (),
    cut: Mapping[str, Chunk] | None = None,
    pages: Mapping[str, Sequence[Page]] | None = None,
    missing: Missing = "drop",
) -> Dataset:
    """A dataset from questions of any form and their documents.

    Questions whose evidence stands in no document are left out and named in the notes. Where any question has evidence, that is
    what judges; where none has, whole documents are.

    Args:
        name: for messages.
        asked: the questions.
        documents: rows of `workbench.data.dataset.DOCUMENTS`.
        notes: what reading dropped or missed.
        columns: further columns that the questions were read with.
        shares: of the splits that are made where no question has one; None: `splits.SHARES`.
        chunks: parts of the documents, which evidence names by their ids.
        cut: id of such a part -> where it was cut from.
        pages: document id -> its pages, which evidence may name.
        missing: ``refuse`` where evidence of more than `MOST_MISSING` of the questions is missing, or ``drop``.

    Raises:
        InputError: too much of the evidence is missing, some questions have a split and some have none, an id is given twice, no
            question is left, or splits cannot be made.
    """
    library = Library(documents, {row["id"]: row for row in chunks}, cut or {}, pages)
    told = list(notes)
    found = _located(name, asked, library, told, missing)
    if not found:
        raise InputError(f"dataset {name}: {told[-1] if told else 'there are no questions'}; no question is left")
    by_spans = any(one.pieces for one in found)
    found = _one_kind(found, by_spans, told)
    named = _split(name, found, library, shares, told)
    queries: list[Row] = []
    judgements: list[Row] = []
    for one, split in zip(found, named, strict=True):
        queries.append(_query(one, split, library) | {name: one.asked.columns.get(name) for name in columns})
        judgements += _judged(one)
    return assemble(name, documents, queries, judgements, told, columns)


def _located(name: str, asked: Sequence[Asked], library: Library, notes: list[str], refuse: Missing) -> list[Found]:
    """The questions whose evidence, or one of whose documents, is there; a note names the others.

    Raises:
        InputError: too much of the evidence is missing.
    """
    kept, missing, unknown_documents, gone = [], {}, [], set[str]()
    for _, question in distinct((one.where, str(one.id), one) for one in asked):
        query_id = str(question.id)
        found = [_piece(piece, library) for piece in question.evidence]
        relevant = {doc_id: grade for name, grade in question.relevant.items() for doc_id in library.named(name)}
        gone |= {name for name in question.relevant if not library.named(name)}
        if lost := next((piece for piece, one in zip(question.evidence, found, strict=True) if not one.places), None):
            missing[query_id] = lost
        elif question.relevant and not relevant:
            unknown_documents.append(query_id)
        else:
            lettered = any(one.lettered for one in found)
            kept.append(Found(question, query_id, [one.places for one in found], relevant, lettered))
    told = {query: library.nearest(piece) for query, piece in list(missing.items())[:SHOWN_MISSING]}
    if refuse == "refuse" and len(missing) > MOST_MISSING * len(asked):
        raise too_many(name, missing, told, len(asked), notes)
    if lettered_ids := [one.id for one in kept if one.lettered]:
        said = "evidence that is found by its letters and digits alone, signs and case aside"
        notes.append(f"{counted(len(lettered_ids), 'question', 'has', 'have')} {said}: {_few(lettered_ids)}")
    if missing:
        whose = "its" if len(missing) == 1 else "their"
        left = f"{counted(len(missing), 'question')} left out"
        notes.append(f"{left}, {whose} evidence stands in no document: {_few(list(missing))}")
        notes += [f"evidence of question {query!r}, {said}" for query, said in told.items()]
    if gone:
        said = f"{counted(len(gone), 'document')} that questions name {'is' if len(gone) == 1 else 'are'} not there"
        notes.append(f"{said}: {_few(sorted(gone))}")
    if unknown_documents:
        whose = "its" if len(unknown_documents) == 1 else "their"
        left = f"{counted(len(unknown_documents), 'question')} left out"
        notes.append(f"{left}, none of {whose} documents is there: {_few(unknown_documents)}")
    return kept


def _piece(piece: Piece, library: Library) -> finding.Found:
    found = [library.find(one) for one in piece]
    return finding.Found(
        list(dict.fromkeys(place for one in found for place in one.places)),
        any(one.lettered for one in found),
        any(one.elsewhere for one in found),
    )


def _one_kind(found: list[Found], by_spans: bool, notes: list[str]) -> list[Found]:
    """All questions judged in one way: by evidence, or by documents."""
    bare = [one.id for one in found if by_spans and not one.pieces and one.relevant]
    if not bare:
        return found
    notes.append(
        f"{counted(len(bare), 'question', 'names', 'name')} a document and no evidence in it, so all are judged on whole "
        f"documents: {_few(bare)}"
    )
    return [
        Found(one.asked, one.id, [], dict(one.relevant) or {place.doc_id: 1 for piece in one.pieces for place in piece})
        for one in found
    ]


def _split(
    name: str, found: Sequence[Found], library: Library, shares: Mapping[str, float] | None, notes: list[str]
) -> list[str]:
    """The split of each question, made where none has one."""
    given = [one for one in found if one.asked.split is not None]
    if given and len(given) < len(found):
        bare = next(one for one in found if one.asked.split is None)
        raise InputError(
            f"{bare.asked.where}: question {bare.id!r} has no split, and {counted(len(given), 'other', 'has', 'have')} one; "
            f"give all a split, or none"
        )
    if given:
        if shares is not None:
            raise InputError(f"dataset.splits: the questions of {name} have splits; leave the setting away")
        return [str(one.asked.split) for one in found]
    wanted = splits.checked(shares if shares is not None else splits.SHARES)
    units, kind = [_unit(one) for one in found], "document or conversation"
    if len(set(units)) < len(wanted):
        units, kind = [_group(one, library) for one in found], "paragraph"
    try:
        named = splits.assigned(units, wanted)
    except InputError as error:
        raise InputError(f"dataset {name}: {error}") from error
    sizes = ", ".join(f"{split} {named.count(split)}" for split in wanted)
    notes.append(
        f"no question has a split, so {counted(len(found), 'question', 'was', 'were')} divided by {kind} and a hash: {sizes}"
    )
    for split in wanted:
        groups = {_group(one, library) for one, its in zip(found, named, strict=True) if its == split}
        if said := splits.small(split, len(groups)):
            notes.append(said)
    return named


def _unit(one: Found) -> str:
    """What must lie in one split: a conversation, what the set says, or the document."""
    first = next((place.doc_id for piece in one.pieces for place in piece), None)
    return one.asked.unit or one.asked.group or first or next(iter(sorted(one.relevant)), one.id)


def _group(one: Found, library: Library) -> str:
    """What the set says; else the paragraph of the first evidence, copies being the same; else the first document."""
    if one.asked.group is not None:
        return one.asked.group
    if one.pieces:
        first = one.pieces[0][0]
        return digest(paragraph(library.texts[first.doc_id], first.start))[:12]
    return min(one.relevant, key=lambda doc_id: (-one.relevant[doc_id], doc_id), default=one.id)


def _query(one: Found, split: str, library: Library) -> Row:
    asked = one.asked
    return {
        "id": one.id,
        "split": split,
        "text": asked.question,
        "answers": None if asked.answers is None else list(asked.answers),
        "group": _group(one, library),
        "history": [turn._asdict() for turn in asked.history],
    }


def _judged(one: Found) -> Iterable[Row]:
    for number, piece in enumerate(one.pieces):
        for place in piece:
            yield {"query_id": one.id, "evidence": number, **place._asdict()}
    if not one.pieces:
        for doc_id, grade in one.relevant.items():
            yield {"query_id": one.id, "doc_id": doc_id, "relevance": grade}


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(map(repr, names[:SHOWN]))}{', ...' if len(names) > SHOWN else ''}"
