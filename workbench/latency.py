"""What a configuration takes to answer one question, and many: measured on single requests through `Pipeline`."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import InputError
from workbench.evaluation.statistics import bootstrap_interval, mean_interval
from workbench.machine import cpu_count, cpu_name
from workbench.pipeline import Pipeline
from workbench.results import tables
from workbench.results.run import LATENCY, Run
from workbench.store.items import Items
from workbench.store.progress import Progress

WARM_UP = 3  # requests before the clock counts
BATCH = 32  # prompts answered together to measure throughput


def measure(run: Run, configurations: Sequence[str] = (), requests: int = 50, progress: Progress | None = None) -> Path:
    """Times single requests, one after the other, and writes latency.csv into the run's folder.

    Nothing comes from the store but indexes, vectors of passages and adapters: each request embeds, reranks and generates. The
    file names the processor and the load of the machine; times on a busy machine mean little.

    Args:
        run: a finished run that generates answers.
        configurations: ids; default: those measured on the report split.
        requests: per configuration, different questions as far as there are enough.
        progress: where to report.

    Raises:
        InputError: fewer than two requests, or a configuration that only ranks.
    """
    if requests < 2:
        raise InputError(f"{requests} requests were asked for; at least 2 are needed for an interval, 50 are usual")
    chosen = list(configurations) or sorted({r["configuration"] for r in run.leaderboard if r["split"] == run.report_split})
    # a pipeline's own progress would come between: a request reranks, generates, ...
    rows = [_row(Pipeline.open(run, one, Progress()), requests, progress or Progress()) for one in chosen]
    path = run.folder / "latency.csv"
    tables.write_table(path, LATENCY, rows)
    return path


def _row(pipeline: Pipeline, requests: int, progress: Progress) -> dict[str, Any]:
    if pipeline.answers is None:
        raise InputError(f"{pipeline.configuration.label} only ranks passages; latency is measured on configurations that answer")
    with _nothing_stored(pipeline), progress.task(f"asking {pipeline.configuration.label}", requests) as report:
        questions = _questions(pipeline)
        for question in itertools.islice(questions, WARM_UP):
            pipeline.ask(question)
        replies = []
        for question in itertools.islice(questions, requests):
            replies.append(pipeline.ask(question))
            report(1)
        throughput = _throughput(pipeline, list(itertools.islice(questions, BATCH)))
    seconds = np.array([reply.seconds["total"] for reply in replies])
    row = {"configuration": pipeline.configuration.id, "requests": requests}
    for name, level in (("p50", 0.5), ("p95", 0.95)):
        low, high = bootstrap_interval(seconds, lambda drawn, level=level: float(np.quantile(drawn, level)))
        row |= {name: float(np.quantile(seconds, level)), f"{name}_low": low, f"{name}_high": high}
    prompt, answer = (np.array([reply.tokens[side] for reply in replies], float) for side in ("prompt", "answer"))
    low, high = mean_interval(prompt + answer)
    row |= {"tokens": float((prompt + answer).mean()), "tokens_low": low, "tokens_high": high}
    row |= {"prompt_tokens": float(prompt.mean()), "answer_tokens": float(answer.mean()), "answers_per_second": throughput}
    return row | {"load": os.getloadavg()[0] / cpu_count(), "processor": cpu_name()}


@contextmanager
def _nothing_stored(pipeline: Pipeline) -> Iterator[None]:
    """Within, no item of the store answers a request: what was measured would else come back for nothing."""
    store = pipeline.session.store
    kept = store.items
    with tempfile.TemporaryDirectory() as folder:
        store.items = Items(Path(folder) / "items.sqlite")
        try:
            yield
        finally:
            store.items.connection.close()
            store.items = kept


def _questions(pipeline: Pipeline) -> Iterator[str]:
    """Questions of all splits, those of the report split first, again and again."""
    dataset, report = pipeline.session.dataset, pipeline.run.report_split
    splits = sorted(dataset.splits, key=lambda split: (split != report, split))
    return itertools.cycle([query.text for split in splits for query in dataset.split(split)])


def _throughput(pipeline: Pipeline, questions: Sequence[str]) -> float:
    """Answers a second when questions are answered together, as a sweep does."""
    session, answers = pipeline.session, pipeline.answers
    started = time.perf_counter()
    ranked = pipeline.ranked(questions)
    prompts = [answers.prompted("", question, row, session).messages for question, row in zip(questions, ranked, strict=True)]
    for _ in answers.writer.opened(session).generate(prompts):
        pass
    return len(questions) / (time.perf_counter() - started)
