"""Word documents: mammoth makes HTML of them, with headings, lists, tables and footnotes in their order, which is then read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from workbench.data.documents import html
from workbench.data.documents.archives import check_no_entities, check_no_ole, opened
from workbench.data.documents.blocks import Blocks
from workbench.data.documents.forms import NOT_ITS_NAME, OLE, ZIP
from workbench.data.documents.parser import Document, Parser, Unpacking, UnreadError, first_line

LIBRARY = "mammoth"
BODY = re.compile(r"word/document\d*\.xml")


class Docx(Parser):
    """A Word document's text, read as `workbench.data.documents.html` reads a page; pictures are left out."""

    extra: ClassVar[str] = "documents"
    needs: ClassVar[tuple[str, ...]] = (LIBRARY, html.LIBRARY)
    libraries: ClassVar[tuple[str, ...]] = (LIBRARY, "selectolax")
    forms: ClassVar[tuple[str, ...]] = (ZIP, OLE)
    kind: Literal["docx"] = "docx"

    def parse(self, path: Path, limits: Unpacking) -> Iterable[Document]:
        check_no_ole(path)
        library = self.library(LIBRARY)
        with opened(path, limits) as archive:
            if not any(map(BODY.fullmatch, archive.namelist())):
                raise UnreadError(NOT_ITS_NAME, "it is an archive without the part of a Word document that holds its text")
            check_no_entities(archive)
        pictures = library.images.img_element(lambda _: {"src": ""})  # otherwise they stand in the page, as text
        with path.open("rb") as file:
            page = library.convert_to_html(file, convert_image=pictures).value
        blocks = Blocks()
        html.written(page, blocks)
        text, structure = blocks.text(), blocks.structure()
        if not text:
            raise UnreadError("empty", "no text stands in it")
        heading = next((element.label for element in structure if element.kind == "heading"), "")
        return [Document(text, heading or first_line(text), structure)]
