"""Judgements and rankings in TREC's formats: fields parted by white space, one line for a document of a query."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from workbench.data.readers.text import lines, whole_number
from workbench.data.readers.text import number as decimal
from workbench.errors import InputError

QRELS_FORM = "query 0 document grade"
RUN_FORM = "query Q0 document rank score tag"


class Grade(NamedTuple):
    """A judgement: how relevant a document is to a query; 0 or less: not at all."""

    line: int
    query: str
    document: str
    grade: int


class Found(NamedTuple):
    """A document of a ranking, with its score."""

    line: int
    query: str
    document: str
    rank: int
    score: float


def qrels(path: Path) -> list[Grade]:
    """Judgements; a line that repeats another is dropped.

    Raises:
        InputError: another form, two grades for one document of a query, no lines, or as `workbench.data.readers.text.lines`.
    """
    found: dict[tuple[str, str], Grade] = {}
    for number, (query, _, document, grade) in _fields(path, 4, QRELS_FORM):
        if (value := whole_number(grade)) is None:
            raise InputError(f"{path}, line {number}: {grade!r} is no grade; a whole number is needed in `{QRELS_FORM}`")
        one = Grade(number, query, document, value)
        first = found.setdefault((query, document), one)
        if first.grade != one.grade:
            raise InputError(
                f"{path}, line {number}: document {document!r} has the grade {one.grade} for query {query!r}, and in line "
                f"{first.line} the grade {first.grade}; give one"
            )
    return _some(path, list(found.values()), QRELS_FORM)


def ranking(path: Path) -> list[Found]:
    """A ranking for each query.

    Raises:
        InputError: another form, a document that a query ranks twice, no lines, or as `workbench.data.readers.text.lines`.
    """
    found: dict[tuple[str, str], Found] = {}
    for number, (query, _, document, rank, score, _) in _fields(path, 6, RUN_FORM):
        if (place := whole_number(rank)) is None:
            raise InputError(f"{path}, line {number}: {rank!r} is no rank; a whole number is needed in `{RUN_FORM}`")
        if (value := decimal(score)) is None:
            raise InputError(f"{path}, line {number}: {score!r} is no score; a finite number is needed in `{RUN_FORM}`")
        one = Found(number, query, document, place, value)
        if first := found.get((query, document)):
            raise InputError(
                f"{path}, line {number}: query {query!r} ranks document {document!r} a second time, first in line {first.line}; "
                f"rank it once"
            )
        found[query, document] = one
    return _some(path, list(found.values()), RUN_FORM)


def _fields(path: Path, n: int, form: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines(path):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != n:
            raise InputError(f"{path}, line {number} has {len(fields)} fields instead of {n}: {line[:80]!r}; needed: `{form}`")
        yield number, fields


def _some(path: Path, found: list, form: str) -> list:  # type: ignore[type-arg]
    if not found:
        raise InputError(f"{path} is empty; lines of `{form}` are needed")
    return found
