"""The headings of a PDF, as its outline (the bookmarks that programs show beside the pages) names them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from workbench.data.documents.parser import Element
from workbench.data.letters import Lettered

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

NUMBER = re.compile(r"^(?:[0-9]+|[A-Za-z]|[IVXLC]+)(?:\.[0-9]+)*[.)]?\s+")  # of a chapter, which its page may leave out
MOST = 10_000  # entries


def headings(pdf: PdfDocument, pages: Sequence[str], starts: Sequence[int]) -> Iterator[Element]:
    """The entries of the outline whose words stand on the page that they lead to, in the order of the outline.

    Letters and digits are compared. Of several places on a page the first is taken that is a whole line, else the first that
    begins one, a number before it included; words inside a line are no heading.

    Args:
        pdf: the document.
        pages: the text of each page.
        starts: where each page begins in the text of the document.
    """
    read: dict[int, Lettered] = {}
    for number, entry in enumerate(pdf.get_toc()):
        destination = entry.get_dest()
        page = None if destination is None else destination.get_index()
        title = " ".join(entry.get_title().split())
        if number >= MOST or page is None or not 0 <= page < len(pages) or not title:
            continue
        if page not in read:
            read[page] = Lettered(pages[page])
        if place := _place(read[page], title):
            start, end = place
            yield Element(starts[page] + start, starts[page] + end, "heading", entry.level + 1, title)


def _place(page: Lettered, title: str) -> tuple[int, int] | None:
    """Where a heading stands on a page; None where no line begins with it."""
    for said in dict.fromkeys((title, NUMBER.sub("", title))):
        places = [place for place in page.find(Lettered(said)) if _begins_line(page.text, place[0])] if said else []
        if places:
            start, end = next((place for place in places if _ends_line(page.text, place[1])), places[0])
            line = page.text.rfind("\n", 0, start) + 1
            return start - len(page.text[line:start].lstrip()), end
    return None


def _begins_line(text: str, start: int) -> bool:
    """Whether nothing but a number stands before a place in its line."""
    before = text[text.rfind("\n", 0, start) + 1 : start]
    return not before.strip() or NUMBER.fullmatch(f"{before.strip()} ") is not None


def _ends_line(text: str, end: int) -> bool:
    return not any(map(str.isalnum, text[end:].partition("\n")[0]))
