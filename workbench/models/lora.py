"""LoRA fine-tuning of a generator (Hu et al. 2021, arXiv:2106.09685), with peft.

The loss covers the answer's tokens alone, and logits are computed for them alone: rows are padded on the left, so
that all answers of a batch end in its last columns. On one kind of machine a training gives the same tensors to the
bit, whether it ran through or was resumed from a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from workbench.data.chunking import Chunking
from workbench.errors import InputError
from workbench.machine import Machine
from workbench.models.chat import Message, base_name, encode_chat, left_padded, load_model, load_tokenizer
from workbench.models.training import LOSSES, Step, Training, TrainingSettings, write_losses
from workbench.quiet import quiet_transformers

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

MICRO_TOKENS = 600  # padded tokens of one forward pass: no slower than 1,200, and 1 GB less
EAGER_UP_TO = 512  # tokens: on a CPU eager attention is quicker backwards, but its memory grows with their square


class Lora(TrainingSettings):
    """Settings of a LoRA training, beside those of any training.

    Attributes:
        rank: rank of the update.
        alpha: scale of the update is alpha / rank; default: twice the rank.
        prompt: template the examples are written in; default: the baseline's.
        chunking: how documents are cut for the examples; default: the baseline's.
        passages: passages shown in an example; default: the baseline's.
        distractors: retriever whose best wrong passages are shown beside the right one; default: the baseline's.
    """

    libraries: ClassVar = ("torch", "transformers", "peft")
    references: ClassVar = ("prompt", "chunking", "passages", "distractors", "checkpoint_every")

    rank: int = Field(default=16, ge=1)
    alpha: int | None = Field(default=None, ge=1)
    prompt: str | None = None
    chunking: Chunking | None = None
    passages: int | None = Field(default=None, ge=1)
    distractors: str | None = None


@dataclass(frozen=True)
class Example:
    """One training example: the conversation up to the answer, and the answer."""

    messages: tuple[Message, ...]
    answer: str


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
    training = _LoraTraining(settings, model, examples, machine, seed)
    training.run(work, on_step)
    save_adapter(training.model, model, folder)
    write_losses(training.steps, folder / LOSSES)


class _LoraTraining(Training):
    def __init__(self, settings: Lora, model: str, examples: Sequence[Example], machine: Machine, seed: int) -> None:
        import torch
        from peft import LoraConfig, get_peft_model

        tokenizer = load_tokenizer(model)
        self.machine = machine
        self.rows = [_tokenized(tokenizer, example) for example in examples]
        torch.manual_seed(seed)
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha or 2 * settings.rank,
            target_modules="all-linear",
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
        )
        base = load_model(model, machine)
        if base.config.is_encoder_decoder:
            raise InputError(
                f"weights {model!r}: LoRA trains decoders here, and this model has an encoder beside it; "
                f"name a model of the families Llama, Qwen or Gemma, or leave lora out"
            )
        with quiet_transformers():
            self.model: PeftModel = get_peft_model(base, config).train()
        super().__init__(settings, len(examples), seed, [p for p in self.model.parameters() if p.requires_grad])

    def backward(self, examples: Sequence[int]) -> tuple[float, int]:
        rows = [self.rows[i] for i in examples]
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
        return loss, tokens

    def state(self) -> dict[str, torch.Tensor]:
        return {name: p for name, p in self.model.state_dict().items() if "lora_" in name}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(state, strict=False)


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
