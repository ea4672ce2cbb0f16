"""What a GPU does of the work, against this machine's processor: indexes, encoding, generation, LoRA.

    python -m benchmarks.gpu

Writes benchmarks/results/gpu-<card>.json, after each device anew. Without a GPU it writes nothing and exits with status 2. Each
side is warmed up and the median of its rounds counts; the processor is asked for a share of the work where it would take minutes.
What fails is written with its reason, and the rest is measured all the same.
"""

from __future__ import annotations

import copy
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import EMBEDDER, GENERATOR, texts
from workbench.component import library_version
from workbench.machine import Machine, cpu_count, cpu_name, cuda_device, resolve
from workbench.models import lora
from workbench.models.generator import Generator
from workbench.models.lora import Example, Lora
from workbench.retrieval.embedders.embedder import Embedder
from workbench.retrieval.indexes import backends
from workbench.retrieval.indexes.backends import Backend
from workbench.retrieval.indexes.dense import Dense
from workbench.retrieval.indexes.faiss import CagraIndex, FlatIndex, Index, IVFFlatIndex

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "faiss", "transformers", "sentence-transformers", "peft", "numpy")
ROUNDS = 3
DEPTH = 10


@dataclass(frozen=True)
class Sizes:
    """How much work: vectors and queries searched, texts encoded, prompts answered, examples learned from."""

    vectors: int
    queries: int
    passages: int
    prompts: int
    new_tokens: int
    examples: int


WHOLE = {"cuda": Sizes(1_000_000, 10_000, 5_000, 256, 48, 256), "cpu": Sizes(100_000, 500, 200, 16, 48, 16)}


