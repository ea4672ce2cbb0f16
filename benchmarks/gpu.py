"""What a GPU does of the work, beside this machine's processor: indexes, encoding, generation, LoRA, and whether rankings agree.

    python -m benchmarks.gpu [--out FILE] [--minutes N] [--rehearse]

Every measurement is a part that runs in a process of its own, so that one that crashes or takes too long leaves the others. The
file is written after each part. A part that begins after the time is over is left out and named. `--rehearse` runs the same code
on the processor in toy size, both as the card and as the processor.

Each part is warmed up and the median of its rounds counts; the processor is asked for a share of the work where it would
take minutes. Without a GPU nothing is measured and the exit status is 2.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import EMBEDDER, GENERATOR, texts
from workbench.component import library_version
from workbench.data.sources import pydocs
from workbench.machine import Machine, cpu_count, cpu_name, cuda_device, independence, resolve
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
MINUTES = 10.0  # of all parts together
PART_SECONDS = 200.0  # of one part at most


@dataclass(frozen=True)
class Sizes:
    """How much work: vectors and queries searched, texts encoded, prompts answered, examples learned from, questions ranked."""

    vectors: int
    queries: int
    passages: int
    prompts: int
    new_tokens: int
    examples: int
    questions: int


CARD = Sizes(1_000_000, 10_000, 5_000, 128, 48, 256, 300)
PROCESSOR = Sizes(20_000, 500, 200, 8, 48, 16, 300)
TOY = Sizes(2_000, 20, 8, 4, 4, 8, 10)


@dataclass(frozen=True)
class Part:
    """One measurement, as its process is told of it.

    Attributes:
        name: one of `MEASUREMENTS`.
        device: ``cuda`` or ``cpu``.
        sizes: how much work.
        embedder, generator: weights sources.
    """

    name: str
    device: str
    sizes: Sizes
    embedder: str = EMBEDDER
    generator: str = GENERATOR


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


def passages(n: int) -> list[str]:
    """Texts of the Python reference, again and again where there are fewer."""
    rows = texts(min(n, 400))
    return (rows * -(-n // len(rows)))[:n]


def backends_of(machine: Machine) -> list[Backend]:
    """FAISS where it computes on the device, and torch."""
    torch = Backend("torch", "measured", machine.device)
    if machine.device == "cpu":
        return [backends.CPU, torch]
    return [*([] if backends.gpu_lack() else [Backend("faiss-gpu", "measured", machine.device)]), torch]


def indexes(part: Part) -> list[dict[str, Any]]:
    """Every kind that the backends of a device search: seconds to build, queries a second, seconds for one, recall@10."""
    vectors, queries = clustered(part.sizes.vectors, part.sizes.queries)
    wanted = nearest(vectors, queries[:500])
    rows = []
    for backend in backends_of(resolve(part.device)):
        kinds: list[Index] = [FlatIndex()]
        if backend.name != "torch":
            kinds += [IVFFlatIndex(nprobe=32), CagraIndex(degree=32, intermediate=64)]
        for kind in kinds:
            row: dict[str, Any] = {"index": kind.kind, "backend": backend.name}
            try:
                row |= _index(kind, backend, vectors, queries, wanted)
            except Exception as error:  # another library's; the other kinds must not be lost
                row["failed"] = f"{type(error).__name__}: {error}"[:300]
            rows.append(row)
    return rows


def _index(
    kind: Index, backend: Backend, vectors: np.ndarray, queries: np.ndarray, wanted: Sequence[np.ndarray]
) -> dict[str, Any]:
    """What is measured of one index; `wanted` are the `DEPTH` nearest of the first queries, int64 (k,) each."""
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
    return {
        "fallback": [*([facts["fallback"]] if "fallback" in facts else []), *said],
        "build_seconds": built,
        "queries_per_second": len(queries) / together,
        "seconds_for_one": alone,
        "recall@10": overlap([ids for ids, _ in found], wanted),
    }


def nearest(vectors: np.ndarray, queries: np.ndarray, backend: Backend = backends.CPU) -> list[np.ndarray]:
    """The `DEPTH` nearest of each query by exact search, int64 (k,) each, best first."""
    with tempfile.TemporaryDirectory() as folder:
        FlatIndex().build(vectors, Path(folder), backend)
        opened = FlatIndex().open(Path(folder), backend)
        return [ids for ids, _ in Dense(embedder="given").rank(opened, vectors, queries, DEPTH)]


def overlap(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Mean share of the wanted ids, int64 (k,) a query, that were found."""
    return float(np.mean([len(np.intersect1d(a, b)) / max(1, len(b)) for a, b in zip(found, wanted, strict=True)]))


def encoding(part: Part) -> dict[str, Any]:
    """Passages embedded a second."""
    machine = resolve(part.device)
    rows = passages(part.sizes.passages)
    loaded = Embedder(model=part.embedder).load(machine)
    return {
        "precision": machine.precision,
        "passages_per_second": len(rows) / median_seconds(lambda: list(loaded.encode(rows))),
        "notes": independence.notes(),
    }


