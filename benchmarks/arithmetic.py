"""What arithmetic costs: the chosen precision against the others, and items that do not depend on their batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import Goal, Measurement, measure
from benchmarks.models import EMBEDDER, GENERATOR, conversations, texts
from benchmarks.training import SETTINGS, examples
from workbench import products
from workbench.machine import precisions, resolve
from workbench.models import lora
from workbench.models.decoding import first_steps
from workbench.models.generator import Generator, LoadedGenerator
from workbench.retrieval.embedders.embedder import Embedder

# the chosen precision may be float32 although another is faster, but by less than this
NEVER_SLOWER = Goal(">=", 1 / precisions.FASTER)
STEPS = 48


def reading() -> Measurement:
    """16 prompts of about 400 tokens read, up to their first logits: in the other precision over the chosen one."""
    return _precisions("prompts read", 260, 1, "inference")


def stepping() -> Measurement:
    """48 tokens after 16 short prompts: in the other precision over the chosen one."""
    return _precisions(f"{STEPS} one-token steps", 8, STEPS, "inference")


def training() -> Measurement:
    """One LoRA step of eight examples: in the other precision over the chosen one."""
    chosen, other = _two("training")
    given = examples()[:8]
    sides = {
        name: lora._GeneratorTraining(SETTINGS, GENERATOR, given, resolve(device="cpu", precision=name), 0)
        for name in (other, chosen)
    }

    def step(name: str) -> float:
        loss, _ = sides[name].backward(range(8))
        sides[name].optimizer.zero_grad()
        return loss

    def alike(a: float, b: float) -> bool:
        return abs(a - b) < 0.05 * b

    name = f"LoRA step: {other} / {chosen}, the chosen one"
    return measure(name, NEVER_SLOWER, lambda: step(other), lambda: step(chosen), alike)


def encoding() -> Measurement:
    """200 passages embedded in float32: with products whose rows do not depend on each other over torch's own."""
    loaded = Embedder(model=EMBEDDER).load(resolve(device="cpu", precision="float32"))
    passages = texts(200)

    def vectors() -> np.ndarray:
        found = {i: vector for part in loaded.encode(passages) for i, vector in part}
        return np.stack([found[i] for i in range(len(passages))])

    return _against_torch("embeddings", vectors, lambda a, b: bool(np.allclose(a, b, atol=1e-5)))


def answers() -> Measurement:
    """16 answers in float32: with products whose rows do not depend on each other over torch's own."""
    generator, prompts = _generator("float32"), conversations(16, 120)

    def replies() -> list[str]:
        found = {i: answer.text for part in generator.generate(prompts, 16) for i, answer in part}
        return [found[i] for i in range(len(prompts))]

    return _against_torch("answers", replies, lambda a, b: sum(x == y for x, y in zip(a, b, strict=True)) >= 12)


def _generator(precision: str) -> LoadedGenerator:
    return Generator(model=GENERATOR, max_new_tokens=STEPS).load(resolve(device="cpu", precision=precision))


def _two(use: str) -> tuple[str, str]:
    """The precision chosen here for a use, and the other."""
    chosen = getattr(precisions.choose("cpu"), use)
    return chosen, next(name for name in ("float32", *precisions.OTHERS) if name != chosen)


def _precisions(what: str, words: int, steps: int, use: str) -> Measurement:
    chosen, other = _two(use)
    sides = {name: _generator(name) for name in (other, chosen)}
    prompts = sorted((sides[chosen].encode(prompt) for prompt in conversations(16, words)), key=len)

    def compute(name: str) -> list[int]:
        *_, logits = first_steps(sides[name].model, prompts, "cpu", steps)
        return logits.argmax(-1).tolist()

    def alike(a: list[int], b: list[int]) -> bool:
        # after many steps answers in two precisions have parted
        return steps > 1 or sum(x == y for x, y in zip(a, b, strict=True)) >= 0.75 * len(a)

    name = f"{what}: {other} / {chosen}, the chosen one"
    return measure(name, NEVER_SLOWER, lambda: compute(other), lambda: compute(chosen), alike)


def _against_torch(what: str, compute: Callable[[], Any], alike: Callable[[Any, Any], bool]) -> Measurement:
    """`compute` as it is, over the same with torch's own choice of products."""

    def free() -> Any:
        steady, products.linear = products.linear, _torchs
        try:
            return compute()
        finally:
            products.linear = steady

    return measure(f"{what} (float32): independent of their batch / by torch's products", Goal("<=", 1.1), compute, free, alike)


def _torchs(rows: Any, weights: Any, bias: Any = None) -> Any:
    import torch

    return torch.nn.functional.linear(rows, weights, bias)
