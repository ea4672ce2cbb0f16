"""Dashboards: notebooks shown by Voila."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from workbench.errors import InputError, MissingExtraError, unknown


def folder() -> Path:
    """Folder of the dashboards: beside the package in a checkout, else ``dashboards`` in the current folder.

    Raises:
        InputError: there are none.
    """
    for place in (Path(__file__).parent.parent / "dashboards", Path("dashboards")):
        if place.is_dir():
            return place
    raise InputError("the dashboards are not here; they come with the project's checkout, run the command from there")


def show(name: str, port: int, runs: Path) -> None:
    """Serves a dashboard until interrupted.

    Raises:
        InputError: no such dashboard, or no such port.
    """
    names = sorted(path.stem for path in folder().glob("*.ipynb"))
    if name not in names:
        raise unknown("dashboard", name, names)
    if not 1 <= port <= 65_535:
        raise InputError(f"port {port} is not between 1 and 65,535")
    if importlib.util.find_spec("voila") is None:
        raise MissingExtraError("voila", "lab", "a dashboard")
    notebook = folder() / f"{name}.ipynb"
    command = [sys.executable, "-m", "voila", str(notebook), f"--port={port}", "--no-browser", "--Voila.ip=127.0.0.1"]
    sys.stderr.write(f"dashboard {name} on http://127.0.0.1:{port} (Ctrl-C ends it)\n")
    subprocess.run(command, env=os.environ | {"WORKBENCH_RUNS": str(runs.resolve())}, check=True)
