"""What is seen of a running service: metrics, alerts, a dashboard's figures, lines of the log; and who looks after it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Finished, program
from prometheus_client.parser import text_string_to_metric_families
from served_app import Running, running, settings
from test_bundle import free_port

from workbench.pipeline import Pipeline
from workbench.serving import logs
from workbench.serving.logs import JsonFormatter
from workbench.serving.middleware import Guard
from workbench.serving.records.database import FILE, Database

DEPLOY = ROOT / "workbench" / "serving" / "deploy"
QUESTION = "What does the break statement do?"


@pytest.fixture(scope="module")
def service(toy: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with records, asked by everybody of this machine."""
    records = Database(tmp_path_factory.mktemp("records") / FILE)
    pipeline = Pipeline.open(toy.run)
    with running(pipeline, settings(more={"prices": {"prompt": 1.0, "answer": 2.0}}), records=records) as found:
        yield found


def scraped(service: Running) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """(name, labels) -> value of every sample."""
    response = service.call("GET", "/metrics")
    assert response.status == 200 and response.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(response.body.decode())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def value(samples: dict[Any, float], name: str, **labels: str) -> float:
    return samples.get((f"workbench_{name}", frozenset(labels.items())), 0.0)


def test_everything_that_ends_is_counted_once(service: Running) -> None:
    before = scraped(service)
    answered = service.ask(QUESTION).json
    kept = service.ask(QUESTION).json
    assert service.call("POST", "/v1/answers", {"question": ""}).status == 422
    assert service.call("PUT", f"/v1/answers/{answered['id']}/vote", {"vote": -1}).status == 204
    after = scraped(service)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    status = "abstained" if answered["answer"] == "" else "answered"
    assert more("questions_total", status=status, by="model") == 1 and more("questions_total", status=status, by="cache") == 1
    assert kept["served"]["by"] == "cache"
    route = {"method": "POST", "route": "/v1/answers"}
    assert more("http_requests_total", status="200", **route) == 2 and more("http_requests_total", status="422", **route) == 1
    assert more("http_request_seconds_count", route="/v1/answers") == 3
    assert more("http_requests_total", method="PUT", route="/v1/answers/{request_id}/vote", status="204") == 1
    assert more("stage_seconds_count", stage="generation") == 1 and more("stage_seconds_count", stage="queue") == 1
    assert more("batch_rows_count") == 1 and more("votes_total", vote="down") == 1
    tokens = answered["tokens"]
    assert more("tokens_total", kind="prompt") == tokens["prompt"] and more("tokens_total", kind="answer") == tokens["answer"]
    assert more("cost_total", currency="EUR") == pytest.approx((tokens["prompt"] + 2 * tokens["answer"]) / 1e6, abs=1e-6)
    assert value(after, "breaker_open", of="model") == 0 and value(after, "ready") == 1
    assert value(after, "questions_under_way") == value(after, "questions_waiting") == 0


def test_metrics_are_named_by_routes_and_hold_no_text_of_people(service: Running) -> None:
    service.ask("What is the secret of Anna?")
    service.call("GET", "/v1/answers/anna-secret-request")
    service.call("GET", "/anna/secret")
    service.call("GET", "/v1/anna")
    text = service.call("GET", "/metrics").body.decode()
    assert "anna" not in text.lower()
    routes = set(re.findall(r'route="([^"]*)"', text))
    assert {"/v1/answers", "/v1/answers/{request_id}", "unknown"} <= routes
    assert all(route.startswith("/") or route in ("page", "unknown") for route in routes)


def test_metrics_are_for_this_machine_or_a_key(toy: Finished, tmp_path: Path) -> None:
    records = Database(tmp_path / FILE)
    with running(Pipeline.open(toy.run), settings(more={"who": {"open": "never"}}), records=records) as closed:
        assert closed.call("GET", "/metrics").status == 401
        assert closed.call("GET", "/readyz").status == 200


