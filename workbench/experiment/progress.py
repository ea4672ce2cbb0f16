"""Progress of long work: a live bar with an estimate on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

PLAIN_EVERY_SECONDS = 10.0


class Task:
    """Work under way; call it with the number of items done since the last call."""

    def __init__(self, name: str, total: int) -> None:
        self.name = name
        self.total = total
        self.done = 0
        self.started = time.monotonic()

    def __call__(self, n: int = 1, note: str = "") -> None:
        """Reports `n` more items done."""
        self.done += n

    @property
    def seconds(self) -> float:
        """Seconds since the task began."""
        return time.monotonic() - self.started


class Progress:
    """Reports nothing. What every part of the package uses unless told otherwise."""

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """A task of `total` items; yields the function to report them with."""
        yield Task(name, total)

    def say(self, text: str) -> None:
        """One line for people."""


class PlainTask(Task):
    """A task on lines of their own: every ten seconds, or at every report with ``WORKBENCH_PROGRESS=all``."""

    def __init__(self, name: str, total: int) -> None:
        super().__init__(name, total)
        self.every = 0.0 if os.environ.get("WORKBENCH_PROGRESS") == "all" else PLAIN_EVERY_SECONDS
        self.last = self.started

    def __call__(self, n: int = 1, note: str = "") -> None:
        """Reports `n` more items done."""
        super().__call__(n, note)
        if time.monotonic() - self.last >= self.every and self.done < self.total:
            self.last = time.monotonic()
            left = self.seconds / self.done * (self.total - self.done)
            _write(f"  {self.name}: {self.done}/{self.total}, about {left:.0f} s left{_noted(note)}")


class Plain(Progress):
    """Lines on standard error, for logs and pipes."""

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """A task of `total` items; yields the function to report them with."""
        _write(f"  {name}: 0/{total}")
        task = PlainTask(name, total)
        yield task
        _write(f"  {name}: {task.done}/{total} in {task.seconds:.1f} s")

    def say(self, text: str) -> None:
        """One line for people."""
        _write(text)


class BarTask(Task):
    """A task shown by rich."""

    def __init__(self, name: str, total: int, bar: object) -> None:
        super().__init__(name, total)
        self.bar = bar
        self.handle = bar.add_task(name, total=total, note="")

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
    def task(self, name: str, total: int) -> Iterator[Task]:
        """A task of `total` items; yields the function to report them with."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = [TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
        columns += [TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}")]
        with RichProgress(*columns, console=self.console) as bar:
            yield BarTask(name, total, bar)

    def say(self, text: str) -> None:
        """One line for people."""
        self.console.print(text, markup=False, highlight=False)


def for_terminal() -> Progress:
    """Bars when a person watches standard error, plain lines otherwise."""
    return Bars() if sys.stderr.isatty() else Plain()


def _write(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _noted(note: str) -> str:
    return f", {note}" if note else ""