def _asked(part: Part) -> list[list[dict[str, str]]]:
    """Conversations of a passage each."""
    return [[{"role": "user", "content": text}] for text in passages(part.sizes.prompts)]


def generation(part: Part) -> dict[str, Any]:
    """Tokens read and written a second, and seconds of one answer alone; on a GPU steps are replayed as a CUDA graph."""
    machine = resolve(part.device)
    generator = Generator(model=part.generator, max_new_tokens=part.sizes.new_tokens).load(machine)
    asked = _asked(part)
    answers = [answer for batch in generator.generate(asked) for _, answer in batch]
    tokens = sum(answer.prompt_tokens + answer.new_tokens for answer in answers)
    return {
        "precision": machine.precision,
        "tokens_per_second": tokens / median_seconds(lambda: list(generator.generate(asked))),
        "seconds_for_one": median_seconds(lambda: list(generator.generate(asked[:1]))),
        "notes": generator.notes,
    }


def generate_batch(part: Part) -> dict[str, Any]:
    """As `generation`, by transformers' continuous batching. Its answers depend on their batch."""
    from transformers import ContinuousBatchingConfig

    machine = resolve(part.device)
    generator = Generator(model=part.generator).load(machine)
    encoded = [generator.encode(messages) for messages in _asked(part)]
    settings = copy.deepcopy(generator.model.generation_config)
    settings.update(max_new_tokens=part.sizes.new_tokens, do_sample=False, pad_token_id=0)
    blocks = ContinuousBatchingConfig(num_blocks=64) if part.device == "cpu" else None  # else it takes most of the memory
    generator.model.set_attn_implementation("sdpa")
    tokens = 0

    def whole() -> None:
        nonlocal tokens
        found = generator.model.generate_batch(
            encoded, generation_config=settings, continuous_batching_config=blocks, progress_bar=False
        )
        tokens = sum(map(len, encoded)) + sum(len(one.generated_tokens) for one in found.values())

    seconds = median_seconds(whole)
    return {"precision": machine.precision, "tokens_per_second": tokens / seconds}


def training(part: Part) -> dict[str, Any]:
    """Tokens a second of one epoch of LoRA, loading and saving left out."""
    machine = resolve(part.device)
    chosen = [Example(({"role": "user", "content": text},), text.split()[0]) for text in passages(part.sizes.examples)]
    moments, tokens = [], []

    def on_step(step: Any, total: int) -> None:
        moments.append(time.perf_counter())
        tokens.append(step.tokens)

    with tempfile.TemporaryDirectory() as folder:
        out, work = Path(folder) / "adapter", Path(folder) / "work"
        out.mkdir()
        work.mkdir()
        lora.train(Lora(rank=16, epochs=1, batch_size=4), part.generator, chosen, machine, 0, out, work, on_step)
    return {"precision": machine.training, "tokens_per_second": sum(tokens[1:]) / (moments[-1] - moments[0])}


def parity(part: Part) -> list[dict[str, Any]]:
    """Whether the device ranks passages as the processor does in float32: exact search, the `DEPTH` best of each question.

    Returns:
        One row for the processor's vectors searched on the device, and one for each precision in which the device encodes.
        ``same_first`` and ``same_list`` are shares of the questions, ``overlap@10`` a mean share of passages, and
        ``largest_difference`` is that of any number in any vector.
    """
    asked = [str(text) for text in pydocs().queries["text"][: part.sizes.questions]]
    shown = texts(min(400, 4 * part.sizes.questions))

    def encoded(machine: Machine) -> tuple[np.ndarray, np.ndarray]:
        loaded = Embedder(model=part.embedder, precision=machine.precision).load(machine)
        found = {i: vector for batch in loaded.encode([*shown, *asked]) for i, vector in batch}
        rows = np.stack([found[i] for i in range(len(found))])
        return rows[: len(shown)], rows[len(shown) :]

    vectors, queries = encoded(resolve("cpu", "float32"))
    wanted = nearest(vectors, queries)
    rows = []
    for backend in backends_of(resolve(part.device)):
        rows.append(
            {"vectors": "the processor's", "backend": backend.name} | _agreement(nearest(vectors, queries, backend), wanted)
        )
    for precision in ("float32", "bfloat16"):
        machine = resolve(part.device, precision)
        backend = backends_of(machine)[0]
        own = encoded(machine)
        rows.append(
            {"vectors": f"encoded in {precision}", "backend": backend.name}
            | _agreement(nearest(*own, backend), wanted)
            | {"largest_difference": max(float(np.abs(a - b).max()) for a, b in zip(own, (vectors, queries), strict=True))}
        )
    return rows


