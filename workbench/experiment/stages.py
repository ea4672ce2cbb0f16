"""The stages: pure steps whose output is stored under the digest of everything that defines it.

A stage's key covers its name and version, its settings with the versions of components and libraries, the kind of
arithmetic where models compute, the digests of sources it reads, and the *keys* of the stages it reads. Keys never
depend on computed output, so all of them are known before anything runs.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from math import fsum, inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from workbench.component import Component, canonical, digest
from workbench.data import tables
from workbench.data.chunking import WORD, Chunking, full_text
from workbench.data.conversation import History
from workbench.data.dataset import Place, Query, Sample
from workbench.evaluation import answers as answer_metrics
from workbench.evaluation import rankings as ranking_metrics
from workbench.experiment import examples
from workbench.machine import peak_gb
from workbench.models import lora
from workbench.models.chat import Message
from workbench.models.generator import Generation, Generator
from workbench.models.prompts import Shown, Template
from workbench.models.training import Step, TrainingSettings
from workbench.retrieval import gate
from workbench.retrieval.analyzer import Analyzer, Terms
from workbench.retrieval.dense import Dense
from workbench.retrieval.embedders import training
from workbench.retrieval.embedders.base import AnyEmbedder, Truncation
from workbench.retrieval.embedding import Embedder
from workbench.retrieval.expansion import Expander, searched
from workbench.retrieval.faiss_index import OpenIndex
from workbench.retrieval.fusion import Fusion
from workbench.retrieval.gate import Gate, Point
from workbench.retrieval.indexes import AnyIndex
from workbench.retrieval.learning import RankedTraining
from workbench.retrieval.ranking import Ranked, Ranking
from workbench.retrieval.rerankers import cross_encoder
from workbench.retrieval.rerankers.base import Pair, PairScorer, Reranker
from workbench.retrieval.rerankers.cross_encoder import CrossEncoder
from workbench.retrieval.retriever import TextRetriever
from workbench.retrieval.rewriting import Rewriter
from workbench.retrieval.stores.base import OpenStore

if TYPE_CHECKING:
    from workbench.experiment.session import Session
    from workbench.experiment.shots import FewShot


class Stage:
    """Base of all stages. Subclasses are frozen dataclasses of components and of the stages they read."""

    name: ClassVar[str]
    version: ClassVar[int] = 1

    def inputs(self) -> tuple[Stage, ...]:
        """Stages whose artifacts this one reads."""
        return ()

    def settings(self) -> dict[str, Any]:
        """What defines the output beside the inputs: component definitions, digests of sources, arithmetic."""
        raise NotImplementedError

    @cached_property
    def definition(self) -> dict[str, Any]:
        """All that goes into the key."""
        keys = [stage.key for stage in self.inputs()]
        return {"stage": self.name, "version": self.version, "settings": self.settings(), "inputs": keys}

    @cached_property
    def key(self) -> str:
        """Digest of `definition`, 64 hexadecimal characters."""
        return digest(self.definition)

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        """Writes the artifact's files into an empty folder; returns facts on the work, e.g. tokens."""
        raise NotImplementedError

    def read(self, folder: Path, session: Session) -> Any:
        """The artifact in memory (or memory-mapped)."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Passages(Stage):
    """Documents -> passages."""

    name: ClassVar = "passages"
    chunking: Chunking
    documents_digest: str

    @property
    def label(self) -> str:
        """What was cut, for people."""
        return self.chunking.label

    def settings(self) -> dict[str, Any]:
        return {"chunking": self.chunking.definition(), "documents": self.documents_digest}

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        passages = self.chunking.cut(session.dataset.documents)
        tables.write(folder / "passages.arrow", passages)
        return {"passages": passages.num_rows}

    def read(self, folder: Path, session: Session) -> PassageTable:
        return PassageTable(tables.read(folder / "passages.arrow"))


class PassageTable:
    """Passages by number, memory-mapped."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return self.table.num_rows

    def place(self, number: int) -> Place:
        """Where a passage stands."""
        return Place(*(self.table[column][number].as_py() for column in ("doc_id", "start", "end")))

    def shown(self, number: int) -> Shown:
        """A passage as templates see it."""
        return Shown(self.table["title"][number].as_py(), self.table["text"][number].as_py())

    def full_text(self, number: int) -> str:
        """What embedders, BM25 and rerankers read of a passage."""
        return full_text(*self.shown(number))

    def full_texts(self, start: int = 0, end: int | None = None) -> list[str]:
        """`full_text` of all passages, or of those from `start` to before `end`, in order."""
        part = self.table.slice(start, None if end is None else end - start)
        return [full_text(t, x) for t, x in zip(part["title"].to_pylist(), part["text"].to_pylist(), strict=True)]

    def seen(self, number: int) -> ranking_metrics.Seen:
        """A passage as ranking metrics see it."""
        place = self.place(number)
        words = [(place.start + m.start(), place.start + m.end()) for m in WORD.finditer(self.table["text"][number].as_py())]
        following = self.place(number + 1) if number + 1 < len(self) else None
        same = following is not None and following.doc_id == place.doc_id
        return ranking_metrics.Seen(place, words, following.start if same else place.end)


