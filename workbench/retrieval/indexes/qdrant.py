"""Qdrant, embedded or on a server; every vector is compared.

The artifact holds the vectors, and collections are filled from it: the embedded one whenever it is opened, that of a server
where it lacks them. So one artifact serves wherever Qdrant runs, and outlives the server's data. A collection's name is a
digest of its vectors: experiments with equal vectors share it, others never meet.

A server's graph is not used. It depends on the server's threads and on when the server merges its segments, so an approximate
search would not find the same tomorrow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from workbench.component import file_digest
from workbench.errors import InputError, MissingExtraError
from workbench.retrieval.indexes.backends import CPU, Backend
from workbench.retrieval.indexes.base import OpenStore, VectorStore, padded

if TYPE_CHECKING:
    from uuid import UUID

    from qdrant_client import QdrantClient

VECTORS = "vectors.npy"
DIGEST = "digest.txt"
INGESTED = 256  # vectors a request; 2 MB of text at 384 dimensions, and a server takes 32 MB
TOGETHER = 64  # queries a request
SECONDS = 60  # that a server may take for one request


class QdrantIndex(VectorStore):
    """Settings of Qdrant. A server's API key is read from `QDRANT_API_KEY`.

    Attributes:
        url: where the server is, e.g. ``http://localhost:6333``; None: embedded in this process, for up to some 20,000 vectors.
        prefix: what the names of the server's collections begin with.
    """

    libraries: ClassVar = ("qdrant-client",)
    references: ClassVar = ("url", "prefix")  # where, not what

    kind: Literal["qdrant"] = "qdrant"
    url: str | None = Field(default=None, pattern=r"^https?://")
    prefix: str = Field(default="workbench", pattern=r"^[A-Za-z0-9._-]+$")

    @property
    def exact(self) -> bool:
        return True

    def build(self, vectors: np.ndarray, folder: Path, backend: Backend = CPU) -> dict[str, Any]:
        np.save(folder / VECTORS, np.ascontiguousarray(vectors, np.float32))
        (folder / DIGEST).write_text(file_digest(folder / VECTORS))
        opened = self.open(folder)
        return {"reason": f"collection {opened.name}, {opened.where}"}

    def open(self, folder: Path, backend: Backend = CPU, say: Callable[[str], None] = lambda text: None) -> OpenQdrant:
        """Connects, and fills the collection where it is absent or not whole.

        Raises:
            MissingExtraError: the client is not installed.
            InputError: the server does not answer, or refuses.
        """
        vectors = np.load(folder / VECTORS, mmap_mode="r")
        opened = OpenQdrant(self.url, f"{self.prefix}-{(folder / DIGEST).read_text()[:24]}", len(vectors))
        opened.fill(vectors)
        return opened


class OpenQdrant(OpenStore):
    """A collection of Qdrant.

    Attributes:
        name: the collection's.
        where: which Qdrant holds it, for people.
    """

    exact = True

    def __init__(self, url: str | None, name: str, n: int) -> None:
        self.name = name
        self.n = n
        self.remote = url is not None
        self.where = f"Qdrant at {url}" if url else "Qdrant in this process"
        self.client = _client(url)

    def __len__(self) -> int:
        return self.n

    def fill(self, vectors: np.ndarray) -> None:
        """Makes the collection hold float32 (n, d) vectors, id = row; changes nothing where it does."""
        from qdrant_client import models

        with self._answering():
            if not self.client.collection_exists(self.name):
                self._create(vectors.shape[1])
            if self._count() == self.n:
                return
            for start in range(0, self.n, INGESTED):
                rows = vectors[start : start + INGESTED]
                ids: list[int | str | UUID] = list(range(start, start + len(rows)))
                self.client.upsert(self.name, models.Batch(ids=ids, vectors=rows.tolist()), wait=True)
            if (held := self._count()) != self.n:
                raise InputError(
                    f"{self.where}: collection {self.name} holds {held} vectors instead of {self.n}; delete it there"
                )

    def _create(self, d: int) -> None:
        from qdrant_client import models
        from qdrant_client.http.exceptions import UnexpectedResponse

        # not cosine: the server would make unit vectors of unit vectors, and round again
        settings = models.VectorParams(size=d, distance=models.Distance.DOT)
        try:
            self.client.create_collection(self.name, settings, hnsw_config=models.HnswConfigDiff(m=0))  # 0: no graph
        except UnexpectedResponse:
            if not self.client.collection_exists(self.name):  # else another process was faster
                raise

    def _count(self) -> int:
        return self.client.count(self.name, exact=True).count

    def candidates(self, queries: np.ndarray, k: int, vectors: np.ndarray | None = None) -> np.ndarray:
        """As `OpenStore.candidates`, of float32 (m, d) queries: int64 (m, at most k); -1 for none.

        Raises:
            InputError: the server does not answer, or the collection is gone.
        """
        from qdrant_client import models

        ignored = models.QuantizationSearchParams(ignore=True)
        params = models.SearchParams(exact=True, quantization=ignored) if self.remote else None  # embedded, it always is
        wanted = min(k, self.n)
        found: list[list[int]] = []
        for start in range(0, len(queries), TOGETHER):
            asked = np.asarray(queries[start : start + TOGETHER], np.float32).tolist()
            requests = [models.QueryRequest(query=query, limit=wanted, params=params) for query in asked]
            with self._answering():
                answers = self.client.query_batch_points(self.name, requests)
            found += [[int(point.id) for point in answer.points] for answer in answers]
        return padded(found, wanted)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turns what a server's silence or refusal raises into errors that say the way out."""
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        try:
            yield
        except ResponseHandlingException as error:
            raise InputError(
                f"{self.where} does not answer ({error}); start it, mend the url, or leave url out for the embedded one"
            ) from error
        except UnexpectedResponse as error:
            if error.status_code == 404:
                raise InputError(
                    f"{self.where}: collection {self.name} is gone; run again, and it is filled from the stored vectors"
                ) from error
            key = "; it wants another key in QDRANT_API_KEY" if error.status_code in (401, 403) else ""
            raise InputError(f"{self.where} refuses with status {error.status_code}: {error.reason_phrase}{key}") from error


def _client(url: str | None) -> QdrantClient:
    try:
        from qdrant_client import QdrantClient
    except ModuleNotFoundError as error:
        raise MissingExtraError("qdrant-client", "stores", "an index in Qdrant") from error
    if url is None:
        return QdrantClient(":memory:")
    key = os.environ.get("QDRANT_API_KEY")
    return QdrantClient(url=url, api_key=key, timeout=SECONDS, check_compatibility=False)
