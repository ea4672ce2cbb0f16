"""What people are told while long work is under way."""

from __future__ import annotations

import pytest

from workbench.store import progress
from workbench.store.progress import Plain


def test_how_long_the_rest_takes_is_said_once_the_speed_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.delenv("WORKBENCH_PROGRESS", raising=False)
    with Plain().task("reranking", 100) as done:
        for seconds, n in ((60, 1), (2, 1), (12, 8), (11, 10), (89, 80)):  # a minute goes by until the model is loaded
            now[0] += seconds
            done(n)
    said = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "reranking: 0/100",
        "reranking: 1/100",  # one item in a minute says nothing of the next
        "reranking: 10/100, about 2 minutes left",  # nine in the 14 seconds since then
        "reranking: 20/100, about 105 s left",
        "reranking: 100/100 in 3 minutes",
    ]