@dataclass(frozen=True, eq=False)
class TrainedOnRankings(Stage):
    """Base of trainings that tell the right passage from the best wrong ones of a ranking of the train split.

    `dropped` are ids of train questions left out, since the evaluation asks them too.
    """

    ranking: RankingStage
    passages: Passages
    answers_digest: str
    seed: int
    arithmetic: str
    dropped: tuple[str, ...]

    @property
    def training(self) -> RankedTraining:
        """How it is trained."""
        raise NotImplementedError

    def trained(self) -> dict[str, Any]:
        """What is trained."""
        raise NotImplementedError

    def train(self, *given: Any) -> None:
        """Trains; takes what `embedders.training.train` takes after its first argument."""
        raise NotImplementedError

    def inputs(self) -> tuple[Stage, ...]:
        return (self.ranking, self.passages)

    def settings(self) -> dict[str, Any]:
        return {
            "trained": self.trained(),
            "training": self.training.definition(),
            "judgements": self.answers_digest,
            "seed": self.seed,
            "arithmetic": self.arithmetic,
        } | left_out(self.dropped)

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        chosen = examples.ranked_examples(self, session)
        with training_progress(session, f"training the {self.name}", self.training, len(chosen)) as progress:
            self.train(chosen, session.machine, self.seed, folder, session.store.work(self.key), progress)
        return {"examples": len(chosen), "tokens": progress.tokens} | left_out(self.dropped)

    def read(self, folder: Path, session: Session) -> Path:
        return folder


def left_out(dropped: Sequence[str]) -> dict[str, Any]:
    """What a training's definition and facts say of questions left out; nothing where none was, so that older keys stay."""
    return {"dropped": list(dropped)} if dropped else {}


@dataclass(frozen=True, eq=False)
class TrainedEmbedder(TrainedOnRankings):
    """Train split -> an embedder's weights."""

    name: ClassVar = "embedder"
    embedder: Embedder

    @property
    def training(self) -> RankedTraining:
        return self.embedder.train

    def trained(self) -> dict[str, Any]:
        # what the trained weights compute in later is no part of their training
        return self.embedder.model_copy(update={"precision": None}).definition()

    def train(self, *given: Any) -> None:
        training.train(self.embedder, *given)


@dataclass(frozen=True, eq=False)
class TrainedReranker(TrainedOnRankings):
    """Train split -> a cross-encoder's weights."""

    name: ClassVar = "reranker"
    reranker: CrossEncoder

    @property
    def training(self) -> RankedTraining:
        return self.reranker.train

    def trained(self) -> dict[str, Any]:
        return self.reranker.definition() | {"settings": {"max_length": self.reranker.max_length}}

    def train(self, *given: Any) -> None:
        cross_encoder.train(self.reranker, *given)


