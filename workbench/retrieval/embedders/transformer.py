"""A transformer with whatever sentence-transformers puts behind it.

Each text is padded to the next multiple of `batching.BUCKET` tokens of its own length and batched with texts of that length.
So a vector is the same to the bit whatever else is in the batch, which `machine.independence` checks. `BUCKET` belongs to
`Embedder.version`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.retrieval.batching import batches, filled, full, padded
from workbench.retrieval.embedders.tokenizing import TokenizingEmbedder
from workbench.retrieval.threads import batch_by_batch

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Encoding


MIN_ROWS = 4
READ = ("sentence_embedding", "token_embeddings", "attention_mask", "input_ids")  # of a model's output


class LoadedTransformer(TokenizingEmbedder):
    """A model whose first module is a transformer."""

    def __init__(self, model: SentenceTransformer, device: str) -> None:
        super().__init__()
        self.model = model
        self.device = device
        self.in_threads = device == "cpu"
        self.max_tokens = model.max_seq_length
        # a layer behind the pooling multiplies one row a text, and a lone row comes out otherwise than among others
        self.least = MIN_ROWS if any(hasattr(layer, "in_features") for part in list(model)[1:] for layer in part.modules()) else 1

    def encode(self, texts: Sequence[str]) -> Iterator[list[tuple[int, np.ndarray]]]:
        """As in the base class, float32 (d,), longest texts first. An empty text gives the vector of its special tokens."""
        for batch, features in self._batches(texts, "sentence_embedding"):
            yield list(zip(batch, features["sentence_embedding"].cpu().numpy(), strict=True))

    def encode_tokens(self, texts: Sequence[str]) -> Iterator[list[tuple[int, np.ndarray]]]:
        import torch

        special = torch.tensor(self.model.tokenizer.all_special_ids, device=self.device)
        for batch, features in self._batches(texts, "token_embeddings"):
            wanted = features["attention_mask"].bool() & ~torch.isin(features["input_ids"], special)
            vectors = features["token_embeddings"]
            yield [(i, row[keep].cpu().numpy()) for i, row, keep in zip(batch, vectors, wanted, strict=True)]

    def encodings(self, texts: list[str]) -> list[Encoding]:
        found: list[Encoding] = self.model.tokenizer(texts, truncation=True, max_length=self.max_tokens).encodings
        return found

    def forward(self, rows: Sequence[np.ndarray], wide: int) -> dict[str, torch.Tensor]:
        """The model's output for m rows of token ids, each int32 (n_tokens,), padded to one width.

        Of it ``sentence_embedding`` is float32 (m, d), ``token_embeddings`` float32 (m, wide, d), ``input_ids`` and
        ``attention_mask`` are int64 (m, wide). On a GPU rows of zeros follow up to `full`: its sums and norms add up in an order
        that depends on the number of rows.
        """
        import torch

        ids = padded(rows, wide, self.model.tokenizer.pad_token_id)
        mask = padded([[1] * len(row) for row in rows], wide, 0)
        features = self.transform({"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)})
        # the transformer may compute in bfloat16; means and norms of its output are taken in float32
        features["token_embeddings"] = features["token_embeddings"].float()
        if self.device == "cuda" and not torch.is_grad_enabled():
            tensors = [name for name, value in features.items() if isinstance(value, torch.Tensor) and value.dim()]
            features |= {name: with_rows(features[name], full(wide)) for name in tensors}
        for module in list(self.model)[1:]:
            features = module(features)
        return features

    def transform(self, features: dict[str, Any]) -> dict[str, Any]:
        """The features with the transformer's output, ``token_embeddings``."""
        found: dict[str, Any] = self.model[0](features)
        return found

    def _batches(self, texts: Sequence[str], wanted: str) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """Positions of the texts of each batch, and of the model's output what is `READ`, a row a text.

        Args:
            texts: to encode.
            wanted: name of the vectors in the output that get unit length, float32 (m, d) or (m, wide, d).
        """
        import torch

        tokens = self.tokenize(texts)

        def computed(part: tuple[list[int], int]) -> tuple[list[int], dict[str, torch.Tensor]]:
            batch, wide = part
            least = max(full(wide), self.least) if self.mode.batches == "full" else self.least
            rows = filled([tokens[i] for i in batch], least)
            with torch.inference_mode():
                features = self.forward(rows, wide)
                features[wanted] = torch.nn.functional.normalize(features[wanted].float(), dim=-1)
            return batch, {name: features[name][: len(batch)] for name in READ if name in features}

        each = batch_by_batch if self.in_threads else map
        with self.mode.computing():
            yield from each(computed, batches([len(row) for row in tokens], self.mode.batches != "one"))


def with_rows(tensor: torch.Tensor, n: int) -> torch.Tensor:
    """A float32 or int64 tensor (m, ...) with rows of zeros behind it, so that there are n at least."""
    import torch

    return torch.cat([tensor, tensor.new_zeros(max(0, n - len(tensor)), *tensor.shape[1:])])
