"""Dashboards: an index of runs, and notebooks shown by Voila."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from pathlib import Path

from workbench import shipped
from workbench.errors import InputError, MissingExtraError


def show(port: int, runs: Path) -> None:
    """Serves the dashboards on this machine until interrupted.

    Raises:
        InputError: no such port, or one that is taken.
        MissingExtraError: Voila or anywidget is not installed.
    """
    if not 1 <= port <= 65_535:
        raise InputError(f"port {port} is not between 1 and 65,535")
    for package in ("voila", "anywidget"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "lab", "a dashboard")
    refuse_taken(port)
    os.environ["WORKBENCH_RUNS"] = str(runs.resolve())
    template = str(Path(__file__).parent / "template")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [template, os.environ.get("JUPYTER_PATH", "")]))
    from workbench.dashboards.server import serve  # Jupyter reads the variable when it is imported

    sys.stderr.write(f"dashboards on http://127.0.0.1:{port} (Ctrl-C ends them)\n")
    serve(shipped.folder("dashboards").resolve(), port, runs.resolve())


def refuse_taken(port: int) -> None:
    """Refuses a port that another program listens on.

    Raises:
        InputError: it is taken, or not for everybody.
    """
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed a moment ago is free
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from error
