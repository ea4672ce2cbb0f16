"""Source code: the text is the source itself; of Python, classes and functions are found, of other languages blocks."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Literal

from workbench.data.documents.encodings import decoded
from workbench.data.documents.forms import TEXTS
from workbench.data.documents.parser import Document, Element, Parser, Unpacking
from workbench.data.readers.text import composed

DECLARED = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class SourceCode(Parser):
    """What is defined is an element with its name as label and its depth as level; elsewhere, what empty lines part."""

    libraries: ClassVar[tuple[str, ...]] = ("charset-normalizer",)
    forms: ClassVar[tuple[str, ...]] = TEXTS
    kind: Literal["code"] = "code"

    def definition(self) -> dict[str, Any]:
        """What decides the output; what Python takes for Python depends on its version."""
        return super().definition() | {"python": ".".join(map(str, sys.version_info[:2]))}

    def parse(self, path: Path, limits: Unpacking) -> Iterable[Document]:
        raw = path.read_bytes()
        head = b"\n".join(raw.split(b"\n", 2)[:2])
        named = DECLARED.search(head) or DECLARED.search(head.partition(b"\n")[2])
        text, notes = decoded(raw, named[1].decode("ascii", "replace") if named else "")
        text = composed(text)
        try:
            found = list(_definitions(ast.parse(text), _starts(text)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            found = list(_blocks(text))
        return [Document(text, structure=tuple(found), notes=notes)]


def _starts(text: str) -> list[int]:
    return list(accumulate((len(line) + 1 for line in text.split("\n")), initial=0))


def _definitions(tree: ast.AST, starts: list[int], outer: str = "", level: int = 1) -> Iterator[Element]:
    """Classes and functions, their decorators included, and those defined in classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, DEFINITIONS):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            name = f"{outer}{node.name}"
            yield Element(starts[first - 1], starts[node.end_lineno or node.lineno] - 1, "code", level, name)
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node, starts, f"{name}.", level + 1)


def _blocks(text: str) -> Iterator[Element]:
    """Runs of lines between empty ones; a block begins at a line that is not indented."""
    lines, starts = text.split("\n"), _starts(text)
    begun: int | None = None
    for number, line in enumerate([*lines, ""]):
        closes = number == len(lines) or (line.strip() and not line[0].isspace() and not lines[number - 1].strip())
        if closes and begun is not None and number:
            last = max(n for n in range(begun, number) if lines[n].strip())
            yield Element(starts[begun], starts[last] + len(lines[last]), "code")
            begun = None
        if number < len(lines) and begun is None and line.strip():
            begun = number
