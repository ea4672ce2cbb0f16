"""Processes of `workbench work` on this machine, and a service that has them answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import ROOT
from rabbit import Rabbit
from served_app import Running, running, settings
from servers import waits_until

from workbench.pipeline import Pipeline
from workbench.serving.queueing import Queue

CLI = (sys.executable, "-m", "workbench.cli", "work")


def bytes_of(body: bytes) -> bytes:
    """The answer part of a response, as it was sent."""
    inner = body[body.index(b',"question"') + 1 :]
    return b"{" + inner[: inner.rindex(b',"served":')] + b"}"


class Workers:
    """Processes that answer for a run; `command` starts one of them."""

    def __init__(self, run: Path, rabbit: Rabbit, folder: Path, command: Sequence[str] = CLI) -> None:
        self.run, self.rabbit, self.folder, self.command = run, rabbit, folder, command
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """One more, which takes questions when this returns."""
        process = self.begin(*arguments)
        self.wait(process)
        return process

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """One more, which is only begun."""
        log = self.log_of(len(self.processes))
        with log.open("wb") as said:
            command = [*self.command, str(self.run), *arguments]
            variables = os.environ | {"WORKBENCH_BROKER_URL": self.rabbit.url, "PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(command, stdout=said, stderr=said, env=variables, cwd=ROOT)
        self.processes.append(process)
        return process

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Waits until one takes questions."""
        number = self.processes.index(process)
        waits_until(lambda: "answering " in self.said(number) or process.poll() is not None, 300)
        assert process.poll() is None, self.said(number)

    def log_of(self, number: int) -> Path:
        """Where one of them writes what it says."""
        return self.folder / f"worker-{number}"

    def said(self, number: int) -> str:
        """What one of them has said."""
        return self.log_of(number).read_text(errors="replace")

    def end(self) -> None:
        for one in self.processes:
            one.kill()
            one.wait()


@contextmanager
def asking(pipeline: Pipeline, rabbit: Rabbit, reopen: Any = None, **room: Any) -> Iterator[Running]:
    """A service that has its answers computed behind the broker."""

    wanted = settings(**room)
    with running(pipeline, wanted, reopen, workers=Queue(rabbit.url, wanted.serve.queue)) as service:
        yield service
