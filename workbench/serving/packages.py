"""Which packages, in which versions, serve what was measured: those that the package and own files import, and what they need."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from workbench.errors import MissingExtraError

DISTRIBUTION = "rag-workbench"
EXTRAS = ("cpu", "app")  # of the package, on the machine that serves
IMPORT = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)
NOT_SERVED = ("dashboards", "views", "plots")  # parts of the package that no service uses
BESIDE = {"IPython", "opentelemetry"}  # imported where they are there, and not needed


def require_extra() -> None:
    """Checks that the packages of the service are installed, and keeps Gradio from reporting its use to its makers.

    Raises:
        MissingExtraError: one of them is not.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    require(
        "gradio", "fastapi", "fastapi_offline", "uvicorn", "sqlalchemy", "alembic", "jwt", "argon2", "limits", "prometheus_client"
    )


def require(*packages: str) -> None:
    """Checks that packages are installed.

    Raises:
        MissingExtraError: one of them is not.
    """
    for package in packages:
        try:
            __import__(package)
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or package, "app", "the demo") from error


def requirements(package: Path, files: Iterable[Path] = ()) -> list[str]:
    """Lines of requirements.txt: what is used here, and what that needs, in the versions installed here.

    What the package's metadata ask for is not enough: they may be older than the package where it is run from its source, and
    name a generator's or an index's library in an extra only. So what is imported counts as well, as far as it is loaded now.
    Versions are without their local part (as in ``2.13.0+cpu``), which no index knows.

    Args:
        package: folder of this package.
        files: Python files that an experiment names.
    """
    sources = [path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in NOT_SERVED]
    found: dict[str, str] = {}
    wanted = [Requirement(f"{DISTRIBUTION}[{','.join(EXTRAS)}]"), *map(Requirement, _loaded([*sources, *files]))]
    seen: set[str] = set()
    while wanted:
        one = wanted.pop()
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if str(one) in seen:
            continue
        seen.add(str(one))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if name != DISTRIBUTION:
            found[name] = f"{name}=={distribution.version.partition('+')[0]}"
        wanted += _needed(distribution, one.extras)
    return sorted(found.values())


def _needed(distribution: metadata.Distribution, extras: set[str]) -> Iterator[Requirement]:
    environments = [{"extra": extra} for extra in (extras or {""})]
    for line in distribution.requires or ():
        inner = Requirement(line)
        if inner.marker is None or any(inner.marker.evaluate(environment) for environment in environments):
            yield inner


def _loaded(sources: Iterable[Path]) -> list[str]:
    """Distributions of the modules that sources import, as far as they are loaded."""
    imported = {name for path in sources for name in IMPORT.findall(path.read_text(encoding="utf-8"))}
    providers = metadata.packages_distributions()
    return sorted({one for name in (imported & sys.modules.keys()) - BESIDE for one in providers.get(name, ())} - {DISTRIBUTION})
