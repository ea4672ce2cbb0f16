"""What was measured once on a machine, kept in ``machine.json`` in `WORKBENCH_HOME`.

A home folder may be shared by machines that differ, and libraries are updated. So every measurement is kept under the
identity of the machine: its processor or GPU, the libraries that compute, and the environment's variables by which these
choose their instructions. How many threads they use is no part of it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from workbench import hardware, weights
from workbench.component import ALTERNATIVES, digest

FILE = "machine.json"
LIBRARIES = ("torch", "faiss", "openvino", "numba", "llvmlite")
# by these the libraries choose their instructions, and with them the order of their sums
CHOOSERS = (
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_DEBUG_CPU_TYPE",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "ATEN_CPU_CAPABILITY",
    "OPENBLAS_CORETYPE",
    "FAISS_OPT_LEVEL",
    "NUMBA_CPU_NAME",
    "NUMBA_CPU_FEATURES",
    "NUMBA_OPT",
    "NVIDIA_TF32_OVERRIDE",
)


def path() -> Path:
    """Where the record is kept."""
    return weights.home() / FILE


def identity() -> dict[str, Any]:
    """What tells machines apart whose bits or speeds may differ, as JSON values."""
    gpu = hardware.cuda_device()
    return {
        "processor": hardware.cpu_name(),
        "details": digest([hardware.cpu_details(), sorted(hardware.cpu_flags())])[:16],
        "gpu": gpu.name if gpu else None,
        "libraries": {name: _build(name) for name in LIBRARIES},
        "environment": {name: os.environ[name] for name in CHOOSERS if name in os.environ},
    }


def kept(name: str, measure: Callable[[], Any]) -> Any:
    """A measurement of this machine: read where it was made before, else made and kept.

    Another process that wants the same one meanwhile waits for it. Where the folder cannot be written, the measurement holds for
    this process alone.

    Args:
        name: what is measured; a name that says all it depends on beside the machine.
        measure: gives it, as JSON values.
    """
    here = identity()
    key, place = digest(here)[:16], path()
    if name in (known := _known(place, key)):
        return known[name]
    if (place, key, name) in _unwritten:
        return _unwritten[place, key, name]
    try:
        locks = place.parent / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        held = FileLock(locks / f"{digest([key, name])[:16]}.lock").acquire()
    except OSError:
        return _unwritten.setdefault((place, key, name), _timed(measure))
    with held:
        if name in (known := _known(place, key)):
            return known[name]
        value = _timed(measure)
        try:
            with FileLock(locks / f"{FILE}.lock"):
                _write(place, key, here, name, value)
        except OSError:
            _unwritten[place, key, name] = value
    return value


def seconds_measuring() -> float:
    """Seconds that this process has spent on measurements made once on a machine, which no later run needs again."""
    return _spent[0]


def _timed(measure: Callable[[], Any]) -> Any:
    """What `measure` gives; its seconds count once, also where it asks for further measurements."""
    before, started = _spent[0], time.monotonic()
    try:
        return measure()
    finally:
        _spent[0] = before + time.monotonic() - started


def named(prefix: str) -> list[Any]:
    """The measurements kept of this machine whose names begin so, by name."""
    known = _known(path(), digest(identity())[:16])
    return [known[name] for name in sorted(known) if name.startswith(prefix)]


_unwritten: dict[tuple[Path, str, str], Any] = {}
_spent = [0.0]  # seconds


def _build(distribution: str) -> str:
    """Version of a library with its local part: builds of one version carry different kernels."""
    for name in ALTERNATIVES.get(distribution, (distribution,)):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return "absent"


def _known(place: Path, key: str) -> dict[str, Any]:
    """The measurements kept of a machine, by name."""
    try:
        state = place.stat()
    except OSError:
        return {}
    measured: dict[str, Any] = _parsed(place, state.st_mtime_ns, state.st_size).get(key, {}).get("measured", {})
    return measured


@lru_cache(maxsize=4)
def _parsed(place: Path, modified: int, size: int) -> dict[str, Any]:
    return _read(place)


def _read(place: Path) -> dict[str, Any]:
    """The whole record; empty where there is none, or one that is damaged: it holds nothing that cannot be measured again."""
    try:
        found = json.loads(place.read_text())
        whole = all(isinstance(entry["measured"], dict) for entry in found.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return found if whole else {}


def _write(place: Path, key: str, here: dict[str, Any], name: str, value: Any) -> None:
    record = _read(place)
    entry = record.setdefault(key, {"machine": here, "measured": {}})
    entry["measured"][name] = value
    temporary = place.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    temporary.replace(place)
