"""EPUB: the chapters in the order of the book's spine, each read as a page in HTML."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import unquote
from xml.etree import ElementTree
from zipfile import ZipFile

from workbench.data.documents import html
from workbench.data.documents.archives import opened, part
from workbench.data.documents.blocks import PAGE, Blocks
from workbench.data.documents.encodings import decoded
from workbench.data.documents.forms import ZIP
from workbench.data.documents.parser import Document, Parser, Unpacking, UnreadError, first_line
from workbench.data.readers.text import counted

CONTAINER, ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")  # hiding fonts, which leaves texts readable
PAGES = ("application/xhtml+xml", "text/html")


class Epub(Parser):
    """A book: chapters are parted by form feeds, and each is an element whose label is its number, counted from 1."""

    extra: ClassVar[str] = "documents"
    needs: ClassVar[tuple[str, ...]] = (html.LIBRARY,)
    libraries: ClassVar[tuple[str, ...]] = ("selectolax", "charset-normalizer")
    forms: ClassVar[tuple[str, ...]] = (ZIP,)
    version: ClassVar[int] = 2
    kind: Literal["epub"] = "epub"

    def parse(self, path: Path, limits: Unpacking) -> Iterable[Document]:
        book = Blocks()
        notes: list[str] = []
        with opened(path, limits) as archive:
            title, chapters, missing = _spine(archive)
            for number, name in enumerate(chapters, 1):
                if name not in archive.namelist():
                    missing.append(name)
                    continue
                raw = part(archive, name)
                if not raw.strip():
                    continue
                source, told = decoded(raw, html.declared(raw))
                notes += told
                book.gap(PAGE)
                book.begin("chapter", label=str(number))
                html.written(source, book)
                book.end()
        if missing:
            said = counted(len(missing), "chapter", "that its spine names is", "that its spine names are")
            notes.insert(0, f"{said} not in it, and the others are read")
        if not book.text():
            said = "its spine names no chapter" if not chapters else "none of its chapters has text"
            raise UnreadError("empty", f"{said}{'; ' + notes[0] if missing else ''}")
        return [Document(book.text(), title or first_line(book.text()), book.structure(), notes=tuple(dict.fromkeys(notes)))]


def _spine(archive: ZipFile) -> tuple[str, list[str], list[str]]:
    """The book's title, the names of its chapters, each once, and those of the spine's entries that no file is listed for."""
    if ENCRYPTION in archive.namelist():
        methods = {node.get("Algorithm") for node in _named(_xml(archive, ENCRYPTION), "EncryptionMethod")}
        if methods - {*FONTS}:
            raise UnreadError("encrypted", "its chapters are encrypted (DRM)")
    roots = [node.get("full-path") for node in _named(_xml(archive, CONTAINER), "rootfile")]
    if not roots or not roots[0]:
        raise UnreadError("damaged", f"its part {CONTAINER!r} names no book")
    package = _xml(archive, roots[0])
    pages = {
        node.get("id"): posixpath.normpath(posixpath.join(posixpath.dirname(roots[0]), unquote(node.get("href", ""))))
        for node in _named(package, "item")
        if node.get("media-type") in PAGES
    }
    listed = {node.get("id") for node in _named(package, "item")}
    spine = [str(node.get("idref")) for node in _named(package, "itemref")]
    order = [pages[name] for name in spine if name in pages]
    title = next((" ".join("".join(node.itertext()).split()) for node in _named(package, "title")), "")
    return title, list(dict.fromkeys(order)), [name for name in spine if name not in listed]


def _xml(archive: ZipFile, name: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(part(archive, name))
    except ElementTree.ParseError as error:
        raise UnreadError("damaged", f"its part {name!r} is no XML ({error})") from error


def _named(tree: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """The elements of a name, whatever its namespace."""
    return (node for node in tree.iter() if isinstance(node.tag, str) and node.tag.rpartition("}")[2] == name)
