"""What the service counts and times, in the text format of Prometheus.

Each application has a registry of its own. Counters are fed where things end: `Metrics.request` by the guard around the
application, `Metrics.question` by what keeps records, `Metrics.vote` by votes. Gauges are read from the service when it is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from workbench.serving.records.journal import ANSWERED, FAILED, FALLBACK, LATE, OVERLOADED, status_of
from workbench.version import __version__

if TYPE_CHECKING:
    from workbench.serving.asking import Asking
    from workbench.serving.records.journal import Entry, Spent
    from workbench.serving.records.writer import Writer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1, 2, 4, 8, 16)
SERIES = ((ANSWERED, "model"), (FAILED, "model"), (FALLBACK, FALLBACK), *((s, "nobody") for s in (FAILED, LATE, OVERLOADED)))
STAGES = ("queue", "rewriting", "retrieval", "generation", "total")


class Metrics:
    """Counters and histograms of one application."""

    def __init__(self, asking: Asking, writer: Writer | None) -> None:
        """Begins at zero.

        Args:
            asking: what answers; its state is read at each scrape.
            writer: of the records, if there are any; likewise.
        """
        self.registry = CollectorRegistry()
        self._currency = asking.settings.prices.currency

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"workbench_{name}", about, labels, registry=self.registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"workbench_{name}", about, labels, buckets=buckets, registry=self.registry)

        self._requests = counter("http_requests", "Requests by route and status.", "method", "route", "status")
        self._request_seconds = histogram("http_request_seconds", "Seconds until a response was sent whole.", SECONDS, "route")
        self._questions = counter("questions", "Questions by what became of them and by what answered.", "status", "by")
        self._stage_seconds = histogram("stage_seconds", "Seconds that a stage of an answer took.", SECONDS, "stage")
        self._rows = histogram("batch_rows", "Questions that the model answered together.", ROWS)
        self._tokens = counter("tokens", "Tokens of prompts and of answers.", "kind")
        self._cost = counter("cost", "What tokens cost, in units of the currency.", "currency")
        self._fallbacks = counter("fallbacks", "Answers of what answers when the model does not.", "name")
        self._votes = counter("votes", "Votes on answers.", "vote")
        for series in SERIES:  # a series that is there from the start shows zero, and its first event is a rise
            self._questions.labels(*series)
        for stage in STAGES:
            self._stage_seconds.labels(stage)
        for vote in ("up", "down"):
            self._votes.labels(vote)
        for kind in ("prompt", "answer"):
            self._tokens.labels(kind)
        self._cost.labels(self._currency)
        self.registry.register(_State(asking, writer))

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request that ended.

        Args:
            method: of HTTP, or ``other``.
            route: the route's path with the names of its parameters, ``page``, or ``unknown``.
            status: of the response; 499 where the client left before it.
            seconds: that it took.
        """
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def question(self, entry: Entry, spent: Spent) -> None:
        """Counts a question that ended.

        Args:
            entry: what became of it.
            spent: on its answer.
        """
        served = entry.served
        by = str(served.get("by", "nobody"))
        self._questions.labels(status_of(entry), by).inc()
        if by == "model":
            for stage, seconds in served.get("seconds", {}).items():
                self._stage_seconds.labels(stage).observe(seconds)
            self._rows.observe(served.get("batch", 1))
        if fallback := served.get("fallback"):
            self._fallbacks.labels(str(fallback["name"])).inc()
        self._tokens.labels("prompt").inc(spent.prompt)
        self._tokens.labels("answer").inc(spent.answer)
        self._cost.labels(self._currency).inc(spent.cost_micros / 1e6)

    def vote(self, value: int) -> None:
        """Counts a vote that was kept: 1 or -1."""
        self._votes.labels("up" if value > 0 else "down").inc()

    def text(self) -> bytes:
        """All of it, in the text format of Prometheus."""
        return generate_latest(self.registry)


class _State(Collector):
    """What can be read from the service at any time."""

    def __init__(self, asking: Asking, writer: Writer | None) -> None:
        self.asking, self.writer = asking, writer

    def collect(self) -> Iterator[Any]:
        asking, service = self.asking, self.asking.service
        yield InfoMetricFamily(
            "workbench_served",
            "What is served.",
            value={
                "version": __version__,
                "run": service.pipeline.run.folder.name,
                "configuration": service.pipeline.configuration.id,
                "identity": service.pipeline.identity[:12],
            },
        )
        yield _gauge("questions_waiting", "Questions that no batch has taken yet.", service.batcher.waiting)
        yield _gauge("questions_under_way", "Questions that are answered or wait.", asking.under_way)
        yield _gauge("queue_limit", "Questions that may wait.", asking.settings.serve.queue)
        yield _gauge(
            "batch_busy_seconds", "Seconds for which the batch in flight has been computed.", service.batcher.busy_seconds
        )
        yield _gauge(
            "without_workers", "Whether no process takes questions from the broker's queue.", service.batcher.takers == 0
        )
        computed = float(asking.computed)
        yield CounterMetricFamily(
            "workbench_answers_computed", "Answers that the model gave; equal questions share one.", computed
        )
        yield _gauge("cache_memory_bytes", "Bytes of answers that are kept in memory.", asking.memory.bytes)
        breakers = GaugeMetricFamily("workbench_breaker_open", "Whether nobody asks it, since it failed.", labels=["of"])
        for name, breaker in [("model", service.breaker), *((one.name, each) for one, each in service.replacements)]:
            breakers.add_metric([name], float(breaker.state != "closed"))
        yield breakers
        ready = not asking.stopping and service.batcher.nobody is None
        yield _gauge("ready", "Whether questions are taken and somebody computes.", ready)
        redis = asking.redis
        about = "Whether Redis does not answer, so that this process goes on without it."
        yield _gauge("redis_away", about, redis.away if redis else False)
        failures = float(redis.failures if redis else 0)
        yield CounterMetricFamily("workbench_redis_failures", "Commands to Redis that failed.", value=failures)
        if self.writer:
            yield _gauge("records_waiting", "Records that are not on the disk yet.", self.writer.waiting)
            dropped = float(self.writer.dropped)
            yield CounterMetricFamily("workbench_records_dropped", "Records that found no room.", value=dropped)


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"workbench_{name}", about, value=float(value))
