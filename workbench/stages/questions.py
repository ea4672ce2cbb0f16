"""Questions that lean on a conversation -> questions that stand alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from workbench.component import canonical
from workbench.data.conversation import History
from workbench.data.dataset import Query, Sample
from workbench.data.readers.text import composed
from workbench.models.answering import Generation
from workbench.retrieval.rewriting import Rewriter
from workbench.stages.passages import TEMPLATE_TOKENS, TOKENS_PER_WORD
from workbench.stages.writers import Writer
from workbench.store.session import Session
from workbench.store.stage import Stage, Work


class Rewriting(NamedTuple):
    """A question as it is searched and answered."""

    question: str
    status: str  # as asked; rewritten; or: as asked, and why


@dataclass(frozen=True, eq=False)
class Questions(Stage[list[Query]]):
    """Questions of a split and what was said before them -> questions that stand alone."""

    name: ClassVar = "questions"
    version: ClassVar = 2  # rewritten questions are in normal form C
    rewriter: Rewriter
    writer: Writer
    split: str | Sample
    queries_digest: str
    histories_digest: str

    def settings(self) -> dict[str, Any]:
        own = {"rewriter": self.rewriter.definition(), "queries": self.queries_digest, "histories": self.histories_digest}
        return own | self.writer.settings()

    def work(self, session: Session) -> Work:
        asked = [query for query in session.dataset.split(self.split) if query.history]
        words = sum(len(turn.content.split()) for query in asked for turn in query.history)
        each = words * TOKENS_PER_WORD / len(asked) if asked else 0.0
        return self.writer.planned(len(asked), each + TEMPLATE_TOKENS, self.rewriter.max_new_tokens)

    def rewritten(self, asked: Sequence[tuple[History, str]], session: Session) -> list[Rewriting]:
        """Questions that stand alone; `compute` and the pipeline both come through here.

        A question nothing was said before is taken as it is, unasked; so is one that the generator gives no question for.
        """
        leaning = [canonical(self.rewriter.messages(history, question)) for history, question in asked if history]
        found = iter(self.writer.written(leaning, session))
        return [self._read(question, next(found)) if history else Rewriting(question, "as asked") for history, question in asked]

    def _read(self, question: str, reply: Generation) -> Rewriting:
        text = composed(self.rewriter.read(reply.text))
        if text:
            return Rewriting(text, "rewritten")
        return Rewriting(question, f"as asked: {'the rewriting was empty' if reply.status == 'ok' else reply.status}")

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        queries = session.dataset.split(self.split)
        found = self.rewritten([(query.history, query.text) for query in queries], session)
        with (folder / "questions.jsonl").open("w", encoding="utf-8") as file:
            for query, one in zip(queries, found, strict=True):
                file.write(json.dumps({"query_id": query.id} | one._asdict(), ensure_ascii=False) + "\n")
        return {"questions": len(queries), "rewritten": sum(one.status == "rewritten" for one in found)}

    def read(self, folder: Path, session: Session) -> list[Query]:
        """The queries of the split, with the texts that stand alone."""
        with (folder / "questions.jsonl").open(encoding="utf-8") as lines:
            texts = [json.loads(line)["question"] for line in lines]
        return [query._replace(text=text) for query, text in zip(session.dataset.split(self.split), texts, strict=True)]


def asked(split: str | Sample, questions: Questions | None, session: Session) -> list[Query]:
    """The queries of a split: rewritten where a stage does so, else as they are."""
    return session.read(questions) if questions else session.dataset.split(split)
