"""The process that reads files for another one: ``python -m workbench.data.documents.worker MEGABYTES``.

A file may hang it, fill its memory or end it; then only this file is not read. A line of JSON on its input names a file, its
parser and where its documents are to be kept; a line on its output says that they are, or why not.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from workbench.component import build, file_digest, load_class
from workbench.data.documents import duplicates, kept
from workbench.data.documents.forms import HEAD, NOT_ITS_NAME, form
from workbench.data.documents.parser import PARSER, Parser, Unpacking, UnreadError, checked
from workbench.errors import InputError

READY = "ready"
MB = 1_000_000


def parsed(path: Path, parser: Parser, unpacked_mb: int) -> list[kept.Read]:
    """The documents of a file.

    Args:
        path: the file.
        parser: what reads it.
        unpacked_mb: how much it may hold when it is unpacked.

    Raises:
        UnreadError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise UnreadError("empty", "it has 0 bytes; one that lies in a cloud alone has to be fetched first")
    if parser.forms and (found := form(head)) not in parser.forms:
        raise UnreadError(NOT_ITS_NAME, f"by its first bytes it is {found}")
    documents = [checked(document) for document in parser.parse(path, Unpacking(unpacked_mb * MB))]
    if not any(document.text.strip() for document in documents):
        raise UnreadError("empty", "no text stands in it")
    parts = [document.part for document in documents]
    if len(set(parts)) < len(parts):
        twice = next(part for number, part in enumerate(parts) if part in parts[:number])
        raise UnreadError("damaged", f"two of its documents are named {twice!r}")
    return [kept.Read(document, duplicates.sketch(document.text)) for document in documents]


def outcome(path: Path, parser: Parser, unpacked_mb: int, into: Path, content: str) -> UnreadError | None:
    """Reads a file and keeps its documents.

    Args:
        path: the file.
        parser: what reads it.
        unpacked_mb: how much it may hold when it is unpacked.
        into: where its documents are kept.
        content: the digest of its bytes, which it has to have still when it was read.

    Returns:
        Why it cannot be read, or None.

    Raises:
        InputError: what was read cannot be kept.
    """
    try:
        documents = parsed(path, parser, unpacked_mb)
        if file_digest(path) != content:
            return UnreadError("changed", "it was written to while it was read; run the same again")
    except UnreadError as error:
        return error
    except MemoryError:
        return UnreadError("too large", "reading it takes more memory than allowed (dataset.limits.memory_mb)")
    except InputError as error:
        return UnreadError("refused", str(error))
    except Exception as error:  # a parser may raise anything
        said = " ".join(f"{type(error).__name__}: {error}".replace(str(path), "it").split())[:300]
        return UnreadError("damaged", f"its parser ended with {said}")
    kept.write(into, documents)
    return None


def _answer(task: dict[str, Any], parsers: dict[str, Parser]) -> dict[str, Any]:
    name = json.dumps([task["spec"], task["settings"]])
    if name not in parsers:
        parsers[name] = build(load_class(task["spec"], PARSER), task["settings"], "parser")
    try:
        error = outcome(Path(task["path"]), parsers[name], task["unpacked_mb"], Path(task["into"]), task["content"])
    except InputError as failed:
        return {"failed": str(failed)}
    return {} if error is None else {"reason": error.reason, "said": error.said}


def main() -> None:
    """Answers line by line until its input ends."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # what a parser prints is no answer
        limit = int(sys.argv[1]) * MB
        with suppress(ValueError, OSError):  # a system without this limit
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        print(READY, file=answers, flush=True)
        parsers: dict[str, Parser] = {}
        for line in sys.stdin:
            print(json.dumps(_answer(json.loads(line), parsers)), file=answers, flush=True)


if __name__ == "__main__":
    main()
