"""What a node must have in common with the driver, found out by both in the same way and compared."""

from __future__ import annotations

import platform
from pathlib import Path

from workbench import provenance
from workbench.component import digest, file_digest, library_version
from workbench.errors import InputError
from workbench.machine import Machine, fingerprint
from workbench.machine.machine import resolve

LIBRARIES = ("numpy", "torch", "transformers", "sentence-transformers", "peft", "faiss", "bm25s", "pyarrow", "openvino", "numba")


def facts(machine: Machine) -> dict[str, str]:
    """What decides the bits that a process computes, by name.

    Args:
        machine: what it computes on.
    """
    found = {"Python": ".".join(platform.python_version_tuple()[:2]), "the workbench's code": code()}
    found |= {name: library_version(name) for name in LIBRARIES}
    found["arithmetic"] = machine.arithmetic
    found["arithmetic of trainings"] = machine.for_training().arithmetic
    if found["faiss"] != "absent":
        found["arithmetic of indexes"] = fingerprint.of_indexes()
    return found


def unlike_record(machine: Machine) -> str | None:
    """Why this process does not compute as recorded of its machine, or None.

    Args:
        machine: what it computes on.
    """
    try:
        machine.prepare()
    except InputError as error:
        return str(error)
    return None


def like(machine: Machine) -> Machine:
    """The machine of this process that computes as another one does, as far as it can.

    Args:
        machine: the driver's.

    Raises:
        InputError: it lacks the device.
    """
    return resolve(machine.device, machine.precision, machine.batch_size, machine.index, machine.training or "auto")


def difference(here: dict[str, str], there: dict[str, str]) -> str | None:
    """The first thing in which a node differs, in words; or None.

    Args:
        here: the driver's facts.
        there: the node's.
    """
    for name, value in here.items():
        if there.get(name) != value:
            return f"{name} is {there.get(name, 'not known')} there and {value} here"
    return None


def code() -> str:
    """Digest of the package's files, its first twelve characters."""
    files = sorted(Path(provenance.PACKAGE).rglob("*.py"))
    return digest([[path.relative_to(provenance.PACKAGE).as_posix(), file_digest(path)] for path in files])[:12]
