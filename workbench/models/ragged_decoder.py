"""Decoding on a processor: rows of several widths take their steps together.

A step of one token costs about what reading the weights costs, for 4 rows as for 16, and of mixed prompts few have one
width. So only what depends on the width is done width by width: reading the prompts, and attention, in which each row
looks at its own keys. All products and sums of a row keep the shapes they have in any other batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from workbench.models import attention
from workbench.models.chat import left_padded
from workbench.models.reading import bucket

if TYPE_CHECKING:
    import torch

    LayerCache = tuple[torch.Tensor, torch.Tensor]  # keys and values (rows, heads, room, size)

MIN_TOKENS = 128  # read together, copies of a prompt filling up: smaller products sum in another order
MAX_TOKENS = 1536  # read together, where a prompt is not longer: more are no faster, and take memory


class RaggedDecoder:
    """Prompts sorted by width, padded on the left to their own; equal ones side by side are read once."""

    shrinks = True

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], device: str, new_tokens: int) -> None:
        """Begins.

        Args:
            model: a language model that `suits`.
            prompts: their token ids.
            device: where it computes.
            new_tokens: how many tokens follow at most.
        """
        self.model = model
        self.prompts = [tuple(prompt) for prompt in prompts]
        self.device = device
        self.new_tokens = new_tokens

    @staticmethod
    def suits(model: Any) -> bool:
        """Whether a model is known to work so."""
        return attention.plain(model.config)

    def first(self) -> torch.Tensor:
        import torch

        groups, last, lengths = [], [], []
        with attention.reading(self.model):
            for width, members in groupby(self.prompts, key=lambda prompt: bucket(len(prompt))):
                rows = list(members)
                group, states = self._read(rows, width)
                groups.append(group)
                last.append(states)
                lengths += [len(row) for row in rows]
        self.cache = RaggedCache(groups)
        self.lengths = torch.tensor(lengths, device=self.device)[:, None]
        logits: torch.Tensor = self.model.get_output_embeddings()(torch.cat(last))[:, -1]
        return logits

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        # four dimensions say that a mask is complete, so that none is made of it; the groups bring their own
        mask = self.lengths.new_zeros(len(tokens), 1, 1, 1)
        logits: torch.Tensor = self.model(
            input_ids=tokens[:, None], attention_mask=mask, position_ids=self.lengths, past_key_values=self.cache
        ).logits[:, -1]
        self.cache.step()
        self.lengths = self.lengths + 1
        return logits

    def keep(self, index: torch.Tensor) -> None:
        """Goes on with the rows at `index`, int64 (n,), ascending, alone."""
        self.cache.keep(index.tolist())
        self.lengths = self.lengths[index]

    def _read(self, rows: Sequence[tuple[int, ...]], width: int) -> tuple[Group, torch.Tensor]:
        """Rows of one width with their keys and values, and the states (rows, 1, size) of their last tokens."""
        import torch
        from transformers import DynamicCache

        distinct = list(dict.fromkeys(rows))
        caches, masks, states = [], [], []
        for part in _parts(distinct, width):
            ids, mask = left_padded(filled_up(part, width), width, self.device)
            cache = DynamicCache(config=self.model.config)
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            read = self.model.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache)
            caches.append([_first_rows(layer, len(part)) for layer in cache.layers])
            masks.append(mask[: len(part)])
            states.append(read.last_hidden_state[: len(part), -1:])
        chosen = [distinct.index(row) for row in rows]
        group = Group(torch.cat(masks)[chosen], caches, chosen, self.new_tokens)
        return group, torch.cat(states)[chosen]


def _first_rows(layer: Any, n: int) -> LayerCache:
    """What a layer of transformers' cache holds of the first rows; of the models that suit, every layer holds keys and values."""
    return layer.keys[:n], layer.values[:n]


class Group:
    """Rows of one width.

    Attributes:
        end: tokens read so far, padding included.
        mask: (rows, 1, 1, room), what is added to the weights of attention.
        layers: keys and values of each layer, both (rows, heads, room, size).
    """

    def __init__(
        self, seen: torch.Tensor, caches: Sequence[Sequence[LayerCache]], chosen: Sequence[int], new_tokens: int
    ) -> None:
        """Begins.

        Args:
            seen: int64 (rows, width), 1 for tokens, 0 for padding.
            caches: keys and values by layer, of one part of the rows after the other.
            chosen: the row of all parts that each row is.
            new_tokens: how many tokens follow at most.
        """
        import torch

        rows, self.end = seen.shape
        self.room = self.end + new_tokens
        self.layers: list[LayerCache] = []
        for parts in zip(*caches, strict=True):
            keys, values = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
            self.layers.append((self._with_room(keys[list(chosen)]), self._with_room(values[list(chosen)])))
        kind = self.layers[0][0].dtype
        self.mask = torch.zeros(rows, 1, 1, self.room, dtype=kind, device=seen.device)
        self.mask[..., : self.end].masked_fill_(~seen.bool()[:, None, None], torch.finfo(kind).min)

    def __len__(self) -> int:
        return len(self.mask)

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with these rows alone."""
        rows = list(rows)

        def kept(tensor: torch.Tensor) -> torch.Tensor:
            return self._with_room(tensor[rows, :, : self.end])

        self.layers = [(kept(keys), kept(values)) for keys, values in self.layers]
        self.mask = self.mask[rows]

    def part(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> attention.Part:
        """Takes keys and values of the token that is read, float32 or bfloat16 (rows, heads, 1, size); gives all up to it."""
        now = self.end + 1
        all_keys, all_values = self.layers[layer]
        all_keys[:, :, self.end : now] = keys
        all_values[:, :, self.end : now] = values
        return attention.Part(all_keys[:, :, :now], all_values[:, :, :now], self.mask[..., :now])

    def _with_room(self, tensor: torch.Tensor) -> torch.Tensor:
        rows, heads, _, size = tensor.shape
        made = tensor.new_empty(rows, heads, self.room, size)
        made[:, :, : self.end] = tensor
        return made


class RaggedCache:
    """Keys and values of rows of several widths, in the place of one of transformers' caches."""

    def __init__(self, groups: list[Group]) -> None:
        self.groups = groups

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any) -> tuple[list[attention.Part], None]:
        """Takes keys and values of the token read, as `Group.part` does, but of all groups one behind the other.

        They are float32 or bfloat16 (rows, heads, 1, size); `attention.grouped_attention` takes the parts returned.
        """
        import torch

        sizes = [len(group) for group in self.groups]
        new = zip(self.groups, torch.split(keys, sizes), torch.split(values, sizes), strict=True)
        return [group.part(layer, k, v) for group, k, v in new], None

    def step(self) -> None:
        """One more token was read."""
        for group in self.groups:
            group.end += 1

    def keep(self, index: Sequence[int]) -> None:
        """Goes on with the rows at `index`, ascending, alone."""
        start, kept = 0, []
        for group in self.groups:
            rows = [i - start for i in index if start <= i < start + len(group)]
            start += len(group)
            if rows:
                group.keep(rows)
                kept.append(group)
        self.groups = kept


def filled_up(rows: Sequence[Any], width: int) -> list[Any]:
    """Rows of a width, with copies of the first so that `MIN_TOKENS` are read together."""
    return [*rows, *[rows[0]] * (-(-MIN_TOKENS // width) - len(rows))]


def _parts(rows: Sequence[Any], width: int) -> Iterator[Sequence[Any]]:
    """Rows of a width in parts of `MAX_TOKENS` at most, or of one row."""
    size = max(1, MAX_TOKENS // width)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
