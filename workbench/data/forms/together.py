"""Several files of questions -> one set of questions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from workbench.data.forms.form import SPLITS
from workbench.data.forms.known import Questions
from workbench.data.forms.question import Corpus
from workbench.errors import InputError


def split_of(path: Path) -> str | None:
    """The split that a file's name says, as ``train-v2.0.json`` does; None where it says none, or two."""
    said = {SPLITS[word] for word in re.split(r"[^a-z]+", path.name.lower()) if word in SPLITS}
    return said.pop() if len(said) == 1 else None


def together(files: Sequence[Path], read: Callable[[Path, Corpus, int], Questions]) -> Questions:
    """The questions of files, in their order.

    Where no question has a split and the name of each file says one, these are the splits.

    Args:
        files: at least one.
        read: the questions of one; it is given what the documents are put into, and how many questions came before.

    Raises:
        InputError: a file cannot be read, or some bring their documents along and others do not.
    """
    corpus, parts = Corpus(), list[Questions]()
    for path in files:
        parts.append(read(path, corpus, sum(len(part.asked) for part in parts)))
    if len(parts) == 1:
        return parts[0]
    _check_documents(files, parts)
    notes = [note for part in parts for note in part.notes]
    named = [split_of(path) for path in files]
    if all(named) and all(one.split is None for part in parts for one in part.asked):
        parts = [
            replace(part, asked=[replace(one, split=split) for one in part.asked])
            for part, split in zip(parts, named, strict=True)
        ]
        said = ", ".join(f"{path.name} is {split}" for path, split in zip(files, named, strict=True))
        notes.append(f"no question has a split, so the names of the files say it: {said}")
    return Questions(
        " and ".join(dict.fromkeys(part.form for part in parts)),
        " and ".join(dict.fromkeys(part.about for part in parts)),
        [one for part in parts for one in part.asked],
        corpus,
        parts[0].documents,
        _roles(parts),
        list(dict.fromkeys(notes)),
    )


def _check_documents(files: Sequence[Path], parts: Sequence[Questions]) -> None:
    own = {path: part.documents == "own" for path, part in zip(files, parts, strict=True)}
    if len(set(own.values())) > 1:
        brings, lacks = (next(path for path, one in own.items() if one is wanted) for wanted in (True, False))
        raise InputError(
            f"dataset.questions: the questions of {brings} bring their documents along, those of {lacks} do not; name files of "
            f"one kind"
        )


def _roles(parts: Sequence[Questions]) -> dict[str, str]:
    """What is read of a question -> the column that says it, or the columns of several files."""
    roles = dict.fromkeys(role for part in parts for role in part.roles)
    return {role: " or ".join(dict.fromkeys(part.roles[role] for part in parts if role in part.roles)) for role in roles}
