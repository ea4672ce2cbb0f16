"""Queries -> rankings: searched, fused, expanded, reranked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from workbench.component import Component, canonical, digest
from workbench.data.conversation import History
from workbench.data.dataset import Query, Sample
from workbench.experiment.stages.base import Stage
from workbench.experiment.stages.indexes import DenseIndex, Embeddings, Encoder, TextIndex
from workbench.experiment.stages.passages import Passages
from workbench.models.generator import Generation, Generator
from workbench.retrieval.dense import Dense
from workbench.retrieval.expansion import Expander, searched
from workbench.retrieval.fusion import Fusion
from workbench.retrieval.ranking import Ranking
from workbench.retrieval.rerankers.base import Pair, PairScorer, Reranker
from workbench.retrieval.rewriting import Rewriter

if TYPE_CHECKING:
    from workbench.experiment.session import Session
    from workbench.experiment.stages.answers import ClosedAnswers
    from workbench.experiment.stages.training import TrainedReranker


class Rewriting(NamedTuple):
    """A question as it is searched and answered."""

    question: str
    status: str  # as asked; rewritten; or: as asked, and why


@dataclass(frozen=True, eq=False)
class Questions(Stage):
    """Questions of a split and what was said before them -> questions that stand alone."""

    name: ClassVar = "questions"
    rewriter: Rewriter
    generator: Generator
    split: str | Sample
    queries_digest: str
    histories_digest: str
    arithmetic: str

    # as of `Answers`, so that a session generates for either
    adapter: ClassVar = None

    def settings(self) -> dict[str, Any]:
        return {
            "rewriter": self.rewriter.definition(),
            "generator": self.generator.definition(),
            "queries": self.queries_digest,
            "histories": self.histories_digest,
            "arithmetic": self.arithmetic,
        }

    @cached_property
    def namespace(self) -> str:
        """What questions rewritten from equal conversations share."""
        return digest(["answer", self.generator.definition(), None, self.arithmetic])

    def rewritten(self, asked: Sequence[tuple[History, str]], session: Session) -> list[Rewriting]:
        """Questions that stand alone; `compute` and the pipeline both come through here.

        A question nothing was said before is taken as it is, unasked; so is one that the generator gives no question for.
        """
        leaning = [canonical(self.rewriter.messages(history, question)) for history, question in asked if history]
        found = iter(session.generated(self, leaning))
        return [self._read(question, next(found)) if history else Rewriting(question, "as asked") for history, question in asked]

    def _read(self, question: str, reply: Generation) -> Rewriting:
        text = self.rewriter.read(reply.text)
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


class RankingStage(Stage):
    """Base of stages whose artifact is a `Ranking` of a split."""

    split: str | Sample
    depth: int

    def queries(self, session: Session) -> list[Query]:
        """The queries ranked for, rewritten where they are."""
        raise NotImplementedError

    def read(self, folder: Path, session: Session) -> Ranking:
        return Ranking.load(folder)

    def rank(self, queries: Sequence[str], session: Session) -> list[tuple[np.ndarray, np.ndarray]]:
        """Passages and scores of each query; `compute` and the pipeline both come through here."""
        raise NotImplementedError

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        queries = self.queries(session)
        rows = self.rank([query.text for query in queries], session)
        Ranking.from_rows([query.id for query in queries], rows, self.depth).save(folder)
        return {"queries": len(queries)}


def asked(stage: TextRanking | DenseRanking | ClosedAnswers, session: Session) -> list[Query]:
    """The queries of a stage's split: rewritten where it says so, else as they are."""
    return session.read(stage.questions) if stage.questions else session.dataset.split(stage.split)


