"""One question put to every ranking of an experiment."""

from __future__ import annotations

import pytest
from conftest import Finished

from workbench import Experiment
from workbench.errors import InputError
from workbench.results.run import Run
from workbench.store.progress import Progress


@pytest.fixture
def experiment(toy: Finished) -> Experiment:
    return Experiment.load(toy.config, toy.runs, progress=Progress())


def test_a_question_of_the_dataset_says_where_each_ranking_has_its_evidence(experiment: Experiment, toy: Finished) -> None:
    run = Run.open(toy.run)
    split = run.select[0]
    one = next(row for row in run.questions if row.split == split and row.evidence)
    found = experiment.search(one.question)
    stored = [row for row in run.rankings if (row.split, row.query_id) == (split, one.query_id)]
    assert found.query and found.query.id == one.query_id
    assert sorted(str(ranked.evidence_rank) for ranked in found.rankings) == sorted(str(row.evidence_rank) for row in stored)
    assert all(len(ranked.passages) == 5 and ranked.passages[0].rank == 1 for ranked in found.rankings)
    shown = found._repr_mimebundle_()
    assert all(ranked.name in shown["text/html"] and ranked.name in shown["text/plain"] for ranked in found.rankings)
    held = [passage.holds for ranked in found.rankings for passage in ranked.passages]
    assert any(held) == ("holds evidence" in shown["text/html"])


def test_of_any_other_question_nothing_is_known_of_the_evidence(experiment: Experiment) -> None:
    found = experiment.search("What did nobody ask?", best=2)
    assert found.query is None and all(one.evidence_rank is None and len(one.passages) <= 2 for one in found.rankings)
    assert "the dataset does not ask this" in repr(found)
    with pytest.raises(InputError, match="the question is empty"):
        experiment.search("  ")
