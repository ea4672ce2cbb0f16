"""How objects show themselves in a notebook: what draws them is registered here from above, so that they need not know it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_shown: dict[str, Callable[[Any], str]] = {}


def register(name: str, show: Callable[[Any], str]) -> None:
    """Says how objects of a class show themselves.

    Args:
        name: the class's name.
        show: gives an object as HTML.
    """
    _shown[name] = show


class Displayed:
    """Base of classes that a notebook shows as registered; without that, or without the packages it takes, as text."""

    def _repr_html_(self) -> str | None:
        show = _shown.get(type(self).__name__)
        try:
            return show(self) if show else None
        except ImportError:  # what draws needs a package that is not installed
            return None
