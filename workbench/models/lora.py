"""Fine-tuning of a generator: LoRA and DoRA with peft, or all its weights.

LoRA is of Hu et al. 2021 (arXiv:2106.09685), DoRA of Liu et al. 2024 (arXiv:2402.09353).

The loss covers the answer's tokens alone, and logits are computed for them alone: rows are padded on the left, so
that all answers of a batch end in its last columns. The examples of a step go through the model in micro-batches of like
length, and their gradients are added up, so that a step is the same whatever fits into memory. On machines with equal
fingerprints a training gives the same tensors to the bit, whether it ran through or was resumed from a checkpoint.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field, model_validator

from workbench.data.chunking import Chunking
from workbench.errors import InputError, unknown
from workbench.machine import Machine
from workbench.models import whole
from workbench.models.adapters import CONFIG, base_name
from workbench.models.chat import Message, encode_chat, left_padded, load_model, load_tokenizer
from workbench.models.training import (
    HELD_BACK,
    LOSSES,
    Step,
    Training,
    TrainingSettings,
    Watch,
    write_held_back,
    write_losses,
)
from workbench.quiet import quiet_transformers

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"
MICRO_TOKENS = 600  # padded tokens of one forward pass: no slower than 1,200, and 1 GB less
EAGER_UP_TO = 512  # tokens: on a CPU eager attention is quicker backwards, but its memory grows with their square


class Lora(TrainingSettings):
    """Settings of a training of a generator, beside those of any training.

    Attributes:
        method: ``lora``, ``dora`` (the length of each column of the weights is trained apart from its direction), or ``full``:
            all weights, without any adapter.
        rank: rank of the update.
        alpha: scale of the update is alpha / rank; default: twice the rank.
        target_modules: layers that get an update: ``all-linear``, or names with spaces between, e.g. ``q_proj v_proj``
            (or the ends of their paths: ``mlp.c_proj``).
        prompt: template the examples are written in; default: the baseline's.
        chunking: how documents are cut for the examples; default: the baseline's.
        passages: passages shown in an example; default: the baseline's.
        distractors: retriever whose best wrong passages are shown beside the right one; default: the baseline's.
        without_gold: share of the examples with an answer that are shown without the passage that holds it, and ask for the
            abstention: so a model learns not to answer from elsewhere.
        held_back: share of the examples, chosen by the seed, that the loss is measured on instead of learned from.
        evaluate_every: steps between two such measurements; the weights with the lowest loss are kept.
        patience: measurements without a new lowest loss after which the training ends.
    """

    libraries: ClassVar = ("torch", "transformers", "peft")
    references: ClassVar = (*TrainingSettings.references, "prompt", "chunking", "passages", "distractors")
    added: ClassVar = (
        *TrainingSettings.added,
        "method",
        "target_modules",
        "without_gold",
        "held_back",
        "evaluate_every",
        "patience",
    )

    method: Literal["lora", "dora", "full"] = "lora"
    rank: int = Field(default=16, ge=1)
    alpha: int | None = Field(default=None, ge=1)
    target_modules: str = ALL_LINEAR
    prompt: str | None = None
    chunking: Chunking | None = None
    passages: int | None = Field(default=None, ge=1)
    distractors: str | None = None
    without_gold: float = Field(default=0.0, ge=0, lt=1)
    held_back: float = Field(default=0.0, ge=0, lt=1)
    evaluate_every: int = Field(default=20, ge=1)
    patience: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Lora:
        for name in ("evaluate_every", "patience"):
            if not self.held_back and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} means nothing while held_back is 0; give held_back, e.g. 0.1")
        for name in ("rank", "alpha", "target_modules"):
            if self.method == whole.METHOD and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} means nothing with method: full, which trains all weights; leave it out")
        return self

    @property
    def watch(self) -> Watch | None:
        """When to look at what was held back."""
        return Watch(self.evaluate_every, self.patience) if self.held_back else None


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
) -> int:
    """Trains an adapter and writes it into an empty folder.

    Args:
        settings: how.
        model: weights source of the base model.
        examples: training examples, at least one.
        machine: where to compute.
        seed: of the initial weights and of the order of examples.
        folder: receives ``adapter_model.safetensors``, ``adapter_config.json``, ``training.csv``, and ``held_back.csv`` where
            examples are held back.
        work: kept between calls; holds the last checkpoint, from which a training goes on.
        on_step: called after each step with it and the number of all steps; a KeyboardInterrupt from it leaves a checkpoint.

    Returns:
        Tokens that the steps of this call read, without padding.

    Raises:
        InputError: the model has no layer of a name in `target_modules`, or nothing is left to learn from.
    """
    training = _GeneratorTraining(settings, model, examples, machine, seed)
    training.run(work, on_step)
    training.save(folder)
    write_losses(training.steps, folder / LOSSES)
    if training.watch:
        write_held_back(training.held_back, folder / HELD_BACK)
    return training.tokens


def held_back(settings: Lora, n: int, seed: int) -> set[int]:
    """Positions of the examples that are not learned from, of n; at least one where there is a share.

    Raises:
        InputError: none is left to learn from.
    """
    if not settings.held_back:
        return set()
    count = max(1, round(n * settings.held_back))
    if count >= n:
        raise InputError(
            f"lora.held_back: received {settings.held_back}, which leaves none of {n} examples to learn from; lower it"
        )
    return set(random.Random(f"held back {seed}").sample(range(n), count))


class _GeneratorTraining(Training):
    def __init__(self, settings: Lora, model: str, examples: Sequence[Example], machine: Machine, seed: int) -> None:
        import torch

        tokenizer = load_tokenizer(model)
        self.machine = machine
        self.tokens = 0
        apart = held_back(settings, len(examples), seed)
        rows = [_tokenized(tokenizer, example) for example in examples]
        self.rows = [row for i, row in enumerate(rows) if i not in apart]
        self.held_rows = [row for i, row in enumerate(rows) if i in apart]
        torch.manual_seed(seed)
        self.source, self.full = model, settings.method == whole.METHOD
        self.base = base = load_model(model, replace(machine, precision="float32") if self.full else machine)
        if base.config.is_encoder_decoder:
            raise InputError(
                f"weights {model!r}: decoders are trained here, and this model has an encoder beside it; "
                f"name a model of the families Llama, Qwen or Gemma, or leave lora out"
            )
        self.model: PeftModel | PreTrainedModel = base.train() if self.full else _adapted(settings, base)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        super().__init__(settings, len(self.rows), seed, trained, settings.watch)

    def backward(self, examples: Sequence[int]) -> tuple[float, int]:
        rows = [self.rows[i] for i in examples]
        answer_tokens = sum(len(answer) for _, answer in rows)
        loss, tokens = 0.0, 0
        for micro in micro_batches(rows):
            part = self._loss(micro) / answer_tokens
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.item()
            tokens += len(micro) * _width(micro)
        self.tokens += sum(len(prompt) + len(answer) for prompt, answer in rows)
        return loss, tokens

    def held_back_loss(self) -> float:
        import torch

        with torch.no_grad():
            loss = sum(self._loss(micro).item() for micro in micro_batches(self.held_rows))
        return loss / sum(len(answer) for _, answer in self.held_rows)

    def _loss(self, rows: Sequence[Row]) -> torch.Tensor:
        """`answer_loss` of one micro-batch, with the attention that is quicker for its length."""
        quick = self.machine.device == "cpu" and _width(rows) <= EAGER_UP_TO
        self.base.set_attn_implementation("eager" if quick else "sdpa")
        with _mixed_precision(self.model, self.machine):
            return answer_loss(self.model, rows, self.machine.device)

    def state(self) -> dict[str, torch.Tensor]:
        if self.full:
            return whole.parameters(self.base)
        return {name: p for name, p in self.model.state_dict().items() if "lora_" in name}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        if self.full:
            whole.restore(self.base, state)
        else:
            self.model.load_state_dict(state, strict=False)

    def save(self, folder: Path) -> None:
        """Writes what was trained into a folder."""
        if self.full:
            whole.save(self.base, self.source, folder)
        else:
            save_adapter(cast("PeftModel", self.model), self.source, folder)


def _adapted(settings: Lora, base: PreTrainedModel) -> PeftModel:
    """The model with a new adapter, ready to be trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha or 2 * settings.rank,
        target_modules=_target_modules(settings, base),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        use_dora=settings.method == "dora",
    )
    with quiet_transformers():
        return get_peft_model(base, config).train()


