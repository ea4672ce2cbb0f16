"""Answer metrics: SQuAD's normalisation, abstention, groundedness."""

from __future__ import annotations

import pytest

from workbench.data.passages import Shown
from workbench.evaluation.answers import BUILTIN, contains, exact_match, f1, grounded
from workbench.models import prompts


def test_normalisation_ignores_case_punctuation_and_articles() -> None:
    assert exact_match("The `ValueError`.", ["a valueerror"]) == 1


def test_f1_is_the_harmonic_mean_of_word_overlap_over_the_best_accepted_answer() -> None:
    precision, recall = 2 / 4, 2 / 3
    assert f1("raises key error now", ["no", "key error instead"]) == pytest.approx(2 * precision * recall / (precision + recall))


def test_contains_wants_whole_words_in_a_row() -> None:
    assert contains("it raises a KeyError here", ["KeyError here"]) == 1
    assert contains("KeyErrors", ["KeyError"]) == 0
    assert contains("Key some Error", ["Key Error"]) == 0


@pytest.mark.parametrize("metric", ["f1", "em", "contains"])
def test_only_the_empty_answer_is_right_on_an_unanswerable_question(metric: str) -> None:
    assert BUILTIN[metric].score("", (), []) == 1
    assert BUILTIN[metric].score("a guess", (), []) == 0
    assert BUILTIN[metric].score("", ("something",), []) == 0


def test_grounded_counts_distinct_content_words_found_in_the_passages() -> None:
    assert grounded("The parser reads tokens tokens", ["a parser of tokens"]) == pytest.approx(2 / 3)
    assert grounded("", ["x"]) == 1
    assert grounded("what is the", ["x"]) == 1
    assert grounded("parser", []) == 0


@pytest.mark.parametrize("name", prompts.names())
def test_every_template_reads_its_own_abstention_as_the_empty_answer(name: str) -> None:
    template = prompts.load(name)
    assert template.read(template.target(None, None)) == ""
    assert template.read(f"I would say: {template.abstention.upper()}!") == ""


def test_citations_are_no_part_of_an_answer() -> None:
    template = prompts.load("cited")
    assert template.read(template.target("a tuple", 2)) == "a tuple"
    assert prompts.load("terse").read("x[0]") == "x[0]"


def test_a_template_shows_passages_in_order_and_asks_the_question() -> None:
    turns = prompts.load("terse").fill("Why?", [Shown("T", "first {x}"), Shown("U", "second")])
    asked = turns[-1]["content"]
    assert asked.index("[1] first {x}") < asked.index("[2] second") < asked.index("Why?")
