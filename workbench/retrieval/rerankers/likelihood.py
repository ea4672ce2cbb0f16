"""Query likelihood: how probable a generator finds the question after reading the passage.

Sachan et al., EMNLP 2022, arXiv:2204.07496 (there called UPR).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import ClassVar, Literal

from workbench.machine import Machine
from workbench.models.generator import Generator, LoadedGenerator
from workbench.retrieval.rerankers.base import Pair, PairScorer

REQUEST = "Passage: {passage}\n\nPlease write a question based on this passage."


class Likelihood(PairScorer):
    """Mean log-probability of the question's tokens, in nats.

    Attributes:
        generator: name of the generator in the configuration; its adapter, if it has one, is left out, and so is its precision:
            likelihoods are computed in the machine's.
    """

    version: ClassVar = 2  # padded on the right, and always 32 positions through the head at once: other last bits
    libraries: ClassVar = ("torch", "transformers")
    references: ClassVar = ("generator",)

    kind: Literal["likelihood"] = "likelihood"
    generator: str

    def score(self, pairs: Sequence[Pair], machine: Machine, generator: Generator) -> Iterator[list[tuple[int, float]]]:
        """Scores, at most 0; shortest pairs first."""
        loaded = _load(generator, machine)
        asked = [([{"role": "user", "content": REQUEST.format(passage=passage)}], query) for query, passage in pairs]
        for batch in loaded.log_likelihood(asked):
            yield [(i, round(value, 6)) for i, value in batch]


@lru_cache(maxsize=1)
def _load(generator: Generator, machine: Machine) -> LoadedGenerator:
    return generator.in_machine_precision().load(machine)
