"""Greedy continuation of one batch of prompts, by a decoder or by an encoder with a decoder.

All kinds show the same three verbs: `first` reads the prompts, `next` reads one more token of every row, `keep` drops
rows. `greedy` drives any of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from workbench.models import attention
from workbench.models.chat import left_padded, right_padded

if TYPE_CHECKING:
    import torch

MIN_ROWS = 4  # of a batch: fewer change the order of sums


class Rows(Protocol):
    """A batch of prompts of one width that is being answered. Logits are (rows, vocabulary).

    Attributes:
        shrinks: whether rows can be dropped.
    """

    shrinks: bool

    def first(self) -> torch.Tensor:
        """Logits of the first token of each answer."""

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the tokens that follow `tokens`, int64 (rows,)."""

    def keep(self, index: torch.Tensor) -> None:
        """Goes on with the rows at `index` alone."""


class Decoder:
    """Prompts padded on the left; they and their answers pass through one stack."""

    shrinks = True

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], width: int, device: str) -> None:
        from transformers import DynamicCache

        self.model = model
        self.ids, self.mask = left_padded(prompts, width, device)
        self.cache = DynamicCache(config=model.config)

    def first(self) -> torch.Tensor:
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.lengths = positions[:, -1:] + 1
        with attention.reading(self.model):
            return self.model(
                input_ids=self.ids,
                attention_mask=self.mask,
                position_ids=positions,
                past_key_values=self.cache,
                logits_to_keep=1,
            ).logits[:, -1]

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        import torch

        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        logits = self.model(
            input_ids=tokens[:, None], attention_mask=self.mask, position_ids=self.lengths, past_key_values=self.cache
        ).logits[:, -1]
        self.lengths = self.lengths + 1
        return logits

    def keep(self, index: torch.Tensor) -> None:
        self.cache.batch_select_indices(index)
        self.mask, self.lengths = self.mask[index], self.lengths[index]


class StaticDecoder:
    """A decoder whose keys and values stay where they are, for GPUs.

    There a step of one token takes longer to launch than to compute. With nothing moving between two steps it is recorded
    once, as a CUDA graph, and replayed. Rows are never dropped, since that would move them.
    """

    shrinks = False

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], width: int, device: str, new_tokens: int) -> None:
        import torch
        from transformers import StaticCache

        self.model = model
        self.ids, seen = left_padded(prompts, width, device)
        self.cache = StaticCache(config=model.config, max_cache_len=width + new_tokens)
        self.width = width
        self.positions = (seen.cumsum(1) - 1).clamp(min=0)
        self.seen = torch.zeros(len(prompts), width + new_tokens, dtype=torch.bool, device=device)
        self.seen[:, :width] = seen.bool()
        self.recorded: torch.cuda.CUDAGraph | None = None
        self.recordable = True

    @staticmethod
    def suits(model: Any) -> bool:
        """Whether a model is known to work so: every layer looks at all that came before."""
        kinds = getattr(model.config, "layer_types", None) or ["full_attention"]
        sliding = getattr(model.config, "sliding_window", None) is not None and not getattr(model.config, "layer_types", None)
        return model.config.model_type in attention.PLAIN and set(kinds) == {"full_attention"} and not sliding

    def first(self) -> torch.Tensor:
        import torch

        with attention.reading(self.model):
            logits = self.model(
                input_ids=self.ids,
                attention_mask=self.seen[:, : self.width].long(),
                position_ids=self.positions,
                past_key_values=self.cache,
                logits_to_keep=1,
            ).logits[:, -1]
        # what a step reads and writes: the same memory at every step
        self.tokens = self.ids[:, -1:].clone()
        self.position = self.positions[:, -1:].clone()
        self.mask = torch.zeros(self.seen.shape, dtype=logits.dtype, device=logits.device)[:, None, None]
        self.mask.masked_fill_(~self.seen[:, None, None], torch.finfo(logits.dtype).min)
        self.end = self.width
        return logits

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        self.tokens.copy_(tokens[:, None])
        self.position += 1
        self.mask[..., self.end] = 0
        self.end += 1
        if self.tokens.device.type != "cuda":
            return self._step()
        return self._replayed()

    def keep(self, index: torch.Tensor) -> None:
        raise NotImplementedError("rows of a recorded step stay where they are")

    def _step(self) -> torch.Tensor:
        return self.model(
            input_ids=self.tokens, attention_mask=self.mask, position_ids=self.position, past_key_values=self.cache
        ).logits[:, -1]

    def _replayed(self) -> torch.Tensor:
        import torch

        if self.end == self.width + 1:  # once as usual, on a stream beside: libraries set themselves up in the first step
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                logits = self._step()
            torch.cuda.current_stream().wait_stream(stream)
            return logits
        if self.recorded is None and self.recordable:
            self._record()
        if self.recorded is None:
            return self._step()
        self.recorded.replay()
        return self.logits

    def _record(self) -> None:
        import torch

        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):  # computes nothing yet
                self.logits = self._step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.recordable = False
            warnings.warn(f"steps are launched one by one, since this model's cannot be recorded: {error}", stacklevel=2)
        else:
            self.recorded = graph


class EncoderDecoder:
    """Prompts padded on the right and encoded once; answers pass through the decoder, which looks at them."""

    shrinks = True

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], width: int, device: str) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.model = model
        self.ids, self.mask = right_padded(prompts, width, device)
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def first(self) -> torch.Tensor:
        with attention.reading(self.model):
            self.encoded = self.model.get_encoder()(input_ids=self.ids, attention_mask=self.mask)
        return self.next(self.ids.new_full((len(self.ids),), start_token(self.model)))

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(
            encoder_outputs=self.encoded,
            attention_mask=self.mask,
            decoder_input_ids=tokens[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]

    def keep(self, index: torch.Tensor) -> None:
        self.cache.batch_select_indices(index)
        self.mask = self.mask[index]
        self.encoded.last_hidden_state = self.encoded.last_hidden_state[index]


def start_token(model: Any) -> int:
    """What a decoder beside an encoder reads first."""
    for settings in (model.generation_config, model.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            if getattr(settings, name, None) is not None:
                return getattr(settings, name)
    return 0


def rows_of(model: Any, prompts: Sequence[Sequence[int]], width: int, device: str, new_tokens: int) -> Rows:
    """A batch of prompts in the form that suits a model and a device."""
    if model.config.is_encoder_decoder:
        return EncoderDecoder(model, prompts, width, device)
    if device == "cuda" and StaticDecoder.suits(model):
        return StaticDecoder(model, prompts, width, device, new_tokens)
    return Decoder(model, prompts, width, device)


def greedy(
    model: Any, prompts: Sequence[Sequence[int]], width: int, device: str, ends: Collection[int], max_new_tokens: int
) -> Iterator[list[list[int]]]:
    """Answers prompts of one bucket, each up to an end token or to `max_new_tokens`.

    Yields:
        After each step the tokens of all answers so far; the lists grow, and the last yield holds them whole.
    """
    import torch

    answers: list[list[int]] = [[] for _ in prompts]
    owners = [*range(len(prompts)), *[0] * (MIN_ROWS - len(prompts))]  # which prompt each row belongs to
    live = set(range(len(prompts)))
    # not one block around everything: the caller would go on in inference mode between two steps
    with torch.inference_mode():
        rows = rows_of(model, [prompts[i] for i in owners], width, device, max_new_tokens)
        tokens = rows.first().argmax(-1)
    for step in range(max_new_tokens):
        for owner, token in zip(owners, tokens.tolist(), strict=True):
            if owner in live and len(answers[owner]) == step:
                answers[owner].append(token)
        yield answers
        live = {owner for owner in live if answers[owner][-1] not in ends}
        if not live or step + 1 == max_new_tokens:
            return
        owners, keep = compact(owners, live) if rows.shrinks else (owners, None)
        with torch.inference_mode():
            if keep is not None:
                index = torch.tensor(keep, device=tokens.device)
                rows.keep(index)
                tokens = tokens[index]
            tokens = rows.next(tokens).argmax(-1)


def compact(owners: list[int], live: set[int]) -> tuple[list[int], list[int] | None]:
    """Rows without the finished ones, once these are at least half: the rest is then read for nothing.

    Returns the rows kept and their positions (None: keep all). Never fewer than `MIN_ROWS`.
    """
    alive = [i for i, owner in enumerate(owners) if owner in live]
    alive = sorted({owners[i]: i for i in reversed(alive)}.values())  # one row for each prompt
    if max(2 * len(alive), MIN_ROWS) > len(owners) or len(owners) == MIN_ROWS:
        return owners, None
    keep = alive + [alive[0]] * (MIN_ROWS - len(alive))
    return [owners[i] for i in keep], keep
