"""`python -m benchmarks.capacity`: what one process of the service does on this machine, as absolute figures.

They are of the built-in model on two passages of the Python language reference, with `max_new_tokens: 24`; the processor stands
beside them. docs/capacity.md reckons from them what many questions and many people need.
"""

from __future__ import annotations

import http.client
import json
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.__main__ import RESULTS
from benchmarks.harness import _status, seconds
from benchmarks.service import TOGETHER, asked_over, pipeline, question
from tests.served_app import Running, running, settings
from workbench.machine import cpu_count, cpu_name
from workbench.serving.records.database import FILE, Database

ALONE, ROUNDS, HITS, RECORDS = 8, 4, 400, 2000
CLIENTS = 4  # connections that ask for kept answers at once


def measured() -> dict[str, Any]:
    """All figures; seconds, bytes, and numbers of questions in a second."""
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / FILE
        room = settings(deadline=600.0, at_once=10_000, queue=10_000, more={"who": {"per_minute": 1_000_000}})
        with running(pipeline(), room, records=Database(records)) as service:
            first = asked_over(service, question())
            alone = [seconds(lambda: asked_over(service, question())) for _ in range(ALONE)]
            with ThreadPoolExecutor(TOGETHER) as pool:
                at_once = [
                    seconds(lambda: list(pool.map(lambda _: asked_over(service, question()), range(TOGETHER))))
                    for _ in range(ROUNDS)
                ]
            with ThreadPoolExecutor(CLIENTS) as pool:
                one, all_hits = (_hits(service, first["question"], n, pool) for n in (1, CLIENTS))
            before = _bytes(records)
            _hits(service, first["question"], 1, None, RECORDS)
            # the last ones wait for the disk no longer than a moment
            service.asking.writer.write(lambda connection: None).result()
            record = (_bytes(records) - before) / RECORDS
            resident = _status("VmRSS")
    return {
        "answer_seconds": statistics.median(alone),
        "answers_per_second": TOGETHER / statistics.median(at_once),
        "together": TOGETHER,
        "hits_per_second_one_connection": one,
        "hits_per_second": all_hits,
        "connections": CLIENTS,
        "answer_bytes": len(json.dumps(first)),
        "record_bytes": record,
        "resident_bytes": resident,
        "prompt_tokens": first["tokens"]["prompt"],
        "answer_tokens": first["tokens"]["answer"],
        "machine": {"processor": cpu_name(), "cores": cpu_count()},
    }


def _hits(service: Running, text: str, connections: int, pool: ThreadPoolExecutor | None, n: int = HITS) -> float:
    """Kept answers in a second over some connections at once."""
    body = json.dumps({"question": text})

    def one() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port)
        for _ in range(n // connections):
            connection.request("POST", "/v1/answers", body, {"Content-Type": "application/json"})
            assert b'"cache"' in connection.getresponse().read()
        connection.close()

    taken = seconds(lambda: list(pool.map(lambda _: one(), range(connections))) if pool else one())
    return n / taken


def _bytes(path: Path) -> int:
    """Of a database with what is written beside it."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


if __name__ == "__main__":
    found = measured()
    (RESULTS / "capacity.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
