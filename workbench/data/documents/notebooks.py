"""Jupyter notebooks: the sources of the cells in their order; what they printed is left out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

from workbench.data.documents import markdown
from workbench.data.documents.encodings import decoded
from workbench.data.documents.forms import NOT_ITS_NAME, TEXT
from workbench.data.documents.parser import Document, Element, Parser, Unpacking, UnreadError, first_line
from workbench.data.readers.text import composed

FORMAT = 4  # of notebooks


class Notebook(Parser):
    """Cells are elements; headings and tables of Markdown are found in them, and code is labelled with its language."""

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
    if notebook["nbformat"] != FORMAT or not isinstance(notebook.get("cells"), list):
        raise UnreadError(
            "damaged", f"it is a notebook of format {notebook['nbformat']}; allowed: {FORMAT}; open and save it in Jupyter"
        )
    found = [(str(cell.get("cell_type")), _source(cell)) for cell in notebook["cells"] if isinstance(cell, dict)]
    return [one for one in found if one[1].strip()], _language(notebook)


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", "")
    return composed("".join(map(str, source)) if isinstance(source, list) else str(source))


def _language(notebook: dict[str, Any]) -> str:
    about = notebook.get("metadata")
    kernel = about.get("language_info") or about.get("kernelspec") if isinstance(about, dict) else None
    return str(kernel.get("name", "")) if isinstance(kernel, dict) else ""
