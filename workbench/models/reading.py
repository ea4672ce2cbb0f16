"""How much a generator can read: its context, and whether a conversation fits into it with room for the answer.

Weights are not loaded for this: the context stands in their ``config.json``, and only conversations near it are turned
into tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache

from workbench import weights
from workbench.models.chat import Message, encode_chat, load_tokenizer

BUCKET = 32  # tokens; prompts are padded to its next multiple
LIMITS = ("max_position_embeddings", "n_positions", "max_sequence_length")  # a context's names in config.json
TEMPLATE_BYTES = 2000  # what a chat template may write around a conversation


@lru_cache(maxsize=16)
def context(model: str) -> float:
    """Tokens a model was made to read; infinity where its ``config.json`` does not say."""
    config = json.loads((weights.folder(model) / "config.json").read_text())
    config = config.get("text_config") or config
    return next((config[name] for name in LIMITS if isinstance(config.get(name), int)), math.inf)


@lru_cache(maxsize=16)
def apart(model: str) -> bool:
    """Whether prompt and answer are read apart, by an encoder and a decoder."""
    return bool(json.loads((weights.folder(model) / "config.json").read_text()).get("is_encoder_decoder"))


def bucket(length: int) -> int:
    """The padded length of a prompt: the next multiple of `BUCKET`."""
    return -(-length // BUCKET) * BUCKET


def room(model: str, max_new_tokens: int) -> float:
    """Longest padded prompt, in tokens."""
    return context(model) - (0 if apart(model) else max_new_tokens)


def fits(model: str, messages: Sequence[Message], max_new_tokens: int) -> bool:
    """Whether a conversation and an answer to it fit into the context."""
    limit = room(model, max_new_tokens)
    # a token is a byte at least, so a short text needs no tokenizer
    if sum(len(message["content"].encode()) for message in messages) + TEMPLATE_BYTES + BUCKET <= limit:
        return True
    return bucket(len(encode_chat(load_tokenizer(model), messages))) <= limit
