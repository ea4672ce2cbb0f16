"""Matrix products in which a row comes out with the same bits whatever rows are multiplied with it.

torch multiplies float32 with Intel's MKL, which picks its kernel by the number of rows, by the threads and by the maker of the
processor. On an AMD EPYC the last rows of 5, 6, 7, 9, 10 and 11 come out otherwise with two threads; on an Intel Xeon the
first rows of 224 other than those of 192. The vector or answer of one text would then depend on the texts beside it.

So the layers of a model multiply through oneDNN, as torch does in bfloat16 anyway: there rows are equal from two on, for every
number of threads and every shape tried, and it is no slower. What is left to MKL (attention that is written out) has few and
equal rows for each item; on Intel's processors MKL computes it in its strict reproducible mode. docs/log.md has the tables.

None of it is believed on the machine at hand: `workbench.machine.independence` checks every model at its first use.
"""

from __future__ import annotations

import os
import platform
from functools import cache
from typing import TYPE_CHECKING

from workbench import hardware

if TYPE_CHECKING:
    import torch

VARIABLE = "MKL_CBWR"


def settle() -> None:
    """Has MKL multiply reproducibly in this process and those it starts; MKL looks at it once, at its first product.

    A mode that the environment names already stays.
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


def steady(model: torch.nn.Module) -> torch.nn.Module:
    """The model itself, whose linear layers now multiply by `linear` while no gradients are computed."""
    import torch

    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = _linear_layer()
        elif type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils":
            module.__class__ = _transposed_layer()
    return model


def linear(rows: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Rows (..., inputs) times weights (outputs, inputs) transposed, plus bias (outputs,): (..., outputs)."""
    import torch

    if rows.dtype == torch.float32 and rows.device.type == "cpu" and rows.numel() and _onednn():
        return torch.ops.mkldnn._linear_pointwise(rows, weights, bias, "none", [], "")
    return torch.nn.functional.linear(rows, weights, bias)


@cache
def _onednn() -> bool:
    """Whether torch has oneDNN here, and gives its products to programs; elsewhere than on x86 others stand behind it."""
    import torch

    here = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()
    return here and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@cache
def _linear_layer() -> type[torch.nn.Linear]:
    import torch

    class SteadyLinear(torch.nn.Linear):
        """`torch.nn.Linear` that multiplies by `linear`; a gradient cannot pass through that."""

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return super().forward(rows) if torch.is_grad_enabled() else linear(rows, self.weight, self.bias)

    return SteadyLinear


@cache
def _transposed_layer() -> type[torch.nn.Module]:
    import torch
    from transformers.pytorch_utils import Conv1D

    class SteadyConv1D(Conv1D):
        """transformers' layer with weights (inputs, outputs) that multiplies by `linear`."""

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return super().forward(rows) if torch.is_grad_enabled() else linear(rows, self.weight.t(), self.bias)

    return SteadyConv1D
