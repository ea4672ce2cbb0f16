"""FAISS indexes over unit vectors; inner product is the cosine.

An index proposes candidates and `Dense` scores them again exactly, from the vectors themselves. So an approximate index can
only miss passages; its rounded scores reach no ranking. Candidates of a query do not depend on the queries beside it, and
an index of the same vectors is the same to the bit.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil, sqrt
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from workbench.component import Component
from workbench.errors import MissingExtraError

if TYPE_CHECKING:
    import faiss as _faiss

FILE = "index.faiss"
CHOICE = "choice.json"
PER_CENTRE = 39  # vectors that FAISS wants for each centre it learns; with fewer it warns
TOGETHER = 16  # queries searched at once in an approximate index: few enough that FAISS treats each by itself


def faiss() -> ModuleType:
    """The module `faiss`, which `faiss-cpu` and `faiss-gpu` both provide.

    Raises:
        MissingExtraError: neither is installed.
    """
    try:
        import faiss as module
    except ModuleNotFoundError as error:
        raise MissingExtraError("faiss-cpu", "cpu", "a dense index") from error
    return module


class Index(Component, ABC):
    """Base of FAISS indexes; `kind` names the class in a configuration."""

    libraries: ClassVar = ("faiss",)

    kind: str

    @abstractmethod
    def make(self, vectors: np.ndarray) -> _faiss.Index:
        """A trained index that holds float32 (n, d) vectors, n at least 1; id = row."""

    def build(self, vectors: np.ndarray, folder: Path) -> dict[str, Any]:
        """Writes an index of float32 (n, d) vectors into an empty folder; returns facts for the artifact's manifest."""
        faiss().write_index(self.make(np.ascontiguousarray(vectors, np.float32)), str(folder / FILE))
        return {}

    def open(self, folder: Path) -> OpenIndex:
        """Opens what `build` wrote, memory-mapped where its kind allows."""
        index = faiss().read_index(str(folder / FILE), faiss().IO_FLAG_MMAP_IFC)
        self.prepare(index)
        return OpenIndex(index, self.exact, self.lookups)

    def prepare(self, index: _faiss.Index) -> None:
        """Sets what belongs to searching."""

    @property
    def exact(self) -> bool:
        """Whether every vector is compared."""
        return False

    @property
    def lookups(self) -> int:
        """Candidates looked up for each one wanted, where compressed vectors order them only roughly."""
        return 1


class FlatIndex(Index):
    """Exact search: every vector is compared."""

    kind: Literal["flat"] = "flat"

    @property
    def exact(self) -> bool:
        return True

    def make(self, vectors: np.ndarray) -> _faiss.Index:
        index = faiss().IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return index


