"""Decoding on a GPU: steps of one shape in one place, recorded once and replayed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.models import attention
from workbench.models.chat import left_padded
from workbench.models.reading import bucket

if TYPE_CHECKING:
    import torch


class StaticDecoder:
    """A decoder whose keys and values stay where they are, for GPUs.

    There a step of one token takes longer to launch than to compute. With nothing moving between two steps it is recorded
    once, as a CUDA graph, and replayed. Rows are never dropped, since that would move them.
    """

    shrinks = False

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], device: str, new_tokens: int) -> None:
        """Begins.

        Args:
            model: a language model that `suits`.
            prompts: their token ids, of one width when padded.
            device: where it computes.
            new_tokens: how many tokens follow at most.
        """
        import torch
        from transformers import StaticCache

        self.model = model
        width = bucket(len(prompts[0]))
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
        """Whether a model is known to work so."""
        return attention.plain(model.config)

    def first(self) -> torch.Tensor:
        import torch

        with attention.reading(self.model):
            logits: torch.Tensor = self.model(
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
        logits: torch.Tensor = self.model(
            input_ids=self.tokens, attention_mask=self.mask, position_ids=self.position, past_key_values=self.cache
        ).logits[:, -1]
        return logits

    def _replayed(self) -> torch.Tensor:
        import torch

        if self.end == self.width + 1:  # once as usual, on a stream beside: libraries set themselves up in the first step
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
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
