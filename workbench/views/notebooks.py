"""The executed notebooks of a run as text and figures, their code folded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from workbench.results.run import Run
from workbench.views.html import box, foreign, text

LINK = re.compile(r"\[([^\]]+)\]\([^()\s]+\)")
EMPHASIS = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]*[^\s*])\*(?![\w*])")
CODE = re.compile(r"`([^`\n]+)`")
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
        yield _markdown(source)
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
            yield _plain(_joined(output["text"]))
    elif image := output.get("data", {}).get("image/png"):
        data = _joined(image)
        if not BASE64.fullmatch(data):
            raise ValueError("a picture that is none")
        yield f"<img alt='A figure of the notebook {text(name)}' src='data:image/png;base64,{''.join(data.split())}'>"
    elif written := output.get("data", {}).get("text/markdown"):
        yield _markdown(_joined(written))
    elif plain := output.get("data", {}).get("text/plain"):
        yield _plain(_joined(plain))


def _markdown(source: str) -> str:
    """What our notebooks use of Markdown, as HTML: headings, paragraphs, code, emphasis, and the words of links."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", source.strip()):
        title = re.fullmatch(r"#+\s+(.+)", paragraph)
        parts.append(f"<h3>{foreign(title[1])}</h3>" if title else f"<p><bdi>{_spans(paragraph)}</bdi></p>")
    return "".join(parts)


def _plain(said: str) -> str:
    return f"<pre>{_coded(said)}</pre>"


def _spans(paragraph: str) -> str:
    """A paragraph's code and emphasis; a link leads nowhere from a report, so its words are left."""
    parts = CODE.split(text(paragraph))
    said = [EMPHASIS.sub(r"<em>\1</em>", LINK.sub(r"\1", part)) for part in parts[::2]]
    code = [f"<code>{part}</code>" for part in parts[1::2]]
    return "".join(part for pair in zip(said, [*code, ""], strict=True) for part in pair)


def _coded(said: str) -> str:
    """A text whose words between two backticks are code."""
    return CODE.sub(lambda found: f"<code>{found[1]}</code>", text(said))


def _joined(lines: str | list[str]) -> str:
    """A text of a notebook, which may be stored as its lines."""
    return lines if isinstance(lines, str) else "".join(lines)