@dataclass(frozen=True, eq=False)
class Encoder:
    """An embedder, with the stage that trains it where it is trained here."""

    embedder: AnyEmbedder
    trained: TrainedEmbedder | None

    @property
    def key(self) -> str:
        """Digest of all that decides its vectors but the arithmetic."""
        return digest(self.definition())

    def definition(self) -> dict[str, Any]:
        """The embedder's, and the key of its training."""
        return self.embedder.definition() | ({"trained": self.trained.key} if self.trained else {})

    def inputs(self) -> tuple[Stage, ...]:
        """The training."""
        return (self.trained,) if self.trained else ()

    def component(self, session: Session) -> AnyEmbedder:
        """The embedder to compute with: trained, its weights are those of the training."""
        if self.trained is None:
            return self.embedder
        return self.embedder.model_copy(update={"model": str(session.ensure(self.trained)), "train": None})

    def queries(self, texts: Sequence[str]) -> list[str]:
        """Queries as the model reads them."""
        return [self.embedder.query(text) for text in texts]

    def passages(self, texts: Sequence[str]) -> list[str]:
        """Passages as the model reads them."""
        return [self.embedder.passage(text) for text in texts]


@dataclass(frozen=True, eq=False)
class Embeddings(Stage):
    """Passages -> vectors, float32 (n, d), unit length."""

    TOGETHER: ClassVar = 65_536  # passages in memory at once

    name: ClassVar = "embeddings"
    encoder: Encoder
    passages: Passages
    arithmetic: str

    def inputs(self) -> tuple[Stage, ...]:
        return (self.passages, *self.encoder.inputs())

    def settings(self) -> dict[str, Any]:
        return {"embedder": self.encoder.embedder.definition(), "arithmetic": self.arithmetic}

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        passages = session.read(self.passages)
        loaded = self.encoder.component(session).load(session.machine)
        file: np.ndarray | None = None
        cut: list[Truncation | None] = []
        for start in range(0, len(passages), self.TOGETHER):
            texts = self.encoder.passages(passages.full_texts(start, start + self.TOGETHER))
            with loaded.reading(texts) as truncation:
                cut.append(truncation)
                vectors = session.embedded(self.encoder, texts)
            if file is None:
                shape = (len(passages), vectors.shape[1])
                file = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, shape)
            file[start : start + len(texts)] = vectors
        if file is None:
            np.save(folder / "vectors.npy", np.empty((0, 0), np.float32))
        else:
            file.flush()
        return {"passages": len(passages), "truncation": None if None in cut else asdict(Truncation.total(cut))}

    def read(self, folder: Path, session: Session) -> np.ndarray:
        return np.load(folder / "vectors.npy", mmap_mode="r")


@dataclass(frozen=True, eq=False)
class DenseIndex(Stage):
    """Vectors -> FAISS index, or vector store."""

    name: ClassVar = "index"
    index: AnyIndex
    embeddings: Embeddings
    arithmetic: str | None = None

    def inputs(self) -> tuple[Stage, ...]:
        return (self.embeddings,)

    def settings(self) -> dict[str, Any]:
        return {"index": self.index.definition()} | ({"arithmetic": self.arithmetic} if self.arithmetic else {})

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        vectors = session.read(self.embeddings)
        facts = self.index.build(vectors, folder, session.backend)
        if "fallback" in facts:
            session.fell_back(facts["fallback"])
        return {"vectors": len(vectors)} | facts

    def read(self, folder: Path, session: Session) -> OpenIndex | OpenStore:
        return self.index.open(folder, session.backend, session.fell_back)


@dataclass(frozen=True, eq=False)
class AnalyzedPassages(Stage):
    """Passages -> terms, for retrievers that read terms."""

    name: ClassVar = "terms"
    analyzer: Analyzer
    passages: Passages

    def inputs(self) -> tuple[Stage, ...]:
        return (self.passages,)

    def settings(self) -> dict[str, Any]:
        return {"analyzer": self.analyzer.definition()}

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        terms = self.analyzer.terms(session.read(self.passages).full_texts())
        terms.save(folder)
        return {"passages": len(terms.ends), "terms": len(terms.ids), "vocabulary": len(terms.vocabulary)}

    def read(self, folder: Path, session: Session) -> Terms:
        return Terms.load(folder)


