"""FAISS indexes over unit vectors; inner product is the cosine.

An index proposes candidates and `Dense` scores them again exactly, from the vectors themselves. So an approximate index can
only miss passages; its rounded scores reach no ranking. Candidates of a query do not depend on the queries beside it, and
an index of the same vectors is the same to the bit.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
from pydantic import Field, model_validator

from workbench.component import Component
from workbench.errors import InputError
from workbench.machine import fingerprint
from workbench.retrieval.indexes import accelerators, exact
from workbench.retrieval.indexes.accelerators import Accelerator
from workbench.retrieval.indexes.backends import CPU, Backend, faiss
from workbench.retrieval.threads import side_by_side

if TYPE_CHECKING:
    import faiss as _faiss

FILE = "index.faiss"
CHOICE = "choice.json"
PER_CENTRE = 39  # vectors that FAISS wants for each centre it learns; with fewer it warns
SPARE = 14  # candidates beyond those wanted that are looked up too where they are ordered only roughly: few wanted need more
TOGETHER = 16  # queries searched at once in an approximate index: few enough that FAISS treats each by itself


class Index(Component, ABC):
    """Base of FAISS indexes; `kind` names the class in a configuration.

    Class attributes:
        built_on_gpu: whether FAISS builds this kind on a GPU.
        searched_on_gpu: whether FAISS searches this kind on a GPU.
    """

    libraries: ClassVar = ("faiss",)
    built_on_gpu: ClassVar[bool] = False
    searched_on_gpu: ClassVar[bool] = False

    kind: str

    @abstractmethod
    def make(self, vectors: np.ndarray) -> _faiss.Index:
        """A trained index that holds float32 (n, d) vectors, n at least 1; id = row."""

    def make_on_gpu(self, vectors: np.ndarray) -> _faiss.Index:
        """As `make`, of float32 (n, d) vectors, computed on a GPU; what it returns lies in ordinary memory.

        Raises:
            RuntimeError: FAISS cannot do it: settings it has no kernel for, or too little memory.
        """
        raise NotImplementedError

    def build(self, vectors: np.ndarray, folder: Path, backend: Backend = CPU) -> dict[str, Any]:
        """Writes an index of float32 (n, d) vectors into an empty folder; returns facts for the artifact's manifest.

        The file is the same kind whatever built it, and opens without a GPU. `fallback` among the facts says why it was not
        built where the backend said.
        """
        if self.learned:
            fingerprint.confirm("cpu", fingerprint.INDEXES)
        made, facts = self._made(np.ascontiguousarray(vectors, np.float32), backend)
        faiss().write_index(made, str(folder / FILE))
        return facts

    def _made(self, vectors: np.ndarray, backend: Backend) -> tuple[_faiss.Index, dict[str, str]]:
        if backend.name != "faiss-gpu" or not self.built_on_gpu:
            return self.make(vectors), {}
        try:
            return self.make_on_gpu(vectors), {"built": backend.name}
        except RuntimeError as error:
            return self.make(vectors), {"built": CPU.name, "fallback": _fallback(f"{self.kind} is built", error)}

    def open(self, folder: Path, backend: Backend = CPU, say: Callable[[str], None] = lambda text: None) -> OpenFaissIndex:
        """Opens what `build` wrote, memory-mapped; the codes of a fast scan are read, since FAISS packs them anew.

        Args:
            folder: what `build` wrote into.
            backend: what searches it.
            say: told why the processor searches it instead, where it does.
        """
        index = faiss().read_index(str(folder / FILE), faiss().IO_FLAG_MMAP_IFC)
        self.prepare(index)
        return OpenFaissIndex(index, self.exact, self.lookups, self.accelerator(index, backend, say), say)

    def accelerator(self, index: _faiss.Index, backend: Backend, say: Callable[[str], None]) -> Accelerator | None:
        """What searches an index in FAISS' stead on the processor, or None."""
        try:
            if backend.name == "torch" and self.exact:
                return accelerators.Torch(held(index), backend.device)
            if backend.name == "faiss-gpu" and self.searched_on_gpu:
                return self.copied(index)
        except RuntimeError as error:
            say(_fallback(f"{self.kind} is searched", error))
        return None

    def copied(self, index: _faiss.Index) -> accelerators.FaissGpu:
        """An index on the GPU."""
        return accelerators.FaissGpu(index, self.exact)

    def prepare(self, index: _faiss.Index) -> None:
        """Sets what belongs to searching."""

    @property
    def exact(self) -> bool:
        """Whether every vector is compared."""
        return False

    @property
    def learned(self) -> bool:
        """Whether FAISS learns it from the vectors."""
        return not self.exact

    @property
    def lookups(self) -> int:
        """Candidates looked up for each one wanted, where compressed vectors order them only roughly."""
        return 1


