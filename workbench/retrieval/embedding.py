"""Texts -> vectors, with any sentence-transformers model whose first module is a transformer.

Each text is padded to the next multiple of `batching.BUCKET` tokens of its own length and batched with texts of that length.
Then a vector is the same to the bit whatever else is in the batch. `BUCKET` belongs to `Embedder.version`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from workbench import weights
from workbench.component import Component
from workbench.errors import InputError
from workbench.machine import Machine, cpu_count
from workbench.quiet import quiet_transformers
from workbench.retrieval.batching import batches, padded

if TYPE_CHECKING:
    import torch


class Embedder(Component):
    """Settings of an embedder.

    Attributes:
        model: weights source (see `workbench.weights`).
        query_prefix: put before queries, for models that were trained so.
        passage_prefix: put before passages.
    """

    libraries: ClassVar = ("torch", "transformers", "sentence-transformers")
    references: ClassVar = ("model",)

    model: str
    query_prefix: str = ""
    passage_prefix: str = ""

    def definition(self) -> dict[str, Any]:
        """Adds the digest of the weights, which stands for their name and place."""
        return super().definition() | {"weights": weights.digest(self.model)}

    def load(self, machine: Machine) -> LoadedEmbedder:
        """The model in memory; one per process and machine."""
        return _load(self.model, machine)


class LoadedEmbedder:
    """An embedder in memory. Make it with `Embedder.load`."""

    def __init__(self, model: str, machine: Machine) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(cpu_count())
        path = weights.folder(model)
        try:
            with quiet_transformers():
                self.model = SentenceTransformer(
                    str(path), device=machine.device, model_kwargs={"dtype": getattr(torch, machine.precision)}
                ).eval()
        except Exception as error:  # each library below raises its own kinds for damaged weights
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"weights {model!r}: {path} cannot be read as a sentence-transformers model: {first}") from error
        self.device = machine.device
        self.max_tokens = self.model.max_seq_length

    def encode(self, texts: Sequence[str]) -> Iterator[list[tuple[int, np.ndarray]]]:
        """Sentence vectors of unit length, float32 (d,), longest texts first.

        Yields:
            After each batch its (position in `texts`, vector) pairs. An empty text gives the vector of its special tokens.
        """
        import torch

        for batch, features in self._batches(texts):
            vectors = features["sentence_embedding"].float()
            vectors = torch.nn.functional.normalize(vectors, dim=1).cpu().numpy()
            yield list(zip(batch, vectors, strict=True))

    def encode_tokens(self, texts: Sequence[str]) -> Iterator[list[tuple[int, np.ndarray]]]:
        """Vectors of every token but the special ones, unit length, float32 (n_tokens, d).

        Yields:
            After each batch its (position in `texts`, vectors) pairs; n_tokens is 0 for an empty text.
        """
        import torch

        special = torch.tensor(self.model.tokenizer.all_special_ids, device=self.device)
        for batch, features in self._batches(texts):
            vectors = torch.nn.functional.normalize(features["token_embeddings"].float(), dim=2)
            wanted = features["attention_mask"].bool() & ~torch.isin(features["input_ids"], special)
            yield [(i, row[keep].cpu().numpy()) for i, row, keep in zip(batch, vectors, wanted, strict=True)]

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        import torch

        tokens = self.model.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"] if texts else []
        for batch, wide in batches([len(row) for row in tokens]):
            with torch.inference_mode():
                yield batch, self._forward([tokens[i] for i in batch], wide)

    def _forward(self, rows: list[list[int]], wide: int) -> dict[str, torch.Tensor]:
        ids = padded(rows, wide, self.model.tokenizer.pad_token_id)
        mask = padded([[1] * len(row) for row in rows], wide, 0)
        features: dict[str, Any] = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
        for module in self.model:
            features = module(features)
            # the transformer may compute in bfloat16; means and norms of its output are taken in float32
            features["token_embeddings"] = features["token_embeddings"].float()
        return features


@lru_cache(maxsize=4)
def _load(model: str, machine: Machine) -> LoadedEmbedder:
    return LoadedEmbedder(model, machine)
