"""reStructuredText: the text is the source itself; titles are found by their underlines, code by its directive or its colons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import ClassVar, Literal

from workbench.data.documents.encodings import decoded
from workbench.data.documents.forms import TEXTS
from workbench.data.documents.parser import Document, Element, Parser, Unpacking, first_line
from workbench.data.readers.text import composed

LINE = re.compile(r"([!-/:-@\[-`{-~])\1{2,}\s*")  # one sign, at least three times
CODE = re.compile(r"(?P<indent> *)(?:\.\. (?:code-block|code|sourcecode)::[ ]*(?P<language>\S*)|(?!\.\. ).*::)\s*")


class RestructuredText(Parser):
    """Titles with their levels, as the order of their underlines says, and blocks of code."""

    libraries: ClassVar[tuple[str, ...]] = ("charset-normalizer",)
    forms: ClassVar[tuple[str, ...]] = TEXTS
    kind: Literal["rst"] = "rst"

    def parse(self, path: Path, limits: Unpacking) -> Iterable[Document]:
        text, notes = decoded(path.read_bytes())
        text = composed(text)
        lines = text.split("\n")
        found = sorted([*_titles(lines), *_code(lines)])
        first = next((element.label for element in found if element.kind == "heading"), "")
        return [Document(text, first or first_line(text), tuple(found), notes=notes)]


def _starts(lines: Sequence[str]) -> list[int]:
    return list(accumulate((len(line) + 1 for line in lines), initial=0))


def _titles(lines: Sequence[str]) -> Iterator[Element]:
    starts, styles = _starts(lines), []
    for number in range(1, len(lines)):
        under, title = lines[number].rstrip(), lines[number - 1].rstrip()
        if not LINE.fullmatch(under) or not title or LINE.fullmatch(title) or len(title) > len(under):
            continue
        over = number > 1 and lines[number - 2].rstrip() == under
        if not over and (title.startswith(" ") or (number > 1 and lines[number - 2].strip())):
            continue  # a line below several lines of text parts paragraphs
        style = (under[0], over)
        if style not in styles:
            styles.append(style)
        first = number - 2 if over else number - 1
        yield Element(starts[first], starts[number] + len(under), "heading", styles.index(style) + 1, " ".join(title.split()))


def _code(lines: Sequence[str]) -> Iterator[Element]:
    starts, number = _starts(lines), 0
    while number < len(lines):
        match = CODE.fullmatch(lines[number])
        number += 1
        if match is None:
            continue
        block = _indented(lines, number, len(match["indent"]))
        first, last = _without_options(lines, block, bool(match["language"] is not None))
        if first < last:
            yield Element(starts[first], starts[last - 1] + len(lines[last - 1]), "code", 0, match["language"] or "")
            number = last


def _indented(lines: Sequence[str], begin: int, indent: int) -> tuple[int, int]:
    """The lines that stand further to the right, without empty ones at their ends: the first, and that behind the last."""
    while begin < len(lines) and not lines[begin].strip():
        begin += 1
    end = last = begin
    while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > indent):
        end += 1
        last = end if lines[end - 1].strip() else last
    return begin, last


def _without_options(lines: Sequence[str], block: tuple[int, int], directive: bool) -> tuple[int, int]:
    first, last = block
    while directive and first < last and (lines[first].lstrip().startswith(":") or not lines[first].strip()):
        first += 1
    return first, last
