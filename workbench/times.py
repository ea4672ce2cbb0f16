"""How long something takes, as people read it: on the command line, in progress and on pages."""

from __future__ import annotations

MINUTES_FROM = 120.0  # seconds from which on a time is said in minutes


def duration(seconds: float, exact: bool = False) -> str:
    """A time: ``95 s``, ``7 minutes``, ``2.5 hours``.

    Args:
        seconds: how long.
        exact: whether a short time keeps a decimal: ``9.5 s``.
    """
    if seconds < MINUTES_FROM:
        return f"{seconds:.1f} s" if exact else f"{seconds:.0f} s"
    return f"{seconds / 60:,.0f} minutes" if seconds < 60 * MINUTES_FROM else f"{seconds / 3600:,.1f} hours"
