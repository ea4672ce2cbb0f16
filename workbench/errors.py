"""The errors a user can mend; each message says what was found, what is allowed and the way out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something the user wrote or provided cannot be used; the command line exits with status 2."""


class MissingExtraError(InputError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: {shlex.quote(sys.executable)} -m pip install 'rag-workbench[{extra}]'"
        )


class StageFailedError(RuntimeError):
    """A stage could not be computed; everything stored before it stays valid."""


class BudgetError(RuntimeError):
    """What may be spent is spent; the command line exits with status 3, and a resumed run goes on."""


def unknown(what: str, received: object, allowed: Iterable[str]) -> InputError:
    """An `InputError` naming the value received, the values allowed and the likely intention.

    Example: ``unknown("retriever", "bm52", ["bm25", "dense"])``.
    """
    names = sorted(allowed)
    close = get_close_matches(str(received), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return InputError(f"unknown {what} {received!r}; allowed: {', '.join(names) or '(none defined)'}.{hint}")
