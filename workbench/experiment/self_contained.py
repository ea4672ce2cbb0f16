"""What makes a run's folder enough by itself: the questions, the passages that matter, the rankings, the losses of trainings.

Everything is read from the store and the dataset; nothing is computed by a model. Texts are read one by one as they are
written, so that the passages are in memory at most once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from workbench.data.dataset import Judgements, Place, Query
from workbench.data.passages import PassageTable
from workbench.evaluation.rankings import covering
from workbench.experiment.planner import ConfigurationStages, passages_of
from workbench.models.training import HELD_BACK, LOSSES, read_held_back, read_losses
from workbench.results.lines import GradeRecord, RankedRecord, SpanRecord
from workbench.results.records import PlaceRecord, passage_id
from workbench.results.rows import TrainingRow
from workbench.retrieval.ranking import Ranking
from workbench.stages.passages import Passages
from workbench.stages.rankings import RankingStage
from workbench.stages.reranking import Reranked
from workbench.stages.writers import AdapterStage
from workbench.store.session import Session

BEST = 10  # passages of a ranking that are written


class SelfContained:
    """Lines of questions.jsonl, passages.jsonl and rankings.jsonl, and rows of training.csv, each sorted."""

    def __init__(
        self,
        session: Session,
        measured: Sequence[ConfigurationStages],
        splits: Sequence[str],
        names: Mapping[str, str],
        columns: Mapping[str, Mapping[str, str]],
    ) -> None:
        """What was measured.

        Args:
            session: reads stages; the store holds them all.
            measured: configurations on the splits they were measured on.
            splits: whose questions were measured, sorted.
            names: configuration id -> the id of its ranking in the run's folder.
            columns: query id -> further column -> value.
        """
        self.session = session
        self.measured = measured
        self.splits = splits
        self.names = names
        self.columns = columns

    @cached_property
    def judged(self) -> dict[str, Judgements]:
        """Split -> its judgements."""
        return {split: self.session.dataset.judged(split) for split in self.splits}

    @cached_property
    def distinct(self) -> list[tuple[str, str, RankingStage]]:
        """Id, split and stage of each distinct ranking, sorted."""
        found = {(self.names[one.configuration.id], one.split): one.ranking for one in self.measured if one.ranking}
        return [(name, split, found[name, split]) for name, split in sorted(found)]

    def questions(self) -> Iterator[str]:
        """Lines of questions.jsonl."""
        for split in self.splits:
            for query in sorted(self.session.dataset.split(split), key=lambda query: query.id):
                said = {"history": [turn._asdict() for turn in query.history]} if query.history else {}
                yield _line(self._question(split, query) | said)

    def _question(self, split: str, query: Query) -> dict[str, object]:
        return {
            "split": split,
            "query_id": query.id,
            "question": query.text,
            "answers": query.answers,
            "evidence": [one.model_dump() for one in _evidence(self.judged[split], query.id)],
            "group": query.group,
            "columns": self.columns.get(query.id, {}),
        }

    def rankings(self) -> Iterator[str]:
        """Lines of rankings.jsonl."""
        for name, split, stage in self.distinct:
            ranking, passages = self.session.read(stage), self.session.read(passages_of(stage))
            before = self.session.read(stage.ranking) if isinstance(stage, Reranked) else None
            for i, query_id in enumerate(ranking.query_ids):
                judgements = self.judged[split]
                covers = _covering(judgements, query_id, ranking, i, passages)
                best = _best(ranking, before, i, passages, covers)
                rank = covers.index(True) + 1 if any(covers) else None
                head = {"ranking": name, "split": split, "query_id": query_id}
                yield _line(head | {"passages": best, "evidence_rank": rank})

    def passages(self) -> Iterator[str]:
        """Lines of passages.jsonl, by document, start and end."""
        tables = {key: self.session.read(stage) for key, stage in self._passage_stages.items()}
        found = {tables[key].place(number): (key, number) for key, numbers in self._numbers().items() for number in numbers}
        for place in sorted(found):
            key, number = found[place]
            yield _line({"id": passage_id(_place(place))} | _place(place) | tables[key].shown(number)._asdict())

    @cached_property
    def _passage_stages(self) -> dict[str, Passages]:
        rankings = {stage.key: stage for one in self.measured if (stage := one.ranking)}
        return {stage.key: stage for stage in map(passages_of, rankings.values())}

    def _numbers(self) -> dict[str, set[int]]:
        """Key of a table of passages -> numbers of those that an answer shows, a ranking's best ten hold, or evidence lies in."""
        found: dict[str, set[int]] = {}
        for key, stage in self._passage_stages.items():
            table = self.session.read(stage)
            found[key] = {number for judgements in self.judged.values() for number in _holding(judgements, table)}
        for _, _, ranked in self.distinct:
            best = np.unique(self.session.read(ranked).passages[:, :BEST])
            found[passages_of(ranked).key].update(best[best >= 0].tolist())
        for answers in {answers.key: answers for one in self.measured for answers in one.all_answers()}.values():
            if answers.passages:
                found[answers.passages.key].update(n for row in self.session.read(answers) for n in row.passages)
        return found

    def training(self) -> list[TrainingRow]:
        """Rows of training.csv."""
        adapters: dict[tuple[str, int], AdapterStage] = {}
        for one in self.measured:
            for answers in one.all_answers():
                if adapter := answers.writer.adapter:
                    adapters[one.configuration["generator"], adapter.seed] = adapter
        return [
            TrainingRow(name, seed, *losses)
            for (name, seed), adapter in sorted(adapters.items())
            for losses in _losses(self.session.ensure(adapter))
        ]


