"""LoRA fine-tuning of a generator (Hu et al. 2021, arXiv:2106.09685), with peft.

The loss covers the answer's tokens alone, and logits are computed for them alone: rows are padded on the left, so
that all answers of a batch end in its last columns. On one kind of machine a training gives the same tensors to the
bit, whether it ran through or was resumed from a checkpoint.
"""

from __future__ import annotations

import csv
import json
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from workbench.component import Component
from workbench.data.chunking import Chunking
from workbench.machine import Machine
from workbench.models.chat import Message, base_name, encode_chat, left_padded, load_model, load_tokenizer
from workbench.quiet import quiet_transformers

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

MICRO_TOKENS = 600  # padded tokens of one forward pass: no slower than 1,200, and 1 GB less
EAGER_UP_TO = 512  # tokens: on a CPU eager attention is quicker backwards, but its memory grows with their square
CHECKPOINT = "checkpoint.pt"
LOSSES = "training.csv"


class Lora(Component):
    """Settings of a training.

    Attributes:
        rank: rank of the update.
        alpha: scale of the update is alpha / rank; default: twice the rank.
        epochs: passes over the training examples.
        learning_rate: peak of AdamW's; it rises over the first tenth of the steps and falls to zero as a cosine.
        batch_size: examples per optimiser step.
        prompt: template the examples are written in; default: the baseline's.
        chunking: how documents are cut for the examples; default: the baseline's.
        passages: passages shown in an example; default: the baseline's.
        distractors: retriever whose best wrong passages are shown beside the right one; default: the baseline's.
        examples: at most so many training examples; default: all.
        checkpoint_every: steps between checkpoints; not part of the key, since resuming changes nothing.
    """

    libraries: ClassVar = ("torch", "transformers", "peft")
    references: ClassVar = ("prompt", "chunking", "passages", "distractors", "checkpoint_every")

    rank: int = Field(default=16, ge=1)
    alpha: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    batch_size: int = Field(default=8, ge=1)
    prompt: str | None = None
    chunking: Chunking | None = None
    passages: int | None = Field(default=None, ge=1)
    distractors: str | None = None
    examples: int | None = Field(default=None, ge=1)
    checkpoint_every: int = Field(default=10, ge=1)


@dataclass(frozen=True)
class Example:
    """One training example: the conversation up to the answer, and the answer."""

    messages: tuple[Message, ...]
    answer: str


@dataclass(frozen=True)
class Step:
    """One optimiser step: its number from 1, mean loss per answer token in nats, learning rate, padded tokens read."""

    step: int
    loss: float
    learning_rate: float
    tokens: int


def train(
    settings: Lora,
    model: str,
    examples: Sequence[Example],
    machine: Machine,
    seed: int,
    folder: Path,
    work: Path,
    on_step: Callable[[Step, int], None],
) -> None:
    """Trains an adapter and writes it into an empty folder.

    Args:
        settings: how.
        model: weights source of the base model.
        examples: training examples, at least one.
        machine: where to compute.
        seed: of the initial weights and of the order of examples.
        folder: receives ``adapter_model.safetensors``, ``adapter_config.json`` and ``training.csv``.
        work: kept between calls; holds the last checkpoint, from which a training goes on.
        on_step: called after each step with it and the number of all steps; a KeyboardInterrupt from it leaves a checkpoint.
    """
    training = _Training(settings, model, examples, machine, seed)
    training.resume(work / CHECKPOINT)
    while training.done < training.total:
        done = training.step()
        try:
            on_step(done, training.total)
        except KeyboardInterrupt:  # between two steps: nothing of the training is lost
            training.checkpoint(work / CHECKPOINT)
            raise
        if training.done % settings.checkpoint_every == 0 and training.done < training.total:
            training.checkpoint(work / CHECKPOINT)
    save_adapter(training.model, model, folder)
    write_losses(training.steps, folder / LOSSES)


