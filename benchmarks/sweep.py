"""What a sweep costs: against its distinct work, against looping over whole configurations, and run again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from benchmarks import direct
from benchmarks.harness import Goal, Measurement, measure, seconds, summary
from workbench import Experiment
from workbench.store.progress import Progress

CONFIG = direct.CONFIG
QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
ROUNDS = 7


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder of runs, thrown away afterwards."""
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def run(folder: Path, overrides: Sequence[str] = ()) -> Path:
    """One run of the grid into a folder."""
    return Experiment.load(CONFIG, folder, overrides, Progress()).compare().folder


def cold(overrides: Sequence[str] = ()) -> Counter[str]:
    """A run from an empty store, which is then thrown away; how often it gave each reply."""
    with temporary() as folder:
        lines = (run(folder, overrides) / "answers.jsonl").read_text(encoding="utf-8").splitlines()
        return Counter(json.loads(line)["reply"] for line in lines)


def distinct_work() -> Measurement:
    """The sweep from an empty store over its distinct work called directly."""

    def alone() -> Counter[str]:
        return Counter(reply for replies in direct.sweep().values() for reply in replies)

    name = "sweep from an empty store / its distinct work called directly"
    return measure(name, Goal("<=", 1.05), cold, alone, lambda a, b: a == b, rounds=9)


def grid() -> Measurement:
    """A 2 x 3 x 4 grid: a loop over whole configurations, without store or run, over the sweep; two rounds of some minutes."""
    cold()  # imports, and reads the weights into the system's cache
    name = "loop over whole configurations / one sweep (2 x 3 x 4)"
    return measure(name, Goal(">=", 1.7), direct.one_at_a_time, cold, rounds=2, warm_up=False)


def changed_prompt() -> Measurement:
    """A sweep run again with one prompt template changed over generating that template's answers.

    Not the baseline's template: some of the baseline's answers would be generated once more, to show the noise floor.
    """
    template = yaml.safe_load((Path(direct.__file__).parent.parent / "workbench/models/prompts/cited.yaml").read_text())
    ratios, ranked = [], direct.rank()
    with temporary() as folder:
        run(folder)
        for round_ in range(ROUNDS):
            changed = folder / f"cited{round_}.yaml"
            changed.write_text(yaml.safe_dump(template | {"system": f"{template['system']} Round {round_}."}))
            overrides = [f"axes.prompt=[terse, {changed}]"]
            whole = seconds(lambda overrides=overrides: run(folder, overrides))
            again = folder / f"again{round_}.yaml"
            again.write_text(yaml.safe_dump(template | {"system": f"{template['system']} Round {round_}!"}))
            ratios.append(whole / seconds(lambda again=again: direct.generate(ranked, [str(again)])))
    return summary("sweep with one prompt changed / that prompt's own generation", Goal("<=", 1.1), ratios)


def warm() -> Measurement:
    """The quickstart through the command line: from a warm store over from an empty one, which is measured once."""
    with temporary() as folder:
        command = [sys.executable, "-m", "workbench.cli", "run", str(QUICKSTART), "--no-notebooks", "--runs", str(folder)]

        def call() -> None:
            subprocess.run(command, check=True, capture_output=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})

        first = seconds(call)
        return summary(
            "quickstart from a warm store / from an empty one", Goal("<=", 0.02), [seconds(call) / first for _ in range(ROUNDS)]
        )
