"""Passages -> vectors and terms -> indexes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from workbench.component import digest
from workbench.errors import InputError
from workbench.retrieval.analyzer import Analyzer, Terms
from workbench.retrieval.embedders.base import AnyEmbedder, Truncation
from workbench.retrieval.embedders.endpoint import EndpointEmbedder
from workbench.retrieval.indexes import backends
from workbench.retrieval.indexes.base import OpenStore
from workbench.retrieval.indexes.faiss import OpenFaissIndex
from workbench.retrieval.indexes.kinds import AnyIndex
from workbench.retrieval.retriever import OpenTextIndex, TextRetriever
from workbench.stages.passages import PassageStage
from workbench.store.items import ItemKind
from workbench.store.session import Session
from workbench.store.stage import Stage, Work
from workbench.store.work import ItemWork

EMBEDDINGS = ItemKind[np.ndarray](
    "embeddings", "embedding", lambda vector: vector.astype("<f4").tobytes(), lambda blob: np.frombuffer(blob, "<f4")
)


@dataclass(frozen=True, eq=False)
class Encoder:
    """An embedder, with the stage that trains it where it is trained here."""

    embedder: AnyEmbedder
    trained: Stage[object] | None

    @property
    def key(self) -> str:
        """Digest of all that decides its vectors but the arithmetic."""
        return digest(self.definition())

    def definition(self) -> dict[str, Any]:
        """The embedder's, and the key of its training."""
        return self.embedder.definition() | ({"trained": self.trained.key} if self.trained else {})

    def inputs(self) -> tuple[Stage[object], ...]:
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

    def vectors(self, texts: Sequence[str], session: Session) -> np.ndarray:
        """Vectors of texts as `queries` or `passages` gives them, float32 (len(texts), d), unit length.

        Each distinct text is embedded once and stored.

        Raises:
            InputError: those stored and those computed now have different dimensions.
        """
        vectors = session.items(Embedding(self, self.embedder.arithmetic(session.machine)), texts)
        if len({len(vector) for vector in vectors}) > 1:  # what a server answers may change between two runs
            raise InputError(
                f"vectors stored for embedder {self.embedder!r} and those it gives now have different dimensions; "
                f"raise its revision"
            )
        return np.stack(vectors) if vectors else np.empty((0, 0), np.float32)


@dataclass(frozen=True, eq=False)
class Embedding(ItemWork[np.ndarray]):
    """Texts -> vectors, by an embedder in one kind of arithmetic."""

    encoder: Encoder
    arithmetic: str

    @property
    def kind(self) -> ItemKind[np.ndarray]:
        return EMBEDDINGS

    @property
    def alike(self) -> str:
        return f"{super().alike} {self.arithmetic}"

    @property
    def namespace(self) -> str:
        return digest(["embedding", self.encoder.definition(), self.arithmetic])

    @property
    def local(self) -> bool:
        return isinstance(self.encoder.embedder, EndpointEmbedder)

    def computed(self, missing: list[str], session: Session) -> Iterator[list[tuple[int, np.ndarray]]]:
        return self.encoder.component(session).load(session.machine).encode(missing)


@dataclass(frozen=True, eq=False)
class Embeddings(Stage[np.ndarray]):
    """Passages -> vectors, float32 (n, d), unit length."""

    TOGETHER: ClassVar = 65_536  # passages in memory at once

    name: ClassVar = "embeddings"
    encoder: Encoder
    passages: PassageStage
    arithmetic: str

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.passages, *self.encoder.inputs())

    def settings(self) -> dict[str, Any]:
        return {"embedder": self.encoder.embedder.definition(), "arithmetic": self.arithmetic}

    def work(self, session: Session) -> Work:
        return Work("embedding", self.passages.size(session).passages)

    def texts(self, session: Session) -> Iterator[tuple[int, list[str]]]:
        """Texts of the passages as the model reads them, so many at once as fit into memory, with the number of the first."""
        passages = session.read(self.passages)
        for start in range(0, len(passages), self.TOGETHER):
            yield start, self.encoder.passages(passages.full_texts(start, start + self.TOGETHER))

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        passages = session.read(self.passages)
        loaded = self.encoder.component(session).load(session.machine)
        file: np.memmap | None = None
        cut: list[Truncation | None] = []
        for start, texts in self.texts(session):
            with loaded.reading(texts) as truncation:
                cut.append(truncation)
                vectors = self.encoder.vectors(texts, session)
            if file is None:
                shape = (len(passages), vectors.shape[1])
                file = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, shape)
            file[start : start + len(texts)] = vectors
        if file is None:
            np.save(folder / "vectors.npy", np.empty((0, 0), np.float32))
        else:
            file.flush()
        counted = [one for one in cut if one is not None]
        unread = asdict(Truncation.total(counted)) if len(counted) == len(cut) else None  # a server does not say
        return {"passages": len(passages), "truncation": unread}

    def read(self, folder: Path, session: Session) -> np.ndarray:
        vectors: np.ndarray = np.load(folder / "vectors.npy", mmap_mode="r")
        return vectors


@dataclass(frozen=True, eq=False)
class DenseIndex(Stage[OpenFaissIndex | OpenStore]):
    """Vectors -> FAISS index, or vector store."""

    name: ClassVar = "index"
    whole: ClassVar = True
    index: AnyIndex
    embeddings: Embeddings
    arithmetic: str | None = None

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.embeddings,)

    def settings(self) -> dict[str, Any]:
        return {"index": self.index.definition()} | ({"arithmetic": self.arithmetic} if self.arithmetic else {})

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        vectors = session.read(self.embeddings)
        facts = self.index.build(vectors, folder, backends.choose(session.machine))
        if "fallback" in facts:
            session.fell_back(facts["fallback"])
        return {"vectors": len(vectors)} | facts

    def read(self, folder: Path, session: Session) -> OpenFaissIndex | OpenStore:
        return self.index.open(folder, backends.choose(session.machine), session.fell_back)


@dataclass(frozen=True, eq=False)
class AnalyzedPassages(Stage[Terms]):
    """Passages -> terms, for retrievers that read terms."""

    name: ClassVar = "terms"
    whole: ClassVar = True
    analyzer: Analyzer
    passages: PassageStage

    def inputs(self) -> tuple[Stage[object], ...]:
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
class TextIndex(Stage[OpenTextIndex]):
    """Passages, or their terms -> the index of a retriever that reads texts (BM25)."""

    name: ClassVar = "index"
    whole: ClassVar = True
    retriever: TextRetriever
    passages: PassageStage
    terms: AnalyzedPassages | None
    arithmetic: str | None = None

    def inputs(self) -> tuple[Stage[object], ...]:
        return (self.terms or self.passages,)

    def settings(self) -> dict[str, Any]:
        return {"retriever": self.retriever.definition()} | ({"arithmetic": self.arithmetic} if self.arithmetic else {})

    def compute(self, folder: Path, session: Session) -> dict[str, Any]:
        if self.terms:
            terms = session.read(self.terms)
            self.retriever.build_from_terms(terms, folder)
            return {"passages": len(terms.ends)}
        texts = session.read(self.passages).full_texts()
        self.retriever.build(texts, folder, session.machine)
        return {"passages": len(texts)}

    def read(self, folder: Path, session: Session) -> OpenTextIndex:
        return self.retriever.open(folder, session.machine)
