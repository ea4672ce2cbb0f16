"""Fine-tuning against transformers' `Trainer` on the same examples, with the same settings."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Goal, Measurement, measure
from benchmarks.models import GENERATOR, texts
from workbench.data.passages import Shown
from workbench.machine import Machine, resolve
from workbench.models import lora, prompts
from workbench.models.chat import load_model, load_tokenizer
from workbench.models.lora import Example, Lora, Row
from workbench.models.training import epochs_order, learning_rate
from workbench.quiet import quiet_transformers

EXAMPLES = 32
SETTINGS = Lora(rank=16, batch_size=8, examples=EXAMPLES)
ALIKE = 0.05  # of the loss: the same sums in another order, in bfloat16


def examples() -> list[Example]:
    """Questions on one to three passages of the Python reference, of 20 to 80 words each: 90 to 500 tokens."""
    rng, passages, template = random.Random(0), texts(3 * EXAMPLES), prompts.load("terse")
    found = []
    for i in range(EXAMPLES):
        shown = [Shown("", " ".join(text.split()[: rng.randrange(20, 80)])) for text in passages[3 * i : 3 * i + 1 + i % 3]]
        answer = " ".join(rng.choice(shown).text.split()[: rng.randrange(1, 8)])
        found.append(Example(tuple(template.fill("Which words begin a passage?", shown)), answer))
    return found


def lora_training() -> Measurement:
    """One epoch over examples of mixed length; both sides read the same real tokens, so the ratio is that of their rates."""
    machine, given = resolve(device="cpu"), examples()
    name = f"Trainer with padding / LoRA training ({EXAMPLES} examples of 90 to 500 tokens, {machine.precision})"
    return measure(
        name,
        Goal(">=", 1.6),
        lambda: with_trainer(given, machine),
        lambda: ours(given, machine),
        lambda a, b: all(abs(x - y) <= ALIKE * abs(x) for x, y in zip(a, b, strict=True)),
        rounds=5,
    )


def ours(given: Sequence[Example], machine: Machine) -> list[float]:
    """Loss of each step."""
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        work, out = Path(folder, "work"), Path(folder, "out")
        work.mkdir()
        out.mkdir()
        lora.train(SETTINGS, GENERATOR, given, machine, 0, out, work, lambda step, _: losses.append(step.loss))
    return losses


@dataclass(frozen=True)
class Padded:
    """Rows side by side, padded on the right; labels are -100 on prompt and padding."""

    pad: int

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        """The batch as a model takes it."""
        import torch

        width = max(len(prompt) + len(answer) for prompt, answer in rows)
        ids = torch.full((len(rows), width), self.pad)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for i, (prompt, answer) in enumerate(rows):
            ids[i, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            mask[i, : len(prompt) + len(answer)] = 1
            labels[i, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def with_trainer(given: Sequence[Example], machine: Machine) -> list[float]:
    """The same with transformers' `Trainer`: the same order, rates, initial weights and precision. Loss of each step."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainingArguments

    tokenizer = load_tokenizer(GENERATOR)
    rows = [lora._tokenized(tokenizer, example) for example in given]
    order = epochs_order(len(rows), SETTINGS, 0)
    torch.manual_seed(0)
    base = load_model(GENERATOR, machine)
    config = LoraConfig(r=SETTINGS.rank, lora_alpha=2 * SETTINGS.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet_transformers(), tempfile.TemporaryDirectory() as folder:
        model = get_peft_model(base, config)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1.0, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: learning_rate(SETTINGS.learning_rate, s, len(order)))
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=SETTINGS.batch_size,
                num_train_epochs=1,
                use_cpu=True,
                bf16=machine.precision == "bfloat16",
                max_grad_norm=0.0,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
                train_sampling_strategy="sequential",
            ),
            data_collator=Padded(tokenizer.pad_token_id or 0),
            train_dataset=[rows[i] for step in order for i in step],
            optimizers=(optimizer, schedule),
        )
        trainer.remove_callback(_printer())
        trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def _printer() -> type:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback
