"""The executed notebooks of a run as text and figures, their code folded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from workbench.results.run import Run
from workbench.views.html import box, foreign, text

BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")


def notebooks(run: Run) -> str:
    """Each executed notebook, folded; empty where none was run."""
    parts = []
    for path in sorted((run.folder / "notebooks").glob("*.ipynb")):
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            body = "".join(part for cell in cells for part in _cell(cell, path.stem))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            body = box(f"{path} cannot be read as a notebook ({type(error).__name__}); run the experiment again")
        parts.append(f"<details><summary>{foreign(path.stem)}</summary>{body}</details>")
    return "".join(parts)


def _cell(cell: dict[str, Any], name: str) -> Iterator[str]:
    source = _joined(cell["source"])
    if cell["cell_type"] == "markdown":
        for paragraph in re.split(r"\n\s*\n", source.strip()):
            title = re.fullmatch(r"#+\s+(.+)", paragraph)
            yield f"<h3>{foreign(title[1])}</h3>" if title else f"<p>{foreign(paragraph)}</p>"
        return
    if source.strip():
        yield f"<details><summary class=wb-quiet>code</summary><pre>{text(source)}</pre></details>"
    for output in cell.get("outputs", []):
        yield from _output(output, name)


def _output(output: dict[str, Any], name: str) -> Iterator[str]:
    """An output as text or as a picture; what only a browser's script could draw is left out."""
    if output["output_type"] == "error":
        yield f"<pre>{text(output.get('ename', ''))}: {text(output.get('evalue', ''))}</pre>"
    elif output["output_type"] == "stream":
        if output.get("name") == "stdout":
            yield f"<pre>{text(_joined(output['text']))}</pre>"
    elif image := output.get("data", {}).get("image/png"):
        data = _joined(image)
        if not BASE64.fullmatch(data):
            raise ValueError("a picture that is none")
        yield f"<img alt='A figure of the notebook {text(name)}' src='data:image/png;base64,{''.join(data.split())}'>"
    elif plain := output.get("data", {}).get("text/plain"):
        yield f"<pre>{text(_joined(plain))}</pre>"


def _joined(lines: str | list[str]) -> str:
    """A text of a notebook, which may be stored as its lines."""
    return lines if isinstance(lines, str) else "".join(lines)
