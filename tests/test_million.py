"""Memory of many passages through the stages; times are never asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import million

BYTES_A_PASSAGE = 8_000  # a million passages within 8 GB


def test_passages_stored_by_one_process_are_searched_by_another_and_nothing_is_computed_again(tmp_path: Path) -> None:
    found = million.measure(1_000, tmp_path)
    assert list(found["ingest"]) == ["start", "read", "cut", "analyse", "bm25", "vectors", "flat", "search"]
    assert list(found["reopen"]) == ["read", "search"]  # it raises where a stage was computed, or a vector is not found


@pytest.mark.slow
def test_a_hundred_thousand_passages_take_at_most_eight_kilobytes_each(tmp_path: Path) -> None:
    found = million.measure(100_000, tmp_path)
    assert (found["peak_gb"] - found["ingest"]["start"]["peak_gb"]) * 1e9 / 100_000 <= BYTES_A_PASSAGE
