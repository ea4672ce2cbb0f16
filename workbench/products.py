"""Matrix products in which a row comes out with the same bits whatever rows are multiplied with it.

torch multiplies float32 with Intel's MKL, which picks its kernel by the number of rows, by the threads and by the maker of the
processor. On an AMD EPYC the last rows of 5, 6, 7, 9, 10 and 11 change with two threads; on an Intel Xeon the first rows of
224 differ from those of 192. The vector or answer of one text would then depend on the texts beside it.

So the layers of a model multiply through oneDNN, as torch does in bfloat16 anyway: there rows are equal from two on, for every
number of threads and every shape tried, and it is no slower. What is left to MKL (attention that is written out) has few and
equal rows for each item; on Intel's processors MKL computes it in its strict reproducible mode. docs/log.md has the tables.

This is not taken for granted on any machine: `workbench.machine.independence` checks every model at its first use.
"""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from typing import TYPE_CHECKING

from workbench import hardware

if TYPE_CHECKING:
    import torch

VARIABLE = "MKL_CBWR"
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


def with_independent_rows(model: torch.nn.Module) -> torch.nn.Module:
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
    """Rows (..., inputs) times weights (outputs, inputs) transposed, plus bias (outputs,): (..., outputs).

    From two rows on each comes out the same whatever the others are, where oneDNN is there; elsewhere it is torch's product.
    """
    import torch

    on_processor = rows.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if on_processor and rows.dtype == weights.dtype == torch.float32 and rows.numel() and has_onednn():
        return torch.ops.mkldnn._linear_pointwise(rows, weights, bias, "none", [], "")
    return torch.nn.functional.linear(rows, weights, bias)


@cache
def has_onednn() -> bool:
    """Whether torch has oneDNN here, and gives its products to programs; elsewhere than on x86 others stand behind it."""
    import torch

    here = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()
    return here and hasattr(torch.ops.mkldnn, "_linear_pointwise")


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
            return super().forward(rows) if torch.is_grad_enabled() else linear(rows, self.weight.t(), self.bias)

    return IndependentConv1D