@dataclass(frozen=True, eq=False)
class TextRanking(RankingStage):
    """Queries -> ranking by a retriever that reads texts."""

    name: ClassVar = "ranking"
    index: TextIndex
    split: str | Sample
    queries_digest: str
    depth: int
    questions: Questions | None = None

    def inputs(self) -> tuple[Stage, ...]:
        return (self.index, *([self.questions] if self.questions else []))

    def settings(self) -> dict[str, Any]:
        return {"queries": self.queries_digest, "depth": self.depth}

    def queries(self, session: Session) -> list[Query]:
        return asked(self, session)

    def rank(self, queries: Sequence[str], session: Session) -> list[tuple[np.ndarray, np.ndarray]]:
        return session.read(self.index).search(queries, self.depth)


@dataclass(frozen=True, eq=False)
class DenseRanking(RankingStage):
    """Queries -> ranking by nearest vectors."""

    name: ClassVar = "ranking"
    retriever: Dense
    encoder: Encoder
    embeddings: Embeddings
    index: DenseIndex
    split: str | Sample
    queries_digest: str
    depth: int
    questions: Questions | None = None

    def inputs(self) -> tuple[Stage, ...]:
        return (self.embeddings, self.index, *([self.questions] if self.questions else []))

    def settings(self) -> dict[str, Any]:
        return {"retriever": self.retriever.definition(), "queries": self.queries_digest, "depth": self.depth}

    def queries(self, session: Session) -> list[Query]:
        return asked(self, session)

    def rank(self, queries: Sequence[str], session: Session) -> list[tuple[np.ndarray, np.ndarray]]:
        vectors = session.embedded(self.encoder, self.encoder.queries(queries))
        return self.retriever.rank(session.read(self.index), session.read(self.embeddings), vectors, self.depth)


@dataclass(frozen=True, eq=False)
class FusedRanking(RankingStage):
    """Rankings -> one ranking."""

    name: ClassVar = "ranking"
    retriever: Fusion
    parts: tuple[RankingStage, ...]
    split: str | Sample
    depth: int

    def inputs(self) -> tuple[Stage, ...]:
        return self.parts

    def settings(self) -> dict[str, Any]:
        return {"retriever": self.retriever.definition(), "depth": self.depth}

    def queries(self, session: Session) -> list[Query]:
        return self.parts[0].queries(session)

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        parts = [session.read(part) for part in self.parts]
        rows = [self.retriever.fuse(rows, self.depth) for rows in zip(*(part.rows() for part in parts), strict=True)]
        Ranking.from_rows(parts[0].query_ids, rows, self.depth).save(folder)
        return {"queries": len(rows)}

    def rank(self, queries: Sequence[str], session: Session) -> list[tuple[np.ndarray, np.ndarray]]:
        parts = [part.rank(queries, session) for part in self.parts]
        return [self.retriever.fuse(rows, self.depth) for rows in zip(*parts, strict=True)]


@dataclass(frozen=True, eq=False)
class ExpandedRanking(RankingStage):
    """Queries, each in several wordings -> one ranking, fused by reciprocal ranks."""

    FUSION: ClassVar = Fusion(of=("each", "wording"))

    name: ClassVar = "ranking"
    expander: Expander
    generator: Generator
    ranking: RankingStage
    queries_digest: str
    arithmetic: str

    # as of `Answers`, so that a session generates for either
    adapter: ClassVar = None

    @property
    def split(self) -> str | Sample:
        return self.ranking.split

    @property
    def depth(self) -> int:
        return self.ranking.depth

    def inputs(self) -> tuple[Stage, ...]:
        return (self.ranking,)

    def settings(self) -> dict[str, Any]:
        return {
            "expander": self.expander.definition(),
            "fusion": self.FUSION.definition(),
            "generator": self.generator.definition(),
            "queries": self.queries_digest,
            "arithmetic": self.arithmetic,
        }

    def queries(self, session: Session) -> list[Query]:
        return self.ranking.queries(session)

    @cached_property
    def namespace(self) -> str:
        """What texts written for equal questions share."""
        return digest(["answer", self.generator.definition(), None, self.arithmetic])

    def rank(self, queries: Sequence[str], session: Session) -> list[tuple[np.ndarray, np.ndarray]]:
        found = session.generated(self, [canonical(self.expander.messages(query)) for query in queries])
        texts = [searched(query, self.expander.read(reply.text)) for query, reply in zip(queries, found, strict=True)]
        rows = iter(self.ranking.rank([text for each in texts for text in each], session))
        return [self.FUSION.fuse([next(rows) for _ in each], self.depth) for each in texts]


