"""Chroma, embedded: a graph (HNSW) searched approximately.

Chroma puts the vectors of a batch into its graph in no fixed order and with several threads, so that a graph built again is
another one. What is found is the same from one artifact; an index built anew may miss other passages, the fewer the larger
`ef_search` is. The manifest says so.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
from pydantic import Field

from workbench.errors import MissingExtraError
from workbench.retrieval.indexes.backends import CPU, Backend
from workbench.retrieval.indexes.base import OpenStore, VectorStore, padded

if TYPE_CHECKING:
    from chromadb.api.client import Client
    from chromadb.api.collection_configuration import CreateHNSWConfiguration

COLLECTION = "vectors"
INGESTED = 1_000  # vectors added at once
TOGETHER = 64  # queries asked at once


class ChromaIndex(VectorStore):
    """Settings of Chroma's graph.

    Attributes:
        m: neighbours of a vector.
        ef_construction: candidates kept while building.
        ef_search: candidates kept while searching; with as many as there are vectors, all that the graph connects are compared.
    """

    libraries: ClassVar = ("chromadb",)

    kind: Literal["chroma"] = "chroma"
    m: int = Field(default=32, ge=2)
    ef_construction: int = Field(default=200, ge=1)
    ef_search: int = Field(default=1_000, ge=1)

    def build(self, vectors: np.ndarray, folder: Path, backend: Backend = CPU) -> dict[str, Any]:
        n = len(vectors)
        graph: CreateHNSWConfiguration = {
            "space": "ip",
            "max_neighbors": self.m,
            "ef_construction": self.ef_construction,
            "ef_search": self.ef_search,
            # Written in full with the last vector: what Chroma left in its log, every opening would put into the graph anew.
            "batch_size": 2,
            "sync_threshold": max(2, n),
        }
        client = _client(folder)
        try:
            collection = client.create_collection(COLLECTION, embedding_function=None, configuration={"hnsw": graph})
            for rows in np.array_split(np.arange(n), ceil(n / INGESTED)):
                collection.add([str(row) for row in rows], embeddings=np.asarray(vectors[rows], np.float32))
        finally:
            client.close()
        return {"reason": "Chroma builds its graph in no fixed order: built again, it may miss other passages"}

    def open(self, folder: Path, backend: Backend = CPU, say: Callable[[str], None] = lambda text: None) -> OpenChroma:
        return OpenChroma(folder)


class OpenChroma(OpenStore):
    """A copy of a database, since Chroma writes where it reads; removed with this object, or at the end of the process."""

    def __init__(self, folder: Path) -> None:
        self.copy = tempfile.TemporaryDirectory(prefix="workbench-chroma-", ignore_cleanup_errors=True)
        shutil.copytree(folder, self.copy.name, dirs_exist_ok=True)
        self.client = _client(Path(self.copy.name))
        self.collection = self.client.get_collection(COLLECTION, embedding_function=None)
        self.n = int(self.collection.count())

    def __len__(self) -> int:
        return self.n

    def candidates(self, queries: np.ndarray, k: int, vectors: np.ndarray | None = None) -> np.ndarray:
        wanted = min(k, self.n)
        found: list[list[int]] = []
        for start in range(0, len(queries), TOGETHER):
            asked = np.asarray(queries[start : start + TOGETHER], np.float32)
            answers = self.collection.query(query_embeddings=asked, n_results=wanted, include=[])
            found += [[int(row) for row in ids] for ids in answers["ids"]]
        return padded(found, wanted)


def _client(folder: Path) -> Client:
    try:
        import chromadb
        from chromadb.config import Settings
    except ModuleNotFoundError as error:
        raise MissingExtraError("chromadb", "stores", "an index in Chroma") from error
    # annotated as the interface of all clients, which lacks `close`
    return cast("Client", chromadb.PersistentClient(str(folder), Settings(anonymized_telemetry=False)))
