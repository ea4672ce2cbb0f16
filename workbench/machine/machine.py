"""Where and how models compute: the device, the precision, and what of it belongs into keys."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace

from workbench.errors import InputError
from workbench.hardware import cpu_flags, cuda_device, instruction_set, threads
from workbench.machine import fingerprint, precisions

PRECISIONS = ("bfloat16", "float32")
DEVICES = ("cpu", "cuda")
INDEXES = ("faiss-cpu", "faiss-gpu", "torch")  # what can search vectors; see `workbench.retrieval.indexes.backends`


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
        training: the precision that models are trained in; None: `precision`.
    """

    device: str
    kind: str
    precision: str
    batch_size: int = 16
    reason: str = ""
    index: str = "auto"
    training: str | None = None

    @property
    def arithmetic(self) -> str:
        """The part of a key that says which bits a model's sums come out with.

        Two machines of one kind may differ in bits, so the fingerprint of what they compute is part of it.
        """
        return f"{self.device}/{self.kind}/{self.precision}/{fingerprint.of(self.device, self.precision)}"

    def for_training(self) -> Machine:
        """The machine in the precision that models are trained in."""
        return replace(self, precision=self.training or self.precision)

    def prepare(self) -> None:
        """What has to be done before a model is loaded: torch's threads, and a look whether this process computes as recorded.

        Raises:
            InputError: its bits are others than those recorded of this machine.
        """
        import torch

        torch.set_num_threads(threads())
        fingerprint.confirm(self.device, self.precision)


@dataclass(frozen=True)
class NoMachine(Machine):
    """No machine in particular: whoever runs this does not say on which processor, so no model may compute here."""

    @property
    def arithmetic(self) -> str:
        """No bits that anybody measured."""
        return "none"

    def prepare(self) -> None:
        """Refuses to compute.

        Raises:
            InputError: always.
        """
        raise InputError("no model computes here, since nobody says on which processor; serve this on a machine of your own")


NO_MACHINE = NoMachine("cpu", "any", "float32", reason="servers compute")


def resolve(
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | str = "auto",
    index: str = "auto",
    training: str = "auto",
) -> Machine:
    """The machine to compute on.

    Args:
        device: ``auto`` (CUDA when a GPU and a CUDA build of torch are there), ``cpu`` or ``cuda``.
        precision: ``auto`` (what was measured to be faster, see `machine.precisions`), ``bfloat16`` or ``float32``.
        batch_size: ``auto`` or the rows per forward pass of the generator, at least 4 (see `models.generator`).
        index: ``auto`` or what searches vectors, one of `INDEXES`; whether it can is found when vectors are searched.
        training: what models are trained in, where that is not `precision`; ``auto``: where `precision` is ``auto`` too, what was
            measured to be faster, else `precision`.

    Raises:
        InputError: a value outside these, or ``cuda`` on a machine without it.
    """
    if device not in ("auto", *DEVICES):
        raise InputError(f"machine.device: received {device!r}; allowed: auto, cpu, cuda")
    for name, value in (("precision", precision), ("training", training)):
        if value not in ("auto", *PRECISIONS):
            raise InputError(f"machine.{name}: received {value!r}; allowed: auto, bfloat16, float32")
    if batch_size != "auto" and not (isinstance(batch_size, int) and batch_size >= 4):
        raise InputError(f"machine.batch_size: received {batch_size!r}; allowed: auto or a whole number from 4")
    if index not in ("auto", *INDEXES):
        raise InputError(f"machine.index: received {index!r}; allowed: auto, {', '.join(INDEXES)}")
    gpu = cuda_device() if device != "cpu" else None
    if device == "cuda" and gpu is None:
        raise InputError("machine.device: cuda was asked for, but no CUDA GPU with a CUDA build of torch was found; use auto")
    if gpu is not None:
        device, kind, reason = "cuda", gpu.kind, f"GPU {gpu.name}"
    else:
        device, kind, reason = "cpu", f"{platform.machine()}/{instruction_set(cpu_flags())}", "no CUDA GPU"
    if precision == "auto":
        choice = precisions.choose(device)
        precision, reason = choice.inference, f"{reason}; {choice.reason}"
        training = choice.training if training == "auto" else training
    rows = batch_size if isinstance(batch_size, int) else 32 if gpu else 16
    return Machine(device, kind, precision, rows, reason, index, None if training == "auto" else training)
