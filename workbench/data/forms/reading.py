"""From the settings of a dataset to the dataset: question sets in any form, from files or from the hub, with their documents."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from workbench.component import digest, file_digest
from workbench.data.dataset import Dataset, Row
from workbench.data.documents.folder import Folder, read_folder
from workbench.data.forms import corpora, known, shape, topics
from workbench.data.forms.assembled import dataset
from workbench.data.forms.corpora import Documents
from workbench.data.forms.hub import Hub
from workbench.data.forms.hub_collections import HubCollection, collection
from workbench.data.forms.known import Questions
from workbench.data.forms.question import Asked, Corpus, Quote
from workbench.data.forms.rows import JSONS, ending, rows
from workbench.data.forms.source import Source
from workbench.data.forms.together import split_of, together
from workbench.data.prepared import prepared
from workbench.data.readers import trec
from workbench.data.readers.json_lines import objects
from workbench.data.readers.text import counted, short
from workbench.errors import InputError

__all__ = ["Source", "asked", "every", "is_own", "read"]

READING = 2  # raised when reading the same sets gives another dataset
OWN = ("id", "split", "question", "answers", "evidence")  # of a line of the project's own form


def is_own(path: Path) -> bool:
    """Whether a file of questions is in the project's own form, `workbench.data.evidence.read_questions`, or meant to be."""
    suffix = ending(path)
    if not path.is_file() or suffix not in JSONS:
        return not path.is_file()  # whoever reads that form says that it is not there
    try:
        first = [read.value for read in islice(objects(path), shape.LOOKED_AT)]
    except InputError:
        return suffix != ".json"  # a damaged line, or one value over many lines
    if not all(isinstance(one, dict) for one in first):
        return suffix != ".json"
    there = shape.columns(first)
    if not there or known.recognised(there, str(path)) is not None:
        return not there
    return "split" in there and len(there & set(OWN)) >= len(OWN) - 1


def read(source: Source, slices: Sequence[str] = ()) -> Dataset:
    """The dataset of a source, read once and stored.

    Args:
        source: where it is.
        slices: further columns of the questions that are kept.

    Raises:
        InputError: something of it cannot be read, questions need documents and none are named, or the reverse.
    """
    if found := _collection(source):
        return prepared(digest(["hub collection", found.content(), *slices]), lambda: found.dataset(slices))
    beside = None
    if source.folder is not None:
        beside = read_folder(source.folder, source.files, source.parsers, source.limits)
    questions: list[Any] = [_content(path) for path in source.files] or [None]
    if len(questions) > 1:  # the names of several files may say their splits
        questions = [[[*one, split_of(path)] for one, path in zip(questions, source.files, strict=True)]]
    files = [*questions, *(_content(path) if path is not None else None for path in (source.corpus, source.qrels))]
    content = [files, beside and beside.key, source.hub and source.hub.content()]
    settings = [source.form, dict(source.columns), source.shares and dict(source.shares), source.missing, *slices]
    return prepared(
        digest(["questions", READING, content, settings]), lambda: _dataset(source, asked(source, slices), beside, slices)
    )


def _content(path: Path) -> list[str]:
    """What a file says: its content, and the ending of its name, which says how it is read."""
    if not path.is_file():
        raise InputError(f"{path} {'is a folder; name a file in it' if path.is_dir() else 'does not exist'}")
    return [ending(path), file_digest(path)]


def asked(source: Source, slices: Sequence[str] = ()) -> Questions:
    """The questions of a source, without looking for their evidence.

    Args:
        source: where they are.
        slices: further columns that are kept.

    Raises:
        InputError: they cannot be read.
    """
    if found := _collection(source):
        return found.questions()
    if source.hub is not None:
        return _of_hub(source, source.hub, slices)
    files = source.files or (Path(),)

    def read(path: Path, corpus: Corpus, before: int) -> Questions:
        if path.is_file() and topics.is_topics(path):
            return _of_topics(source, path, slices)
        return known.questions(rows(path), str(path), source.form, source.columns, slices, corpus, before)

    return together(files, read)


def _collection(source: Source) -> HubCollection | None:
    """The collection in BEIR's layout that a set of the hub is, or None.

    Raises:
        InputError: it is one, and settings say that something else is asked or searched.
    """
    if source.hub is None or (found := collection(source.hub)) is None:
        return None
    given: dict[str, object] = {"folder": source.folder, "corpus": source.corpus, "form": source.form, "splits": source.shares}
    given["columns"] = source.columns
    if wrong := [key for key, value in given.items() if value]:
        raise InputError(
            f"dataset.{wrong[0]}: {source.hub.name} has documents, queries and judgements of its own (BEIR's layout); leave the "
            f"setting away, or name one of its configurations with `config:`"
        )
    return found


def every(source: Source, wanted: Container[str]) -> dict[str, dict[str, str]]:
    """Every further column of some questions: query id -> column -> value.

    Args:
        source: where the questions are.
        wanted: their ids.

    Raises:
        InputError: they cannot be read any more.
    """
    return {str(one.id): dict(one.columns) for one in asked(source).asked if one.id in wanted}


