"""Traces of the service, received by a collector that speaks OpenTelemetry's protocol on this machine."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
from conftest import Finished
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from served_app import running
from test_bundle import free_port

from workbench.errors import MissingExtraError
from workbench.pipeline import Pipeline
from workbench.serving import tracing
from workbench.serving.tracing import COLLECTOR

TRACE, ABOVE = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ENDPOINT = COLLECTOR[1]


class Collector:
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        spans: list[Any] = []
        resources: list[dict[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                for of_resource in sent.resource_spans:
                    resources.append({one.key: one.value.string_value for one in of_resource.resource.attributes})
                    for scope in of_resource.scope_spans:
                        spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *given: Any) -> None:
                pass

        self.spans, self.resources = spans, resources
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    found = Collector()
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{found.server.server_port}")
    yield found
    found.server.shutdown()
    found.thread.join()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_a_request_its_question_and_the_stages_are_one_trace(toy: Finished, collector: Collector) -> None:
    pipeline = Pipeline.open(toy.run)
    with running(pipeline) as service:
        above = f"00-{TRACE}-{ABOVE}-01"
        answered = service.ask("What is the secret of Anna?", traceparent=above, X_Request_Id="a-request-1")
        assert answered.status == 200
        service.call("GET", "/v1/answers/anna")
    ours = [span for span in collector.spans if span.trace_id.hex() == TRACE]
    request, question = (next(span for span in ours if span.name == name) for name in ("POST /v1/answers", "question"))
    assert request.parent_span_id.hex() == ABOVE and question.parent_span_id == request.span_id
    about = attributes(request)
    assert about["http.response.status_code"] == 200 and about["workbench.request_id"] == "a-request-1"
    stages = [span for span in ours if span.parent_span_id == question.span_id]
    took = answered.json["served"]["seconds"]
    assert {span.name for span in stages} == {name for name in tracing.STAGES if took.get(name)}
    assert all(later.start_time_unix_nano == earlier.end_time_unix_nano for earlier, later in pairwise(stages))
    assert stages[-1].end_time_unix_nano == question.end_time_unix_nano
    told = attributes(question)
    assert told["workbench.identity"] == pipeline.identity[:12] and told["workbench.by"] == "model"
    assert told["gen_ai.usage.input_tokens"] == answered.json["tokens"]["prompt"]
    (other,) = collector.named("GET /v1/answers/{request_id}")
    assert other.trace_id.hex() != TRACE
    assert collector.resources[0]["service.name"] == "rag-workbench"
    assert not any("anna" in str(span).lower() for span in collector.spans)


def test_a_collector_that_is_not_there_costs_no_answer_and_no_long_stop(toy: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{free_port()}")
    with running(Pipeline.open(toy.run)) as service:
        assert service.ask("What does the break statement do?").status == 200
        stopping = service.asking.tracing
    assert stopping._provider._active_span_processor._span_processors[0]._batch_processor._shutdown


def test_nothing_is_traced_where_no_collector_is_named(toy: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in COLLECTOR:
        monkeypatch.delenv(name, raising=False)
    assert not tracing.wanted()
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    assert tracing.wanted()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert not tracing.wanted()
    monkeypatch.delenv("OTEL_TRACES_EXPORTER")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not tracing.wanted()


def test_a_missing_extra_is_named_with_what_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtraError, match=rf"{ENDPOINT} asks for.*rag-workbench\[tracing\]"):
        tracing.Tracing()
