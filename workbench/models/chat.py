"""Language models and their tokenizers in memory: loading, how a conversation becomes tokens, padding.

A conversation is written in the tokenizer's chat template. A tokenizer without one (a base model, an encoder with a
decoder such as T5) gets `plain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from workbench import products, weights
from workbench.errors import InputError
from workbench.machine import Machine
from workbench.models import whole
from workbench.models.adapters import check_base
from workbench.quiet import quiet_transformers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}
# "today" in chat templates that ask for it, else answers would change from day to day; Llama 3's falls back to the same date
DATE = "26 Jul 2024"
TODAY = f"{{% macro strftime_now(format) %}}{DATE}{{% endmacro %}}"


def left_padded(rows: Sequence[Sequence[int]], width: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, both int64 (len(rows), width), padding (id 0, mask 0) on the left."""
    import torch

    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


def right_padded(rows: Sequence[Sequence[int]], width: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, both int64 (len(rows), width), padding (id 0, mask 0) on the right."""
    import torch

    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids.to(device), mask.to(device)


def encode_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation, with the opening of the answer.

    Raises:
        InputError: the tokenizer's chat template refuses the conversation.
    """
    if not tokenizer.chat_template:
        read = tokenizer(plain(messages))
    else:
        read = tokenizer(_written(tokenizer, list(messages)), add_special_tokens=False)
    ids: list[int] = read["input_ids"]
    return ids


def plain(messages: Sequence[Message]) -> str:
    """A conversation as one text: its turns with an empty line between, answers behind ``Answer:``."""
    turns = [f"Answer: {m['content']}" if m["role"] == "assistant" else m["content"] for m in messages]
    return "\n\n".join([*turns, "Answer:"])


def _written(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> str:
    """A conversation in the chat template; a system turn the template refuses (Gemma 2) goes before the user's first."""
    from jinja2 import TemplateError

    template = tokenizer.chat_template
    dated = isinstance(template, str) and "strftime_now" in template

    def write(turns: list[Message]) -> str:
        written = tokenizer.apply_chat_template(
            turns,
            add_generation_prompt=True,
            tokenize=False,
            chat_template=TODAY + template if dated else None,
            # answers of a few words, not thoughts cut off before them
            enable_thinking=False,
        )
        return cast(str, written)  # one conversation that is not tokenised is one text

    try:
        try:
            return write(messages)
        except TemplateError:
            if messages[0]["role"] != "system" or len(messages) < 2:
                raise
            system, first, *rest = messages
            return write([first | {"content": f"{system['content']}\n\n{first['content']}"}, *rest])
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise InputError(f"the chat template of the tokenizer refuses a conversation of {roles}: {error}") from error


@lru_cache(maxsize=4)
def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a weights source.

    Raises:
        InputError: no tokenizer there.
    """
    from transformers import AutoTokenizer

    path = weights.folder(model)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # tokenizers raise whatever a damaged file leads to
        raise InputError(f"weights {model!r}: no tokenizer can be read in {path}: {_first_line(error)}") from error
    return tokenizer


def load_model(model: str, machine: Machine, adapter: Path | None = None, merge: bool = True) -> PreTrainedModel:
    """Weights in the machine's precision, on its device.

    An adapter is merged in float32 before rounding, W + (alpha / rank) B A (Hu et al. 2021, arXiv:2106.09685, section
    4.1): one rounding instead of two, and no extra matrix products while generating.

    Args:
        model: weights source (see `workbench.weights`).
        machine: where to compute, and in what precision.
        adapter: folder of an adapter, or of trained weights; None: the weights as they are.
        merge: whether the adapter is added to the weights, or stays beside them.

    Raises:
        InputError: the weights cannot be read, or the adapter belongs to another model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    machine.prepare()
    if adapter:
        check_base(model, adapter)
    path = weights.folder(model)
    precision = getattr(torch, machine.precision)
    try:
        with quiet_transformers():
            both = AutoConfig.from_pretrained(path).is_encoder_decoder
            kind: Any = AutoModelForSeq2SeqLM if both else AutoModelForCausalLM
            loaded, read = kind.from_pretrained(
                path, dtype=torch.float32 if adapter else precision, attn_implementation="eager", output_loading_info=True
            )
    except Exception as error:  # safetensors, json, transformers each raise their own kinds for a damaged file
        raise InputError(f"weights {model!r}: {path} cannot be read as a language model: {_first_line(error)}") from error
    if missing := sorted(read["missing_keys"]):
        raise InputError(
            f"weights {model!r}: {path} lacks {len(missing)} of the weights of a {type(loaded).__name__}, such as {missing[0]}, "
            f"which would be random numbers; name weights of a model that writes text, not of an encoder"
        )
    if loaded._is_stateful:
        raise InputError(
            f"weights {model!r}: {type(loaded).__name__} keeps a state instead of keys and values, which prompts padded into one "
            f"batch would disturb; use a transformer, e.g. of the families Llama, Qwen, Gemma or T5"
        )
    if adapter and whole.is_whole(adapter):
        loaded = whole.load(loaded, adapter).to(precision)
    elif adapter:
        from peft import PeftModel

        with quiet_transformers():
            try:
                adapted = PeftModel.from_pretrained(loaded, str(adapter))
            except Exception as error:  # safetensors, json, peft likewise
                raise InputError(f"adapter {adapter} cannot be read: {_first_line(error)}; train or export it again") from error
            loaded = (adapted.merge_and_unload() if merge else adapted.get_base_model()).to(precision)
    ready = cast("PreTrainedModel", loaded.to(machine.device).eval())  # peft says `Module` of the model that it was given
    return products.with_independent_rows(ready)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
