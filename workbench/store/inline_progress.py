"""Progress in a notebook: one line of HTML under the cell, which stays when the work is done, stopped or failed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from workbench.store.progress import Progress, Task
from workbench.times import duration

EVERY_SECONDS = 0.5  # between two changes of the line


class InlineTask(Task):
    """A task shown in the line of its cell."""

    progress: Inline

    def __call__(self, n: int = 1, note: str = "") -> None:
        """Reports `n` more items done."""
        self.done += n
        self._tell()
        if self.done < self.total and time.monotonic() - self.progress.changed >= EVERY_SECONDS:
            noted = f", {note}" if note else ""
            said = f"{self.name}: {self.done:,} of {self.total:,}, about {duration(self.left)} left{noted}"
            self.progress.write(said, self.done / max(self.total, 1))
        if self.progress.stopping:
            raise KeyboardInterrupt


class Inline(Progress):
    """A line for each cell; what was said stands folded below it.

    Attributes:
        changed: when the line was changed last, on the clock of `time.monotonic`.
    """

    def __init__(self) -> None:
        self.changed = 0.0
        self._cell: int | None = None
        self._handle: Any = None
        self._seconds = 0.0
        self._done = 0
        self._said: list[str] = []

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """A task of `total` items, of which some may be done; yields the function to report the others with."""
        task = InlineTask(name, total, self, done)
        self.write(f"{name}: {done:,} of {total:,}", done / max(total, 1))
        try:
            yield task
        except BaseException as error:
            word = "stopped" if isinstance(error, KeyboardInterrupt) else "ended by an error"
            kept = "What is done is kept: run the cell again to go on."
            self.write(f"{name}: {word} after {task.done:,} of {total:,}. {kept}")
            raise
        self._done, self._seconds = self._done + 1, self._seconds + task.seconds
        steps = f"{self._done} step{'' if self._done == 1 else 's'} in {duration(self._seconds, exact=True)}"
        self.write(f"Done so far: {steps}; the last was {name}, {task.done:,} of {total:,}.")

    def say(self, text: str) -> None:
        """One line for people."""
        self._said.append(text)
        self.write(text)

    def write(self, said: str, share: float | None = None) -> None:
        """Changes the line of the cell that runs.

        Args:
            said: its text.
            share: of the task that is done, from 0 to 1; None: no bar.
        """
        from IPython import get_ipython
        from IPython.display import HTML, display

        cell = get_ipython().execution_count
        if cell != self._cell:
            self._cell, self._handle, self._done, self._seconds, self._said = cell, None, 0, 0.0, self._said[-1:]
        bar = f"<progress aria-label='{escape(said)}' max=1 value={share:.3f}></progress> " if share is not None else ""
        notes = "".join(f"<li>{escape(line)}</li>" for line in self._said)
        folded = (
            f"<details><summary>{len(self._said)} note{'' if len(self._said) == 1 else 's'}</summary><ul>{notes}</ul></details>"
            if notes
            else ""
        )
        shown = HTML(f"<div>{bar}{escape(said)}</div>{folded}")  # type: ignore[no-untyped-call]
        if self._handle is None:
            self._handle = display(shown, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(shown)
        self.changed = time.monotonic()
