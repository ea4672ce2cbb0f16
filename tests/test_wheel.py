"""The package as it is installed: what its wheel holds, and that it works in an empty folder without the checkout."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, workbench

SHIPPED = {name: sorted(ROOT.glob(f"{name}/*.{ending}")) for name, ending in
           {"notebooks": "ipynb", "dashboards": "ipynb", "configs": "yaml"}.items()}  # fmt: skip


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git has and has not ignored, so that nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "checkout" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(folder / "checkout")], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_notebook_dashboard_and_example(wheel: Path) -> None:
    packed = zipfile.ZipFile(wheel)
    for name, paths in SHIPPED.items():
        assert len(paths) >= 3
        prefix = f"workbench/shipped_files/{name}/"
        assert sorted(path for path in packed.namelist() if path.startswith(prefix)) == [prefix + path.name for path in paths]
        assert all(packed.read(prefix + path.name) == path.read_bytes() for path in paths)


@pytest.mark.parametrize("name", ["notebooks", "configs"])
def test_what_is_shipped_is_copied_and_nothing_is_overwritten(name: str, tmp_path: Path) -> None:
    there = tmp_path / name
    done = workbench(name, "copy", there)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {path.name: path.read_bytes() for path in SHIPPED[name]}
    assert str(there / SHIPPED[name][0].name) in done.stdout
    assert ("configs/quickstart.yaml; `workbench configs copy`" in done.stdout) is (name == "notebooks")
    (there / SHIPPED[name][0].name).unlink()
    again = workbench(name, "copy", there)
    assert again.returncode == 2 and "nothing is overwritten: name another folder" in again.stderr
    assert not (there / SHIPPED[name][0].name).exists()


def test_a_missing_package_of_the_report_is_said_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.errors import MissingExtraError
    from workbench.notebooks import ready

    ready()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "papermill" else find(name))
    with pytest.raises(MissingExtraError, match=r"'papermill'.*rag-workbench\[lab\].*|--no-notebooks"):
        ready()


def test_an_experiment_file_that_is_not_there_names_the_command_that_writes_examples(tmp_path: Path) -> None:
    done = workbench("plan", tmp_path / "configs" / "quickstart.yaml")
    assert done.returncode == 2 and "`workbench configs copy` writes the examples" in done.stderr


class Installed:
    """The wheel in an environment of its own, which has the packages of this one, and an empty folder."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        venv.create(folder / "environment", with_pip=False)
        self.folder, self.python = folder / "empty", folder / "environment" / "bin" / "python"
        self.folder.mkdir()
        (packages,) = (folder / "environment" / "lib").glob("python*/site-packages")
        zipfile.ZipFile(wheel).extractall(packages)
        # A line of this file adds a folder, and does not follow the link to the checkout that lies in it.
        (packages / "others.pth").write_text(str(Path(pytest.__file__).parents[1]))
        self.environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.environment |= {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        self.environment["JUPYTER_PATH"] = str(Path(sys.prefix) / "share" / "jupyter")  # Voila's own templates lie there

    def command(self, *arguments: object) -> list[str]:
        return [str(self.python), "-m", "workbench.cli", *map(str, arguments)]

    def __call__(self, *arguments: object) -> str:
        """What the command line prints; it must succeed."""
        done = subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    @contextmanager
    def serving(self, *arguments: object) -> Iterator[str]:
        """An address at which a command serves."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = self.folder / "log"
        with log.open("w") as out:
            process = subprocess.Popen(
                self.command(*arguments, "--port", port), cwd=self.folder, env=self.environment, stdout=out, stderr=out
            )
        address = f"http://127.0.0.1:{port}/"
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(address, timeout=60).close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert process.poll() is None, log.read_text()
                    time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_folder_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    installed = Installed(wheel, tmp_path)
    where = [str(installed.python), "-c", "import workbench; print(workbench.__file__)"]
    found = subprocess.run(where, cwd=installed.folder, env=installed.environment, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(tmp_path)), "the checkout answers instead of the wheel"
    installed("configs", "copy")
    few = ("--set", "dataset.limit=4", "--set", "axes.reranker=[none]", "--set", "axes.prompt=[terse]")
    run = installed("run", "configs/smoke.yaml", *few).strip().splitlines()[-1].removeprefix("run: ")
    status = json.loads((installed.folder / run / "notebooks" / "status.json").read_text())
    assert {text for name, text in status.items() if name != "seconds"} == {"ok"}
    installed("report", run)
    assert "pydocs" in (installed.folder / run / "report.html").read_text()
    with installed.serving("dashboard") as address:
        assert "smoke" in urllib.request.urlopen(address, timeout=60).read().decode()
        page = urllib.request.urlopen(f"{address}voila/render/verdict.ipynb", timeout=60).read().decode()
        assert "smoke" in page or "voila" in page.lower()
    with installed.serving("serve", run) as address:
        body = json.dumps({"question": "What does the with statement call first?"}).encode()
        asked = urllib.request.Request(f"{address}api/ask", body, {"Content-Type": "application/json"})
        assert json.load(urllib.request.urlopen(asked, timeout=60))["sources"]
