"""Ranking metrics: values written as their formulas, spans across passages, documents at their best passage."""

from __future__ import annotations

from math import log2

import pytest

from workbench.data.dataset import Judgements, Place
from workbench.data.passages import Seen
from workbench.errors import InputError
from workbench.evaluation.rankings import evaluate, parse


def seen(doc: str, start: int, end: int, reach: int | None = None) -> Seen:
    """A passage whose words are two characters wide, one every three."""
    words = [(i, i + 2) for i in range(start, end, 3)]
    return Seen(Place(doc, start, end), words, end if reach is None else reach)


def spans(*evidence: list[Place]) -> Judgements:
    return Judgements("spans", {"q": list(evidence)}, {})


def value(metric: str, judged: Judgements, ranking: list[Seen]) -> float:
    return evaluate([parse(metric)], judged, {"q": ranking})["q", metric]


def test_a_span_is_found_where_passages_together_cover_it() -> None:
    judged = spans([Place("d", 10, 40)])
    ranking = [seen("d", 0, 20), seen("x", 0, 20), seen("d", 20, 50)]
    assert value("mrr@10", judged, ranking) == pytest.approx(1 / 3)
    assert value("ndcg@10", judged, ranking) == pytest.approx(1 / log2(4))
    assert value("recall@2", judged, ranking) == 0
    assert value("recall@3", judged, ranking) == 1


def test_white_space_between_adjacent_passages_is_no_gap() -> None:
    judged = spans([Place("d", 10, 40)])
    assert value("recall@2", judged, [seen("d", 0, 20, reach=25), seen("d", 25, 50)]) == 1
    assert value("recall@2", judged, [seen("d", 0, 20), seen("d", 25, 50)]) == 0


def test_later_copies_of_a_span_gain_nothing_and_the_ideal_counts_spans() -> None:
    judged = spans([Place("a", 0, 5), Place("b", 0, 5)], [Place("c", 0, 5)])
    ranking = [seen("a", 0, 9), seen("b", 0, 9), seen("c", 0, 9)]
    ideal = 1 / log2(2) + 1 / log2(3)
    assert value("ndcg@10", judged, ranking) == pytest.approx((1 / log2(2) + 1 / log2(4)) / ideal)
    assert value("recall@2", judged, ranking) == pytest.approx(1 / 2)


def test_two_spans_in_one_passage_do_not_beat_the_ideal() -> None:
    judged = spans([Place("a", 0, 5)], [Place("a", 6, 9)])
    assert value("ndcg@10", judged, [seen("a", 0, 9)]) == pytest.approx(1.0)
    assert value("recall@10", judged, [seen("a", 0, 9)]) == 1


def test_words_read_are_cut_inside_a_passage() -> None:
    judged = spans([Place("d", 9, 14)])  # its last word is the fifth
    ranking = [seen("d", 0, 30)]
    assert value("recall@4w", judged, ranking) == 0
    assert value("recall@5w", judged, ranking) == 1


def test_a_document_counts_once_at_its_best_passage() -> None:
    judged = Judgements("documents", {}, {"q": {"a": 1, "b": 1}})
    ranking = [seen("a", 0, 9), seen("a", 9, 18), seen("b", 0, 9)]
    ideal = 1 / log2(2) + 1 / log2(3)
    assert value("ndcg@10", judged, ranking) == pytest.approx((1 / log2(2) + 1 / log2(4)) / ideal)


def test_a_judged_query_without_any_passage_scores_zero() -> None:
    assert value("ndcg@10", spans([Place("d", 0, 5)]), []) == 0


@pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "ndgc@10", "recall@-1", "ndcg@300w", "mrr@10w"])
def test_metrics_that_mean_nothing_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"recall@"):
        parse(name)
