"""Texts -> vectors, with any sentence-transformers model whose first module is a transformer.

Each text is padded to the next multiple of `batching.BUCKET` tokens of its own length and batched with texts of that length.
Then a vector is the same to the bit whatever else is in the batch. `BUCKET` belongs to `Embedder.version`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import BeforeValidator, Field

from workbench import weights
from workbench.component import Component
from workbench.errors import InputError
from workbench.machine import Machine, cpu_count
from workbench.models.training import LOSSES, Step, Training, write_losses
from workbench.quiet import quiet_transformers
from workbench.retrieval.batching import batches, padded
from workbench.retrieval.learning import RankedExample, RankedTraining, given_or_default

if TYPE_CHECKING:
    import torch


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


class Embedder(Component):
    """Settings of an embedder.

    Attributes:
        model: weights source (see `workbench.weights`).
        train: how to fine-tune it on the train split; None: the model as it is.
        query_prefix: put before queries, for models that were trained so.
        passage_prefix: put before passages.
    """

    libraries: ClassVar = ("torch", "transformers", "sentence-transformers")
    references: ClassVar = ("model", "train")

    model: str
    train: Annotated[EmbedderTraining | None, BeforeValidator(given_or_default)] = None
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

        tokens = self.tokenize(texts)
        for batch, wide in batches([len(row) for row in tokens]):
            with torch.inference_mode():
                yield batch, self.forward([tokens[i] for i in batch], wide)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special ones included, cut to what the model reads."""
        return self.model.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"] if texts else []

    def forward(self, rows: list[list[int]], wide: int) -> dict[str, torch.Tensor]:
        """The model's output for rows of token ids, padded to one width."""
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


def train(
    embedder: Embedder,
    examples: Sequence[RankedExample],
    machine: Machine,
    seed: int,
    folder: Path,
    work: Path,
    on_step: Callable[[Step, int], None],
) -> None:
    """Trains an embedder and writes it into an empty folder, with ``training.csv``.

    Args:
        embedder: its settings, with `train`.
        examples: at least one.
        machine: where to compute.
        seed: of the order of examples.
        folder: receives the model, as sentence-transformers saves it.
        work: kept between calls; holds the last checkpoint, from which a training goes on.
        on_step: called after each step with it and the number of all steps.
    """
    training = _EmbedderTraining(embedder, examples, machine, seed)
    training.run(work, on_step)
    with quiet_transformers():
        training.loaded.model.save(str(folder), create_model_card=False)
    write_losses(training.steps, folder / LOSSES)


class _EmbedderTraining(Training):
    """Cross-entropy of the right passage among all passages of the batch (Henderson et al. 2017, arXiv:1705.00652, section 4).

    A passage that is right for several queries of a batch counts for none of the others as wrong.
    """

    def __init__(self, embedder: Embedder, examples: Sequence[RankedExample], machine: Machine, seed: int) -> None:
        self.machine = machine
        self.settings_of = embedder
        self.examples = examples
        # weights and gradients in float32; products in the machine's precision
        self.loaded = LoadedEmbedder(embedder.model, replace(machine, precision="float32"))
        # dropout stays off: a resumed training then needs no state of the random numbers
        super().__init__(embedder.train, len(examples), seed, list(self.loaded.model.parameters()))

    def backward(self, examples: Sequence[int]) -> tuple[float, int]:
        import torch

        chosen = [self.examples[i] for i in examples]
        queries = [self.settings_of.query_prefix + one.query for one in chosen]
        passages = list(dict.fromkeys([one.gold for one in chosen] + [text for one in chosen for text in one.wrong]))
        column = {text: j for j, text in enumerate(passages)}
        precision = getattr(torch, self.machine.precision)
        with torch.autocast(self.machine.device, precision, enabled=precision != torch.float32):
            asked, first = self._vectors(queries)
            found, second = self._vectors([self.settings_of.passage_prefix + text for text in passages])
        logits = asked @ found.T / self.settings.temperature
        right = torch.tensor([column[one.gold] for one in chosen], device=logits.device)
        loss = torch.nn.functional.cross_entropy(logits, right)
        loss.backward()
        return loss.item(), first + second

    def _vectors(self, texts: Sequence[str]) -> tuple[torch.Tensor, int]:
        """Unit vectors float32 (len(texts), d) with their gradients, and the padded tokens read."""
        import torch

        tokens = self.loaded.tokenize(texts)
        wide = max(len(row) for row in tokens)
        vectors = self.loaded.forward(tokens, wide)["sentence_embedding"].float()
        return torch.nn.functional.normalize(vectors, dim=1), len(tokens) * wide

    def state(self) -> dict[str, torch.Tensor]:
        return self.loaded.model.state_dict()

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        self.loaded.model.load_state_dict(state)
