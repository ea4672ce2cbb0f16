"""Fine-tuning an embedder on the train split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.machine import Machine
from workbench.models.training import LOSSES, Step, Training, write_losses
from workbench.quiet import quiet_transformers
from workbench.retrieval.embedders import local
from workbench.retrieval.embedders.embedder import Embedder
from workbench.retrieval.learning import RankedExample

if TYPE_CHECKING:
    import torch


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
        if embedder.train is None:
            raise ValueError(f"the embedder {embedder.model!r} has no settings of a training")
        machine.prepare()
        self.temperature = embedder.train.temperature
        self.machine = machine
        self.settings_of = embedder
        self.examples = examples
        # weights and gradients in float32; products in the machine's precision
        self.loaded = local.read(embedder.model, replace(machine, precision="float32"))
        # dropout stays off: a resumed training then needs no state of the random numbers
        super().__init__(embedder.train, len(examples), seed, list(self.loaded.model.parameters()))

    def backward(self, examples: Sequence[int]) -> tuple[float, int]:
        import torch

        chosen = [self.examples[i] for i in examples]
        queries = [self.settings_of.query(one.query) for one in chosen]
        passages = list(dict.fromkeys([one.gold for one in chosen] + [text for one in chosen for text in one.wrong]))
        column = {text: j for j, text in enumerate(passages)}
        precision = getattr(torch, self.machine.precision)
        with torch.autocast(self.machine.device, precision, enabled=precision != torch.float32):
            asked, first = self._vectors(queries)
            found, second = self._vectors([self.settings_of.passage(text) for text in passages])
        logits = asked @ found.T / self.temperature
        right = torch.tensor([column[one.gold] for one in chosen], device=logits.device)
        loss = torch.nn.functional.cross_entropy(logits, right)
        loss.backward()  # type: ignore[no-untyped-call]
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
