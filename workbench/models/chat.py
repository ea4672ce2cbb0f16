"""Language models and their tokenizers in memory: loading, the chat template, padding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import weights
from workbench.errors import InputError
from workbench.machine import Machine, cpu_count
from workbench.quiet import quiet_transformers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}


def left_padded(rows: Sequence[Sequence[int]], width: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, both int64 (len(rows), width), padding (id 0, mask 0) on the left."""
    import torch

    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


def encode_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation in the tokenizer's chat template, with the opening of the answer."""
    text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@lru_cache(maxsize=4)
def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a weights source.

    Raises:
        InputError: no tokenizer there, or one without a chat template.
    """
    from transformers import AutoTokenizer

    path = weights.folder(model)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise InputError(f"weights {model!r}: no tokenizer can be read in {path}: {_first_line(error)}") from error
    if not tokenizer.chat_template:
        raise InputError(f"weights {model!r}: the tokenizer in {path} has no chat template; use an instruction-tuned model")
    return tokenizer


def load_model(model: str, machine: Machine, adapter: Path | None = None, merge: bool = True) -> PreTrainedModel:
    """Weights in the machine's precision, on its device.

    An adapter is merged in float32 before rounding, W + (alpha / rank) B A (Hu et al. 2021, arXiv:2106.09685, section
    4.1): one rounding instead of two, and no extra matrix products while generating. Unmerged it stays beside the weights.

    Raises:
        InputError: the weights cannot be read, or the adapter belongs to another model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(cpu_count())
    path = weights.folder(model)
    precision = getattr(torch, machine.precision)
    try:
        with quiet_transformers():
            loaded = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32 if adapter else precision, attn_implementation="eager"
            )
    except Exception as error:  # safetensors, json, transformers each raise their own kinds for a damaged file
        raise InputError(f"weights {model!r}: {path} cannot be read as a causal language model: {_first_line(error)}") from error
    if adapter:
        from peft import PeftModel

        _check_base(model, adapter)
        with quiet_transformers():
            adapted = PeftModel.from_pretrained(loaded, adapter)
            loaded = (adapted.merge_and_unload() if merge else adapted.get_base_model()).to(precision)
    return loaded.to(machine.device).eval()


def base_name(model: str) -> str:
    """How an adapter names the weights it belongs to: by their content."""
    return f"sha256:{weights.digest(model)}"


def _check_base(model: str, adapter: Path) -> None:
    belongs = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    if belongs != base_name(model):
        raise InputError(
            f"adapter {adapter} was trained on {belongs}, not on {model} ({base_name(model)}); name its own base model"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
