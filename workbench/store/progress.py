"""Progress of long work: a live bar with an estimate on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from workbench.times import duration

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

PLAIN_EVERY_SECONDS = 10.0


class Task:
    """Work under way; call it with the number of items done, and stored, since the last call."""

    def __init__(self, name: str, total: int, progress: Progress, done: int = 0) -> None:
        """Begins.

        Args:
            name: of the work, for people.
            total: items of it.
            progress: told of the task, and asked whether to stop.
            done: items that were done before, by a process that was ended.
        """
        self.name = name
        self.total = total
        self.progress = progress
        self.done = done
        self.started = time.monotonic()
        self._first: tuple[int, float] | None = None  # items done at the first report, and when that was
        progress.current = self
        self._tell()

    def __call__(self, n: int = 1, note: str = "") -> None:
        """Reports `n` more items done.

        Raises:
            KeyboardInterrupt: somebody asked to stop; now nothing is in flight.
        """
        self.done += n
        if self._first is None:
            self._first = self.done, time.monotonic()
        self._tell()
        if self.progress.stopping:
            raise KeyboardInterrupt

    def _tell(self) -> None:
        if self.progress.watch:
            self.progress.watch(self)

    @property
    def seconds(self) -> float:
        """Seconds since the task began."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds that the rest takes at the speed since the first report, before which a model may have been loaded.

        0 before the second report.
        """
        if self._first is None or self.done == self._first[0]:
            return 0.0
        done, at = self._first
        return (time.monotonic() - at) / (self.done - done) * (self.total - self.done)


class Progress:
    """Reports nothing. What every part of the package uses unless told otherwise.

    Attributes:
        stopping: whether somebody asked to stop after the batch in flight.
        current: the task begun last.
        watch: told of each task when it begins and whenever items of it are done; or None.
    """

    stopping = False
    current: Task | None = None
    watch: Callable[[Task], None] | None = None

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """A task of `total` items, of which some may be done; yields the function to report the others with."""
        yield Task(name, total, self, done)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Within, the first Ctrl-C stops after the batch in flight, the second at once. In the main thread only."""

        def stop(*_: object) -> None:
            self.stopping = True
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.say("stopping after the batch in flight; Ctrl-C again stops at once")

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            self.stopping = False

    def say(self, text: str) -> None:
        """One line for people."""


class PlainTask(Task):
    """A task on lines of their own: every ten seconds, or at every report with ``WORKBENCH_PROGRESS=all``."""

    def __init__(self, name: str, total: int, progress: Progress, done: int = 0) -> None:
        """Begins.

        Args:
            name: of the work.
            total: items of it.
            progress: told of the task.
            done: items that were done before.
        """
        super().__init__(name, total, progress, done)
        self.every = 0.0 if os.environ.get("WORKBENCH_PROGRESS") == "all" else PLAIN_EVERY_SECONDS
        self.last = self.started

    def __call__(self, n: int = 1, note: str = "") -> None:
        """Reports `n` more items done."""
        super().__call__(n, note)
        if time.monotonic() - self.last >= self.every and self.done < self.total:
            self.last = time.monotonic()
            left = f", about {duration(self.left)} left" if self.left else ""
            _write(f"  {self.name}: {self.done}/{self.total}{left}{_noted(note)}")


class Plain(Progress):
    """Lines on standard error, for logs and pipes."""

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """A task of `total` items, of which some may be done; yields the function to report the others with."""
        _write(f"  {name}: {done}/{total}")
        task = PlainTask(name, total, self, done)
        yield task
        _write(f"  {name}: {task.done}/{total} in {duration(task.seconds, exact=True)}")

    def say(self, text: str) -> None:
        """One line for people."""
        _write(text)


class BarTask(Task):
    """A task shown by rich."""

    def __init__(self, name: str, total: int, progress: Progress, bar: RichProgress, done: int = 0) -> None:
        """Begins.

        Args:
            name: shown before the bar.
            total: items of the work.
            progress: told of the task, and asked whether to stop.
            bar: draws it.
            done: items that were done before.
        """
        super().__init__(name, total, progress, done)
        self.bar = bar
        self.handle = bar.add_task(name, total=total, completed=done, note="")

    def __call__(self, n: int = 1, note: str = "") -> None:
        """Reports `n` more items done."""
        super().__call__(n, note)
        self.bar.update(self.handle, advance=n, note=note)


class Bars(Progress):
    """Live bars on a terminal's standard error."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """A task of `total` items, of which some may be done; yields the function to report the others with."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = [TextColumn("  {task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
        columns += [TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False)]
        with RichProgress(*columns, console=self.console) as bar:
            yield BarTask(name, total, self, bar, done)

    def say(self, text: str) -> None:
        """One line for people."""
        self.console.print(text, markup=False, highlight=False)


def _write(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _noted(note: str) -> str:
    return f", {note}" if note else ""