def median_seconds(call: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Median of several calls, after one that does not count."""
    found = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:])


def clustered(n: int, queries: int, d: int = 384) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in clusters, and others drawn alike as queries: float32 (n, d) and (queries, d)."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4096, d)).astype(np.float32)
    rows = centres[rng.integers(4096, size=n + queries)]
    for part in np.array_split(rows, max(1, len(rows) // 50_000)):
        part += 0.7 * rng.standard_normal(part.shape, np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows[:n], rows[n:]


def backends_of(machine: Machine) -> list[Backend]:
    """FAISS where it computes on the device, and torch."""
    torch = Backend("torch", "measured", machine.device)
    if machine.device == "cpu":
        return [backends.CPU, torch]
    return [*([] if backends.gpu_lack() else [Backend("faiss-gpu", "measured", machine.device)]), torch]


def indexes(machine: Machine, vectors: np.ndarray, queries: np.ndarray, wanted: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Every kind that the backends of a device search: seconds to build, queries a second, seconds for one, recall@10.

    Args:
        machine: with the device.
        vectors: float32 (n, d), unit length.
        queries: float32 (m, d).
        wanted: the `DEPTH` nearest of the first queries.
    """
    rows = []
    for backend in backends_of(machine):
        kinds: list[Index] = [FlatIndex()]
        if backend.name != "torch":
            kinds += [IVFFlatIndex(nprobe=32), CagraIndex(degree=32, intermediate=64)]
        for kind in kinds:
            row = {"index": kind.kind, "backend": backend.name}
            found = attempted(str(row), partial(_index, kind, backend, vectors, queries, wanted))
            rows.append(row | (found if isinstance(found, dict) else {"failed": found}))
    return rows


def _index(kind: Index, backend: Backend, vectors: np.ndarray, queries: np.ndarray, wanted: Sequence[np.ndarray]) -> dict:
    said: list[str] = []
    dense = Dense(embedder="given", index=kind)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        facts = kind.build(vectors, Path(folder), backend)
        built = time.perf_counter() - started
        opened = kind.open(Path(folder), backend, said.append)
        together = median_seconds(lambda: dense.rank(opened, vectors, queries, DEPTH))
        alone = median_seconds(lambda: dense.rank(opened, vectors, queries[:1], DEPTH))
        found = dense.rank(opened, vectors, queries[: len(wanted)], DEPTH)
    shares = [len(np.intersect1d(ids, best)) / max(1, len(best)) for (ids, _), best in zip(found, wanted, strict=True)]
    return {
        "fallback": [*([facts["fallback"]] if "fallback" in facts else []), *said],
        "build_seconds": built,
        "queries_per_second": len(queries) / together,
        "seconds_for_one": alone,
        "recall@10": float(np.mean(shares)),
    }


def attempted(what: str, call: Callable[[], Any]) -> Any:
    """What a measurement gives, or why it gave nothing: it may be another library's fault, and the others must not be lost."""
    started = time.perf_counter()
    try:
        found = call()
    except Exception as error:
        traceback.print_exc()
        found = f"{type(error).__name__}: {error}"[:300]
    sys.stderr.write(f"{what}: {found} ({time.perf_counter() - started:.0f} s)\n")
    return found


def nearest(vectors: np.ndarray, queries: np.ndarray) -> list[np.ndarray]:
    """The `DEPTH` nearest of each query by exact search on the processor."""
    with tempfile.TemporaryDirectory() as folder:
        FlatIndex().build(vectors, Path(folder))
        return [ids for ids, _ in Dense(embedder="given").rank(FlatIndex().open(Path(folder)), vectors, queries, DEPTH)]


def encoding(machine: Machine, passages: int) -> float:
    """Passages embedded a second."""
    rows = (texts(min(passages, 400)) * (passages // 400 + 1))[:passages]
    loaded = Embedder(model=EMBEDDER).load(machine)
    return passages / median_seconds(lambda: list(loaded.encode(rows)))


def generation(machine: Machine, prompts: int, new_tokens: int) -> float:
    """Tokens read and written a second, prompts of a passage each."""
    generator = Generator(model=GENERATOR, max_new_tokens=new_tokens).load(machine)
    asked = [[{"role": "user", "content": text}] for text in (texts(min(prompts, 400)) * (prompts // 400 + 1))[:prompts]]
    answers = [answer for part in generator.generate(asked) for _, answer in part]
    tokens = sum(answer.prompt_tokens + answer.new_tokens for answer in answers)
    return tokens / median_seconds(lambda: list(generator.generate(asked)))


def with_generate_batch(machine: Machine, prompts: int, new_tokens: int) -> float:
    """As `generation`, by transformers' continuous batching. Its answers depend on their batch."""
    generator = Generator(model=GENERATOR).load(machine)
    asked = [[{"role": "user", "content": text}] for text in (texts(min(prompts, 400)) * (prompts // 400 + 1))[:prompts]]
    encoded = [generator.encode(messages) for messages in asked]
    settings = copy.deepcopy(generator.model.generation_config)
    settings.update(max_new_tokens=new_tokens, do_sample=False, pad_token_id=0)
    generator.model.set_attn_implementation("sdpa")
    tokens = 0

    def whole() -> None:
        nonlocal tokens
        found = generator.model.generate_batch(encoded, generation_config=settings, progress_bar=False)
        tokens = sum(map(len, encoded)) + sum(len(one.generated_tokens) for one in found.values())

    return float(1 / median_seconds(whole)) * tokens


def training(machine: Machine, examples: int) -> float:
    """Tokens a second of one epoch of LoRA, loading and saving left out."""
    chosen = [Example(({"role": "user", "content": text},), text.split()[0]) for text in texts(examples)]
    moments, tokens = [], []

    def on_step(step: Any, total: int) -> None:
        moments.append(time.perf_counter())
        tokens.append(step.tokens)

    with tempfile.TemporaryDirectory() as folder:
        out, work = Path(folder) / "adapter", Path(folder) / "work"
        out.mkdir()
        work.mkdir()
        lora.train(Lora(rank=16, epochs=1, batch_size=4), GENERATOR, chosen, machine, 0, out, work, on_step)
    return sum(tokens[1:]) / (moments[-1] - moments[0])


def side(machine: Machine, sizes: Sizes, vectors: np.ndarray, queries: np.ndarray) -> dict[str, Any]:
    """All that is measured of one device."""
    vectors, queries = vectors[: sizes.vectors], queries[: sizes.queries]
    wanted = nearest(vectors, queries[:500])
    measurements: dict[str, Callable[[], Any]] = {
        "passages_encoded_per_second": lambda: encoding(machine, sizes.passages),
        "tokens_generated_per_second": lambda: generation(machine, sizes.prompts, sizes.new_tokens),
        "tokens_per_second_of_generate_batch": lambda: with_generate_batch(machine, sizes.prompts, sizes.new_tokens),
        "tokens_trained_per_second": lambda: training(machine, sizes.examples),
    }
    return {
        "machine": {"arithmetic": machine.arithmetic, "batch_size": machine.batch_size},
        "sizes": asdict(sizes),
        "indexes": indexes(machine, vectors, queries, wanted),
        **{name: attempted(name, call) for name, call in measurements.items()},
    }


def compared(sizes: dict[str, Sizes] = WHOLE) -> Iterator[dict[str, Any]]:
    """Each device on the same vectors, one after the other; the keys of `sizes` name them."""
    vectors, queries = clustered(max(size.vectors for size in sizes.values()), max(size.queries for size in sizes.values()))
    for device, size in sizes.items():
        yield {device: side(resolve(device), size, vectors, queries)}


def driver() -> str:
    """Version of the GPU's driver, as its own tool says; empty where the tool is absent."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def main() -> int:
    """Measures and writes; 2 without a GPU."""
    card = cuda_device()
    if card is None:
        sys.stderr.write("no GPU that this torch can use was found; nothing was measured or written\n")
        return 2
    found = {
        "card": {"name": card.name, "kind": card.kind, "memory_gib": round(card.memory_gib, 1), "driver": driver()},
        "processor": {"name": cpu_name(), "cores": cpu_count()},
        "libraries": {name: library_version(name) for name in LIBRARIES},
        "faiss": backends.gpu_lack() or "computes on the GPU",
    }
    RESULTS.mkdir(exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", card.name.lower()).strip("-")
    for part in compared():
        found |= part
        (RESULTS / f"gpu-{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
