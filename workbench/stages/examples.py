"""Train questions with their gold passage among distractors: what trainings learn from, and what few-shot prompts show.

Functions of data: questions, rankings, judgements and passages. They know no stage.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from workbench.data.dataset import Judgements, Place, Query
from workbench.data.passages import PassageTable
from workbench.errors import InputError
from workbench.models.lora import Example, Lora
from workbench.models.prompts import Shot, Template
from workbench.retrieval.learning import RankedExample, RankedTraining
from workbench.retrieval.ranking import Ranked


@dataclass(frozen=True, eq=False)
class TrainSplit:
    """The questions of a train split, with all that is known of them.

    Attributes:
        dataset: its name, for errors.
        split: likewise.
        queries: the questions.
        rows: their rankings, in the order of `queries`; they tell which wrong passages are the best.
        judged: what is relevant to them.
        passages: the passages ranked.
        dropped: ids of questions that are left out, since the evaluation asks them too.
    """

    dataset: str
    split: str
    queries: Sequence[Query]
    rows: Sequence[Ranked]
    judged: Judgements
    passages: PassageTable
    dropped: Collection[str] = ()

    def ranked(self) -> Iterator[tuple[Query, np.ndarray]]:
        """Each question that is not left out, with the numbers of its ranked passages, int32 (k,), best first."""
        for query, (ids, _) in zip(self.queries, self.rows, strict=True):
            if query.id not in self.dropped:
                yield query, ids

    def relevant(self, query: Query) -> dict[int, float]:
        """As `relevant_passages`."""
        return relevant_passages(self.judged, query, self.passages, self._by_document)

    @cached_property
    def _by_document(self) -> dict[str, list[int]]:
        return self.passages.by_document()


class Solved(NamedTuple):
    """A train question, the passages shown with it, its answer (None: they do not hold it) and its passage's number from 1."""

    query_id: str
    question: str
    passages: tuple[int, ...]
    answer: str | None
    number: int | None


def left_out(dropped: Sequence[str]) -> dict[str, Any]:
    """What a stage's settings and facts say of questions left out; nothing where none was, so that older keys stay."""
    return {"dropped": list(dropped)} if dropped else {}


def training_examples(
    train: TrainSplit, template: Template, shown: int, settings: Lora, seed: int, shots: Mapping[str, Sequence[Shot]]
) -> list[Example]:
    """One example for each solved train question, in a prompt template; at most `Lora.examples` of them.

    Args:
        train: the questions.
        template: how they are asked.
        shown: passages beside each question.
        settings: of the training.
        seed: of the order of passages and the choice of questions.
        shots: query id -> solved questions shown before it.

    Raises:
        InputError: no question of the train split has an answer, so there is nothing to learn.
    """
    chosen = solved_questions(train, shown, seed, settings.without_gold)
    if settings.examples is not None and settings.examples < len(chosen):
        chosen = random.Random(f"examples {seed}").sample(chosen, settings.examples)
    examples = []
    for one in chosen:
        passages = [train.passages.shown(n) for n in one.passages]
        messages = template.fill(one.question, passages, shots.get(one.query_id, ()))
        examples.append(Example(tuple(messages), template.target(one.answer, one.number)))
    return examples


def solved_questions(train: TrainSplit, shown: int, seed: int, without_gold: float = 0.0) -> list[Solved]:
    """Each train question with its gold passage among the best wrong ones, shuffled; unanswerable: with wrong ones alone.

    Args:
        train: the questions.
        shown: passages beside each question.
        seed: of the shuffling.
        without_gold: share of the questions with an answer that lose their gold passage, and with it the answer.

    Raises:
        InputError: the train split has no answers.
    """
    pairs = [(query, ids) for query, ids in train.ranked() if query.answers is not None]
    if not pairs:
        raise InputError(f"dataset {train.dataset}: the split {train.split!r} has no answers; there is nothing to learn from")
    known = [(query, ids, train.relevant(query)) for query, ids in pairs]
    # an answer that no passage supports is left out: it would teach inventing
    kept = [(query, ids, relevant) for query, ids, relevant in known if relevant or not query.answers]
    if not kept:
        raise InputError(
            f"dataset {train.dataset}: no question of {train.split!r} has an answer and a judged passage to learn from"
        )
    answered = [query.id for query, _, _ in kept if query.answers]
    bare = set(random.Random(f"without gold {seed}").sample(answered, round(without_gold * len(answered))))
    return [_solved(query, ids, relevant, shown, seed, query.id not in bare) for query, ids, relevant in kept]


