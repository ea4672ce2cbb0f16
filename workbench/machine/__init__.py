"""The machine: what it has, what it computes fastest in, which bits come out, and whether they depend on a batch."""

from workbench.hardware import (
    cpu_count,
    cpu_flags,
    cpu_name,
    cuda_device,
    instruction_set,
    memory_gib,
    peak_gb,
    release_memory,
    threads,
)
from workbench.machine.machine import DEVICES, INDEXES, NO_MACHINE, PRECISIONS, Machine, resolve

__all__ = [
    "DEVICES",
    "INDEXES",
    "NO_MACHINE",
    "PRECISIONS",
    "Machine",
    "cpu_count",
    "cpu_flags",
    "cpu_name",
    "cuda_device",
    "instruction_set",
    "memory_gib",
    "peak_gb",
    "release_memory",
    "resolve",
    "threads",
]
