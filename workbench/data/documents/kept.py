"""What was read of each file, kept by what decides it: the file's content, its parser, the parser's version and libraries."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.component import digest
from workbench.data.documents.limits import Limits
from workbench.data.documents.parser import Document, Element, UnreadError
from workbench.errors import InputError
from workbench.weights import home

FORMAT = 2  # raised when the same documents are kept in another way


class Read(NamedTuple):
    """A document as it is kept.

    Attributes:
        document: the document.
        sketch: what near copies have in common, see `workbench.data.documents.duplicates`.
    """

    document: Document
    sketch: tuple[int, ...]


def key(content: str, parser: Mapping[str, Any]) -> str:
    """What a file's documents are kept under, 64 hexadecimal characters.

    Args:
        content: the digest of the file's bytes.
        parser: the definition of what reads it.
    """
    return digest(["document", FORMAT, content, parser])


def folder() -> Path:
    """Where documents are kept."""
    return home() / "documents"


def place(key: str) -> Path:
    """The file that the documents of a key are kept in."""
    return folder() / key[:2] / f"{key}.document"


def write(path: Path, documents: Sequence[Read]) -> None:
    """Keeps the documents of a file, complete or not at all: a line of JSON on them, and their texts behind it.

    Raises:
        InputError: they cannot be written.
    """
    texts = [one.document.text.encode() for one in documents]
    about = [[len(text), *one.document[1:], one.sketch] for text, one in zip(texts, documents, strict=True)]
    _write(path, b"\n".join([_json(about), b"".join(texts)]))


def read(path: Path) -> list[Read] | None:
    """The documents that were kept; None where there are none, or where the file was damaged."""
    payload = _read(path)
    if payload is None:
        return None
    about, _, texts = payload.partition(b"\n")
    found, at = [], 0
    for size, *rest in json.loads(about):
        found.append(_document(texts[at : at + size].decode(), *rest))
        at += size
    return found


def _document(text: str, title: str, structure: list[Any], part: str, notes: list[str], sketch: list[int]) -> Read:
    return Read(Document(text, title, tuple(Element(*row) for row in structure), part, tuple(notes)), tuple(sketch))


def write_unread(path: Path, error: UnreadError, limits: Limits) -> None:
    """Keeps why a file is not read, beside where its documents would be.

    Args:
        path: where they would be.
        error: why there are none.
        limits: what the file was allowed to take.
    """
    _write(_unread(path), _json([error.reason, error.said, limits.model_dump()]))


def read_unread(path: Path, limits: Limits) -> UnreadError | None:
    """Why a file was not read; None where this is not known, or where it was allowed something else.

    Args:
        path: where its documents would be.
        limits: what it is allowed to take now.
    """
    payload = _read(_unread(path))
    if payload is None:
        return None
    reason, said, allowed = json.loads(payload)
    return UnreadError(reason, said) if allowed == limits.model_dump() else None


def _unread(path: Path) -> Path:
    return path.with_suffix(".unread")


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _write(path: Path, payload: bytes) -> None:
    try:
        _replace(path, payload)
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise InputError(
            f"what was read cannot be kept in {folder()}: {said}; set WORKBENCH_HOME to a folder that can be written and has room"
        ) from error


def _replace(path: Path, payload: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(path: Path) -> bytes | None:
    """What was written; None where the file is absent, or not what was written."""
    try:
        sha, _, payload = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return payload if hashlib.sha256(payload).hexdigest().encode() == sha else None
