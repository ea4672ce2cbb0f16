"""A circuit breaker: after failures in a row, nobody waits for what fails, until one attempt succeeds again."""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES = 3
REST_SECONDS = 30.0


class Breaker:
    """Closed (everything is tried), open (nothing is), or half open (one attempt is under way).

    It is used by one thread, or by the tasks of one event loop.
    """

    def __init__(
        self, failures: int = FAILURES, rest_seconds: float = REST_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """A closed one.

        Args:
            failures: in a row, after which it opens.
            rest_seconds: for which it stays open before one attempt is let through.
            clock: seconds that only grow.
        """
        self.failures, self.rest_seconds, self.clock = failures, rest_seconds, clock
        self._failed = 0
        self._opened: float | None = None
        self._trying = False

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half open``."""
        if self._opened is None:
            return "closed"
        return "half open" if self._trying or self.clock() - self._opened >= self.rest_seconds else "open"

    def allows(self) -> bool:
        """Whether to try; whoever is let through says afterwards how it went."""
        if self._opened is None:
            return True
        if self._trying or self.clock() - self._opened < self.rest_seconds:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        """What was tried worked: the breaker closes."""
        self._failed, self._opened, self._trying = 0, None, False

    def failed(self) -> None:
        """What was tried did not work."""
        self._failed += 1
        if self._trying or self._failed >= self.failures:
            self._opened, self._trying = self.clock(), False

    def undecided(self) -> None:
        """What was tried says nothing, since nobody waited for its end."""
        self._trying = False
