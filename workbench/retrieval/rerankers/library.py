"""Rerankers of the package `rerankers` (Clavie 2024, arXiv:2408.17344) that judge a passage by itself.

Each pair is computed alone, because the package pads a passage to the longest beside it. Only services are sent all passages
of a question at once: a request for each would be slow and dear.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from workbench import products, weights
from workbench.component import Component, canonical
from workbench.errors import InputError, MissingExtraError
from workbench.machine import Machine
from workbench.retrieval.rerankers.base import Pair, PairScorer

if TYPE_CHECKING:
    from rerankers.models.ranker import BaseRanker

COMPUTED = ("cross-encoder", "colbert", "t5", "upr", "llm-layerwise", "mxbaiv2", "pylate")  # take a device and a precision
SERVICES = ("cohere", "jina", "isaacus", "voyage", "mixedbread.ai", "pinecone", "text-embeddings-inference")
LISTWISE = ("rankgpt", "rankllm", "lit5", "llm-relevance-filter")


class LibraryModel(Component):
    """Settings of a model of the package.

    A folder's weights are in the key. Of a model that the package fetches itself only the name is: give `hub:NAME@REVISION`
    where that is too little.

    Attributes:
        name: what `rerankers.Reranker` takes first, or a weights source: a folder, ``hub:OWNER/NAME``.
        model_type: the package's word for the kind of model, e.g. ``cross-encoder``. The package can guess it from words in
            `name`; a folder's place must decide nothing.
        arguments: whatever else `rerankers.Reranker` takes; a text ``$NAME`` stands for the environment's variable.
    """

    libraries: ClassVar = ("rerankers", "torch", "transformers")

    name: str
    model_type: str
    arguments: dict[str, Any] = Field(default_factory=dict)

    @field_validator("arguments")
    @classmethod
    def _no_secret(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "api_key" in value and not str(value["api_key"]).startswith("$"):
            raise ValueError("an api_key here would be copied into every run; put it into the environment and write $ITS_NAME")
        try:
            canonical(value)
        except (TypeError, ValueError) as error:
            said = (
                "allowed are texts, finite numbers, true, false, null, and lists and objects of them; a date in quotation marks"
            )
            raise ValueError(said) from error
        return value

    def settings(self) -> dict[str, Any]:
        """As given; in place of a weights source's name the digest of the weights."""
        return super().settings() | ({"name": weights.digest(self.name)} if self.local else {})

    @property
    def local(self) -> bool:
        """Whether `name` is a weights source."""
        return self.name.startswith(("hub:", "pypi:")) or Path(self.name).expanduser().is_dir()

    def load(self, machine: Machine) -> BaseRanker:
        """The model in memory; the last one loaded is kept.

        Raises:
            MissingExtraError: the package is not installed.
            InputError: it cannot load the model.
        """
        name = str(weights.folder(self.name)) if self.local else self.name
        return _load(name, self.model_type, canonical(self.arguments), machine)

    def asked(self, ranker: BaseRanker, query: str, passages: Sequence[str]) -> list[Any]:
        """The package's results for passages numbered from 0, best first.

        Raises:
            InputError: the model fails on them.
        """
        try:
            with redirect_stdout(io.StringIO()):
                results: list[Any] = ranker.rank(query, list(passages), doc_ids=list(range(len(passages)))).results
                return results
        except Exception as error:  # each model and service raises its own kinds
            raise InputError(f"{self.said} fails on {len(passages)} passages: {_first_line(error)}") from error

    @property
    def said(self) -> str:
        """The model in an error."""
        return f"reranker {self.name!r} ({self.model_type})"


class Library(LibraryModel, PairScorer):
    """Scores as the package gives them, rounded to six decimals."""

    kind: Literal["library"] = "library"

    @field_validator("model_type")
    @classmethod
    def _judges_one_passage(cls, value: str) -> str:
        if value in LISTWISE:
            raise ValueError(f"{value} reads the passages of a question together; use kind: library_lists")
        return value

    def score(self, pairs: Sequence[Pair], machine: Machine) -> Iterator[list[tuple[int, float]]]:
        """Scores, pair by pair; of a service, question by question."""
        ranker = self.load(machine)
        for group in _by_query(pairs) if self.model_type in SERVICES else [[i] for i in range(len(pairs))]:
            results = self.asked(ranker, pairs[group[0]][0], [pairs[i][1] for i in group])
            scores = {result.document.doc_id: result.score for result in results}
            yield [(i, self._number(scores.get(n))) for n, i in enumerate(group)]

    def _number(self, score: Any) -> float:
        try:
            return round(float(score), 6)
        except TypeError as error:
            raise InputError(
                f"{self.said} gave {score!r} for a passage instead of a score; if it ranks lists, use kind: library_lists"
            ) from error


def _by_query(pairs: Sequence[Pair]) -> list[list[int]]:
    """Positions of pairs, those of one query together."""
    groups: dict[str, list[int]] = {}
    for i, (query, _) in enumerate(pairs):
        groups.setdefault(query, []).append(i)
    return list(groups.values())


@lru_cache(maxsize=1)
def _load(name: str, model_type: str, arguments: str, machine: Machine) -> BaseRanker:
    try:
        from rerankers import Reranker
    except ModuleNotFoundError as error:
        raise MissingExtraError("rerankers", "rerankers", f"the reranker {name!r}") from error
    if model_type in COMPUTED:
        machine.prepare()
    computed = {"device": machine.device, "dtype": machine.precision} if model_type in COMPUTED else {}
    given = computed | {key: _from_environment(key, value) for key, value in json.loads(arguments).items()}
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            ranker = Reranker(name, model_type=model_type, verbose=0, **given)
    except Exception as error:  # each library below raises its own kinds
        raise InputError(f"reranker {name!r} ({model_type}) cannot be loaded: {_first_line(error)}") from error
    if ranker is None:  # the package has printed why
        raise InputError(f"reranker {name!r} ({model_type}) cannot be loaded: {' '.join(printed.getvalue().split())}")
    if model_type == "cross-encoder":
        _check_one_label(ranker, name)
    if model_type in COMPUTED and hasattr(ranker, "model"):
        # pairs are computed one by one, so what is left is that threads change no bits
        products.with_independent_rows(ranker.model)
    return ranker


def _from_environment(key: str, value: object) -> object:
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    if value[1:] not in os.environ:
        raise InputError(f"arguments.{key}: the environment has no variable {value[1:]}; set it")
    return os.environ[value[1:]]


def _check_one_label(ranker: BaseRanker, name: str) -> None:
    """Of several labels the package takes the first of a lone passage; and it reads words in a folder's path."""
    labels = ranker.model.config.num_labels
    if labels != 1:
        raise InputError(f"reranker {name!r}: a classifier with {labels} labels ranks nothing; take one with one label")
    ranker.is_monobert = False


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"
