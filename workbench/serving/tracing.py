"""Traces of requests and of the parts of answers, by OpenTelemetry, where its variables of the environment name a collector.

The extra ``tracing`` holds the libraries. OpenTelemetry's own variables say where traces go, how many are kept and what the
service is called. A span holds names, counts and times, and no text of people.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from workbench.errors import MissingExtraError
from workbench.serving.records.journal import status_of
from workbench.version import __version__

if TYPE_CHECKING:
    from workbench.serving.records.journal import Entry, Spent

COLLECTOR = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
NAME = "rag-workbench"  # of the service, unless OTEL_SERVICE_NAME gives another
STAGES = ("queue", "rewriting", "retrieval", "generation")  # of an answer, in their order
STOP_SECONDS = 2.0
PASSED_ON = (b"traceparent", b"tracestate")  # headers by which a request belongs to its caller's trace


def wanted() -> bool:
    """Whether the environment names a collector and does not turn tracing off."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER", "") == "none"
    return not off and any(map(os.environ.get, COLLECTOR))


class Tracing:
    """Makes spans and sends them in a thread of its own; a collector that does not answer costs spans, and no request."""

    def __init__(self) -> None:
        """Begins to send to the collector that the environment names.

        Raises:
            MissingExtraError: OpenTelemetry is not installed.
        """
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ModuleNotFoundError as error:
            named = next(filter(os.environ.get, COLLECTOR))
            missing = error.name or "opentelemetry-sdk"
            raise MissingExtraError(missing, "tracing", f"sending traces to a collector, which {named} asks for,") from error
        name = os.environ.get("OTEL_SERVICE_NAME") or NAME
        self._provider = TracerProvider(resource=Resource.create({"service.name": name, "service.version": __version__}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("workbench.serving", __version__)
        self._propagator, self._trace = TraceContextTextMapPropagator(), trace

    @contextmanager
    def request(self, headers: Mapping[bytes, bytes], request_id: str) -> Iterator[None]:
        """Within, spans belong to a request, and the request to the trace that its headers name.

        Args:
            headers: of the request, with names in lower case.
            request_id: of the request, as in the log.
        """
        carried = {name.decode(): headers[name].decode("latin-1") for name in PASSED_ON if name in headers}
        above = self._propagator.extract(carried)
        kind = self._trace.SpanKind.SERVER
        with self._tracer.start_as_current_span(
            "request", above, kind, {"workbench.request_id": request_id}, record_exception=False, set_status_on_exception=False
        ):
            yield

    def ended(self, method: str, route: str, status: int) -> None:
        """Names the span of the request under way by its route.

        Args:
            method: of HTTP, or ``other``.
            route: the route's path with the names of its parameters, ``page``, or ``unknown``.
            status: of the response; 499 where the client left before it.
        """
        span = self._trace.get_current_span()
        span.update_name(f"{method} {route}")
        span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)

    def question(self, entry: Entry, spent: Spent) -> None:
        """Adds a question that ended to the request's trace, and the stages of its answer in their order.

        Args:
            entry: what became of it.
            spent: on its answer.
        """
        ended = _nanoseconds(entry.at + entry.seconds)
        served, about = entry.served, self._about(entry, spent)
        span = self._tracer.start_span("question", attributes=about, start_time=_nanoseconds(entry.at))
        if served.get("by") == "model":
            took = [(stage, _nanoseconds(seconds)) for stage in STAGES if (seconds := served["seconds"].get(stage))]
            begun = ended - sum(lasted for _, lasted in took)
            within = self._trace.set_span_in_context(span)
            for stage, lasted in took:
                part = self._tracer.start_span(stage, within, start_time=begun)
                begun += lasted
                part.end(begun)
        span.end(ended)

    def _about(self, entry: Entry, spent: Spent) -> dict[str, Any]:
        served = entry.served
        about = {
            "workbench.status": status_of(entry), "workbench.by": served.get("by", "nobody"), "workbench.run": entry.run,
            "workbench.configuration": entry.configuration, "workbench.identity": entry.identity[:12],
            "workbench.batch": served.get("batch"), "workbench.fallback": (served.get("fallback") or {}).get("name"),
            "gen_ai.usage.input_tokens": spent.prompt, "gen_ai.usage.output_tokens": spent.answer,
        }  # fmt: skip
        return {name: value for name, value in about.items() if value is not None}

    def stop(self) -> None:
        """Sends what is left, and ends; a collector that does not answer is waited for `STOP_SECONDS`."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)  # it would wait for half a minute
        sending.start()
        sending.join(STOP_SECONDS)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
