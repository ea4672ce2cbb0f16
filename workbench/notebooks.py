"""Notebooks as reports: run through Papermill into a run's folder, where they only hit the store."""

from __future__ import annotations

import importlib.util
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench import shipped
from workbench.errors import MissingExtraError, StageFailedError
from workbench.executing import InterruptedNotebookError, KilledError, TimedOutError, execute
from workbench.results.run import Run
from workbench.store.progress import Progress

NAMES = ("01_index", "02_finetune", "03_compare", "04_promote")
STATUS = "status.json"
CELL_SECONDS = 1800  # a cell of a report reads the store and draws; one that takes longer hangs


def ready() -> None:
    """Refuses where a report could not be made, since a package that it needs is not installed.

    Raises:
        MissingExtraError: it names the package.
    """
    for package in ("papermill", "ipykernel", "matplotlib", "pandas"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "lab", "a run with figures and executed notebooks (without them: --no-notebooks)")


def report(run: Run, runs: Path, progress: Progress) -> None:
    """Executes the four notebooks over a finished run, into its folder.

    ``notebooks/status.json`` says of each how it ended, ``ok``, ``failed: WHY``, ``killed: WHY``, ``timed out: WHY``,
    ``interrupted: WHY`` or ``not run``, and under the key ``seconds`` how long it took.

    Raises:
        StageFailedError: one did not end well; the others were executed all the same.
        KeyboardInterrupt: one was interrupted, and the others were executed all the same; a second Ctrl-C ends at once.
    """
    source, target = shipped.folder("notebooks"), run.folder / "notebooks"
    values = {
        "config": str((run.folder / "config.yaml").resolve()),
        "runs": str(Path(runs).resolve()),
        "run": str(run.folder.resolve()),
    }
    status: dict[str, str] = dict.fromkeys(NAMES, "not run")
    seconds: dict[str, float] = {}
    interrupted = False
    with progress.task("notebooks", len(NAMES)) as done, _interruptible():
        for name in NAMES:
            started = time.monotonic()
            again = interrupted
            try:
                execute(source / f"{name}.ipynb", target / f"{name}.ipynb", values, CELL_SECONDS)
                status[name] = "ok"
            except StageFailedError as error:
                status[name] = f"{_ending(error)}: {error}"
                interrupted |= isinstance(error, InterruptedNotebookError)
            seconds[name] = round(time.monotonic() - started, 1)
            _write_status(target, status, seconds, progress)
            if again and status[name].startswith("interrupted"):
                raise KeyboardInterrupt
            done(1, name)
    if interrupted:
        raise KeyboardInterrupt
    failed = [text for text in status.values() if text != "ok"]
    if failed:
        raise StageFailedError("; ".join(failed))


def _write_status(target: Path, status: dict[str, str], seconds: dict[str, float], progress: Progress) -> None:
    try:
        target.mkdir(exist_ok=True)
        (target / STATUS).write_text(json.dumps(status | {"seconds": seconds}, indent=1))
    except OSError as error:
        progress.say(f"{target / STATUS} cannot be written ({error.strerror})")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Within, Ctrl-C ends the notebook that runs instead of waiting for its end, as the stages of a run do for their batch."""
    if threading.current_thread() is not threading.main_thread():  # signals arrive in the main thread alone
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ending(error: StageFailedError) -> str:
    words = {KilledError: "killed", TimedOutError: "timed out", InterruptedNotebookError: "interrupted"}
    return words.get(type(error), "failed")
