"""Kinds of attention in which the arithmetic of a row does not depend on the rest of its batch.

`GROUPED` is for the one-token steps of generation. transformers' eager attention copies every key and value head once for each
query head that reads it; with 9 query heads on 3 such copies were a third of a step. Here the query heads of one key head
are rows of one matrix product instead.

`MASKED` is for whole texts on a GPU. transformers passes no mask where no text of a batch is padded, and torch then takes another
kernel, so that the bits of a text would depend on the padding of its neighbours. torch's kernel for no mask may also
divide the keys by the size of the batch. Here a mask is always passed, and the kernel that reads it computes each text for
itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

if TYPE_CHECKING:
    import torch
    import transformers

M = TypeVar("M", bound="transformers.PreTrainedModel")

EAGER, GROUPED, MASKED = "eager", "workbench_grouped", "workbench_masked"
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
    model.set_attn_implementation(EAGER if capped else whole_texts(model))
    try:
        yield
    finally:
        model.set_attn_implementation(stepwise(model.config))


def whole_texts(model: Any) -> str:
    """Name of the attention with which a model reads whole texts, on the device where its weights are."""
    if not model._supports_sdpa:
        return EAGER
    if model.device.type != "cuda":
        return "sdpa"
    _register()
    return MASKED


def independent(model: M) -> M:
    """The model itself, an encoder that reads whole texts alone; on a GPU its attention is `MASKED`."""
    if model.device.type == "cuda":
        model.set_attn_implementation(whole_texts(model))
    return model


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
    AttentionInterface.register(MASKED, masked_attention)
    AttentionMaskInterface.register(MASKED, always_a_mask)


def always_a_mask(**settings: Any) -> torch.Tensor:
    """Mask as transformers makes it for torch, also where it excludes nothing: bool (B, 1, T, S), true where a token may look."""
    from transformers.masking_utils import sdpa_mask

    return cast("torch.Tensor", sdpa_mask(**settings | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}))


def masked_attention(*tensors: Any, **settings: Any) -> tuple[torch.Tensor, None]:
    """Attention by torch in a kernel that computes each row of a batch for itself.

    Args:
        tensors: the layer; queries, keys and values, float32 or bfloat16 (B, H, T, D), (B, K, S, D) and (B, K, S, D); and the
            mask, bool (B, 1, T, S).
        settings: what else transformers passes to its own ``sdpa_attention_forward``.

    Returns:
        float32 or bfloat16 (B, T, H, D), and no weights.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(*tensors, **settings)
    return found


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
