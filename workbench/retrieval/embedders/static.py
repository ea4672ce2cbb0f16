"""Static embeddings: a text is the mean of its tokens' vectors, looked up in a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.retrieval.embedders.tokenizing import TokenizingEmbedder

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Encoding

BATCH = 1024  # texts looked up in one go; only memory and speed depend on it


def is_model2vec(folder: Path) -> bool:
    """Whether a folder was written by model2vec, without the file that makes it a sentence-transformers model."""
    config = folder / "config.json"
    if (folder / "modules.json").is_file() or not config.is_file():
        return False
    return bool(json.loads(config.read_text()).get("model_type") == "model2vec")


class LoadedStatic(TokenizingEmbedder):
    """A model whose first module is a table of vectors. It computes in float32.

    Texts of any length are read whole, unless the tokenizer's own file says where to cut.
    """

    def __init__(self, model: SentenceTransformer, table: StaticEmbedding, device: str) -> None:
        """Begins.

        Args:
            model: all of it.
            table: its first module.
            device: where it computes.
        """
        super().__init__()
        self.model = model.float()
        self.table = table
        self.device = device
        self.max_tokens = (table.tokenizer.truncation or {}).get("max_length")

    def encode(self, texts: Sequence[str]) -> Iterator[list[tuple[int, np.ndarray]]]:
        """As in the base class, float32 (d,). A text without tokens gives zeros."""
        import torch

        size = BATCH if self.mode.batches == "any" else 1
        for start in range(0, len(texts), size):
            with torch.inference_mode(), self.mode.computing():
                found = self.forward(self.tokenize(texts[start : start + size]))["sentence_embedding"]
                vectors = torch.nn.functional.normalize(found, dim=1).cpu().numpy()
            yield list(enumerate(vectors, start))

    def encode_tokens(self, texts: Sequence[str]) -> Iterator[list[tuple[int, np.ndarray]]]:
        import torch

        table = self.table.embedding.weight  # looked up, not computed
        for start in range(0, len(texts), BATCH):
            with torch.inference_mode():
                rows = [table[torch.from_numpy(ids).long()] for ids in self.tokenize(texts[start : start + BATCH])]
                yield [(i, torch.nn.functional.normalize(row, dim=1).cpu().numpy()) for i, row in enumerate(rows, start)]

    def encodings(self, texts: list[str]) -> list[Encoding]:
        return self.table.tokenizer.encode_batch(texts, add_special_tokens=False)

    def forward(self, rows: Sequence[np.ndarray], wide: int = 0) -> dict[str, torch.Tensor]:
        """The model's output for m rows of token ids, each int32 (n_tokens,); nothing is padded, whatever `wide` says.

        Its ``sentence_embedding`` is float32 (m, d).
        """
        import torch

        ends = np.cumsum([len(row) for row in rows])
        ids = np.concatenate(rows).astype(np.int64)
        offsets = torch.from_numpy(np.concatenate([[0], ends[:-1]]))
        features = {"input_ids": torch.from_numpy(ids).to(self.device), "offsets": offsets.to(self.device)}
        for module in self.model:
            features = module(features)
        return features
