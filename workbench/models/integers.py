"""Matrix products of 8-bit integers: exact, so that rows, threads and processors cannot change a bit of them.

Weights are rounded once, with a scale for each output; activations while computing, with a scale for each row. The products
are summed as 32-bit integers, in which no order of a sum differs from another: a row's result depends on the row alone, by
construction. Floating-point products hold that only in some shapes (`workbench.products`), and take four times the memory
traffic.

A few large numbers among the inputs of a product would leave few steps of the scale for the others. So inputs are rotated
first: multiplied by an orthogonal matrix, which spreads large numbers over their neighbours, while the weights are multiplied
by its transpose, which leaves the product as it was. The idea is QuaRot's (Ashkboos et al. 2024, arXiv:2404.00456); the matrix
is block-diagonal with Sylvester's Hadamard matrices, whose entries are 1 and -1 but for a common factor. It needs no sample
texts, and but for one product in each layer it costs nothing while computing, since rotations go into the weights around.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.component import library_version
from workbench.errors import InputError, MissingExtraError
from workbench.machine import Machine, fingerprint

if TYPE_CHECKING:
    import torch

PRECISION = "integers"  # the name of this arithmetic in keys and fingerprints
CONVERSION = 2  # raised when the same weights become other integers
STEPS = 127  # of a scale, on each side of zero
WIDEST = 64  # numbers that are mixed while computing: more cost more and were no better
SHAPES = (
    (1, 576, 960),
    (7, 1536, 576),
    (48, 576, 3072),
    (3, 40, 72),
    (60, 64, 20),
    (120, 20, 64),
)  # rows, inputs, outputs of the look at exactness
ZERO = 128  # what stands for zero among unsigned integers
SMALLEST = 1e-30  # scale of a row of zeros
EXACT_TERMS = 2**24 // (STEPS * ZERO)  # 1,032 products, whose sum float32 holds exactly
# Rows up to which the compiled product is as quick as the one of many rows: the packed one, and the one in float32.
FEW, FEW_IN_FLOATS = 4, 24


def block(size: int, widest: int | None = None) -> int:
    """The largest power of two that divides a size, `widest` at most."""
    found = size & -size
    return min(found, widest) if widest else found


def hadamard(size: int) -> torch.Tensor:
    """Sylvester's Hadamard matrix of a power of two over its square root: float64 (size, size), symmetric and orthogonal."""
    import torch

    signs = torch.ones(1, 1, dtype=torch.float64)
    while len(signs) < size:
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
    return signs.mul_(size**-0.5)


def rotated(matrix: torch.Tensor, size: int, axis: int = -1) -> torch.Tensor:
    """A matrix with consecutive blocks of an axis multiplied by a Hadamard matrix: float64, shaped as it was.

    Args:
        matrix: float64 (outputs, inputs), or a bias, float64 (outputs,).
        size: of the blocks, a power of two that divides the axis.
        axis: whose numbers are mixed.
    """
    moved = matrix.movedim(axis, -1)
    return (moved.reshape(-1, size) @ hadamard(size)).reshape(moved.shape).movedim(-1, axis)


def mixed(matrix: torch.Tensor, size: int) -> torch.Tensor:
    """A matrix whose rows are multiplied by an orthogonal matrix that mixes `size` numbers each: float64 (outputs, inputs).

    As with `rotated`, by sums and differences, but of neighbours, whose results go to the two halves of the row; computed
    row by row in this order it is four times as quick.

    Args:
        matrix: float64 (outputs, inputs).
        size: a power of two that divides the inputs.
    """
    import torch

    for _ in range(size.bit_length() - 1):
        left, right = matrix[:, 0::2], matrix[:, 1::2]
        matrix = torch.cat([left + right, left - right], 1)
    return matrix.mul(size**-0.5)


