"""Comparing systems measured on the same queries: intervals, permutation tests, power, optimism, effects of axes.

Scores are a float64 matrix (n_queries, n_systems), complete: a failed item holds its metric's worst value, put there by the
caller. ``groups`` (n_queries,) names the queries that are not independent of each other (same document, same author); without it
every query is a group of its own. All inference counts *groups*: below, G is their number and a "group sum" is the sum of a
column over the rows of one group.

One estimator serves everything. A contrast is one number per query (a paired difference, or a mean of such over matched
configurations). Its mean d over n queries has the standard error

    se^2 = G / (G - 1) * sum_g (sum_{i in g} (x_i - d))^2 / n^2                    (1)

the cluster-robust variance of an intercept, with the usual small-sample factor G/(G-1) * (n-1)/(n-k) for k = 1 (Cameron and
Miller, "A Practitioner's Guide to Cluster-Robust Inference", J. Human Resources 50, 2015, eq. 11-12), and G - 1 degrees of
freedom. With one query per group (1) is s^2 / n, and the interval is that of the paired t test.

P-values come from flipping the signs of whole groups: under the null hypothesis a contrast is symmetric about zero, and
sum_g e_g * (group sum) with random signs e_g has the distribution of what was seen. What is concluded from them, over which
family of tests, and with which interval, is in `workbench.evaluation.families`; every `Finding` carries it as ``tested``.

Systems that contain chance of their own (a training) are measured with several seeds: their scores are means over the S
seeds, and ``by_seed`` (S, n_systems) holds the mean of each system under each seed, constant for a system without chance.
Queries and seeds are crossed random effects, so a contrast has

    se^2 = (1) + s_d^2 / S                                                         (2)

where s_d^2 is the variance of the contrast's S means. The part of the seeds that differs from query to query is in both
terms, so (2) is a little too large rather than too small (the exact form subtracts it and can turn negative: Searle, Casella
and McCulloch, Variance Components, 1992, section 4.3). Where s_d^2 > 0 there are S - 1 degrees of freedom, the safe choice:
Satterthwaite's, computed from so few seeds, let intervals cover 92.7 % in simulation. Flips of queries say nothing about other
seeds; there p is that of the t test with (2).

What is random (flips, splits, resamples) is dealt to the groups in the order of their names, and to ungrouped queries in
the order of their ids, or of the rows where no ids are given; so equal seeds give equal bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from math import ceil, exp, inf, isnan, nan, sqrt
from string import ascii_letters
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.errors import InputError
from workbench.evaluation import families as planned
from workbench.evaluation.families import ALPHA, EFFECTS, FEW_GROUPS, INTERACTIONS, NORMAL, SLICES, Plan, Sums, Tested

Floats = NDArray[np.float64]
Indexes = NDArray[np.intp]

FLIPS = 10_000  # random flips for every contrast
FLIPS_PER_TEST = (
    250  # m tests get at least 250 m flips where it matters: the smallest Holm p, m / (250 m + 1), is .004, below .005
)
FEW = 20  # a contrast exceeded in at most this many of the first flips (p < .0022) gets more of them
EXACT_GROUPS = 14  # up to here all sign patterns are fewer than FLIPS: 2^14 / 2 = 8,192, as a pattern and its mirror count alike
TIE = 1e-9  # statistics this close, relative to the largest one attainable, are equal
ROUNDING = 1e-12  # differences this small, relative to the scores they come from, are zero
CHUNK_CELLS = 8_000_000  # float64 numbers in one working matrix: 64 MB
BATCH = 4_096  # flips at a time; few large products, as threads that share a busy processor wait for each other at each of them


BySeed = Mapping[str, ArrayLike] | None  # metric -> means (S, n_systems) under each seed


class Interval(NamedTuple):
    """A confidence interval; both ends are nan where none exists."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A value and its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known of one contrast; ``low``, ``high``, ``p``, ``p_holm`` are nan with fewer than two groups.

    ``tested`` is what its family says, and what is concluded. ``low`` and ``high`` are a t interval that stands alone,
    ``p_holm`` is Holm's adjustment over all contrasts analysed together, and ``smallest_detectable`` the difference found
    with 80 % power at the unadjusted two-sided .05, nan without spread.
    """

    n: int
    n_groups: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    smallest_detectable: float
    tested: Tested


@dataclass(frozen=True, kw_only=True)
class PairedComparison(Finding):
    """System ``a`` against system ``b``: difference = a - b."""

    a: str
    b: str


@dataclass(frozen=True, kw_only=True)
class Effect(Finding):
    """Level ``a`` of an axis against level ``b``, a - b averaged over ``cells`` combinations of the other axes."""

    axis: str
    a: Hashable
    b: Hashable
    cells: int


@dataclass(frozen=True, kw_only=True)
class Interaction(Finding):
    """How much the effect of ``levels[0]`` on ``axes[0]`` changes between the ``levels[1]`` of ``axes[1]``.

    difference = (a1 - b1 at a2) - (a1 - b1 at b2), for levels = ((a1, b1), (a2, b2)), averaged over ``cells``.
    """

    axes: tuple[str, str]
    levels: tuple[tuple[Hashable, Hashable], tuple[Hashable, Hashable]]
    cells: int


# --- The sample: which rows belong together ---------------------------------------------------------------------------


class _Sample(NamedTuple):
    """Rows in a canonical order, cut into groups."""

    order: Indexes  # (n,) rows, those of one group together
    starts: Indexes  # (G,) where each group begins in `order`
    sizes: Floats  # (G,) rows per group

    @property
    def n(self) -> int:
        return len(self.order)

    @property
    def n_groups(self) -> int:
        return len(self.starts)

    def sums(self, columns: Floats) -> Floats:
        """Group sums (G, K) of columns (n, K)."""
        return np.add.reduceat(columns[self.order], self.starts, axis=0)


def _sample(n: int, groups: ArrayLike | None, ids: Sequence[str] | None = None) -> _Sample:
    """The grouping of n rows; raises `InputError` for no rows, wrong lengths, empty group names and repeated ids."""
    if n == 0:
        raise InputError("there are no queries to compare; at least one is needed")
    codes = np.arange(n) if groups is None else _group_codes(n, groups)
    rank = np.arange(n) if ids is None else _id_ranks(n, ids)
    if groups is None:
        codes = rank
    order = np.lexsort((rank, codes))
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    return _Sample(order, starts, np.diff(starts, append=n).astype(np.float64))


def _group_codes(n: int, groups: ArrayLike) -> Indexes:
    names = np.asarray(groups)
    if names.shape != (n,):
        raise InputError(f"groups has shape {names.shape}, but one group name is needed for each query: ({n},)")
    missing = np.array([name is None or name != name for name in names.tolist()])
    if missing.any():
        raise InputError(f"groups lacks a name for {missing.sum()} of {n}; give each query that stands alone a group of its own")
    return np.unique(names, return_inverse=True)[1].astype(np.intp)


def _id_ranks(n: int, ids: Sequence[str]) -> Indexes:
    if len(ids) != n or len(set(ids)) != n:
        raise InputError(f"ids: {n} different ids are needed, one per query; received {len(ids)}, {len(set(ids))} different")
    ranks = np.empty(n, dtype=np.intp)
    ranks[np.argsort(np.asarray(ids), kind="stable")] = np.arange(n)
    return ranks


def _complete(scores: ArrayLike, what: str, ids: Sequence[str] | None = None) -> Floats:
    """Scores as float64 (n, K); raises `InputError` naming the queries where a number is missing or infinite."""
    values = np.asarray(scores, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise InputError(f"the scores of {what} have {values.ndim} dimensions; queries by systems, or one column, is needed")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        shown = ", ".join(str(ids[row]) if ids is not None and row < len(ids) else f"row {row}" for row in bad[:5])
        more = f" and {bad.size - 5} more" if bad.size > 5 else ""
        raise InputError(
            f"the scores of {what} are incomplete for {shown}{more}: systems are compared on the same queries, "
            "so a failed item must hold the metric's worst value, and a query not asked of every system must be left out"
        )
    return values


# --- Estimates and intervals ------------------------------------------------------------------------------------------


def mean_interval(
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    by_seed: ArrayLike | None = None,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """Interval of the mean: t, cluster-robust when grouped (module docstring, eq. 1); inside the bounds where there are any.

    With bounds it is the t interval of the mean's logit, by the delta method, turned back: what the R package "survey" takes for
    proportions of clustered samples (`svyciprop`, method "logit"; Korn and Graubard, Survey Methodology 24, 1998). It agrees
    with the plain one in large samples, never leaves the bounds, and covers better near them. Where no group differs from the
    others, G groups leave open a share q of other groups, with (1 - q)^G = 1 - level (the "rule of three": q is about 3 / G);
    the mean may then lie that share of the way to either bound. Without bounds both ends then equal the mean.

    Both ends are nan with fewer than two groups.

    Args:
        scores: float64 (n,), one per query.
        groups: (n,), names as text or integers; None: every query is a group of its own.
        level: of confidence.
        by_seed: float64 (S,), the mean under each seed; with it the interval covers other seeds as well (eq. 2).
        bounds: the smallest and the largest value that a score can take; None: not known.

    Raises:
        InputError: a score is nan, infinite or outside the bounds.
    """
    precision = _precision(scores, groups, by_seed)
    error, df = precision.at(precision.n)
    half = _quantile_t(level, df) * error
    if bounds is None or isnan(half):
        return Interval(precision.mean - half, precision.mean + half)
    low, high = bounds
    width = high - low
    if np.min(scores) < low - ROUNDING * width or np.max(scores) > high + ROUNDING * width:
        raise InputError(f"scores from {np.min(scores):g} to {np.max(scores):g} leave their bounds, {low:g} to {high:g}")
    inside = _bounded(min(max((precision.mean - low) / width, 0.0), 1.0), half / width, precision.n_groups, level)
    return Interval(low + width * inside.low, low + width * inside.high)


def _bounded(mean: float, half: float, n_groups: int, level: float) -> Interval:
    """The interval of a mean between 0 and 1 with the half width that it has without bounds; see `mean_interval`."""
    if half == 0 or mean in (0.0, 1.0):
        other = 1 - (1 - level) ** (1 / n_groups)
        return Interval(mean * (1 - other), mean * (1 - other) + other)
    odds, factor = mean / (1 - mean), exp(min(half / (mean * (1 - mean)), 500.0))
    return Interval(odds / (odds + factor), odds * factor / (1 + odds * factor))


def paired_interval(a: ArrayLike, b: ArrayLike, groups: ArrayLike | None = None, level: float = 0.95) -> Interval:
    """Interval of mean(a - b): that of the paired t test, cluster-robust when grouped.

    Args:
        a: float64 (n,), scores of one system, one per query.
        b: float64 (n,), scores of the other on the same queries.
        groups: (n,), names as text or integers; None: every query is a group of its own.
        level: of confidence.
    """
    left, right = _complete(a, "the first system"), _complete(b, "the second system")
    if left.shape != right.shape:
        raise InputError(f"{len(left)} scores cannot be paired with {len(right)}; both systems need the same queries")
    scale = np.abs(np.hstack((left, right))).max(initial=0.0)
    return mean_interval(_without_rounding(left - right, scale), groups, level)


class _Precision(NamedTuple):
    """A mean, and its precision in samples of any size: se^2(n) = per_query / n + seeds."""

    n: int
    n_groups: int
    mean: float
    per_query: float
    per_group: float  # queries in a group
    seeds: float  # variance of the mean over the seeds; 0 without chance of that kind
    n_seeds: int

    def at(self, n: float) -> tuple[float, float]:
        """Standard error and degrees of freedom with n queries."""
        error, df = _with_seeds(
            np.array([sqrt(self.per_query / n)]), n / self.per_group - 1, np.array([self.seeds]), self.n_seeds
        )
        return float(error[0]), float(df[0])


def _precision(scores: ArrayLike, groups: ArrayLike | None, by_seed: ArrayLike | None = None) -> _Precision:
    mean, error, sample = _mean_and_error(scores, groups)
    means = np.full((1, 1), mean) if by_seed is None else np.asarray(by_seed, dtype=np.float64)[:, None]
    variance = _variance_of_mean(means, np.abs(means).max(axis=0))
    per_query, per_group = error**2 * sample.n, sample.n / sample.n_groups
    return _Precision(sample.n, sample.n_groups, mean, per_query, per_group, float(variance[0]), len(means))


def _variance_of_mean(by_seed: Floats, scale: Floats) -> Floats:
    """Variance (m,) of the mean over seeds of columns (S, m); 0 with one seed."""
    if len(by_seed) < 2:
        return np.zeros(by_seed.shape[1])
    gaps = _without_rounding(by_seed - by_seed.mean(axis=0), scale)
    variance: Floats = (gaps**2).sum(axis=0) / (len(by_seed) - 1) / len(by_seed)
    return variance


def _with_seeds(errors: Floats, df: float, seeds: Floats, n_seeds: int) -> tuple[Floats, Floats]:
    """Standard errors and degrees of freedom (m,) once the variance of the seeds is added (eq. 2)."""
    if df <= 0:
        return np.full_like(errors, nan), np.full_like(errors, df)
    return np.sqrt(errors**2 + seeds), np.where(seeds > 0, min(df, n_seeds - 1), df)


def _mean_and_error(scores: ArrayLike, groups: ArrayLike | None) -> tuple[float, float, _Sample]:
    """Mean, standard error and grouping of one column (n,)."""
    values = _complete(scores, "the sample")
    sample = _sample(len(values), groups)
    means, errors = _means_and_errors(sample.sums(values), sample, np.abs(values).max(axis=0))
    return float(means[0]), float(errors[0]), sample


def _means_and_errors(sums: Floats, sample: _Sample, scale: Floats) -> tuple[Floats, Floats]:
    """Means and standard errors (K,) of columns given by their group sums (G, K); eq. 1; nan errors when G = 1.

    ``scale`` (K,) is the size of the scores the columns come from: spread that is only their rounding is zero.
    """
    means = sums.sum(axis=0) / sample.n
    if sample.n_groups < 2:
        return means, np.full_like(means, nan)
    residuals = _without_rounding(sums - sample.sizes[:, None] * means, scale * sample.sizes.max())
    factor = sample.n_groups / (sample.n_groups - 1)
    return means, np.sqrt(factor * (residuals**2).sum(axis=0)) / sample.n


def _without_rounding(values: Floats, scale: Floats | float) -> Floats:
    """Values, with those that are rounding errors of numbers of size ``scale`` set to zero: (.3 - .1) - (.5 - .3) is 0."""
    return np.where(np.abs(values) <= ROUNDING * np.asarray(scale), 0.0, values)


@lru_cache(maxsize=4096)
def _quantile_t(level: float, df: float) -> float:
    """The half width of a two-sided interval in standard errors; nan without degrees of freedom."""
    if not 0 < level < 1:
        raise InputError(f"a confidence level of {level} is not between 0 and 1; .95 is usual")
    from scipy import stats

    return float(stats.t.isf((1 - level) / 2, df)) if df > 0 else nan


def bootstrap_interval(
    columns: ArrayLike,
    statistic: Callable[[Floats], float],
    groups: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 2_000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap of any statistic of the columns, for quantiles and ratios that have no formula.

    Args:
        columns: float64 (n, K) or (n,), one row per query; whole groups are drawn with replacement, and their rows stay together.
        statistic: takes the drawn rows, float64 (about n, K), and returns one number.
        groups: (n,), names as text or integers; None: every query is a group of its own.
        seed: of the draws.
        resamples: how many draws.
        level: of confidence.

    The ends are the (1 -+ level) / 2 quantiles of the drawn statistics (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, section 13.3): transformation-respecting and sound for quantiles, a little narrow for small G. Both are nan with
    fewer than two groups, or when the statistic is nan for some draw.
    """
    values = _complete(columns, "the sample")
    sample = _sample(len(values), groups)
    if sample.n_groups < 2:
        return Interval(nan, nan)
    rows = np.split(sample.order, sample.starts[1:])
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(sample.n_groups, size=sample.n_groups) for _ in range(resamples))
    found = [statistic(values[np.concatenate([rows[group] for group in draw])]) for draw in drawn]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