def _line(row: Mapping[str, object]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _place(place: Place) -> PlaceRecord:
    return {"doc_id": place.doc_id, "start": place.start, "end": place.end}


def _evidence(judgements: Judgements, query_id: str) -> list[SpanRecord] | list[GradeRecord]:
    """What was judged of a question."""
    if judgements.kind == "documents":
        return [GradeRecord(doc_id=d, grade=grade) for d, grade in sorted(judgements.documents.get(query_id, {}).items())]
    pieces = enumerate(judgements.spans.get(query_id, ()))
    return [SpanRecord(piece=i, **_place(place)) for i, places in pieces for place in places]


def _covering(judgements: Judgements, query_id: str, ranking: Ranking, i: int, passages: PassageTable) -> list[bool]:
    """Whether passages of a row cover evidence: the best ten, and all of the row where none of these does."""
    numbers = ranking.row(i)[0].tolist()
    found = covering(judgements, query_id, [passages.read(n) for n in numbers[:BEST]])
    if any(found) or query_id not in judgements.judged:
        return found
    return covering(judgements, query_id, [passages.read(n) for n in numbers])


def _best(ranking: Ranking, before: Ranking | None, i: int, passages: PassageTable, covers: Sequence[bool]) -> list[RankedRecord]:
    """The best ten passages of a row."""
    numbers, scores = (values[:BEST].tolist() for values in ranking.row(i))
    ranks = {n: rank for rank, n in enumerate(before.row(i)[0].tolist(), 1)} if before else {}
    return [
        RankedRecord(passage_id(_place(passages.place(n))), round(score, 6) + 0.0, ranks.get(n), holds)
        for n, score, holds in zip(numbers, scores, covers, strict=False)
    ]


def _holding(judgements: Judgements, passages: PassageTable) -> Iterator[int]:
    """Numbers of the passages in which evidence lies, or a part of it; of relevant documents all."""
    places: dict[str, list[Place]] = {}
    for place in (place for pieces in judgements.spans.values() for piece in pieces for place in piece):
        places.setdefault(place.doc_id, []).append(place)
    documents = {doc_id for grades in judgements.documents.values() for doc_id in grades}
    for number in passages.of_documents(places.keys() | documents):
        read = passages.read(number)
        if read.doc_id in documents or any(one.start < read.end and read.start < one.end for one in places[read.doc_id]):
            yield number


def _losses(folder: Path) -> Iterator[tuple[int, float | None, float | None]]:
    """Step, loss and loss on what was held back of a training."""
    losses = {one.step: one.loss for one in read_losses(folder / LOSSES)}
    held_back = {one.step: one.loss for one in read_held_back(folder / HELD_BACK)}
    for step in sorted(losses.keys() | held_back.keys()):
        yield step, losses.get(step), held_back.get(step)