@contextmanager
def _mixed_precision(model: PeftModel | PreTrainedModel, machine: Machine) -> Iterator[None]:
    """Products of the adapter in the machine's precision, its weights and their gradients in float32.

    Without this peft computes them in float32, casting all activations there and back: 1.3 times the time of a step.
    """
    import torch
    from peft.helpers import disable_input_dtype_casting

    precision = getattr(torch, machine.precision)
    with disable_input_dtype_casting(model), torch.autocast(machine.device, precision, enabled=precision != torch.float32):
        yield


def _target_modules(settings: Lora, base: PreTrainedModel) -> str | list[str]:
    """What peft is told to adapt.

    Raises:
        InputError: a name that no linear layer has.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    if settings.target_modules == ALL_LINEAR:
        return ALL_LINEAR
    # GPT-2's linear layers are of a class of their own
    paths = [path for path, module in base.named_modules() if isinstance(module, (torch.nn.Linear, Conv1D))]
    wanted = settings.target_modules.split()
    for name in wanted:
        if not any(f".{path}".endswith(f".{name}") for path in paths):
            raise unknown("layer in lora.target_modules", name, [ALL_LINEAR, *{path.rpartition(".")[2] for path in paths}])
    return wanted


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


def _width(rows: Sequence[Row]) -> int:
    return max(len(prompt) + len(answer) for prompt, answer in rows)


def answer_loss(model: Any, rows: Sequence[Row], device: str) -> torch.Tensor:
    """Sum of the cross-entropies of all answer tokens, in nats: a float32 scalar."""
    import torch

    width = _width(rows)
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
    model.save_pretrained(str(folder))
    path = folder / CONFIG
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base_name(base)
    path.write_text(json.dumps(config, indent=1, sort_keys=True))
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
