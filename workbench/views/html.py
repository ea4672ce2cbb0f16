"""What every view is made of: escaped texts, numbers that name the cell they come from, tables, and the page around them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from urllib.parse import urlencode

from workbench.errors import InputError

# characters that no HTML document may hold, the delete character among them; tab and line ends stay
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


# what reading a file meets that says something else than it should
DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, OSError)


def text(value: object) -> str:
    """A value as text in HTML; characters that HTML does not know are shown as the replacement character."""
    return escape(FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(value)))


def foreign(value: object) -> str:
    """A text that somebody else wrote, such as a question: whatever direction it is written in, it turns nothing around it."""
    return f"<bdi>{text(value)}</bdi>"


def cell(file: str, column: str, /, **row: str) -> str:
    """The address of a cell of a run's table: ``finalists.csv?configuration=ab12&split=test&metric=f1#difference``.

    Args:
        file: in the run's folder.
        column: of the table.
        row: columns that single out its row, with their values.
    """
    return f"{file}?{urlencode(row)}#{column}"


def sourced(shown: str, *cells: str) -> str:
    """Text that was made from cells of the run's tables, with their addresses.

    Args:
        shown: the text.
        cells: where its numbers come from; see `cell`.
    """
    return f'<span data-cell="{escape(" ".join(cells))}">{text(shown)}</span>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table in a box that scrolls sideways where the page is narrow.

    Args:
        caption: what it shows, as plain text.
        head: titles of the columns, as plain text.
        rows: cells as HTML; the first of each names the row.
        right: columns of numbers, by position.
    """
    numbers = set(right)

    def classed(i: int) -> str:
        return " class=wb-n" if i in numbers else ""

    top = "".join(f"<th scope=col{classed(i)}>{text(name)}</th>" for i, name in enumerate(head))
    body = "".join(
        f"<tr><th scope=row>{row[0]}</th>"
        + "".join(f"<td{classed(i)} data-label='{escape(head[i])}'>{value}</td>" for i, value in enumerate(row[1:], 1))
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class=wb-wide tabindex=0 role=region aria-label='{escape(caption)}'><table><caption>{text(caption)}</caption>"
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def section(identity: str, title: str, body: str, level: int = 2) -> str:
    """A part of a page with its title.

    Args:
        identity: of the part in its page.
        title: as plain text.
        body: as HTML.
        level: of the heading.
    """
    head = f"<h{level} id={identity}-title>{text(title)}</h{level}>"
    return f"<section id={identity} aria-labelledby={identity}-title>{head}{body}</section>"


def box(message: str) -> str:
    """A sentence that says what is missing and what to do."""
    return f"<p class=wb-box>{text(message)}</p>"


def or_box(make: Callable[[], str]) -> str:
    """A part of a page; where a file of the run is damaged or lacks something, a box that says which."""
    try:
        return make()
    except InputError as error:
        return box(str(error))
    except DAMAGED as error:
        return box(f"This part cannot be shown, since a file of the run is damaged ({type(error).__name__}: {error}).")


def page(title: str, body: str, links: Mapping[str, str], script: str = "") -> str:
    """A whole document that asks for nothing outside itself.

    Args:
        title: of the document.
        body: its content, as HTML.
        links: identity of a section -> its title, for the list on top.
        script: of its own, run when the document is there; it is readable without.
    """
    listed = "".join(f"<li><a href='#{identity}'>{text(name)}</a></li>" for identity, name in links.items())
    ran = f"<script>{script}</script>" if script else ""
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{text(title)}</title><style>{css()}</style></head><body class=wb-page>"
        f"<a class=wb-skip href='#main'>To the content</a><header><nav aria-label=Contents><ul>{listed}</ul></nav></header>"
        f"<main id=main class=wb>{body}</main>{ran}</body></html>\n"
    )


def css() -> str:
    """The style of all views; everything in it hangs on the classes ``wb`` and ``wb-page``."""
    return files("workbench.views").joinpath("views.css").read_text(encoding="utf-8").replace("\n", "")
