"""Few-shot prompts: which solved train questions a prompt shows, found by ranking the train split's questions.

A train question is ranked like a passage, by any retriever. So a question that nobody asked before gets its neighbours by
the function that ranked them for the measured ones.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from workbench.component import digest
from workbench.data import tables
from workbench.data.chunking import PASSAGES
from workbench.data.dataset import Sample
from workbench.data.passages import PassageTable
from workbench.models.prompts import Shot, Shots, Template
from workbench.stages.examples import Solved, TrainSplit, left_out, solved_questions
from workbench.stages.passages import QUESTION_TOKENS, TEMPLATE_TOKENS, TOKENS_PER_WORD, Passages, PassageStage, Size
from workbench.stages.rankings import RankingStage
from workbench.store.session import Session
from workbench.store.stage import Stage


def train_split(ranking: RankingStage, passages: Passages, dropped: Sequence[str], session: Session) -> TrainSplit:
    """What is known of the questions that a stage ranks for.

    Args:
        ranking: ranks passages for the questions.
        passages: those it ranks.
        dropped: ids of questions to leave out.
        session: reads both, and has the dataset.
    """
    dataset, split = session.dataset, ranking.split
    rows = session.read(ranking).rows()
    return TrainSplit(
        dataset.name, str(split), dataset.split(split), rows, dataset.judged(split), session.read(passages), frozenset(dropped)
    )


@dataclass(frozen=True, eq=False)
class TrainQuestions(PassageStage):
    """Questions of the train split, as passages: what retrievers find neighbours among."""

    name: ClassVar = "questions"
    split: str
    queries_digest: str

    @property
    def label(self) -> str:
        return f"questions of {self.split}"

    def size(self, session: Session) -> Size:
        return Size(len(session.dataset.split(self.split)), QUESTION_TOKENS / TOKENS_PER_WORD)

    def settings(self) -> dict[str, Any]:
        return {"queries": self.queries_digest}

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        queries = session.dataset.split(self.split)
        rows = [{"doc_id": q.id, "start": 0, "end": len(q.text), "title": "", "text": q.text} for q in queries]
        tables.write(folder / "questions.arrow", pa.Table.from_pylist(rows, PASSAGES))
        return {"questions": len(rows)}

    def read(self, folder: Path, session: Session) -> PassageTable:
        return PassageTable(tables.read(folder / "questions.arrow"))


@dataclass(frozen=True, eq=False)
class SolvedQuestions(Stage[dict[str, Solved]]):
    """Train questions with passages and answer, in an order drawn by the seed."""

    name: ClassVar = "shots"
    ranking: RankingStage
    passages: Passages
    shown: int
    answers_digest: str
    seed: int
    dropped: tuple[str, ...]

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.ranking, self.passages)

    def settings(self) -> dict[str, Any]:
        own = {"passages": self.shown, "judgements": self.answers_digest, "seed": self.seed}
        return own | left_out(self.dropped)

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        solved = solved_questions(train_split(self.ranking, self.passages, self.dropped, session), self.shown, self.seed)
        random.Random(f"shots {self.seed}").shuffle(solved)
        with (folder / "shots.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(one._asdict(), ensure_ascii=False) + "\n" for one in solved)
        return {"questions": len(solved)} | left_out(self.dropped)

    def read(self, folder: Path, session: Session) -> dict[str, Solved]:
        with (folder / "shots.jsonl").open(encoding="utf-8") as lines:
            solved = [Solved(**json.loads(line)) for line in lines]
        return {one.query_id: one for one in solved}


@dataclass(frozen=True, eq=False)
class FewShot:
    """How the prompts of a split come by their solved questions.

    Attributes:
        shots: which and how many.
        solved: those there are.
        split: whose questions are asked.
        nearest: ranking of the train questions for each question of the split; None: the same are shown with all.
    """

    shots: Shots
    solved: SolvedQuestions
    split: str | Sample
    nearest: RankingStage | None

    @property
    def key(self) -> str:
        """Digest of all that decides what is shown."""
        return digest([self.shots.settings(), *(stage.key for stage in self.inputs())])

    def inputs(self) -> tuple[Stage[object], ...]:
        """The stages read."""
        return (self.solved, self.nearest) if self.nearest else (self.solved,)

    def artifacts(self) -> dict[str, Stage[object]]:
        """What a configuration answers with, by name."""
        return {"shots": self.solved} | ({"neighbours": self.nearest} if self.nearest else {})

    def of_split(self, session: Session) -> list[list[Shot]]:
        """What is shown with each question of the split, in order."""
        return [self.of_question(query.id, query.text, session) for query in session.dataset.split(self.split)]

    def of_question(self, query_id: str, question: str, session: Session) -> list[Shot]:
        """What is shown with a question: of the split, by its id, or any other."""
        return self._chosen(query_id, self._near(query_id, question, session), session)

    def _near(self, query_id: str, question: str, session: Session) -> Sequence[int]:
        """Numbers of the nearest train questions, nearest first; by one function whether they were ranked before or not."""
        if self.nearest is None:
            return ()
        ranking = session.read(self.nearest)
        if query_id in ranking.query_ids:
            ids, _ = ranking.row(ranking.query_ids.index(query_id))
        else:
            ids, _ = self.nearest.rank([question], session)[0]
        return [int(n) for n in ids]

    def _chosen(self, query_id: str, near: Iterable[int], session: Session) -> list[Shot]:
        """The nearest solved questions but the one asked, filled up with the first of all; nearest last."""
        solved, passages = session.read(self.solved), session.read(self.solved.passages)
        train = session.dataset.split(self.solved.ranking.split)
        chosen: list[str] = []
        for i in chain((train[n].id for n in near), solved):
            if len(chosen) == self.shots.count:
                break
            if i in solved and i != query_id and i not in chosen:
                chosen.append(i)
        return [_shot(solved[i], passages) for i in reversed(chosen)]


def _shot(solved: Solved, passages: PassageTable) -> Shot:
    return Shot(solved.question, tuple(passages.shown(n) for n in solved.passages), solved.answer, solved.number)


def prompt_tokens(template: Template, shown: int, passages: Passages, session: Session) -> float:
    """About how many tokens a prompt has, before a tokenizer has counted them.

    Args:
        template: how questions are asked.
        shown: passages in a prompt, without those of its solved questions.
        passages: those that are shown.
        session: knows how long they are.
    """
    shots = template.shots
    texts = shown + (shots.count * shots.passages if shots else 0)
    around = TEMPLATE_TOKENS * (1 + (shots.count / 2 if shots else 0))
    return around + texts * passages.size(session).words * TOKENS_PER_WORD
