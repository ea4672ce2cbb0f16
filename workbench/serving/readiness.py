"""Whether the service takes questions now, as `GET /readyz` says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.serving.asking import Asking


def readiness(asking: Asking) -> tuple[dict[str, Any], bool]:
    """What the service can do now, as plain values, and whether questions are taken.

    They are not while it stops, and where they go to the queue of a broker from which no process takes them. Without Redis, or
    without the broker, for which a question waits or a fallback answers, it is ``degraded`` and takes them.
    """
    redis, takers = asking.redis, asking.service.batcher.takers
    state: dict[str, Any] = {"status": "ready", "model": asking.service.breaker.state}
    if redis:
        state["redis"] = "away" if redis.away else "there"
    if takers is not None:
        state |= {"broker": "away" if asking.service.workers.away else "there", "workers": takers}
    if (redis and redis.away) or asking.service.workers.away:
        state["status"] = "degraded"
    if takers == 0:
        state["status"] = "without workers"
    if asking.stopping:
        state["status"] = "stopping"
    return state | {"under_way": asking.under_way}, takers != 0 and not asking.stopping
