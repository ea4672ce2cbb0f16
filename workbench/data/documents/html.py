"""HTML: block by block, as a browser shows it, with headings, tables, lists and code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from workbench.component import library_version
from workbench.data.documents import main_content
from workbench.data.documents.blocks import BLOCK, LINE, SPACE, Blocks
from workbench.data.documents.encodings import decoded
from workbench.data.documents.forms import TEXTS
from workbench.data.documents.parser import Document, Parser, Unpacking, UnreadError, first_line, imported

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

LIBRARY = "selectolax.lexbor"
UNSEEN = {"head", "script", "style", "template", "noscript", "svg", "iframe", "object", "canvas", "audio", "video", "select"}
HEADINGS = {f"h{level}": level for level in range(1, 7)}
LINES = {"br", "li", "dt", "dd", "option"}
CELLS = {"td", "th"}
BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "caption", "center", "details", "dialog", "div", "dl", "fieldset"),
    *("figcaption", "figure", "footer", "form", "header", "hr", "html", "main", "nav", "ol", "p", "pre", "section", "summary"),
    *("table", "tbody", "tfoot", "thead", "ul", *HEADINGS),
}
ELEMENTS = {"table": "table", "ul": "list", "ol": "list", "pre": "code"}
DECLARED = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w.:-]+)|<\?xml[^>]+encoding\s*=\s*["']([\w.:-]+)""", re.IGNORECASE)
DECLARED_WITHIN = 4096  # bytes


class Html(Parser):
    """A page's text as a browser shows it: scripts and styles left out, cells parted by tabs, rows and entries by line ends.

    Attributes:
        content: ``main`` leaves out what surrounds the main content of a page, such as menus and footers.
    """

    extra: ClassVar[str] = "documents"
    needs: ClassVar[tuple[str, ...]] = (LIBRARY,)
    libraries: ClassVar[tuple[str, ...]] = ("selectolax", "charset-normalizer")
    added: ClassVar[tuple[str, ...]] = ("content",)
    forms: ClassVar[tuple[str, ...]] = TEXTS
    content: Literal["all", "main"] = "all"
    kind: Literal["html"] = "html"

    def definition(self) -> dict[str, Any]:
        """What decides the output; of the main content, the library that finds it too."""
        found = super().definition()
        if self.content == "main":
            found["libraries"] |= {name: library_version(name) for name in (main_content.LIBRARY, "lxml")}
        return found

    def check_installed(self) -> None:
        super().check_installed()
        if self.content == "main":
            imported(main_content.LIBRARY, main_content.EXTRA, "the main content of pages in HTML")

    def parse(self, path: Path, limits: Unpacking) -> Iterable[Document]:
        raw = path.read_bytes()
        source, notes = decoded(raw, declared(raw))
        page = Blocks()
        if self.content == "main":
            name = title(source)
            written(main_content.main_content(source), page)
        else:
            name = written(source, page)
        text, structure = page.text(), page.structure()
        if not text:
            raise UnreadError("empty", "the page shows no text; one that a script fills has to be saved from a browser")
        first = next((element.label for element in structure if element.kind == "heading"), "")
        return [Document(text, name or first or first_line(text), structure, notes=notes)]


def declared(raw: bytes) -> str:
    """The encoding that a page in HTML or XML says it is in; empty where it says none."""
    found = DECLARED.search(raw[:DECLARED_WITHIN])
    return (found[1] or found[2]).decode("ascii") if found else ""


def written(source: str, into: Blocks) -> str:
    """Writes a page's text and elements; returns its title, empty where it has none.

    Args:
        source: the page, in HTML.
        into: where it is written, behind what stands there.
    """
    tree = _tree(source)
    root = tree.body or tree.root
    if root is not None:
        for tag, node, begins in _walk(root, {node.mem_id for node in tree.css("[hidden]")}):
            if tag == "-text":
                _text(node.text_content or "", into)
            elif begins:
                _begin(tag, into)
            else:
                _end(tag, into)
    return _title(tree)


def title(source: str) -> str:
    """A page's title, empty where it has none.

    Args:
        source: the page, in HTML.
    """
    return _title(_tree(source))


def _tree(source: str) -> LexborHTMLParser:
    found: LexborHTMLParser = imported(LIBRARY, "documents", "reading HTML").LexborHTMLParser(source)
    return found


def _title(tree: LexborHTMLParser) -> str:
    named = tree.css_first("head > title")
    return " ".join(named.text().split()) if named else ""


def _walk(root: LexborNode, hidden: set[int]) -> Iterator[tuple[str, LexborNode, bool]]:
    """The nodes with their tags at their beginning and, but for texts, at their end.

    Without recursion, since pages nest as deep as they like; what the library is asked costs more than all else, so it is asked
    for everything once.
    """
    open_: list[tuple[str, LexborNode]] = []
    node = root
    while True:
        tag = node.tag or ""
        yield tag, node, True
        if tag != "-text":
            unseen = tag in UNSEEN or (hidden and node.mem_id in hidden)
            if not unseen and (child := node.first_child) is not None:
                open_.append((tag, node))
                node = child
                continue
            yield tag, node, False
        following = node.next if open_ else None
        while following is None:
            if not open_:
                return
            tag, node = open_.pop()
            yield tag, node, False
            following = node.next if open_ else None
        node = following


def _text(text: str, into: Blocks) -> None:
    if into.holds("code"):
        into.exact(text.strip("\n") if "\n" in text else text)
    else:
        into.words(text)


def _begin(tag: str, into: Blocks) -> None:
    if tag in BLOCKS:
        into.gap(BLOCK)
    elif tag in LINES:
        into.gap(LINE)
    elif tag == "tr":
        into.begin_row()
    elif tag in CELLS:
        into.begin_cell()
    elif tag == "img":
        into.gap(SPACE)
    if tag in HEADINGS:
        into.begin("heading", HEADINGS[tag])
    elif tag in ELEMENTS:
        into.begin(ELEMENTS[tag])


def _end(tag: str, into: Blocks) -> None:
    if tag in HEADINGS or tag in ELEMENTS:
        into.end()
    if tag in BLOCKS:
        into.gap(BLOCK)
    elif tag in LINES:
        into.gap(LINE)
    elif tag in CELLS:
        into.end_cell()
