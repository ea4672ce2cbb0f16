"""What is wrong with a dataset, or weakens what it can show: found before anything is computed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from workbench.data import splits
from workbench.data.dataset import Dataset
from workbench.data.leaks import leaks, normalized
from workbench.data.readers.text import counted

SHOWN = 5  # examples that a finding names
LONG = 8  # words of an answer, from which it is a sentence of its own that need not stand in a document
DECIDED = {"yes", "no", "true", "false"}  # answers that say something about a document and do not stand in it
LEFT_OUT = re.compile(r"\bquestions? left out")  # in notes of loading


class Finding(NamedTuple):
    """Something that is wrong (`serious`), or that has to be known."""

    serious: bool
    said: str

    def __str__(self) -> str:
        return f"{'problem' if self.serious else 'remark'}: {self.said}"


def findings(dataset: Dataset) -> list[Finding]:
    """Everything that is found, what is serious first.

    Looked for are: questions that were left out, questions that two splits ask, questions asked twice in one, splits too small to
    show anything, questions without an accepted answer, answers that stand in no document, questions without judgement, and
    documents that are empty or equal.
    """
    found = [
        *_left_out(dataset),
        *_shared(dataset),
        *_repeated(dataset),
        *_small(dataset),
        *_unwritten(dataset),
        *_unanswered(dataset),
        *_unjudged(dataset),
        *_documents(dataset),
    ]
    return sorted(found, key=lambda one: not one.serious)


def _left_out(dataset: Dataset) -> Iterator[Finding]:
    for note in dataset.notes:
        if LEFT_OUT.search(note):
            yield Finding(True, note)


def _shared(dataset: Dataset) -> Iterator[Finding]:
    for one, other in combinations(dataset.splits, 2):
        sides = ({query.id: query.text for query in dataset.split(split)} for split in (one, other))
        found = leaks(*sides)
        if found:
            pairs = "; ".join(map(str, found[:SHOWN]))
            # a model that was trained on a near copy knows it; who chooses by one learns nothing about the other
            serious = one == "train" or normalized(found[0].train) == normalized(found[0].evaluation)
            verb = "is" if len(found) == 1 else "are"
            said = f"{counted(len(found), 'question')} of {one} {verb} asked in {other} too, or nearly so: {pairs}"
            yield Finding(serious, said)


def _repeated(dataset: Dataset) -> Iterator[Finding]:
    for split in dataset.splits:
        same = _equal((query.id, f"{normalized(query.text)} {query.history}") for query in dataset.split(split))
        if same:
            verb = "is" if len(same) == 1 else "are"
            yield Finding(False, f"{counted(len(same), 'question')} of {split} {verb} asked several times: {_groups(same)}")


def _small(dataset: Dataset) -> Iterator[Finding]:
    for split in dataset.splits:
        groups = len({query.group for query in dataset.split(split)})
        if said := splits.small(split, groups):
            yield Finding(groups < splits.FEWEST, said.removeprefix("CAUTION: "))


def _unwritten(dataset: Dataset) -> Iterator[Finding]:
    asked = [query for split in dataset.splits for query in dataset.split(split)]
    bare = [query.id for query in asked if query.answers is None]
    if asked and len(bare) == len(asked):
        yield Finding(False, "no question has an accepted answer, so rankings can be compared, and answers of generators cannot")
    elif bare:
        yield Finding(
            False,
            f"{counted(len(bare), 'question', 'has', 'have')} no accepted answer: {_few(bare)}; before answers of generators are "
            f"compared, write what is right, or `[]` where the documents do not answer the question",
        )


def _unanswered(dataset: Dataset) -> Iterator[Finding]:
    texts = [f" {normalized(text)} " for text in dataset.documents["text"].to_pylist()]
    words = "\n".join([*texts, *(f" {normalized(title)} " for title in dataset.documents["title"].to_pylist())])
    short, long, asked = [], 0, 0
    for split in dataset.splits:
        for query in dataset.split(split):
            answers = [said for answer in query.answers or () if (said := normalized(answer)) and said not in DECIDED]
            asked += bool(query.answers)
            if answers and not any(f" {answer} " in words for answer in answers):
                if all(len(answer.split()) >= LONG for answer in answers):
                    long += 1
                else:
                    short.append(query.id)
    if short:
        yield Finding(
            False,
            f"{len(short)} of {counted(asked, 'answered question')} {'has' if len(short) == 1 else 'have'} an accepted answer "
            f"that stands in no document word for word: {_few(short)}; a generator that copies cannot be right on "
            f"{'it' if len(short) == 1 else 'them'}",
        )
    if long:
        yield Finding(
            False,
            f"{long} of {counted(asked, 'answered question')} {'has' if long == 1 else 'have'} answers of {LONG} words and more "
            f"that stand in no document; em, f1 and contains are low for whoever answers in other words",
        )


def _unjudged(dataset: Dataset) -> Iterator[Finding]:
    for split in dataset.splits:
        judged = dataset.judged(split).judged
        bare = [query.id for query in dataset.split(split) if query.id not in judged and query.answers != ()]
        if bare:
            yield Finding(
                False,
                f"{counted(len(bare), 'question')} of {split} {'has' if len(bare) == 1 else 'have'} neither evidence nor a "
                f"relevant document, so rankings are not measured on {'it' if len(bare) == 1 else 'them'}: {_few(bare)}",
            )


def _documents(dataset: Dataset) -> Iterator[Finding]:
    ids, texts = dataset.documents["id"].to_pylist(), dataset.documents["text"].to_pylist()
    if empty := [name for name, text in zip(ids, texts, strict=True) if not text.strip()]:
        yield Finding(False, f"{counted(len(empty), 'document', 'has', 'have')} no text: {_few(empty)}")
    same = _equal((name, " ".join(text.split())) for name, text in zip(ids, texts, strict=True) if text.strip())
    if not same:
        return
    copies = f"{counted(len(same), 'text', 'stands', 'stand')} in several documents: {_groups(same)}"
    relevant = {name for split in dataset.splits for documents in dataset.judged(split).documents.values() for name in documents}
    wrong = any(relevant & set(group) and not relevant >= set(group) for group in same)
    why = "; some of these copies are judged relevant and others are not, which is counted as an error of whoever finds them"
    yield Finding(wrong, f"{copies}{why if wrong else ''}")


def _equal(named: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Names of equal texts, by text; those that stand alone are left out."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, text in named:
        groups[text].append(name)
    return [names for names in groups.values() if len(names) > 1]


def _groups(same: Sequence[Sequence[str]]) -> str:
    return f"{'; '.join(_few(names) for names in same[:SHOWN])}{'; ...' if len(same) > SHOWN else ''}"


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(map(repr, names[:SHOWN]))}{', ...' if len(names) > SHOWN else ''}"
