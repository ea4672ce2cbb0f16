"""Processes that read files: each has a time-out, and one that dies takes only its file with it."""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from workbench.data.documents.kinds import Choice
from workbench.data.documents.limits import Limits
from workbench.data.documents.parser import UnreadError
from workbench.data.documents.worker import READY
from workbench.errors import InputError
from workbench.hardware import cpu_count

MODULE = "workbench.data.documents.worker"
MOST = 8  # processes
START_SECONDS = 120.0
WAITING = 6  # files that wait for a process before another one is started, which takes as long as reading some of them
SIZED = 500_000  # bytes that count as one more file
BESIDE_THE_TEXT = 256  # megabytes of address space of Python and its libraries, for the smallest limit


class Task(NamedTuple):
    """A file to be read.

    Attributes:
        path: the file.
        choice: its parser.
        into: where its documents are kept.
        content: the digest of its bytes.
        size: how many bytes it has.
    """

    path: Path
    choice: Choice
    into: Path
    content: str
    size: int

    @property
    def weight(self) -> float:
        """About how much work it is, in small files."""
        return 1 + self.size / SIZED


class Worker:
    """A process that reads one file after the other; it is started when it is first needed, and again when it died."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, task: Task) -> UnreadError | None:
        """Reads a file and keeps its documents.

        Args:
            task: the file.

        Returns:
            Why it cannot be read, or None.

        Raises:
            RuntimeError: the process cannot be started.
            InputError: what was read cannot be kept.
        """
        process = self._started()
        parser = task.choice.parser
        asked: dict[str, Any] = {"path": str(task.path), "spec": task.choice.spec, "settings": parser.model_dump(mode="json")}
        asked |= {"into": str(task.into), "content": task.content, "unpacked_mb": self._limits.unpacked_mb}
        seconds = self._limits.seconds_for(task.size)
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, seconds)
        except BrokenPipeError:
            line = b""
        if line is None:
            self.stop()
            return UnreadError("timed out", f"it was not read within {seconds:.0f} s (dataset.limits.seconds)")
        if not line.endswith(b"\n"):
            return self._died(process)
        answer = json.loads(line)
        if not answer:
            return None
        if "failed" in answer:
            raise InputError(answer["failed"])
        if answer["reason"] == "too large":
            self.stop()  # what filled its memory may be there still
        return UnreadError(answer["reason"], answer["said"])

    def _died(self, process: subprocess.Popen[bytes]) -> UnreadError:
        status = process.wait()
        self.stop()
        said = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return UnreadError("damaged", f"the process that read it ended with {said}")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            places = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
            environment = os.environ | {
                "PYTHONPATH": os.pathsep.join(filter(None, places)),
                "ARROW_DEFAULT_MEMORY_POOL": "system",
            }
            environment |= {"PYDANTIC_DISABLE_PLUGINS": "__all__"}  # looking for them takes a third of the start
            environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(max(self._limits.memory_mb, BESIDE_THE_TEXT))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            if self._line(self._process, START_SECONDS) != f"{READY}\n".encode():
                self.stop()
                raise RuntimeError(f"a process that reads files cannot be started; `{sys.executable} -m {MODULE} 1024` says why")
        return self._process

    @staticmethod
    def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """The next line of a process, less where it ended; None where it takes longer."""
        assert process.stdout is not None
        until, found = time.monotonic() + seconds, b""
        handle = process.stdout.fileno()
        while not found.endswith(b"\n"):
            if not select.select([handle], [], [], max(0.0, until - time.monotonic()))[0]:
                return None
            if not (more := os.read(handle, 1 << 16)):
                break
            found += more
        return found

    def stop(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Pool:
    """Files are read in processes of their own from the moment they are put in; leaving the context waits for the last one.

    A process takes time to start, so there are as many as the files that wait are worth, and none where no file was put in.
    """

    def __init__(self, limits: Limits, done: Callable[[Task, UnreadError | None], Any]) -> None:
        """Nothing is started yet.

        Args:
            limits: what each file may take.
            done: called with each file that was tried, and why it cannot be read; from several threads, one call at a time.
        """
        self._limits, self._done = limits, done
        self._waiting: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._lock, self._ending, self._weight = threading.Lock(), threading.Event(), 0.0
        self._failed: list[BaseException] = []
        self._workers: list[Worker] = []
        self._threads: list[threading.Thread] = []

    def put(self, task: Task) -> None:
        """Has a file read, now or when those before it are."""
        with self._lock:
            self._weight += task.weight
            more = self._weight > WAITING * len(self._threads)
        self._waiting.put(task)
        if more and len(self._threads) < min(cpu_count(), MOST):
            worker = Worker(self._limits)
            thread = threading.Thread(target=self._serve, args=(worker,), daemon=True)
            self._workers.append(worker)
            self._threads.append(thread)
            thread.start()

    def _serve(self, worker: Worker) -> None:
        try:
            while not self._ending.is_set() and (task := self._waiting.get()) is not None:
                found = worker.read(task)
                with self._lock:
                    self._weight -= task.weight
                    if not self._ending.is_set():
                        self._done(task, found)
        except BaseException as error:
            self._failed.append(error)
            self._ending.set()
        finally:
            worker.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Waits for all files, or ends at once where something failed.

        Raises:
            RuntimeError: no process can be started.
            InputError: what was read cannot be kept.
        """
        if error is not None:
            self._ending.set()
        for _ in self._threads:
            self._waiting.put(None)
        try:
            for thread in self._threads:
                while thread.is_alive() and not self._ending.is_set():
                    thread.join(timeout=1.0)
        finally:
            self._ending.set()
            for worker in self._workers:
                worker.stop()
        if self._failed and error is None:
            raise self._failed[0]
