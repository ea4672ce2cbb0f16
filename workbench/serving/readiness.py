"""Whether the service takes questions now, as `GET /readyz` says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.serving.asking import Asking


def readiness(asking: Asking, known: bool) -> tuple[dict[str, Any], bool]:
    """What the service can do now, as plain values, and whether questions are taken.

    They are not while it stops, and while nobody computes. Without Redis, or without the broker, for which a question waits or a
    fallback answers, it is ``degraded`` and takes them.

    Args:
        asking: answers the questions.
        known: whether it is known who asks, so that machines may be named.
    """
    redis, worker, workers = asking.redis, asking.service.batcher, asking.service.workers
    state: dict[str, Any] = {"status": "ready", "model": asking.service.breaker.state}
    if redis:
        state["redis"] = "away" if redis.away else "there"
    if worker.takers is not None:
        state |= {"broker": "away" if workers.away else "there", "workers": worker.takers}
    if (redis and redis.away) or workers.away:
        state["status"] = "degraded"
    if why := worker.nobody:
        state["status"] = "nobody computes"
        if known:
            state["detail"] = why
    if asking.stopping:
        state["status"] = "stopping"
    return state | {"under_way": asking.under_way}, not why and not asking.stopping
