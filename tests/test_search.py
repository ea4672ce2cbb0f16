"""Greedy search over a measured grid."""

from __future__ import annotations

from workbench.experiment.search import greedy

DESIGN = {f"{r}{p}": {"retriever": r, "prompt": p} for r in "ab" for p in "xy"}


def test_greedy_misses_what_only_two_changes_together_bring() -> None:
    means = {"ax": 0.5, "bx": 0.4, "ay": 0.4, "by": 0.9}
    assert greedy(DESIGN, means, "ax", ["retriever", "prompt"]) == ["ax", "ax"]


def test_greedy_finds_the_best_where_effects_add_up_in_any_order() -> None:
    means = {"ax": 0.1, "bx": 0.3, "ay": 0.2, "by": 0.4}
    for order in (["retriever", "prompt"], ["prompt", "retriever"]):
        assert greedy(DESIGN, means, "ax", order)[-1] == "by"


def test_the_order_can_decide() -> None:
    means = {"ax": 0.2, "bx": 0.3, "ay": 0.5, "by": 0.1}
    assert greedy(DESIGN, means, "ax", ["retriever", "prompt"]) == ["bx", "bx"]
    assert greedy(DESIGN, means, "ax", ["prompt", "retriever"]) == ["ay", "ay"]


def test_ties_stay_where_they_are() -> None:
    assert greedy(DESIGN, dict.fromkeys(DESIGN, 0.5), "by", ["retriever", "prompt"]) == ["by", "by"]
