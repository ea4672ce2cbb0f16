"""Training examples: train questions with their gold passage among distractors."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from workbench.data.dataset import Judgements, Place, Query
from workbench.errors import InputError
from workbench.models.lora import Example
from workbench.retrieval.learning import RankedExample

if TYPE_CHECKING:
    from workbench.experiment.session import Session
    from workbench.experiment.stages import Adapter, PassageTable, TrainedOnRankings


def training_examples(adapter: Adapter, session: Session) -> list[Example]:
    """One example for each train question: gold passage plus the best wrong ones, shuffled; unanswerable: wrong ones alone.

    Raises:
        InputError: the train split has no answers, so there is nothing to learn.
    """
    split = adapter.ranking.split
    queries = session.dataset.split(split)
    if all(query.answers is None for query in queries):
        raise InputError(f"dataset {session.dataset.name}: the split {split!r} has no answers; LoRA has nothing to learn from")
    judged = session.dataset.judged(split)
    passages = session.read(adapter.passages)
    by_document = _by_document(passages)
    rows = session.read(adapter.ranking).rows()
    found = [
        _example(adapter, query, ids, judged, passages, by_document)
        for query, (ids, _) in zip(queries, rows, strict=True)
        if query.answers is not None
    ]
    chosen = [example for example in found if example is not None]
    if not chosen:
        raise InputError(
            f"dataset {session.dataset.name}: no question of {split!r} has an answer and a judged passage to learn from"
        )
    limit = adapter.generator.lora.examples
    if limit is None or limit >= len(chosen):
        return chosen
    return random.Random(f"examples {adapter.seed}").sample(chosen, limit)


def ranked_examples(stage: TrainedOnRankings, session: Session) -> list[RankedExample]:
    """One example for each judged train question: its gold passage, and the best wrong ones of a ranking.

    Raises:
        InputError: no question of the train split has a judged passage and a wrong one.
    """
    split, settings = stage.ranking.split, stage.training
    judged = session.dataset.judged(split)
    passages = session.read(stage.passages)
    by_document = _by_document(passages)
    found = []
    for query, (ids, _) in zip(session.dataset.split(split), session.read(stage.ranking).rows(), strict=True):
        relevant = relevant_passages(judged, query, passages, by_document)
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


def _example(
    adapter: Adapter,
    query: Query,
    ranked: np.ndarray,
    judged: Judgements,
    passages: PassageTable,
    by_document: dict[str, list[int]],
) -> Example | None:
    relevant = relevant_passages(judged, query, passages, by_document)
    gold = [_gold(relevant, ranked)] if relevant else []
    if query.answers and not gold:
        return None  # an answer that no passage supports would teach inventing
    wrong = [int(n) for n in ranked if int(n) not in relevant][: adapter.shown - len(gold)]
    shown = gold + wrong
    random.Random(f"{adapter.seed} {query.id}").shuffle(shown)
    messages = adapter.template.fill(query.text, [passages.shown(n) for n in shown])
    number = shown.index(gold[0]) + 1 if gold else None
    return Example(tuple(messages), adapter.template.target(query.answers[0] if query.answers else None, number))


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
