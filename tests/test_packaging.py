"""What can be installed, and what `make` offers."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKED_EXTRAS = [
    "cpu",
    "lab",
    "app",
    "hub",
    "documents",
    "slides",
    "web",
    "int8",
    "stores",
    "rerankers",
    "langchain",
    "endpoints",
    "distributed",
    "ray-serve",
    "lambda",
    "queue",
    "scale",
    "tracing",
    "test",
]
PIN = re.compile(r"(?P<name>[a-z0-9]+(-[a-z0-9]+)*)==(?P<version>[0-9][0-9a-z.]*)")
CONDA_NAMES = {"pytorch": "torch"}  # where conda calls a distribution otherwise than the Python index does


def requirements(*extras: str) -> dict[str, Requirement]:
    """The hard dependencies and those of some extras, by canonical name."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


def lock_lines() -> list[str]:
    """The lines of requirements.lock that are no comment."""
    return [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]


def pins() -> dict[str, Version]:
    """The locked version of each distribution."""
    return {(match := PIN.fullmatch(line))["name"]: Version(match["version"]) for line in lock_lines()}


def conda() -> dict[str, Requirement]:
    """What environment.yml names, from conda and from pip, by canonical name."""
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = (line["pip"] for line in lines if isinstance(line, dict))
    named = [Requirement(re.sub(r"(?<=[a-z])=(?=\d)", "==", line)) for line in [*(x for x in lines if isinstance(x, str)), *pip]]
    names = [CONDA_NAMES.get(requirement.name, canonicalize_name(requirement.name)) for requirement in named]
    assert len(names) == len(set(names)), "a package is named twice, by conda and by pip"
    return dict(zip(names, named, strict=True))


def lowest(specifier: SpecifierSet) -> Version:
    """The bound of a specifier that is one lower bound and nothing else."""
    (bound,) = specifier
    assert bound.operator == ">=", f"{specifier} is no plain lower bound"
    return Version(bound.version)


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs make as a person would: without what an outer `make test` hands down."""
    environment = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_package_has_at_most_fifteen_hard_dependencies():
    assert 0 < len(PROJECT["dependencies"]) <= 15


@pytest.mark.parametrize("extra", LOCKED_EXTRAS)
def test_every_requirement_is_pinned_within_its_bound(extra: str):
    versions = pins()
    for name, requirement in requirements(extra).items():
        assert name in versions, f"{name} has no pin: run `make lock`"
        assert versions[name] in requirement.specifier, f"{name}=={versions[name]} is locked: run `make lock`"


def test_every_requirement_states_one_lower_bound():
    for requirement in requirements(*EXTRAS).values():
        assert lowest(requirement.specifier)


def test_the_lock_holds_exact_pins_of_distinct_packages_and_nothing_else():
    assert [line for line in lock_lines() if not PIN.fullmatch(line)] == []
    assert len(pins()) == len(lock_lines()) > len(requirements(*LOCKED_EXTRAS))


def test_the_lock_fits_every_kind_of_machine():
    """CUDA's libraries belong to one build of torch, which asks for them itself; faiss-gpu excludes faiss-cpu."""
    assert [name for name in pins() if name.startswith(("nvidia-", "cuda-")) or name in {"triton", "faiss-gpu"}] == []
    assert "faiss-cpu" in pins()


def test_torch_stays_at_the_version_whose_arithmetic_was_measured():
    assert pins()["torch"] == Version("2.13.0")


def test_the_extras_for_processor_and_graphics_card_are_two_faces_of_one_module():
    assert set(requirements("cpu")) - set(requirements()) == {"faiss-cpu"}
    assert set(requirements("gpu")) - set(requirements()) == {"faiss-gpu"}


def test_the_conda_environment_has_every_package_of_the_project_with_the_same_bound():
    there = conda()
    for name, requirement in requirements("lab", "app", "hub", "documents", "slides", "web", "test").items():
        assert name in there, f"{name} is missing in environment.yml"
        assert there[name].specifier == requirement.specifier, name
        assert there[name].extras == requirement.extras, name


def test_the_conda_environment_brings_the_faiss_of_the_graphics_card_alone():
    assert "faiss-gpu" in conda()
    assert "faiss-cpu" not in conda()
    assert lowest(conda()["faiss-gpu"].specifier) >= lowest(requirements("cpu")["faiss-cpu"].specifier)


def test_the_conda_environment_names_nothing_that_the_project_does_not():
    assert set(conda()) - set(requirements(*EXTRAS)) == {"python", "pip", "make"}


def test_the_conda_environment_has_a_python_that_the_project_allows():
    (version,) = conda()["python"].specifier
    assert version.version in SpecifierSet(PROJECT["requires-python"])


def test_make_alone_lists_every_target_with_a_line_about_it():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    described = re.findall(r"^  ([a-z-]+) +\S.*$", make().stdout, re.MULTILINE)
    assert sorted(described) == sorted(set(phony) - {"environment", "weights", "ready", "install"})  # parts of other targets
    assert {"setup", "demo", "test", "test-slow", "soak", "lab", "dashboards", "app", "lint", "lock", "bench", "clean"} <= {
        *described
    }


@pytest.mark.parametrize(("minor", "allowed"), [(10, False), (11, True), (12, True), (13, True), (14, False)])
def test_make_refuses_a_python_outside_the_range_and_names_the_range(minor: int, allowed: bool, tmp_path: Path):
    # This Python answers the question for its version and fails at everything after it, so nothing is installed.
    python = tmp_path / "python"
    python.write_text(f"""#!{sys.executable}
import sys
if sys.argv[1] == "--version":
    sys.exit(print("Python 3.{minor}.1"))
sys.version_info = (3, {minor}, 1, "final", 0)
exec(sys.argv[2]) if "version_info" in sys.argv[2] else sys.exit(1)
""")
    python.chmod(0o755)
    done = make("setup", f"PYTHON={python}")
    assert done.returncode != 0
    assert (f"is Python 3.{minor}.1, the workbench needs 3.11, 3.12 or 3.13" in done.stderr) is not allowed


def test_only_what_needs_weights_fetches_them():
    for target, fetches in {"test": False, "lint": False, "test-slow": True, "soak": True, "demo": True}.items():
        assert ("workbench models --fetch" in make("--dry-run", target).stdout) is fetches, target


def test_the_demo_installs_less_than_the_tests():
    told = {target: make("--dry-run", target).stdout for target in ("demo", "test", "test-slow")}
    assert {target: re.findall(r"make.* ready EXTRAS=(\w+)", text) for target, text in told.items()} == {
        "demo": ["demo"],
        "test": ["all"],
        "test-slow": ["all"],
    }


def test_ci_is_a_program():
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_the_data_that_the_package_reads_goes_into_the_wheel():
    """Every file of the package that is not Python matches a pattern of the package data."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["workbench"]
    package = ROOT / "workbench"
    packed = {path for pattern in patterns for path in package.glob(pattern) if path.is_file()}
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    data = {path for path in files if path.suffix != ".py" or path.parent.name == "deploy"}  # what is there begins elsewhere
    assert data == packed
