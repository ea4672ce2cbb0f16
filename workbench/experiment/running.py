"""Says in a small file what an experiment is doing, for pages of other processes; see `workbench.results.running`."""

from __future__ import annotations

import os
import socket
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from workbench.component import digest
from workbench.errors import InputError
from workbench.results.lines import RunningRecord
from workbench.results.running import RUNNING, running
from workbench.store.progress import Progress, Task

EVERY_SECONDS = 1.0
REASON = 200  # characters of why an experiment ended


class Announcement:
    """The file of one experiment: there while one of its steps runs, and after one that ended early; written once a second.

    A folder that cannot be written never ends a run: it is said once, and the run goes on without the file.
    """

    def __init__(self, runs: Path, experiment: str, progress: Progress) -> None:
        self.folder = runs / RUNNING
        self.experiment = experiment
        self.progress = progress
        self._path: Path | None = None  # of the file, named when the first step begins
        self._started = ""
        self._estimated = self._spent = 0.0  # seconds of the whole plan, and of the steps that ended
        self._since = self._written = 0.0
        self._failed = False

    @contextmanager
    def step(self, estimated: float) -> Iterator[None]:
        """Within, the file is there; seconds between steps do not count. What ended without finishing says so in the file.

        Args:
            estimated: seconds that all steps take at most, as planned before the first.
        """
        self._estimated, self._since = estimated, time.monotonic()
        path = self._path = self._path or self._named()
        self._write()
        self.progress.watch = self._watch
        try:
            yield
        except BaseException as error:
            self._end()
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            self._write(self.progress.current, textwrap.shorten(reason, REASON, placeholder=" ..."))
            raise
        self._end()
        with suppress(OSError):
            path.unlink(missing_ok=True)

    def _end(self) -> None:
        self.progress.watch = None
        self._spent += time.monotonic() - self._since
        self._since = time.monotonic()

    def _named(self) -> Path:
        """Where the file goes; removes what the same experiment left when its process was killed, since it goes on now."""
        now = datetime.now(UTC)
        self._started = now.isoformat(timespec="seconds")
        with suppress(OSError, InputError):
            for one in running(self.folder.parent):
                if one.record.experiment == self.experiment and one.ended:
                    one.path.unlink(missing_ok=True)
        short = digest([socket.gethostname(), os.getpid(), id(self), self.experiment])[:6]
        return self.folder / f"{now:%Y%m%dT%H%M%SZ}-{short}.json"

    def _watch(self, task: Task) -> None:
        if time.monotonic() - self._written >= EVERY_SECONDS:
            self._write(task)

    def _write(self, task: Task | None = None, ended: str = "") -> None:
        self._written = time.monotonic()
        seconds = self._spent + self._written - self._since
        left = max(self._estimated - seconds, 0.0)
        if task:  # it may be slower than planned
            left = max(left, task.left)
        record = RunningRecord(
            experiment=self.experiment,
            pid=os.getpid(),
            host=socket.gethostname(),
            started=self._started,
            stage=task.name if task else "",
            done=task.done if task else 0,
            total=task.total if task else 0,
            seconds=round(seconds, 1),
            left=round(left, 1),
            ended=ended,
        )
        if not self._failed and self._path:
            self._replace(self._path, record.model_dump_json())

    def _replace(self, path: Path, text: str) -> None:
        """Puts the file in place in one step."""
        temporary = path.with_suffix(".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            temporary.rename(path)
        except OSError as error:
            self._failed = True
            self.progress.say(
                f"{path.parent} cannot be written ({error.strerror}), so pages do not show that this experiment runs; it goes on"
            )
