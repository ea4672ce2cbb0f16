"""Decoders of the Llama kind computing in integers (`workbench.models.integers`), each answer from its prompt alone.

A prompt is read by itself, without padding; the one-token steps of several answers multiply together and attend each to
its own keys. Norms, attention and the residual stream are in float32. All that is summed over more than one row or with
another order elsewhere are the products, which are exact; so no row needs company and none changes with it.

Weights are rotated where they are loaded: the residual stream as a whole, with the weights of norms multiplied into the
products behind them, and values within each head. The input of the last product of a layer is rotated while computing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench import products
from workbench.errors import InputError
from workbench.models import attention
from workbench.models.integers import WIDEST, Product, block, hadamard, rotated, rounded

if TYPE_CHECKING:
    import torch

FIXED_ROTARY = ("default", "linear", "llama3", "yarn")  # positions whose angles do not depend on how long a text is


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
        self.epsilon: float = model.config.rms_norm_eps
        self.layers = [Layer(layer, model.config) for layer in base.layers]
        embedded = base.embed_tokens.weight.double()
        self.embeddings = rotated(embedded, block(size)).float()
        out = model.get_output_embeddings()
        head = out.weight.double() * base.norm.weight.double()
        self.head = Product(rotated(head, block(size)), None if out.bias is None else out.bias.double())
        self._rotary = base.rotary_emb

    def angles(self, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of the positions before `end`, both float32 (end, 1, size of a head).

        The sines of the first half are negative, as a head turned by half of its size is multiplied by them.
        """
        import torch

        if end > len(self._angles[0]):
            positions = torch.arange(max(end, 2 * len(self._angles[0])))[None]
            cosines, sines = self._rotary(self.embeddings, positions)
            half = sines.shape[-1] // 2
            signed = torch.cat([-sines[..., :half], sines[..., half:]], -1)
            self._angles = cosines[0, :, None].contiguous(), signed[0, :, None].contiguous()
        cosines, sines = self._angles
        return cosines[:end], sines[:end]

    @cached_property
    def _angles(self) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        return torch.empty(0, 1, 1), torch.empty(0, 1, 1)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Float32 (n, words) of states, float32 (n, size)."""
        return self.head(*normed(states, self.epsilon))


class Layer:
    """One layer of a decoder, its weights rotated and rounded."""

    def __init__(self, layer: Any, config: Any) -> None:
        own, feed, size = layer.self_attn, layer.mlp, config.hidden_size
        self.epsilon: float = config.rms_norm_eps
        self.size: int = own.head_dim
        self.heads = config.num_attention_heads
        self.shared = config.num_key_value_heads
        self.turns = bool(getattr(own, "use_rope", True))  # SmolLM3 leaves positions out in some layers
        self.norms = [getattr(own, name, None) for name in ("q_norm", "k_norm")]
        self.activation: Callable[[torch.Tensor], torch.Tensor] = feed.act_fn
        self.scale: float = own.scaling

        values, inner = block(self.size), block(feed.down_proj.in_features, WIDEST)
        self.read = self._product([own.q_proj, own.k_proj], layer.input_layernorm, size, (own.v_proj, values))
        self.gather = self._out(own.o_proj, values, size)
        self.widen = self._product([feed.gate_proj, feed.up_proj], layer.post_attention_layernorm, size)
        self.narrow = self._out(feed.down_proj, inner, size)
        self.mixing = hadamard(inner).float()

    def __call__(
        self,
        states: torch.Tensor,
        angles: tuple[torch.Tensor, torch.Tensor],
        attend: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """States after the layer.

        Args:
            states: float32 (n, size).
            angles: cosines and sines of the rows' positions, both float32 (n, 1, size of a head); see `IntegerModel.angles`.
            attend: takes queries, keys and values of the rows, float32 (n, heads + 2 * shared heads, size of a head); gives what
                the last of them attend to, float32 (m, heads * size of a head).

        Returns:
            Float32 (m, size), of the last m rows.
        """
        read = self.read(*normed(states, self.epsilon)).view(len(states), -1, self.size)
        self._place(read, angles)
        attended = attend(read)
        states = self.gather(*rounded(attended), states[-len(attended) :])
        gate, up = self.widen(*normed(states, self.epsilon)).chunk(2, dim=-1)
        inner = self.activation(gate).mul_(up)
        mixed = products.linear(inner.view(-1, len(self.mixing)), self.mixing)
        return self.narrow(*rounded(mixed.view(inner.shape)), states)

    def _place(self, read: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Norms queries and keys where the model does, and turns them by their positions."""
        import torch

        start = 0
        for norm, end in zip(self.norms, (self.heads, self.heads + self.shared), strict=True):
            if norm is not None:
                read[:, start:end] = norm(read[:, start:end])
            start = end
        read[:, : self.heads].mul_(self.scale)
        if self.turns:
            turned, (cosines, sines) = read[:, :start], angles
            half = self.size // 2
            swapped = torch.cat([turned[..., half:], turned[..., :half]], -1)
            turned.mul_(cosines).addcmul_(swapped, sines)

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
    def _out(linear: Any, within: int, size: int) -> Product:
        """A product from inputs rotated within blocks to the residual stream."""
        weights = rotated(rotated(linear.weight.double(), within), block(size), axis=0)
        return Product(weights, None if linear.bias is None else rotated(linear.bias.double(), block(size)))


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
        import torch

        states = torch.cat([self._read(prompt, memory) for prompt, memory in zip(self.prompts, self.memories, strict=True)])
        return self.model.logits(states)

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        import torch

        positions = torch.tensor([memory.length for memory in self.memories])
        cosines, sines = self.model.angles(max(memory.length for memory in self.memories) + 1)
        states, angles = self.model.embeddings[tokens], (cosines[positions], sines[positions])
        for i, layer in enumerate(self.model.layers):

            def attend(read: torch.Tensor, i: int = i) -> torch.Tensor:
                return torch.cat([memory.step(i, row) for memory, row in zip(self.memories, read, strict=True)])

            states = layer(states, angles, attend)
        for memory in self.memories:
            memory.length += 1
        return self.model.logits(states)

    def keep(self, index: torch.Tensor) -> None:
        """Goes on with the rows at `index`, int64 (n,), ascending, alone."""
        self.memories = [self.memories[i] for i in index.tolist()]

    def _read(self, prompt: Sequence[int], memory: Memory) -> torch.Tensor:
        """Reads a prompt; the states of its last token, float32 (1, size)."""
        import torch

        states, angles = self.model.embeddings[torch.tensor(prompt)], self.model.angles(len(prompt))
        last = len(self.model.layers) - 1
        for i, layer in enumerate(self.model.layers):
            # of the last layer only the last token's states are needed
            attend = memory.last if i == last else memory.whole
            states = layer(states, angles, lambda read, i=i, attend=attend: attend(i, read))  # type: ignore[misc]
        memory.length = len(prompt)
        return states


