"""Ways through the product of the axes that look at less than all of it: axis by axis, or dropping what is clearly behind."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from math import ceil, log2
from typing import NamedTuple

import numpy as np

from workbench.evaluation import statistics

MODELS_FIRST = ("generator", "retriever", "reranker", "rewriting", "expansion", "retrieval", "passages", "prompt", "chunking")
ALPHA = 0.05  # chance that a race drops the truly best configuration, over all its looks
LOOKS = 4  # a race looks at an eighth of the queries, a quarter, half, all


class SearchStep(NamedTuple):
    """One row of search.csv: what a search saw of one configuration at one time.

    Attributes:
        step: number of the look, from 1.
        configuration: its id.
        n: queries looked at so far; 0 where it was never looked at.
        mean: over them; None where it was never looked at.
        p: one-sided, that it is behind the leader; None where nothing was tested.
        level: below which p drops it.
        status: ``kept``, ``dropped`` or ``not looked at``.
        why: in words.
    """

    step: int
    configuration: str
    n: int
    mean: float | None
    p: float | None
    level: float | None
    status: str
    why: str


Means = Callable[[Sequence[str]], Mapping[str, float]]


def greedy(
    design: Mapping[str, Mapping[str, str]], means: Means, start: str, order: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Chooses axis by axis; for each axis the configuration it ends at, and those looked at for it.

    On each axis all configurations that differ from the present one in nothing else are looked at, and the best is taken:
    the present one where it is among the best, else the lowest id.

    Args:
        design: configuration -> axis -> value.
        means: measures configurations; higher is better.
        start: where to begin.
        order: axes in the order they are decided.
    """
    path, now = [], start
    for axis in order:
        rest = {name: value for name, value in design[now].items() if name != axis}
        near = sorted(c for c, point in design.items() if {n: v for n, v in point.items() if n != axis} == rest)
        found = means(near)
        now = _best(near, found, now)
        path.append((now, near))
    return path


def _best(near: Sequence[str], found: Mapping[str, float], now: str) -> str:
    """The one with the highest value; where several have it, the present one, else the lowest id."""
    return min(near, key=lambda name: (-found[name], name != now, name))


Scores = Callable[[Sequence[str], Sequence[int]], np.ndarray]


def race(systems: Sequence[str], groups: Sequence[str], scores: Scores, seed: int = 0) -> list[SearchStep]:
    """Measures systems on growing samples of the queries and drops, at each look, those clearly behind the leader.

    The truly best system is dropped with a chance of at most `ALPHA`: it can only fall behind one of the K - 1 others at one of
    the looks that may drop, and each such test has the level ALPHA / looks / (K - 1) (Bonferroni; the leader is chosen by the
    data, so all others count). Tests are one-sided sign flips of whole groups, which need no distribution.

    Args:
        systems: names.
        groups: group of each query; a group is looked at as a whole.
        scores: measures systems on queries given by position: float64 (n_positions, n_systems).
        seed: of the order in which queries are looked at.

    Returns:
        For each look and each system still in the race a step; those of the last look are all ``kept``.
    """
    names = sorted(systems)
    level = ALPHA / (LOOKS - 1) / max(1, len(names) - 1)
    order = _in_groups(groups, seed)
    steps: list[SearchStep] = []
    seen, values = 0, {name: np.empty(0) for name in names}
    for look, n in enumerate(_sizes(order, groups, level), 1):
        new = scores(names, order[seen:n])
        values = {name: np.concatenate((values[name], new[:, j])) for j, name in enumerate(names)}
        seen = n
        last = n == len(order)
        leader = min(names, key=lambda name: (-values[name].mean(), name))
        p = {} if last else _behind(leader, values, names, [groups[i] for i in order[:n]], seed)
        for name in names:
            gone = p.get(name, 1.0) < level
            why = f"behind {leader}" if gone else "the leader" if name == leader else "not clearly behind the leader"
            mean = float(values[name].mean())
            status = "dropped" if gone else "kept"
            steps.append(SearchStep(look, name, n, mean, p.get(name), None if last else level, status, why))
        names = [name for name in names if not p.get(name, 1.0) < level]
        values = {name: values[name] for name in names}
    return steps


def _in_groups(groups: Sequence[str], seed: int) -> list[int]:
    """Positions in random order, those of one group together."""
    shuffled = sorted(set(groups))
    random.Random(seed).shuffle(shuffled)
    rank = {name: i for i, name in enumerate(shuffled)}
    return sorted(range(len(groups)), key=lambda i: (rank[groups[i]], i))


def _sizes(order: Sequence[int], groups: Sequence[str], level: float) -> list[int]:
    """Numbers of queries at the looks: halves of halves, whole groups, and none so small that no test could drop anything."""
    ends = [k + 1 for k in range(len(order)) if k + 1 == len(order) or groups[order[k]] != groups[order[k + 1]]]
    smallest = ceil(log2(1 / level))  # groups; k groups have 2^k sign patterns
    wanted = [len(order) / 2**k for k in range(LOOKS - 1, 0, -1)]
    sizes = [next(end for end in ends if end >= size) for size in wanted]
    return [*sorted({size for size in sizes if ends.index(size) + 1 >= smallest and size < len(order)}), len(order)]


def _behind(
    leader: str, values: Mapping[str, np.ndarray], names: Sequence[str], groups: Sequence[str], seed: int
) -> dict[str, float]:
    """One-sided p that each other system is behind the leader."""
    pairs = [(leader, name) for name in names if name != leader]
    table = np.column_stack([values[name] for name in names])
    found = statistics.compare_all({"": table}, names, groups, seed, pairs)[""] if pairs else []
    return {one.b: one.p / 2 for one in found}
