"""Greedy continuation of a batch of prompts, by a decoder or by an encoder with a decoder.

All kinds show the same three verbs: `first` reads the prompts, `next` reads one more token of every row, `keep` drops
rows. `greedy` drives any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from workbench.models import attention
from workbench.models.chat import left_padded, right_padded
from workbench.models.integer_decoder import IntegerModel, IntegerRows
from workbench.models.ragged_decoder import RaggedDecoder
from workbench.models.reading import bucket
from workbench.models.static_decoder import StaticDecoder

if TYPE_CHECKING:
    import torch

MIN_ROWS = 4  # of a batch: fewer change the order of sums


class Rows(Protocol):
    """A batch of prompts that is being answered.

    Attributes:
        shrinks: whether rows can be dropped.
    """

    shrinks: bool

    def first(self) -> torch.Tensor:
        """Logits (rows, vocabulary) of the first token of each answer, float32 or bfloat16 as the model computes."""

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits, as those of `first`, of the tokens that follow `tokens`, int64 (rows,)."""

    def keep(self, index: torch.Tensor) -> None:
        """Goes on with the rows at `index`, int64 (n,), ascending, alone."""


class Decoder:
    """Prompts of one width padded on the left; they and their answers pass through one stack."""

    shrinks = True

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], device: str) -> None:
        from transformers import DynamicCache

        self.model = model
        self.ids, self.mask = left_padded(prompts, bucket(len(prompts[0])), device)
        self.cache = DynamicCache(config=model.config)

    def first(self) -> torch.Tensor:
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.lengths = positions[:, -1:] + 1
        with attention.reading(self.model):
            logits: torch.Tensor = self.model(
                input_ids=self.ids,
                attention_mask=self.mask,
                position_ids=positions,
                past_key_values=self.cache,
                logits_to_keep=1,
            ).logits[:, -1]
        return logits

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        import torch

        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        logits: torch.Tensor = self.model(
            input_ids=tokens[:, None], attention_mask=self.mask, position_ids=self.lengths, past_key_values=self.cache
        ).logits[:, -1]
        self.lengths = self.lengths + 1
        return logits

    def keep(self, index: torch.Tensor) -> None:
        self.cache.batch_select_indices(index)
        self.mask, self.lengths = self.mask[index], self.lengths[index]