def test_a_client_cannot_make_series_or_lines_of_the_log(service: Running, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(3):
        guard = Guard(_fails, service.asking, ("*",), lambda *given: b"{}")
        scope = {"type": "http", "method": f"MADE{i}", "path": "/v1/a\n2026 error anna", "headers": []}
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        asyncio.run(guard(scope, _nothing, send))
        assert sent[0]["status"] == 500
    samples = scraped(service)
    assert value(samples, "http_requests_total", method="other", route="unknown", status="500") == 3
    assert not [labels for _, labels in samples if any(text.startswith("MADE") for _, text in labels)]
    assert len(caplog.messages) >= 3 and not [one for one in caplog.messages if "\n" in one or "anna" in one]


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request"}


async def _fails(*given: Any) -> None:
    raise ValueError("unexpected")


def test_what_an_alert_counts_is_there_before_its_first_event(service: Running) -> None:
    there = scraped(service)
    for status in ("failed", "late", "overloaded"):
        assert ("workbench_questions_total", frozenset({"status": status, "by": "nobody"}.items())) in there
    assert ("workbench_records_dropped_total", frozenset()) in there
    rules = (DEPLOY / "alerts.yml").read_text()
    assert "increase(workbench_records_dropped_total" in rules, "the alert ends when no more are lost"


# --- Prometheus -------------------------------------------------------------------------------------------------------


def test_prometheus_scrapes_a_running_service_and_knows_its_rules(service: Running, tmp_path: Path) -> None:
    prometheus, port = program("prometheus", "prometheus"), free_port()
    conf = (DEPLOY / "prometheus.yml").read_text().replace("127.0.0.1:7860", f"127.0.0.1:{service.port}")
    (tmp_path / "prometheus.yml").write_text(conf.replace("15s", "1s"))
    (tmp_path / "alerts.yml").write_text((DEPLOY / "alerts.yml").read_text())
    command = [prometheus, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with (tmp_path / "log").open("w") as out:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=out, stderr=out)
    try:
        service.ask(QUESTION)

        def asked(query: str) -> list[Any]:
            address = f"http://127.0.0.1:{port}/api/v1/{query}"
            with urllib.request.urlopen(address, timeout=5) as found:
                return json.load(found)["data"]

        deadline, found = time.monotonic() + 60, []
        while not found and time.monotonic() < deadline:
            try:
                found = asked("query?query=" + urllib.parse.quote("sum(workbench_questions_total) > 0"))["result"]
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        assert found, (tmp_path / "log").read_text()
        assert [target["health"] for target in asked("targets")["activeTargets"]] == ["up"]
        rules = asked("rules")["groups"][0]["rules"]
        assert len(rules) == len(alerts()) and {rule["health"] for rule in rules} <= {"ok", "unknown"}
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_the_rules_are_understood() -> None:
    done = subprocess.run(
        [program("promtool", "prometheus"), "check", "rules", DEPLOY / "alerts.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", (DEPLOY / "alerts.yml").read_text())


def test_every_alert_has_a_section_in_the_runbook() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    assert re.findall(r"^## (\w+)$", runbook, re.MULTILINE) == alerts()
    linked = re.findall(r"runbook: docs/runbook\.md#(\w+)", (DEPLOY / "alerts.yml").read_text())
    assert linked == [name.lower() for name in alerts()]


def test_dashboard_and_alerts_name_metrics_that_there_are(service: Running) -> None:
    service.ask(QUESTION)
    there = {name for name, _ in scraped(service)}
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) >= 10
    for source in (*queries, (DEPLOY / "alerts.yml").read_text()):
        for name in re.findall(r"\bworkbench_\w+", source):
            counted = {name, f"{name}_total"} & there or name.removesuffix("_bucket") + "_count" in there
            assert counted or name == "workbench_fallbacks_total", name


# --- The log ----------------------------------------------------------------------------------------------------------


def test_the_log_is_json_with_the_id_of_the_request(service: Running) -> None:
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("workbench.serving.middleware")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        service.ask("What is logged of Anna?", X_Request_Id="a-request-1")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    (line,) = [json.loads(one) for one in said.getvalue().splitlines()]
    assert line["request"] == "a-request-1" and line["route"] == "/v1/answers" and line["status"] == 200
    assert line["level"] == "info" and line["seconds"] >= 0 and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z", line["at"])
    assert "Anna" not in said.getvalue()


def test_an_error_in_the_log_is_one_line() -> None:
    try:
        raise ValueError("several\nlines")
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", logging.ERROR, "f", 1, "it %s", ("failed",), sys.exc_info())
    text = JsonFormatter().format(record)
    assert "\n" not in text and json.loads(text)["message"] == "it failed" and "ValueError" in json.loads(text)["error"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_service_logs_as_its_settings_say(form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    loggers = [logging.getLogger(name) for name in ("workbench", "uvicorn", "uvicorn.error")]
    before = [(log.handlers, log.level, log.propagate) for log in loggers]
    root, roots = logging.getLogger(), logging.getLogger().handlers[:]
    try:
        logs.configure(form, "warning")
        logging.getLogger("workbench.serving").warning("it is %s", "late")
        logging.getLogger("uvicorn.error").info("not this")
        if form == "json":
            logging.getLogger("asyncio").error("a library's")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    finally:
        logging.captureWarnings(False)
        root.handlers = roots
        for log, (handlers, level, propagate) in zip(loggers, before, strict=True):
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(level)
    line, *others = capsys.readouterr().err.splitlines()
    assert [json.loads(one)["logger"] for one in others] == (["asyncio", "py.warnings"] if form == "json" else [])
    assert json.loads(line)["message"] == "it is late" if form == "json" else line.endswith("workbench.serving it is late")
