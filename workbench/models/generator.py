"""A language model that answers prompts greedily, in batches, each answer depending on its prompt alone.

How: a prompt is padded on the left to the next multiple of `BUCKET` of its *own* length and batched with prompts of
the same bucket; a batch has never fewer than `MIN_ROWS` rows (copies fill it up); the one-token steps use eager or
grouped attention (`models.attention`). Then every matrix product and every sum of a row has the same shape and order
whatever else is in the batch, so answers are equal to the bit for any batch size. `BUCKET`, `MIN_ROWS` and these kinds
of attention belong to `Generator.version`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from workbench import weights
from workbench.component import Component
from workbench.machine import Machine
from workbench.models import attention
from workbench.models.chat import Message, encode_chat, left_padded, load_model, load_tokenizer
from workbench.models.lora import Lora

BUCKET = 32
MIN_ROWS = 4


class Generator(Component):
    """Settings of a generator.

    Attributes:
        model: weights source (see `workbench.weights`).
        lora: how to fine-tune it on the train split; None: the model as it is.
        merge: whether the adapter is added to the weights, or kept beside them.
        max_new_tokens: longest answer in tokens.
    """

    libraries: ClassVar = ("torch", "transformers")
    references: ClassVar = ("model", "lora")
    added: ClassVar = ("merge",)

    model: str
    lora: Lora | None = None
    merge: bool = True
    max_new_tokens: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _merging_needs_an_adapter(self) -> Generator:
        if not self.merge and self.lora is None:
            raise ValueError("merge: false means nothing without lora; give lora, or leave merge out")
        return self

    def untuned(self) -> Generator:
        """The same model without its adapter."""
        return self.model_copy(update={"lora": None, "merge": True})

    def definition(self) -> dict[str, Any]:
        """Adds the digest of the weights, which stands for their name and place."""
        return super().definition() | {"weights": weights.digest(self.model)}

    def load(self, machine: Machine, adapter: Path | None = None) -> LoadedGenerator:
        """The model in memory, with its adapter (a folder written by `models.lora.train`)."""
        return LoadedGenerator(self, machine, adapter)


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        text: the answer; empty when it failed.
        prompt_tokens: tokens of the prompt.
        new_tokens: tokens of the answer, its end included.
        status: ``ok``, or why there is no answer.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    status: str = "ok"


class LoadedGenerator:
    """A generator in memory. Make it with `Generator.load`."""

    def __init__(self, settings: Generator, machine: Machine, adapter: Path | None) -> None:
        self.settings = settings
        self.machine = machine
        self.tokenizer = load_tokenizer(settings.model)
        self.model = load_model(settings.model, machine, adapter, settings.merge)
        self.context = self.model.config.max_position_embeddings
        self.stepwise = attention.stepwise(self.model.config)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's own chat template, ready for the answer."""
        return encode_chat(self.tokenizer, messages)

    def generate(
        self, prompts: Sequence[Sequence[Message]], batch_size: int | None = None
    ) -> Iterator[list[tuple[int, Generation]]]:
        """Answers all prompts, shortest bucket first.

        Args:
            prompts: conversations that end with the user's turn.
            batch_size: rows per forward pass; default: the machine's.

        Yields:
            After each batch its (position in `prompts`, answer) pairs. A prompt that does not fit into the model's
            context together with an answer has the status ``prompt too long`` and no answer.
        """
        encoded = [self.encode(prompt) for prompt in prompts]
        for batch in batches([len(ids) for ids in encoded], batch_size or self.machine.batch_size):
            width = bucket(len(encoded[batch[0]]))
            if width + self.settings.max_new_tokens > self.context:
                yield [(i, Generation("", len(encoded[i]), 0, "prompt too long")) for i in batch]
                continue
            answers = self._generate_batch([encoded[i] for i in batch], width)
            yield [(i, self._decode(len(encoded[i]), ids)) for i, ids in zip(batch, answers, strict=True)]

    def log_likelihood(
        self, asked: Sequence[tuple[Sequence[Message], str]], batch_size: int | None = None
    ) -> Iterator[list[tuple[int, float]]]:
        """Mean log-probability of each text as the answer to its prompt, in nats per token, shortest bucket first.

        Only the positions that predict the text pass through the head: with 49,000 words its logits would take more memory
        than the rest of the model. They do so row by row, as a product over a whole batch would depend on the batch.

        Args:
            asked: (conversation, text) pairs.
            batch_size: rows per forward pass; default: the machine's.

        Yields:
            After each batch its (position in `asked`, value) pairs; 0 for a text without tokens, minus infinity for a pair
            that does not fit into the model's context.
        """
        texts = self.tokenizer([text for _, text in asked], add_special_tokens=False)["input_ids"] if asked else []
        rows = [self.encode(messages) + text for (messages, _), text in zip(asked, texts, strict=True)]
        for batch in batches([len(ids) for ids in rows], batch_size or self.machine.batch_size):
            wide = bucket(len(rows[batch[0]]))
            if wide > self.context:
                yield [(i, -math.inf) for i in batch]
            else:
                yield list(
                    zip(batch, self._log_likelihood([rows[i] for i in batch], [texts[i] for i in batch], wide), strict=True)
                )

    def _log_likelihood(self, rows: list[list[int]], texts: list[list[int]], wide: int) -> list[float]:
        import torch

        filled = rows + [rows[0]] * (MIN_ROWS - len(rows))
        ids, mask = left_padded(filled, wide, self.machine.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        found = []
        with torch.inference_mode():
            self.model.set_attn_implementation("sdpa")
            hidden = self.model.base_model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state
            for row, text in enumerate(texts):
                if not text:
                    found.append(0.0)
                    continue
                logits = self.model.get_output_embeddings()(hidden[row, -len(text) - 1 : -1]).double()
                chosen = logits.gather(1, torch.tensor(text, device=logits.device)[:, None])[:, 0]
                found.append(float((chosen - logits.logsumexp(1)).mean()))
        return found

    def first_logits(self, messages: Sequence[Message]) -> list[float]:
        """Logits of every word as the first token of the answer to a conversation."""
        import torch

        ids, mask = left_padded([self.encode(messages)], len(self.encode(messages)), self.machine.device)
        with torch.inference_mode():
            self.model.set_attn_implementation("sdpa")
            return self.model(input_ids=ids, attention_mask=mask, logits_to_keep=1).logits[0, -1].float().tolist()

    def _decode(self, prompt_tokens: int, ids: list[int]) -> Generation:
        finished = bool(ids) and ids[-1] == self.tokenizer.eos_token_id
        text = self.tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=True)
        return Generation(text.strip(), prompt_tokens, len(ids))

    def _generate_batch(self, prompts: list[list[int]], width: int) -> list[list[int]]:
        """Greedy continuation of prompts of one bucket; each ends with the end token or at `max_new_tokens`."""
        import torch
        from transformers import DynamicCache

        answers: list[list[int]] = [[] for _ in prompts]
        rows = [*range(len(prompts)), *[0] * (MIN_ROWS - len(prompts))]  # which prompt each row belongs to
        ids, mask = left_padded([prompts[i] for i in rows], width, self.machine.device)
        cache = DynamicCache(config=self.model.config)
        with torch.inference_mode():
            self.model.set_attn_implementation("sdpa")
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            logits = self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
            ).logits
            self.model.set_attn_implementation(self.stepwise)
            lengths = positions[:, -1:] + 1
            live = set(range(len(prompts)))
            for step in range(self.settings.max_new_tokens):
                tokens = logits[:, -1].argmax(-1)
                for row, token in zip(rows, tokens.tolist(), strict=True):
                    if row in live and len(answers[row]) == step:
                        answers[row].append(token)
                live = {row for row in live if answers[row][-1] != self.tokenizer.eos_token_id}
                if not live or step + 1 == self.settings.max_new_tokens:
                    break
                rows, keep = _compact(rows, live)
                if keep is not None:
                    index = torch.tensor(keep, device=ids.device)
                    cache.batch_select_indices(index)
                    tokens, mask, lengths = tokens[index], mask[index], lengths[index]
                mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
                logits = self.model(
                    input_ids=tokens[:, None], attention_mask=mask, position_ids=lengths, past_key_values=cache
                ).logits
                lengths = lengths + 1
        return answers


def _compact(rows: list[int], live: set[int]) -> tuple[list[int], list[int] | None]:
    """Rows without the finished ones, once these are at least half: the rest is then read for nothing.

    Returns the rows kept and their positions (None: keep all). Never fewer than `MIN_ROWS`.
    """
    alive = [i for i, row in enumerate(rows) if row in live]
    alive = sorted({rows[i]: i for i in reversed(alive)}.values())  # one row for each prompt
    if max(2 * len(alive), MIN_ROWS) > len(rows) or len(rows) == MIN_ROWS:
        return rows, None
    keep = alive + [alive[0]] * (MIN_ROWS - len(alive))
    return [rows[i] for i in keep], keep


def bucket(length: int) -> int:
    """The padded length of a prompt: the next multiple of `BUCKET`."""
    return -(-length // BUCKET) * BUCKET


def batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Positions in batches of one bucket each, shortest bucket first."""
    order = sorted(range(len(lengths)), key=lambda i: (bucket(lengths[i]), i))
    start = 0
    while start < len(order):
        width = bucket(lengths[order[start]])
        end = start
        while end < len(order) and end - start < batch_size and bucket(lengths[order[end]]) == width:
            end += 1
        yield order[start:end]
        start = end
