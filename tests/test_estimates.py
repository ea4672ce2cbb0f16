"""What a plan expects of this machine: the speeds that earlier runs showed, and which of these count."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest

from workbench.experiment.estimates import ENOUGH_TOKENS, FIRST_RATES, KEPT, REFERENCE, Estimator, TotalCosts
from workbench.machine import precisions, record, resolve
from workbench.store.items import Counts
from workbench.store.progress import Progress
from workbench.store.session import Clock, Session, Timing
from workbench.store.store import Store
from workbench.times import duration

NOTHING = {"embeddings": Counts(0, 0, 0), "pairs": Counts(0, 0, 0)}


@pytest.fixture
def estimator(tmp_path: Path) -> Estimator:
    said: list[str] = []
    session = Session(Store(tmp_path), None, resolve(device="cpu", precision="float32"), Progress())
    session.progress.say = said.append
    return Estimator(session)


def ran(estimator: Estimator, seconds: float, tokens: int) -> None:
    """A run that answered."""
    estimator.learn([Timing("generation", "key", seconds, tokens, 10)], NOTHING)


def test_the_median_of_the_last_runs_is_expected(estimator: Estimator) -> None:
    """One run that shared the processor, five times as slow, moves nothing."""
    for seconds in (10.0, 11.0, 50.0, 9.0, 10.0):
        ran(estimator, seconds, 10_000)
    assert estimator._rate("generation") == pytest.approx(0.001)
    for _ in range(KEPT):
        ran(estimator, 30.0, 10_000)
    assert estimator._rate("generation") == pytest.approx(0.003)  # the machine has become another one
    again = Estimator(estimator.session)
    assert again._rate("generation") == estimator._rate("generation") and len(again._shown("generation")) == KEPT


def test_a_little_work_teaches_nothing(estimator: Estimator) -> None:
    ran(estimator, 60.0, ENOUGH_TOKENS - 1)  # a model was loaded for it
    assert not estimator._shown("generation")
    assert estimator._rate("generation") == FIRST_RATES["generation"] * estimator._slower("generation")
    pairs = NOTHING | {"pairs": Counts(199, 0, 199)}
    estimator.learn([Timing("reranking", "key", 60.0, 0, 199)], pairs)
    assert not estimator._shown("pairs")
    estimator.learn([Timing("reranking", "key", 2.0, 0, 200)], NOTHING | {"pairs": Counts(200, 0, 200)})
    assert estimator._rate("pairs") == pytest.approx(0.01)


def test_built_in_speeds_are_scaled_as_far_as_the_work_is_products(estimator: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two machines showed: products in float32 3.6 times as slow, training 1.9 times, and integers no quicker than floats."""
    monkeypatch.setattr(precisions, "speed", lambda device, use, precision: REFERENCE[use] / 3.6)
    monkeypatch.setattr(Estimator, "_exact_integers", lambda self: True)
    expected = {"pairs": 3.6, "generation": 3.6, "generation in int8": 3.6, "training": 1.936, "served": 1.0}
    for kind, slower in expected.items():
        assert estimator._rate(kind) == pytest.approx(FIRST_RATES[kind] * slower)
    monkeypatch.setattr(Estimator, "_exact_integers", lambda self: False)
    assert estimator._rate("generation in int8") == estimator._rate("generation")


def test_it_is_said_where_the_speeds_come_from(estimator: Estimator) -> None:
    assert estimator._basis(set()) == ""
    assert estimator._basis({"training"}) == "Times are estimated from built-in speeds, scaled to this machine's, in fine-tuning."
    ran(estimator, 10.0, 10_000)
    ran(estimator, 10.0, 10_000)
    assert estimator._basis({"training", "generation"}) == (
        "Times are estimated from the median speed of earlier runs here in answering (2 runs) and from built-in speeds, scaled "
        "to this machine's, in fine-tuning."
    )


def test_rates_of_an_earlier_version_count_as_one_run(estimator: Estimator) -> None:
    name = estimator._name("generation")
    estimator.path.write_text(json.dumps({name: 0.004, "peak_gb": 2.5}))
    old = Estimator(estimator.session)
    assert old._rate("generation") == 0.004 and old.memory_gb() == 2.5
    ran(old, 20.0, 10_000)
    assert old._rate("generation") == pytest.approx(median([0.004, 0.002]))


def test_what_is_measured_once_on_a_machine_is_no_part_of_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement that asks for another one counts once."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def inner() -> int:
        now[0] += 20
        return 1

    def outer() -> int:
        now[0] += 30
        return int(record.kept("inner", inner)) + 1

    clock = Clock()
    now[0] += 5
    assert record.kept("outer", outer) == 2
    now[0] += 2
    assert clock.seconds == pytest.approx(7)
    assert record.kept("outer", outer) == 2
    assert clock.seconds == pytest.approx(7)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (95.4, "95 s"), (119.6, "120 s"), (120, "2 minutes"), (1500, "25 minutes"), (9000, "2.5 hours")],
)
def test_times_from_two_minutes_on_are_said_in_minutes(seconds: float, said: str) -> None:
    assert duration(seconds) == said
    assert f"about {said}" in TotalCosts(1, 2, seconds, 0.0, None).sentence(searched=False)


def test_a_short_time_may_keep_a_decimal() -> None:
    assert [duration(seconds, exact=True) for seconds in (9.46, 180)] == ["9.5 s", "3 minutes"]
