"""Which run a page shows: the folders of runs, their names for people, and what an address asks for."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl

from workbench.errors import InputError
from workbench.results.example import unpacked
from workbench.results.run import finished
from workbench.results.words import run_name


def runs_folder(given: str | Path = "") -> Path:
    """The folder of all runs: the one given, else WORKBENCH_RUNS, else ``runs`` here or beside the notebook's folder."""
    named = str(given) or os.environ.get("WORKBENCH_RUNS", "")
    if named:
        return Path(named).expanduser().resolve()
    found = next((folder for folder in (Path("runs"), Path("../runs")) if folder.is_dir()), Path("runs"))
    return found.resolve()


def run_choices(runs: Path, name: str = "") -> list[tuple[str, Path]]:
    """Finished runs below a folder, newest first, each with a name for people; last the recorded example.

    Args:
        runs: the folder.
        name: of the run that an address names, ``EXPERIMENT/ID``; that of the recorded example needs no other run.

    Raises:
        InputError: there is none; the message says how to make one.
    """
    found = sorted(finished(runs), key=lambda folder: (folder.name, str(folder)), reverse=True)
    with suppress(InputError):  # where it cannot be unpacked, there is none
        example = unpacked()
        if found or name == address_name(example):
            return [*((run_name(folder), folder) for folder in found), ("recorded example", example)]
    if not found:
        raise InputError(
            f"There is no finished run in {runs}. This command makes one:\nworkbench run configs/quickstart.yaml --runs {runs}"
        )
    return [(run_name(folder), folder) for folder in found]


def address_name(folder: Path) -> str:
    """How an address names a run."""
    return f"{folder.parent.name}/{folder.name}"


def asked_for() -> dict[str, str]:
    """What the address of a page asks for, such as ``run`` and ``show``; nothing in a notebook."""
    return dict(parse_qsl(os.environ.get("QUERY_STRING", "")))


def wanted_run(runs: Path, name: str) -> Path:
    """The folder of the run that an address names, ``EXPERIMENT/ID``.

    Raises:
        InputError: there is no finished run of that name.
    """
    choices = {address_name(folder): folder for _, folder in reversed(run_choices(runs, name))}
    if name not in choices:
        raise InputError(f"there is no finished run {name!r} in {runs}; there are {', '.join(reversed(choices))}")
    return choices[name]