@dataclass(frozen=True, eq=False)
class TextIndex(Stage):
    """Passages, or their terms -> the index of a retriever that reads texts (BM25)."""

    name: ClassVar = "index"
    retriever: TextRetriever
    passages: Passages
    terms: AnalyzedPassages | None

    def inputs(self) -> tuple[Stage, ...]:
        return (self.terms or self.passages,)

    def settings(self) -> dict[str, Any]:
        return {"retriever": self.retriever.definition()}

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        if self.terms:
            terms = session.read(self.terms)
            self.retriever.build_from_terms(terms, folder)
            return {"passages": len(terms.ends)}
        texts = session.read(self.passages).full_texts()
        self.retriever.build(texts, folder, session.machine)
        return {"passages": len(texts)}

    def read(self, folder: Path, session: Session) -> Any:
        return self.retriever.open(folder, session.machine)


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


@dataclass(frozen=True, eq=False)
class Adapter(Stage):
    """Train split -> LoRA weights, with the prompt template they were trained in and where they come from."""

    name: ClassVar = "adapter"
    generator: Generator
    template: Template
    shown: int
    ranking: RankingStage
    passages: Passages
    answers_digest: str
    seed: int
    arithmetic: str
    dropped: tuple[str, ...]
    few_shot: FewShot | None

    def inputs(self) -> tuple[Stage, ...]:
        return (self.ranking, self.passages, *(self.few_shot.inputs() if self.few_shot else ()))

    def settings(self) -> dict[str, Any]:
        return {
            "base": self.generator.definition()["weights"],
            "lora": self.generator.lora.definition(),
            "template": self.template.definition(),
            "passages": self.shown,
            "answers": self.answers_digest,
            "seed": self.seed,
            "arithmetic": self.arithmetic,
        } | left_out(self.dropped)

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        settings = self.generator.lora
        chosen = examples.training_examples(self, session)
        (folder / "prompt.json").write_text(json.dumps(self.template.settings(), indent=1, ensure_ascii=False))
        (folder / "origin.json").write_text(json.dumps(self._origin(chosen, session), indent=1))
        apart = len(lora.held_back(settings, len(chosen), self.seed))
        with training_progress(session, "fine-tuning", settings, len(chosen) - apart) as progress:
            work = session.store.work(self.key)
            read = lora.train(settings, self.generator.model, chosen, session.machine, self.seed, folder, work, progress)
        facts = {"examples": len(chosen), "tokens": progress.tokens, "tokens_read": read, "peak_gb": round(peak_gb(), 2)}
        return facts | ({"held_back": apart} if apart else {}) | left_out(self.dropped)

    def _origin(self, chosen: Sequence[lora.Example], session: Session) -> dict[str, Any]:
        """Digests of what the adapter was made from."""
        return {
            "base": self.generator.definition()["weights"],
            "template": digest(self.template.definition()),
            "documents": session.dataset.documents_digest,
            "queries": session.dataset.queries_digest(self.ranking.split),
            "judgements": self.answers_digest,
            "examples": digest([[one.messages, one.answer] for one in chosen]),
            "seed": self.seed,
        }

    def read(self, folder: Path, session: Session) -> Path:
        return folder


class TrainingProgress:
    """Reports the steps of a training; `tokens` counts those this process read."""

    def __init__(self, report: Callable[[int, str], None]) -> None:
        self.report = report
        self.tokens = 0

    def __call__(self, step: Step, total: int) -> None:
        self.tokens += step.tokens
        self.report(1, f"loss {step.loss:.3f}")


