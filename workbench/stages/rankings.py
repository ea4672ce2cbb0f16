"""Queries -> rankings: searched, fused, expanded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.component import canonical
from workbench.data.dataset import Query, Sample
from workbench.retrieval.expansion import Expander, searched
from workbench.retrieval.fusion import Fusion
from workbench.retrieval.indexes.dense import Dense
from workbench.retrieval.ranking import Ranked, Ranking
from workbench.stages.indexes import DenseIndex, Embeddings, Encoder, TextIndex
from workbench.stages.passages import QUESTION_TOKENS, TEMPLATE_TOKENS
from workbench.stages.questions import Questions, asked
from workbench.stages.writers import Writer
from workbench.store.session import Session
from workbench.store.stage import Stage, Work


class RankingStage(Stage[Ranking]):
    """Base of stages whose artifact is a `Ranking` of a split.

    Attributes:
        split: whose queries are ranked for.
        depth: passages kept for each query.
    """

    if TYPE_CHECKING:  # some stages have these as fields, others read them off their inputs

        @property
        def split(self) -> str | Sample: ...

        @property
        def depth(self) -> int: ...

    def queries(self, session: Session) -> list[Query]:
        """The queries ranked for, rewritten where they are."""
        raise NotImplementedError

    def read(self, folder: Path, session: Session) -> Ranking:
        return Ranking.load(folder)

    def rank(self, queries: Sequence[str], session: Session) -> list[Ranked]:
        """Passages and scores of each query; `compute` and the pipeline both come through here."""
        raise NotImplementedError

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        queries = self.queries(session)
        rows = self.rank([query.text for query in queries], session)
        Ranking.from_rows([query.id for query in queries], rows, self.depth).save(folder)
        return {"queries": len(queries)}


class DerivedRanking(RankingStage):
    """Base of stages that make another ranking, as deep, of one ranking."""

    ranking: RankingStage

    @property
    def split(self) -> str | Sample:
        return self.ranking.split

    @property
    def depth(self) -> int:
        return self.ranking.depth

    def queries(self, session: Session) -> list[Query]:
        return self.ranking.queries(session)


@dataclass(frozen=True, eq=False)
class TextRanking(RankingStage):
    """Queries -> ranking by a retriever that reads texts."""

    name: ClassVar = "ranking"
    index: TextIndex
    split: str | Sample
    queries_digest: str
    depth: int
    questions: Questions | None = None

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.index, *([self.questions] if self.questions else []))

    def settings(self) -> dict[str, Any]:
        return {"queries": self.queries_digest, "depth": self.depth}

    def queries(self, session: Session) -> list[Query]:
        return asked(self.split, self.questions, session)

    def rank(self, queries: Sequence[str], session: Session) -> list[Ranked]:
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

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.embeddings, self.index, *([self.questions] if self.questions else []))

    def settings(self) -> dict[str, Any]:
        return {"retriever": self.retriever.definition(), "queries": self.queries_digest, "depth": self.depth}

    def work(self, session: Session) -> Work:
        return Work("embedding", len(session.dataset.split(self.split)))

    def queries(self, session: Session) -> list[Query]:
        return asked(self.split, self.questions, session)

    def rank(self, queries: Sequence[str], session: Session) -> list[Ranked]:
        vectors = self.encoder.vectors(self.encoder.queries(queries), session)
        return self.retriever.rank(session.read(self.index), session.read(self.embeddings), vectors, self.depth)


@dataclass(frozen=True, eq=False)
class FusedRanking(RankingStage):
    """Rankings -> one ranking."""

    name: ClassVar = "ranking"
    retriever: Fusion
    parts: tuple[RankingStage, ...]
    split: str | Sample
    depth: int

    def inputs(self) -> tuple[Stage[object], ...]:
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

    def rank(self, queries: Sequence[str], session: Session) -> list[Ranked]:
        parts = [part.rank(queries, session) for part in self.parts]
        return [self.retriever.fuse(rows, self.depth) for rows in zip(*parts, strict=True)]


@dataclass(frozen=True, eq=False)
class ExpandedRanking(DerivedRanking):
    """Queries, each in several wordings -> one ranking, fused by reciprocal ranks."""

    FUSION: ClassVar = Fusion(of=("each", "wording"))

    name: ClassVar = "ranking"
    version: ClassVar = 2  # what the generator writes is searched in normal form C
    expander: Expander
    writer: Writer
    ranking: RankingStage
    queries_digest: str

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.ranking,)

    def settings(self) -> dict[str, Any]:
        own = {"expander": self.expander.definition(), "fusion": self.FUSION.definition(), "queries": self.queries_digest}
        return own | self.writer.settings()

    def work(self, session: Session) -> Work:
        queries = len(session.dataset.split(self.split))
        return self.writer.planned(queries, TEMPLATE_TOKENS + QUESTION_TOKENS, self.expander.max_new_tokens)

    def rank(self, queries: Sequence[str], session: Session) -> list[Ranked]:
        found = self.writer.written([canonical(self.expander.messages(query)) for query in queries], session)
        texts = [searched(query, self.expander.read(reply.text)) for query, reply in zip(queries, found, strict=True)]
        rows = iter(self.ranking.rank([text for each in texts for text in each], session))
        return [self.FUSION.fuse([next(rows) for _ in each], self.depth) for each in texts]