class Memory:
    """Keys and values of one prompt and its answer.

    Attributes:
        length: tokens read.
    """

    def __init__(self, model: IntegerModel, room: int) -> None:
        import torch

        layer = model.layers[0]
        self.heads, self.shared, self.size = layer.heads, layer.shared, layer.size
        self.length = 0
        self.keys, self.values = (torch.empty(len(model.layers), self.shared, room, self.size).unbind() for _ in range(2))

    def whole(self, i: int, read: torch.Tensor) -> torch.Tensor:
        """What each token of a prompt attends to in layer i: those before it, and itself.

        Args:
            i: number of the layer.
            read: queries, keys and values, float32 (tokens, heads + 2 * shared heads, size of a head).

        Returns:
            Float32 (tokens, heads * size of a head).
        """
        import torch

        self._keep(i, read)
        turned = read.transpose(0, 1)[None]
        found = torch.nn.functional.scaled_dot_product_attention(
            turned[:, : self.heads],
            turned[:, self.heads : -self.shared],
            turned[:, -self.shared :],
            is_causal=True,
            scale=1.0,
            enable_gqa=True,
        )
        return found[0].transpose(0, 1).reshape(len(read), -1)

    def last(self, i: int, read: torch.Tensor) -> torch.Tensor:
        """What the last token of a prompt attends to in layer i, float32 (1, heads * size of a head)."""
        self._keep(i, read)
        return self._one(i, read[-1], len(read))

    def step(self, i: int, row: torch.Tensor) -> torch.Tensor:
        """What the next token attends to in layer i, float32 (1, heads * size of a head).

        Args:
            i: number of the layer.
            row: queries, keys and values of the token, float32 (heads + 2 * shared heads, size of a head).
        """
        self.keys[i][:, self.length] = row[self.heads : -self.shared]
        self.values[i][:, self.length] = row[-self.shared :]
        return self._one(i, row, self.length + 1)

    def _keep(self, i: int, read: torch.Tensor) -> None:
        """Keeps keys and values of a whole prompt."""
        self.keys[i][:, : len(read)] = read[:, self.heads : -self.shared].transpose(0, 1)
        self.values[i][:, : len(read)] = read[:, -self.shared :].transpose(0, 1)

    def _one(self, i: int, row: torch.Tensor, end: int) -> torch.Tensor:
        import torch

        # The query heads of one key head are rows that read the same keys. torch's own attention of one token is not taken:
        # it shares the keys out among threads, whose number would then decide the last bits.
        queries = row[: self.heads].view(self.shared, -1, self.size)
        weights = torch.bmm(queries, self.keys[i][:, :end].transpose(1, 2)).softmax(-1)
        return torch.bmm(weights, self.values[i][:, :end]).view(1, -1)


def normed(states: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Root-mean-square norms of float32 states (n, size), rounded (see `integers.rounded`): the norm only changes the scales."""
    import torch

    integers, scales = rounded(states)
    lengths = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    return integers, scales.div_(lengths.square_().mul_(1 / states.shape[-1]).add_(epsilon).sqrt_())


def unsuited(config: Any) -> str | None:
    """Why a model's computing is not known here; None where it is."""
    if not attention.plain(config):
        return f"its type is {config.model_type!r}, or some of its layers look at a part of the text"
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
