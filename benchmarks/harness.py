"""Side-by-side measuring: two ways to the same output in one process, alternating, as the median of ratios.

Absolute times mean nothing on shared machines. Both sides are warmed up, their outputs are checked equal first, then
they run A B B A B A A B ... for several rounds; a round gives one ratio. A goal is met when the end of the bootstrap
interval that lies nearer to failure passes it.
"""

from __future__ import annotations

import ctypes
import gc
import random
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROUNDS = 7
RESAMPLES = 2000
PAUSE = 0.1  # seconds; threads of NumPy's products turn for about 0.03 more, and would take a core from the other side


@dataclass(frozen=True)
class Goal:
    """What a ratio has to reach: at least (``>=``) or at most (``<=``) a bound."""

    relation: str
    bound: float

    def met(self, low: float, high: float) -> bool:
        """Whether a whole interval fulfils the goal."""
        return low >= self.bound if self.relation == ">=" else high <= self.bound

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:g}"


@dataclass(frozen=True)
class Measurement:
    """One benchmark's outcome: the median of the ratios, its 95 % bootstrap interval, and all ratios."""

    name: str
    goal: Goal
    ratio: float
    low: float
    high: float
    ratios: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """``met``, or ``not met``."""
        return "met" if self.goal.met(self.low, self.high) else "not met"


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock seconds of a call, that begins when the threads of the one before it sleep."""
    time.sleep(PAUSE)
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def peak_bytes(call: Callable[[], Any]) -> float:
    """Most memory of the process during a call, above what it had before; Linux alone."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory that the process keeps for later would hide what a call takes
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status("VmRSS")
    call()
    return max(_status("VmHWM") - before, 1.0)


def _status(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024.0 * int(found[1])


def measure(
    name: str,
    goal: Goal,
    numerator: Callable[[], Any],
    denominator: Callable[[], Any],
    equal: Callable[[Any, Any], bool] | None = None,
    rounds: int = ROUNDS,
    warm_up: bool = True,
    cost: Callable[[Callable[[], Any]], float] = seconds,
) -> Measurement:
    """What `numerator` takes over what `denominator` takes: time, or memory.

    Args:
        name: what is compared.
        goal: what the ratio has to reach.
        numerator: one side; called without arguments.
        denominator: the other side.
        equal: whether two outputs are the same; checked on the warm-up calls.
        rounds: ratios measured.
        cost: what a call takes: `seconds`, or `peak_bytes`.
        warm_up: whether both sides are called once before the clock counts; without it nothing is compared either.

    Raises:
        AssertionError: the outputs differ, so that comparing times would mean nothing.
    """
    if warm_up and not _alike(numerator(), denominator(), equal):
        raise AssertionError(f"{name}: the two sides give different outputs")
    ratios = []
    for round_ in range(rounds):
        if round_ % 2 == 0:
            a, b = cost(numerator), cost(denominator)
        else:
            b, a = cost(denominator), cost(numerator)
        ratios.append(a / b)
    return summary(name, goal, ratios)


def _alike(first: Any, second: Any, equal: Callable[[Any, Any], bool] | None) -> bool:
    return equal is None or equal(first, second)


def summary(name: str, goal: Goal, ratios: list[float]) -> Measurement:
    """Median and percentile bootstrap interval of ratios."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    low, high = medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]
    return Measurement(name, goal, statistics.median(ratios), low, high, tuple(ratios))
