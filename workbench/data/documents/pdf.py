"""PDF by PDFium: the text of each page in the order in which the file holds it, pages parted by form feeds.

PDFium must not be called from two threads of one process, and a file may end the process: it is read in processes of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from math import pi
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from workbench.data.documents.forms import PDF
from workbench.data.documents.outline import headings
from workbench.data.documents.parser import Document, Element, Parser, Unpacking, UnreadError, first_line
from workbench.data.readers.text import counted

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage, PdfTextPage

LIBRARY = "pypdfium2"
PASSWORD = 4  # FPDF_ERR_PASSWORD
COPYING = 1 << 4  # the permission to copy text, as PDF's standard numbers it
END = b"%%EOF"
TAIL = 2048  # bytes at the end in which the mark of the end has to stand
PADDING = 1 << 20  # bytes of white space and zeros that may follow
SAMPLED = 20  # letters of a page that say which way is up
SPACE = 32  # code of the last character that is no letter
# what PDFium gives for a hyphen at the end of a line, and for what is no letter
SIGNS = {"\r": "", "\x02": "-", "\ufffe": "-", "\0": "", "\f": "\n"}
NO_TITLES = {"untitled", "untitled document", "document", "title", "unknown", "none", "(anonymous)"}
NO_NAMES = (".doc", ".docx", ".tex", ".dvi", ".indd", ".xls", ".xlsx", ".ppt", ".pptx", ".pdf", ".qxd")  # titles left by programs


class Pdf(Parser):
    """The pages' texts. A page is an element whose label is its number, counted from 1; the outline names the headings."""

    version: ClassVar[int] = 2
    extra: ClassVar[str] = "documents"
    needs: ClassVar[tuple[str, ...]] = (LIBRARY,)
    libraries: ClassVar[tuple[str, ...]] = (LIBRARY,)
    forms: ClassVar[tuple[str, ...]] = (PDF,)
    kind: Literal["pdf"] = "pdf"

    def parse(self, path: Path, limits: Unpacking) -> Iterable[Document]:
        library = self.library(LIBRARY)
        try:
            pdf = library.PdfDocument(path)
        except library.PdfiumError as error:
            raise _unread(path, error) from error
        _check_whole(path)
        try:
            pages = [_page_text(library, pdf, number) for number in range(len(pdf))]
            return [_document(pdf, pages, _notes(library, pdf, pages))]
        except library.PdfiumError as error:
            raise UnreadError(
                "damaged", f"PDFium cannot read a page of it ({error}); open and save it with a PDF program"
            ) from error
        finally:
            pdf.close()


def _unread(path: Path, error: Any) -> UnreadError:
    if getattr(error, "err_code", None) == PASSWORD:
        return UnreadError("encrypted", "it opens with a password only; save it without one")
    try:
        _check_whole(path)
    except UnreadError as truncated:
        return truncated
    return UnreadError("damaged", f"PDFium cannot open it ({error}); fetch it again, or open and save it with a PDF program")


def _check_whole(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TAIL - PADDING, 0))
        if END not in file.read().rstrip(b"\0 \t\r\n")[-TAIL:]:
            raise UnreadError(
                "truncated",
                f"it does not end as a PDF does (no {END.decode()} in its last {TAIL:,} bytes); fetch it again, or mend it "
                f"with a PDF program",
            )


def _page_text(library: Any, pdf: PdfDocument, number: int) -> str:
    page = pdf[number]
    text = page.get_textpage()
    turn = _turn(library.raw, page, text)
    if turn:  # PDFium may give lines that run downwards in reverse
        text.close()
        page.set_rotation((page.get_rotation() + turn) % 360)
        text = page.get_textpage()
    try:
        found: str = text.get_text_range()
        for sign, meant in SIGNS.items():
            found = found.replace(sign, meant)
        return found.strip("\n")
    finally:
        text.close()
        page.close()


def _turn(raw: Any, page: PdfPage, text: PdfTextPage) -> int:
    """By how many degrees a page has to be turned so that most of its letters stand upright."""
    n, shown = raw.FPDFText_CountChars(text), raw.FPDFPage_GetRotation(page)
    if not shown and not raw.FPDFText_GetCharAngle(text, n // 2) and not raw.FPDFText_GetCharAngle(text, n // 3):
        return 0  # as nearly all pages are, so that they cost no more than this
    sampled = [place for place in range(0, n, max(n // SAMPLED, 1)) if raw.FPDFText_GetUnicode(text, place) > SPACE]
    quarters = Counter(round(raw.FPDFText_GetCharAngle(text, place) / (pi / 2)) % 4 for place in sampled)
    return -90 * (quarters.most_common(1)[0][0] + shown) % 360 if quarters else 0


def _notes(library: Any, pdf: PdfDocument, pages: list[str]) -> tuple[str, ...]:
    """What is worth telling of a PDF.

    Raises:
        UnreadError: it has no page, or none with text.
    """
    bare = sum(not text.strip() for text in pages)
    if not pages:
        raise UnreadError("empty", "it has no pages")
    if bare == len(pages):
        if any(True for page in pdf for _ in page.get_objects(filter=[library.raw.FPDF_PAGEOBJ_IMAGE])):
            raise UnreadError(
                "scanned", f"none of its {counted(len(pages), 'page')} has text, only pictures; recognise the text first (OCR)"
            )
        raise UnreadError("empty", f"none of its {counted(len(pages), 'page')} has text")
    told = (f"{bare} of {len(pages)} pages {'has' if bare == 1 else 'have'} no text",) if bare else ()
    if library.raw.FPDF_GetFormType(pdf) != library.raw.FORMTYPE_NONE:
        told = (*told, "it is a form, and what is filled in is not read; print it to a PDF to have that as text")
    locked = not library.raw.FPDF_GetDocPermissions(pdf) & COPYING
    return (*told, "its owner does not permit copying its text; it was read all the same") if locked else told


def _document(pdf: PdfDocument, pages: list[str], notes: tuple[str, ...]) -> Document:
    starts = list(accumulate((len(page) + 1 for page in pages), initial=0))[:-1]
    ends = [at + len(page) for at, page in zip(starts, pages, strict=True)]
    numbered = [Element(*place, "page", 0, str(n)) for n, place in enumerate(zip(starts, ends, strict=True), 1)]
    structure = sorted([*numbered, *headings(pdf, pages, starts)], key=lambda element: (element.start, -element.end))
    text = "\f".join(pages)
    named = " ".join((pdf.get_metadata_value("Title") or "").split())
    left = not named or named.lower().endswith(NO_NAMES) or named.lower() in NO_TITLES
    return Document(text, first_line(text) if left else named, tuple(structure), notes=notes)