class Product:
    """A product with a matrix of weights, in integers.

    Attributes:
        weights: int8 (outputs, inputs).
        scales: float32 (outputs,).
        bias: float32 (outputs,), or empty.
        parts: these three.
    """

    def __init__(self, weights: Iterable[torch.Tensor], bias: torch.Tensor | None = None) -> None:
        """Rounds.

        Args:
            weights: parts that lie one below the other as the matrix (outputs, inputs), float64; each is rounded before the next
                is asked for, since float64 takes eight times the memory of integers.
            bias: float64 (outputs,), or None.
        """
        whole, scales = zip(*map(_rounded, weights), strict=True)
        self.weights: NDArray[np.int8] = np.concatenate(whole)
        self.scales: NDArray[np.float32] = np.concatenate(scales)
        self.bias: NDArray[np.float32] = np.empty(0, np.float32) if bias is None else bias.detach().float().numpy()
        self.parts = self.weights, self.scales, self.bias

    @cached_property
    def _packed(self) -> torch.Tensor | None:
        """The weights in the form that products of many rows want; None where these are not exact."""
        import torch

        return torch.ops.onednn.qlinear_prepack(torch.from_numpy(self.weights), None) if exact() else None

    def __call__(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Rounded rows times the weights, times the scales of these: float32 (n, outputs), to the bit the same in either form.

        Args:
            rows: (n, inputs) whole numbers from -127 to 127; few rows as int16, many as uint8 with `ZERO` for zero.
        """
        import torch

        if rows.dtype == np.int16:
            from workbench.models import integer_kernels as kernels

            found = np.empty((len(rows), len(self.weights)), np.float32)
            kernels.multiply(rows, self.weights, self.scales, found)
            return found
        if self._packed is None:
            sums = _summed(torch.from_numpy(rows).float() - ZERO, torch.from_numpy(self.weights).t())
            slow: NDArray[np.float32] = sums.float().numpy() * self.scales
            return slow
        return _packed(torch.from_numpy(rows), self._packed, torch.from_numpy(self.scales)).numpy()


def _rounded(weights: torch.Tensor) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights, float64 (outputs, inputs), as int8 (outputs, inputs), and the scale of each output, float32 (outputs,)."""
    import torch

    weights = weights.detach()
    scales = (weights.abs().amax(1) / STEPS).clamp(min=SMALLEST)
    whole = (weights / scales[:, None]).round().to(torch.int8).contiguous()  # products want them so
    return whole.numpy(), scales.float().numpy()


def products(left: NDArray[np.int8], right: NDArray[np.int8]) -> NDArray[np.int32]:
    """Products of two int8 matrices, (m, k) and (k, n): int32 (m, n)."""
    import torch

    first, second = torch.from_numpy(left), torch.from_numpy(right)
    if exact():
        return torch._int_mm(first, second).numpy()
    return _summed(first.float(), second).to(torch.int32).numpy()


def _summed(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Products of whole numbers, float32 (m, k) and int8 (k, n), of 127 at most: float64 (m, n), exact.

    Every sum of `EXACT_TERMS` such products is a whole number that float32 holds, in whatever order it is added up.
    """
    starts = range(0, left.shape[1], EXACT_TERMS)
    parts = [left[:, a : a + EXACT_TERMS] @ right[a : a + EXACT_TERMS].float() for a in starts]
    return sum((part.double() for part in parts[1:]), parts[0].double())


def _packed(rows: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Rows, uint8 (n, inputs), less `ZERO`, times packed weights, times their scales: float32 (n, outputs)."""
    import torch

    zeros = torch.zeros(len(scales), dtype=torch.int32)
    found: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, ZERO, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return found


@cache
def exact() -> bool:
    """Whether torch's products of integers are exact on this processor; else they are computed in float32, exact but slower.

    Processors without instructions for them multiply pairs in 16 bits, which large integers overflow.
    """
    try:
        return all(_exact(*shape) for shape in SHAPES)
    except (AttributeError, RuntimeError):  # a torch without these products
        return False


def few() -> int:
    """Rows up to which the compiled product is the quicker one here; both give the same bits."""
    return FEW if exact() else FEW_IN_FLOATS


def _exact(rows: int, inputs: int, outputs: int) -> bool:
    """Whether both kinds of product of a shape are exact, also where all their integers are as large as they can be."""
    import torch

    large = torch.full((rows, inputs), STEPS, dtype=torch.int8), torch.full((outputs, inputs), STEPS, dtype=torch.int8)
    for left, right in (large, (-large[0], large[1]), (_integers(rows, inputs), _integers(outputs, inputs))):
        expected = left.double() @ right.double().t()
        shifted = (left.to(torch.int16) + ZERO).to(torch.uint8)
        found = _packed(shifted, torch.ops.onednn.qlinear_prepack(right, None), torch.ones(outputs))
        if not (torch.equal(found, expected.float()) and torch.equal(torch._int_mm(left, right.t()).double(), expected)):
            return False
    return True


def _integers(*shape: int) -> torch.Tensor:
    import torch

    return torch.from_numpy((fingerprint.numbers(*shape) * STEPS).round()).to(torch.int8)


def on(machine: Machine) -> Machine:
    """The machine, computing in this arithmetic.

    Raises:
        InputError: it computes on a GPU, or numba is not installed.
    """
    if library_version("numba") == "absent":
        raise MissingExtraError("numba", "int8", "a generator with precision: int8")
    if machine.device != "cpu":
        raise InputError(f"precision int8 is for processors; on {machine.device} leave it out, or set machine.device to cpu")
    return replace(machine, precision=PRECISION)


def definition() -> dict[str, Any]:
    """What decides the integers beside the weights; part of keys."""
    return {"conversion": CONVERSION, "widest": WIDEST}


def operations(device: str) -> Iterator[bytes]:
    """What goes into the fingerprint of this arithmetic: all that a layer computes with one token, and products of more."""
    import torch

    from workbench.models import integer_kernels as kernels

    size, heads, shared, depth, inner, zero = 576, 9, 3, 64, 768, np.float32(0)
    first, wide = (
        Product([torch.from_numpy(fingerprint.numbers(outputs, size)).double()])
        for outputs in ((heads + 2 * shared) * depth, 2 * inner)
    )
    states, angles, epsilon = fingerprint.numbers(1, size), fingerprint.numbers(1, 2, depth), np.float32(1e-5)
    rows, scales = np.empty((1, size), np.int16), np.empty(1, np.float32)
    kernels.normed(states, epsilon, zero, rows, scales)
    read = first(rows).reshape(1, -1, depth)
    room = 100
    keys, values = (_integers(shared, room, depth).numpy() for _ in range(2))
    key_scales, value_scales = (np.abs(fingerprint.numbers(shared, room)) for _ in range(2))
    queries, query_scales = np.empty((shared, heads // shared, depth), np.int8), np.empty((shared, heads // shared), np.float32)
    memory = keys, key_scales, values, value_scales
    norms = fingerprint.numbers(2, depth)
    kernels.place(read, scales, first.bias, norms, epsilon, np.float32(0.125), angles, queries, query_scales, *memory, room - 1)
    attended = np.empty(heads * depth, np.float32)
    kernels.attend(queries, query_scales, *memory, room, attended)
    yield attended.tobytes()
    inner_rows, inner_scales = np.empty((1, inner), np.int16), np.empty(1, np.float32)
    kernels.gated(wide(rows), scales, wide.bias, WIDEST, zero, inner_rows, inner_scales)
    yield inner_rows.tobytes() + inner_scales.tobytes()
    for n in fingerprint.ROWS:
        yield first((_integers(n, size).numpy().astype(np.int16) + ZERO).astype(np.uint8)).tobytes()


fingerprint.OPERATIONS[PRECISION] = operations