def _agreement(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> dict[str, float]:
    pairs = list(zip(found, wanted, strict=True))
    return {
        "same_first": float(np.mean([a[0] == b[0] for a, b in pairs])),
        "same_list": float(np.mean([np.array_equal(a, b) for a, b in pairs])),
        "overlap@10": overlap(found, wanted),
    }


MEASUREMENTS: dict[str, Callable[[Part], Any]] = {
    "indexes": indexes,
    "encoding": encoding,
    "generation": generation,
    "generate_batch": generate_batch,
    "training": training,
    "parity": parity,
}
OF_THE_CARD_ALONE = ("generate_batch", "parity")  # how transformers batches there, and how far it is from the processor


def measured(part: Part, seconds: float) -> Any:
    """What a part gives, computed in a process of its own; or why it gave nothing, as text."""
    if seconds <= 0:
        return "left out: the time was over; raise --minutes"
    with tempfile.TemporaryDirectory() as folder:
        told, out = Path(folder) / "part.json", Path(folder) / "found.json"
        told.write_text(json.dumps(asdict(part)))
        command = [sys.executable, "-m", "benchmarks.gpu", "--part", str(told), "--out", str(out)]
        try:
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return f"failed: it was stopped after {seconds:.0f} s"
        sys.stderr.write(done.stderr)
        if done.returncode or not out.is_file():
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            return f"failed with exit status {done.returncode}: {last}"[:400]
        return json.loads(out.read_text())


def driver() -> str:
    """Version of the GPU's driver, as its own tool says; empty where the tool is absent."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def version(library: str) -> str:
    """Version of an installed distribution; of one that lies there without its metadata, what the module itself says."""
    found = library_version(library)
    if found != "absent":
        return found
    with suppress(ImportError):
        return str(getattr(importlib.import_module(library.replace("-", "_")), "__version__", found))
    return found


def machine_facts() -> dict[str, Any]:
    """Card, None where there is none, processor and libraries."""
    card = cuda_device()
    return {
        "card": card and {"name": card.name, "kind": card.kind, "memory_gib": round(card.memory_gib, 1), "driver": driver()},
        "processor": {"name": cpu_name(), "cores": cpu_count()},
        "libraries": {name: version(name) for name in LIBRARIES},
        "faiss": backends.gpu_lack() or "computes on the GPU",
    }


def run(sides: dict[str, tuple[str, Sizes]], minutes: float, out: Path | None, embedder: str, generator: str) -> dict[str, Any]:
    """Measures every part of every side, writing after each.

    Args:
        sides: name of a side -> its device and how much work it gets; the first is the card.
        minutes: of all parts together.
        out: file that receives what was found; None: none.
        embedder: weights source.
        generator: weights source.
    """
    ends = time.monotonic() + 60 * minutes
    found: dict[str, Any] = {"machine": machine_facts()}
    first = next(iter(sides))
    for side, (device, sizes) in sides.items():
        found[side] = {"sizes": asdict(sizes)}
        for name in MEASUREMENTS:
            if side != first and name in OF_THE_CARD_ALONE:
                continue
            started = time.monotonic()
            left = min(PART_SECONDS, ends - started)
            found[side][name] = measured(Part(name, device, sizes, embedder, generator), left)
            said = found[side][name] if isinstance(found[side][name], str) else "done"
            sys.stderr.write(f"{side}, {name}: {said} ({time.monotonic() - started:.0f} s)\n")
            if out is not None:
                out.write_text(json.dumps(found, indent=1) + "\n")
    return found


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="What a GPU does of the work, beside the processor."
    )
    parser.add_argument(
        "--out", type=Path, help="file to write; default: benchmarks/results/gpu-<card>.json, none in a rehearsal"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all parts together (default: %(default)g)")
    parser.add_argument("--rehearse", action="store_true", help="run the same code on the processor in toy size")
    parser.add_argument("--embedder", default=EMBEDDER, help="weights source (default: %(default)s)")
    parser.add_argument("--generator", default=GENERATOR, help="weights source (default: %(default)s)")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)  # file with one part, for the process that measures it
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Measures and writes; 1 where a part gave nothing, 2 without a GPU."""
    chosen = arguments(given)
    if chosen.part:
        values = json.loads(chosen.part.read_text())
        part = Part(**values | {"sizes": Sizes(**values["sizes"])})
        chosen.out.write_text(json.dumps(MEASUREMENTS[part.name](part)))
        return 0
    card = cuda_device()
    sides = (
        {"card": ("cpu", TOY), "processor": ("cpu", TOY)}
        if chosen.rehearse
        else {"card": ("cuda", CARD), "processor": ("cpu", PROCESSOR)}
    )
    if card is None and not chosen.rehearse:
        sys.stderr.write("no GPU that this torch can use was found; nothing was measured or written; --rehearse needs none\n")
        return 2
    out = chosen.out
    if out is None and card is not None and not chosen.rehearse:
        out = RESULTS / f"gpu-{re.sub(r'[^a-z0-9]+', '-', card.name.lower()).strip('-')}.json"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    found = run(sides, chosen.minutes, out, chosen.embedder, chosen.generator)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return int(any(isinstance(value, str) for side in sides for value in found[side].values()))


if __name__ == "__main__":
    sys.exit(main())
