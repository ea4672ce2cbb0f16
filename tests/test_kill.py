"""Killed equals whole: `kill -9` at any moment of the full stack, then the same command, gives the same bytes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Finished, workbench
from test_run import BYTE_EQUAL, same_bytes

from workbench import Run
from workbench.results.run import finished
from workbench.store.store import damage

RANKED = ("passages", "terms", "embeddings", "index", "ranking", "reranked")
ALL = ("*",)
# the line of progress at which the process is killed, what the store holds before it starts, and whether notebooks are wanted
MOMENTS = {
    "embedding": ("embedding: 3", (), False),
    "reranking": ("reranking: ", (), False),
    "mid-training, before a checkpoint": ("fine-tuning: 2/12", RANKED, False),
    "mid-training, after a checkpoint": ("fine-tuning: 6/12", RANKED, False),
    "between checkpoints": ("fine-tuning: 8/12", RANKED, False),
    "first answers": ("generating: ", RANKED, False),
    "writing the leaderboard": ("results.csv", ALL, False),
    "writing the manifest": ("timings.csv", ALL, False),
    "promotion": ("promoting", ALL, False),
    "a notebook": ("notebooks: 1/4", ALL, True),
}


def stock(runs: Path, source: Path, stages: tuple[str, ...]) -> None:
    """Puts the artifacts of some stages into an empty store: what a run computes before the moment takes minutes each time."""
    for stage in stages:
        for artifact in (source / ".store" / "artifacts").glob(f"{stage}/*"):
            shutil.copytree(artifact, runs / ".store" / "artifacts" / artifact.parent.name / artifact.name)


def kill_at(moment: str, args: list[str], env: dict[str, str]) -> None:
    """Starts the command line and kills it with everything it started when a line of its progress holds `moment`."""
    command = [sys.executable, "-m", "workbench.cli", *args]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT, start_new_session=True
    )
    reached = False
    for line in process.stderr:
        if moment in line and not re.search(r"\b0/", line):  # at its beginning nothing is done yet
            reached = True
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.stderr.read()
    process.wait()
    assert reached, f"{moment!r} was never reported"


TOO_QUICK = ("embedding", "a notebook")  # toys embed all at once; notebooks take as long with real weights
FAST = "mid-training, after a checkpoint"  # the one moment at which toys are killed among the fast tests
REAL = ("a notebook",)  # real weights are killed then among the slow tests, and else by `make soak`
CASES = [pytest.param("toy", name, marks=[] if name == FAST else pytest.mark.slow) for name in MOMENTS if name not in TOO_QUICK]
CASES += [pytest.param("smoke", name, marks=pytest.mark.slow if name in REAL else pytest.mark.soak) for name in MOMENTS]


@pytest.mark.parametrize(("which", "name"), CASES)
def test_a_killed_run_started_again_gives_the_same_bytes(
    which: str, name: str, request: pytest.FixtureRequest, tmp_path: Path, offline: dict[str, str]
) -> None:
    whole = request.getfixturevalue(which)
    moment, stages, notebooks = MOMENTS[name]
    stock(tmp_path, whole.runs, stages)
    args = ["run", str(whole.config), "--runs", str(tmp_path), *([] if notebooks else ["--no-notebooks"])]
    kill_at(moment, args, offline | {"WORKBENCH_PROGRESS": "all"})
    for artifact in (tmp_path / ".store" / "artifacts").glob("*/*"):
        assert damage(artifact) is None, artifact
    before = len(finished(tmp_path))
    done = workbench(*args, env=offline)
    assert done.returncode == 0, done.stderr[-3000:]
    again = Path(done.stdout.strip().splitlines()[-1].removeprefix("run: "))
    same_bytes(again, whole.run)
    assert Run.open(again).promoted == Run.open(whole.run).promoted | {"run": again.name}
    assert len(finished(tmp_path)) == before + 1
    assert list((tmp_path / ".store" / "tmp").iterdir()) == []


@pytest.mark.parametrize("which", ["toy", pytest.param("smoke", marks=pytest.mark.soak)])
def test_shuffled_axes_and_another_batch_size_give_the_same_bytes(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, offline: dict[str, str]
) -> None:
    either = request.getfixturevalue(which)
    content = yaml.safe_load(either.config.read_text())
    content["axes"] = {axis: values[::-1] for axis, values in reversed(content["axes"].items())}
    content["machine"] = {"batch_size": 5}
    (tmp_path / "shuffled.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    done = workbench("run", tmp_path / "shuffled.yaml", "--runs", tmp_path / "runs", "--no-notebooks", env=offline)
    assert done.returncode == 0, done.stderr[-3000:]
    again = Path(done.stdout.strip().splitlines()[-1].removeprefix("run: "))
    for file in BYTE_EQUAL[1:]:  # config.yaml shows the order that was written
        assert (again / file).read_bytes() == (either.run / file).read_bytes(), file


def test_a_damaged_artifact_is_named_and_computed_again(either: Finished, offline: dict[str, str]) -> None:
    vectors = next((either.runs / ".store" / "artifacts" / "embeddings").glob("*/vectors.npy"))
    content = bytearray(vectors.read_bytes())
    content[-1] ^= 1
    vectors.write_bytes(content)
    done = workbench("run", str(either.config), "--runs", either.runs, "--no-notebooks", env=offline)
    assert done.returncode == 0
    assert "embeddings" in done.stderr and "was damaged (vectors.npy has other content" in done.stderr
    same_bytes(Path(done.stdout.strip().splitlines()[-1].removeprefix("run: ")), either.run)


INTERRUPTED = [
    pytest.param("toy", "fine-tuning", r"fine-tuning", marks=pytest.mark.slow),
    pytest.param("smoke", "embedding", r"embedding \(\d+ of \d+ done\)", marks=pytest.mark.soak),
]


@pytest.mark.parametrize(("which", "doing", "said"), INTERRUPTED)
def test_an_interrupt_says_what_is_kept_and_goes_on(
    which: str, doing: str, said: str, request: pytest.FixtureRequest, tmp_path: Path, offline: dict[str, str]
) -> None:
    whole = request.getfixturevalue(which)
    command = [sys.executable, "-m", "workbench.cli", "run", str(whole.config), "--runs", str(tmp_path), "--no-notebooks"]
    environment = offline | {"WORKBENCH_PROGRESS": "all"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment, cwd=ROOT)
    for line in process.stderr:
        if f"{doing}: " in line and "0/" not in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait() == 130
    assert "stopping after the batch in flight" in rest
    assert re.search(rf"interrupted while {said}.*; \d+ stages .* go on with: .*run \S*{whole.config.name}", rest)
    assert "Traceback" not in rest
    done = workbench("run", str(whole.config), "--runs", tmp_path, "--no-notebooks", env=offline)
    assert done.returncode == 0
    same_bytes(Path(done.stdout.strip().splitlines()[-1].removeprefix("run: ")), whole.run)
