"""The package `rerankers`: a cross-encoder on this disk against sentence-transformers, a service on loopback, and its traps."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
import yaml
from pydantic import ValidationError
from rerankers.documents import Document
from rerankers.models import AVAILABLE_RANKERS
from rerankers.models.ranker import BaseRanker
from rerankers.results import RankedResults, Result
from sentence_transformers import CrossEncoder as Reference
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from workbench import Experiment
from workbench.errors import InputError
from workbench.machine import resolve
from workbench.pipeline import Pipeline
from workbench.retrieval.rerankers.library import Library, _load
from workbench.retrieval.rerankers.library_lists import LibraryLists
from workbench.store.progress import Progress

EXACT = resolve(device="cpu", precision="float32")
QUERIES = ["Who jumps over the dog?", "What do dogs do all day?"]
PASSAGES = ["The quick brown fox jumps over the lazy dog.", "Lazy dogs sleep all day. " * 6, "Naïve façade", ""]
PAIRS = [(query, passage) for query in QUERIES for passage in PASSAGES]


def save(folder: Path, labels: int, seed: int) -> Path:
    """The toy encoder with a new head: what sentence-transformers saves of an untrained cross-encoder."""
    source = toys.made(toys.encoder)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=labels)
    with torch.no_grad():  # so that pairs score apart
        model.bert.pooler.dense.weight.normal_(std=0.3)
        model.classifier.weight.normal_(std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder's name holds words from which the package would guess another kind of model."""
    return save(tmp_path_factory.mktemp("monobert-t5"), 1, 0)


def library(name: object, model_type: str = "cross-encoder", **given: object) -> Library:
    return Library(name=str(name), model_type=model_type, **given)


def scores(reranker: Library, pairs: list[tuple[str, str]]) -> list[float]:
    found = {i: value for batch in reranker.score(pairs, EXACT) for i, value in batch}
    return [found[i] for i in range(len(pairs))]


def test_scores_are_those_of_sentence_transformers(model: Path) -> None:
    expected = Reference(str(model), device="cpu").predict(PAIRS, activation_fn=torch.nn.Identity())
    assert scores(library(model), PAIRS) == pytest.approx(expected.tolist(), abs=2e-5)


def test_a_pair_is_scored_alike_alone_and_among_others(model: Path) -> None:
    together = scores(library(model), PAIRS)
    assert [scores(library(model), [pair])[0] for pair in PAIRS] == together
    assert library(model).rerank(QUERIES[0], PASSAGES, np.zeros(4), EXACT).tolist() == together[:4]
    assert len(set(together)) == len(together)


def test_the_precision_is_that_of_the_machine(model: Path) -> None:
    ((_, half),) = next(library(model).score(PAIRS[:1], resolve(device="cpu", precision="bfloat16")))
    whole = scores(library(model), PAIRS[:1])[0]
    assert half != whole and half == pytest.approx(whole, abs=0.05)


def test_the_key_holds_the_weights_and_not_where_they_lie(model: Path, tmp_path: Path) -> None:
    same, other = save(tmp_path / "same", 1, 0), save(tmp_path / "other", 1, 1)
    assert library(same).definition() == library(model).definition() != library(other).definition()
    assert library("owner/name").definition()["settings"]["name"] == "owner/name"
    assert library(model, arguments={"batch_size": 2}).definition() != library(model).definition()


def test_a_model_that_cannot_be_loaded_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'a/b' \(pylate\) cannot be loaded: .*pip install \"rerankers\[pylate\]\""):
        scores(library("a/b", "pylate"), PAIRS)
    with pytest.raises(InputError, match=r"\(cross-encoder\) cannot be loaded: OSError"):
        scores(library("nobody/nothing"), PAIRS)
    with pytest.raises(InputError, match="a classifier with 2 labels ranks nothing"):
        scores(library(save(tmp_path, 2, 0)), PAIRS)


class Flip(BaseRanker):
    """Ranks a list backwards, names one passage twice and leaves one out; it has no scores. As RankGPT may."""

    asked: tuple[str, ...] = ()

    def __init__(self, model_name_or_path: str, verbose: int) -> None:
        """Loads nothing."""

    def score(self, query: str, doc: str) -> float:
        raise NotImplementedError

    def rank(self, query: str, docs: list[str], doc_ids: list[int] | None = None) -> RankedResults:
        type(self).asked = tuple(docs)
        order = [*reversed(doc_ids[1:]), doc_ids[-1]]
        results = [Result(Document(docs[n], doc_id=n), rank=rank) for rank, n in enumerate(order, 1)]
        return RankedResults(results, query, has_scores=False)


