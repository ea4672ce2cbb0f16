"""Matrix products in which a row comes out with the same bits whatever rows are multiplied with it.

torch multiplies float32 with Intel's MKL, which picks its kernel by the number of rows, by the threads and by the maker of the
processor. On an AMD EPYC the last rows of 5, 6, 7, 9, 10 and 11 change with two threads; on an Intel Xeon the first rows of
224 differ from those of 192. The vector or answer of one text would then depend on the texts beside it.

Two things are done about it. On Intel's processors MKL is asked for its strict reproducible mode, in which rows are equal. And
the layers of a model multiply through oneDNN, as torch does in bfloat16 anyway, wherever a quick look finds that its rows are
equal (on an AMD EPYC from two rows on, for every number of threads and every shape tried; and it is no slower). docs/log.md has
the tables. Neither is taken for granted: `workbench.machine.independence` checks every model at its first use on a machine.
"""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from workbench import hardware

if TYPE_CHECKING:
    import torch

M = TypeVar("M", bound="torch.nn.Module")

VARIABLE = "MKL_CBWR"
LOOKED_AT = ((384, 1536), (1536, 384), (576, 192), (384, 1))  # inputs, outputs
ROWS = (2, 3, 4, 5, 7, 11, 16, 48, 192, 224, 512)
# whether torch was there before this module, and may have multiplied by then
TORCH_CAME_FIRST = "torch" in sys.modules


def use_reproducible_mkl() -> None:
    """Makes MKL multiply reproducibly in this process and those it starts; MKL reads the variable once, at its first product.

    A value that the environment already has is kept.
    """
    if mode := strict_mode(hardware.cpu_vendor(), hardware.cpu_flags()):
        os.environ.setdefault(VARIABLE, mode)


def strict_mode(vendor: str, flags: frozenset[str]) -> str | None:
    """MKL's strict reproducible mode for a processor; None where it has none: other makers' get slower kernels by it."""
    if vendor != "GenuineIntel":
        return None
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"} <= flags:
        return "AVX512,STRICT"
    return "AVX2,STRICT" if "avx2" in flags else None


def with_independent_rows(model: M) -> M:
    """The model itself, whose linear layers now multiply by `linear` while no gradients are computed.

    Its layers get another class, a subclass of theirs. They can be copied and their weights saved as before, but not pickled.
    """
    import torch

    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = _linear_layer()
        elif type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils":
            module.__class__ = _transposed_layer()
    return model


def linear(rows: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Rows (..., inputs) times weights (outputs, inputs) transposed, plus bias (outputs,): (..., outputs); float32 or bfloat16.

    From two rows on each comes out the same whatever the others are, where oneDNN keeps that; elsewhere it is torch's product.
    """
    import torch

    on_processor = rows.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if on_processor and rows.dtype == weights.dtype == torch.float32 and rows.numel() and onednn_keeps_rows_apart():
        return _by_onednn(rows, weights, bias)
    return torch.nn.functional.linear(rows, weights, bias)


def _by_onednn(rows: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    import torch

    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weights, bias, "none", [], "")
    return product


@cache
def onednn_keeps_rows_apart() -> bool:
    """Whether torch has oneDNN here, gives its products to programs, and its rows do not depend on each other: a quick look."""
    import torch

    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False  # elsewhere other libraries stand behind it
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and all(_keeps_rows_apart(*shape) for shape in LOOKED_AT)


def _keeps_rows_apart(inputs: int, outputs: int) -> bool:
    """Whether the first rows of a product are the same with fewer rows, with one thread and with all."""
    import torch

    def numbers(n: int) -> torch.Tensor:
        return torch.arange(n * inputs).mul(2654435761).remainder(2**32).div(2**31).sub(1).view(n, inputs)

    rows, weights = numbers(ROWS[-1]), numbers(outputs)
    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            expected = _by_onednn(rows, weights)
            for threads in (1, max(2, hardware.threads())):
                torch.set_num_threads(threads)
                if not all(torch.equal(_by_onednn(rows[:n].contiguous(), weights), expected[:n]) for n in ROWS):
                    return False
    finally:
        torch.set_num_threads(before)
    return True


@cache
def _linear_layer() -> type[torch.nn.Linear]:
    import torch

    class IndependentLinear(torch.nn.Linear):
        """`torch.nn.Linear` that multiplies by `linear`; a gradient cannot pass through that."""

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return super().forward(rows) if torch.is_grad_enabled() else linear(rows, self.weight, self.bias)

    return IndependentLinear


@cache
def _transposed_layer() -> type[torch.nn.Module]:
    import torch
    from transformers.pytorch_utils import Conv1D

    class IndependentConv1D(Conv1D):
        """transformers' layer with weights (inputs, outputs) that multiplies by `linear`."""

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            if not torch.is_grad_enabled():
                return linear(rows, self.weight.t(), self.bias)
            product: torch.Tensor = super().forward(rows)  # type: ignore[no-untyped-call]
            return product

    return IndependentConv1D
