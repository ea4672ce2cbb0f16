"""What searches vectors on a machine: FAISS on the processor, FAISS on a GPU, or torch; chosen, and said why.

It is the machine's matter: exact search gives the same ranking on each of them, since `Dense` scores its candidates again.
What an approximate index proposes may differ, so what it was learned on goes into its key.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from workbench.errors import InputError, MissingExtraError
from workbench.machine import Machine, fingerprint

PROBE_SECONDS = 120
# FAISS ends the process where a kernel is missing, so a process of its own tries one
PROBE = """
import faiss, numpy
index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), 8)
index.add(numpy.eye(8, dtype="float32"))
assert index.search(numpy.eye(8, dtype="float32"), 1)[1].ravel().tolist() == list(range(8))
"""


@dataclass(frozen=True)
class Backend:
    """What searches vectors.

    Attributes:
        name: ``faiss-cpu``, ``faiss-gpu`` or ``torch``; the last searches exactly and leaves other indexes to the first.
        reason: why it was chosen, for people.
        device: where torch computes.
    """

    name: str
    reason: str
    device: str = "cpu"


CPU = Backend("faiss-cpu", "it needs nothing else")


def faiss() -> ModuleType:
    """The module `faiss`, which `faiss-cpu` and `faiss-gpu` both provide.

    Raises:
        MissingExtraError: neither is installed.
    """
    try:
        import faiss as module
    except ModuleNotFoundError as error:
        raise MissingExtraError("faiss-cpu", "cpu", "a dense index") from error
    return module


def choose(machine: Machine) -> Backend:
    """The backend of a machine.

    Raises:
        InputError: `machine.index` asks for one that cannot work here.
    """
    asked = machine.index
    if asked in ("faiss-cpu", "torch"):
        return Backend(asked, "machine.index asks for it", machine.device)
    lacking = gpu_lack() if machine.device == "cuda" else "models compute on the processor"
    if asked == "faiss-gpu" and lacking:
        raise InputError(f"machine.index: faiss-gpu was asked for, but {lacking}; use auto")
    if not lacking:
        return Backend("faiss-gpu", "this FAISS computes on the GPU", machine.device)
    return Backend("torch", lacking, machine.device) if machine.device == "cuda" else Backend("faiss-cpu", lacking)


@cache
def gpu_lack() -> str:
    """Why FAISS cannot compute on a GPU here; empty where it can."""
    try:
        options = " ".join(faiss().get_compile_options().split())
    except MissingExtraError:
        return "FAISS is not installed"
    if not hasattr(faiss(), "StandardGpuResources"):
        return f"this FAISS has no GPU kernels (compiled for {options})"
    if not faiss().get_num_gpus():
        return "FAISS sees no GPU"
    try:
        tried = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"FAISS did not answer from the GPU within {PROBE_SECONDS} s"
    return f"FAISS fails on the GPU: {_last_line(tried.stderr)}" if tried.returncode else ""


def arithmetic(machine: Machine, learned: bool) -> str | None:
    """What a key has to say of what builds and searches an index.

    Args:
        machine: where.
        learned: whether FAISS learns the index from the vectors, as all approximate ones: what it learns depends on the
            processor or GPU. An exact index holds the vectors as they are, and a vector store does not compute with FAISS.
    """
    if not learned:
        return None
    if choose(machine).name == "faiss-gpu":
        # some kinds are learned on the processor all the same
        return f"faiss-gpu/{machine.kind}/{fingerprint.of_indexes()}"
    return f"faiss-cpu/{fingerprint.of_indexes()}"


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.strip().splitlines()) if line.strip()), "no message")
