"""Candidates found faster than FAISS finds them on a processor: by FAISS on a GPU, or by torch.

Both hold a copy of the vectors, and neither changes what an exact index finds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from workbench.retrieval.indexes.backends import faiss

if TYPE_CHECKING:
    import faiss as _faiss

SCRATCH_BYTES = 256 * 2**20  # kept on the GPU for intermediate results
SCORES = 2**28  # held by torch at once: 1 GiB of float32


class Accelerator(ABC):
    """A copy of an index that proposes candidates.

    Attributes:
        most: the most candidates it can be asked for.
    """

    most: int

    @abstractmethod
    def candidates(self, queries: np.ndarray, k: int) -> np.ndarray:
        """As `OpenFaissIndex.candidates`, of float32 (n, d) queries: int64 (n, k); -1 for none."""


class FaissGpu(Accelerator):
    """A FAISS index on the first GPU.

    An approximate one is always asked `ROWS` queries at once, filled up with the first ones again: the GPU picks its way of
    multiplying by the number of rows, and a query's candidates must not depend on how many others come with it.
    """

    ROWS: ClassVar = 256
    most = 2048  # of FAISS' own kernels

    def __init__(self, index: _faiss.Index, exact: bool, ef_search: int = 0) -> None:
        self.index = to_gpu(index)
        self.exact = exact
        self.ef_search = ef_search
        if hasattr(index, "nprobe"):
            self.index.nprobe = index.nprobe

    def candidates(self, queries: np.ndarray, k: int) -> np.ndarray:
        given = {"params": cagra_parameters(max(self.ef_search, k))} if self.ef_search else {}
        if self.exact:
            found: np.ndarray = self.index.search(queries, k)[1]
            return found
        padded = np.resize(queries, (-(-len(queries) // self.ROWS) * self.ROWS, queries.shape[1]))
        parts = [self.index.search(padded[i : i + self.ROWS], k, **given)[1] for i in range(0, len(padded), self.ROWS)]
        return np.concatenate(parts)[: len(queries)]


class Torch(Accelerator):
    """Exact search of float32 (n, d) vectors by torch: one matrix product and the best of its rows."""

    most = 2**31

    def __init__(self, vectors: np.ndarray, device: str) -> None:
        import torch

        # torch warns of arrays it may not write to, as mapped ones are; it only reads
        self.vectors = torch.tensor(vectors, device=device)

    def candidates(self, queries: np.ndarray, k: int) -> np.ndarray:
        import torch

        rows = max(1, SCORES // len(self.vectors))
        with torch.inference_mode(), _whole_float32():
            asked = torch.tensor(queries, device=self.vectors.device)
            # for one query `mv` reads the vectors once, at the speed of memory
            found = [
                (torch.mv(self.vectors, part[0])[None] if len(part) == 1 else part @ self.vectors.T).topk(k, sorted=False).indices
                for part in torch.split(asked, rows)
            ]
            return torch.cat(found).cpu().numpy()


@contextmanager
def _whole_float32() -> Iterator[None]:
    """Products of float32 in float32, whatever the process chose elsewhere: candidates are trusted to six digits."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def resources() -> Any:
    """FAISS' memory on the GPU, shared by all indexes of the process."""
    made = faiss().StandardGpuResources()
    made.setTempMemory(SCRATCH_BYTES)
    return made


def to_gpu(index: _faiss.Index) -> Any:
    """A copy of an index on the first GPU, of a class that FAISS' annotations lack.

    Raises:
        RuntimeError: FAISS has no such index for GPUs, or the memory is too small.
    """
    options = faiss().GpuClonerOptions()
    options.use_cuvs = False  # FAISS' own kernels: full float32, and no compilation at the first call
    options.useFloat16 = isinstance(index, faiss().IndexIVFPQ)  # tables of many pieces fit a multiprocessor only so
    return faiss().index_cpu_to_gpu(resources(), 0, index, options)


def trained_on_gpu(index: _faiss.Index, vectors: np.ndarray) -> _faiss.Index:
    """An empty index, trained on float32 (n, d) vectors and filled with them on the GPU, and brought back."""
    on_gpu = to_gpu(index)
    on_gpu.train(vectors)
    on_gpu.add(vectors)
    brought_back: _faiss.Index = faiss().index_gpu_to_cpu(on_gpu)
    return brought_back


def cagra(vectors: np.ndarray, degree: int, intermediate: int) -> _faiss.Index:
    """A CAGRA graph of float32 (n, d) vectors, built on the GPU, as a graph that the processor searches too.

    Of unit vectors the nearest by Euclidean distance are the nearest by inner product.
    """
    config = faiss().GpuIndexCagraConfig()
    config.graph_degree, config.intermediate_graph_degree = degree, intermediate
    on_gpu = faiss().GpuIndexCagra(resources(), vectors.shape[1], faiss().METRIC_L2, config)
    on_gpu.train(vectors)
    graph: _faiss.Index = faiss().IndexHNSWCagra()
    on_gpu.copyTo(graph)
    return graph


def cagra_parameters(kept: int) -> Any:
    """Parameters of a search that keeps so many candidates on its way.

    Up to 512 by one block of threads a query, whatever the batch; beyond, FAISS chooses.
    """
    made = faiss().SearchParametersCagra()
    made.itopk_size = -(-kept // 32) * 32
    made.algo = faiss().search_algo_SINGLE_CTA if made.itopk_size <= 512 else faiss().search_algo_AUTO
    return made
