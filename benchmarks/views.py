"""The report of a large run against reading the files that it is made of."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness import Goal, Measurement, seconds, summary
from tests.handmade import Planted, answered, configuration_id, make_run
from workbench.results.run import Run
from workbench.views.report import report

CONFIGURATIONS, QUESTIONS = 50, 500
ALLOWED = 3.0  # seconds above twice the time of reading
ROUNDS = 5


def large_run(folder: Path) -> Run:
    """A run of 50 configurations on 500 questions, all measured on both splits, with all their answers."""
    rng = np.random.default_rng(0)
    drawn: dict[str, np.ndarray] = {}

    def score(label: str, q: int) -> float:
        if label not in drawn:
            drawn[label] = rng.beta(0.5, 0.5, 2 * QUESTIONS)
        return float(drawn[label][q])

    axes = {"retriever": [f"r{i}" for i in range(CONFIGURATIONS // 10)], "prompt": [f"p{i}" for i in range(10)]}
    made = make_run(folder, axes, QUESTIONS, metrics=("f1", "contains"), failed=(), score=score, finalists=())
    asked = [
        Planted(f"Question {i}: " + "what is said? " * 5, f"answer {i}", f"answer {i}", "another", 1 + i % 12)
        for i in range(QUESTIONS)
    ]
    assert len(made.configurations) == CONFIGURATIONS and configuration_id("r0/p0") == made.manifest["baseline"]
    return answered(made, asked, others=True)


def read_all(run: Run) -> None:
    """Every file that the report shows, by pyarrow and the standard library."""
    from pyarrow import csv

    for path in run.folder.glob("*.csv"):
        csv.read_csv(path)
    for path in run.folder.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            json.loads(line)


def report_of_a_large_run() -> Measurement:
    """Seconds of the report over what it may take: twice the time of reading, and three seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run = large_run(Path(folder))
        ratios = []
        for _ in range(ROUNDS + 1):
            reading = seconds(lambda: read_all(run))
            ratios.append(seconds(lambda: report(Run.open(run.folder))) / (2 * reading + ALLOWED))
    size = f"{CONFIGURATIONS} configurations x {QUESTIONS} questions"
    return summary(f"report of {size} / (2 x reading + {ALLOWED:g} s)", Goal("<=", 1.0), ratios[1:])
