"""A text written block by block, with the elements that stand in it: what HTML and the formats made of it are read into."""

from __future__ import annotations

from workbench.data.documents.parser import Element

# what parts two pieces of a text, the weaker first: of several that are asked for, the strongest is written
GAPS = ("", " ", "\t", "\n", "\n\n", "\f")
SPACE, CELL, LINE, BLOCK, PAGE = GAPS[1:]
STRONGER = {one: {other for other in GAPS if GAPS.index(other) < GAPS.index(one)} for one in GAPS}  # than which others


class Blocks:
    """A text under construction. Gaps are written only between texts, so none stands at its ends."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._gap = ""
        self._elements: list[list[int | str | None]] = []  # start, end, kind, level, label
        self._open: list[int] = []
        self._kinds: list[str] = []  # of those that are open
        self._waiting: list[int] = []  # open, and nothing written in them so far
        self._cells: list[int] = []  # where open cells of tables begin
        self._held = False  # whether the gap stays as it is until the next text
        self._row_begins = False

    def words(self, text: str) -> None:
        """Adds running text, its white space folded."""
        folded = " ".join(text.split())
        if text[:1].isspace():
            self.gap(SPACE)
        if folded:
            self.exact(folded)
            if text[-1].isspace():
                self.gap(SPACE)

    def exact(self, text: str) -> None:
        """Adds a text as it is."""
        if not text:
            return
        if self._length:
            self._write(self._gap)
        self._gap, self._held, self._row_begins = "", False, False
        if self._waiting:
            for number in self._waiting:
                self._elements[number][0] = self._length
            self._waiting.clear()
        self._write(text)

    def _write(self, text: str) -> None:
        self._pieces.append(text)
        self._length += len(text)

    def gap(self, gap: str) -> None:
        """Asks for one of `GAPS` before the next text."""
        if self._gap in STRONGER[gap] and not self._held:
            self._gap = gap

    def begin_row(self) -> None:
        """Begins a row of a table."""
        self.gap(LINE)
        self._row_begins = True

    def begin_cell(self) -> None:
        """Begins a cell, parted from the one before it by a tab, whatever the blocks in the two ask for."""
        if not self._row_begins:
            self.gap(CELL)
        self._held = True
        self._cells.append(self._length)

    def end_cell(self) -> None:
        """Ends a cell."""
        self._held = False
        if self._length > self._cells.pop():
            self._gap = ""

    def begin(self, kind: str, level: int = 0, label: str = "") -> None:
        """Begins an element at the next text."""
        self._open.append(len(self._elements))
        self._kinds.append(kind)
        self._waiting.append(len(self._elements))
        self._elements.append([None, None, kind, level, label])

    def end(self) -> None:
        """Ends the element that began last; one in which nothing was written is dropped."""
        number = self._open.pop()
        self._kinds.pop()
        self._elements[number][1] = self._length
        if number in self._waiting:
            self._waiting.remove(number)

    def holds(self, kind: str) -> bool:
        """Whether the next text stands in an element of a kind."""
        return kind in self._kinds

    def text(self) -> str:
        """What was written."""
        return "".join(self._pieces)

    def structure(self) -> tuple[Element, ...]:
        """The elements, in the order in which they begin; headings are labelled with their words."""
        text = self.text()
        found = [Element(*row) for row in self._elements if row[0] is not None]  # type: ignore[arg-type]
        return tuple(e._replace(label=" ".join(text[e.start : e.end].split())) if e.kind == "heading" else e for e in found)