class EncoderDecoder:
    """Prompts of one width padded on the right and encoded once; answers pass through the decoder, which looks at them."""

    shrinks = True

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], device: str) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.model = model
        self.ids, self.mask = right_padded(prompts, bucket(len(prompts[0])), device)
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def first(self) -> torch.Tensor:
        with attention.reading(self.model):
            self.encoded = self.model.get_encoder()(input_ids=self.ids, attention_mask=self.mask)
        return self.next(self.ids.new_full((len(self.ids),), start_token(self.model)))

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            encoder_outputs=self.encoded,
            attention_mask=self.mask,
            decoder_input_ids=tokens[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        return logits

    def keep(self, index: torch.Tensor) -> None:
        self.cache.batch_select_indices(index)
        self.mask = self.mask[index]
        self.encoded.last_hidden_state = self.encoded.last_hidden_state[index]


def start_token(model: Any) -> int:
    """What a decoder beside an encoder reads first."""
    for settings in (model.generation_config, model.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            token: int | None = getattr(settings, name, None)
            if token is not None:
                return token
    return 0


def mixes(model: Any, device: str) -> bool:
    """Whether prompts of several widths can be answered in one batch."""
    return device != "cuda" and not model.config.is_encoder_decoder and RaggedDecoder.suits(model)


def rows_of(model: Any, prompts: Sequence[Sequence[int]], device: str, new_tokens: int, least: int) -> Rows:
    """A batch of prompts in the form that suits a model and a device; of one width, but where it `mixes` them.

    Where more than `MIN_ROWS` are computed at least, none is dropped or read only once: all batches have one shape.

    Args:
        model: a language model.
        prompts: their token ids, sorted by width.
        device: where it computes.
        new_tokens: longest answer.
        least: rows that are computed at least; copies of the first prompt fill them up.
    """
    prompts = [*[prompts[0]] * (least - len(prompts)), *prompts]
    if isinstance(model, IntegerModel):
        return IntegerRows(model, prompts, new_tokens)
    if model.config.is_encoder_decoder:
        return EncoderDecoder(model, prompts, device)
    if mixes(model, device) and least == MIN_ROWS:
        return RaggedDecoder(model, prompts, device, new_tokens)
    if device == "cuda" and StaticDecoder.suits(model):
        return StaticDecoder(model, prompts, device, new_tokens)
    return Decoder(model, prompts, device)


def first_steps(
    model: Any, prompts: Sequence[Sequence[int]], device: str, steps: int, least: int = MIN_ROWS
) -> Iterator[torch.Tensor]:
    """Logits of each of the first tokens that `greedy` chooses.

    Args:
        model: a language model.
        prompts: their token ids, sorted by width.
        device: where it computes.
        steps: tokens of an answer.
        least: rows that are computed at least; copies of the first prompt fill them up.

    Yields:
        For each step the logits (len(prompts), vocabulary), float32 or bfloat16 as the model computes.
    """
    import torch

    with torch.inference_mode():
        rows = rows_of(model, prompts, device, steps, least)
        logits = rows.first()
    for step in range(steps):
        yield logits[-len(prompts) :]
        if step + 1 < steps:
            with torch.inference_mode():
                logits = rows.next(logits.argmax(-1))


def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    device: str,
    ends: Collection[int],
    max_new_tokens: int,
    least: int = MIN_ROWS,
    wanted: Callable[[int], bool] = lambda prompt: True,
) -> Iterator[list[list[int]]]:
    """Answers prompts sorted by width, each up to an end token or to `max_new_tokens`.

    Args:
        model: a language model.
        prompts: their token ids.
        device: where it computes.
        ends: tokens that end an answer.
        max_new_tokens: longest answer.
        least: rows that are computed at least; copies of the first prompt fill them up.
        wanted: asked after each step whether the answer to a prompt is still waited for; one that is not ends there, and changes
            no bit of the others.

    Yields:
        After each step the tokens of all answers so far; the lists grow, and the last yield holds them whole.
    """
    import torch

    answers: list[list[int]] = [[] for _ in prompts]
    owners = [*[0] * (least - len(prompts)), *range(len(prompts))]  # which prompt each row belongs to
    live = set(range(len(prompts)))
    # not one block around everything: the caller would go on in inference mode between two steps
    with torch.inference_mode():
        rows = rows_of(model, prompts, device, max_new_tokens, least)
        tokens = rows.first().argmax(-1)
    for step in range(max_new_tokens):
        for owner, token in zip(owners, tokens.tolist(), strict=True):
            if owner in live and len(answers[owner]) == step:
                answers[owner].append(token)
        yield answers
        live = {owner for owner in live if answers[owner][-1] not in ends and wanted(owner)}
        if not live or step + 1 == max_new_tokens:
            return
        owners, keep = compact(owners, live, least) if rows.shrinks and least <= MIN_ROWS else (owners, None)
        with torch.inference_mode():
            if keep is not None:
                index = torch.tensor(keep, device=tokens.device)
                rows.keep(index)
                tokens = tokens[index]
            tokens = rows.next(tokens).argmax(-1)


def compact(owners: list[int], live: set[int], least: int = MIN_ROWS) -> tuple[list[int], list[int] | None]:
    """Rows without the finished ones, once these are at least half: the rest is then read for nothing.

    Returns the rows kept and their positions (None: keep all). Never fewer than `least`.
    """
    alive = [i for i, owner in enumerate(owners) if owner in live]
    alive = sorted({owners[i]: i for i in reversed(alive)}.values())  # one row for each prompt
    if max(2 * len(alive), least) > len(owners) or len(owners) == least:
        return owners, None
    keep = [alive[0]] * (least - len(alive)) + alive
    return [owners[i] for i in keep], keep
