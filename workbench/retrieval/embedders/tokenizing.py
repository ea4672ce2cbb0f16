"""Texts -> token ids, each text once, and what was cut off on the way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from workbench.retrieval.embedders.base import LoadedEmbedder, Truncation

if TYPE_CHECKING:
    from tokenizers import Encoding

AT_ONCE = 4096  # texts tokenised in one go; only memory depends on it


class TokenizingEmbedder(LoadedEmbedder):
    """Base of embedders whose tokenizer is here."""

    max_tokens: int | None  # tokens of a text that are read, special ones included; None: all

    def __init__(self) -> None:
        self._known: dict[str, np.ndarray] = {}  # token ids of the texts of `reading`

    @abstractmethod
    def encodings(self, texts: list[str]) -> list[Encoding]:
        """What the tokenizer makes of texts, cut to `max_tokens`."""

    @contextmanager
    def reading(self, texts: Sequence[str]) -> Iterator[Truncation]:
        distinct = list(dict.fromkeys(texts))
        rows, left_out = self._tokenized(distinct)
        self._known = dict(zip(distinct, rows, strict=True))
        lost = dict(zip(distinct, left_out, strict=True))
        longest = max((len(row) + cut for row, cut in zip(rows, left_out, strict=True)), default=0)
        try:
            yield Truncation(self.max_tokens, sum(lost[text] > 0 for text in texts), sum(lost[text] for text in texts), longest)
        finally:
            self._known = {}

    def tokenize(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, special ones included, cut to what the model reads: int32 (n_tokens,)."""
        known = self._known
        if all(text in known for text in texts):
            return [known[text] for text in texts]
        return self._tokenized(texts)[0]

    def _tokenized(self, texts: Sequence[str]) -> tuple[list[np.ndarray], list[int]]:
        """Token ids of each text, and how many tokens were cut off."""
        rows, left_out = [], []
        for start in range(0, len(texts), AT_ONCE):
            for encoding in self.encodings(list(texts[start : start + AT_ONCE])):
                rows.append(np.array(encoding.ids, np.int32))
                # each piece that was cut off carries special tokens of its own
                left_out.append(sum(len(piece.ids) - sum(piece.special_tokens_mask) for piece in encoding.overflowing))
        return rows, left_out