def _fallback(what: str, error: RuntimeError) -> str:
    """Why the processor does what a GPU should have; FAISS' messages begin with the place in its source."""
    return f"{what} on the processor: {' '.join(str(error).split())[:300]}"


def held(index: _faiss.Index) -> np.ndarray:
    """The vectors a flat index holds, float32 (n, d), not copied."""
    flat = cast("_faiss.IndexFlat", index)  # what exact kinds make; the types are known only where FAISS is installed
    vectors: np.ndarray = faiss().rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(-1, flat.d)
    return vectors


class FlatIndex(Index):
    """Exact search: every vector is compared."""

    searched_on_gpu: ClassVar[bool] = True

    kind: Literal["flat"] = "flat"

    @property
    def exact(self) -> bool:
        return True

    def make(self, vectors: np.ndarray) -> _faiss.Index:
        index: _faiss.Index = faiss().IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return index


class _Clustered(Index):
    """Base of the inverted-file kinds: vectors in cells around k-means centres, of which the nearest are searched.

    Attributes:
        nlist: cells; default: 4 times the square root of the number of vectors, as FAISS' guidelines advise below a million.
        nprobe: cells searched.
    """

    built_on_gpu: ClassVar[bool] = True
    searched_on_gpu: ClassVar[bool] = True

    nlist: int | None = Field(default=None, ge=1)
    nprobe: int = Field(default=16, ge=1)

    def prepare(self, index: _faiss.Index) -> None:
        cells = cast("_faiss.IndexIVF", index)  # as every `description` says
        cells.nprobe = min(self.nprobe, cells.nlist)

    def cells(self, n: int) -> int:
        """Cells for n vectors; never so many that k-means has too few for each."""
        return max(1, min(self.nlist or ceil(4 * sqrt(n)), n // PER_CENTRE))

    @abstractmethod
    def description(self, n: int, d: int) -> str:
        """The index of n vectors of d dimensions, as FAISS' factory reads it."""

    def make(self, vectors: np.ndarray) -> _faiss.Index:
        index = self._empty(*vectors.shape)
        with _one_thread():  # with more, the sums of k-means come in another order
            index.train(vectors)
        index.add(vectors)
        return index

    def make_on_gpu(self, vectors: np.ndarray) -> _faiss.Index:
        return accelerators.trained_on_gpu(self._empty(*vectors.shape), vectors)

    def _empty(self, n: int, d: int) -> _faiss.Index:
        index: _faiss.Index = faiss().index_factory(d, self.description(n, d), faiss().METRIC_INNER_PRODUCT)
        return index


class IVFFlatIndex(_Clustered):
    """Cells of whole vectors (Sivic and Zisserman, ICCV 2003)."""

    kind: Literal["ivf"] = "ivf"

    def description(self, n: int, d: int) -> str:
        return f"IVF{self.cells(n)},Flat"


class _Compressed(_Clustered):
    """Base of the product-quantised kinds (Jegou, Douze and Schmid, TPAMI 2011).

    Attributes:
        parts: pieces a vector is cut into, one code each; default: a quarter of its dimensions. Must divide them.
        refine: candidates scored again exactly, for each one wanted.
    """

    version: ClassVar = 2
    parts: int | None = Field(default=None, ge=1)
    refine: int = Field(default=8, ge=1)

    @property
    def lookups(self) -> int:
        return self.refine

    def coded(self, n: int, d: int, bits: int, suffix: str) -> str:
        """Cells of codes; of whole vectors where these are too few to learn codes from."""
        codes = f"PQ{self.pieces(d)}x{bits}{suffix}" if n >= PER_CENTRE * 2**bits else "Flat"
        return f"IVF{self.cells(n)},{codes}"

    def pieces(self, d: int) -> int:
        """Pieces of vectors of d dimensions: the number given, else the largest up to d / 4 that divides d."""
        return self.parts or max(m for m in range(1, max(2, d // 4 + 1)) if d % m == 0)


class IVFPQIndex(_Compressed):
    """Cells of vectors in 8-bit codes: a byte a piece."""

    kind: Literal["ivfpq"] = "ivfpq"

    def description(self, n: int, d: int) -> str:
        return self.coded(n, d, 8, "")


class FastScanIndex(_Compressed):
    """Cells of vectors in 4-bit codes, compared in registers (Andre, Kermarrec and Le Scouarnec, PVLDB 2015)."""

    built_on_gpu: ClassVar[bool] = False
    searched_on_gpu: ClassVar[bool] = False

    kind: Literal["fastscan"] = "fastscan"

    def description(self, n: int, d: int) -> str:
        return self.coded(n, d, 4, "fs")


class HNSWIndex(Index):
    """A navigable small-world graph (Malkov and Yashunin, TPAMI 2020). Built with one thread, as others would race.

    Attributes:
        m: neighbours of a vector.
        ef_construction: candidates kept while building.
        ef_search: candidates kept while searching.
    """

    version: ClassVar = 2
    kind: Literal["hnsw"] = "hnsw"
    m: int = Field(default=32, ge=2)
    ef_construction: int = Field(default=100, ge=1)
    ef_search: int = Field(default=128, ge=1)

    def make(self, vectors: np.ndarray) -> _faiss.Index:
        index: _faiss.IndexHNSWFlat = faiss().IndexHNSWFlat(vectors.shape[1], self.m, faiss().METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.ef_construction
        with _one_thread():
            index.add(vectors)
        return index

    def prepare(self, index: _faiss.Index) -> None:
        cast("_faiss.IndexHNSW", index).hnsw.efSearch = self.ef_search  # what `make` gives


class CagraIndex(Index):
    """A graph for GPUs (Ootomo et al., ICDE 2024), which the processor searches as an HNSW graph.

    Without a GPU, or with few vectors, an HNSW graph with as many neighbours is built instead.

    Attributes:
        degree: neighbours of a vector.
        intermediate: neighbours of a vector before pruning.
        ef_search: candidates kept while searching.
    """

    FEW: ClassVar = 1_000  # vectors that need no GPU

    built_on_gpu: ClassVar[bool] = True
    searched_on_gpu: ClassVar[bool] = True

    version: ClassVar = 2
    kind: Literal["cagra"] = "cagra"
    degree: int = Field(default=64, ge=4, multiple_of=2)
    intermediate: int = Field(default=128, ge=4)
    ef_search: int = Field(default=128, ge=1)

    @model_validator(mode="after")
    def _pruning_leaves_fewer(self) -> CagraIndex:
        if self.intermediate < self.degree:
            raise ValueError(f"intermediate {self.intermediate} must be at least degree {self.degree}")
        return self

    def make(self, vectors: np.ndarray) -> _faiss.Index:
        return HNSWIndex(m=self.degree // 2).make(vectors)

    def make_on_gpu(self, vectors: np.ndarray) -> _faiss.Index:
        if len(vectors) < max(self.FEW, 2 * self.intermediate):
            raise RuntimeError(f"{len(vectors)} vectors are too few for a GPU")
        return accelerators.cagra(vectors, self.degree, self.intermediate)

    def _made(self, vectors: np.ndarray, backend: Backend) -> tuple[_faiss.Index, dict[str, str]]:
        if backend.name == "faiss-gpu":
            return super()._made(vectors, backend)
        return self.make(vectors), {"built": CPU.name, "fallback": f"cagra is built as hnsw on the processor: {backend.reason}"}

    def accelerator(self, index: _faiss.Index, backend: Backend, say: Callable[[str], None]) -> Accelerator | None:
        on_gpu = isinstance(index, faiss().IndexHNSWCagra)  # otherwise it was built as an HNSW graph
        return super().accelerator(index, backend, say) if on_gpu else None

    def copied(self, index: _faiss.Index) -> accelerators.FaissGpu:
        return accelerators.FaissGpu(index, self.exact, self.ef_search)

    def prepare(self, index: _faiss.Index) -> None:
        cast("_faiss.IndexHNSW", index).hnsw.efSearch = self.ef_search  # what `make` and `make_on_gpu` give


class AutoIndex(Index):
    """Picks a kind from the number of vectors, their dimensions and the memory they may take.

    Attributes:
        memory_gb: what the index may take; a setting rather than what a machine has, so that all machines pick alike.
    """

    EXACT_UP_TO: ClassVar = 20_000  # vectors that exact search compares in a few milliseconds
    # On 100,000 sentences: recall@10 .957. Twice as many cells take longer to choose among, longer codes to compare; shorter
    # ones need more vectors looked up.
    CELLS: ClassVar = 2  # times the square root of the number of vectors
    SHARE: ClassVar = 11  # of the cells one in so many is searched
    PIECE: ClassVar = 3  # dimensions of a code, at least

    version: ClassVar = 4
    kind: Literal["auto"] = "auto"
    memory_gb: float = Field(default=4.0, gt=0)

    def make(self, vectors: np.ndarray) -> _faiss.Index:
        return self.choice(*vectors.shape)[0].make(vectors)

    def build(self, vectors: np.ndarray, folder: Path, backend: Backend = CPU) -> dict[str, Any]:
        chosen, reason = self.choice(*vectors.shape)
        facts = chosen.build(vectors, folder, backend)
        (folder / CHOICE).write_text(json.dumps({"shape": vectors.shape}))
        return {"chosen": chosen.kind, "reason": reason} | facts

    def open(self, folder: Path, backend: Backend = CPU, say: Callable[[str], None] = lambda text: None) -> OpenFaissIndex:
        shape = json.loads((folder / CHOICE).read_text())["shape"]
        return self.choice(*shape)[0].open(folder, backend, say)

    def choice(self, n: int, d: int) -> tuple[Index, str]:
        """The index for n vectors of d dimensions, and why."""
        whole = n * d * 4 / 1e9
        if n <= self.EXACT_UP_TO and whole <= self.memory_gb:
            return FlatIndex(), f"{n:,} vectors are few enough to compare all"
        parts = max(m for m in range(1, max(2, d // self.PIECE + 1)) if d % m == 0)
        while n * parts / 2e9 > self.memory_gb and parts % 2 == 0:  # a part takes half a byte
            parts //= 2
        cells = FastScanIndex(nlist=ceil(self.CELLS * sqrt(n))).cells(n)
        chosen = FastScanIndex(nlist=cells, nprobe=ceil(cells / self.SHARE), refine=2, parts=parts)
        why = f"are too many to compare all, and take {whole:.2g} GB" if n > self.EXACT_UP_TO else f"take {whole:.2g} GB"
        return chosen, f"{n:,} vectors {why}: {parts} 4-bit codes each, {chosen.nprobe} of {cells:,} cells searched"


class OpenFaissIndex:
    """A FAISS index in memory, to which vectors can be added and from which they can be removed.

    Added vectors are compared one by one, and removed ones are passed over, so that every kind can be changed, and what `build`
    wrote stays as it is. Ids never move: an added vector gets the next one, a removed one is not given again. When a tenth
    has changed, building again is faster to search.

    Attributes:
        index: FAISS' own.
        exact: whether its candidates are the nearest for certain.
        lookups: candidates looked up for each one wanted.
        accelerator: what searches in FAISS' stead, or None.
        say: told why the accelerator was given up.
    """

    def __init__(
        self,
        index: _faiss.Index,
        exact: bool,
        lookups: int,
        accelerator: Accelerator | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.index = index
        self.exact = exact
        self.lookups = lookups
        self.accelerator = accelerator
        self.say = say
        self.added = np.empty((0, index.d), np.float32)
        self.removed = np.empty(0, np.int64)

    def __len__(self) -> int:
        """Vectors that can be found."""
        return self.index.ntotal + len(self.added) - len(self.removed)

    def add(self, vectors: np.ndarray) -> np.ndarray:
        """Adds float32 (n, d) vectors; returns their ids, int64 (n,)."""
        first = self.index.ntotal + len(self.added)
        self.added = np.concatenate([self.added, np.asarray(vectors, np.float32)])
        return np.arange(first, first + len(vectors))

    def remove(self, ids: Sequence[int]) -> None:
        """Removes vectors by their ids; one that was removed before stays so.

        Raises:
            InputError: an id that was never given.
        """
        given, end = np.unique(np.asarray(ids, np.int64)), self.index.ntotal + len(self.added)
        if len(given) and not 0 <= given[0] <= given[-1] < end:
            raise InputError(f"ids to remove: received {given[0]} to {given[-1]}; allowed: 0 to {end - 1}")
        self.removed = np.union1d(self.removed, given)

    def candidates(self, queries: np.ndarray, k: int, vectors: np.ndarray | None = None) -> np.ndarray:
        """Ids of the nearest vectors of float32 (m, d) queries: int64 (m, c), c at least k where there are so many; -1 for none.

        Where compressed vectors order them only roughly, `SPARE` more are looked up, and that `lookups` times.

        An exact index multiplies `vectors`, float32 (n, d), those it was built of, where they are given: its own copy begins at
        an odd byte of its file, and NumPy would copy all of it for each product.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        enough = k if self.lookups == 1 else (k + SPARE) * self.lookups
        wanted = min(enough + len(self.removed), self.index.ntotal)
        found = self._found(queries, wanted, vectors)
        if len(self.added):
            of_added = exact.nearest(self.added, queries, min(k + len(self.removed), len(self.added)))
            found = np.concatenate([found, of_added + self.index.ntotal], axis=1)
        return np.where(np.isin(found, self.removed), -1, found) if len(self.removed) else found

    def _found(self, queries: np.ndarray, wanted: int, vectors: np.ndarray | None) -> np.ndarray:
        if self.accelerator and wanted <= self.accelerator.most:
            try:
                return self.accelerator.candidates(queries, wanted)
            except RuntimeError as error:
                self.accelerator = None
                self.say(_fallback("search goes on", error))
        if self.exact:
            return exact.nearest(held(self.index) if vectors is None else vectors[: self.index.ntotal], queries, wanted)
        return np.concatenate(side_by_side(lambda part: self.index.search(queries[part], wanted)[1], len(queries), TOGETHER))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = faiss().omp_get_max_threads()
    faiss().omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss().omp_set_num_threads(threads)