@dataclass(frozen=True, eq=False)
class Reranked(RankingStage):
    """Ranking -> better ranking."""

    name: ClassVar = "reranked"
    reranker: Reranker
    references: tuple[tuple[str, Encoder | Component], ...]
    ranking: RankingStage
    passages: Passages
    trained: TrainedReranker | None
    arithmetic: str

    @property
    def split(self) -> str | Sample:
        return self.ranking.split

    @property
    def depth(self) -> int:
        return self.ranking.depth

    def inputs(self) -> tuple[Stage, ...]:
        encoders = [one for _, one in self.references if isinstance(one, Encoder)]
        trained = [stage for encoder in encoders for stage in encoder.inputs()]
        return (self.ranking, self.passages, *([self.trained] if self.trained else []), *trained)

    def settings(self) -> dict[str, Any]:
        named = {field: one.definition() for field, one in self.references}
        return {"reranker": self.reranker.definition(), "references": named, "arithmetic": self.arithmetic}

    def queries(self, session: Session) -> list[Query]:
        return self.ranking.queries(session)

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        ranking = session.read(self.ranking)
        rows = self.reranked([query.text for query in self.queries(session)], ranking.rows(), session)
        Ranking.from_rows(ranking.query_ids, rows, self.depth).save(folder)
        return {"pairs": sum(min(len(ids), self.reranker.top) for ids, _ in ranking.rows())}

    @cached_property
    def namespace(self) -> str:
        """What scores of equal pairs share: the scorer and its arithmetic, but not how many passages it is shown."""
        settings = self.settings()
        reranker, trained = settings["reranker"], self.trained.key if self.trained else None
        return digest(["pair", settings | {"reranker": reranker | {"settings": reranker["settings"] | {"top": None}}}, trained])

    def pairs(self, session: Session) -> list[Pair]:
        """The pairs of the split that a `PairScorer` scores, in the order of its queries."""
        return _pairs([query.text for query in self.queries(session)], self._shown(session.read(self.ranking).rows(), session))

    def rank(self, queries: Sequence[str], session: Session) -> list[tuple[np.ndarray, np.ndarray]]:
        return self.reranked(queries, self.ranking.rank(queries, session), session)

    def reranked(
        self, queries: Sequence[str], rows: Sequence[tuple[np.ndarray, np.ndarray]], session: Session
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """`rows` in the reranker's order."""
        texts = self._shown(rows, session)
        if isinstance(self.reranker, PairScorer):
            values = iter(session.scored(self, _pairs(queries, texts)))
            new = [np.array([next(values) for _ in shown]) for shown in texts]
        else:
            given = self._given(session)
            new = [
                self.reranker.rerank(query, shown, scores[: len(shown)], session.machine, **given)
                for query, shown, (_, scores) in zip(queries, texts, rows, strict=True)
            ]
        return [self.reranker.reordered(row, scores) for row, scores in zip(rows, new, strict=True)]

    def _given(self, session: Session) -> dict[str, Any]:
        """What a reranker of whole rankings is given of the components it names."""
        encoder = dict(self.references).get("embedder")
        if encoder is None:
            return {}

        def embed(texts: Sequence[str], query: bool) -> np.ndarray:
            return session.embedded(encoder, encoder.queries(texts) if query else encoder.passages(texts))

        return {"embed": embed}

    def _shown(self, rows: Sequence[tuple[np.ndarray, np.ndarray]], session: Session) -> list[list[str]]:
        """Texts of the passages looked at again."""
        passages = session.read(self.passages)
        return [[passages.full_text(int(n)) for n in ids[: self.reranker.top]] for ids, _ in rows]


def _pairs(queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[Pair]:
    return [(query, text) for query, shown in zip(queries, texts, strict=True) for text in shown]
