"""A run in a bundle: where its data, weights and files lie, whatever machine the bundle was unpacked on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from workbench import weights
from workbench.component import file_digest
from workbench.data.dataset import Dataset
from workbench.errors import InputError
from workbench.results.run import Run

FACTS = "bundle.json"
RUNS, DATASET, FILES, HOME = "runs", "dataset", "files", "home"  # folders of a bundle


class Bundle:
    """An unpacked bundle, whose files are those that were packed.

    Attributes:
        folder: where it lies.
        facts: what bundle.json says: the run, the configuration, the digest of every file.
    """

    def __init__(self, folder: Path) -> None:
        """Opens a bundle.

        Args:
            folder: it holds bundle.json.

        Raises:
            InputError: bundle.json cannot be read, or a file is missing or is not the one that was packed.
        """
        self.folder = folder
        try:
            self.facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            digests: dict[str, str] = self.facts["files"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder / FACTS} is damaged ({error}); unpack the bundle again") from error
        for name, digest in digests.items():
            file = folder / name
            if not file.is_file() or file_digest(file) != digest:
                what = "is not the one that was packed" if file.is_file() else "is missing"
                raise InputError(f"the bundle {folder} is damaged: {name} {what}; unpack it again")
        weights.look_in(self.folder / HOME)

    @property
    def run(self) -> Path:
        """Folder of its run."""
        return self.folder / str(self.facts["run"])

    @property
    def configuration(self) -> str:
        """Id of the configuration that it serves, the only one whose artifacts it holds."""
        return str(self.facts["configuration"])

    @cached_property
    def dataset(self) -> Dataset:
        """The run's dataset, as it was read."""
        return Dataset.load(self.folder / DATASET)

    def moved(self, values: Any) -> Any:
        """Settings of the run, with the files of the bundle in place of those of the machine on which it was made."""
        places: Mapping[str, str] = self.facts["moved"]
        return replaced(values, {old: str(self.folder / new) for old, new in places.items()})


def names_at_server(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a section of settings whose texts are names at a server, although they may look like paths here."""
    return ("model",) if "endpoint" in values else ()


def replaced(values: Any, places: Mapping[str, str]) -> Any:
    """Plain values with some texts replaced; ``FILE:Name`` stands for a class in a file.

    Args:
        values: as YAML gives them.
        places: from text to text.
    """
    if isinstance(values, dict):
        kept = names_at_server(values)
        return {key: value if key in kept else replaced(value, places) for key, value in values.items()}
    if isinstance(values, list):
        return [replaced(value, places) for value in values]
    if not isinstance(values, str):
        return values
    file, colon, name = values.rpartition(":")
    if colon and file in places and file.endswith(".py"):
        return f"{places[file]}:{name}"
    return places.get(values, values)


def bundle_at(folder: str | Path) -> Bundle | None:
    """The bundle in a folder; None where there is none."""
    return _opened(Path(folder).resolve()) if (Path(folder) / FACTS).is_file() else None


@cache  # the digests of all its files are computed once
def _opened(folder: Path) -> Bundle:
    return Bundle(folder)


def bundle_of(run: Run) -> Bundle | None:
    """The bundle that a run lies in; None where it lies in none."""
    return bundle_at(run.runs.parent)
