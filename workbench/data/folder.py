"""The documents of a folder, as they are read today: the one place that question sets, `init` and `check` read them by."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from workbench.component import file_digest
from workbench.data import sources
from workbench.data.dataset import Row


class Folder(NamedTuple):
    """A folder's documents.

    Attributes:
        documents: rows of `workbench.data.dataset.DOCUMENTS`.
        notes: what was left out or could not be read, one sentence each.
        content: path of each file -> digest of its content.
    """

    documents: list[Row]
    notes: list[str]
    content: dict[str, str]


def read(folder: Path, questions: Path | None = None) -> Folder:
    """The documents of a folder.

    Args:
        folder: the folder.
        questions: a file that may lie in it and is no document; None: there is none.

    Raises:
        InputError: there is no such folder, no document in it, or one that cannot be read.
    """
    files, notes = sources.folder_files(Path(folder), questions)
    content = {file.relative_to(folder).as_posix(): file_digest(file) for file in files}
    return Folder([sources.text_document(file, folder) for file in files], notes, content)
