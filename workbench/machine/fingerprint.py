"""A digest of what this machine computes: two machines with equal ones store what models computed under the same keys.

The instruction set does not decide the bits of a sum: libraries pick kernels by the processor's maker, its caches and their
own version. So a small fixed set of the operations that models are made of is computed, and the digest of the outcome is
part of the keys. Inputs are whole numbers divided by a power of two, which are the same everywhere.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from workbench import hardware, products
from workbench.errors import InputError
from workbench.machine import record

if TYPE_CHECKING:
    import torch

VERSION = 1  # raised when the operations change
SHAPES = ((384, 1536), (1536, 384), (576, 576), (576, 192), (576, 1536), (1536, 576), (576, 2048))  # inputs, outputs
ROWS = (4, 16, 48, 256)
LARGE = ((16, 8192, 576), (2048, 384, 1536))  # rows, inputs, outputs: more than a processor's nearer caches hold
INDEXES = "indexes"
GPU_ATTENTION = b"always with a mask"  # how models attend there; changed with `models.attention.MASKED`

# precision -> what is computed in it on a device; arithmetic that needs more than torch adds itself
OPERATIONS: dict[str, Callable[[str], Iterator[bytes]]] = {}
_confirmed: set[tuple[str, str]] = set()


def of(device: str, precision: str) -> str:
    """The fingerprint of a precision on a device, 16 hexadecimal characters; computed once on each machine."""
    measure = _in_a_new_process if products.TORCH_CAME_FIRST else computed
    found: str = record.kept(_name(device, precision), lambda: measure(device, precision))
    return found


def of_indexes() -> str:
    """The fingerprint of how FAISS builds approximate indexes on the processor, 16 hexadecimal characters."""
    return of("cpu", INDEXES)


def confirm(device: str, precision: str) -> None:
    """Makes sure, once in a process, that it computes as was recorded of this machine.

    Raises:
        InputError: it does not.
    """
    if (device, precision) in _confirmed:
        return
    expected, found = of(device, precision), computed(device, precision)
    if expected != found:
        raise InputError(
            f"this process computes {precision} with other bits on {device} than recorded for this machine in {record.path()} "
            f"({found}, there {expected}), so its results would not fit those in the store. Where torch multiplied before "
            f"workbench was imported, restart and import workbench first. Where this machine is another than its processor's "
            f"name says ({hardware.cpu_name()}), set WORKBENCH_HOME to a folder of its own, or remove that file"
        )
    _confirmed.add((device, precision))


def computed(device: str, precision: str) -> str:
    """The fingerprint as this process computes it now.

    That of a lower precision covers float32 too: models compute norms, heads and merged weights in it.
    """
    found = hashlib.sha256(GPU_ATTENTION if device == "cuda" else b"")
    for name in dict.fromkeys((precision, precision if precision == INDEXES else "float32")):
        for part in OPERATIONS[name](device):
            found.update(part)
    return found.hexdigest()[:16]


def _in_a_new_process(device: str, precision: str) -> str:
    """The fingerprint as a process computes it that imports this package before torch.

    Where torch came first it may have multiplied in a way that this process cannot change any more.
    """
    program = (
        "import sys; import workbench.retrieval.embedders.int8; import workbench.models.integers; "
        "from workbench.machine import fingerprint; print(fingerprint.computed(*sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", program, device, precision], capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def _name(device: str, precision: str) -> str:
    return f"fingerprint {VERSION} {device} {precision}"


def numbers(*shape: int) -> np.ndarray:
    """Numbers in -1 to 1 that look random, the same on every machine and with every version of NumPy.

    Args:
        shape: of the array, e.g. (rows, columns); it is float32.
    """
    spread = np.arange(1, np.prod(shape) + 1, dtype=np.uint64) * 2654435761 % 2**32  # Knuth's multiplicative hash
    return ((spread // 2**11).astype(np.float32) / 2**20 - 1).reshape(shape)


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Torch computing with n threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _of_models(precision: str) -> Callable[[str], Iterator[bytes]]:
    """What transformers are made of, forward and backward, in a precision of torch's."""

    def operations(device: str) -> Iterator[bytes]:
        import torch

        kind = getattr(torch, precision)

        def given(*shape: int) -> torch.Tensor:
            return torch.from_numpy(numbers(*shape)).to(device, kind)

        with torch.inference_mode():
            for inputs, outputs in SHAPES:
                rows, weights = given(max(ROWS), inputs), given(outputs, inputs)
                for n in ROWS:
                    yield _bytes(products.linear(rows[:n].contiguous(), weights))
            for n, inputs, outputs in LARGE:
                yield _bytes(products.linear(given(n, inputs), given(outputs, inputs)))
            queries, keys, values = given(2, 9, 96, 64), given(2, 9, 128, 64)[:, :, :96], given(2, 9, 97, 64)[:, :, 1:]
            yield _bytes(torch.nn.functional.scaled_dot_product_attention(queries, keys, values, is_causal=True))
            seen = torch.ones(2, 1, 96, 96, dtype=torch.bool, device=device)
            seen[1, :, :, 80:] = False
            yield _bytes(torch.nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=seen))
            weights = queries @ keys.transpose(2, 3)
            yield _bytes(torch.softmax(weights.float(), dim=-1).to(kind) @ values)
            states = given(48, 576)
            yield _bytes(torch.nn.functional.layer_norm(states, (576,), given(576)))
            yield _bytes(states * torch.rsqrt(states.float().pow(2).mean(-1, keepdim=True) + 1e-5).to(kind))
            for function in (torch.nn.functional.gelu, torch.nn.functional.silu, torch.tanh, torch.cos, torch.sin, torch.exp):
                yield _bytes(function(states))
            yield _bytes(states.double().logsumexp(1))
            yield _bytes(torch.nn.functional.normalize(states.float(), dim=1))
        yield from _backward(given)

    def in_one_thread(device: str) -> Iterator[bytes]:
        with torch_threads(1):
            yield from operations(device)

    return in_one_thread


def _backward(given: Callable[..., torch.Tensor]) -> Iterator[bytes]:
    """The gradients of two layers and a loss."""
    import torch

    with torch.enable_grad():
        first, second = (weights.requires_grad_() for weights in (given(1536, 576), given(576, 1536)))
        states = torch.nn.functional.silu(torch.nn.functional.linear(given(120, 576), first))
        logits = torch.nn.functional.linear(states, second).float()
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(120, device=logits.device))
        loss.backward()  # type: ignore[no-untyped-call]
        if first.grad is None or second.grad is None:
            raise RuntimeError("torch computed no gradients")
        for tensor in (loss, first.grad, second.grad):
            yield _bytes(tensor)


def _bytes(tensor: torch.Tensor) -> bytes:
    import torch

    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


def _of_indexes(device: str) -> Iterator[bytes]:
    """Centres, codes and a graph, built by FAISS with one thread."""
    import faiss

    vectors = numbers(1_000, 32)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        for description in ("IVF8,PQ4x4", "HNSW8"):
            index = faiss.index_factory(32, description, faiss.METRIC_INNER_PRODUCT)
            index.train(vectors)
            index.add(vectors)
            yield faiss.serialize_index(index).tobytes()
    finally:
        faiss.omp_set_num_threads(threads)


OPERATIONS |= {"float32": _of_models("float32"), "bfloat16": _of_models("bfloat16"), INDEXES: _of_indexes}
