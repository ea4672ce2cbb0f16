"""What a configuration takes to answer one question, and many: measured on single requests through `Pipeline`."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from workbench.errors import InputError
from workbench.evaluation.statistics import bootstrap_interval, mean_interval
from workbench.machine import cpu_count, cpu_name
from workbench.pipeline import Pipeline
from workbench.results import table_files
from workbench.results.rows import LatencyRow
from workbench.results.run import Run
from workbench.results.tables import known
from workbench.stages.answers import Answers
from workbench.store.progress import Progress

WARM_UP = 3  # requests before the clock counts
BATCH = 32  # prompts answered together to measure throughput


def measure(
    run: Run,
    configurations: Sequence[str] = (),
    requests: int = 50,
    progress: Progress | None = None,
    dataset: Path | None = None,
) -> Path:
    """Times single requests, one after the other, and writes latency.csv into the run's folder.

    Nothing comes from the store but indexes, vectors of passages and adapters: each request embeds, reranks and generates. The
    file names the processor and the load of the machine; times on a busy machine mean little.

    Args:
        run: a finished run that generates answers.
        configurations: ids; default: those measured on the report split.
        requests: per configuration, different questions as far as there are enough.
        progress: where to report.
        dataset: where the run's data lie now; default: where they were.

    Raises:
        InputError: fewer than two requests, or a configuration that only ranks.
    """
    if requests < 2:
        raise InputError(f"{requests} requests were asked for; at least 2 are needed for an interval, 50 are usual")
    chosen = list(configurations) or sorted({row.configuration for row in run.leaderboard if row.split == run.report_split})
    # a pipeline's own progress would come between: a request reranks, generates, ...
    rows = [_row(Pipeline.open(run, one, Progress(), dataset), requests, progress or Progress()) for one in chosen]
    path = run.folder / "latency.csv"
    table_files.write(path, LatencyRow, rows)
    return path


def _row(pipeline: Pipeline, requests: int, progress: Progress) -> LatencyRow:
    answers = pipeline.answering
    if answers is None:
        raise InputError(f"{pipeline.configuration.label} only ranks passages; latency is measured on configurations that answer")
    pipeline.session.keep_in_memory(0)  # what was measured would else come back for nothing
    with progress.task(f"asking {pipeline.configuration.label}", requests) as report:
        questions = _questions(pipeline)
        for question in itertools.islice(questions, WARM_UP):
            pipeline.ask(question)
        replies = []
        for question in itertools.islice(questions, requests):
            replies.append(pipeline.ask(question))
            report(1)
        throughput = _throughput(pipeline, answers, list(itertools.islice(questions, BATCH)))
    seconds = np.array([reply.seconds["total"] for reply in replies])
    prompt, answer = (np.array([reply.tokens[side] for reply in replies], float) for side in ("prompt", "answer"))
    low, high = mean_interval(prompt + answer)
    return LatencyRow(
        pipeline.configuration.id,
        requests,
        *_quantile(seconds, 0.5),
        *_quantile(seconds, 0.95),
        float((prompt + answer).mean()),
        known(low),
        known(high),
        float(prompt.mean()),
        float(answer.mean()),
        throughput,
        os.getloadavg()[0] / cpu_count(),
        cpu_name(),
    )


def _quantile(seconds: np.ndarray, level: float) -> tuple[float, float | None, float | None]:
    """A quantile of float64 (n,) timings, with the ends of its 95 % bootstrap interval."""

    def quantile(drawn: np.ndarray) -> float:
        return float(np.quantile(drawn, level))

    low, high = bootstrap_interval(seconds, quantile)
    return quantile(seconds), known(low), known(high)


def _questions(pipeline: Pipeline) -> Iterator[str]:
    """Questions of all splits, those of the report split first, again and again."""
    dataset, report = pipeline.session.dataset, pipeline.run.report_split
    splits = sorted(dataset.splits, key=lambda split: (split != report, split))
    return itertools.cycle([query.text for split in splits for query in dataset.split(split)])


def _throughput(pipeline: Pipeline, answers: Answers, questions: Sequence[str]) -> float:
    """Answers a second when questions are answered together, as a sweep does."""
    session = pipeline.session
    started = time.perf_counter()
    ranked = pipeline.ranked(questions)
    prompts = [answers.prompted("", question, row, session).messages for question, row in zip(questions, ranked, strict=True)]
    for _ in answers.writer.opened(session).generate(prompts):
        pass
    return len(questions) / (time.perf_counter() - started)
