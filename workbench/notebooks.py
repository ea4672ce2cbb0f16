"""Notebooks as reports: run through Papermill into a run's folder, where they only hit the store."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
        raise KilledError(f"{notebook.name}: the process that executed it ended; see {output} for what it did before") from error
    except CellTimeoutError as error:
        raise TimedOutError(f"{notebook.name}: a cell took longer than {cell_seconds:g} s; see {output}") from error


def report(run: Run, runs: Path, progress: Progress) -> None:
    """Executes the four notebooks over a finished run, into its folder.

    ``notebooks/status.json`` says of each how it ended, ``ok``, ``failed: WHY``, ``killed: WHY``, ``timed out: WHY`` or
    ``not run``, and under the key ``seconds`` how long it took.

    Raises:
        StageFailedError: one did not end well; the others were executed all the same.
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
            target.mkdir(exist_ok=True)
            (target / STATUS).write_text(json.dumps(status | {"seconds": seconds}, indent=1))
            done(1, name)
    failed = [text for text in status.values() if text != "ok"]
    if failed:
        raise StageFailedError("; ".join(failed))


def _ending(error: StageFailedError) -> str:
    return "killed" if isinstance(error, KilledError) else "timed out" if isinstance(error, TimedOutError) else "failed"


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