@contextmanager
def training_progress(session: Session, name: str, settings: TrainingSettings, n: int) -> Iterator[TrainingProgress]:
    """Progress of a training on n examples."""
    with session.progress.task(name, settings.epochs * -(-n // settings.batch_size)) as report:
        yield TrainingProgress(report)


class Prompted(NamedTuple):
    """A question with the passages shown and the conversation that asks it."""

    query_id: str
    passages: tuple[int, ...]
    messages: list[Message]
    closed: bool = False  # asked without passages on purpose
    cut: int = 0  # passages left out, the last of the ranking, so that the conversation fits into the generator's context

    @property
    def text(self) -> str:
        """The conversation as canonical JSON: what the answer depends on, hence what it is stored by."""
        return canonical(self.messages)


NO_PASSAGES: Ranked = (np.empty(0, np.int32), np.empty(0, np.float32))


class Answer(NamedTuple):
    """A generator's answer to a question, as an answers artifact holds it."""

    query_id: str
    prompt: str  # digest of the conversation
    reply: str  # what the generator wrote
    answer: str  # what the template reads in it; empty: abstained
    passages: list[int]
    status: str  # ok, or why there is no answer
    prompt_tokens: int
    new_tokens: int
    cut: int  # passages that did not fit into the generator's context


class Answers(Stage):
    """Base of stages whose artifact is a generator's answers to the questions of a split.

    Attributes:
        split: whose questions.
        ranking: what passages are shown from; None: none are shown.
        passages: those of the ranking.
        template: how questions are asked, and answers read.
        generator: what answers.
        adapter: trains the weights merged into it, or None.
        arithmetic: kind of arithmetic.
        few_shot: finds the solved questions that prompts show, or None.
    """

    name: ClassVar = "answers"
    version: ClassVar = 2

    split: str | Sample
    ranking: RankingStage | None
    passages: Passages | None
    template: Template
    generator: Generator
    adapter: Adapter | None
    arithmetic: str
    few_shot: FewShot | None

    @cached_property
    def namespace(self) -> str:
        """What answers to equal prompts share: generator, adapter, decoding, arithmetic."""
        adapter = self.adapter.key if self.adapter else None
        return digest(["answer", self.generator.definition(), adapter, self.arithmetic])

    def prompts(self, session: Session) -> list[Prompted]:
        """The prompts of the split, in the order of its queries."""
        queries = self.queries(session)
        rows = session.read(self.ranking).rows() if self.ranking else [NO_PASSAGES] * len(queries)
        return [self.prompted(query.id, query.text, row, session) for query, row in zip(queries, rows, strict=True)]

    def queries(self, session: Session) -> list[Query]:
        """The queries of the split, rewritten where they are."""
        return self.ranking.queries(session)

    def prompted(self, query_id: str, question: str, ranked: Ranked, session: Session) -> Prompted:
        """The prompt of one question on its ranked passages."""
        raise NotImplementedError

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        prompts = self.prompts(session)
        generations = session.generated(self, [prompt.text for prompt in prompts])
        rows = [self.answer(prompt, generation) for prompt, generation in zip(prompts, generations, strict=True)]
        with (folder / "answers.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows)
        return {"prompts": len(prompts), "tokens": sum(row.prompt_tokens + row.new_tokens for row in rows)}

    def answer(self, prompt: Prompted, generation: Generation) -> Answer:
        """What is kept of a generation."""
        read = self.template.read_closed if prompt.closed else self.template.read
        return Answer(
            prompt.query_id,
            digest(prompt.messages),
            generation.text,
            read(generation.text),
            list(prompt.passages),
            generation.status,
            generation.prompt_tokens,
            generation.new_tokens,
            prompt.cut,
        )

    def score(self, metric: str, row: Answer, accepted: Sequence[str], session: Session) -> float | None:
        """One metric of one answer; None where there is none."""
        shown = [session.read(self.passages).full_text(n) for n in row.passages]
        return answer_metrics.score(metric, row.answer, accepted, shown) if row.status == "ok" else None

    def read(self, folder: Path, session: Session) -> list[Answer]:
        with (folder / "answers.jsonl").open(encoding="utf-8") as lines:
            return [Answer(**json.loads(line)) for line in lines]


@dataclass(frozen=True, eq=False)
class OpenAnswers(Answers):
    """Ranking -> prompts with its best passages -> answers."""

    ranking: RankingStage
    passages: Passages
    template: Template
    shown: int
    generator: Generator
    adapter: Adapter | None
    arithmetic: str
    few_shot: FewShot | None

    @property
    def split(self) -> str | Sample:
        return self.ranking.split

    def inputs(self) -> tuple[Stage, ...]:
        shots = self.few_shot.inputs() if self.few_shot else ()
        return (self.ranking, self.passages, *([self.adapter] if self.adapter else []), *shots)

    def settings(self) -> dict[str, Any]:
        return {
            "template": self.template.definition(),
            "passages": self.shown,
            "generator": self.generator.definition(),
            "arithmetic": self.arithmetic,
        }

    def prompted(self, query_id: str, question: str, ranked: Ranked, session: Session) -> Prompted:
        passages = session.read(self.passages)
        numbers = tuple(int(n) for n in ranked[0][: self.shown])
        shown = [passages.shown(n) for n in numbers]
        shots = self.few_shot.of_question(query_id, question, session) if self.few_shot else ()
        messages, n = self.template.fill_within(question, shown, self.generator.fits, shots)
        return Prompted(query_id, numbers[:n], messages, cut=len(numbers) - n)


@dataclass(frozen=True, eq=False)
class ClosedAnswers(Answers):
    """Questions -> answers without any passage: what the generator knows by itself."""

    ranking: ClassVar = None
    passages: ClassVar = None
    few_shot: ClassVar = None

    split: str | Sample
    queries_digest: str
    template: Template
    generator: Generator
    adapter: Adapter | None
    arithmetic: str
    questions: Questions | None = None

    def inputs(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in (self.questions, self.adapter) if stage)

    def settings(self) -> dict[str, Any]:
        # all that reading an answer takes of the template with passages
        reads = {"version": Template.version, "abstention": self.template.abstention, "citations": self.template.citations}
        return {
            "queries": self.queries_digest,
            "template": self.template.closed.definition(),
            "reads": reads,
            "generator": self.generator.definition(),
            "arithmetic": self.arithmetic,
        }

    def queries(self, session: Session) -> list[Query]:
        return asked(self, session)

    def prompted(self, query_id: str, question: str, ranked: Ranked, session: Session) -> Prompted:
        return Prompted(query_id, (), self.template.fill_closed(question), closed=True)


@dataclass(frozen=True, eq=False)
class SelectiveAnswers(Answers):
    """Ranking -> prompts with passages where the ranking is sure enough, else without -> answers."""

    open: OpenAnswers
    closed: ClosedAnswers
    threshold: Threshold

    # as its two parts, which differ in none of them
    split = property(lambda self: self.open.split)
    ranking = property(lambda self: self.open.ranking)
    passages = property(lambda self: self.open.passages)
    template = property(lambda self: self.open.template)
    generator = property(lambda self: self.open.generator)
    adapter = property(lambda self: self.open.adapter)
    arithmetic = property(lambda self: self.open.arithmetic)
    few_shot = property(lambda self: self.open.few_shot)

    def inputs(self) -> tuple[Stage, ...]:
        return (*self.open.inputs(), self.threshold)

    def settings(self) -> dict[str, Any]:
        return {"open": self.open.settings(), "closed": self.closed.settings()}

    def prompted(self, query_id: str, question: str, ranked: Ranked, session: Session) -> Prompted:
        part = self.open if self.threshold.shows(ranked, session) else self.closed
        return part.prompted(query_id, question, ranked, session)


@dataclass(frozen=True, eq=False)
class Threshold(Stage):
    """Answers to train questions with passages and without -> how sure a ranking must be for its passages to be shown.

    The threshold with the highest mean score is taken, of equal ones that with the fewest questions without passages. An adapter
    trained here has seen some of these questions and their answers, which may flatter either way of asking.
    """

    name: ClassVar = "threshold"
    gate: Gate
    open: OpenAnswers
    closed: ClosedAnswers
    metric: str
    answers_digest: str

    def inputs(self) -> tuple[Stage, ...]:
        return (self.open.ranking, self.open, self.closed)

    def settings(self) -> dict[str, Any]:
        return {"gate": self.gate.definition(), "metric": self.metric, "accepted": self.answers_digest}

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        sureness = [self.gate.sureness(scores) for _, scores in session.read(self.open.ranking).rows()]
        shown, hidden = self._scores(self.open, session), self._scores(self.closed, session)
        points = gate.curve(sureness, shown, hidden)
        values = {"when": self.gate.when, "metric": self.metric, "questions": len(sureness)}
        values |= _point(gate.best(points)) | {"always": fsum(shown) / len(shown), "never": fsum(hidden) / len(hidden)}
        (folder / "threshold.json").write_text(json.dumps(values | {"curve": [_point(one) for one in points]}, indent=1))
        return {"questions": len(sureness)}

    def read(self, folder: Path, session: Session) -> dict[str, Any]:
        return json.loads((folder / "threshold.json").read_text())

    def value(self, session: Session) -> float:
        """The threshold; minus infinity where passages are shown to every question that has any."""
        found = session.read(self)["threshold"]
        return -inf if found is None else found

    def shows(self, ranked: Ranked, session: Session) -> bool:
        """Whether the passages of a ranking are shown."""
        return self.gate.sureness(ranked[1]) > self.value(session)

    def _scores(self, answers: Answers, session: Session) -> list[float]:
        accepted = {query.id: query.answers for query in session.dataset.split(answers.split)}
        found = [answers.score(self.metric, row, accepted[row.query_id], session) for row in session.read(answers)]
        return [0.0 if value is None else value for value in found]  # a failure is the worst value


def _point(point: Point) -> dict[str, Any]:
    """A point as JSON, which knows no infinity."""
    return point._asdict() | {"threshold": None if point.threshold == -inf else point.threshold}


@dataclass(frozen=True, eq=False)
class Repeated(Stage):
    """Answers -> how many of them come out the same again, in another batch: the noise floor of a generator.

    The artifact says how many were generated again and which of them differed. Where none did, running an experiment again
    changes no score, and the batch size changes none either.
    """

    PROMPTS: ClassVar = 8

    name: ClassVar = "repeated"
    answers: Answers

    def inputs(self) -> tuple[Stage, ...]:
        return (self.answers,)

    def settings(self) -> dict[str, Any]:
        return {"prompts": self.PROMPTS}

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        prompts = self.answers.prompts(session)[: self.PROMPTS]
        first = session.generated(self.answers, [prompt.text for prompt in prompts])
        generator = session.generator(self.answers)
        found = {i: again for batch in generator.generate([p.messages for p in prompts], len(prompts)) for i, again in batch}
        differing = [prompt.query_id for i, prompt in enumerate(prompts) if found[i] != first[i]]
        (folder / "repeated.json").write_text(json.dumps({"answers": len(prompts), "differing": differing}))
        return {"answers": len(prompts), "tokens": sum(again.prompt_tokens + again.new_tokens for again in found.values())}

    def read(self, folder: Path, session: Session) -> dict[str, Any]:
        return json.loads((folder / "repeated.json").read_text())


class Score(NamedTuple):
    """One metric of one query; value None where it failed."""

    query_id: str
    metric: str
    value: float | None
    status: str


class ScoresStage(Stage):
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

    def inputs(self) -> tuple[Stage, ...]:
        return (self.ranking, self.passages)

    def settings(self) -> dict[str, Any]:
        from workbench.component import library_version

        library = {"ir-measures": library_version("ir-measures")}
        return {"judgements": self.answers_digest, "metrics": self.metrics, "libraries": library}

    def scores(self, session: Session) -> Iterator[Score]:
        passages, ranking = session.read(self.passages), session.read(self.ranking)
        judged = session.dataset.judged(self.ranking.split)
        metrics = [ranking_metrics.parse(name) for name in self.metrics]
        seen = {
            query_id: [passages.seen(int(n)) for n in ids]
            for query_id, (ids, _) in zip(ranking.query_ids, ranking.rows(), strict=True)
            if query_id in judged.judged
        }
        for (query_id, metric), value in ranking_metrics.evaluate(metrics, judged, seen).items():
            yield Score(query_id, metric, value, "ok")


@dataclass(frozen=True, eq=False)
class AnswerScores(ScoresStage):
    """Answers -> answer metrics."""

    answers: Answers
    answers_digest: str
    metrics: tuple[str, ...]

    def inputs(self) -> tuple[Stage, ...]:
        return (self.answers,)

    def settings(self) -> dict[str, Any]:
        return {"accepted": self.answers_digest, "metrics": self.metrics}

    def scores(self, session: Session) -> Iterator[Score]:
        queries = {query.id: query for query in session.dataset.split(self.answers.split)}
        for row in session.read(self.answers):
            for metric in self.metrics:
                value = self.answers.score(metric, row, queries[row.query_id].answers, session)
                yield Score(row.query_id, metric, value, row.status)
