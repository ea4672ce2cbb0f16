"""A run says which code made it, and what started it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Finished

from workbench import provenance
from workbench.version import __version__

SCRIPT = "import json; from workbench import provenance; print(json.dumps([provenance.code(), provenance.__file__]))"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def code(folder: Path) -> dict[str, object]:
    """What a process says whose package lies in a folder."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, cwd=folder)
    found, file = json.loads(done.stdout)
    assert Path(file).parent.parent == folder
    return found


def test_a_commit_a_change_and_an_installation_are_told_apart(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "workbench", tmp_path / "workbench", ignore=shutil.ignore_patterns("__pycache__"))
    assert code(tmp_path) == {"version": __version__, "commit": None, "changed": None}
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "all")
    assert code(tmp_path) == {"version": __version__, "commit": git(tmp_path, "rev-parse", "HEAD"), "changed": False}
    (tmp_path / "notes.txt").write_text("what lies beside the package computes nothing")
    assert code(tmp_path)["changed"] is False
    (tmp_path / "workbench" / "mine.py").write_text("")
    assert code(tmp_path)["changed"] is True


@pytest.mark.parametrize(
    "argv,command",
    [
        (["/a/bin/workbench", "run", "my file.yaml"], "workbench run 'my file.yaml'"),
        ([str(provenance.PACKAGE / "cli.py"), "plan", "a.yaml"], "workbench plan a.yaml"),
        (["sweep.py", "--fast"], "python sweep.py --fast"),
        (["/a/ipykernel_launcher.py", "-f", "/a/kernel.json"], "in a notebook"),
    ],
)
def test_the_command_is_what_a_person_would_type(argv: list[str], command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert provenance.command() == command


def test_a_run_s_manifest_says_it(toy: Finished) -> None:
    manifest = json.loads((toy.run / "manifest.json").read_text())
    assert manifest["format"] == 1 and manifest["code"] == provenance.code()
    assert re.fullmatch(rf"workbench run (\S+)/{toy.config.name} --runs \1/runs", manifest["command"])
