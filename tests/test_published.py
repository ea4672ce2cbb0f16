"""Published figures are reproduced on the public sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import Experiment

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_bm25_and_dense_reach_the_published_figures_on_scifact(shared_data: Path, tmp_path: Path) -> None:
    """nDCG@10 on BEIR's test split: BM25 0.679 (Anserini's regression), all-MiniLM-L6-v2 0.645 (public reproductions)."""
    overrides = [f"dataset.beir={shared_data / 'scifact'}", "dataset.limit=300"]
    overrides += ["axes.retriever=[bm25, dense]", "axes.reranker=[none]"]
    experiment = Experiment.load(ROOT / "configs" / "scifact.yaml", tmp_path, overrides)
    run = experiment.compare()
    found = {run.labels[r["configuration"]]: r for r in run.leaderboard if (r["split"], r["metric"]) == ("test", "ndcg@10")}
    assert found["bm25"]["n"] == found["dense"]["n"] == 300
    assert found["bm25"]["mean"] == pytest.approx(0.679, abs=0.01)
    assert found["dense"]["mean"] == pytest.approx(0.645, abs=0.01)
