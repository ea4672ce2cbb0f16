"""One notebook executed by Papermill, and a copy of it that tells the truth however it ended."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

from workbench.data.readers.text import short
from workbench.errors import MissingExtraError, StageFailedError, unknown

COPY = "copy:"  # how Papermill is told to write a notebook in one piece
GRACE_SECONDS = 10.0  # that a kernel has to end a cell after an interrupt


class KilledError(StageFailedError):
    """The process that executed a notebook ended, such as for lack of memory."""


class TimedOutError(StageFailedError):
    """A cell took longer than it may."""


class InterruptedNotebookError(StageFailedError):
    """Somebody interrupted a notebook."""


def execute(notebook: Path, output: Path, parameters: Mapping[str, Any], cell_seconds: float | None = None) -> None:
    """Runs one notebook with parameters; the executed copy is written in any case.

    Args:
        notebook: the notebook.
        output: where the executed copy goes.
        parameters: values of its parameters by name.
        cell_seconds: that one cell may take; default: as long as it wants.

    Raises:
        InputError: a parameter the notebook does not have.
        StageFailedError: a cell failed, or the copy cannot be written; the copy holds what could be, and the error.
        KilledError: its process ended.
        TimedOutError: a cell took longer than `cell_seconds`.
        InterruptedNotebookError: Ctrl-C.
    """
    papermill = load()
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    known = papermill.inspect_notebook(str(notebook))
    for name in parameters:
        if name not in known:
            raise unknown(f"parameter of {notebook.name}", name, known)
    output.parent.mkdir(parents=True, exist_ok=True)
    managers: list[Any] = []

    def run() -> None:
        papermill.execute_notebook(
            str(notebook),
            f"{COPY}{output.resolve()}",
            parameters=dict(parameters),
            kernel_name="python3",
            progress_bar=False,
            cwd=str(notebook.parent),
            kernel_manager_class=_local_kernel_manager(managers),
            execution_timeout=cell_seconds,
        )

    try:
        _attended(run, managers)
    except KeyboardInterrupt as error:
        where = _mark(output)
        raise InterruptedNotebookError(f"{notebook.name}: somebody interrupted it{where}; see {output}") from error
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
    except OSError as error:
        where = _mark(output)
        why = error.strerror or error
        raise StageFailedError(f"{notebook.name}: {output} cannot be written{where} ({why}); it holds what was before") from error


def _attended(run: Callable[[], None], managers: list[Any]) -> None:
    """Runs a notebook beside the main thread, so that Ctrl-C arrives here.

    In the main thread nbclient takes the signal for itself, ends the kernel, and reports a kernel that died.
    """
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            running.result()
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGKILL):
                for manager in managers:
                    with suppress(ProcessLookupError):
                        os.kill(manager.provisioner.pid, number)
                if wait([running], GRACE_SECONDS).done:
                    break
            raise


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
        _replace(output, json.dumps(book, indent=1))
    first = next(iter("".join(cells[last]["source"]).splitlines()), "") if cells else ""
    return f" in cell {last + 1} ({short(first)})"


def _replace(path: Path, text: str) -> None:
    """Writes a file in one piece: where there is no room for it, what was there stays."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class _InOnePiece:
    """How Papermill writes a copy: whole, or not at all."""

    def write(self, text: str, path: str) -> None:
        _replace(Path(path.removeprefix(COPY)), text)

    def pretty_path(self, path: str) -> str:
        return path.removeprefix(COPY)


def _local_kernel_manager(started: list[Any]) -> type:
    """Starts kernels that listen on sockets of the file system: nobody else on the network can reach them."""
    from jupyter_client.manager import AsyncKernelManager

    class LocalKernelManager(AsyncKernelManager):
        transport = "ipc"

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            # Not in the notebooks' folder, which may be read-only, and where a kernel that was killed would leave them.
            self.sockets = tempfile.TemporaryDirectory(prefix="rag-workbench-")
            self.ip = str(Path(self.sockets.name) / "kernel")
            started.append(self)

    return LocalKernelManager


def load() -> Any:
    """The module papermill, with our way of writing copies.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a warning of the kernel's debugger about frozen modules
    try:
        import papermill
        from papermill.iorw import papermill_io
    except ModuleNotFoundError as error:
        raise MissingExtraError("papermill", "lab", "executing notebooks") from error
    papermill_io.register(COPY, _InOnePiece())
    return papermill