class _Training:
    """A training between two steps."""

    def __init__(self, settings: Lora, model: str, examples: Sequence[Example], machine: Machine, seed: int) -> None:
        import torch
        from peft import LoraConfig, get_peft_model

        tokenizer = load_tokenizer(model)
        self.settings = settings
        self.machine = machine
        self.rows = [_tokenized(tokenizer, example) for example in examples]
        self.order = epochs_order(len(examples), settings, seed)
        self.steps: list[Step] = []
        torch.manual_seed(seed)
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha or 2 * settings.rank,
            target_modules="all-linear",
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
        )
        base = load_model(model, machine)
        with quiet_transformers():
            self.model: PeftModel = get_peft_model(base, config).train()
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], weight_decay=0.0)

    @property
    def done(self) -> int:
        return len(self.steps)

    @property
    def total(self) -> int:
        return len(self.order)

    def step(self) -> Step:
        """One optimiser step over `batch_size` examples."""
        rows = [self.rows[i] for i in self.order[self.done]]
        rate = learning_rate(self.settings.learning_rate, self.done, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        answer_tokens = sum(len(answer) for _, answer in rows)
        loss, tokens = 0.0, 0
        for micro in micro_batches(rows):
            width = max(len(prompt) + len(answer) for prompt, answer in micro)
            quick = self.machine.device == "cpu" and width <= EAGER_UP_TO
            self.model.base_model.model.set_attn_implementation("eager" if quick else "sdpa")
            with _mixed_precision(self.model, self.machine):
                part = answer_loss(self.model, micro, self.machine.device) / answer_tokens
            part.backward()
            loss += part.item()
            tokens += len(micro) * width
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps.append(Step(self.done + 1, loss, rate, tokens))
        return self.steps[-1]

    def checkpoint(self, path: Path) -> None:
        """Everything the next step depends on, complete or absent."""
        import torch

        state = {name: p for name, p in self.model.state_dict().items() if "lora_" in name}
        temporary = path.with_suffix(f".{os.getpid()}")
        torch.save({"model": state, "optimizer": self.optimizer.state_dict(), "steps": [vars(s) for s in self.steps]}, temporary)
        temporary.rename(path)

    def resume(self, path: Path) -> None:
        """Goes on from a checkpoint, if there is one that can be read."""
        import torch

        if not path.is_file():
            return
        try:
            saved = torch.load(path, weights_only=True)
        except Exception:  # a checkpoint damaged in any way is worth nothing: training starts again
            path.unlink()
            return
        self.model.load_state_dict(saved["model"], strict=False)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.steps = [Step(**step) for step in saved["steps"]]


@contextmanager
def _mixed_precision(model: PeftModel, machine: Machine) -> Iterator[None]:
    """Products of the adapter in the machine's precision, its weights and their gradients in float32.

    Without this peft computes them in float32, casting all activations there and back: 1.3 times the time of a step.
    """
    import torch
    from peft.helpers import disable_input_dtype_casting

    precision = getattr(torch, machine.precision)
    with disable_input_dtype_casting(model), torch.autocast(machine.device, precision, enabled=precision != torch.float32):
        yield


def epochs_order(n: int, settings: Lora, seed: int) -> list[list[int]]:
    """Positions of the examples of each step; every epoch is shuffled anew, its last step may be smaller."""
    generator = random.Random(seed)
    steps = []
    for _ in range(settings.epochs):
        order = list(range(n))
        generator.shuffle(order)
        steps += [order[i : i + settings.batch_size] for i in range(0, n, settings.batch_size)]
    return steps


def learning_rate(peak: float, step: int, total: int) -> float:
    """Rate of a step (from 0): linear warm-up over the first tenth, then a cosine to zero (Loshchilov and Hutter 2017)."""
    warmup = max(1, total // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _tokenized(tokenizer: Any, example: Example) -> tuple[list[int], list[int]]:
    answer = tokenizer(example.answer, add_special_tokens=False)["input_ids"]
    return encode_chat(tokenizer, example.messages), [*answer, tokenizer.eos_token_id]


Row = tuple[list[int], list[int]]  # tokens of the prompt, tokens of the answer with its end


def micro_batches(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows of similar length together, at most `MICRO_TOKENS` padded tokens a batch (one row may be longer)."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda r: (len(r[0]) + len(r[1]), r)):
        if batch and (len(batch) + 1) * (len(row[0]) + len(row[1])) > MICRO_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    yield batch


def answer_loss(model: Any, rows: Sequence[Row], device: str) -> torch.Tensor:
    """Sum of the cross-entropies of all answer tokens, in nats."""
    import torch

    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    kept = max(len(answer) for _, answer in rows)
    ids, mask = left_padded([prompt + answer for prompt, answer in rows], width, device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    # the logits before the last `kept` tokens predict them
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=kept + 1, use_cache=False).logits
    labels = torch.full((len(rows), kept), -100, device=device)
    for i, (_, answer) in enumerate(rows):
        labels[i, kept - len(answer) :] = ids[i, width - len(answer) :]
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].float().reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100, reduction="sum"
    )


def save_adapter(model: PeftModel, base: str, folder: Path) -> None:
    """Writes the adapter so that equal tensors give equal bytes; the base model is named by its digest, not its place."""
    model.save_pretrained(folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base_name(base)
    path.write_text(json.dumps(config, indent=1, sort_keys=True))
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card


def write_losses(steps: Sequence[Step], path: Path) -> None:
    """``step,loss,learning_rate,tokens``, one line a step."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "loss", "learning_rate", "tokens"])
        writer.writerows([s.step, f"{s.loss:.6f}", f"{s.learning_rate:.8f}", s.tokens] for s in steps)
