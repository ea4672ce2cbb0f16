"""Published figures are reproduced on the public sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import Experiment

ROOT = Path(__file__).parent.parent


PUBLISHED = {"bm25": 0.679, "dense": 0.645}
CASES = [pytest.param("bm25", marks=pytest.mark.slow), pytest.param("dense", marks=pytest.mark.soak)]


@pytest.mark.parametrize("retriever", CASES)
def test_the_published_figure_is_reached_on_scifact(retriever: str, shared_data: Path, tmp_path: Path) -> None:
    """nDCG@10 on BEIR's test split: BM25 0.679 (Anserini's regression), all-MiniLM-L6-v2 0.645 (public reproductions)."""
    overrides = [f"dataset.beir={shared_data / 'scifact'}", "dataset.limit=300"]
    overrides += [f"axes.retriever=[{retriever}]", "axes.reranker=[none]", f"baseline.retriever={retriever}"]
    overrides += ["search={strategy: grid}"]  # a search among one configuration finds nothing to score
    run = Experiment.load(ROOT / "configs" / "scifact.yaml", tmp_path, overrides).compare()
    (found,) = (row for row in run.leaderboard if (row.split, row.metric) == ("test", "ndcg@10"))
    assert found.n == 300
    assert found.mean == pytest.approx(PUBLISHED[retriever], abs=0.01)
