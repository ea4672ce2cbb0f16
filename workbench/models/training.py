"""The loop every training here shares: steps with warm-up and decay, checkpoints to go on from, losses written down.

Where examples are held back, the loss on them is measured every so many steps, the weights with the lowest are kept, and a
training that no longer gets better ends.

On machines with equal fingerprints a training gives the same tensors to the bit, whether it ran through or was resumed.
"""

from __future__ import annotations

import csv
import math
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from workbench.component import Component
from workbench.data.leaks import Policy

if TYPE_CHECKING:
    import torch

CHECKPOINT = "checkpoint.pt"
LOSSES = "training.csv"
HELD_BACK = "held_back.csv"


class TrainingSettings(Component):
    """Settings of any training.

    Attributes:
        epochs: passes over the training examples.
        learning_rate: peak of AdamW's; it rises over the first steps and falls to zero as a cosine.
        warm_up: share of the steps over which it rises.
        batch_size: examples per optimiser step.
        examples: at most so many training examples; default: all.
        checkpoint_every: steps between checkpoints; not part of the key, since resuming changes nothing.
        leaks: ``refuse`` training questions that the evaluation asks too, or ``drop`` them; which are dropped is in the key.
    """

    references: ClassVar[tuple[str, ...]] = ("checkpoint_every", "leaks")
    added: ClassVar[tuple[str, ...]] = ("warm_up",)

    epochs: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    warm_up: float = Field(default=0.1, ge=0, lt=1)
    batch_size: int = Field(default=8, ge=1)
    examples: int | None = Field(default=None, ge=1)
    checkpoint_every: int = Field(default=10, ge=1)
    leaks: Policy = "refuse"


@dataclass(frozen=True)
class Step:
    """One optimiser step: its number from 1, mean loss, learning rate, padded tokens read."""

    step: int
    loss: float
    learning_rate: float
    tokens: int


@dataclass(frozen=True)
class Evaluation:
    """Mean loss on the examples held back, after a step (0: before the first)."""

    step: int
    loss: float


@dataclass(frozen=True)
class Watch:
    """How often the loss on what was held back is measured, and after how many times without a new best a training ends."""

    every: int
    patience: int

    def due(self, step: int, total: int) -> bool:
        """Whether to measure after a step."""
        return step % self.every == 0 or step == total

    def over(self, found: Sequence[Evaluation]) -> bool:
        """Whether the best lies so far back that the training ends."""
        best = min(range(len(found)), key=lambda i: found[i].loss)
        return len(found) - 1 - best >= self.patience


