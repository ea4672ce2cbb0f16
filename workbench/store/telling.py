"""Which way of telling progress fits where the program runs."""

from __future__ import annotations

import sys

from workbench.store.inline_progress import Inline
from workbench.store.progress import Bars, Plain, Progress


def for_people() -> Progress:
    """One line of HTML in a notebook, bars when a person watches standard error, plain lines otherwise."""
    if "IPython" in sys.modules:
        from IPython import get_ipython

        if getattr(get_ipython(), "kernel", None) is not None:
            return Inline()
    return Bars() if sys.stderr.isatty() else Plain()
