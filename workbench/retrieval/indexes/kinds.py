"""The kinds of dense index by the name they have in a configuration: FAISS', and vector stores."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from workbench.retrieval.indexes.chroma import ChromaIndex
from workbench.retrieval.indexes.faiss import (
    AutoIndex,
    CagraIndex,
    FastScanIndex,
    FlatIndex,
    HNSWIndex,
    IVFFlatIndex,
    IVFPQIndex,
)
from workbench.retrieval.indexes.qdrant import QdrantIndex

AnyIndex = Annotated[
    FlatIndex | IVFFlatIndex | IVFPQIndex | FastScanIndex | HNSWIndex | CagraIndex | AutoIndex | QdrantIndex | ChromaIndex,
    Field(discriminator="kind"),
    BeforeValidator(lambda value: {"kind": value} if isinstance(value, str) else value),
]
