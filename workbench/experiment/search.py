"""Ways through a grid: what choosing axis by axis would have found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MODELS_FIRST = ("generator", "retriever", "reranker", "passages", "prompt", "chunking")


def greedy(design: Mapping[str, Mapping[str, str]], means: Mapping[str, float], start: str, order: Sequence[str]) -> list[str]:
    """Configurations that choosing axis by axis ends at, one after each axis.

    On each axis all configurations that differ from the present one in nothing else are looked at, and the best is taken:
    the present one where it is among the best, else the lowest id.

    Args:
        design: configuration -> axis -> value.
        means: configuration -> mean; higher is better.
        start: where to begin.
        order: axes in the order they are decided.
    """
    path, now = [], start
    for axis in order:
        rest = {name: value for name, value in design[now].items() if name != axis}
        near = [c for c, point in design.items() if {n: v for n, v in point.items() if n != axis} == rest]
        now = min(near, key=lambda c: (-means[c], c != now, c))
        path.append(now)
    return path
