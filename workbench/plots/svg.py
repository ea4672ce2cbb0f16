"""Figures as SVG: text is text, the page gives the colours of text and background, and the same figure is the same bytes."""

from __future__ import annotations

import io
import re

from matplotlib.figure import Figure

from workbench.plots.look import BETTER, INK, OPEN, PAPER, PICKED, WORSE, style

# Variables of the pages' style (workbench/views/views.css); a file by itself follows the system's light or dark.
COLOURS = {
    BETTER: "var(--better, #0b62a8)",
    WORSE: "var(--worse, #b3400e)",
    OPEN: "var(--open, #6e7781)",
    PICKED: "var(--picked, #8a5a00)",
    INK: "currentColor",
    PAPER: "var(--page, Canvas)",
}
DARK = {"better": "#6cb6ff", "worse": "#ff9b6a", "open": "#a3adb8", "picked": "#e3b341"}
FONTS = "'DejaVu Sans', Verdana, system-ui, sans-serif"


def svg(figure: Figure) -> str:
    """A figure as the text of an SVG, for a file or to stand in a page; its title is what the figure says first."""
    file = io.StringIO()
    about = {"Title": figure.get_suptitle() or figure.axes[0].get_label(), "Date": None}
    with style():
        figure.savefig(file, format="svg", transparent=True, metadata=about)
    text = file.getvalue()
    text = text[text.index("<svg ") :]
    # ids of groups, which nothing refers to, would be there twice in a page of two figures
    text = re.sub(r'<g id="[^"]*">', "<g>", re.sub(r"\s*<metadata>.*</metadata>", "", text, flags=re.DOTALL))
    text = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", _coloured, text).replace(f'fill="{PAPER}"', 'fill="none"')
    text = text.replace("'DejaVu Sans'", FONTS)
    dark = "; ".join(f"--{name}: {colour}" for name, colour in DARK.items())
    rules = f"svg:root {{color-scheme: light dark}} @media (prefers-color-scheme: dark) {{svg:root {{{dark}}}}}"
    text = text.replace("</style>", f"{rules}</style>", 1)
    # matplotlib writes no colour where it is black
    return text.replace("<svg ", '<svg role="img" fill="currentColor" ', 1)


def _coloured(found: re.Match[str]) -> str:
    """A colour, and after it the page's, which programs that know no variables pass over."""
    name, colour = found.groups()
    return f"{name}: {colour}; {name}: {COLOURS[colour]}" if colour in COLOURS else found[0]