class _Clustered(Index):
    """Base of the inverted-file kinds: vectors in cells around k-means centres, of which the nearest are searched.

    Attributes:
        nlist: cells; default: 4 times the square root of the number of vectors, as FAISS' guidelines advise below a million.
        nprobe: cells searched.
    """

    nlist: int | None = Field(default=None, ge=1)
    nprobe: int = Field(default=16, ge=1)

    def prepare(self, index: _faiss.Index) -> None:
        index.nprobe = min(self.nprobe, index.nlist)

    def cells(self, n: int) -> int:
        """Cells for n vectors; never so many that k-means has too few for each."""
        return max(1, min(self.nlist or ceil(4 * sqrt(n)), n // PER_CENTRE))

    def _filled(self, vectors: np.ndarray, description: str) -> _faiss.Index:
        index = faiss().index_factory(vectors.shape[1], description, faiss().METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        return index


class IVFFlatIndex(_Clustered):
    """Cells of whole vectors (Sivic and Zisserman, ICCV 2003)."""

    kind: Literal["ivf"] = "ivf"

    def make(self, vectors: np.ndarray) -> _faiss.Index:
        return self._filled(vectors, f"IVF{self.cells(len(vectors))},Flat")


class _Compressed(_Clustered):
    """Base of the product-quantised kinds (Jegou, Douze and Schmid, TPAMI 2011).

    Attributes:
        parts: pieces a vector is cut into, one code each; default: a quarter of its dimensions. Must divide them.
        refine: candidates scored again exactly, for each one wanted.
    """

    parts: int | None = Field(default=None, ge=1)
    refine: int = Field(default=8, ge=1)

    @property
    def lookups(self) -> int:
        return self.refine

    def _coded(self, vectors: np.ndarray, bits: int, suffix: str) -> _faiss.Index:
        """Cells of codes; of whole vectors where these are too few to learn codes from."""
        n, d = vectors.shape
        codes = f"PQ{self.pieces(d)}x{bits}{suffix}" if n >= PER_CENTRE * 2**bits else "Flat"
        return self._filled(vectors, f"IVF{self.cells(n)},{codes}")

    def pieces(self, d: int) -> int:
        """Pieces of vectors of d dimensions: the number given, else the largest up to d / 4 that divides d."""
        return self.parts or max(m for m in range(1, max(2, d // 4 + 1)) if d % m == 0)


class IVFPQIndex(_Compressed):
    """Cells of vectors in 8-bit codes: a byte a piece."""

    kind: Literal["ivfpq"] = "ivfpq"

    def make(self, vectors: np.ndarray) -> _faiss.Index:
        return self._coded(vectors, 8, "")


class FastScanIndex(_Compressed):
    """Cells of vectors in 4-bit codes, compared in registers (Andre, Kermarrec and Le Scouarnec, PVLDB 2015)."""

    kind: Literal["fastscan"] = "fastscan"

    def make(self, vectors: np.ndarray) -> _faiss.Index:
        return self._coded(vectors, 4, "fs")


class HNSWIndex(Index):
    """A navigable small-world graph (Malkov and Yashunin, TPAMI 2020). Built with one thread, as others would race.

    Attributes:
        m: neighbours of a vector.
        ef_construction: candidates kept while building.
        ef_search: candidates kept while searching.
    """

    kind: Literal["hnsw"] = "hnsw"
    m: int = Field(default=32, ge=2)
    ef_construction: int = Field(default=100, ge=1)
    ef_search: int = Field(default=128, ge=1)

    def make(self, vectors: np.ndarray) -> _faiss.Index:
        index = faiss().IndexHNSWFlat(vectors.shape[1], self.m, faiss().METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.ef_construction
        with _one_thread():
            index.add(vectors)
        return index

    def prepare(self, index: _faiss.Index) -> None:
        index.hnsw.efSearch = self.ef_search


class AutoIndex(Index):
    """Picks a kind from the number of vectors, their dimensions and the memory they may take.

    Attributes:
        memory_gb: what the index may take; a setting rather than what a machine has, so that all machines pick alike.
    """

    EXACT_UP_TO: ClassVar = 20_000  # vectors that exact search compares in about a millisecond

    kind: Literal["auto"] = "auto"
    memory_gb: float = Field(default=4.0, gt=0)

    def make(self, vectors: np.ndarray) -> _faiss.Index:
        return self.choice(*vectors.shape)[0].make(vectors)

    def build(self, vectors: np.ndarray, folder: Path) -> dict[str, Any]:
        chosen, reason = self.choice(*vectors.shape)
        chosen.build(vectors, folder)
        (folder / CHOICE).write_text(json.dumps({"shape": vectors.shape}))
        return {"chosen": chosen.kind, "reason": reason}

    def open(self, folder: Path) -> OpenIndex:
        shape = json.loads((folder / CHOICE).read_text())["shape"]
        return self.choice(*shape)[0].open(folder)

    def choice(self, n: int, d: int) -> tuple[Index, str]:
        """The index for n vectors of d dimensions, and why."""
        size = n * d * 4 / 1e9
        if size > self.memory_gb:
            return FastScanIndex(nprobe=32), f"{n:,} vectors take {size:.1f} GB, more than {self.memory_gb:g} GB: 4-bit codes"
        if n <= self.EXACT_UP_TO:
            return FlatIndex(), f"{n:,} vectors are few enough to compare all"
        return IVFFlatIndex(nprobe=32), f"{n:,} vectors are too many to compare all, and their {size:.1f} GB fit: cells"


class OpenIndex:
    """A FAISS index in memory.

    Attributes:
        index: FAISS' own.
        exact: whether its candidates are the nearest for certain.
        lookups: candidates looked up for each one wanted.
    """

    def __init__(self, index: _faiss.Index, exact: bool, lookups: int) -> None:
        self.index = index
        self.exact = exact
        self.lookups = lookups

    def candidates(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Ids of the k (times `lookups`) nearest vectors of float32 (n, d) queries: int64 (n, at most size); -1 for none."""
        queries = np.ascontiguousarray(queries, np.float32)
        wanted = min(k * self.lookups, self.index.ntotal)
        if not self.exact:
            parts = [self.index.search(queries[i : i + TOGETHER], wanted)[1] for i in range(0, len(queries), TOGETHER)]
            return np.concatenate(parts)
        if len(queries) == 1:
            return self._of_one(queries[0], wanted)
        return self.index.search(queries, wanted)[1]

    def _of_one(self, query: np.ndarray, k: int) -> np.ndarray:
        """One matrix-vector product, at twice the speed of FAISS, which multiplies row by row."""
        vectors = faiss().rev_swig_ptr(self.index.get_xb(), self.index.ntotal * self.index.d)
        scores = vectors.reshape(-1, self.index.d) @ query
        return np.argpartition(scores, len(scores) - k)[None, len(scores) - k :]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = faiss().omp_get_max_threads()
    faiss().omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss().omp_set_num_threads(threads)
