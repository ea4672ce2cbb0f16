"""The benchmark of a GPU: refused without one, and its functions run on the processor."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from benchmarks import gpu
from workbench.machine import cuda_device, resolve


@pytest.mark.skipif(cuda_device() is not None, reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing() -> None:
    before = sorted(gpu.RESULTS.iterdir())
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 2 and "no GPU" in done.stderr and not done.stdout
    assert sorted(gpu.RESULTS.iterdir()) == before


def test_what_it_measures_runs_on_any_device(toy_model: str, toy_embedder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On toys, and without the batching of transformers, which takes four fifths of the memory (see below)."""
    monkeypatch.setattr(gpu, "GENERATOR", toy_model)
    monkeypatch.setattr(gpu, "EMBEDDER", toy_embedder)
    monkeypatch.setattr(gpu, "with_generate_batch", lambda *_: "left out")
    found = next(gpu.compared({"cpu": gpu.Sizes(2_000, 20, 4, 4, 2, 8)}))["cpu"]
    assert [(row["index"], row["backend"]) for row in found["indexes"]] == [
        ("flat", "faiss-cpu"),
        ("ivf", "faiss-cpu"),
        ("cagra", "faiss-cpu"),
        ("flat", "torch"),
    ]
    assert [row["recall@10"] for row in found["indexes"] if row["index"] == "flat"] == [1.0, 1.0]
    assert "built as hnsw on the processor" in found["indexes"][2]["fallback"][0]
    assert min(value for name, value in found.items() if name.endswith("_per_second")) > 0


@pytest.mark.soak
def test_the_batching_of_transformers_is_measured_or_the_reason_given(toy_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "GENERATOR", toy_model)
    found = gpu.attempted("generate_batch", lambda: gpu.with_generate_batch(resolve(device="cpu"), 4, 2))
    assert ": " in found if isinstance(found, str) else found > 0
