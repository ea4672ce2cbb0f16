"""Lines of a run's JSON lines files, tags among them, and what a running experiment says: checked when they are read."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from workbench.data.conversation import Turn
from workbench.data.readers.json_lines import Record


class SpanRecord(Record):
    """A place of a piece of evidence: characters `start` to before `end`; places of one `piece` say the same."""

    piece: int
    doc_id: str
    start: int
    end: int


class GradeRecord(Record):
    """A relevant document with its grade, above 0."""

    doc_id: str
    grade: int


class QuestionRecord(Record):
    """One line of questions.jsonl.

    Attributes:
        split: of the question.
        query_id: its id.
        question: its text, as it was asked.
        answers: accepted ones; empty where the documents hold none, None where nobody wrote any.
        evidence: where it stands, or which documents are relevant; empty where none was judged.
        group: questions of one group depend on each other.
        columns: its further columns, such as ``kind``; those without a value are left out.
        history: what was said before it.
    """

    split: str = Field(description="a text")
    query_id: str = Field(description="a text")
    question: str = Field(description="a text")
    answers: list[str] | None = Field(description="a list of texts, or null")
    evidence: list[SpanRecord] | list[GradeRecord] = Field(
        description="a list of objects with piece, doc_id, start and end, or with doc_id and grade"
    )
    group: str = Field(description="a text")
    columns: dict[str, str] = Field(description="an object of texts")
    history: list[Turn] = Field(default=[], description="a list of objects with role and content")


class PassageRecord(Record):
    """One line of passages.jsonl: characters `start` to before `end` of a document; `id` is its `passage_id`."""

    id: str = Field(description="a text")
    doc_id: str = Field(description="a text")
    start: int = Field(description="a whole number")
    end: int = Field(description="a whole number")
    title: str = Field(description="a text")
    text: str = Field(description="a text")


class RankedRecord(NamedTuple):
    """A passage of a ranking.

    Attributes:
        passage: its id in passages.jsonl.
        score: six decimals.
        before: its rank before reranking, from 1; None without a reranker.
        covers: whether it covers evidence, alone or together with the passages above it.
    """

    passage: str
    score: float
    before: int | None
    covers: bool


class RankingRecord(Record):
    """One line of rankings.jsonl: what one ranking finds for one question.

    Attributes:
        ranking: its id: the artifact ``ranking`` among the `keys` of the configurations that use it.
        split: of the question.
        query_id: the question.
        passages: the best ten.
        evidence_rank: of the first passage that covers evidence, from 1, as deep as rankings are kept; None where none does.
    """

    ranking: str = Field(description="a text")
    split: str = Field(description="a text")
    query_id: str = Field(description="a text")
    passages: list[RankedRecord] = Field(
        description="a list of [passage id, score, rank before reranking or null, true or false]"
    )
    evidence_rank: int | None = Field(description="a whole number, or null")


class RunningRecord(Record):
    """The file of an experiment under way; see `workbench.results.running`.

    Attributes:
        experiment: its name.
        pid: id of its process.
        host: name of the machine that the process runs on.
        started: when its first step began, UTC, ISO 8601.
        stage: what is under way; empty before the first.
        done: items of it that are done.
        total: items of it.
        seconds: that the steps of the experiment have taken so far.
        left: seconds that the rest of the whole plan takes at most, as estimated.
        ended: why it ended without finishing; empty while it runs.
    """

    experiment: str = Field(description="a text")
    pid: int = Field(ge=1, lt=2**31, description="a whole number")
    host: str = Field(description="a text")
    started: str = Field(description="a text")
    stage: str = Field(description="a text")
    done: int = Field(description="a whole number")
    total: int = Field(description="a whole number")
    seconds: float = Field(description="a number")
    left: float = Field(description="a number")
    ended: str = Field(default="", description="a text")


class TagRecord(Record):
    """One line of tags.jsonl: a tag put on the answer of a configuration to a question, or taken off again.

    Attributes:
        time: when, UTC, ISO 8601.
        configuration: id.
        query_id: of the question.
        tag: one of `workbench.results.tags.TAGS`, or words of one's own; empty for a note alone.
        note: what somebody wrote beside it.
        removed: whether the tag was taken off.
    """

    time: str = Field(description="a text")
    configuration: str = Field(description="a text")
    query_id: str = Field(description="a text")
    tag: str = Field(description="a text")
    note: str = Field(description="a text")
    removed: bool = Field(description="true or false")
