"""Jupyter notebooks: the sources of the cells in their order; what they printed is left out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from workbench.data.documents import markdown
from workbench.data.documents.encodings import decoded
from workbench.data.documents.forms import NOT_ITS_NAME, TEXT
from workbench.data.documents.parser import Document, Element, Parser, Unpacking, UnreadError, first_line
from workbench.data.readers.text import composed

FORMATS = (3, 4)  # of notebooks; that of before 2015 has its cells in worksheets


class Notebook(Parser):
    """Cells are elements; headings and tables of Markdown are found in them, and code is labelled with its language."""

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("markdown-it-py",)
    forms: ClassVar[tuple[str, ...]] = (TEXT,)
    kind: Literal["notebook"] = "notebook"

    def parse(self, path: Path, limits: Unpacking) -> Iterable[Document]:
        cells, language = _cells(decoded(path.read_bytes()).text)
        text, structure = "", []
        for number, (kind, source) in enumerate(cells, 1):
            text += "\n\n" if text else ""
            at = len(text)
            text += source
            structure.append(Element(at, len(text), "cell", 0, str(number)))
            if kind == "code":
                structure.append(Element(at, len(text), "code", 0, language))
            elif kind == "markdown":
                structure += [e._replace(start=e.start + at, end=e.end + at) for e in markdown.structure(source)]
        first = next((element.label for element in structure if element.kind == "heading"), "")
        return [Document(text, first or first_line(text), tuple(structure))]


def _cells(source: str) -> tuple[list[tuple[str, str]], str]:
    """Kind and source of each cell that has one, and the language of the code."""
    try:
        notebook = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise UnreadError("damaged", f"it is no JSON ({error})") from error
    if not isinstance(notebook, dict) or "nbformat" not in notebook:
        raise UnreadError(NOT_ITS_NAME, "it is JSON, and no notebook")
    cells = _listed(notebook)
    if cells is None:
        allowed = " or ".join(map(str, FORMATS))
        raise UnreadError(
            "damaged", f"it is a notebook of format {notebook['nbformat']}; allowed: {allowed}; open and save it in Jupyter"
        )
    found = [(_kind(cell), _source(cell)) for cell in cells if isinstance(cell, dict)]
    return [one for one in found if one[1].strip()], _language(notebook, cells)


def _listed(notebook: dict[str, Any]) -> list[Any] | None:
    """The cells; None where the notebook has another format."""
    holders = [notebook] if notebook["nbformat"] == FORMATS[1] else notebook.get("worksheets")
    if notebook["nbformat"] not in FORMATS or not isinstance(holders, list):
        return None
    found = [holder.get("cells") if isinstance(holder, dict) else None for holder in holders]
    return None if None in found else [cell for cells in found if isinstance(cells, list) for cell in cells]


def _kind(cell: dict[str, Any]) -> str:
    """What sort of cell it is; headings are cells of their own in format 3."""
    kind = str(cell.get("cell_type"))
    return "markdown" if kind == "heading" else kind


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", cell.get("input", ""))
    text = composed("".join(map(str, source)) if isinstance(source, list) else str(source))
    level = cell.get("level")
    if cell.get("cell_type") == "heading" and isinstance(level, int):
        return f"{'#' * max(1, min(level, 6))} {' '.join(text.split())}"
    return text


def _language(notebook: dict[str, Any], cells: Sequence[Any]) -> str:
    about = notebook.get("metadata")
    kernel = about.get("language_info") or about.get("kernelspec") if isinstance(about, dict) else None
    if isinstance(kernel, dict):
        return str(kernel.get("name", ""))
    return next((str(cell["language"]) for cell in cells if isinstance(cell, dict) and cell.get("language")), "")
