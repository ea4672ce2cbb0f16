"""Markdown: the text is the source itself; headings, tables, lists and code are found by lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from workbench.data.documents.encodings import decoded
from workbench.data.documents.forms import TEXTS
from workbench.data.documents.parser import Document, Element, Parser, Unpacking
from workbench.data.documents.text import front_matter, title
from workbench.data.readers.text import composed

if TYPE_CHECKING:
    from markdown_it.token import Token

# markdown-it's name of what begins -> ours
BEGINS = {
    "heading_open": "heading",
    "table_open": "table",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "fence": "code",
    "code_block": "code",
}


class Markdown(Parser):
    """CommonMark with tables; front matter stays in the text, and its ``title:`` is the document's."""

    libraries: ClassVar[tuple[str, ...]] = ("markdown-it-py", "charset-normalizer")
    forms: ClassVar[tuple[str, ...]] = TEXTS
    kind: Literal["markdown"] = "markdown"

    def parse(self, path: Path, limits: Unpacking) -> Iterable[Document]:
        text, notes = decoded(path.read_bytes())
        text = composed(text)
        return [Document(text, title(text), tuple(structure(text)), notes=notes)]


def structure(text: str) -> Iterator[Element]:
    """The elements of a text in Markdown, in the order in which they begin; of nested lists, the outermost."""
    from markdown_it import MarkdownIt  # rich, a dependency of the package, brings it

    lines = text.split("\n")
    starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
    end = front_matter(lines)
    if end:
        lines[: end + 1] = [""] * (end + 1)
    tokens = MarkdownIt("commonmark").enable("table").disable("inline").parse("\n".join(lines))
    for number, token in enumerate(tokens):
        kind = BEGINS.get(token.type)
        if kind is None or token.map is None or (kind == "list" and token.level):
            continue
        first, last = token.map
        while last > first and not lines[last - 1].strip():
            last -= 1
        yield Element(starts[first], min(starts[last] - 1, len(text)), kind, *_named(kind, token, tokens[number + 1 :][:1]))


def _named(kind: str, token: Token, following: list[Token]) -> tuple[int, str]:
    """Level and label: a heading's depth and words, the language of code."""
    if kind == "heading":
        return int(token.tag[1:]), " ".join(following[0].content.split()) if following else ""
    return 0, token.info.strip().split(" ")[0] if kind == "code" else ""
