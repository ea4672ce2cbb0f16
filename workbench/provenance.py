"""Which code runs here, and what started it: what a run's manifest says of its own making."""

from __future__ import annotations

import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TypedDict

from workbench.version import __version__

PACKAGE = Path(__file__).parent
NOTEBOOK = "in a notebook"


class Code(TypedDict):
    """The code of a process.

    Attributes:
        version: of the package.
        commit: of the checkout that the package lies in, 40 hexadecimal characters; None where it lies in none, as when it is
            installed, or git is not there.
        changed: whether files of the package differ from that commit; None without one.
    """

    version: str
    commit: str | None
    changed: bool | None


@cache
def code() -> Code:
    """The code of this process, as it was when this was first called."""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", str(PACKAGE))
    if commit is None or changes is None:
        return {"version": __version__, "commit": None, "changed": None}
    return {"version": __version__, "commit": commit, "changed": bool(changes)}


def command() -> str:
    """What started this process, as a person would type it: ``workbench run ...``, ``python script.py``; or `NOTEBOOK`."""
    program = Path(sys.argv[0])
    if program.name.startswith(("ipykernel", "colab_kernel")):
        return NOTEBOOK
    own = program.name == "workbench" or program == PACKAGE / "cli.py"
    return shlex.join([*(["workbench"] if own else ["python", sys.argv[0]]), *sys.argv[1:]])


def _git(*arguments: str) -> str | None:
    """What git says in the checkout that the package lies in; None where it lies in none, or git fails."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
