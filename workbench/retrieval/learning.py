"""What trainings on rankings share: their settings, and the examples they learn from."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from pydantic import Field

from workbench.models.training import TrainingSettings


class RankedExample(NamedTuple):
    """A query, a passage that answers it, and some that were ranked high and do not."""

    query: str
    gold: str
    wrong: tuple[str, ...]


class RankedTraining(TrainingSettings):
    """Settings of a training that tells the right passage from wrong ones, beside those of any training.

    Attributes:
        negatives: wrong passages beside the right one.
        negatives_from: retriever whose best wrong passages these are; default: the baseline's.
        skip: wrong passages left out at the top, where unjudged right ones are likeliest.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    references: ClassVar[tuple[str, ...]] = (*TrainingSettings.references, "negatives_from")

    negatives: int = Field(default=7, ge=1)
    negatives_from: str | None = None
    skip: int = Field(default=0, ge=0)


def given_or_default(value: object) -> object:
    """What ``train: true`` and ``train: false`` stand for: the defaults, and no training."""
    return {} if value is True else None if value is False else value
