"""Indexes, BM25, ingestion and cross-encoders beside what people use for the same."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import corpora
from benchmarks.harness import Goal, Measurement, measure
from workbench import Experiment, weights
from workbench.data import tables
from workbench.data.chunking import Chunking
from workbench.errors import MissingExtraError
from workbench.experiment.sweep import scoring_groups
from workbench.machine import resolve
from workbench.retrieval.analyzer import Analyzer
from workbench.retrieval.bm25 import BM25
from workbench.retrieval.indexes.backends import faiss
from workbench.retrieval.indexes.dense import Dense
from workbench.retrieval.indexes.faiss import AutoIndex, FlatIndex, OpenFaissIndex
from workbench.retrieval.indexes.kinds import AnyIndex
from workbench.retrieval.ranking import Ranked
from workbench.stages.reranking import Reranked
from workbench.store.progress import Progress

MANY = 100_000  # vectors searched
QUERIES = 1_000
DEPTH = 10


@cache
def collection() -> tuple[np.ndarray, np.ndarray]:
    """Real embeddings: those searched, float32 (MANY, 384), and as queries other texts' (QUERIES, 384)."""
    found = corpora.vectors(MANY + QUERIES)
    return found[:MANY], found[MANY:]


def opened(index: AnyIndex, vectors: np.ndarray) -> OpenFaissIndex:
    """An index, built into a folder and opened from it."""
    with tempfile.TemporaryDirectory() as folder:
        index.build(vectors, Path(folder))
        return index.open(Path(folder))


def same_passages(a: Sequence[Ranked], b: Sequence[Ranked]) -> bool:
    """Whether two lists of rankings hold the same passages, whatever the order of near ties."""
    return all(set(x[0].tolist()) == set(y[0].tolist()) for x, y in zip(a, b, strict=True))


def one_query() -> Measurement:
    """One query at a time, ranked by `Dense`, over `IndexFlatIP.search`: exact search among 100,000 vectors."""
    vectors, queries = collection()
    index, ranker = opened(FlatIndex(), vectors), Dense(embedder="e")
    peer = faiss().IndexFlatIP(vectors.shape[1])
    peer.add(vectors)

    def mine() -> list[Ranked]:
        return [ranker.rank(index, vectors, query[None], DEPTH)[0] for query in queries[:50]]

    def plain() -> list[Ranked]:
        found = [peer.search(query[None], DEPTH) for query in queries[:50]]
        return [(ids[0], scores[0]) for scores, ids in found]

    return measure("one query, ranked exactly / IndexFlatIP.search (100,000 x 384)", Goal("<=", 0.6), mine, plain, same_passages)


def batch_search() -> Measurement:
    """The matrix product of 1,000 queries with 100,000 vectors alone, over ranking them."""
    vectors, queries = collection()
    index, ranker = opened(FlatIndex(), vectors), Dense(embedder="e")

    def product() -> None:
        for start in range(0, MANY, 10_000):
            queries @ vectors[start : start + 10_000].T

    name = "bare matrix product / 1,000 queries ranked exactly (100,000 x 384)"
    return measure(name, Goal(">=", 0.8), product, lambda: ranker.rank(index, vectors, queries, DEPTH))


def auto_search() -> Measurement:
    """Exact ranking of 1,000 queries over ranking with the index that `auto` picks, at a recall of 0.95 or more."""
    vectors, queries = collection()
    exact, auto, ranker = opened(FlatIndex(), vectors), opened(AutoIndex(), vectors), Dense(embedder="e")

    def found_again(flat: Sequence[Ranked], picked: Sequence[Ranked]) -> bool:
        kept = [len(set(a[0].tolist()) & set(b[0].tolist())) / DEPTH for a, b in zip(flat, picked, strict=True)]
        return float(np.mean(kept)) >= 0.95

    return measure(
        "ranked exactly / ranked with index: auto, recall@10 >= .95 (100,000 x 384)",
        Goal(">=", 5),
        lambda: ranker.rank(exact, vectors, queries, DEPTH),
        lambda: ranker.rank(auto, vectors, queries, DEPTH),
        found_again,
        rounds=15,
    )


