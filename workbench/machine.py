"""What this machine computes with, found without importing torch: device, instruction set, precision.

Only what changes results to the last bit is part of keys (`Machine.arithmetic`): the device's class, its instruction
set or compute capability, and the precision. Batch sizes and thread counts are not.
"""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from workbench.errors import InputError

PRECISIONS = ("bfloat16", "float32")
DEVICES = ("cpu", "cuda")
INDEXES = ("faiss-cpu", "faiss-gpu", "torch")  # what can search vectors; see `workbench.retrieval.backends`


@dataclass(frozen=True)
class Machine:
    """Where and how models compute.

    Attributes:
        device: ``cpu`` or ``cuda``.
        kind: instruction set of the processor (``x86_64/avx512_bf16``) or capability of the GPU (``sm_90``).
        precision: ``bfloat16`` or ``float32``; the arithmetic of models (scores and metrics are always float64).
        batch_size: rows per forward pass of the generator; never part of a key.
        reason: why the precision and device were chosen, for people.
        index: what searches vectors: ``auto`` or one of `INDEXES`.
    """

    device: str
    kind: str
    precision: str
    batch_size: int = 16
    reason: str = ""
    index: str = "auto"

    @property
    def arithmetic(self) -> str:
        """The part of a key that says which bits a model's sums come out with."""
        return f"{self.device}/{self.kind}/{self.precision}"


def resolve(device: str = "auto", precision: str = "auto", batch_size: int | str = "auto", index: str = "auto") -> Machine:
    """The machine to compute on.

    Args:
        device: ``auto`` (CUDA when a GPU and a CUDA build of torch are there), ``cpu`` or ``cuda``.
        precision: ``auto`` (bfloat16 where the hardware multiplies in it), ``bfloat16`` or ``float32``.
        batch_size: ``auto`` or the rows per forward pass of the generator, at least 4 (see `models.generator`).
        index: ``auto`` or what searches vectors, one of `INDEXES`; whether it can is found when vectors are searched.

    Raises:
        InputError: a value outside these, or ``cuda`` on a machine without it.
    """
    if device not in ("auto", *DEVICES):
        raise InputError(f"machine.device: received {device!r}; allowed: auto, cpu, cuda")
    if precision not in ("auto", *PRECISIONS):
        raise InputError(f"machine.precision: received {precision!r}; allowed: auto, bfloat16, float32")
    if batch_size != "auto" and not (isinstance(batch_size, int) and batch_size >= 4):
        raise InputError(f"machine.batch_size: received {batch_size!r}; allowed: auto or a whole number from 4")
    if index not in ("auto", *INDEXES):
        raise InputError(f"machine.index: received {index!r}; allowed: auto, {', '.join(INDEXES)}")
    gpu = cuda_device() if device != "cpu" else None
    if device == "cuda" and gpu is None:
        raise InputError("machine.device: cuda was asked for, but no CUDA GPU with a CUDA build of torch was found; use auto")
    if gpu is not None:
        kind, native, reason = gpu.kind, gpu.capability >= (8, 0), f"GPU {gpu.name}"
        device = "cuda"
    else:
        flags = cpu_flags()
        native = bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
        kind, reason = f"{platform.machine()}/{instruction_set(flags)}", "no CUDA GPU"
        device = "cpu"
    if precision == "auto":
        precision = "bfloat16" if native else "float32"
        reason += f"; {precision}, because the hardware {'has' if native else 'lacks'} bfloat16 products"
    rows = (32 if gpu else 16) if batch_size == "auto" else batch_size
    return Machine(device, kind, precision, rows, reason, index)


@cache
def cpu_flags() -> frozenset[str]:
    """Feature flags of the processor in the kernel's spelling; empty where the system does not list them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    lines = [line for line in text.splitlines() if line.lower().startswith(("flags", "features"))]
    return frozenset(lines[0].split(":", 1)[1].split()) if lines else frozenset()


def instruction_set(flags: frozenset[str]) -> str:
    """The widest instruction set that numerical libraries dispatch on."""
    for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "bf16", "asimd"):
        if name in flags:
            return name
    return "generic"


def cpu_name() -> str:
    """The processor's model name, for people."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def cpu_count() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    """Physical memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


@dataclass(frozen=True)
class Gpu:
    """The first CUDA device: its name, compute capability and memory in GiB."""

    name: str
    capability: tuple[int, int]
    memory_gib: float

    @property
    def kind(self) -> str:
        """Compute capability as compilers write it, e.g. ``sm_90``."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


@cache
def cuda_device() -> Gpu | None:
    """The first CUDA device, or None without driver, device or a CUDA build of torch.

    Asks the driver library directly: importing torch for this would take seconds in runs that compute nothing.
    """
    try:
        build = metadata.version("torch")
        driver = ctypes.CDLL("libcuda.so.1")
    except (metadata.PackageNotFoundError, OSError):
        return None
    if build.endswith("+cpu") or driver.cuInit(0) != 0:
        return None
    device, count, value = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return None
    driver.cuDeviceGet(ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, 256, device)
    capability = []
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    size = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    return Gpu(name.value.decode(), tuple(capability), size.value / 2**30)
