"""Rankings and answers -> scores."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from workbench.component import library_version
from workbench.data.passages import Seen
from workbench.evaluation import rankings as ranking_metrics
from workbench.evaluation.answers import AnswerMetric
from workbench.stages.answers import Answers
from workbench.stages.passages import Passages
from workbench.stages.rankings import RankingStage
from workbench.store.session import Session
from workbench.store.stage import Stage


class Score(NamedTuple):
    """One metric of one query; value None where it failed."""

    query_id: str
    metric: str
    value: float | None
    status: str


class ScoresStage(Stage[list[Score]]):
    """Base of stages whose artifact is a table of scores."""

    name: ClassVar = "scores"

    def scores(self, session: Session) -> Iterator[Score]:
        """The scores, in any order."""
        raise NotImplementedError

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        rows = sorted(self.scores(session))
        with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Score._fields)
            writer.writerows([s.query_id, s.metric, "" if s.value is None else repr(s.value), s.status] for s in rows)
        return {"scores": len(rows)}

    def read(self, folder: Path, session: Session) -> list[Score]:
        with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            next(rows)
            return [Score(q, metric, float(value) if value else None, status) for q, metric, value, status in rows]


@dataclass(frozen=True, eq=False)
class RankingScores(ScoresStage):
    """Ranking -> ranking metrics on the judged queries."""

    ranking: RankingStage
    passages: Passages
    answers_digest: str
    metrics: tuple[str, ...]

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.ranking, self.passages)

    def settings(self) -> dict[str, Any]:
        library = {"ir-measures": library_version("ir-measures")}
        return {"judgements": self.answers_digest, "metrics": self.metrics, "libraries": library}

    def scores(self, session: Session) -> Iterator[Score]:
        passages, ranking = session.read(self.passages), session.read(self.ranking)
        judged = session.dataset.judged(self.ranking.split)
        metrics = [ranking_metrics.parse(name) for name in self.metrics]
        seen: dict[str, Sequence[Seen]] = {
            query_id: [passages.seen(int(n)) for n in ids]
            for query_id, (ids, _) in zip(ranking.query_ids, ranking.rows(), strict=True)
            if query_id in judged.judged
        }
        for (query_id, metric), value in ranking_metrics.evaluate(metrics, judged, seen).items():
            yield Score(query_id, metric, value, "ok")


@dataclass(frozen=True, eq=False)
class AnswerScores(ScoresStage):
    """Answers -> answer metrics."""

    version: ClassVar = 2  # answers are compared in normal form C

    answers: Answers
    answers_digest: str
    metrics: tuple[AnswerMetric, ...]

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.answers,)

    def settings(self) -> dict[str, Any]:
        return {"accepted": self.answers_digest, "metrics": tuple(metric.key for metric in self.metrics)}

    def scores(self, session: Session) -> Iterator[Score]:
        queries = {query.id: query for query in session.dataset.split(self.answers.split)}
        for row in session.read(self.answers):
            for metric in self.metrics:
                value = self.answers.score(metric, row, queries[row.query_id].answers, session)
                yield Score(row.query_id, metric.name, value, row.status)
