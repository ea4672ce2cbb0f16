"""One question put to every distinct ranking of an experiment, side by side, and where each lost the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from workbench.data.dataset import Judgements, Query
from workbench.errors import InputError
from workbench.evaluation.rankings import covering
from workbench.experiment.planner import ConfigurationStages, passages_of
from workbench.results.display import Displayed
from workbench.stages.rankings import RankingStage
from workbench.store.session import Session

AXES = ("chunking", "rewriting", "expansion", "retriever", "reranker")


class Found(NamedTuple):
    """A passage of a ranking: its rank from 1, score, title, text, and whether it holds evidence of the question."""

    rank: int
    score: float
    title: str
    text: str
    holds: bool


class Ranked(NamedTuple):
    """What one ranking finds for a question.

    Attributes:
        name: the axes that make it, such as ``retriever bm25, reranker maxsim``.
        passages: the best ones.
        evidence_rank: of the first passage that holds evidence, from 1, as deep as rankings are kept; None where none does, or
            nothing is known of the question's evidence.
    """

    name: str
    passages: list[Found]
    evidence_rank: int | None


class Search(Displayed):
    """A question and what each distinct ranking of an experiment finds for it.

    Attributes:
        question: its text.
        query: the dataset's question of this text; None where it has none, so that nothing is known of its evidence.
        rankings: by name.
    """

    def __init__(self, question: str, query: Query | None, rankings: list[Ranked]) -> None:
        self.question = question
        self.query = query
        self.rankings = rankings

    def __repr__(self) -> str:
        said = [f"{one.name}: {lost(one, self.query)}" for one in self.rankings]
        return "\n".join([self.question, *said])


def lost(one: Ranked, query: Query | None) -> str:
    """Where a ranking has the evidence, in words."""
    if query is None:
        return "nothing is known of the evidence, since the dataset does not ask this"
    if one.evidence_rank is None:
        return "the evidence is not found"
    return f"the evidence stands at rank {one.evidence_rank}"


def search(session: Session, selected: Sequence[ConfigurationStages], splits: Sequence[str], question: str, best: int) -> Search:
    """Ranks the passages for a question by every distinct ranking.

    Args:
        session: makes what the store lacks, such as indexes.
        selected: configurations on the split that selects.
        splits: where the question is looked for.
        question: any text; of one that the dataset asks, the evidence is known.
        best: passages of each ranking that are kept.

    Raises:
        InputError: an empty question, or an experiment without rankings.
    """
    question = question.strip()
    if not question:
        raise InputError("the question is empty; ask something")
    stages: dict[str, tuple[str, RankingStage]] = {}
    values = {axis: {one.configuration.columns().get(axis, "") for one in selected} for axis in AXES}
    for one in selected:
        if one.ranking and one.ranking.key not in stages:
            columns = one.configuration.columns()
            told = [
                f"{axis} {columns[axis]}" for axis in AXES if axis in columns and (len(values[axis]) > 1 or axis == "retriever")
            ]
            stages[one.ranking.key] = ", ".join(told), one.ranking
    if not stages:
        raise InputError("no configuration of this experiment ranks passages, so nothing can be searched")
    query, judgements = _known(session, splits, question)
    return Search(
        question, query, [_ranked(session, name, stage, question, query, judgements, best) for name, stage in stages.values()]
    )


def _known(session: Session, splits: Sequence[str], question: str) -> tuple[Query | None, Judgements | None]:
    for split in splits:
        for query in session.dataset.split(split):
            if query.text.strip() == question:
                return query, session.dataset.judged(split)
    return None, None


def _ranked(
    session: Session,
    name: str,
    stage: RankingStage,
    question: str,
    query: Query | None,
    judgements: Judgements | None,
    best: int,
) -> Ranked:
    """The passages of one ranking.

    Args:
        session: reads what the stage needs.
        name: of the ranking.
        stage: ranks.
        question: its text.
        query: the dataset's, or None.
        judgements: of its split, or None.
        best: passages that are kept.
    """
    table = session.read(passages_of(stage))
    numbers, scores = stage.rank([question], session)[0]
    order = [int(n) for n in numbers]
    holds = [False] * len(order)
    if query is not None and judgements is not None and query.id in judgements.judged:
        holds = covering(judgements, query.id, [table.read(n) for n in order])
    found = []
    for rank, (n, score, held) in enumerate(zip(order[:best], scores.tolist(), holds, strict=False), 1):
        shown = table.shown(n)
        found.append(Found(rank, round(float(score), 3), shown.title, shown.text, held))
    return Ranked(name, found, holds.index(True) + 1 if any(holds) else None)
