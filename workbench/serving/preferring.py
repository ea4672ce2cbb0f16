"""What a client prefers of how it is answered: the header `Prefer` of RFC 7240."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LATER = "respond-async"


class Preference(NamedTuple):
    """What was preferred, as far as it is understood here.

    Attributes:
        later: ``respond-async``: the answer may be fetched later, at an address of its own.
        wait: ``wait``: whole seconds for which the client waits before that.
    """

    later: bool = False
    wait: int = 0


def preferred(headers: Sequence[str]) -> Preference:
    """What the headers `Prefer` of a request say. What is not understood is left out, as the RFC has it.

    Args:
        headers: their values; each may hold several preferences, of which the first of a name counts.
    """
    found: dict[str, str] = {}
    for part in ",".join(headers).split(","):
        name, _, value = part.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = found.get("wait", "")
    return Preference(LATER in found, int(wait) if wait.isascii() and wait.isdigit() and len(wait) < 6 else 0)
