"""Latency is measured on requests that compute everything, and leaves the store as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import Finished
from handmade import timed

from workbench.errors import InputError
from workbench.latency import measure
from workbench.pipeline import Pipeline
from workbench.results import table_files
from workbench.results.conclusions import conclusions
from workbench.results.rows import LatencyRow
from workbench.results.run import Run


@pytest.fixture
def run(toy: Finished, tmp_path: Path) -> Run:
    """The toy run's folder in another place, on the same store."""
    (tmp_path / ".store").symlink_to(toy.runs / ".store")
    return Run.open(shutil.copytree(toy.run, tmp_path / "smoke" / toy.run.name))


def stored(run: Run) -> int:
    pipeline = Pipeline.open(run)
    return pipeline.session.store.items.connection.execute("SELECT COUNT(*) FROM items").fetchone()[0]


def test_single_requests_are_timed_with_intervals(run: Run) -> None:
    before = stored(run)
    chosen = [run.manifest["baseline"]]
    path = measure(run, chosen, requests=4)
    (row,) = run.latency
    assert path == run.folder / "latency.csv"
    assert (row.configuration, row.requests) == (chosen[0], 4)
    assert 0 < row.p50_low <= row.p50 <= row.p50_high
    assert row.p50 <= row.p95
    assert row.prompt_tokens > row.answer_tokens > 0 < row.answers_per_second
    assert row.tokens_low < row.tokens == pytest.approx(row.prompt_tokens + row.answer_tokens, abs=2e-6)
    assert stored(run) == before
    assert not any("Answers take" in line for line in conclusions(run))  # one configuration has no price


def test_conclusions_name_the_price_of_a_difference(run: Run) -> None:
    best, baseline = run.best, run.manifest["baseline"]
    rows = [timed(c, p50) for c, p50 in ((best, 3.0), (baseline, 2.0))]
    table_files.write(run.folder / "latency.csv", LatencyRow, rows)
    assert best != baseline
    axes = [axis for axis in run.axes if len({row.values[axis] for row in run.configurations}) > 1]
    ends = [{row.configuration: [row.values[axis] for axis in axes] for row in run.configurations}[c] for c in (best, baseline)]
    # an axis has a price where two timed configurations differ in it alone
    alone = [axis for axis, a, b in zip(axes, *ends, strict=True) if a != b]
    priced = [line.split(":")[0].strip() for line in conclusions(run) if line.startswith("  ") and " times the time" in line]
    assert priced == (alone if len(alone) == 1 else [])
    assert any("Against today's setup" in line and "Answers take 1.5 times as long." in line for line in conclusions(run))


def test_a_question_asked_before_is_computed_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A measured question's vector lies in the store; a request that is timed does not find it there."""
    wanted = {"retriever": "dense", "generator": "base"}
    dense = next(row.configuration for row in run.configurations if wanted.items() <= row.values.items())
    pipeline = Pipeline.open(run, dense)
    question = pipeline.session.dataset.split(run.select[0])[0].text
    pipeline.ranking.rank([question], pipeline.session)
    assert pipeline.session.counts()["embeddings"].computed == 0
    other = Pipeline.open(run, dense)
    asked: list[str] = []
    other.session.keep_in_memory(0)
    items = other.session.items
    monkeypatch.setattr(other.session, "items", lambda work, inputs: asked.append(work.kind.name) or items(work, inputs))
    other.ranking.rank([question], other.session)
    assert asked == ["embeddings"] and other.session.counts()["embeddings"].computed == 0  # computed, and not counted


def test_one_request_is_too_few(run: Run) -> None:
    with pytest.raises(InputError, match="at least 2"):
        measure(run, requests=1)
