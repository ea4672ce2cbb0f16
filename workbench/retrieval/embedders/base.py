"""What an embedder is: texts -> vectors of unit length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from workbench.component import Component
from workbench.machine import Machine, samples
from workbench.machine.independence import Mode


class AnyEmbedder(Component, ABC):
    """Base of the settings of embedders."""

    @abstractmethod
    def load(self, machine: Machine) -> LoadedEmbedder:
        """The model, ready to encode; one per process and machine."""

    @abstractmethod
    def arithmetic(self, machine: Machine) -> str:
        """The kind of arithmetic that its vectors come out of; part of the keys of all that reads them.

        Raises:
            InputError: it cannot compute on this machine.
        """

    @abstractmethod
    def query(self, text: str) -> str:
        """A query as the model reads it."""

    @abstractmethod
    def passage(self, text: str) -> str:
        """A passage as the model reads it."""


@dataclass(frozen=True)
class Truncation:
    """What a model did not read of some texts.

    Attributes:
        reads: tokens of a text that it reads, special ones included; None: all.
        texts: how many were longer.
        tokens: how many tokens of these were left out.
        longest: tokens of the longest text.
    """

    reads: int | None
    texts: int
    tokens: int
    longest: int

    @classmethod
    def total(cls, parts: Sequence[Truncation]) -> Truncation:
        """Of texts read in several parts; of none, as of a model that reads all."""
        return cls(
            parts[0].reads if parts else None,
            sum(part.texts for part in parts),
            sum(part.tokens for part in parts),
            max((part.longest for part in parts), default=0),
        )


class LoadedEmbedder(ABC):
    """An embedder that is ready to encode. Make it with `AnyEmbedder.load`.

    Attributes:
        mode: how it computes here so that each text depends on itself alone.
        copies: of sample texts that fill its batches.
    """

    mode: Mode = Mode()
    copies = 8

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Iterator[list[tuple[int, np.ndarray]]]:
        """Vectors of unit length, float32 (d,).

        Yields:
            After each batch its (position in `texts`, vector) pairs, batches in any order.
        """

    @abstractmethod
    def encode_tokens(self, texts: Sequence[str]) -> Iterator[list[tuple[int, np.ndarray]]]:
        """Vectors of every token but the special ones, unit length, float32 (n_tokens, d).

        Yields:
            After each batch its (position in `texts`, vectors) pairs; n_tokens is 0 for an empty text.

        Raises:
            InputError: this kind of embedder gives none.
        """

    def bits(self, numbers: Sequence[int]) -> list[bytes]:
        """What it makes of sample texts, as bits; see `machine.independence`."""
        texts = [samples.text(number) for number in numbers]
        found = [b""] * len(texts)
        for encode in (self.encode, self.encode_tokens):
            for batch in encode(texts):
                for i, vectors in batch:
                    found[i] += vectors.tobytes()
        return found

    @contextmanager
    def reading(self, texts: Sequence[str]) -> Iterator[Truncation | None]:
        """Says what of these texts is not read, None where that cannot be known; inside, none is tokenised a second time."""
        yield None
