"""Fine-tuning an embedder on the train split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import toys

from workbench.machine import resolve
from workbench.models import training
from workbench.retrieval.embedders import training as learning
from workbench.retrieval.embedders.embedder import Embedder
from workbench.retrieval.learning import RankedExample

EXACT = resolve(device="cpu", precision="float32")
FACTS = {
    "Who guards the gate?": "The old porter stands at the entrance from dusk to dawn.",
    "What does the cat eat?": "Every morning it gets a bowl of sardines.",
    "When does the train leave?": "Departures are at a quarter past each hour.",
    "Where is the key kept?": "It hangs on a nail behind the stove.",
}
TEXTS = list(FACTS.values())
EXAMPLES = [RankedExample(query, gold, (TEXTS[i - 1],)) for i, (query, gold) in enumerate(FACTS.items())]


def train(folder: Path, work: Path, stop_after: int | None = None) -> Embedder:
    """Eight steps; `stop_after` ends it between two."""
    folder.mkdir(parents=True)
    work.mkdir(parents=True, exist_ok=True)

    def on_step(step: training.Step, total: int) -> None:
        if step.step == stop_after:
            raise RuntimeError("killed")

    settings = {"epochs": 4, "batch_size": 2, "checkpoint_every": 3, "learning_rate": 1e-2}
    embedder = Embedder(model=toys.made(toys.embedder), train=settings)
    learning.train(embedder, EXAMPLES, EXACT, 0, folder, work, on_step)
    return embedder


def vectors(model: str, texts: list[str]) -> np.ndarray:
    found = {i: vector for batch in Embedder(model=model).load(EXACT).encode(texts) for i, vector in batch}
    return np.stack([found[i] for i in range(len(texts))])


def loss(model: str) -> float:
    """Cross-entropy of each question's passage among all four."""
    logits = torch.tensor(vectors(model, list(FACTS)) @ vectors(model, TEXTS).T) / 0.05
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(TEXTS))).item()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedder") / "whole"
    train(folder, folder.parent / "work")
    return folder


def test_an_embedder_learns_its_examples(trained: Path) -> None:
    assert loss(str(trained)) < 0.5 * loss(toys.made(toys.embedder))


def test_resumed_training_of_an_embedder_equals_uninterrupted_training(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "killed", tmp_path / "work", stop_after=5)
    train(tmp_path / "resumed", tmp_path / "work")
    for name in ("model.safetensors", training.LOSSES):
        assert (tmp_path / "resumed" / name).read_bytes() == (trained / name).read_bytes()


def test_the_loss_is_that_of_all_passages_of_the_batch(tmp_path: Path) -> None:
    """Two questions with one right passage: it is wrong for neither."""
    examples = [*EXAMPLES[:3], RankedExample("Who watches the door?", TEXTS[0], (TEXTS[2],))]
    loop = learning._EmbedderTraining(Embedder(model=toys.made(toys.embedder), train=True), examples, EXACT, 0)
    found, tokens = loop.backward(range(4))
    asked, passages = vectors(toys.made(toys.embedder), [one.query for one in examples]), vectors(toys.made(toys.embedder), TEXTS)
    logits = torch.tensor(asked @ passages.T) / 0.05
    assert found == pytest.approx(torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).item(), rel=1e-4)
    assert tokens > 0 and any(p.grad is not None for p in loop.loaded.model.parameters())
