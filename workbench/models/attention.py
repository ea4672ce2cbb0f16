"""Attention for the one-token steps of generation.

transformers' eager attention copies every key and value head once for each query head that reads it; with 9 query heads
on 3 such copies were a third of a step. Here the query heads of one key head are rows of one matrix product instead.
As with eager attention, the arithmetic of a row does not depend on the rest of its batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

EAGER, GROUPED = "eager", "workbench_grouped"
PLAIN = ("llama", "mistral", "qwen2", "qwen3", "smollm3")  # model types with no more than softmax(q k^T * scale + mask) v


class Part(NamedTuple):
    """What some rows of a batch look at: keys and values (rows, K, S, D), and what is added to the weights (rows, 1, 1, S)."""

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor


def plain(config: Any) -> bool:
    """Whether a model is known to compute softmax(q k^T * scale + mask) v over all that came before, in every layer."""
    kinds = getattr(config, "layer_types", None)
    sliding = getattr(config, "sliding_window", None) is not None and not kinds
    return config.model_type in PLAIN and set(kinds or ["full_attention"]) == {"full_attention"} and not sliding


@contextmanager
def reading(model: Any) -> Iterator[None]:
    """Sets a model's attention to the one for whole texts inside the block, to that for one-token steps behind it."""
    # a soft cap on attention weights (Gemma 2) exists in eager attention alone
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None
    model.set_attn_implementation("sdpa" if model._supports_sdpa and not capped else EAGER)
    try:
        yield
    finally:
        model.set_attn_implementation(stepwise(model.config))


def stepwise(config: Any) -> str:
    """Name of the attention for the one-token steps, registered with transformers."""
    if config.model_type not in PLAIN:
        return EAGER
    _register()
    return GROUPED


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(GROUPED, grouped_attention)
    AttentionMaskInterface.register(GROUPED, eager_mask)


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor | list[Part],
    value: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """softmax(q k^T * scaling + mask) v, all in the model's precision, the softmax in float32.

    Args:
        module: the layer of the model that asks; not read.
        query: float32 or bfloat16 (B, H, T, D), H a multiple of K.
        key: float32 or bfloat16 (B, K, S, D); or `Part`s that together have B rows, each of which is computed for itself.
        value: float32 or bfloat16 (B, K, S, D); None with `Part`s, which hold their own.
        attention_mask: float32 or bfloat16, added to the weights: (B, 1, T, S), or with 1 for T; not read with `Part`s.
        scaling: of the products.

    Returns:
        float32 or bfloat16 (B, T, H, D), as transformers wants it, and no weights.
    """
    import torch

    if isinstance(key, list):
        queries = torch.split(query, [len(part.keys) for part in key])
        parts = [grouped_attention(module, rows, *part, scaling)[0] for rows, part in zip(queries, key, strict=True)]
        return torch.cat(parts), None
    if value is None:
        raise TypeError("grouped_attention was given keys without values")
    batch, heads, length, size = query.shape
    shared = key.shape[1]
    together = (batch, shared, heads // shared * length)
    weights = (query.reshape(*together, size) @ key.transpose(2, 3)).view(batch, heads, length, -1) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = torch.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    mixed = weights.view(*together, -1) @ value
    return mixed.view(batch, heads, length, size).transpose(1, 2).contiguous(), None