@pytest.fixture
def flip(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(AVAILABLE_RANKERS, "Flip", Flip)
    _load.cache_clear()
    return "Flip"


def test_a_list_keeps_the_order_the_package_gives(flip: str) -> None:
    lists = LibraryLists(name="any", model_type=flip)
    assert lists.rerank("q", ["a", "b", "c", "d"], np.zeros(4), EXACT).tolist() == [-3, -2, -1, 0]
    assert Flip.asked == ("a", "b", "c", "d")
    assert lists.rerank("q", [], np.zeros(0), EXACT).tolist() == []


def test_a_list_of_scored_passages_is_ordered_by_the_scores(model: Path) -> None:
    wanted = np.argsort(-np.array(scores(library(model), PAIRS[:4])))
    found = LibraryLists(name=str(model), model_type="cross-encoder").rerank(QUERIES[0], PASSAGES, np.zeros(4), EXACT)
    assert np.argsort(-found).tolist() == wanted.tolist()
    alone = LibraryLists(name=str(model), model_type="cross-encoder").rerank(QUERIES[0], PASSAGES[:1], np.zeros(1), EXACT)
    assert alone.tolist() == [0]


def test_what_reads_a_list_gives_no_scores_of_pairs(flip: str) -> None:
    with pytest.raises(
        InputError, match="gave None for a passage instead of a score; if it ranks lists, use kind: library_lists"
    ):
        scores(library("any", flip), PAIRS)
    with pytest.raises(ValidationError, match="rankgpt reads the passages of a question together; use kind: library_lists"):
        library("gpt", "rankgpt")


class Service(BaseHTTPRequestHandler):
    """Scores a text by its length, in the form of text-embeddings-inference."""

    asked: list[dict] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body | {"key": self.headers["Authorization"]})
        found = [{"index": i, "score": len(text) / 7} for i, text in enumerate(body["texts"])]
        payload = json.dumps(sorted(found, key=lambda one: -one["score"])).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *args: object) -> None:
        """Keeps the terminal clean."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("RERANKING_KEY", "secret")
    Service.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/rerank"
        server.shutdown()
        thread.join()


def test_a_service_is_asked_once_for_a_question_with_the_key_of_the_environment(service: str) -> None:
    arguments = {"url": service, "api_key": "$RERANKING_KEY"}
    reranker = library("any", "text-embeddings-inference", arguments=arguments)
    assert scores(reranker, PAIRS) == [round(len(passage) / 7, 6) for _, passage in PAIRS]
    assert [(one["query"], len(one["texts"]), one["key"]) for one in Service.asked] == [(q, 4, "Bearer secret") for q in QUERIES]
    assert "secret" not in json.dumps(reranker.definition())


def test_a_key_in_the_file_or_missing_in_the_environment_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"put it into the environment and write \$ITS_NAME"):
        library("any", "cohere", arguments={"api_key": "secret"})
    with pytest.raises(InputError, match=r"arguments\.api_key: the environment has no variable NO_SUCH_KEY; set it"):
        scores(library("any", "cohere", arguments={"api_key": "$NO_SUCH_KEY"}), PAIRS)


def test_a_service_that_does_not_answer_is_named() -> None:
    arguments = {"url": "http://127.0.0.1:9/rerank", "api_key": "$HOME"}
    with pytest.raises(InputError, match=r"reranker 'any' \(text-embeddings-inference\) fails on 4 passages: ConnectionError"):
        scores(library("any", "text-embeddings-inference", arguments=arguments), PAIRS)


def test_an_experiment_scores_a_pair_once_and_serves_what_it_measured(model: Path, tmp_path: Path) -> None:
    settings = {
        "experiment": "library",
        "dataset": {"name": "pydocs", "limit": 3},
        "components": {
            "retrievers": {"bm25": {"kind": "bm25"}, "short": {"kind": "bm25", "b": 0.2}},
            "rerankers": {
                "pairs": {"kind": "library", "name": f"./{model.name}", "model_type": "cross-encoder", "top": 3},
                "lists": {"kind": "library_lists", "name": f"./{model.name}", "model_type": "cross-encoder", "top": 3},
            },
        },
        "axes": {
            "chunking": [{"words": 160, "overlap": 0}],
            "retriever": ["bm25", "short"],
            "reranker": ["none", "pairs", "lists"],
        },
        "report": {"of": "all"},
        # lists are padded, pairs are not: in bfloat16 that would show
        "machine": {"precision": "float32"},
    }
    path = model.parent / "library.yaml"  # beside the model: its place in the file is relative
    path.write_text(yaml.safe_dump(settings))
    run = Experiment.load(path, tmp_path, (), Progress()).compare()
    pairs = json.loads((run.folder / "plan.json").read_text())["items"]["pairs"]
    assert 0 < pairs["computed"] == pairs["distinct"] < 6 * 3 * 2
    rankings = []
    for label in ("bm25/pairs", "bm25/lists"):
        pipeline = Pipeline.open(run, label)
        measured = pipeline.session.read(pipeline.experiment.planner.stages(pipeline.configuration, "test").ranking)
        query = pipeline.session.dataset.split("test")[0]
        ids, values = pipeline.ranking.rank([query.text], pipeline.session)[0]
        assert ids.tolist() == measured.row(0)[0].tolist() and values.tolist() == measured.row(0)[1].tolist()
        rankings.append(measured.passages.tolist())
    assert rankings[0] == rankings[1]