def ranked_examples(train: TrainSplit, settings: RankedTraining, seed: int) -> list[RankedExample]:
    """One example for each judged train question: its gold passage, and the best wrong ones of its ranking.

    Args:
        train: the questions.
        settings: of the training: how many examples and wrong passages.
        seed: of the choice of questions.

    Raises:
        InputError: no question of the train split has a judged passage and a wrong one.
    """
    found = []
    for query, ids in train.ranked():
        relevant = train.relevant(query)
        wrong = [int(n) for n in ids if int(n) not in relevant][settings.skip : settings.skip + settings.negatives]
        if relevant and (wrong or not settings.negatives):
            texts = [train.passages.full_text(n) for n in (_gold(relevant, ids), *wrong)]
            found.append(RankedExample(query.text, texts[0], tuple(texts[1:])))
    if not found:
        raise InputError(f"dataset {train.dataset}: no question of {train.split!r} has a judged passage and a wrong one")
    if settings.examples is None or settings.examples >= len(found):
        return found
    return random.Random(f"examples {seed}").sample(found, settings.examples)


def _gold(relevant: dict[int, float], ranked: np.ndarray) -> int:
    """The best of the relevant passages; of equal ones that ranked higher."""
    return max(relevant, key=lambda n: (relevant[n], -_rank(ranked, n), -n))


def _solved(query: Query, ranked: np.ndarray, relevant: dict[int, float], count: int, seed: int, with_gold: bool) -> Solved:
    """A question with `count` passages, its gold passage among them or not."""
    gold = [_gold(relevant, ranked)] if relevant and with_gold else []
    wrong = [int(n) for n in ranked if int(n) not in relevant][: count - len(gold)]
    shown = gold + wrong
    random.Random(f"{seed} {query.id}").shuffle(shown)
    number = shown.index(gold[0]) + 1 if gold else None
    answer = query.answers[0] if query.answers and with_gold else None
    return Solved(query.id, query.text, tuple(shown), answer, number)


def _rank(ranked: np.ndarray, number: int) -> int:
    found = np.flatnonzero(ranked == number)
    return int(found[0]) if len(found) else len(ranked)


def relevant_passages(
    judged: Judgements, query: Query, passages: PassageTable, by_document: dict[str, list[int]]
) -> dict[int, float]:
    """Passages that hold evidence of a query, and how good they are as its gold passage (higher is better).

    With spans: the share of the evidence that a passage covers. With documents: 1 for a passage of a relevant document
    that contains an accepted answer, 0.5 for one that does not.

    Args:
        judged: what is relevant.
        query: the question.
        passages: those to choose from.
        by_document: document id -> numbers of its passages.

    Returns:
        Passage number -> how good it is.
    """
    if judged.kind == "spans":
        places = [place for span in judged.spans.get(query.id, []) for place in span]
        shares: dict[int, float] = {}
        for place in places:
            for number in by_document.get(place.doc_id, []):
                share = _covered_share(place, passages.place(number))
                if share > 0:
                    shares[number] = max(share, shares.get(number, 0.0))
        return shares
    numbers = [n for doc_id in judged.documents.get(query.id, {}) for n in by_document.get(doc_id, [])]
    return {n: 1.0 if any(a in passages.shown(n).text for a in query.answers or ()) else 0.5 for n in numbers}


def _covered_share(place: Place, passage: Place) -> float:
    overlap = min(place.end, passage.end) - max(place.start, passage.start)
    return max(0, overlap) / (place.end - place.start)
