"""How objects show themselves in a notebook: what draws them is registered here from above, so that they need not know it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TypeVar

from workbench.errors import InputError

D = TypeVar("D", bound="Displayed")
_shown: dict[str, Callable[..., str]] = {}  # type: ignore[explicit-any]  # each takes the class it is registered for


def register(name: str, show: Callable[[D], str]) -> None:
    """Says how objects of a class show themselves.

    Args:
        name: the class's name.
        show: gives an object as HTML.
    """
    _shown[name] = show


class Displayed:
    """Base of classes that a notebook shows as registered; without that, or without the packages it takes, as text."""

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """The object as text and, where that can be drawn, as HTML without a script; a notebook takes what it can show."""
        bundle, show = {"text/plain": repr(self)}, _shown.get(type(self).__name__)
        if show is None:
            return bundle
        try:
            return bundle | {"text/html": show(self)}
        except ImportError:  # what draws needs a package that is not installed
            return bundle
        except InputError as error:  # such as a file that is missing in a run's folder
            return bundle | {"text/html": f"<pre>{escape(repr(self))}\n{escape(str(error))}</pre>"}