class Training(ABC):
    """A training between two steps. A subclass knows the model and its loss."""

    def __init__(
        self,
        settings: TrainingSettings,
        n: int,
        seed: int,
        parameters: Sequence[torch.nn.Parameter],
        watch: Watch | None = None,
    ) -> None:
        """Begins.

        Args:
            settings: how.
            n: number of examples, at least one.
            seed: of their order.
            parameters: what is trained.
            watch: when to call `held_back_loss`; None: never, and the last weights are kept.
        """
        import torch

        self.settings = settings
        self.watch = watch
        self.order = epochs_order(n, settings, seed)
        self.steps: list[Step] = []
        self.held_back: list[Evaluation] = []
        self.best: dict[str, torch.Tensor] | None = None  # the weights with the lowest loss on what was held back
        self.optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)

    @abstractmethod
    def backward(self, examples: Sequence[int]) -> tuple[float, int]:
        """Adds the gradients of one step's examples; returns their mean loss and the padded tokens read."""

    def held_back_loss(self) -> float:
        """Mean loss on the examples held back; called where there is a `watch`."""
        raise NotImplementedError

    @abstractmethod
    def state(self) -> dict[str, torch.Tensor]:
        """The trained tensors by name, float32; for LoRA these are (rank, inputs) and (outputs, rank) in each layer."""

    @abstractmethod
    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Takes tensors that `state` gave, float32; for LoRA these are (rank, inputs) and (outputs, rank) in each layer."""

    def run(self, work: Path, on_step: Callable[[Step, int], None]) -> None:
        """Trains to the end, from the last checkpoint if there is one; leaves the best weights where there is a `watch`.

        Args:
            work: kept between calls; holds the last checkpoint.
            on_step: called after each step with it and the number of all steps; a KeyboardInterrupt from it leaves a checkpoint.
        """
        self._resume(work / CHECKPOINT)
        total = len(self.order)
        self._look()
        while len(self.steps) < total and not (self.watch and self.watch.over(self.held_back)):
            done = self._step()
            looked = self._look()
            try:
                on_step(done, total)
            except KeyboardInterrupt:  # between two steps: nothing of the training is lost
                self._checkpoint(work / CHECKPOINT)
                raise
            if (looked or done.step % self.settings.checkpoint_every == 0) and done.step < total:
                self._checkpoint(work / CHECKPOINT)
        if self.best is not None:
            self.restore(self.best)

    def _look(self) -> bool:
        """Measures the loss on what was held back where that is due after this step; whether it was."""
        step = len(self.steps)
        known = bool(self.held_back) and self.held_back[-1].step == step
        if self.watch is None or known or not self.watch.due(step, len(self.order)):
            return False
        loss = self.held_back_loss()
        if not self.held_back or loss < min(one.loss for one in self.held_back):
            self.best = {name: tensor.detach().clone() for name, tensor in self.state().items()}
        self.held_back.append(Evaluation(step, loss))
        return True

    def _step(self) -> Step:
        done = len(self.steps)
        rate = learning_rate(self.settings.learning_rate, done, len(self.order), self.settings.warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, tokens = self.backward(self.order[done])
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps.append(Step(done + 1, loss, rate, tokens))
        return self.steps[-1]

    def _checkpoint(self, path: Path) -> None:
        """Everything the next step depends on, complete or absent."""
        import torch

        temporary = path.with_suffix(f".{os.getpid()}")
        watched = {"held_back": [vars(one) for one in self.held_back], "best": self.best}
        steps = [vars(step) for step in self.steps]
        torch.save({"model": self.state(), "optimizer": self.optimizer.state_dict(), "steps": steps} | watched, temporary)
        temporary.rename(path)

    def _resume(self, path: Path) -> None:
        import torch

        if not path.is_file():
            return
        saved = torch.load(path, weights_only=True)
        self.restore(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.steps = [Step(**step) for step in saved["steps"]]
        self.held_back = [Evaluation(**one) for one in saved["held_back"]]
        self.best = saved["best"]


def steps_done(work: Path) -> int:
    """How many steps of a training its last checkpoint holds; 0 without one.

    Args:
        work: the folder that `Training.run` is given, whose checkpoint is whole; see `set_aside_damage`.
    """
    import torch

    path = work / CHECKPOINT
    return len(torch.load(path, weights_only=True, mmap=True)["steps"]) if path.is_file() else 0


def set_aside_damage(work: Path) -> str | None:
    """Renames a checkpoint that cannot be read, so that a training begins anew.

    Args:
        work: the folder that `Training.run` is given.

    Returns:
        What happened, in words; None where there is no checkpoint, or a whole one.
    """
    import torch

    path = work / CHECKPOINT
    if not path.is_file():
        return None
    try:
        missing = {"model", "optimizer", "steps", "held_back", "best"} - torch.load(path, weights_only=True).keys()
        reason = f"it lacks {', '.join(sorted(missing))}" if missing else None
    except Exception as error:  # zipfile, pickle and torch each raise their own kinds for a damaged file
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if reason is None:
        return None
    kept = path.with_suffix(".damaged")
    path.replace(kept)
    return f"the checkpoint {path} is damaged ({reason}); it is kept as {kept.name}, and the training begins at its first step"


def epochs_order(n: int, settings: TrainingSettings, seed: int) -> list[list[int]]:
    """Positions of the examples of each step; every epoch is shuffled anew, its last step may be smaller."""
    generator = random.Random(seed)
    steps = []
    for _ in range(settings.epochs):
        order = list(range(n))
        generator.shuffle(order)
        steps += [order[i : i + settings.batch_size] for i in range(0, n, settings.batch_size)]
    return steps


def learning_rate(peak: float, step: int, total: int, warm_up: float = 0.1) -> float:
    """Rate of a step: linear warm-up, then a cosine to zero (Loshchilov and Hutter 2017).

    Args:
        peak: highest rate.
        step: its number, from 0.
        total: number of all steps.
        warm_up: share of the steps over which the rate rises; one step at least.
    """
    warmup = max(1, int(total * warm_up))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def write_losses(steps: Sequence[Step], path: Path) -> None:
    """``step,loss,learning_rate,tokens``, one line a step."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "loss", "learning_rate", "tokens"])
        writer.writerows([s.step, f"{s.loss:.6f}", f"{s.learning_rate:.8f}", s.tokens] for s in steps)


def write_held_back(found: Sequence[Evaluation], path: Path) -> None:
    """``step,loss`` of the examples held back."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "loss"])
        writer.writerows([one.step, f"{one.loss:.6f}"] for one in found)


def read_losses(path: Path) -> list[Step]:
    """The steps that `write_losses` wrote."""
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        return [Step(int(r["step"]), float(r["loss"]), float(r["learning_rate"]), int(r["tokens"])) for r in rows]


def read_held_back(path: Path) -> list[Evaluation]:
    """The losses that `write_held_back` wrote; none where nothing was held back."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [Evaluation(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
