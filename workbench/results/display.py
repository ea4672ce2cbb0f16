"""How objects show themselves in a notebook: what draws them is registered here from above, so that they need not know it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TypeVar

from workbench.errors import InputError, MissingExtraError

D = TypeVar("D", bound="Displayed")
_tools: dict[str, Callable[..., object]] = {}  # type: ignore[explicit-any]  # each takes what it shows
_shown: dict[str, Callable[..., str]] = {}  # type: ignore[explicit-any]  # each takes the class it is registered for


def register(name: str, show: Callable[[D], str]) -> None:
    """Says how objects of a class show themselves.

    Args:
        name: the class's name.
        show: gives an object as HTML.
    """
    _shown[name] = show


def offer(name: str, make: Callable[..., object]) -> None:  # type: ignore[explicit-any]  # each takes what it shows
    """Says what opens a tool that stands above the objects it shows, such as a page of widgets.

    Args:
        name: of the tool.
        make: opens it.
    """
    _tools[name] = make


def opened(name: str, *shown: object) -> object:
    """A tool around what it shows.

    Args:
        name: as it was offered.
        shown: what its maker takes.

    Raises:
        MissingExtraError: a package that it takes is not installed.
    """
    try:
        return _tools[name](*shown)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or name, "lab", "widgets in a notebook") from error


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
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:  # a damaged file
            said = f"{self!r}\nA file is damaged ({type(error).__name__}: {error}), so this cannot be shown."
            return bundle | {"text/html": f"<pre>{escape(said)}</pre>"}
        except InputError as error:  # such as a file that is missing in a run's folder
            return bundle | {"text/html": f"<pre>{escape(repr(self))}\n{escape(str(error))}</pre>"}
