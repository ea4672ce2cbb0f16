"""What a sweep costs: against looping over whole configurations, and run again from a warm store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import yaml

from benchmarks.harness import Goal, Measurement, measure
from workbench import Experiment
from workbench.experiment.progress import Progress

CONFIG = Path(__file__).parent / "grid.yaml"
ROUNDS = 7


def run(folder: Path, overrides: Sequence[str] = ()) -> Path:
    """One run of the grid into a folder."""
    return Experiment.load(CONFIG, folder, overrides, Progress()).compare().folder


def cold(overrides: Sequence[str] = ()) -> None:
    """A run from an empty store, which is then thrown away."""
    folder = Path(tempfile.mkdtemp())
    try:
        run(folder, overrides)
    finally:
        shutil.rmtree(folder)


def one_at_a_time() -> None:
    """Each configuration of the grid by itself, from an empty store."""
    options = yaml.safe_load(CONFIG.read_text())["axes"]
    for values in product(*options.values()):
        chosen = list(zip(options, values, strict=True))
        cold([f"axes.{axis}=[{value}]" for axis, value in chosen] + [f"baseline.{axis}={value}" for axis, value in chosen])


def grid() -> Measurement:
    """A 2 x 3 x 4 grid: one configuration at a time over the sweep."""
    return measure("configurations one at a time / as one sweep (2 x 3 x 4)", Goal(">=", 1.7), one_at_a_time, cold, rounds=ROUNDS)


def warm() -> Measurement:
    """The same sweep from a warm store over a cold one."""
    folder = Path(tempfile.mkdtemp())
    try:
        return measure("sweep from a warm store / from an empty one", Goal("<=", 0.02), lambda: run(folder), cold, rounds=ROUNDS)
    finally:
        shutil.rmtree(folder)