def against_rank_bm25() -> Measurement:
    """100 queries on 5,000 texts: rank_bm25 with Lucene's idf, on the same terms, over `BM25`."""
    try:
        from rank_bm25 import BM25Okapi
    except ModuleNotFoundError as error:
        raise MissingExtraError("rank-bm25", "bench", "this benchmark") from error
    documents, queries = (found := corpora.texts(5_100))[:5_000], found[5_000:]
    settings, analyzer = BM25(), Analyzer()

    class Lucene(BM25Okapi):
        def _calc_idf(self, nd: dict[str, int]) -> None:
            self.idf = {term: float(np.log(1 + (self.corpus_size - n + 0.5) / (n + 0.5))) for term, n in nd.items()}

    peer = Lucene(analyzer.tokenize(documents), k1=settings.k1, b=settings.b)
    folder = Path(tempfile.mkdtemp())
    settings.build(documents, folder, resolve(device="cpu"))
    index = settings.open(folder, resolve(device="cpu"))

    def plain() -> list[np.ndarray]:
        found = [peer.get_scores(terms) for terms in analyzer.tokenize(queries)]
        return [np.sort(scores)[::-1][:DEPTH] / (settings.k1 + 1) for scores in found]

    def mine() -> list[np.ndarray]:
        return [scores for _, scores in index.search(queries, DEPTH)]

    def alike(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
        return all(np.allclose(x[: len(y)], y, rtol=1e-4) for x, y in zip(a, b, strict=True))

    try:
        return measure("rank_bm25 / BM25 (5,000 documents)", Goal(">=", 50), plain, mine, alike)
    finally:
        shutil.rmtree(folder)


def ingest_vectors() -> Measurement:
    """20,000 texts with their vectors into a saved index: LangChain's FAISS store over passages and a flat index."""
    documents = corpora.texts(MANY + QUERIES)[:20_000]
    vectors = collection()[0][:20_000]
    rows = [{"id": f"{i:05d}", "title": "", "text": text} for i, text in enumerate(documents)]

    def langchain() -> int:
        with tempfile.TemporaryDirectory() as folder:
            pairs = zip(documents, vectors.tolist(), strict=True)
            store = _langchain().from_embeddings(pairs, _Encoder(), normalize_L2=False)
            store.save_local(folder)
            return store.index.ntotal

    def mine() -> int:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            dataset = _dataset(rows)
            passages = Chunking(words=None, overlap=0).cut(dataset)
            tables.write(folder / "passages.arrow", passages)
            FlatIndex().build(vectors, folder)
            return passages.num_rows

    name = "LangChain's FAISS store / passages and flat index (20,000 texts, vectors given)"
    return measure(name, Goal(">=", 20), langchain, mine, lambda a, b: a == b == len(rows))


def _dataset(rows: list[dict[str, str]]) -> Any:
    import pyarrow as pa

    from workbench.data.dataset import DOCUMENTS

    return pa.Table.from_pylist(rows, DOCUMENTS)


def ingest(precision: str, bound: float) -> Measurement:
    """2,000 texts, chosen by length at random, from files to a ranked query: LangChain's FAISS store over an experiment."""
    documents = list(_mixed(2_000))
    question = documents[0].split(". ")[0]

    def langchain() -> list[str]:
        store = _langchain().from_texts(documents, _Encoder())
        return [found.page_content for found in store.similarity_search(question, k=DEPTH)]

    def mine() -> list[str]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            experiment = Experiment.load(_beir(folder, documents, question, precision), folder / "runs", (), Progress())
            experiment.index()
            ranking = experiment.planner.stages(experiment.space.baseline, "dev").ranking
            ids = experiment.session.read(ranking).rows()[0][0]
            table = experiment.session.dataset.documents["text"].to_pylist()
            return [table[number] for number in ids[:DEPTH].tolist()]

    def alike(a: list[str], b: list[str]) -> bool:
        return len(set(a) & set(b)) >= (DEPTH if precision == "float32" else DEPTH - 2)

    name = f"LangChain's FAISS store / an experiment's index (2,000 texts, {precision})"
    return measure(name, Goal(">=", bound), langchain, mine, alike, rounds=3)


def _mixed(n: int) -> list[str]:
    """Texts of 15 to 210 words."""
    rng, pieces, found = np.random.default_rng(0), iter(corpora.texts(8 * n)), []
    for _ in range(n):
        text = " ".join(next(pieces) for _ in range(rng.integers(1, 8)))
        found.append(" ".join(text.split()[int(rng.integers(0, 15)) :]))
    return found


def _beir(folder: Path, documents: Sequence[str], question: str, precision: str) -> Path:
    """A BEIR folder with one question in each split, and the experiment's file for it."""
    data = folder / "data"
    (data / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": f"{i:05d}", "title": "", "text": text}) for i, text in enumerate(documents)]
    (data / "corpus.jsonl").write_text("\n".join(lines))
    queries = [json.dumps({"_id": split, "text": question}) for split in ("dev", "test")]
    (data / "queries.jsonl").write_text("\n".join(queries))
    for split in ("dev", "test"):
        (data / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{split}\t00000\t1\n")
    settings = {
        "experiment": "ingest",
        "dataset": {"beir": str(data)},
        "components": {
            "embedders": {"minilm": {"model": corpora.EMBEDDER}},
            "retrievers": {"dense": {"kind": "dense", "embedder": "minilm"}},
        },
        "axes": {"chunking": ["whole"]},
        "depth": DEPTH,
        "machine": {"device": "cpu", "precision": precision},
    }
    (folder / "ingest.yaml").write_text(yaml.safe_dump(settings))
    return folder / "ingest.yaml"


def _langchain() -> Any:
    try:
        from langchain_community.vectorstores import FAISS
    except ModuleNotFoundError as error:
        raise MissingExtraError("langchain-community", "bench", "this benchmark") from error
    return FAISS


class _Encoder:
    """Embeddings as LangChain's own class for sentence-transformers makes them."""

    def __init__(self) -> None:
        self.model = _reference()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.model.encode(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def __call__(self, text: str) -> list[float]:
        return self.embed_query(text)


@cache
def _reference() -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(weights.folder(corpora.EMBEDDER)), device="cpu")


def cross_encoder() -> Measurement:
    """A cross-encoder over the rankings of three retrievers, through the store, over scoring its distinct pairs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = _cross_config(folder)
        Experiment.load(config, folder / "runs", ["axes.reranker=[none]"], Progress()).index()
        stores = iter(range(100))

        def load() -> tuple[Experiment, list[Reranked]]:
            copy = shutil.copytree(folder / "runs", folder / f"copy{next(stores)}")
            experiment = Experiment.load(config, copy, (), Progress())
            stages = [stage for stage in experiment.sweep.need(experiment.selected_on) if isinstance(stage, Reranked)]
            return experiment, stages

        ready = [load() for _ in range(2 * 5 + 2)]  # copying a store is no part of scoring
        first, stages = load()
        pairs = list(dict.fromkeys(pair for stage in stages for pair in stage.pairs(first.session)))
        scorer = stages[0].reranker

        def sweep() -> int:
            experiment, stages = ready.pop()
            for group in scoring_groups(stages):
                experiment.sweep.score_together(group)
            experiment.sweep.ensure(stages)
            return experiment.session.counts()["pairs"].computed

        def alone() -> int:
            return sum(len(batch) for batch in scorer.score(pairs, first.session.machine))

        name = f"three rankings reranked / their {len(pairs):,} distinct pairs scored"
        return measure(name, Goal("<=", 1.05), sweep, alone, lambda a, b: a == b, rounds=5)


def _cross_config(folder: Path) -> Path:
    """Three retrievers and a cross-encoder with a head that nobody trained: its scores mean nothing, its work is the same."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = str(weights.folder(corpora.EMBEDDER))
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).save_pretrained(folder / "cross")
    AutoTokenizer.from_pretrained(source).save_pretrained(folder / "cross")
    settings = {
        "experiment": "cross",
        "dataset": {"name": "pydocs"},
        "components": {
            "embedders": {"minilm": {"model": corpora.EMBEDDER}},
            "retrievers": {
                "bm25": {"kind": "bm25"},
                "dense": {"kind": "dense", "embedder": "minilm"},
                "hybrid": {"kind": "fusion", "of": ["bm25", "dense"]},
            },
            "rerankers": {"cross": {"kind": "cross_encoder", "model": str(folder / "cross"), "top": 10}},
        },
        "axes": {"retriever": ["bm25", "dense", "hybrid"], "reranker": ["cross"]},
        "machine": {"device": "cpu"},
    }
    (folder / "cross.yaml").write_text(yaml.safe_dump(settings))
    return folder / "cross.yaml"
