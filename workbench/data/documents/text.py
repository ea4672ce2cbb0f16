"""Plain text in any encoding; its text is the file's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from workbench.data.documents.encodings import decoded
from workbench.data.documents.forms import TEXTS
from workbench.data.documents.parser import Document, Parser, Unpacking
from workbench.data.readers.text import composed


class PlainText(Parser):
    """Plain text: the document is what stands in the file, its title the first line that is not empty."""

    libraries: ClassVar[tuple[str, ...]] = ("charset-normalizer",)
    forms: ClassVar[tuple[str, ...]] = TEXTS
    kind: Literal["text"] = "text"

    def parse(self, path: Path, limits: Unpacking) -> Iterable[Document]:
        text, notes = decoded(path.read_bytes())
        text = composed(text)
        return [Document(text, title(text), notes=notes)]


def title(text: str) -> str:
    """The title in a text's front matter (between two lines ``---``), else its first line, without the signs of a heading."""
    given = text.split("\n")
    if end := front_matter(given):
        named = (re.fullmatch(r"title:\s*(.+)", line.strip()) for line in given[1:end])
        if found := next((match[1].strip("\"' ") for match in named if match), ""):
            return found
        given = given[end + 1 :]
    return next((line.strip("#*= ").strip() for line in given if line.strip("#*= \t")), "")


def front_matter(lines: list[str]) -> int:
    """The number of the line that ends the front matter, counted from 0; 0 where there is none."""
    if lines[0].strip() != "---":
        return 0
    return next((number for number, line in enumerate(lines) if number and line.strip() == "---"), 0)
