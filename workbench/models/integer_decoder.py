"""Decoders of the Llama kind computing in integers (`workbench.models.integers`), each answer from its prompt alone.

A prompt is read by itself, without padding, by torch; one-token steps are compiled (`workbench.models.integer_steps`), each
row in one thread. Norms, attention and the residual stream are in float32. All that is summed over more than one row or
with another order elsewhere are the products, which are exact; so no row needs company and none changes with it.

Weights are rotated where they are loaded: the residual stream as a whole, with the weights of norms multiplied into the
products behind them, and values within each head. The input of the last product of a layer is rotated while computing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from threading import Barrier
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.errors import InputError
from workbench.models import attention, integers
from workbench.models.integers import WIDEST, Product, block, few, mixed, rotated
from workbench.models.side_by_side import aborting, parted, shares, side_by_side

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]

ZERO = np.float32(integers.ZERO)
TOGETHER = 256  # tokens whose weights of attention are held at once; more take memory, and look at more keys that come later
WORDS = 4096  # of the vocabulary that are converted at once

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
        embedded = base.embed_tokens.weight.detach().split(WORDS)
        self.embeddings: Floats = np.concatenate([rotated(part.double(), block(size)).float().numpy() for part in embedded])
        out, norm = model.get_output_embeddings(), base.norm.weight.double()
        head = (rotated(part.double() * norm, block(size)) for part in out.weight.split(WORDS))
        self.head = Product(head, None if out.bias is None else out.bias.double())
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

        scales = np.empty(len(states), np.float32)
        if len(states) > few():
            rows = np.empty(states.shape, np.uint8)
            kernels.normed(states, self.epsilon, ZERO, rows, scales)
            found = self.head(rows)
        else:
            found = np.empty((len(states), len(self.embeddings)), np.float32)
            kernels.step_read(states, self.epsilon, self.head.weights, self.head.scales, found, scales)
        logits = torch.zeros(len(states), len(self.embeddings))
        kernels.add(logits.numpy(), found, scales, self.head.bias)
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

    def text(self, states: Floats, angles: Floats, memory: Part, start: int, placed: Callable[[], object], last: bool) -> Floats:
        """States of some tokens of a text after the layer.

        Args:
            states: float32 (n, size); changed.
            angles: float32 (n, 2, size of a head); see `IntegerModel.angles`.
            memory: of this layer, where keys and values of the text are kept.
            start: tokens of the text before these.
            placed: called when keys and values of these are kept; returns when those before them are too.
            last: whether only the last token's states are wanted.

        Returns:
            Float32 (n, size), or (1, size).
        """
        from workbench.models import integer_kernels as kernels

        n, each, end = len(states), self.heads // self.shared, start + len(states)
        read, scales = self._read_many(states)
        queries, query_scales = (
            np.empty((self.shared, n * each, self.size), np.int8),
            np.empty((self.shared, n * each), np.float32),
        )
        kernels.place(read, scales, *self._placing(angles), queries, query_scales, *memory, start)
        placed()
        if last:
            found = np.empty((1, self.heads * self.size), np.float32)
            kernels.attend(queries[:, -each:], query_scales[:, -each:], *memory, end, found[0])
            return self._finished(states[-1:], found)
        attended = np.empty((n, self.heads * self.size), np.float32)
        for first in range(0, n, TOGETHER):
            part = slice(first, min(first + TOGETHER, n))
            asked = slice(part.start * each, part.stop * each)
            self._attend(queries[:, asked], query_scales[:, asked], memory, start + first, attended[part])
        return self._finished_many(states, attended)

    def _attend(self, queries: NDArray[np.int8], query_scales: Floats, memory: Part, start: int, attended: Floats) -> None:
        """What n tokens in a row of a text attend to.

        Args:
            queries: int8 (K, n * each, D).
            query_scales: float32 (K, n * each).
            memory: of this layer.
            start: tokens of the text before these.
            attended: float32 (n, H * D), written.
        """
        from workbench.models import integer_kernels as kernels

        rows, each, end = queries.shape[1], self.heads // self.shared, start + len(attended)
        weights, parts = np.empty((rows, end), np.int16), np.empty((2, rows, end), np.int8)
        scales = np.empty(rows, np.float32)
        for k in range(self.shared):
            products = integers.products(queries[k], memory.keys[k, :end].T)
            scaled = query_scales[k], memory.key_scales[k, :end], memory.value_scales[k, :end]
            kernels.weigh(products, each, start + 1, *scaled, weights, scales)
            kernels.split(weights, parts)
            sums = integers.products(parts.reshape(-1, end), memory.values[k, :end])
            kernels.joined(sums.reshape(2, -1, self.size), scales, k, each, attended)

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

        n = len(states)
        attended = np.empty((n, self.heads * self.size), np.float32)
        if n > few():
            read, scales = self._read_many(states)
        else:
            read, scales = np.empty((n, self.heads + 2 * self.shared, self.size), np.float32), np.empty(n, np.float32)
            kernels.step_read(states, self.epsilon, self.read.weights, self.read.scales, read.reshape(n, -1), scales)
        for r, (memory, length) in enumerate(zip(memories, lengths, strict=True)):
            row = slice(r, r + 1)
            kernels.step_attend(read[row], scales[row], *self._placing(angles[row]), *memory, length, attended[r])
        return self._finished_many(states, attended) if n > few() else self._finished(states, attended)

    def _read_many(self, states: Floats) -> tuple[Floats, Floats]:
        """The product that makes queries, keys and values of many rows, float32 (n, H + 2 * K, D), and the scales of its rows."""
        from workbench.models import integer_kernels as kernels

        rows, scales = np.empty(states.shape, np.uint8), np.empty(len(states), np.float32)
        kernels.normed(states, self.epsilon, ZERO, rows, scales)
        return self.read(rows).reshape(len(states), -1, self.size), scales

    def _finished_many(self, states: Floats, attended: Floats) -> Floats:
        """As `_finished`, to the bit, with the products of many rows."""
        from workbench.models import integer_kernels as kernels

        rows, scales = np.empty(attended.shape, np.uint8), np.empty(len(states), np.float32)
        kernels.rounded(attended, ZERO, rows, scales)
        kernels.add(states, self.gather(rows), scales, self.gather.bias)
        rows = np.empty(states.shape, np.uint8)
        kernels.normed(states, self.epsilon, ZERO, rows, scales)
        wide = self.widen(rows)
        rows, inner_scales = np.empty((len(states), wide.shape[1] // 2), np.uint8), np.empty(len(states), np.float32)
        kernels.gated(wide, scales, self.widen.bias, self.mixed, ZERO, rows, inner_scales)
        kernels.add(states, self.narrow(rows), inner_scales, self.narrow.bias)
        return states

    def _placing(self, angles: Floats) -> tuple[Floats, Floats, np.float32, np.float32, Floats]:
        """How queries, keys and values are made of their product."""
        return self.read.bias, self.norms, self.epsilon, self.scale, angles if self.turns else angles[:, :0]

    def _finished(self, states: Floats, attended: Floats) -> Floats:
        """States of a few rows (n, size) after what follows on attention, float32 (n, H * D)."""
        from workbench.models import integer_kernels as kernels

        products = self.gather.parts, self.widen.parts, self.narrow.parts
        kernels.step_finish(states, attended, self.epsilon, *products, self.mixed)
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
        return Product([weights], bias if bias.any() else None)

    @staticmethod
    def _out(linear: Any, weights: torch.Tensor, size: int) -> Product:
        """A product to the residual stream; weights: float64 (size, inputs), as the inputs want them."""
        bias = None if linear.bias is None else rotated(linear.bias.double(), block(size))
        return Product([rotated(weights, block(size), axis=0)], bias)


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
        self.model.angles(max(map(len, self.prompts)))
        read = [self._text(0)] if len(self.prompts) == 1 else side_by_side(self._whole, range(len(self.prompts)))
        for prompt, memory in zip(self.prompts, self.memories, strict=True):
            memory.length = len(prompt)
        return self.model.logits(np.concatenate(read))

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        import torch

        lengths = [memory.length for memory in self.memories]
        angles = self.model.angles(max(lengths) + 1)[lengths]
        states = self.model.embeddings[tokens.numpy()]
        parts = shares(len(lengths), torch.get_num_threads())

        def step(part: int) -> torch.Tensor:
            return self._step(states[parts[part]], angles[parts[part]], self.memories[parts[part]])

        return torch.cat(side_by_side(step, range(len(parts))))

    def keep(self, index: torch.Tensor) -> None:
        """Goes on with the rows at `index`, int64 (n,), ascending, alone."""
        self.memories = [self.memories[i] for i in index.tolist()]

    def _whole(self, number: int) -> Floats:
        """Reads a prompt in this thread; the states of its last token, float32 (1, size)."""
        return self._part(number, 0, len(self.prompts[number]), lambda: None)

    def _text(self, number: int) -> Floats:
        """Reads a prompt, its parts side by side; the states of its last token, float32 (1, size)."""
        cuts = parted(len(self.prompts[number]))
        together = Barrier(len(cuts) - 1)

        def part(i: int) -> Floats:
            with aborting(together):
                return self._part(number, cuts[i], cuts[i + 1], together.wait)

        return side_by_side(part, range(len(cuts) - 1))[-1]

    def _part(self, number: int, start: int, end: int, placed: Callable[[], object]) -> Floats:
        """Reads tokens of a prompt; the states of the last of them, float32 (1, size).

        Args:
            number: of the prompt.
            start: the first of the tokens.
            end: behind the last of them.
            placed: see `Layer.text`.
        """
        states, angles = self.model.embeddings[list(self.prompts[number][start:end])], self.model.angles(end)[start:]
        for i, layer in enumerate(self.model.layers):
            last = i == len(self.model.layers) - 1
            states = layer.text(states, angles, self.memories[number].part(i), start, placed, last)
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
