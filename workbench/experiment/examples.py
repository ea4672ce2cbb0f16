"""Train questions with their gold passage among distractors: what adapters learn from, and what few-shot prompts show."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from workbench.data.dataset import Judgements, Place, Query
from workbench.errors import InputError
from workbench.models.lora import Example
from workbench.retrieval.learning import RankedExample

if TYPE_CHECKING:
    from workbench.experiment.session import Session
    from workbench.experiment.stages import Adapter, Passages, PassageTable, RankingStage, TrainedOnRankings


class Solved(NamedTuple):
    """A train question, the passages shown with it, its answer (None: they do not hold it) and its passage's number from 1."""

    query_id: str
    question: str
    passages: tuple[int, ...]
    answer: str | None
    number: int | None


def training_examples(adapter: Adapter, session: Session) -> list[Example]:
    """One example for each solved train question, in the adapter's template; at most `Lora.examples` of them.

    Raises:
        InputError: the train split has no answers, so there is nothing to learn.
    """
    settings = adapter.generator.lora
    chosen = solved_questions(
        adapter.ranking, adapter.passages, adapter.shown, adapter.seed, session, adapter.dropped, settings.without_gold
    )
    if settings.examples is not None and settings.examples < len(chosen):
        chosen = random.Random(f"examples {adapter.seed}").sample(chosen, settings.examples)
    passages = session.read(adapter.passages)
    near = dict(zip(_ids(adapter, session), adapter.few_shot.of_split(session), strict=True)) if adapter.few_shot else {}
    examples = []
    for one in chosen:
        shown = [passages.shown(n) for n in one.passages]
        messages = adapter.template.fill(one.question, shown, near.get(one.query_id, ()))
        examples.append(Example(tuple(messages), adapter.template.target(one.answer, one.number)))
    return examples


def _ids(adapter: Adapter, session: Session) -> list[str]:
    return [query.id for query in session.dataset.split(adapter.ranking.split)]


def solved_questions(
    ranking: RankingStage,
    stage: Passages,
    shown: int,
    seed: int,
    session: Session,
    dropped: Collection[str] = (),
    without_gold: float = 0.0,
) -> list[Solved]:
    """Each train question with its gold passage among the best wrong ones, shuffled; unanswerable: with wrong ones alone.

    Args:
        ranking: of the train split; tells which wrong passages are the best.
        stage: the passages.
        shown: passages beside each question.
        seed: of the shuffling.
        session: what to read with.
        dropped: ids of questions to leave out.
        without_gold: share of the questions with an answer that lose their gold passage, and with it the answer.

    Raises:
        InputError: the train split has no answers.
    """
    split = ranking.split
    pairs = [
        (query, ids)
        for query, (ids, _) in zip(session.dataset.split(split), session.read(ranking).rows(), strict=True)
        if query.answers is not None and query.id not in dropped
    ]
    if not pairs:
        raise InputError(f"dataset {session.dataset.name}: the split {split!r} has no answers; there is nothing to learn from")
    relevant = _relevant(ranking, stage, session)
    found = [_solved(query, ids, relevant(query), shown, seed) for query, ids in pairs]
    kept = [(pair, one) for pair, one in zip(pairs, found, strict=True) if one is not None]
    if not kept:
        raise InputError(
            f"dataset {session.dataset.name}: no question of {split!r} has an answer and a judged passage to learn from"
        )
    answered = [one.query_id for _, one in kept if one.answer is not None]
    bare = set(random.Random(f"without gold {seed}").sample(answered, round(without_gold * len(answered))))
    return [
        _solved(query, ids, relevant(query), shown, seed, with_gold=False) if query.id in bare else one
        for (query, ids), one in kept
    ]


def _relevant(ranking: RankingStage, stage: Passages, session: Session) -> Callable[[Query], dict[int, float]]:
    """`relevant_passages` of a train question."""
    judged, passages = session.dataset.judged(ranking.split), session.read(stage)
    by_document = _by_document(passages)
    return lambda query: relevant_passages(judged, query, passages, by_document)


def ranked_examples(stage: TrainedOnRankings, session: Session) -> list[RankedExample]:
    """One example for each judged train question: its gold passage, and the best wrong ones of a ranking.

    Raises:
        InputError: no question of the train split has a judged passage and a wrong one.
    """
    split, settings = stage.ranking.split, stage.training
    passages, relevant_to = session.read(stage.passages), _relevant(stage.ranking, stage.passages, session)
    found = []
    for query, (ids, _) in zip(session.dataset.split(split), session.read(stage.ranking).rows(), strict=True):
        if query.id in stage.dropped:
            continue
        relevant = relevant_to(query)
        wrong = [int(n) for n in ids if int(n) not in relevant][settings.skip : settings.skip + settings.negatives]
        if relevant and (wrong or not settings.negatives):
            texts = [passages.full_text(n) for n in (_gold(relevant, ids), *wrong)]
            found.append(RankedExample(query.text, texts[0], tuple(texts[1:])))
    if not found:
        raise InputError(f"dataset {session.dataset.name}: no question of {split!r} has a judged passage and a wrong one")
    if settings.examples is None or settings.examples >= len(found):
        return found
    return random.Random(f"examples {stage.seed}").sample(found, settings.examples)


def _gold(relevant: dict[int, float], ranked: np.ndarray) -> int:
    """The best of the relevant passages; of equal ones that ranked higher."""
    return max(relevant, key=lambda n: (relevant[n], -_rank(ranked, n), -n))


def _by_document(passages: PassageTable) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for number, doc_id in enumerate(passages.table["doc_id"].to_pylist()):
        numbers.setdefault(doc_id, []).append(number)
    return numbers


def _solved(
    query: Query, ranked: np.ndarray, relevant: dict[int, float], count: int, seed: int, with_gold: bool = True
) -> Solved | None:
    """A question with `count` passages; None for an answer that no passage supports: that would teach inventing."""
    if query.answers and not relevant:
        return None
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
