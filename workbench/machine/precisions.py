"""Which precision models compute fastest in, measured: a processor may know bfloat16 and still be slower in it.

The products that models make are timed, in turn in each precision, three times. float32 is taken unless another precision is
at least `FASTER` times as fast in each of the three. Training and inference are judged apart.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench import hardware, products
from workbench.machine import record

VERSION = 1  # raised when other products are timed, or timed otherwise
FASTER = 1.15
GPU_ROWS = 16  # times as many rows on a GPU, where launching small products takes longer than computing them
TIMINGS = 3
REPEATS = 3  # calls of which the quickest is a timing: another process may take the processor away for one of them
OTHERS = ("bfloat16",)  # what float32 is held against
MAX_SPREAD = 1.25  # the slowest timing of a precision over its quickest: more means that something else ran meanwhile
ATTEMPTS = 3  # at timings that agree
TOO_SLOW = 4.0  # so many times slower in a first look, another precision is not timed further


@dataclass(frozen=True)
class Product:
    """A product of float (rows, inputs) with weights (outputs, inputs), and how often a model makes it beside the others."""

    rows: int
    inputs: int
    outputs: int
    times: int = 1

    @property
    def operations(self) -> float:
        """Multiplications and additions of all its times."""
        return 2.0 * self.rows * self.inputs * self.outputs * self.times


# Of the built-in models: passages embedded, prompts read, one-token steps (whose cost is reading the weights, the head's most)
INFERENCE = (Product(512, 384, 1536, 2), Product(256, 576, 1536, 3), Product(256, 576, 576, 2), Product(16, 576, 49152))
TRAINING = (Product(256, 576, 1536, 2), Product(256, 576, 576))
USES = {"inference": INFERENCE, "training": TRAINING}


@dataclass(frozen=True)
class Choice:
    """The precisions chosen, and why in words."""

    inference: str
    training: str
    reason: str


def choose(device: str) -> Choice:
    """The precisions for a device, by the timings kept of it."""
    table = measured(device)
    chosen = {use: fastest(rows) for use, rows in table.items()}
    return Choice(chosen["inference"], chosen["training"], reason(table, chosen))


def fastest(timings: dict[str, list[float]]) -> str:
    """The precision to take, of seconds by precision: float32, or the one that is surely faster; of several the fastest.

    A precision without timings was far too slow in a first look.
    """
    reference = timings["float32"]
    surely = {name: min(ratios(timings, name)) for name in timings if name != "float32" and len(timings[name]) == len(reference)}
    best = max(surely, key=surely.__getitem__, default="float32")
    return best if surely.get(best, 0.0) >= FASTER else "float32"


def ratios(timings: dict[str, list[float]], precision: str) -> list[float]:
    """How many times as fast as float32 a precision was in each timing."""
    return [a / b for a, b in zip(timings["float32"], timings[precision], strict=False)]


def reason(table: dict[str, dict[str, list[float]]], chosen: dict[str, str]) -> str:
    """The choice in words."""
    said = []
    for use, timings in table.items():
        for name in timings:
            if name == "float32":
                continue
            found = ratios(timings, name)
            speed = f"{min(found):.2f} to {max(found):.2f} times float32's speed" if found else "far below float32's speed"
            said.append(f"{chosen[use]} for {use}, because products in {name} were measured at {speed}")
    others = " or ".join(OTHERS)
    return "; ".join(said) + f" ({others} is chosen only where it is at least {FASTER} times as fast in all {TIMINGS} timings)"


def measured(device: str) -> dict[str, dict[str, list[float]]]:
    """Seconds by use (``inference``, ``training``) and precision, three each; timed once on each machine."""
    found: dict[str, dict[str, list[float]]] = record.kept(f"products {VERSION} {device}", lambda: timed(device))
    return found


def timed(device: str) -> dict[str, dict[str, list[float]]]:
    """As `measured`, timed now: about a second, and again, twice at most, where another process disturbed it."""
    return {use: _steadiest(use, device) for use in USES}


def speed(device: str, use: str, precision: str) -> float:
    """Speed of a use's products, in 10^9 operations a second; one too slow to be timed counts as `TOO_SLOW` times slower."""
    timings = measured(device)[use]
    found = timings.get(precision) or [TOO_SLOW * seconds for seconds in timings["float32"]]
    return gigaflops(device, use, statistics.median(found))


def gigaflops(device: str, use: str, seconds: float) -> float:
    """Speed of a use's products in 10^9 operations a second; backward passes cost twice the forward ones."""
    operations = sum(product.operations for product in USES[use]) * (GPU_ROWS if device == "cuda" else 1)
    return operations * (3 if use == "training" else 1) / seconds / 1e9


def _steadiest(use: str, device: str) -> dict[str, list[float]]:
    """Timings of a use: the first ones that agree, else those that differ least."""
    attempts = []
    for _ in range(ATTEMPTS):
        timings = _timed(use, device)
        spread = max(max(seconds) / min(seconds) for seconds in timings.values() if seconds)
        attempts.append((spread, timings))
        if spread <= MAX_SPREAD:
            break
    return min(attempts, key=lambda attempt: attempt[0])[1]


def _timed(use: str, device: str) -> dict[str, list[float]]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(hardware.threads())
    try:
        calls = {name: _call(use, device, name) for name in ("float32", *OTHERS)}
        looks = {name: _look(device, name) for name in calls}
        alive = [name for name in calls if looks[name] <= TOO_SLOW * looks["float32"]]
        for name in alive:
            calls[name]()  # libraries set themselves up in a first call
        found: dict[str, list[float]] = {name: [] for name in calls}
        for i in range(TIMINGS):
            for name in alive if i % 2 == 0 else reversed(alive):
                found[name].append(min(_seconds(calls[name], device) for _ in range(REPEATS)))
        return found
    finally:
        torch.set_num_threads(before)


def _look(device: str, precision: str) -> float:
    """Seconds of one small product, the second time it is made."""
    import torch

    rows, weights = (torch.ones(shape, device=device, dtype=getattr(torch, precision)) for shape in ((32, 576), (1536, 576)))

    def product() -> None:
        with torch.inference_mode():
            products.linear(rows, weights)

    product()
    return min(_seconds(product, device) for _ in range(3))


def _call(use: str, device: str, precision: str) -> Callable[[], None]:
    """What makes all products of a use once."""
    import torch

    kind, trains = getattr(torch, precision), use == "training"
    scale = GPU_ROWS if device == "cuda" else 1
    made: dict[Product, Any] = {}

    def call() -> None:
        for product in USES[use]:
            if product not in made:
                made[product] = [
                    torch.ones(shape, device=device, dtype=kind, requires_grad=trains)
                    for shape in ((product.rows * scale, product.inputs), (product.outputs, product.inputs))
                ]
            rows, weights = made[product]
            for _ in range(product.times):
                with torch.inference_mode(not trains):
                    found = (torch.nn.functional.linear if trains else products.linear)(rows, weights)
                if trains:
                    found.sum().backward()  # type: ignore[no-untyped-call]

    return call


def _seconds(call: Callable[[], None], device: str) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
