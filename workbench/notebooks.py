"""Notebooks as reports: run through Papermill into a run's folder, where they only hit the store."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from workbench.data.readers.text import short
from workbench.errors import InputError, MissingExtraError, StageFailedError, unknown
from workbench.results.run import Run
from workbench.store.progress import Progress

NAMES = ("01_index", "02_finetune", "03_compare", "04_promote")
STATUS = "status.json"
CELL_SECONDS = 1800  # a cell of a report reads the store and draws; one that takes longer hangs


class KilledError(StageFailedError):
    """The process that executed a notebook ended, such as for lack of memory."""


class TimedOutError(StageFailedError):
    """A cell took longer than it may."""


class InterruptedNotebookError(StageFailedError):
    """Somebody interrupted a notebook."""


def folder() -> Path:
    """Folder of the notebooks: beside the package in a checkout, else ``notebooks`` in the current folder.

    Raises:
        InputError: there are none.
    """
    for place in (Path(__file__).parent.parent / "notebooks", Path("notebooks")):
        if (place / f"{NAMES[0]}.ipynb").is_file():
            return place
    raise InputError(
        "the notebooks are not here (they come with the project's checkout); run with --no-notebooks, or from the checkout"
    )


def execute(notebook: Path, output: Path, parameters: Mapping[str, Any], cell_seconds: float | None = None) -> None:
    """Runs one notebook with parameters; the executed copy is written in any case.

    Args:
        notebook: the notebook.
        output: where the executed copy goes.
        parameters: values of its parameters by name.
        cell_seconds: that one cell may take; default: as long as it wants.

    Raises:
        InputError: a parameter the notebook does not have.
        StageFailedError: a cell failed; the copy holds everything up to it, and the error.
        KilledError: its process ended.
        TimedOutError: a cell took longer than `cell_seconds`.
        InterruptedNotebookError: Ctrl-C.
    """
    papermill = _papermill()
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    known = papermill.inspect_notebook(str(notebook))
    for name in parameters:
        if name not in known:
            raise unknown(f"parameter of {notebook.name}", name, known)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters=dict(parameters),
            kernel_name="python3",
            progress_bar=False,
            cwd=str(notebook.parent),
            kernel_manager_class=_local_kernel_manager(),
            execution_timeout=cell_seconds,
        )
    except papermill.PapermillExecutionError as error:
        raise StageFailedError(
            f"{notebook.name} failed in cell {error.exec_count}: {error.ename}: {error.evalue}; see {output}"
        ) from error
    except DeadKernelError as error:
        where = _mark(output)
        raise KilledError(f"{notebook.name}: the process that executed it ended{where}; see {output}") from error
    except CellTimeoutError as error:
        where = _mark(output)
        raise TimedOutError(f"{notebook.name}: a cell took longer than {cell_seconds:g} s{where}; see {output}") from error
    except KeyboardInterrupt as error:
        where = _mark(output)
        raise InterruptedNotebookError(f"{notebook.name}: somebody interrupted it{where}; see {output}") from error
    except OSError as error:
        raise StageFailedError(f"{notebook.name}: {output} cannot be written ({error.strerror or error})") from error


def _mark(output: Path) -> str:
    """Marks the cells of a copy that did not end as failed and not run, which Papermill does not; says which it was.

    After a process that ended, a cell that took too long and an interrupt, Papermill writes that all cells are completed.
    """
    try:
        book = json.loads(output.read_text(encoding="utf-8"))
        cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    begun = [i for i, cell in enumerate(cells) if cell["metadata"].get("papermill", {}).get("start_time")]
    last = begun[-1] if begun else 0
    for i, cell in enumerate(cells):
        status = "completed" if i < last else "failed" if i == last else "not run"
        cell["metadata"].setdefault("papermill", {}).update(status=status, exception=i == last)
    book["metadata"].setdefault("papermill", {})["exception"] = True
    with suppress(OSError):  # on a full disk; status.json says what happened
        output.write_text(json.dumps(book, indent=1), encoding="utf-8")
    first = next(iter("".join(cells[last]["source"]).splitlines()), "") if cells else ""
    return f" in cell {last + 1} ({short(first)})"


def report(run: Run, runs: Path, progress: Progress) -> None:
    """Executes the four notebooks over a finished run, into its folder.

    ``notebooks/status.json`` says of each how it ended, ``ok``, ``failed: WHY``, ``killed: WHY``, ``timed out: WHY``,
    ``interrupted: WHY`` or ``not run``, and under the key ``seconds`` how long it took.

    Raises:
        StageFailedError: one did not end well; the others were executed all the same.
        KeyboardInterrupt: one was interrupted, and the others were executed all the same; a second Ctrl-C ends at once.
    """
    source, target = folder(), run.folder / "notebooks"
    values = {
        "config": str((run.folder / "config.yaml").resolve()),
        "runs": str(Path(runs).resolve()),
        "run": str(run.folder.resolve()),
    }
    status: dict[str, str] = dict.fromkeys(NAMES, "not run")
    seconds: dict[str, float] = {}
    with progress.task("notebooks", len(NAMES)) as done:
        for name in NAMES:
            started = time.monotonic()
            try:
                execute(source / f"{name}.ipynb", target / f"{name}.ipynb", values, CELL_SECONDS)
                status[name] = "ok"
            except StageFailedError as error:
                status[name] = f"{_ending(error)}: {error}"
            seconds[name] = round(time.monotonic() - started, 1)
            try:
                target.mkdir(exist_ok=True)
                (target / STATUS).write_text(json.dumps(status | {"seconds": seconds}, indent=1))
            except OSError as error:
                progress.say(f"{target / STATUS} cannot be written ({error.strerror})")
            done(1, name)
    failed = [text for text in status.values() if text != "ok"]
    if any(text.startswith("interrupted") for text in failed):
        raise KeyboardInterrupt
    if failed:
        raise StageFailedError("; ".join(failed))


def _ending(error: StageFailedError) -> str:
    words = {KilledError: "killed", TimedOutError: "timed out", InterruptedNotebookError: "interrupted"}
    return words.get(type(error), "failed")


def _local_kernel_manager() -> type:
    """Starts kernels that listen on sockets of the file system: nobody else on the network can reach them."""
    from jupyter_client.manager import AsyncKernelManager

    class LocalKernelManager(AsyncKernelManager):
        transport = "ipc"

    return LocalKernelManager


def _papermill() -> Any:
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a warning of the kernel's debugger about frozen modules
    try:
        import papermill
    except ModuleNotFoundError as error:
        raise MissingExtraError("papermill", "lab", "executing notebooks") from error
    return papermill
