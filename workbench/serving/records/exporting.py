"""What people said of answers -> questions of the workbench's own form, for the next experiment."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from workbench.component import digest
from workbench.errors import InputError
from workbench.serving.records.database import Database
from workbench.serving.records.erasing import replace
from workbench.serving.records.tables import answers, exports, requests, votes
from workbench.serving.records.talks import Said, history

SOURCE = "feedback"  # how exported questions are marked, in the column `source`
ID_DIGITS = 12
LEAST_SHARED = 0.5  # share of an answer's words that stand in the sentence it rests on
BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+(?![a-z])|(?<=[。！？])|\n+")
WORD = re.compile(r"\w+")


class Opinion(NamedTuple):
    """A vote on an answer.

    Attributes:
        user: who asked and voted; 0: nobody in particular.
        question: the text.
        before: what was said before in the conversation.
        answer: the answer part of the response.
        vote: 1 or -1.
        correction: what the answer should have been.
    """

    user: int
    question: str
    before: list[dict[str, str]]
    answer: dict[str, Any]
    vote: int
    correction: str | None


class Exported(NamedTuple):
    """How many questions were written; how many were answered badly and not corrected, and how many have no evidence."""

    questions: int
    uncorrected: int
    without_evidence: int


def export(database: Database, run: str, path: Path, split: str | None = None, everything: bool = False) -> Exported:
    """Writes the questions that were voted on. Where each person's went is noted, so that it can be removed.

    Args:
        database: the records.
        run: id of the run that was served.
        path: of the file; one that was exported before is replaced.
        split: of all questions; None: half of them ``dev``, half ``test``, by a hash of the question.
        everything: also questions whose answer was found bad and not corrected, with ``answers: null``.

    Raises:
        InputError: nobody voted, or the file is there and was not exported.
    """
    path = path.resolve()
    with database.writing() as connection:
        known = connection.execute(select(exports.c.line).where(exports.c.path == str(path)).limit(1)).first()
        if path.exists() and not known:
            raise InputError(f"{path} is there already and was not exported from these records; name another file with --out")
        found = _opinions(connection, run)
        if not found:
            raise InputError(f"nobody has voted on an answer of run {run}; the records are in {database.name}")
        groups: dict[str, list[Opinion]] = {}
        for one in found:
            groups.setdefault(f"{SOURCE}-{digest([one.question, one.before])[:ID_DIGITS]}", []).append(one)
        lines = {name: _line(name, group, split) for name, group in groups.items()}
        written = {name: line for name, line in lines.items() if everything or line["answers"] is not None}
        _note(connection, str(path), {(name, one.user) for name in written for one in groups[name]})
    path.parent.mkdir(parents=True, exist_ok=True)  # written after it is noted where: nothing is where nobody would look for it
    replace(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in written.values()))
    without = sum(line["evidence"] is None and bool(line["answers"]) for line in written.values())
    return Exported(len(written), sum(line["answers"] is None for line in lines.values()), without)


def _note(connection: Connection, path: str, rows: set[tuple[str, int]]) -> None:
    """Notes whose questions are in a file. What an earlier export noted stays: runs and copies may have been made of it."""
    there = select(exports.c.line, exports.c.user).where(exports.c.path == path)
    if new := sorted(rows - {(row.line, row.user) for row in connection.execute(there)}):
        connection.execute(exports.insert(), [{"path": path, "line": line, "user": user} for line, user in new])


def _opinions(connection: Connection, run: str) -> list[Opinion]:
    """The votes on a run's answers, in the order in which they were asked; without texts there are none."""
    columns = (requests, answers.c.body, votes.c.vote, votes.c.correction)
    joined = requests.join(votes, votes.c.request == requests.c.number).join(answers, answers.c.digest == requests.c.answer)
    wanted = select(*columns).select_from(joined).where(requests.c.run == run)
    return [
        Opinion(
            row.user or 0, row.question, _before(connection, row.conversation, row.turn), json.loads(row.body), row.vote,
            row.correction,
        )
        for row in connection.execute(wanted.order_by(requests.c.number)).all()
        if row.question is not None
    ]  # fmt: skip


def _before(connection: Connection, conversation: str | None, turn: int | None) -> list[dict[str, str]]:
    if conversation is None:
        return []
    columns = (requests.c.id, requests.c.question, requests.c.status, answers.c.body)
    joined = requests.join(answers, answers.c.digest == requests.c.answer)
    wanted = select(*columns).select_from(joined).where(requests.c.conversation == conversation, requests.c.turn < turn)
    rows = connection.execute(wanted.order_by(requests.c.turn)).all()
    return history([Said(row.id, row.question or "", row.status, bytes(row.body)) for row in rows])


def _line(name: str, group: Sequence[Opinion], split: str | None) -> dict[str, Any]:
    """A question of the workbench's own form, from all opinions on its answers."""
    first = group[0]
    accepted = _accepted(group)
    shown = [source for one in group for source in one.answer["sources"]]
    evidence = next((found for text in accepted or () if (found := _evidence(text, shown))), None)
    half = "dev" if int(digest([first.question])[:8], 16) % 2 else "test"
    line = {"id": name, "split": split or half, "question": first.question, "answers": accepted, "evidence": evidence}
    up, down = (sum(one.vote == value for one in group) for value in (1, -1))
    return line | ({"history": first.before} if first.before else {}) | {"metadata": {"source": SOURCE, "up": up, "down": down}}


def _accepted(group: Sequence[Opinion]) -> list[str] | None:
    """Accepted answers: what people wrote, else what more found good than bad. Empty: nothing answers; None: not known."""
    if corrections := list(dict.fromkeys(one.correction for one in group if one.correction)):
        return corrections
    totals: dict[str, int] = {}
    for one in group:
        text = one.answer["answer"]
        if text is not None:
            totals[text] = totals.get(text, 0) + one.vote
    good = [text for text, total in totals.items() if total > 0]
    return [text for text in good if text] if good else None


def _evidence(answer: str, sources: Sequence[dict[str, Any]]) -> dict[str, str] | None:
    """The sentence of the passages shown that an answer rests on: it holds the answer, or the most of its words."""
    wanted = set(WORD.findall(answer.casefold()))
    best: tuple[float, dict[str, str]] | None = None
    for source in sources:
        for sentence in BETWEEN_SENTENCES.split(source["text"]):
            text = sentence.strip()
            whole = answer.casefold().strip(" .!?") in text.casefold()
            share = 1.0 if whole else len(wanted & set(WORD.findall(text.casefold()))) / max(len(wanted), 1)
            if share >= LEAST_SHARED and (best is None or share > best[0]):
                best = share, {"text": text, "document": source["doc_id"]}
    return best[1] if best else None
