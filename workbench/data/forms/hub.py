"""Question sets of the Hugging Face hub, through `datasets`: from its cache where there is no network, or from a local folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.component import digest, file_digest
from workbench.data.forms.form import split_named
from workbench.data.readers.json_lines import Read
from workbench.errors import InputError, MissingExtraError

PARQUET = "refs/convert/parquet"  # where the hub keeps sets as Parquet that were published as a program


@dataclass(frozen=True)
class Hub:
    """A set of the hub.

    Attributes:
        name: ``OWNER/NAME``, or a folder that `datasets` wrote or can read.
        config: one of the configurations of the set; None: the only one.
        revision: a commit, tag or branch of the set; None: the newest, or the one in the cache.
        split: one of its splits, or a part such as ``validation[:100]``; None: all.
    """

    name: str
    config: str | None = None
    revision: str | None = None
    split: str | None = None

    def content(self) -> str:
        """Digest of what is read."""
        parts = {}
        for split, part in self._parts.items():
            files = [file_digest(Path(one["filename"])) for one in part.cache_files]
            parts[split] = [files, len(part), str(part.features)] if files else [json.dumps(row, default=str) for row in part]
        return digest([parts, self.split])

    def rows(self) -> dict[str, list[Read]]:
        """The rows of each split, each with its place."""
        return {
            split: [Read(f"hub set {self.name}, {split}, row {number}", row) for number, row in enumerate(part, 1)]
            for split, part in self._parts.items()
        }

    def columns(self) -> list[set[str]]:
        """The names of the columns of each split."""
        return [set(part.column_names) for part in self._parts.values()]

    def split_of(self, name: str) -> str | None:
        """``train``, ``dev`` or ``test`` for the name of a split of the set."""
        return split_named(name.partition("[")[0], f"hub set {self.name}")

    @cached_property
    def _parts(self) -> dict[str, Any]:
        try:
            import datasets
        except ImportError as error:
            raise MissingExtraError("datasets", "hub", f"the data set {self.name} of a hub") from error
        folder = Path(self.name).expanduser()
        try:
            if is_saved(folder):
                read = self._one_split(datasets.load_from_disk(str(folder)))
            else:
                read = datasets.load_dataset(
                    str(folder) if folder.is_dir() else self.name, self.config, revision=self.revision, split=self.split
                )
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"dataset.hub: {self.name}: {_said(error)}{self._way_out(error)}") from error
        parts = dict(read) if isinstance(read, dict) else {self.split or "all": read}
        if not any(len(part) for part in parts.values()):
            raise InputError(f"dataset.hub: {self.name} has no rows; another split or configuration may have some")
        return parts

    def _one_split(self, read: Any) -> Any:
        if self.split is None or not isinstance(read, dict):
            return read
        if self.split not in read:
            raise InputError(f"dataset.split: {self.name} has the splits {', '.join(read)}; received {self.split!r}")
        return read[self.split]

    def _way_out(self, error: Exception) -> str:
        said = str(error)
        if "script" in said:
            return f". The hub keeps most such sets as Parquet too: write `revision: {PARQUET}`"
        if isinstance(error, OSError):
            offline = " HF_HUB_OFFLINE is set, so only the cache is read;" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
            return f".{offline} fetch it once with a network, or name a folder that `datasets` saved it to"
        return ""


def is_saved(folder: Path) -> bool:
    """Whether `datasets` saved a set to a folder."""
    return any((folder / one).is_file() for one in ("dataset_info.json", "dataset_dict.json", "state.json"))


def _said(error: Exception) -> str:
    """The first line of what `datasets` says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