# --- Permutation tests ------------------------------------------------------------------------------------------------


class _Family(NamedTuple):
    """Contrasts of one metric that are adjusted together; contrast j is column left[j] - column right[j]."""

    sums: Floats  # (G, K) group sums
    scale: Floats  # (K,) largest absolute score behind each column
    by_seed: Floats  # (S, K) means of the columns under each seed; S = 1: no chance but that of the queries
    left: Indexes  # (m,)
    right: Indexes  # (m,)
    names: NDArray[np.str_]  # (m,) the family of tests that each contrast belongs to


class _Contrasts(NamedTuple):
    """Each (m,): the means and errors of the contrasts, and what their flips need."""

    error: Floats
    df: Floats
    seeds: Floats  # the part of error^2 that more queries do not lessen
    p: Floats  # exact where few groups differ from zero, of the t test where seeds matter, else nan
    threshold: Floats  # a flipped |S| of at least this size counts
    difference: Floats
    norm: Floats  # this and what follows: the columns of `Sums`
    rest: Floats
    tilt: Floats
    nonzero: Floats
    n: Floats
    n_groups: Floats
    squares: Floats

    def sums(self, which: Indexes) -> Sums:
        """Of some of the contrasts."""
        return Sums(*self[5:]).of(which)


def _contrasts(family: _Family, sample: _Sample) -> _Contrasts:
    """Estimates in blocks of contrasts, so that (G, m) never stands in memory whole."""
    width = max(1, CHUNK_CELLS // sample.n_groups)
    starts = range(0, max(1, len(family.left)), width)
    return _joined([_contrast_block(family, sample, slice(start, start + width)) for start in starts])


def _joined(parts: Sequence[_Contrasts]) -> _Contrasts:
    return _Contrasts(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _contrast_block(family: _Family, sample: _Sample, block: slice) -> _Contrasts:
    left, right = family.left[block], family.right[block]
    scale = np.maximum(family.scale[left], family.scale[right])
    sums = _without_rounding(family.sums[:, left] - family.sums[:, right], scale * sample.sizes.max())
    means, errors = _means_and_errors(sums, sample, scale)
    thresholds = np.abs(sums.sum(axis=0)) - TIE * np.abs(sums).sum(axis=0)
    few = (sums != 0).sum(axis=0) <= EXACT_GROUPS
    p = np.full(len(left), nan)
    for j in np.flatnonzero(few):
        p[j] = _exact_p(sums[sums[:, j] != 0, j], thresholds[j])
    seeds = _variance_of_mean(family.by_seed[:, left] - family.by_seed[:, right], scale)
    errors, df = _with_seeds(errors, sample.n_groups - 1, seeds, len(family.by_seed))
    random = seeds > 0
    p[random] = _t_p(means[random], errors[random], df[random])
    residuals = _without_rounding(sums - sample.sizes[:, None] * means, scale * sample.sizes.max())
    norms, rests = np.sqrt((sums**2).sum(axis=0)), (residuals**2).sum(axis=0)
    tilts, nonzero = sample.sizes @ residuals, (sums != 0).sum(axis=0).astype(np.float64)
    of_sample = (np.full(len(left), float(x)) for x in (sample.n, sample.n_groups, (sample.sizes**2).sum()))
    return _Contrasts(errors, df, seeds, p, thresholds, means, norms, rests, tilts, nonzero, *of_sample)


def _t_p(means: Floats, errors: Floats, df: Floats) -> Floats:
    """Two-sided p (m,) of the t test; 1 for no difference, 0 for one without any error, nan without degrees of freedom."""
    from scipy import stats

    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(means == 0, 0.0, np.abs(means) / errors)
    p: Floats = np.where(np.isnan(errors), nan, 2 * stats.t.sf(size, np.maximum(df, 1)))
    return p


def _exact_p(sums: Floats, threshold: float) -> float:
    """Share of all sign patterns of the non-zero group sums (k,) that reach the threshold; 1 when there are none.

    Zero sums may be left out: either sign gives the same statistic.
    """
    return float(np.mean(np.abs(_sign_patterns(len(sums)) @ sums) >= threshold)) if len(sums) else 1.0


@lru_cache(maxsize=EXACT_GROUPS)
def _sign_patterns(k: int) -> Floats:
    """All (2^(k-1), k) patterns of +1 and -1 that begin with +1: the mirror images have the same absolute sums."""
    numbers = np.arange(2 ** (k - 1))[:, None]
    return 1.0 - 2.0 * ((numbers >> np.arange(k)) & 1).astype(np.float64)


class _Largest(NamedTuple):
    """Collects the largest T of each flip over each family of tests, for P contrasts of F families."""

    weight: Floats  # (P,) 1 / norm; zero where all sums are
    member: Indexes  # (P,) row in `found`
    found: Floats  # (F, flips)


def _flip_p(
    columns: Floats,
    left: Indexes,
    right: Indexes,
    threshold: Floats,
    m: int,
    seed: int,
    largest: _Largest | None = None,
    open_: Indexes | None = None,
) -> Floats:
    """Monte Carlo p of contrasts of columns (G, K): (1 + times the threshold was reached) / (1 + flips).

    The 1 counts the pattern seen (Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010). All contrasts share the flips:
    the columns are multiplied by the signs once, and contrasts are differences of the products. Contrasts of small p get
    more flips, FLIPS_PER_TEST * m in all. The p stays valid, P(p <= x) <= x. Let y be the largest first p that goes on: for
    x < y, p <= x needs the p of all flips to be <= x; for x >= y, it needs the first p to be <= x.

    Args:
        columns: float64 (G, K), group sums.
        left: (P,), first columns of the contrasts.
        right: (P,), second columns.
        threshold: float64 (P,), from where on a flip counts.
        m: number of tests that p is adjusted over.
        seed: of the flips.
        largest: filled by the first flips, of all contrasts.
        open_: which of the contrasts p is wanted of; all when None.
    """
    stream = np.random.default_rng(seed)
    counts = _reached(columns, left, right, threshold, _batches(len(columns), FLIPS, stream), largest)
    p = (1 + counts) / (1 + FLIPS)
    wanted = np.arange(len(left)) if open_ is None else open_
    again = wanted[counts[wanted] <= FEW]
    more = FLIPS_PER_TEST * m - FLIPS
    if more <= 0 or not again.size:
        return p[wanted]
    used, ends = np.unique(np.concatenate((left[again], right[again])), return_inverse=True)
    first, second = np.split(ends, 2)
    batches = _batches(len(columns), more, stream)
    counts = counts[again] + _reached(columns[:, used], first, second, threshold[again], batches)
    p[again] = (1 + counts) / (1 + FLIPS + more)
    return p[wanted]


def _reached(
    columns: Floats,
    left: Indexes,
    right: Indexes,
    threshold: Floats,
    batches: Iterator[Floats],
    largest: _Largest | None = None,
) -> NDArray[np.int64]:
    """How many of the flips bring each |left - right| to its threshold or above it."""
    counts = np.zeros(len(left), dtype=np.int64)
    doubled, total, start = 2.0 * columns.T, columns.sum(axis=0)[:, None], 0
    for kept in batches:
        # sum of e_g x_g = 2 * (sum over the groups that keep their sign) - (sum over all)
        sums = doubled @ kept.T - total
        gap = np.empty(len(kept))
        for j, (a, b) in enumerate(zip(left, right, strict=True)):
            np.subtract(sums[a], sums[b], out=gap)
            counts[j] += np.count_nonzero(np.abs(gap, out=gap) >= threshold[j])
            if largest:
                row = largest.found[largest.member[j], start : start + len(kept)]
                np.maximum(row, np.multiply(gap, largest.weight[j], out=gap), out=row)
        start += len(kept)
    return counts


def _batches(n_groups: int, flips: int, stream: np.random.Generator) -> Iterator[Floats]:
    """Random flips (rows, G) in batches: 1 where a group keeps its sign."""
    height = min(BATCH, max(16, CHUNK_CELLS // n_groups))
    for start in range(0, flips, height):
        yield _random_halves(n_groups, min(height, flips - start), stream)


def _random_halves(n_groups: int, rows: int, stream: np.random.Generator) -> Floats:
    """Independent fair zeros and ones (rows, G); row by row the same, however many are drawn at a time."""
    drawn = stream.integers(0, 2**64, size=(rows, ceil(n_groups / 64)), dtype=np.uint64).astype("<u8", copy=False)
    return np.unpackbits(drawn.view(np.uint8), axis=1, count=n_groups).astype(np.float64)


def holm(p: ArrayLike) -> Floats:
    """Holm's step-down adjustment of p, both float64 (m,), capped at 1 (Holm, Scand. J. Stat. 6, 1979).

    A nan stays nan and is not counted in m.
    """
    raw = np.asarray(p, dtype=np.float64)
    adjusted = np.full(raw.shape, nan)
    known = np.flatnonzero(~np.isnan(raw))
    order = known[np.argsort(raw[known], kind="stable")]
    steps = raw[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


class _Flips(NamedTuple):
    """What flips say of the contrasts of one metric."""

    p: Floats  # (m,)
    largest: dict[str, Floats]  # family of tests -> largest T of each flip, sorted upwards
    whole: bool  # whether these are all patterns


def _analyse(families: Sequence[_Family], sample: _Sample, seed: int, level: float) -> list[list[Finding]]:
    """A `Finding` for every contrast of every family; the families are flipped together, adjusted apart."""
    found = [_contrasts(family, sample) for family in families]
    flips = _all_flips(families, found, sample, seed)
    return [_findings(*parts, sample, level) for parts in zip(families, found, flips, strict=True)]


def _findings(family: _Family, contrasts: _Contrasts, flips: _Flips, sample: _Sample, level: float) -> list[Finding]:
    return [
        Finding(
            n=int(n),
            n_groups=int(n_groups),
            difference=float(d),
            low=float(d - _quantile_t(level, df) * error),
            high=float(d + _quantile_t(level, df) * error),
            p=float(p),
            p_holm=float(adjusted),
            smallest_detectable=float(_noncentrality(df) * error) if error > 0 else nan,
            tested=tested,
        )
        for n, n_groups, d, error, df, p, adjusted, tested in zip(
            contrasts.n,
            contrasts.n_groups,
            contrasts.difference,
            contrasts.error,
            contrasts.df,
            flips.p,
            holm(flips.p),
            _tested(family, contrasts, flips, sample),
            strict=True,
        )
    ]


def _all_flips(families: Sequence[_Family], found: Sequence[_Contrasts], sample: _Sample, seed: int) -> list[_Flips]:
    """P-values per metric: nan with one group, exact where known, else from flips shared by all metrics."""
    if sample.n_groups < 2:
        return [_Flips(np.full_like(contrasts.p, nan), {}, True) for contrasts in found]
    members = [(k, name) for k, family in enumerate(families) for name in dict.fromkeys(family.names.tolist())]
    # What all columns of a family have in common cancels in every contrast; without it, less is lost to rounding.
    columns = np.hstack([family.sums - family.sums.mean(axis=1, keepdims=True) for family in families])
    offsets = np.cumsum([0] + [family.sums.shape[1] for family in families])[:-1]
    left = np.concatenate([family.left + at for family, at in zip(families, offsets, strict=True)])
    right = np.concatenate([family.right + at for family, at in zip(families, offsets, strict=True)])
    norm = np.concatenate([contrasts.norm for contrasts in found])
    rows = [members.index((k, name)) for k, family in enumerate(families) for name in family.names.tolist()]
    weight = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
    threshold = np.concatenate([contrasts.threshold for contrasts in found])
    p = np.concatenate([contrasts.p for contrasts in found])
    open_ = np.flatnonzero(np.isnan(p))
    whole = sample.n_groups <= EXACT_GROUPS
    n_flips = 2 ** (sample.n_groups - 1) if whole else FLIPS
    largest = _Largest(weight, np.array(rows, dtype=np.intp), np.zeros((len(members), n_flips)))
    if whole:
        patterns = (_sign_patterns(sample.n_groups) + 1.0) / 2.0
        _reached(columns, left, right, threshold, iter([patterns]), largest)
    elif len(p):
        p[open_] = _flip_p(columns, left, right, threshold, max(len(family.left) for family in families), seed, largest, open_)
    values = {member: np.sort(row) for member, row in zip(members, largest.found, strict=True)}
    return [
        _Flips(part, {name: row for (at, name), row in values.items() if at == k}, whole)
        for k, part in enumerate(np.split(p, np.cumsum([len(family.left) for family in families])[:-1]))
    ]


def _tested(family: _Family, contrasts: _Contrasts, flips: _Flips, sample: _Sample) -> list[Tested]:
    """What the families of tests say of each contrast of a metric."""
    found: list[Tested | None] = [None] * len(family.left)
    for name in dict.fromkeys(family.names.tolist()):
        which = np.flatnonzero(family.names == name)
        if sample.n_groups < 2:
            rows = [_untested(name)] * len(which)
        elif (contrasts.seeds[which] > 0).any():
            rows = _by_bonferroni(name, contrasts, which)
        else:
            rows = _by_flips(name, family, contrasts, flips, which, sample)
        for j, row in zip(which, rows, strict=True):
            found[j] = row
    return [row for row in found if row is not None]


def _untested(name: str) -> Tested:
    return Tested(name, nan, nan, nan, nan, supported=False, n_needed=nan)


def _by_flips(name: str, family: _Family, contrasts: _Contrasts, flips: _Flips, which: Indexes, sample: _Sample) -> list[Tested]:
    """The maximum statistic over a family of tests; of a single contrast, its own flips."""
    sums, p = contrasts.sums(which), flips.p[which]
    flipped, whole = flips.largest[name], flips.whole
    if len(which) == 1:
        p_adjusted = p
        if sums.nonzero[0] <= EXACT_GROUPS and not whole:  # its p is exact, so is its critical value
            flipped, whole = _exact_statistics(family, which[0], sample), True
    else:
        tie = TIE * np.sqrt(sums.nonzero)  # no less than that of p: sum |s| <= sqrt(nonzero) * norm
        p_adjusted = np.maximum(p, planned.p_value(sums.statistic, flipped, whole, tie))
    c = planned.critical(flipped, whole)
    own = np.where(sums.nonzero < FEW_GROUPS, max(c, NORMAL), c)
    # flips of the signs spread about zero, not about the mean
    return _concluded(name, sums, p, p_adjusted, planned.ends(sums, own), own, sums.norm**2 / sums.n, contrasts.seeds[which])


def _exact_statistics(family: _Family, j: int, sample: _Sample) -> Floats:
    """T of a contrast under all patterns of signs of its group sums that are not zero, sorted upwards."""
    a, b = family.left[j], family.right[j]
    scale = max(family.scale[a], family.scale[b]) * sample.sizes.max()
    sums = _without_rounding(family.sums[:, a] - family.sums[:, b], scale)
    sums = sums[sums != 0]
    return np.sort(np.abs(_sign_patterns(len(sums)) @ sums) / sqrt(float(sums @ sums))) if len(sums) else np.zeros(1)


def _by_bonferroni(name: str, contrasts: _Contrasts, which: Indexes) -> list[Tested]:
    """Where a contrast carries the chance of trainings, which flips know nothing of: t tests and Bonferroni's adjustment."""
    sums, error, df = contrasts.sums(which), contrasts.error[which], contrasts.df[which]
    p = _t_p(sums.difference, error, df)
    quantile = np.array([_quantile_t(1 - ALPHA / len(which), float(one)) for one in df])
    few = np.where(sums.n_groups < FEW_GROUPS, nan, 1.0)
    half = quantile * error * few
    interval = sums.difference - half, sums.difference + half
    adjusted = np.minimum(1.0, len(which) * p)
    return _concluded(name, sums, p, adjusted, interval, quantile, _variance(sums), contrasts.seeds[which])


def _concluded(
    name: str,
    sums: Sums,
    p: Floats,
    p_adjusted: Floats,
    interval: tuple[Floats, Floats],
    quantile: Floats,
    null: Floats,
    seeds: Floats,
) -> list[Tested]:
    low, high, supported = planned.decided(sums, p_adjusted, *interval)
    n_needed = planned.needed(sums, quantile, null, _variance(sums), seeds)
    columns = p, p_adjusted, low, high, supported, n_needed
    return [Tested(name, *values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def _variance(sums: Sums) -> Floats:
    """N times the squared standard error (m,) that queries make; eq. 1."""
    return sums.rest * (sums.n_groups / np.maximum(sums.n_groups - 1, 1)) / sums.n  # of one group there is no rest


# --- All pairs --------------------------------------------------------------------------------------------------------


def compare_all(
    matrices: Mapping[str, ArrayLike],
    systems: Sequence[str],
    groups: ArrayLike | None = None,
    seed: int = 0,
    pairs: Sequence[tuple[str, str]] | None = None,
    ids: Sequence[str] | None = None,
    level: float = 0.95,
    by_seed: BySeed = None,
    plans: Mapping[str, Plan] | None = None,
) -> dict[str, list[PairedComparison]]:
    """Paired comparisons of systems for each metric, with p adjusted over the pairs of that metric.

    Args:
        matrices: metric -> float64 (n_queries, n_systems), complete. All metrics share one matrix of flips.
        systems: names of the columns.
        groups: (n_queries,), names of the groups of dependent queries, text or integers, or None.
        seed: of the flips.
        pairs: which (a, b) to compare; all, in the order of the columns, when None.
        ids: (n_queries,) names of the rows; with them the result does not depend on the order of the rows.
        level: of the intervals.
        by_seed: metric -> float64 (S, n_systems), the systems' means under each seed, where they were measured with several.
        plans: metric -> what says which family of tests a pair belongs to; by default all are exploratory.

    P-values are exact (all sign patterns) for a pair that differs in at most 14 groups; else they come from 10,000 flips, and
    from 250 m for pairs of small p among m > 40. Other systems in the matrix change nothing of a pair but ``p_holm`` and that
    number of flips, hence the last digits of a small p, and what ``tested`` says of its family.

    Raises:
        InputError: scores are missing, or shapes, names or pairs do not fit.
    """
    values = {metric: _checked(metric, scores, systems, ids) for metric, scores in matrices.items()}
    if not values:
        return {}
    wanted = list(combinations(systems, 2)) if pairs is None else list(pairs)
    left, right = _pair_columns(wanted, systems)
    sample = _sample(_same_length(values), groups, ids)
    families = [
        _Family(
            sample.sums(v), np.abs(v).max(axis=0), _seed_means(by_seed, metric, v), left, right, _names(wanted, plans, metric)
        )
        for metric, v in values.items()
    ]
    found = _analyse(families, sample, seed, level)
    return {
        metric: [PairedComparison(a=a, b=b, **vars(finding)) for (a, b), finding in zip(wanted, rows, strict=True)]
        for metric, rows in zip(values, found, strict=True)
    }


def _names(pairs: Sequence[tuple[str, str]], plans: Mapping[str, Plan] | None, metric: str) -> NDArray[np.str_]:
    """The family of tests (m,) that each pair belongs to by a metric."""
    plan = (plans or {}).get(metric, Plan())
    return np.array([plan.family(a, b) for a, b in pairs], dtype=np.str_)


def _checked(metric: str, scores: ArrayLike, systems: Sequence[object], ids: Sequence[str] | None) -> Floats:
    values = _complete(scores, repr(metric), ids)
    if values.shape[1] != len(systems):
        raise InputError(f"the scores of {metric!r} have {values.shape[1]} columns, but there are {len(systems)} systems")
    return values


def _seed_means(by_seed: BySeed, metric: str, values: Floats) -> Floats:
    """Means (S, K) of a metric's systems under each seed; those over all queries where there is one seed only."""
    if by_seed is None or metric not in by_seed:
        whole: Floats = values.mean(axis=0, keepdims=True)
        return whole
    means = _complete(by_seed[metric], f"the seeds by {metric!r}")
    if means.shape[1] != values.shape[1]:
        raise InputError(
            f"the means by seed of {metric!r} have {means.shape[1]} columns, but there are {values.shape[1]} systems"
        )
    return means


def _same_length(values: Mapping[str, Floats]) -> int:
    lengths = {metric: len(v) for metric, v in values.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(f"the metrics have different numbers of queries: {lengths}; compare them in separate calls")
    return next(iter(lengths.values()))


def _pair_columns(pairs: Sequence[tuple[str, str]], systems: Sequence[str]) -> tuple[Indexes, Indexes]:
    columns = {name: j for j, name in enumerate(systems)}
    if len(columns) != len(systems):
        raise InputError("two systems have the same name; names must differ to tell the pairs apart")
    strangers = sorted({name for pair in pairs for name in pair} - set(columns))
    if strangers:
        raise InputError(f"pairs name {', '.join(strangers)}, which are not among the systems: {', '.join(systems)}")
    ends = np.array([(columns[a], columns[b]) for a, b in pairs], dtype=np.intp).reshape(-1, 2)
    return ends[:, 0], ends[:, 1]


# --- Slices of the queries ---------------------------------------------------------------------------------------------


class Slice(NamedTuple):
    """Some of the queries.

    Attributes:
        rows: int64 (k,), their positions, distinct; at least one.
        by_seed: float64 (S, n_systems), the systems' means over these queries under each seed; None without several seeds.
    """

    rows: NDArray[np.intp]
    by_seed: NDArray[np.float64] | None = None


def compare_slices(
    scores: ArrayLike,
    systems: Sequence[str],
    slices: Sequence[Slice],
    pairs: Sequence[tuple[str, str]],
    groups: ArrayLike | None = None,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    level: float = 0.95,
) -> list[list[PairedComparison]]:
    """Paired comparisons of systems by one metric on slices of the queries, which may share queries.

    All pairs on all slices are one family of tests. A flip turns a group in every slice that it has queries in, so the largest
    statistic of a flip is taken over contrasts that depend on each other as the slices do. n and groups are those of the slice.

    Args:
        scores: float64 (n_queries, n_systems), complete.
        systems: names of the columns.
        slices: which queries each of them has.
        pairs: which (a, b) to compare on every slice.
        groups: (n_queries,), names of the groups of dependent queries, text or integers, or None.
        seed: of the flips.
        ids: (n_queries,) names of the rows; with them the result does not depend on the order of the rows.
        level: of the t intervals.

    Returns:
        For each slice the comparisons of all pairs. Those on a slice of one group hold no p and no verdict.

    Raises:
        InputError: scores are missing, or shapes, names or pairs do not fit.
    """
    if not slices or not pairs:
        return [[] for _ in slices]
    values = _checked("slices", scores, systems, ids)
    sample, (left, right) = _sample(len(values), groups, ids), _pair_columns(pairs, systems)
    names = np.full(len(pairs), SLICES)
    found, parts = [], []
    for one in slices:
        rows, inside = values[one.rows], np.zeros_like(values)
        inside[one.rows] = rows
        own = _sample(
            len(rows),
            None if groups is None else np.asarray(groups)[one.rows],
            None if ids is None else [ids[row] for row in one.rows],
        )
        by_seed = None if one.by_seed is None else {"slices": one.by_seed}
        scale, means = np.abs(rows).max(axis=0), _seed_means(by_seed, "slices", rows)
        found.append(_contrasts(_Family(own.sums(rows), scale, means, left, right, names), own))
        # queries outside the slice count as zero, which changes neither the sum of a contrast nor its norm
        parts.append(_Family(sample.sums(inside), scale, means, left, right, names))
    whole, contrasts = _beside_each_other(parts), _joined(found)
    (flips,) = _all_flips([whole], [contrasts], sample, seed)
    findings = iter(_findings(whole, contrasts, flips, sample, level))
    return [[_of_groups(PairedComparison(a=a, b=b, **vars(next(findings)))) for a, b in pairs] for _ in slices]


def _beside_each_other(parts: Sequence[_Family]) -> _Family:
    """Families with the columns of one behind those of the other; their means by seed are not needed any more."""
    width = parts[0].sums.shape[1]
    left = np.concatenate([part.left + k * width for k, part in enumerate(parts)])
    right = np.concatenate([part.right + k * width for k, part in enumerate(parts)])
    sums, scale = np.hstack([part.sums for part in parts]), np.concatenate([part.scale for part in parts])
    return _Family(sums, scale, np.zeros((1, sums.shape[1])), left, right, np.concatenate([part.names for part in parts]))


def _of_groups(found: PairedComparison) -> PairedComparison:
    """The same; without a test where its queries form one group, which flips leave as it is."""
    return found if found.n_groups > 1 else replace(found, p=nan, p_holm=nan, tested=_untested(found.tested.family))


# --- Power ------------------------------------------------------------------------------------------------------------


def smallest_detectable(
    differences: ArrayLike,
    groups: ArrayLike | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
    by_seed: ArrayLike | None = None,
) -> float:
    """The true mean difference that a sample like this one finds with this power, two-sided, not adjusted.

    standard error times the noncentrality at which a t test of so many degrees of freedom has the power (Cohen, Statistical
    Power Analysis, 1988, section 2.2). Nan with fewer than two groups or without spread.

    Args:
        differences: float64 (n,), one per query.
        groups: (n,), names as text or integers; None: every query is a group of its own.
        power: probability of finding the difference.
        alpha: level of the test.
        by_seed: float64 (S,), the mean difference under each seed, for a test that covers other seeds too (eq. 2).
    """
    return float(power_curve(differences, [len(np.asarray(differences))], groups, power, alpha, by_seed)[0])


def power_curve(
    differences: ArrayLike,
    ns: Sequence[int],
    groups: ArrayLike | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
    by_seed: ArrayLike | None = None,
) -> Floats:
    """`smallest_detectable` of samples of other sizes; supposes more of the same, as `needed_n` does.

    Args:
        differences: float64 (n,), one per query.
        ns: numbers of queries.
        groups: (n,), names as text or integers; None: every query is a group of its own.
        power: probability of finding the difference.
        alpha: level of the test.
        by_seed: float64 (S,), the mean difference under each seed, for a test that covers other seeds too (eq. 2).

    Returns:
        float64 (len(ns),), nan where fewer than two groups would be left, or without spread.
    """
    precision = _precision(differences, groups, by_seed)
    found = [precision.at(n) for n in ns]
    return np.array([_noncentrality(df, power, alpha) * error if error > 0 else nan for error, df in found])


def needed_n(
    differences: ArrayLike,
    groups: ArrayLike | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
    by_seed: ArrayLike | None = None,
) -> float:
    """How many queries would find a true difference as large as the mean difference with this power.

    Supposes more of the same: equal spread, queries per group and dependence within groups, hence se^2 proportional to 1 / n
    and G to n; and as many seeds, whose variance stays (eq. 2). Infinite for a difference that 10^15 queries would not find; nan
    with fewer than two groups or no spread.

    Args:
        differences: float64 (n,), one per query.
        groups: (n,), names as text or integers; None: every query is a group of its own.
        power: probability of finding the difference.
        alpha: level of the test.
        by_seed: float64 (S,), the mean difference under each seed.
    """
    precision = _precision(differences, groups, by_seed)
    if not precision.at(precision.n)[0] > 0:
        return nan

    def enough(n: int) -> bool:
        error, df = precision.at(n)
        return _power(abs(precision.mean) / error, df, alpha) >= power

    first = ceil(2 * precision.per_group)
    last = first
    while not enough(last):
        last *= 2
        if last > 10**15:
            return inf
    low = max(first, last // 2)
    return low + bisect_left(range(low, last), True, key=enough)


@lru_cache(maxsize=4096)
def _noncentrality(df: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The noncentrality at which the two-sided t test has the power; nan without degrees of freedom."""
    if not alpha < power < 1:
        raise InputError(f"a power of {power} is not between alpha, {alpha}, and 1; .8 is usual")
    if df <= 0:
        return nan
    from scipy import optimize, stats

    highest = 4 * (float(stats.t.isf(alpha / 2, df)) + 5)
    return float(optimize.brentq(lambda x: _power(x, df, alpha) - power, 0.0, highest))


def _power(noncentrality: float, df: float, alpha: float) -> float:
    """Power of the two-sided t test: P(|T| > t) = P(F > t^2), where F is noncentral with 1 and df degrees of freedom.

    Not from scipy.stats.nct, whose lower tail is nan for some noncentralities above 7 (scipy 1.17).
    """
    from scipy import special, stats

    return 1.0 - float(special.ncfdtr(1.0, df, noncentrality**2, stats.t.isf(alpha / 2, df) ** 2))


# --- Optimism of choosing the best ------------------------------------------------------------------------------------


def predicted_optimism(
    scores: ArrayLike, baseline: int, groups: ArrayLike | None = None, seed: int = 0, repeats: int = 1_000
) -> float:
    """By how much choosing the best system is expected to flatter its margin over the baseline.

    Repeated split-half: groups are dealt at random to two halves, the best of one half is chosen, and its margin there less its
    margin in the other half is averaged. That is the optimism of choosing on half as many queries; chance differences shrink with
    the square root of their number, so it is divided by sqrt(2). Systems that tie for best share the choice. Nan with fewer
    than two groups.

    Args:
        scores: float64 (n, K), queries by systems.
        baseline: column of the baseline, from 0.
        groups: (n,), names as text or integers; None: every query is a group of its own.
        seed: of the splits.
        repeats: how many splits.
    """
    values = _complete(scores, "the selection split")
    if not 0 <= baseline < values.shape[1]:
        raise InputError(f"baseline {baseline} is not one of the {values.shape[1]} columns, counted from 0")
    sample = _sample(len(values), groups)
    if sample.n_groups < 2:
        return nan
    sums, rng = sample.sums(values), np.random.default_rng(seed)
    height = max(1, min(repeats, CHUNK_CELLS // sample.n_groups))
    heights = [min(height, repeats - start) for start in range(0, repeats, height)]
    gaps = [_split_half_gaps(sums, sample.sizes, baseline, rng.random((rows, sample.n_groups))) for rows in heights]
    return float(np.concatenate(gaps).mean() / sqrt(2))


def _split_half_gaps(sums: Floats, sizes: Floats, baseline: int, draws: Floats) -> Floats:
    """Margin of the chosen where it was chosen, less elsewhere, (rows,); draws (rows, G) deal the groups to the halves."""
    half = (draws.argsort(axis=1).argsort(axis=1) < len(sums) // 2).astype(np.float64)
    here = (half @ sums) / (half @ sizes)[:, None]
    there = ((1 - half) @ sums) / ((1 - half) @ sizes)[:, None]
    best = here >= here.max(axis=1, keepdims=True) - TIE * np.abs(here).max(axis=1, keepdims=True)
    gap = (here - here[:, [baseline]]) - (there - there[:, [baseline]])
    gaps: Floats = (gap * best).sum(axis=1) / best.sum(axis=1)
    return gaps


def observed_optimism(
    select: ArrayLike,
    report: ArrayLike,
    select_groups: ArrayLike | None = None,
    report_groups: ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """Margin where the winner was chosen less its margin on fresh queries, with an interval.

    The two samples are independent: errors (eq. 1) add in squares, with Welch's degrees of freedom (Biometrika 34, 1947), G - 1
    in place of n - 1. Nan ends with fewer than two groups.

    Args:
        select: float64 (n1,), winner - baseline on each query where the winner was chosen.
        report: float64 (n2,), winner - baseline on each fresh query.
        select_groups: (n1,), names as text or integers; None: every query is a group of its own.
        report_groups: (n2,), likewise, text or integers.
        level: of confidence.
    """
    mean_1, error_1, sample_1 = _mean_and_error(select, select_groups)
    mean_2, error_2, sample_2 = _mean_and_error(report, report_groups)
    value, variance = mean_1 - mean_2, error_1**2 + error_2**2
    if isnan(variance) or variance == 0:
        return Estimate(value, value + variance, value + variance)
    df = variance**2 / (error_1**4 / (sample_1.n_groups - 1) + error_2**4 / (sample_2.n_groups - 1))
    half = _quantile_t(level, df) * sqrt(variance)
    return Estimate(value, value - half, value + half)


# --- Effects of the axes ----------------------------------------------------------------------------------------------

Design = Sequence[Mapping[str, Hashable]]


class _Term(NamedTuple):
    """A contrast of the design over cells k: system plus[k] - minus[k], less plus_2[k] - minus_2[k] for an interaction."""

    label: dict[str, Any]  # the fields that `Effect` or `Interaction` adds to those of `Finding`
    plus: list[int]
    minus: list[int]
    plus_2: list[int]
    minus_2: list[int]


def effects(
    matrices: Mapping[str, ArrayLike],
    design: Design,
    groups: ArrayLike | None = None,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    level: float = 0.95,
    by_seed: BySeed = None,
) -> dict[str, list[Effect]]:
    """For each axis and two of its levels, their difference averaged over the other axes, with p adjusted over all of these.

    Args:
        matrices: metric -> float64 (n_queries, n_systems), complete.
        design: per system, axis -> level. Systems must differ in some axis.
        groups: (n_queries,), text or integers, as for `compare_all`, and so are the arguments below.
        seed: of the flips.
        ids: names of the rows.
        level: of the intervals.
        by_seed: means under each seed.

    Only *matched* cells count: combinations of the other axes that occur with both levels; so an incomplete design compares like
    with like. Levels that never meet in a cell have no contrast and no row. Levels come in the order of their first appearance.
    """
    cells = _cells(design)
    terms = [term for axis in cells.axes for pair in combinations(cells.levels(axis), 2) for term in _effect(cells, axis, pair)]
    found = _analyse_terms(matrices, terms, EFFECTS, len(design), groups, seed, ids, level, by_seed)
    return {metric: [Effect(**term.label, **vars(finding)) for term, finding in rows] for metric, rows in found.items()}


def interactions(
    matrices: Mapping[str, ArrayLike],
    design: Design,
    groups: ArrayLike | None = None,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    level: float = 0.95,
    by_seed: BySeed = None,
) -> dict[str, list[Interaction]]:
    """For two axes and two levels of each, the difference of the differences, over cells where all four combinations occur.

    The interactions are a family of tests of their own.

    Args:
        matrices: metric -> float64 (n_queries, n_systems), complete.
        design: per system, axis -> level. Systems must differ in some axis.
        groups: (n_queries,), text or integers, as for `compare_all`, and so are the arguments below.
        seed: of the flips.
        ids: names of the rows.
        level: of the intervals.
        by_seed: means under each seed.
    """
    cells = _cells(design)
    terms = [
        term
        for axes in combinations(cells.axes, 2)
        for first in combinations(cells.levels(axes[0]), 2)
        for second in combinations(cells.levels(axes[1]), 2)
        for term in _interaction(cells, axes, (first, second))
    ]
    found = _analyse_terms(matrices, terms, INTERACTIONS, len(design), groups, seed, ids, level, by_seed)
    return {metric: [Interaction(**term.label, **vars(finding)) for term, finding in rows] for metric, rows in found.items()}


class _Cells(NamedTuple):
    """The design turned round: levels, in the order of the axes -> column."""

    axes: list[str]
    column: dict[tuple[Hashable, ...], int]

    def levels(self, axis: str) -> list[Hashable]:
        at = self.axes.index(axis)
        return list(dict.fromkeys(key[at] for key in self.column))

    def matched(self, changes: Sequence[Mapping[str, Hashable]]) -> list[list[int]]:
        """Columns (len(changes), cells): systems that are alike but for the changes, for each cell where all of them exist."""
        found = []
        for key in self.column:
            point = dict(zip(self.axes, key, strict=True))
            keys = [tuple({**point, **change}.values()) for change in changes]
            if keys[0] == key and all(other in self.column for other in keys):
                found.append([self.column[other] for other in keys])
        return [list(column) for column in zip(*found, strict=True)]


def _cells(design: Design) -> _Cells:
    axes = list(design[0]) if design else []
    column: dict[tuple[Hashable, ...], int] = {}
    for j, point in enumerate(design):
        if set(point) != set(axes):
            raise InputError(f"system {j} has the axes {sorted(point)}, the first system {sorted(axes)}; all need the same")
        first = column.setdefault(tuple(point[axis] for axis in axes), j)
        if first != j:
            raise InputError(f"systems {first} and {j} have the same levels on all axes; add the axis on which they differ")
    return _Cells(axes, column)


def _effect(cells: _Cells, axis: str, levels: tuple[Hashable, Hashable]) -> list[_Term]:
    """The contrast of two levels, or nothing when they never meet."""
    a, b = levels
    matched = cells.matched([{axis: a}, {axis: b}])
    if not matched:
        return []
    plus, minus = matched
    return [_Term({"axis": axis, "a": a, "b": b, "cells": len(plus)}, plus, minus, [], [])]


def _interaction(cells: _Cells, axes: tuple[str, str], levels: tuple[tuple[Hashable, ...], tuple[Hashable, ...]]) -> list[_Term]:
    """The difference of differences of two levels on two axes, or nothing when no cell has all four."""
    matched = cells.matched([{axes[0]: a, axes[1]: b} for b in levels[1] for a in levels[0]])
    if not matched:
        return []
    plus, minus, plus_2, minus_2 = matched
    return [_Term({"axes": axes, "levels": levels, "cells": len(plus)}, plus, minus, plus_2, minus_2)]


def _analyse_terms(
    matrices: Mapping[str, ArrayLike],
    terms: Sequence[_Term],
    family: str,
    n_systems: int,
    groups: ArrayLike | None,
    seed: int,
    ids: Sequence[str] | None,
    level: float,
    by_seed: BySeed,
) -> dict[str, list[tuple[_Term, Finding]]]:
    """Every term with what was found of it, for each metric."""
    values = {metric: _checked(metric, scores, range(n_systems), ids) for metric, scores in matrices.items()}
    if not values or not terms:
        return {metric: [] for metric in values}
    sample = _sample(_same_length(values), groups, ids)
    families = [_term_family(v, _seed_means(by_seed, metric, v), terms, family, sample) for metric, v in values.items()]
    found = _analyse(families, sample, seed, level)
    return {metric: list(zip(terms, rows, strict=True)) for metric, rows in zip(values, found, strict=True)}


def _term_family(values: Floats, by_seed: Floats, terms: Sequence[_Term], family: str, sample: _Sample) -> _Family:
    """Terms as contrasts against a last column of zeros."""
    columns, seeds = (
        np.column_stack([_term_values(rows, term) for term in terms] + [np.zeros(len(rows))]) for rows in (values, by_seed)
    )
    m = len(terms)
    scale = np.full(m + 1, np.abs(values).max())
    return _Family(sample.sums(columns), scale, seeds, np.arange(m), np.full(m, m), np.full(m, family))


def _term_values(values: Floats, term: _Term) -> Floats:
    """The contrast (n,); differences first, then their mean, so that equal systems give exactly zero."""
    gaps = values[:, term.plus] - values[:, term.minus]
    if term.plus_2:
        gaps -= values[:, term.plus_2] - values[:, term.minus_2]
    means: Floats = _without_rounding(gaps, np.abs(values).max()).mean(axis=1)
    return means


# --- Letters ----------------------------------------------------------------------------------------------------------


def letters(different: Collection[tuple[str, str]], order: Sequence[str]) -> dict[str, str]:
    """Compact letter display: two systems share a letter exactly when they are not among the ``different`` pairs.

    ``order`` lists the systems, best first; "a" goes to the best. Insert-and-absorb algorithm (Piepho, J. Comput. Graph. Stat.
    13, 2004): one group holds all; each different pair splits every group that holds both; groups inside others are absorbed.

    Raises:
        InputError: a pair names a system that the order lacks.
    """
    rank = {name: j for j, name in enumerate(order)}
    strangers = {name for pair in different for name in pair} - set(rank)
    if strangers:
        raise InputError(f"order lacks {', '.join(sorted(strangers))}; it must list every system compared")
    sets = [frozenset(order)]
    for a, b in different:
        sets = _split(sets, a, b)
    # Groups that reach further up come first: the letters then run down the table.
    ranked = sorted(sorted(rank[name] for name in members) for members in sets)
    return {name: "".join(_letter(k) for k, ranks in enumerate(ranked) if j in ranks) for name, j in rank.items()}


def _split(sets: list[frozenset[str]], a: str, b: str) -> list[frozenset[str]]:
    """Replace each set that holds a and b by one without a and one without b; drop those that lie inside another."""
    parts = {part for members in sets for part in ((members - {a}, members - {b}) if {a, b} <= members else (members,))}
    return [part for part in parts if not any(part < other for other in parts)]


def _letter(k: int) -> str:
    """A to z, A to Z, then single signs from the CJK block: some designs need more than 52."""
    return ascii_letters[k] if k < len(ascii_letters) else chr(0x4E00 + k - len(ascii_letters))
