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

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError
from workbench.machine import Machine, fingerprint

if TYPE_CHECKING:
    import torch

PRECISION = "int8_products"  # the name of this arithmetic in keys and fingerprints
CONVERSION = 1  # raised when the same weights become other integers
STEPS = 127  # of a scale, on each side of zero
WIDEST = 64  # numbers that are mixed while computing: more cost more and were no better
SHAPES = ((1, 576, 960), (7, 1536, 576), (48, 576, 3072), (3, 40, 72))  # rows, inputs, outputs of the look at exactness
ZERO = 128  # what stands for zero among unsigned integers
SMALLEST = 1e-30  # scale of a row of zeros


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


def rounded(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 rows (n, inputs) as whole numbers from -127 to 127, of the same shape and kind, and their scales, float32 (n, 1).

    Rows are about whole numbers times scales.
    """
    scales = rows.abs().amax(-1, keepdim=True).mul_(1 / STEPS).clamp_(min=SMALLEST)
    return rows.div(scales).round_(), scales


class Product:
    """A product with a matrix of weights, in integers.

    Attributes:
        weights: int8 (inputs, outputs).
        scales: float32 (outputs,).
        bias: float32 (outputs,), or None.
    """

    def __init__(self, weights: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        """Rounds.

        Args:
            weights: float64 (outputs, inputs).
            bias: float64 (outputs,), or None.
        """
        import torch

        scales = (weights.abs().amax(1) / STEPS).clamp(min=SMALLEST)
        integers = (weights / scales[:, None]).round().to(torch.int8).contiguous()  # packing wants them so
        self.weights, self.scales = integers.t(), scales.float()
        self.bias = None if bias is None else bias.float()
        self.packed = torch.ops.onednn.qlinear_prepack(integers, None) if exact() else None
        self.zeros = torch.zeros(len(scales), dtype=torch.int32)

    def __call__(self, integers: torch.Tensor, scales: torch.Tensor, states: torch.Tensor | None = None) -> torch.Tensor:
        """Rounded rows times the weights, plus the bias, plus states.

        Args:
            integers: float32 (n, inputs), see `rounded`; changed.
            scales: float32 (n, 1).
            states: float32 (n, outputs), or None.

        Returns:
            Float32 (n, outputs).
        """
        found = self._sums(integers).mul_(scales)
        if self.bias is not None:
            found.add_(self.bias)
        return found if states is None else found.add_(states)

    def _sums(self, integers: torch.Tensor) -> torch.Tensor:
        """Whole numbers times the integer weights, summed exactly, times the scales of the weights: float32 (n, outputs)."""
        if self.packed is None:
            return (integers.double() @ self.weights.double()).float().mul_(self.scales)
        if len(integers) == 1:
            return _one_row(integers, self.weights).mul_(self.scales)
        return _rows(integers, self.packed, self.scales, self.zeros)


def _one_row(integers: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Whole numbers, float32 (1, inputs), times int8 (inputs, outputs): float32 (1, outputs). One row is quicker so."""
    import torch

    return torch._int_mm(integers.to(torch.int8), weights).to(torch.float32)


def _rows(integers: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> torch.Tensor:
    """Whole numbers, float32 (n, inputs), times packed weights, times the scales of these: float32 (n, outputs)."""
    import torch

    shifted = integers.add_(ZERO).to(torch.uint8)
    found: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        shifted, 1.0, ZERO, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return found


@cache
def exact() -> bool:
    """Whether torch's products of integers are exact on this processor; else they are computed in float64, exact but slower.

    Processors without instructions for them multiply pairs in 16 bits, which large integers overflow.
    """
    try:
        return all(_exact(*shape) for shape in SHAPES)
    except (AttributeError, RuntimeError):  # a torch without these products
        return False


def _exact(rows: int, inputs: int, outputs: int) -> bool:
    """Whether both ways to a product of a shape are exact, also where all its integers are as large as they can be."""
    import torch

    large = torch.full((rows, inputs), STEPS, dtype=torch.int8), torch.full((outputs, inputs), STEPS, dtype=torch.int8)
    for left, right in (large, (-large[0], large[1]), (_integers(rows, inputs), _integers(outputs, inputs))):
        expected = (left.double() @ right.double().t()).float()
        scales, zeros = torch.ones(outputs), torch.zeros(outputs, dtype=torch.int32)
        found = _rows(left.float(), torch.ops.onednn.qlinear_prepack(right, None), scales, zeros)
        if not (torch.equal(found, expected) and torch.equal(_one_row(left[:1].float(), right.t()), expected[:1])):
            return False
    return True


def _integers(*shape: int) -> torch.Tensor:
    import torch

    return torch.from_numpy((fingerprint.numbers(*shape) * STEPS).round()).to(torch.int8)


def on(machine: Machine) -> Machine:
    """The machine, computing in this arithmetic.

    Raises:
        InputError: it computes on a GPU.
    """
    if machine.device != "cpu":
        raise InputError(f"precision int8 is for processors; on {machine.device} leave it out, or set machine.device to cpu")
    return replace(machine, precision=PRECISION)


def definition() -> dict[str, Any]:
    """What decides the integers beside the weights; part of keys."""
    return {"conversion": CONVERSION, "widest": WIDEST}


def operations(device: str) -> Iterator[bytes]:
    """What goes into the fingerprint of this arithmetic: products of a few rows with their rotation, and the norms around."""
    import torch

    with torch.inference_mode():
        product = Product(rotated(torch.from_numpy(fingerprint.numbers(576, 1536)).double(), WIDEST))
        for n in fingerprint.ROWS:
            rows = torch.from_numpy(fingerprint.numbers(n, 1536))
            integers, scales = rounded(rows)
            yield integers.numpy().tobytes()
            yield product(integers, scales * torch.rsqrt(rows.square().mean(-1, keepdim=True) + 1e-5)).numpy().tobytes()


fingerprint.OPERATIONS[PRECISION] = operations
