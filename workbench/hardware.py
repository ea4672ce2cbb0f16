"""What this machine has, found without importing torch: processor, threads, memory, GPU."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import resource
from dataclasses import dataclass
from functools import cache
from pathlib import Path


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


@cache
def cpu_name() -> str:
    """The processor's model name, for people."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


@cache
def cpu_details() -> tuple[str, ...]:
    """Lines of the system's description of the first processor that tell generations of one name apart: family, model, caches."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return (platform.processor(),)
    wanted = ("cpu family", "model", "stepping", "cache size", "CPU implementer", "CPU part", "CPU variant")
    return tuple(line for line in lines if line.split(":")[0].strip() in wanted)


@cache
def cpu_vendor() -> str:
    """Who made the processor, as it says itself (``GenuineIntel``, ``AuthenticAMD``); empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("vendor_id")), "")


def cpu_count() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Threads a model computes with: the processors this process may run on, or fewer where ``OMP_NUM_THREADS`` says so.

    A list (``4,2``, for nested teams) counts with its first number; a value that is no positive number is passed over, as
    OpenMP does.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(cpu_count(), int(asked)) if asked.isdecimal() and int(asked) > 0 else cpu_count()


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
    from importlib import metadata  # takes a while, and processes that read documents never ask

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

    def attribute(number: int) -> int:
        driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    capability = (attribute(75), attribute(76))  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
    size = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    return Gpu(name.value.decode(), capability, size.value / 2**30)


def peak_gb() -> float:
    """Peak memory of this process so far, in GB.

    On Linux from its own page: `getrusage` begins with the memory of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file() and (peak := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(peak[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def release_memory() -> None:
    """Gives memory that this process freed back to the system, where its C library can (glibc).

    It keeps what a training freed, about a gigabyte with the built-in generator, and whatever comes next takes more.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def alive(pid: int) -> bool:
    """Whether this machine has a process of that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
