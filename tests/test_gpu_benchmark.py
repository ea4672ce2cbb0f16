"""The benchmark of a GPU: refused without one, rehearsed on the processor, and what fails in it leaves the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from benchmarks import gpu
from workbench.machine import cuda_device


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The benchmark as a command."""
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )


@pytest.mark.skipif(cuda_device() is not None, reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing() -> None:
    before = sorted(gpu.RESULTS.iterdir())
    done = benchmark()
    assert done.returncode == 2 and "no GPU" in done.stderr and not done.stdout
    assert sorted(gpu.RESULTS.iterdir()) == before


@pytest.mark.slow
def test_a_rehearsal_runs_every_part_on_the_processor(toy_model: str, toy_embedder: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "found.json"
    done = benchmark("--rehearse", "--out", str(out), "--embedder", toy_embedder, "--generator", toy_model)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert json.loads(done.stdout) == found
    card, processor = found["card"], found["processor"]
    assert set(card) == {"sizes", *gpu.MEASUREMENTS}
    assert set(processor) == set(card) - set(gpu.OF_THE_CARD_ALONE)
    kinds = [("flat", "faiss-cpu"), ("ivf", "faiss-cpu"), ("cagra", "faiss-cpu"), ("flat", "torch")]
    for side in (card, processor):
        assert [(row["index"], row["backend"]) for row in side["indexes"]] == kinds
        assert [row["recall@10"] for row in side["indexes"] if row["index"] == "flat"] == [1.0, 1.0]
        assert "built as hnsw on the processor" in side["indexes"][2]["fallback"][0]
        assert min(side["encoding"]["passages_per_second"], side["training"]["tokens_per_second"]) > 0
        assert side["generation"]["tokens_per_second"] > 0
    assert card["generate_batch"]["tokens_per_second"] > 0
    assert [row["same_list"] for row in card["parity"][:3]] == [1.0, 1.0, 1.0]  # the processor against itself


@pytest.mark.slow
def test_a_part_that_fails_or_takes_too_long_is_named_and_the_others_stay(
    tmp_path: Path, toy_embedder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(gpu, "MEASUREMENTS", {name: gpu.MEASUREMENTS[name] for name in ("encoding", "training")})
    out = tmp_path / "found.json"
    found = gpu.run({"card": ("cpu", gpu.TOY)}, 5, out, toy_embedder, str(tmp_path / "absent"))["card"]
    assert found["encoding"]["passages_per_second"] > 0
    assert found["training"].startswith("failed with exit status 1") and "absent" in found["training"]
    assert json.loads(out.read_text())["card"] == found
    part = gpu.Part("encoding", "cpu", gpu.TOY, toy_embedder)
    assert gpu.measured(part, 0.1) == "failed: it was stopped after 0 s"
    assert gpu.measured(part, 0) == "left out: the time was over; raise --minutes"


def test_an_index_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(gpu.IVFFlatIndex, "build", broken)
    rows = gpu.indexes(gpu.Part("indexes", "cpu", gpu.TOY))
    assert [row.get("failed") for row in rows] == [None, "RuntimeError: no kernel image is available", None, None]
