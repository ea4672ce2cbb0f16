"""Ranking -> better ranking."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from workbench.component import Component, canonical, digest
from workbench.errors import InputError
from workbench.retrieval.ranking import Ranked, Ranking
from workbench.retrieval.rerankers.base import Pair, PairScorer, Reranker
from workbench.stages.indexes import Encoder
from workbench.stages.passages import Passages
from workbench.stages.rankings import DerivedRanking, RankingStage
from workbench.store.items import ItemKind
from workbench.store.session import Session
from workbench.store.stage import Stage, Work
from workbench.store.work import ItemWork

PAIRS = ItemKind[float](
    "pairs", "reranking", lambda value: np.float64(value).tobytes(), lambda blob: float(np.frombuffer(blob, "<f8")[0])
)


@dataclass(frozen=True, eq=False)
class Reranked(DerivedRanking):
    """Ranking -> better ranking."""

    name: ClassVar = "reranked"
    reranker: Reranker
    references: tuple[tuple[str, Encoder | Component], ...]
    ranking: RankingStage
    passages: Passages
    trained: Stage[object] | None
    arithmetic: str

    def inputs(self) -> tuple[Stage[object], ...]:
        encoders = [one for _, one in self.references if isinstance(one, Encoder)]
        trained = [stage for encoder in encoders for stage in encoder.inputs()]
        return (self.ranking, self.passages, *([self.trained] if self.trained else []), *trained)

    def settings(self) -> dict[str, Any]:
        named = {field: one.definition() for field, one in self.references}
        return {"reranker": self.reranker.definition(), "references": named, "arithmetic": self.arithmetic}

    def work(self, session: Session) -> Work:
        shown = min(self.reranker.top, self.passages.size(session).passages)
        return Work("pairs", len(session.dataset.split(self.split)) * shown)

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

    def scores(self, pairs: Sequence[Pair], session: Session) -> list[float]:
        """Scores of (query, passage text) pairs by a `PairScorer`; each distinct pair is scored once and stored."""
        if not isinstance(self.reranker, PairScorer):
            raise TypeError(f"{type(self.reranker).__name__} scores rankings as a whole, not pairs")
        return session.items(Scoring(self), [canonical(pair) for pair in pairs])

    def rank(self, queries: Sequence[str], session: Session) -> list[Ranked]:
        return self.reranked(queries, self.ranking.rank(queries, session), session)

    def reranked(self, queries: Sequence[str], rows: Sequence[Ranked], session: Session) -> list[Ranked]:
        """`rows` in the reranker's order."""
        texts = self._shown(rows, session)
        if isinstance(self.reranker, PairScorer):
            values = iter(self.scores(_pairs(queries, texts), session))
            new = [np.array([next(values) for _ in shown]) for shown in texts]
        else:
            given = self._given(session)
            new = [
                self.reranker.rerank(query, shown, scores[: len(shown)], session.machine, **given)
                for query, shown, (_, scores) in zip(queries, texts, rows, strict=True)
            ]
        for scores, shown in zip(new, texts, strict=True):
            self.check(scores, len(shown))
        return [self.reranker.reordered(row, scores) for row, scores in zip(rows, new, strict=True)]

    def check(self, scores: Sequence[float] | np.ndarray, passages: int) -> None:
        """Refuses scores that order nothing.

        Args:
            scores: one for each passage; an array is float64, shape (passages,).
            passages: how many were scored.

        Raises:
            InputError: another number of scores, or one that is not finite.
        """
        found = np.asarray(scores, float)
        if found.shape != (passages,):
            raise InputError(
                f"reranker {self.reranker.kind}: {found.size} scores for {passages} passages; one is needed for each"
            )
        if not np.isfinite(found).all():
            wrong = found[~np.isfinite(found)][0]
            raise InputError(f"reranker {self.reranker.kind}: the score of a passage is {wrong}; finite numbers are needed")

    def _given(self, session: Session) -> dict[str, Any]:
        """What a reranker of whole rankings is given of the components it names."""
        encoder = dict(self.references).get("embedder")
        if not isinstance(encoder, Encoder):
            return {}

        def embed(texts: Sequence[str], query: bool) -> np.ndarray:
            return encoder.vectors(encoder.queries(texts) if query else encoder.passages(texts), session)

        return {"embed": embed}

    def _shown(self, rows: Sequence[Ranked], session: Session) -> list[list[str]]:
        """Texts of the passages looked at again."""
        passages = session.read(self.passages)
        return [[passages.full_text(int(n)) for n in ids[: self.reranker.top]] for ids, _ in rows]


@dataclass(frozen=True, eq=False)
class Scoring(ItemWork[float]):
    """Pairs as canonical JSON -> scores, by the `PairScorer` of a stage."""

    stage: Reranked

    @property
    def kind(self) -> ItemKind[float]:
        return PAIRS

    @property
    def alike(self) -> str:
        return f"{super().alike} {type(self.stage.reranker).__name__} {self.stage.arithmetic}"

    @property
    def namespace(self) -> str:
        return self.stage.namespace

    def order(self, text: str) -> str:
        return _read_pair(text)[1]  # a passage that several queries are paired with is read once

    def computed(self, missing: list[str], session: Session) -> Iterator[list[tuple[int, float]]]:
        stage, scorer, scored = self.stage, self.stage.reranker, 0
        if not isinstance(scorer, PairScorer):
            raise TypeError(f"{type(scorer).__name__} scores rankings as a whole, not pairs")
        references: dict[str, object] = {
            name: one.component(session) if isinstance(one, Encoder) else one for name, one in stage.references
        }
        if stage.trained:
            references["trained"] = session.ensure(stage.trained)
        for batch in scorer.score([_read_pair(text) for text in missing], session.machine, **references):
            stage.check([value for _, value in batch], len(batch))
            scored += len({i for i, _ in batch})
            yield batch
        stage.check([0.0] * scored, len(missing))


def _read_pair(text: str) -> Pair:
    """A pair from its canonical JSON."""
    query, passage = json.loads(text)
    return query, passage


def _pairs(queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[Pair]:
    return [(query, text) for query, shown in zip(queries, texts, strict=True) for text in shown]
