"""Slides: the texts of each in the order of its shapes, tables and notes included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from workbench.data.documents.archives import check_no_entities, check_no_ole, opened, part
from workbench.data.documents.blocks import BLOCK, LINE, PAGE, Blocks
from workbench.data.documents.forms import OLE, ZIP
from workbench.data.documents.parser import Document, Parser, Unpacking, UnreadError, first_line

LIBRARY = "pptx"


class Pptx(Parser):
    """A presentation: slides are pages, parted by form feeds; their titles are headings."""

    extra: ClassVar[str] = "slides"
    needs: ClassVar[tuple[str, ...]] = (LIBRARY,)
    libraries: ClassVar[tuple[str, ...]] = ("python-pptx",)
    forms: ClassVar[tuple[str, ...]] = (ZIP, OLE)
    kind: Literal["pptx"] = "pptx"

    def parse(self, path: Path, limits: Unpacking) -> Iterable[Document]:
        check_no_ole(path)
        with opened(path, limits) as archive:
            part(archive, "ppt/presentation.xml")
            check_no_entities(archive)
        slides = self.library(LIBRARY).Presentation(str(path))
        blocks = Blocks()
        for number, slide in enumerate(slides.slides, 1):
            blocks.gap(PAGE)
            blocks.begin("page", label=str(number))
            for shape in _shapes(slide.shapes):
                _write(shape, shape == slide.shapes.title, blocks)
            if slide.has_notes_slide:
                _paragraphs(slide.notes_slide.notes_text_frame, blocks)
            blocks.end()
        if not blocks.text():
            raise UnreadError("empty", "no slide has text")
        title = " ".join((slides.core_properties.title or "").split())
        return [Document(blocks.text(), title or first_line(blocks.text()), blocks.structure())]


def _shapes(shapes: Iterable[Any]) -> Iterator[Any]:
    """The shapes of a slide, those in groups included."""
    waiting = [iter(shapes)]
    while waiting:
        shape = next(waiting[-1], None)
        if shape is None:
            waiting.pop()
        elif hasattr(shape, "shapes"):
            waiting.append(iter(shape.shapes))
        else:
            yield shape


def _write(shape: Any, heading: bool, blocks: Blocks) -> None:
    if shape.has_text_frame:
        if heading:
            blocks.gap(BLOCK)
            blocks.begin("heading", 1)
        _paragraphs(shape.text_frame, blocks)
        if heading:
            blocks.end()
    elif getattr(shape, "has_table", False):
        blocks.gap(BLOCK)
        blocks.begin("table")
        for row in shape.table.rows:
            blocks.begin_row()
            for cell in row.cells:
                blocks.begin_cell()
                blocks.words(cell.text)
                blocks.end_cell()
        blocks.end()


def _paragraphs(frame: Any, blocks: Blocks) -> None:
    blocks.gap(BLOCK)
    for paragraph in frame.paragraphs if frame is not None else ():
        blocks.gap(LINE)
        blocks.words(paragraph.text)
