"""Decoders of the Llama kind computing in integers (`workbench.models.integers`), each answer from its prompt alone.

A prompt is read by itself, without padding, by torch; one-token steps are compiled (`workbench.models.integer_steps`), each
row in one thread. Norms, attention and the residual stream are in float32. All that is summed over more than one row or
with another order elsewhere are the products, which are exact; so no row needs company and none changes with it.

Weights are rotated where they are loaded: the residual stream as a whole, with the weights of norms multiplied into the
products behind them, and values within each head. The input of the last product of a layer is rotated while computing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.errors import InputError
from workbench.models import attention, integers
from workbench.models.integers import WIDEST, Product, block, mixed, rotated
from workbench.models.side_by_side import shares, side_by_side

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]

FIXED_ROTARY = ("default", "linear", "llama3", "yarn")  # positions whose angles do not depend on how long a text is


class Part(NamedTuple):
    """Keys and values of one layer: int8 (K, room, D), with scales float32 (K, room)."""

    keys: NDArray[np.int8]
    key_scales: Floats
    values: NDArray[np.int8]
    value_scales: Floats


class IntegerModel:
    """A language model whose products are integers.

    Attributes:
        config: of the model it was made from.
        generation_config: as well.
        layers: of the decoder, in order.
        embeddings: float32 (words, size), rotated.
        head: from the last states to logits.
        epsilon: added by the norms.
    """

    def __init__(self, model: Any, source: str) -> None:
        """Converts.

        Args:
            model: in float32, on the processor; not changed.
            source: its weights source, for messages.

        Raises:
            InputError: a model that computes something else than is known here.
        """
        if reason := unsuited(model.config):
            raise InputError(
                f"weights {source!r}: precision int8 does not know this model: {reason}; allowed: model types "
                f"{', '.join(attention.PLAIN)}. Leave precision out"
            )
        self.config, self.generation_config = model.config, model.generation_config
        base, size = model.base_model, model.config.hidden_size
        self.epsilon = np.float32(model.config.rms_norm_eps)
        self.layers = [Layer(layer, model.config) for layer in base.layers]
        embedded = base.embed_tokens.weight.double()
        self.embeddings: Floats = rotated(embedded, block(size)).float().detach().numpy()
        out = model.get_output_embeddings()
        head = out.weight.double() * base.norm.weight.double()
        self.head = Product(rotated(head, block(size)), None if out.bias is None else out.bias.double())
        self._rotary = base.rotary_emb

    def angles(self, end: int) -> Floats:
        """Cosines and sines of the positions before `end`, float32 (end, 2, size of a head).

        The sines of the first half are negative, as a head turned by half of its size is multiplied by them.
        """
        import torch

        if end > len(self._angles):
            positions = torch.arange(max(end, 2 * len(self._angles)))[None]
            cosines, sines = self._rotary(torch.empty(0), positions)
            half = sines.shape[-1] // 2
            signed = torch.cat([-sines[..., :half], sines[..., half:]], -1)
            self._angles = torch.stack([cosines[0], signed[0]], 1).float().numpy()
        return self._angles[:end]

    @cached_property
    def _angles(self) -> Floats:
        return np.empty((0, 2, 1), np.float32)

    def logits(self, states: Floats) -> torch.Tensor:
        """Float32 (n, words) of states, float32 (n, size)."""
        import torch

        from workbench.models import integer_kernels as kernels

        rows, scales, zero = _rows(states.shape, few=True)
        kernels.normed(states, self.epsilon, zero, rows, scales)
        logits = torch.zeros(len(states), len(self.embeddings))
        kernels.add(logits.numpy(), self.head(rows), scales, self.head.bias)
        return logits


class Layer:
    """One layer of a decoder, its weights rotated and rounded."""

    def __init__(self, layer: Any, config: Any) -> None:
        own, feed, size = layer.self_attn, layer.mlp, config.hidden_size
        self.epsilon = np.float32(config.rms_norm_eps)
        self.size: int = own.head_dim
        self.heads: int = config.num_attention_heads
        self.shared: int = config.num_key_value_heads
        self.turns = bool(getattr(own, "use_rope", True))  # SmolLM3 leaves positions out in some layers
        norms = [getattr(own, name).weight.detach().float().numpy() for name in ("q_norm", "k_norm") if hasattr(own, name)]
        self.norms = np.stack(norms) if norms else np.empty((0, self.size), np.float32)
        self.scale = np.float32(own.scaling)

        values, self.mixed = block(self.size), block(feed.down_proj.in_features, WIDEST)
        self.read = self._product([own.q_proj, own.k_proj], layer.input_layernorm, size, (own.v_proj, values))
        self.gather = self._out(own.o_proj, rotated(own.o_proj.weight.double(), values), size)
        self.widen = self._product([feed.gate_proj, feed.up_proj], layer.post_attention_layernorm, size)
        self.narrow = self._out(feed.down_proj, mixed(feed.down_proj.weight.double(), self.mixed), size)

    def text(self, states: Floats, angles: Floats, memory: Part, last: bool) -> Floats:
        """States of the tokens of a text after the layer.

        Args:
            states: float32 (n, size); changed.
            angles: float32 (n, 2, size of a head); see `IntegerModel.angles`.
            memory: of this layer, where keys and values of the text are kept.
            last: whether only the last token's states are wanted.

        Returns:
            Float32 (n, size), or (1, size).
        """
        from workbench.models import integer_kernels as kernels

        n, each = len(states), self.heads // self.shared
        queries, query_scales = self._place(*self._read(states, few=False), angles, memory, 0)
        if last:
            attended = np.empty((1, self.heads * self.size), np.float32)
            kernels.attend(queries[:, -each:], query_scales[:, -each:], *memory, n, attended[0])
            return self._finished(states[-1:], attended, few=True)
        attended = np.empty((n, self.heads * self.size), np.float32)
        weights, parts = np.empty((n * each, n), np.int16), np.empty((2, n * each, n), np.int8)
        scales = np.empty(n * each, np.float32)
        for k in range(self.shared):
            products = integers.products(queries[k], memory.keys[k, :n].T)
            scaled = query_scales[k], memory.key_scales[k, :n], memory.value_scales[k, :n]
            kernels.weigh(products, each, 1, *scaled, weights, scales)
            kernels.split(weights, parts)
            sums = integers.products(parts.reshape(-1, n), memory.values[k, :n])
            kernels.joined(sums.reshape(2, -1, self.size), scales, k, each, attended)
        return self._finished(states, attended, few=False)

    def step(self, states: Floats, angles: Floats, memories: Sequence[Part], lengths: Sequence[int]) -> Floats:
        """States of the next token of some answers after the layer.

        Args:
            states: float32 (n, size); changed.
            angles: float32 (n, 2, size of a head); see `IntegerModel.angles`.
            memories: of this layer, one for each answer.
            lengths: tokens that each of them holds.

        Returns:
            Float32 (n, size).
        """
        from workbench.models import integer_kernels as kernels

        attended = np.empty((len(states), self.heads * self.size), np.float32)
        read, scales = self._read(states, few=True)
        for r, (memory, length) in enumerate(zip(memories, lengths, strict=True)):
            queries, query_scales = self._place(read[r : r + 1], scales[r : r + 1], angles[r : r + 1], memory, length)
            kernels.attend(queries, query_scales, *memory, length + 1, attended[r])
        return self._finished(states, attended, few=True)

    def _read(self, states: Floats, few: bool) -> tuple[Floats, Floats]:
        """The product that makes queries, keys and values, float32 (n, H + 2 * K, D), and the scales of its rows (n,)."""
        from workbench.models import integer_kernels as kernels

        rows, scales, zero = _rows(states.shape, few)
        kernels.normed(states, self.epsilon, zero, rows, scales)
        return self.read(rows).reshape(len(states), -1, self.size), scales

    def _place(self, read: Floats, scales: Floats, angles: Floats, memory: Part, start: int) -> tuple[NDArray[np.int8], Floats]:
        """Queries, int8 (K, n * each, D), and their scales (K, n * each); keys and values are put into the memory.

        Args:
            read: as `_read` gives it.
            scales: likewise.
            angles: float32 (n, 2, D).
            memory: of this layer.
            start: tokens that it holds.
        """
        from workbench.models import integer_kernels as kernels

        n, each = len(read), self.heads // self.shared
        queries, query_scales = (
            np.empty((self.shared, n * each, self.size), np.int8),
            np.empty((self.shared, n * each), np.float32),
        )
        turned = angles if self.turns else angles[:, :0]
        settings = self.read.bias, self.norms, self.epsilon, self.scale, turned
        kernels.place(read, scales, *settings, queries, query_scales, *memory, start)
        return queries, query_scales

    def _finished(self, states: Floats, attended: Floats, few: bool) -> Floats:
        """States after what follows on attention.

        Args:
            states: float32 (n, size); changed.
            attended: float32 (n, H * D).
            few: whether the rows are few; see `integers.Product`.
        """
        from workbench.models import integer_kernels as kernels

        rows, scales, zero = _rows(attended.shape, few)
        kernels.rounded(attended, zero, rows, scales)
        kernels.add(states, self.gather(rows), scales, self.gather.bias)
        rows, scales, zero = _rows(states.shape, few)
        kernels.normed(states, self.epsilon, zero, rows, scales)
        wide = self.widen(rows)
        rows, inner_scales, zero = _rows((len(states), wide.shape[1] // 2), few)
        kernels.gated(wide, scales, self.widen.bias, self.mixed, zero, rows, inner_scales)
        kernels.add(states, self.narrow(rows), inner_scales, self.narrow.bias)
        return states

    @staticmethod
    def _product(linears: Sequence[Any], norm: Any, size: int, values: tuple[Any, int] | None = None) -> Product:
        """One product for several that read the same normed states; the outputs of `values` are rotated within blocks."""
        import torch

        matrices = [linear.weight.double() for linear in linears]
        biases = [_bias(linear) for linear in linears]
        if values is not None:
            linear, within = values
            matrices.append(rotated(linear.weight.double(), within, axis=0))
            biases.append(rotated(_bias(linear), within))
        weights = rotated(torch.cat(matrices) * norm.weight.double(), block(size))
        bias = torch.cat(biases)
        return Product(weights, bias if bias.any() else None)

    @staticmethod
    def _out(linear: Any, weights: torch.Tensor, size: int) -> Product:
        """A product to the residual stream; weights: float64 (size, inputs), as the inputs want them."""
        bias = None if linear.bias is None else rotated(linear.bias.double(), block(size))
        return Product(rotated(weights, block(size), axis=0), bias)


class IntegerRows:
    """Prompts that are being answered; see `decoding.Rows`."""

    shrinks = True

    def __init__(self, model: IntegerModel, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        """Begins.

        Args:
            model: in integers.
            prompts: their token ids, of any lengths.
            new_tokens: how many tokens follow at most.
        """
        self.model = model
        self.prompts = prompts
        self.memories = [Memory(model, len(prompt) + new_tokens) for prompt in prompts]

    def first(self) -> torch.Tensor:
        longest = max(map(len, self.prompts))
        self.model.angles(longest)
        states = np.concatenate(side_by_side(self._text, range(len(self.prompts)), longest))
        return self.model.logits(states)

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        import torch

        lengths = [memory.length for memory in self.memories]
        angles = self.model.angles(max(lengths) + 1)[lengths]
        states = self.model.embeddings[tokens.numpy()]
        parts = shares(len(lengths), torch.get_num_threads())

        def step(part: int) -> torch.Tensor:
            return self._step(states[parts[part]], angles[parts[part]], self.memories[parts[part]])

        return torch.cat(side_by_side(step, range(len(parts)), 1))

    def keep(self, index: torch.Tensor) -> None:
        """Goes on with the rows at `index`, int64 (n,), ascending, alone."""
        self.memories = [self.memories[i] for i in index.tolist()]

    def _text(self, number: int) -> Floats:
        """Reads a prompt; the states of its last token, float32 (1, size)."""
        prompt, memory = self.prompts[number], self.memories[number]
        states, angles = self.model.embeddings[list(prompt)], self.model.angles(len(prompt))
        for i, layer in enumerate(self.model.layers):
            states = layer.text(states, angles, memory.part(i), last=i == len(self.model.layers) - 1)
        memory.length = len(prompt)
        return states

    def _step(self, states: Floats, angles: Floats, memories: Sequence[Memory]) -> torch.Tensor:
        """Reads one more token of some rows; logits, float32 (n, words).

        Args:
            states: float32 (n, size), the embedded tokens; changed.
            angles: float32 (n, 2, size of a head).
            memories: of the rows.
        """
        lengths = [memory.length for memory in memories]
        for i, layer in enumerate(self.model.layers):
            states = layer.step(states, angles, [memory.part(i) for memory in memories], lengths)
        for memory in memories:
            memory.length += 1
        return self.model.logits(states)


class Memory:
    """Keys and values of one prompt and its answer, as integers with a scale for each token and key head.

    Attributes:
        length: tokens read.
    """

    def __init__(self, model: IntegerModel, room: int) -> None:
        layer = model.layers[0]
        places = len(model.layers), layer.shared, room
        self.length = 0
        self._keys, self._values = (np.empty((*places, layer.size), np.int8) for _ in range(2))
        self._key_scales, self._value_scales = (np.empty(places, np.float32) for _ in range(2))

    def part(self, i: int) -> Part:
        """That of layer i."""
        return Part(self._keys[i], self._key_scales[i], self._values[i], self._value_scales[i])


def _rows(shape: tuple[int, ...], few: bool) -> tuple[NDArray[Any], Floats, np.float32]:
    """Room for rounded rows (n, inputs) in the form of their product, and their scales (n,); and what stands for zero."""
    rows = np.empty(shape, np.int16 if few else np.uint8)
    return rows, np.empty(shape[0], np.float32), np.float32(0 if few else integers.ZERO)


def unsuited(config: Any) -> str | None:
    """Why a model's computing is not known here; None where it is."""
    if not attention.plain(config):
        return f"its type is {config.model_type!r}, or some of its layers look at a part of the text"
    if config.hidden_act not in ("silu", "swish"):
        return f"its activation is {config.hidden_act!r}"
    rotary = getattr(config, "rope_parameters", None) or {}
    kind = rotary.get("rope_type", "default")
    if kind not in FIXED_ROTARY or rotary.get("partial_rotary_factor", 1.0) != 1.0:
        return f"its positions are of the kind {kind!r}, or turn a part of each head"
    return None


def _bias(linear: Any) -> torch.Tensor:
    """Its bias, float64 (outputs,); zeros where it has none."""
    import torch

    weights = linear.weight
    return torch.zeros(len(weights), dtype=torch.float64) if linear.bias is None else linear.bias.double()
