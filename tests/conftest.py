"""Shared fixtures: the real data where it is there, a finished run of toys and one of real weights, a process without network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import toys
import yaml
from filelock import FileLock

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

ROOT = Path(__file__).parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

NO_NETWORK = """
import socket

_connect, _connect_ex, _resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo
LOCAL = ("127.0.0.1", "localhost", "::1", "", None)


def _refuse(address):
    host = address[0] if isinstance(address, tuple) else None
    if isinstance(address, tuple) and host not in LOCAL:
        raise OSError(f"the test blocks the network: {address}")


def connect(self, address):
    _refuse(address)
    return _connect(self, address)


def connect_ex(self, address):
    _refuse(address)
    return _connect_ex(self, address)


def getaddrinfo(host, *args, **kwargs):
    _refuse((host,))
    return _resolve(host, *args, **kwargs)


socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = connect, connect_ex, getaddrinfo
"""


# what hypothesis tries is the same each time; tests take as long as the machine lets them
hypothesis.settings.register_profile(
    "workbench",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[*hypothesis.HealthCheck],
)
hypothesis.settings.load_profile("workbench")


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a process (and of those it starts) that reaches nothing but loopback."""
    folder = tmp_path_factory.mktemp("offline")
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def workbench(*args: object, env: dict[str, str] | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own."""
    command = [sys.executable, "-m", "workbench.cli", *map(str, args)]
    env = env or os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, check=False)


@dataclass(frozen=True)
class Finished:
    """A finished run, the folder of runs it is in, and the experiment's file."""

    config: Path
    runs: Path
    run: Path


def finished(name: str, config: str, folders: pytest.TempPathFactory, offline: dict[str, str]) -> Finished:
    """A cold run with notebooks, made by the command line without network.

    Where tests run in several processes, the first that needs it makes it, and each has a copy of its own.

    Args:
        name: of the run among those of the session.
        config: text of the experiment's file.
        folders: of the session.
        offline: environment of a process without network.
    """
    own = folders.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / f"finished-{name}"
    with FileLock(f"{shared}.lock"):
        if not (shared / "run").exists():
            shutil.rmtree(shared, ignore_errors=True)  # of a process that failed
            shared.mkdir()
            (shared / f"{name}.yaml").write_text(config)
            done = workbench("run", shared / f"{name}.yaml", "--runs", shared / "runs", env=offline)
            assert done.returncode == 0, done.stderr[-4000:]
            last = done.stdout.strip().splitlines()[-1]
            assert last.startswith("run: ")
            (shared / "run").write_text(str(Path(last.removeprefix("run: ")).relative_to(shared)))
    folder = shutil.copytree(shared, own / name, symlinks=True)
    return Finished(folder / f"{name}.yaml", folder / "runs", folder / (folder / "run").read_text())


def toy_settings() -> dict[str, Any]:
    """The settings of configs/smoke.yaml with toys in the place of its weights, and questions that toys can answer."""
    settings = yaml.safe_load((ROOT / "configs" / "smoke.yaml").read_text())
    facts = Path(toys.made(toys.facts))
    settings["dataset"] = {"folder": str(facts / "documents"), "questions": str(facts / "questions.jsonl"), "limit": 12}
    settings["components"]["embedders"]["minilm"]["model"] = toys.made(toys.embedder)
    for generator in settings["components"]["generators"].values():
        generator["model"] = toys.made(toys.parrot)
    settings["components"]["generators"]["tuned"]["lora"]["learning_rate"] = 0.002  # so that twelve steps change something
    return settings


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory, offline: dict[str, str]) -> Finished:
    """The experiment of configs/smoke.yaml with toys for weights, run once in a session."""
    return finished("toy", yaml.safe_dump(toy_settings(), sort_keys=False), tmp_path_factory, offline)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory, offline: dict[str, str]) -> Finished:
    """configs/smoke.yaml with its real weights, run once in a session: for slow tests alone."""
    return finished("smoke", (ROOT / "configs" / "smoke.yaml").read_text(), tmp_path_factory, offline)


@pytest.fixture(scope="session", params=["toy", pytest.param("smoke", marks=pytest.mark.slow)])
def either(request: pytest.FixtureRequest) -> Finished:
    """The toy run, and among the slow tests the one of the real weights."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The public benchmark sets beside the checkout; tests that measure on them are skipped where they are absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA} is absent: the public benchmark sets are not part of the project")
    return SHARED_DATA


@pytest.fixture(scope="session")
def toy_model() -> str:
    """A language model of two narrow layers with random weights: an experiment that answers with it takes seconds."""
    return toys.made(toys.language_model)


@pytest.fixture(scope="session")
def toy_embedder() -> str:
    """An embedder of two narrow layers, which puts texts near each other that share words."""
    return toys.made(toys.embedder)


def program(name: str, package: str) -> str:
    """Where a program of a Debian package is; without it a test is skipped, except in continuous integration, where it fails."""
    if found := shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin"):
        return found
    said = f"{name} is not installed: sudo apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(said)
    pytest.skip(said)
