"""`python -m benchmarks [NAME]...`: measures, prints a table, writes one JSON file a benchmark."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks import arithmetic, comparisons, documents, ingest, models, peers, retrieval, service, sweep, training, views
from benchmarks.harness import Goal, Measurement, peak_bytes
from workbench.machine import cpu_count, cpu_name, resolve

RESULTS = Path(__file__).parent / "results"


def cluster_overhead() -> Measurement:
    """Imported late: Ray reads its settings when it is imported."""
    from benchmarks import cluster

    return cluster.overhead()


def cluster_waiting() -> Measurement:
    """Likewise."""
    from benchmarks import cluster

    return cluster.waiting()


BENCHMARKS: dict[str, Callable[[], Measurement]] = {
    "generation": lambda: models.batched_generation(22, 4.0),
    "generation-long": lambda: models.batched_generation(420, 1.7),
    "generation-long-bfloat16": lambda: models.batched_generation(420, 3.0, "bfloat16"),
    "openvino-one": lambda: peers.generation(300, 16, False, 1.2),
    "openvino-batch": lambda: peers.generation(300, 16, True, 1.1),
    "openvino-one-long": lambda: peers.generation(700, 48, False, 1.2),
    "openvino-batch-long": lambda: peers.generation(700, 48, True, 1.1),
    "openvino-one-tuned": lambda: peers.generation(300, 16, False, 1.2, tuned=True),
    "openvino-batch-tuned": lambda: peers.generation(300, 16, True, 1.1, tuned=True),
    "openvino-one-long-tuned": lambda: peers.generation(700, 48, False, 1.2, tuned=True),
    "openvino-batch-long-tuned": lambda: peers.generation(700, 48, True, 1.1, tuned=True),
    "llama-cpp-one": lambda: peers.generation(300, 16, False, 1.2, peer=peers.LlamaCpp),
    "llama-cpp-one-long": lambda: peers.generation(700, 48, False, 1.2, peer=peers.LlamaCpp),
    "likelihood-speed": lambda: models.likelihood(Goal(">=", 1.15)),
    "likelihood-memory": lambda: models.likelihood(Goal("<=", 1 / 8), peak_bytes),
    "encode-float32": lambda: models.encoding("float32", 1.15),
    "encode-bfloat16": lambda: models.encoding("bfloat16", 1.6),
    "lora": training.lora_training,
    "encode-int8": lambda: models.encoding("int8", 2.5),
    "ingest-vectors": retrieval.ingest_vectors,
    "ingest-float32": lambda: retrieval.ingest("float32", 1.1),
    "ingest-bfloat16": lambda: retrieval.ingest("bfloat16", 2.0),
    "one-query": retrieval.one_query,
    "batch-search": retrieval.batch_search,
    "auto-index": retrieval.auto_search,
    "bm25": retrieval.against_rank_bm25,
    "cross-encoder": retrieval.cross_encoder,
    "comparisons-scipy": comparisons.against_scipy,
    "comparisons-metrics": comparisons.metrics,
    "comparisons-many": comparisons.many,
    "report": views.report_of_a_large_run,
    "distinct-work": sweep.distinct_work,
    "grid": sweep.grid,
    "changed-prompt": sweep.changed_prompt,
    "warm": sweep.warm,
    "precision-prefill": arithmetic.reading,
    "precision-decode": arithmetic.stepping,
    "precision-training": arithmetic.training,
    "independent-encode": arithmetic.encoding,
    "independent-answers": arithmetic.answers,
    "reingest": ingest.reingest,
    "service-hits": service.hits_beside_gradio,
    "service-hits-beside-misses": service.hits_beside_misses,
    "service-together": service.together,
    "service-http": service.over_http,
    "service-equal": service.equal_questions,
    "cluster-overhead": cluster_overhead,
    "cluster-waiting": cluster_waiting,
    "documents": documents.reading,
    "documents-changed": documents.changed,
    "documents-memory": documents.memory,
}


def main(names: list[str]) -> int:
    """Runs benchmarks by name, all when none is named; 2 for an unknown name."""
    if strange := sorted(set(names) - set(BENCHMARKS)):
        sys.stderr.write(f"unknown benchmark {', '.join(strange)}; allowed: {', '.join(BENCHMARKS)}\n")
        return 2
    RESULTS.mkdir(exist_ok=True)
    native = resolve(device="cpu").precision == "bfloat16"
    sys.stdout.write(f"{'benchmark':64} {'goal':>8} {'ratio':>7}  {'95 % interval':17} verdict\n")
    for name in names or BENCHMARKS:
        if name.endswith("-bfloat16") and not native:
            sys.stdout.write(f"{name}: not measured, this processor has no bfloat16 products\n")
            continue
        if name.startswith("llama-cpp") and find_spec("llama_cpp") is None:
            sys.stdout.write(
                f"{name}: not measured; pip install llama-cpp-python builds what it needs, with a C++ compiler and CMake\n"
            )
            continue
        found = BENCHMARKS[name]()
        where = {"verdict": found.verdict, "machine": {"processor": cpu_name(), "cores": cpu_count()}}
        (RESULTS / f"{name}.json").write_text(json.dumps(asdict(found) | where, indent=1) + "\n")
        interval = f"{found.low:.3f} to {found.high:.3f}"
        sys.stdout.write(f"{found.name:64} {found.goal!s:>8} {found.ratio:7.3f}  {interval:17} {found.verdict}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
