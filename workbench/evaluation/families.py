"""Families of tests that are fixed before the data, and the sign-flip test inverted to an interval.

A contrast has the group sums s_g of n_g queries each (`workbench.evaluation.statistics` says what a group is), S is their sum and
n the number of queries. The statistic

    T = |S| / sqrt(sum_g s_g^2)                                                    (1)

puts all contrasts of a family on one scale, as flips of the signs leave the root where it is. The critical value c of a single
contrast comes from its own flips; that of a family from the largest T of each flip, the single-step maximum statistic (Westfall
and Young, Resampling-Based Multiple Testing, 1993, section 2.6; Romano and Wolf, J. Am. Stat. Assoc. 100, 2005): flips turn all
contrasts together, so the dependence between them, which Holm's method ignores, is used. A contrast is supported when T > c.
The same flips give p and the adjusted p, hence supported also means that the adjusted p is at most `ALPHA`.

The interval is that test inverted: with s_g - n_g d in the place of s_g, a difference d is not rejected where

    (S - n d)^2 <= c^2 sum_g (s_g - n_g d)^2                                       (2)

and its ends are the roots. At d = 0 this is T <= c: the interval leaves out zero exactly when the contrast is supported.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import floor, inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ALPHA = 0.05  # the level of a family: the chance that it supports anything where nothing differs
FEW_GROUPS = 6  # 2 of the 2^5 patterns of five groups are more than 5 %: with fewer than six, nothing can be supported
NORMAL = 1.959963984540054  # the two-sided quantile of the normal distribution at `ALPHA`
POWER = 0.8416212335729143  # the normal quantile of a power of 80 %

# Families, in the order in which a pair is looked for: it belongs to the first that names it.
PRIMARY = "primary"  # the configuration chosen on the selection split against the baseline on the report split
FINALISTS = "finalists"  # the others there against the baseline, and the one chosen against its untuned twin
EFFECTS = "effects"  # of the axes
INTERACTIONS = "interactions"  # of two axes
SLICES = "slices"  # all slices of the questions by a metric
EXPLORATORY = "exploratory"  # all remaining pairs of a split by a metric
FAMILIES = (PRIMARY, FINALISTS, EFFECTS, INTERACTIONS, SLICES, EXPLORATORY)


@dataclass(frozen=True)
class Plan:
    """Which comparisons of configurations were planned by one metric on one split.

    Attributes:
        baseline: what the finalists are compared with; None: nothing was planned.
        chosen: what was chosen elsewhere.
        twins: what differs from the one chosen by its tuning alone.
        primary: whether this is the metric that chose.
    """

    baseline: str | None = None
    chosen: str | None = None
    twins: Collection[str] = ()
    primary: bool = True

    def family(self, a: str, b: str) -> str:
        """The family of a pair of configurations, in either order."""
        pair = {a, b}
        if self.baseline is None:
            return EXPLORATORY
        if self.baseline in pair:
            return PRIMARY if self.primary and pair == {self.baseline, self.chosen} else FINALISTS
        return FINALISTS if self.chosen in pair and pair & set(self.twins) else EXPLORATORY


@dataclass(frozen=True)
class Plans:
    """The comparisons that a run plans before it looks at its report split: `Plan` for each split and metric.

    Attributes:
        split: the report split, never the one that chooses; on others nothing is planned, since the choice is made there.
        metric: the one that chooses.
        baseline: the experiment's baseline.
        chosen: the best on the selection split.
        twins: what differs from it by its tuning alone.
    """

    split: str
    metric: str
    baseline: str
    chosen: str
    twins: Collection[str] = ()

    def plan(self, split: str, metric: str) -> Plan:
        """The plan on a split by a metric: one primary test in all, by the metric that chooses."""
        if split != self.split:
            return Plan()
        return Plan(self.baseline, self.chosen, self.twins, primary=metric == self.metric)


class Tested(NamedTuple):
    """What the test of its family says of one contrast; numbers are nan where there are none.

    Attributes:
        family: its name.
        p: of this contrast alone.
        p_adjusted: over its family.
        low: lower end of the interval at the family's level.
        high: upper end.
        supported: whether the data show a difference; the interval then leaves out zero.
        n_needed: queries that would show a difference as large as the one seen in this family with 80 % power; infinite
            where no number would.
    """

    family: str
    p: float
    p_adjusted: float
    low: float
    high: float
    supported: bool
    n_needed: float


class Sums(NamedTuple):
    """What equation (2) needs of m contrasts, each float64 (m,); of contrasts of the same queries the last three may be numbers.

    Attributes:
        difference: S / n.
        norm: sqrt(sum_g s_g^2).
        rest: sum_g r_g^2 of the residuals r_g = s_g - n_g S / n.
        tilt: sum_g n_g r_g; zero for groups of equal size.
        nonzero: how many of the group sums differ from zero.
        n: number of queries.
        n_groups: number of groups.
        squares: sum_g n_g^2.
    """

    difference: Floats
    norm: Floats
    rest: Floats
    tilt: Floats
    nonzero: Floats
    n: Floats | float
    n_groups: Floats | int
    squares: Floats | float

    @property
    def statistic(self) -> Floats:
        """T of equation (1), float64 (m,); zero where all group sums are."""
        return np.divide(np.abs(self.difference) * self.n, self.norm, out=np.zeros_like(self.norm), where=self.norm > 0)

    def of(self, which: NDArray[np.intp]) -> Sums:
        """The same of some of the contrasts: ``which`` holds their positions, int64 (k,)."""
        return Sums(*(np.broadcast_to(column, self.difference.shape)[which] for column in self))


def critical(flipped: Floats, whole: bool) -> float:
    """The critical value: the smallest flipped statistic that at most 5 % exceed.

    An order statistic, never interpolated, so that no value between two attainable ones decides a verdict.

    Args:
        flipped: float64 (B,), statistics under flips, sorted upwards.
        whole: whether these are all patterns of signs; otherwise they are a sample, to which the pattern seen is added.

    Returns:
        Infinite where a sample is too small for the level.
    """
    exceed = floor(ALPHA * (len(flipped) + (not whole)) + 1e-9)
    if whole:
        return float(flipped[len(flipped) - 1 - exceed])
    return float(flipped[len(flipped) - exceed]) if exceed else inf


def p_value(statistic: Floats, flipped: Floats, whole: bool, tie: Floats) -> Floats:
    """Share of flips that reach each statistic, float64 (m,); the pattern seen counts as one of a sample.

    Args:
        statistic: float64 (m,).
        flipped: float64 (B,), sorted upwards.
        whole: whether these are all patterns of signs.
        tie: float64 (m,): a flipped statistic smaller by so little is equal.
    """
    reached = len(flipped) - np.searchsorted(flipped, statistic - tie, side="left")
    seen = 0 if whole else 1
    return (reached + seen).astype(np.float64) / (len(flipped) + seen)


def ends(sums: Sums, c: Floats) -> tuple[Floats, Floats]:
    """Lower and upper roots of equation (2), float64 (m,) each.

    Nan where there are none: fewer than six groups, or n^2 <= c^2 sum_g n_g^2, when every difference would be accepted.

    Args:
        sums: of m contrasts.
        c: float64 (m,), their critical values.
    """
    # With d = S / n + u, equation (2) is (n^2 - c^2 N) u^2 + 2 c^2 X u - c^2 R <= 0, where N, X, R are squares, tilt and rest.
    square = np.where(np.isfinite(c), c, 0.0) ** 2
    leading = sums.n**2 - square * sums.squares
    known = np.isfinite(c) & (leading > 1e-9 * sums.n**2) & (sums.n_groups >= FEW_GROUPS)
    divisor, slope = np.where(known, leading, 1.0), square * sums.tilt
    root = np.sqrt(np.maximum(slope**2 + leading * square * sums.rest, 0.0))
    low, high = sums.difference + (-slope - root) / divisor, sums.difference + (-slope + root) / divisor
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def decided(sums: Sums, p_adjusted: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats, Bools]:
    """Ends and verdicts that agree, (m,) each: supported is what has an adjusted p at the level and zero outside its interval.

    What has no interval, or differs in fewer than six groups, is not supported. Where rounding or the second rule would leave
    zero just outside an interval that is not supported, the nearer end is put on it.

    Args:
        sums: of m contrasts.
        p_adjusted: float64 (m,).
        low: float64 (m,), ends as `ends` gives them.
        high: float64 (m,).
    """
    apart = (low > 0) | (high < 0)
    supported = (p_adjusted <= ALPHA + 1e-12) & (sums.nonzero >= FEW_GROUPS) & apart
    return np.where(supported, low, np.minimum(low, 0.0)), np.where(supported, high, np.maximum(high, 0.0)), supported


def needed(sums: Sums, quantile: Floats, null: Floats, variance: Floats, fixed: Floats) -> Floats:
    """Queries that would show differences as large as those seen with 80 % power, float64 (m,), rounded up.

    Normal approximation: the difference must be ``quantile`` standard errors under the null hypothesis and .84 of its own, whose
    squares are null / n + fixed and variance / n + fixed. Supposes more of the same: equal spread, queries a group, and critical
    value. At least as many as have six groups that differ, since fewer show nothing. Nan without spread.

    Args:
        sums: of m contrasts.
        quantile: float64 (m,), critical values in standard errors.
        null: float64 (m,), n times the squared standard error of a difference that is zero.
        variance: float64 (m,), n times the squared standard error that queries make.
        fixed: float64 (m,), the squared standard error that more queries do not lessen; zero where null differs from variance.
    """
    reach = np.where(np.isfinite(quantile), quantile, 0.0)
    room = sums.difference**2 - (reach + POWER) ** 2 * fixed
    possible = np.isfinite(quantile) & (room > 0)
    spread = (reach * np.sqrt(null) + POWER * np.sqrt(variance)) ** 2
    least = FEW_GROUPS * sums.n / np.maximum(sums.nonzero, 1.0)
    n = np.ceil(np.maximum(spread / np.where(possible, room, 1.0), least))
    return np.where(variance + fixed > 0, np.where(possible, n, inf), np.nan)