def _of_topics(source: Source, path: Path, slices: Sequence[str]) -> Questions:
    found = topics.topics(path)
    there = {name for _, row in found for name in row}
    question = next((name for name in ("title", "query", "question") if name in there), "title")
    read = known.questions(found, str(path), known.NAMED, {"id": "num", "question": question} | dict(source.columns), slices)
    return replace(read, form="trec", about="TREC topics")


def _of_hub(source: Source, hub: Hub, slices: Sequence[str]) -> Questions:
    """The questions of all splits of a set of the hub, whose names say theirs."""
    parts = hub.rows()
    every = [row for part in parts.values() for row in part]
    read = known.questions(every, f"hub set {hub.name}", source.form, source.columns, slices)
    if len(parts) == 1 and source.hub is not None and hub.split is None and all(one.split is None for one in read.asked):
        return read  # a set of one split is a set without splits
    split_of = {where: name for name, part in parts.items() for where, _ in part}
    named = [
        one if one.split is not None else replace(one, split=hub.split_of(split_of[_place(one.where, split_of)]))
        for one in read.asked
    ]
    return replace(read, asked=named)


def _place(where: str, known_places: Mapping[str, str]) -> str:
    """The row that a question came from; questions of one row add something behind it."""
    return where if where in known_places else where.rpartition(", ")[0]


def _dataset(source: Source, read: Questions, beside: Folder | None, slices: Sequence[str]) -> Dataset:
    corpus = corpora.documents(source.corpus) if source.corpus is not None else Documents([], {})
    notes = [*(beside.notes if beside else []), *read.notes]
    questions = _judged(read.asked, source.qrels, notes) if source.qrels is not None else read.asked
    documents = _documents(source, read, beside, corpus)
    if documents is None:  # nothing but the contexts of the questions
        questions, brought = _contexts(questions)
        documents = brought.documents
        notes.append(
            f"no documents were named, so the contexts of the questions, {len(documents)}, are the documents; name the folder "
            f"that they come from, to search in all of it"
        )
    chunks = corpus.rows if source.folder is not None else []
    if corpus.rows and source.folder is None:
        questions = [_on_chunks(one) for one in questions]
    pages = beside.pages if beside else {}
    found = dataset(source.name, questions, documents, notes, slices, source.shares, chunks, corpus.chunks, pages, source.missing)
    return beside.beside(found) if beside else found


def _documents(source: Source, read: Questions, beside: Folder | None, corpus: Documents) -> list[Row] | None:
    """The documents; None where questions of a form that has contexts come without."""
    if beside is not None:
        if read.documents == "own" and read.corpus.documents:
            raise InputError(
                f"dataset.folder: questions of the form {read.form} bring their documents along; leave the folder away"
            )
        return beside.documents
    if corpus.rows:
        return corpus.rows
    if read.corpus.documents:
        return read.corpus.documents
    if any(isinstance(one, Quote) and one.text for question in read.asked for piece in question.evidence for one in piece):
        return None
    raise InputError(
        f"dataset {source.name}: questions of the form {read.form} ({read.about}) come without documents; name the `folder:` "
        f"that holds them, or a `corpus:` file"
    )


def _contexts(questions: Sequence[Asked]) -> tuple[list[Asked], Corpus]:
    """Questions judged on the documents that their quotations are made into."""
    corpus, found = Corpus(), []
    for question in questions:
        texts = [one.text for piece in question.evidence for one in piece if isinstance(one, Quote)]
        relevant = {corpus.add("", text, " ".join(text.split()[:8])[:60]): 1 for text in texts}
        found.append(replace(question, evidence=(), relevant=relevant))
    return found, corpus


def _on_chunks(question: Asked) -> Asked:
    """A question judged on the parts that its evidence names, where they are the documents."""
    named = [one.document for piece in question.evidence for one in piece if isinstance(one, Quote) and not one.text]
    return replace(question, evidence=(), relevant={name: 1 for name in named if name}) if named else question


def _judged(questions: Sequence[Asked], path: Path, notes: list[str]) -> list[Asked]:
    """Questions with the documents that a file of judgements says are relevant."""
    grades: dict[str, dict[str, int]] = {}
    for one in trec.qrels(path):
        grades.setdefault(one.query, {})[one.document] = one.grade
    ids = {question.id for question in questions}
    if strange := sorted(grades.keys() - ids):
        said = counted(len(strange), "question", "left out, which is", "left out, which are")
        notes.append(f"judgements on {said} not there: {short(', '.join(strange[:5]))}")
    found = []
    for question in questions:
        relevant = {name: grade for name, grade in grades.get(question.id or "", {}).items() if grade > 0}
        found.append(replace(question, relevant=relevant))
    if bare := [str(question.id) for question in found if not question.relevant]:
        notes.append(
            f"{counted(len(bare), 'question', 'has', 'have')} no relevant document, so rankings are not measured on "
            f"{'it' if len(bare) == 1 else 'them'}: {', '.join(bare[:5])}"
        )
    return found
