"""Metrics of rankings, through ir-measures: nDCG, recall, reciprocal rank and others, at `@k` passages or `@Nw` words.

Relevance. *Spans*: a span is found at the first rank where the passages down to that rank cover one of its places
wholly; later copies gain nothing, and the ideal counts spans. *Documents*: a document counts once, at its best
passage. In both cases a ranking becomes a list of positions, each of which holds one thing found or nothing.

nDCG@k (Järvelin and Kekäläinen, TOIS 20, 2002, doi:10.1145/582415.582418) is DCG@k of the ranking over DCG@k of the ideal one:

    DCG@k = sum of g_i / log2(i + 1) over the positions i = 1 to k

The gain g_i is the grade itself (not 2^grade - 1) of the document found at position i, 1 for a span, 0 for nothing. The ideal
ranking has the highest grades first. The discount log2(i + 1) is that of trec_eval, which ir-measures calls; the paper's, with
base 2, is log2(i) from position 2 on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.data.dataset import Judgements, Place
from workbench.data.passages import Seen
from workbench.errors import InputError

if TYPE_CHECKING:
    from ir_measures import Measure

MEASURES = {"ndcg": "nDCG", "recall": "R", "mrr": "RR", "map": "AP", "precision": "P", "success": "Success"}
NAME = re.compile(r"(?P<measure>[a-z]+)@(?P<cutoff>[1-9]\d*)(?P<words>w?)")


@dataclass(frozen=True)
class RankingMetric:
    """A metric such as ``ndcg@10`` (ten passages) or ``recall@300w`` (300 words read)."""

    name: str
    measure: str
    cutoff: int
    in_words: bool


def parse(name: str) -> RankingMetric:
    """Reads a metric's name.

    Raises:
        InputError: no such measure or no cut-off. In words only recall and success are defined: a rank-weighted
            measure would compare ranks of passages of different lengths.
    """
    match = NAME.fullmatch(name)
    if not match or match["measure"] not in MEASURES:
        raise InputError(
            f"unknown ranking metric {name!r}; allowed: {', '.join(f'{m}@k' for m in MEASURES)}, recall@Nw, success@Nw"
        )
    in_words = bool(match["words"])
    if in_words and match["measure"] not in ("recall", "success"):
        raise InputError(
            f"metric {name!r}: after N words read only recall and success are defined; write recall@{match['cutoff']}w"
        )
    return RankingMetric(name, match["measure"], int(match["cutoff"]), in_words)


def evaluate(
    metrics: Sequence[RankingMetric], judgements: Judgements, rankings: dict[str, Sequence[Seen]]
) -> dict[tuple[str, str], float]:
    """Each metric on each judged query.

    Args:
        metrics: what to compute.
        judgements: of the split.
        rankings: query id -> its passages, best first. A judged query without a ranking scores 0.

    Returns:
        (query id, metric name) -> value, judged queries only.
    """
    import ir_measures

    values: dict[tuple[str, str], float] = {}
    judged = sorted(judgements.judged)
    by_limit: dict[int | None, list[RankingMetric]] = {}
    for metric in metrics:
        by_limit.setdefault(metric.cutoff if metric.in_words else None, []).append(metric)
    for limit, group in by_limit.items():
        qrels, run = [], []
        for query_id in judged:
            ideal, found = positions(judgements, query_id, truncated(rankings.get(query_id, ()), limit))
            qrels += [ir_measures.Qrel(query_id, item, grade) for item, grade in ideal.items()]
            run += [ir_measures.ScoredDoc(query_id, item, -float(rank)) for rank, item in enumerate(found)]
        measures = {measure(metric): metric.name for metric in group}
        values |= {(q, name): 0.0 for q in judged for name in measures.values()}
        for result in ir_measures.iter_calc(list(measures), qrels, run):
            values[result.query_id, measures[result.measure]] = float(result.value)
    return values


def measure(metric: RankingMetric) -> Measure:
    """The measure of ir-measures; after N words without a cut-off that matters, as the words were counted before."""
    import ir_measures

    found: Measure = getattr(ir_measures, MEASURES[metric.measure]) @ (100_000 if metric.in_words else metric.cutoff)
    return found


def truncated(ranking: Sequence[Seen], words: int | None) -> list[Seen]:
    """The passages that `words` words of reading reach, the last one cut where they end; None: all."""
    if words is None:
        return list(ranking)
    reached = []
    for seen in ranking:
        kept = seen.words[:words]
        if len(kept) == len(seen.words):
            reached.append(seen)
        elif kept:
            reached.append(Seen(seen.place._replace(end=kept[-1][1]), kept, seen.words[len(kept)][0]))
        words -= len(kept)
        if words <= 0:
            break
    return reached


def positions(judgements: Judgements, query_id: str, ranking: Sequence[Seen]) -> tuple[dict[str, int], list[str]]:
    """What there is to find for a query (name -> grade), and what its ranking finds, position by position.

    A passage that completes several spans takes as many positions, so that no ranking beats the ideal.
    """
    if judgements.kind == "documents":
        return judgements.documents[query_id], list(_documents_found(ranking))
    spans = judgements.spans[query_id]
    return {f"span {i}": 1 for i in range(len(spans))}, list(_spans_found(spans, ranking))


def _documents_found(ranking: Sequence[Seen]) -> Iterator[str]:
    found: set[str] = set()
    for rank, seen in enumerate(ranking):
        doc_id = seen.place.doc_id
        yield f"copy {rank}" if doc_id in found else doc_id
        found.add(doc_id)


def _spans_found(spans: Sequence[Sequence[Place]], ranking: Sequence[Seen]) -> Iterator[str]:
    read = [seen.place._replace(end=max(seen.place.end, seen.reach)) for seen in ranking]
    for rank, now in enumerate(_completed(spans, read)):
        yield from [f"span {i}" for i in now] or [f"nothing {rank}"]


def _completed(spans: Sequence[Sequence[Place]], ranking: Sequence[Place]) -> Iterator[list[int]]:
    """For each passage the pieces of evidence that are read wholly with it, and were not before."""
    missing = set(range(len(spans)))
    read: dict[str, list[tuple[int, int]]] = {}
    for doc_id, start, end in ranking:
        read[doc_id] = merged([*read.get(doc_id, []), (start, end)])
        now = [i for i in sorted(missing) if any(covered(place, read.get(place.doc_id, [])) for place in spans[i])]
        missing -= set(now)
        yield now


def covering(judgements: Judgements, query_id: str, ranking: Sequence[Place]) -> list[bool]:
    """Whether each passage of a ranking covers evidence: alone, or a piece together with the passages above it.

    So one of the first k does exactly where recall@k is above 0. On documents, passages of relevant documents do.

    Args:
        judgements: of the split.
        query_id: a query; where it is not judged, nothing covers evidence.
        ranking: what is read with each of its passages, best first.
    """
    if judgements.kind == "documents":
        relevant = judgements.documents.get(query_id, {})
        return [place.doc_id in relevant for place in ranking]
    spans = judgements.spans.get(query_id, [])
    pieces = [place for span in spans for place in span]
    alone = [
        any(place.doc_id == read.doc_id and covered(place, [(read.start, read.end)]) for place in pieces) for read in ranking
    ]
    return [bool(now) or holds for now, holds in zip(_completed(spans, ranking), alone, strict=True)]


def merged(intervals: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Intervals united where they touch."""
    united: list[tuple[int, int]] = []
    for start, end in sorted(intervals):
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(end, united[-1][1]))
        else:
            united.append((start, end))
    return united


def covered(place: Place, read: Sequence[tuple[int, int]]) -> bool:
    """Whether what was read of a document holds a place wholly."""
    return any(start <= place.start and place.end <= end for start, end in read)
