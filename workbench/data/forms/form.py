"""What a form of question sets is: a name, the columns it is recognised by, and how a row becomes questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from workbench.data.forms.question import Asked, Corpus
from workbench.data.readers.json_lines import Record
from workbench.errors import InputError, unknown

SPLITS = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "development": "dev",
    "test": "test",
    "testing": "test",
}
Documents = Literal["own", "folder", "either"]  # they come with the questions, lie in a folder, or either


@dataclass(frozen=True)
class Form:
    """A published form of question sets.

    Attributes:
        name: what the setting ``form`` calls it.
        about: whose it is, for people.
        needs: columns that a set of this form has, as `workbench.data.forms.shape.columns` writes them; any of the sets will do.
        model: what a row holds.
        read: the questions of a row, which may add documents.
        documents: where documents come from.
        note: what is told of every set of this form.
    """

    name: str
    about: str
    needs: tuple[frozenset[str], ...]
    model: type[Record]
    read: Callable[[Any, str, Corpus], Iterator[Asked]]
    documents: Documents = "own"
    note: str = ""

    def fits(self, columns: set[str]) -> frozenset[str] | None:
        """The columns that show that a set is of this form, the most of them; or None."""
        return max((needed for needed in self.needs if needed <= columns), key=len, default=None)

    @property
    def keys(self) -> set[str]:
        """Names of the columns that are read."""
        return {field.alias or name for name, field in self.model.model_fields.items()}


def split_named(value: str | None, where: str) -> str | None:
    """``train``, ``dev`` or ``test`` for what sets call their splits; None for nothing.

    Args:
        value: the set's name of the split.
        where: its place, for messages.

    Raises:
        InputError: another name.
    """
    if value is None or not value.strip():
        return None
    if (found := SPLITS.get(value.strip().lower())) is None:
        raise InputError(f"{where}: {unknown('split', value, SPLITS)}")
    return found


def needs(*columns: str) -> frozenset[str]:
    """Columns, for `Form.needs`."""
    return frozenset(columns)
