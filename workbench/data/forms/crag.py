"""CRAG (Yang et al. 2024): questions with web pages, of which nobody said which are relevant."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser

from pydantic import Field

from workbench.data.forms.form import Form, needs
from workbench.data.forms.question import Asked, Corpus
from workbench.data.readers.json_lines import Filled, Identifier, Record, Text

NOTE = "CRAG does not say which pages are relevant, so rankings cannot be measured on it, only answers"
SPLITS = {0: "dev", 1: "test"}  # as its documentation numbers validation and public test
UNSEEN = ("script", "style", "head", "noscript", "template")
BLOCKS = ("p", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article", "table", "ul", "ol", "br")


class Page(Record):
    """A web page that a search found."""

    page_name: Text | None = None
    page_url: Text | None = None
    page_result: Text | None = None


class Row(Record):
    """A question with pages."""

    id: Identifier | None = Field(default=None, alias="interaction_id", description="a text or a whole number")
    query: Filled = Field(description="a text that is not empty")
    answer: Filled = Field(description="a text that is not empty")
    others: list[Filled] | None = Field(default=None, alias="alt_ans", description="a list of texts")
    split: int | None = Field(default=None, description="0 or 1")
    pages: list[Page] = Field(alias="search_results", description='[{"page_name", "page_url", "page_result"}, ...]')


def _read(row: Row, where: str, corpus: Corpus) -> Iterator[Asked]:
    for page in row.pages:
        if text := _text(page.page_result or ""):
            corpus.add(page.page_name or "", text, page.page_url or "")
    answers = tuple(dict.fromkeys([row.answer, *(row.others or [])]))
    yield Asked(row.id, row.query, answers, where, split=SPLITS.get(row.split) if row.split is not None else None)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.unseen += tag in UNSEEN
        self.parts += ["\n\n"] if tag in BLOCKS else []

    def handle_endtag(self, tag: str) -> None:
        self.unseen = max(0, self.unseen - (tag in UNSEEN))
        self.parts += ["\n\n"] if tag in BLOCKS else []

    def handle_data(self, data: str) -> None:
        if not self.unseen:
            self.parts.append(data)


def _text(html: str) -> str:
    """What a page shows, its paragraphs parted by empty lines."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    paragraphs = (" ".join(one.split()) for one in "".join(reader.parts).split("\n\n"))
    return "\n\n".join(one for one in paragraphs if one)


FORMS = (Form("crag", "CRAG", (needs("query", "answer", "search_results[].page_result"),), Row, _read, note=NOTE),)
