"""The main content of pages in HTML: without menus, banners and footers, as trafilatura tells them from it."""

from __future__ import annotations

import re

from workbench.data.documents.parser import UnreadError, imported

LIBRARY = "trafilatura"
EXTRA = "web"
NESTED = re.compile(r"<pre>\s*<pre>(.*?)</pre>\s*</pre>", re.DOTALL)  # how it writes code that stands in <pre>


def main_content(source: str) -> str:
    """A page with nothing but its main content, in HTML.

    Args:
        source: the page, in HTML.

    Raises:
        UnreadError: no main content is found in it.
    """
    library = imported(LIBRARY, EXTRA, "the main content of pages in HTML")
    found = library.extract(
        source, output_format="html", include_tables=True, include_formatting=True, include_comments=False, favor_recall=True
    )
    if not found:
        raise UnreadError("empty", "no main content is found in it; `content: all` reads whatever the page shows")
    return NESTED.sub(r"<pre>\1</pre>", found)
