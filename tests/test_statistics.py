"""What `workbench.evaluation.statistics` claims, each value written as its formula or found by another route."""

from __future__ import annotations

from itertools import combinations
from math import comb, inf, isnan, sqrt

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from workbench.errors import InputError
from workbench.evaluation import statistics
from workbench.evaluation.statistics import (
    Interval,
    PairedComparison,
    bootstrap_interval,
    compare_all,
    effects,
    holm,
    interactions,
    letters,
    mean_interval,
    needed_n,
    observed_optimism,
    paired_interval,
    predicted_optimism,
    smallest_detectable,
)


def _scores(n: int, k: int, seed: int = 0) -> np.ndarray:
    """F1-like scores (n, k): zeros, ones and values between, alike within a query."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(0.5, 0.5, (n, 1)) + rng.normal(0, 0.3, (n, k)) + np.linspace(0, 0.1, k)
    return np.clip(raw, 0, 1)


def _names(k: int) -> list[str]:
    return [f"s{j:02d}" for j in range(k)]


def _pair(a: np.ndarray, b: np.ndarray, **options: object) -> PairedComparison:
    return compare_all({"f1": np.column_stack((a, b))}, ["a", "b"], **options)["f1"][0]


# --- Intervals -------------------------------------------------------------------------------------------------------


def test_interval_of_a_mean_is_its_formula() -> None:
    x = np.array([0.0, 1.0, 1.0, 0.5])
    half = stats.t.ppf(0.975, 3) * sqrt(sum((x - 0.625) ** 2) / 3 / 4)
    assert mean_interval(x) == pytest.approx((0.625 - half, 0.625 + half))


def test_an_interval_between_bounds_is_that_of_the_logit_turned_back() -> None:
    x = np.array([0.0, 1.0, 1.0, 0.5, 0.0])
    error, odds = x.std(ddof=1) / sqrt(5), 0.5 / 0.5
    factor = np.exp(stats.t.ppf(0.975, 4) * error / (0.5 * 0.5))
    ends = (odds / factor / (1 + odds / factor), odds * factor / (1 + odds * factor))
    assert mean_interval(x, bounds=(0, 1)) == pytest.approx(ends)
    assert mean_interval(10 * x - 5, bounds=(-5, 5)) == pytest.approx(tuple(10 * end - 5 for end in ends))


@pytest.mark.parametrize("groups", [None, [i // 3 for i in range(60)]])
@pytest.mark.parametrize("right", [1, 2, 59])
def test_an_interval_of_a_mean_never_leaves_the_bounds(right: int, groups: list[int] | None) -> None:
    x = np.repeat([1.0, 0.0], [right, 60 - right])
    low, high = mean_interval(x, groups, bounds=(0, 1))
    assert 0 < low < x.mean() < high < 1
    plain = mean_interval(x, groups)
    assert plain.low < 0 or plain.high > 1


def test_in_many_queries_the_bounds_change_little() -> None:
    x = _scores(4_000, 1)[:, 0]
    assert mean_interval(x, bounds=(0, 1)) == pytest.approx(mean_interval(x), abs=2e-4)


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0.0, 0.0295), (1.0, 0.9705, 1.0), (0.4, 0.3882, 0.4177)])
def test_equal_scores_leave_open_what_the_rule_of_three_leaves_open(value: float, low: float, high: float) -> None:
    """100 queries without any spread: another kind of query may make up as much as 1 - .05^(1/100) = 2.95 %."""
    assert mean_interval(np.full(100, value), bounds=(0, 1)) == pytest.approx((low, high), abs=5e-5)


def test_scores_outside_their_bounds_are_refused() -> None:
    with pytest.raises(InputError, match=r"scores from 0 to 1\.5 leave their bounds, 0 to 1"):
        mean_interval([0.0, 1.5], bounds=(0, 1))
    assert all(map(isnan, mean_interval([0.5], bounds=(0, 1))))


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("n", [2, 10, 200])
def test_ungrouped_interval_is_that_of_the_paired_t_test(n: int, level: float) -> None:
    a, b = _scores(n, 2, seed=3).T
    expected = stats.ttest_rel(a, b).confidence_interval(level)
    assert paired_interval(a, b, level=level) == pytest.approx((expected.low, expected.high), abs=1e-14)
    found = _pair(a, b, level=level)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-14)


def test_grouped_interval_is_the_cluster_robust_one_of_statsmodels() -> None:
    # statsmodels multiplies by G/(G-1) * (n-1)/(n-k), which for an intercept alone, k = 1, is G/(G-1).
    a, b = _scores(60, 2, seed=4).T
    groups = np.random.default_rng(0).integers(0, 11, 60)
    fit = sm.OLS(a - b, np.ones(60)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    assert paired_interval(a, b, groups) == pytest.approx(tuple(fit.conf_int()[0]), abs=1e-12)
    found = _pair(a, b, groups=groups)
    assert (found.n, found.n_groups) == (60, 11)
    assert (found.low, found.high) == pytest.approx(tuple(fit.conf_int()[0]), abs=1e-12)


def test_groups_of_one_query_change_nothing() -> None:
    scores = {"f1": _scores(40, 4)}
    assert compare_all(scores, _names(4), groups=np.arange(40)) == compare_all(scores, _names(4))


def test_group_names_may_be_text_or_numbers() -> None:
    a, b = _scores(30, 2).T
    codes = np.arange(30) % 7
    assert _pair(a, b, groups=codes) == _pair(a, b, groups=[f"doc{code}" for code in codes])


def test_bootstrap_of_a_mean_agrees_with_scipy() -> None:
    x = _scores(150, 1, seed=5)
    expected = stats.bootstrap((x[:, 0],), np.mean, method="percentile", random_state=1).confidence_interval
    found = bootstrap_interval(x, lambda rows: rows[:, 0].mean(), resamples=8_000)
    # The ends are quantiles of about 8,000 draws: their error is near .03 of the standard error, the tolerance 5 times that.
    assert found == pytest.approx((expected.low, expected.high), abs=0.15 * x.std() / sqrt(150))


def test_bootstrap_draws_whole_groups() -> None:
    groups = np.repeat(np.arange(12), 5)
    x = np.repeat(np.random.default_rng(0).random(12), 5)  # five copies of twelve numbers: no more is known than from twelve
    grouped = bootstrap_interval(x, lambda rows: float(rows.mean()), groups, seed=1)
    assert grouped == pytest.approx(bootstrap_interval(x[::5], lambda rows: float(rows.mean()), seed=1))


def test_bootstrap_serves_ratios_and_quantiles() -> None:
    scores = _scores(300, 2, seed=6)
    low, high = bootstrap_interval(scores, lambda rows: rows[:, 0].mean() / rows[:, 1].mean())
    assert low < scores[:, 0].mean() / scores[:, 1].mean() < high
    low, high = bootstrap_interval(scores, lambda rows: float(np.quantile(rows[:, 0] - rows[:, 1], 0.9)))
    assert low <= np.quantile(scores[:, 0] - scores[:, 1], 0.9) <= high


# --- Permutation p ---------------------------------------------------------------------------------------------------


def _scipy_p(a: np.ndarray, b: np.ndarray, n_resamples: float) -> float:
    statistic = lambda x, y, axis: np.mean(x - y, axis=axis)  # noqa: E731
    return stats.permutation_test((a, b), statistic, permutation_type="samples", n_resamples=n_resamples, vectorized=True).pvalue


@pytest.mark.parametrize("seed", range(5))
def test_few_queries_get_the_exact_p_of_scipy(seed: int) -> None:
    a, b = _scores(9, 2, seed).T
    assert _pair(a, b).p == pytest.approx(_scipy_p(a, b, inf), abs=1e-12)


def test_exact_p_of_a_sign_test_is_binomial() -> None:
    a, b = np.zeros(500), np.zeros(500)
    a[:9], b[9:11] = 1, 1  # 9 wins, 2 losses, 489 draws, which cannot matter
    assert _pair(a, b).p == pytest.approx(2 * (comb(11, 0) + comb(11, 1) + comb(11, 2)) / 2**11)


def test_random_flips_agree_with_scipy_within_their_error() -> None:
    a, b = _scores(60, 2, seed=21).T
    found, expected = _pair(a, b, seed=1).p, _scipy_p(a, b, 50_000)
    error = sqrt(expected * (1 - expected) * (1 / 10_000 + 1 / 50_000))
    assert 0.01 < expected < 0.9
    assert found == pytest.approx(expected, abs=4.5 * error)  # a false alarm in 150,000 seeds; the seeds are fixed


def test_random_flips_agree_with_the_exact_p_of_tied_scores() -> None:
    # 25 wins, 15 losses of equal size: the two-sided sign test. Scores like .1 + .2 make the ties inexact.
    a, b = np.full(40, 0.3), np.full(40, 0.3)
    a[:25] = 0.1 + 0.2 + 0.1
    b[25:] = 0.4
    expected = stats.binomtest(25, 40).pvalue
    assert _pair(a, b).p == pytest.approx(expected, abs=4.5 * sqrt(expected * (1 - expected) / 10_000))


def test_flips_turn_whole_groups() -> None:
    a, b = _scores(60, 2, seed=8).T
    groups = np.arange(60) % 6
    sums = np.array([(a - b)[groups == g].sum() for g in range(6)])
    assert _pair(a, b, groups=groups).p == pytest.approx(_scipy_p(sums, np.zeros(6), inf))


def test_a_large_common_offset_changes_no_p() -> None:
    a, b = np.round(_scores(60, 2, seed=21) * 1024).T / 1024  # exact in binary, so that the offset adds no rounding
    assert _pair(a + 2.0**20, b + 2.0**20).p == _pair(a, b).p


def test_the_direction_of_the_difference_is_a_minus_b() -> None:
    found = _pair(np.array([0.9, 0.8, 1.0, 0.7]), np.array([0.1, 0.3, 0.2, 0.1]))
    assert found.difference == pytest.approx((0.8 + 0.5 + 0.8 + 0.6) / 4)
    assert 0 < found.low < found.difference < found.high
    assert found.p == 2 / 2**4


@pytest.mark.parametrize("seed", range(4))
def test_identical_systems_differ_by_nothing_whatever_the_seed(seed: int) -> None:
    scores = _scores(50, 6, seed=9)
    scores[:, 4] = scores[:, 1]
    row = next(c for c in compare_all({"f1": scores}, _names(6), seed=seed)["f1"] if (c.a, c.b) == ("s01", "s04"))
    assert (row.difference, row.low, row.high, row.p, row.p_holm) == (0, 0, 0, 1, 1)
    assert isnan(row.smallest_detectable)


@pytest.mark.parametrize("n", [10, 50])
def test_a_constant_shift_has_a_point_interval_and_the_p_of_its_flips(n: int) -> None:
    b = _scores(n, 1, seed=10)[:, 0]
    found = _pair(b + 0.1, b)
    assert (found.difference, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1), abs=1e-12)
    assert found.low == found.high
    assert isnan(found.smallest_detectable)
    assert found.p == (2 / 2**10 if n == 10 else 1 / 10_001)


def test_all_scores_equal_is_no_difference() -> None:
    found = compare_all({"em": np.ones((30, 3))}, _names(3))["em"]
    assert [(c.difference, c.low, c.high, c.p) for c in found] == [(0, 0, 0, 1)] * 3
    assert mean_interval(np.full(30, 0.7)) == pytest.approx((0.7, 0.7))


def test_one_query_or_one_group_gives_a_difference_only() -> None:
    for a, b, groups in [([1.0], [0.25], None), ([1.0, 1.0], [0.0, 0.5], ["d", "d"])]:
        found = _pair(np.array(a), np.array(b), groups=groups)
        assert found.difference == 0.75
        assert np.isnan([found.low, found.high, found.p, found.p_holm, found.smallest_detectable]).all()
    assert all(map(isnan, mean_interval([0.5])))
    assert all(map(isnan, bootstrap_interval([0.5], lambda rows: float(rows.mean()))))


def test_two_queries_have_one_degree_of_freedom_and_four_patterns() -> None:
    found = _pair(np.array([1.0, 0.5]), np.array([0.0, 0.25]))
    half = stats.t.ppf(0.975, 1) * sqrt(2 * 0.375**2 / 1 / 2)
    assert (found.low, found.high) == pytest.approx((0.625 - half, 0.625 + half))
    assert found.p == 2 / 4


# --- Order, seeds, families ------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_p() -> None:
    scores = {"f1": _scores(80, 5)}
    first, again, other = (repr(compare_all(scores, _names(5), seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_the_order_of_systems_changes_signs_only() -> None:
    scores, names = _scores(80, 6, seed=11), _names(6)
    turned = compare_all({"f1": scores[:, ::-1]}, names[::-1])["f1"]
    straight = {(c.a, c.b): c for c in compare_all({"f1": scores}, names)["f1"]}
    for c in turned:
        mirror = straight[c.b, c.a]
        assert (c.p, c.p_holm) == (mirror.p, mirror.p_holm)
        assert (c.difference, c.low, c.high) == pytest.approx((-mirror.difference, -mirror.high, -mirror.low), abs=1e-14)


@pytest.mark.parametrize("grouped", [False, True])
def test_with_ids_the_order_of_queries_changes_nothing(grouped: bool) -> None:
    scores, ids = _scores(80, 4, seed=12), [f"q{i:03d}" for i in range(80)]
    groups = np.array([f"d{i % 20}" for i in range(80)]) if grouped else None
    mixed = np.random.default_rng(0).permutation(80)
    shuffled = compare_all({"f1": scores[mixed]}, _names(4), groups[mixed] if grouped else None, ids=[ids[i] for i in mixed])
    assert repr(shuffled) == repr(compare_all({"f1": scores}, _names(4), groups, ids=ids))


def test_without_ids_the_order_of_queries_changes_the_flips_only() -> None:
    a, b = _scores(60, 2, seed=21).T
    found, turned = _pair(a, b), _pair(a[::-1], b[::-1])
    assert (found.difference, found.low) == pytest.approx((turned.difference, turned.low), abs=1e-14)
    assert found.p == pytest.approx(turned.p, abs=4.5 * sqrt(2 * found.p / 10_000))


def test_other_systems_and_metrics_change_nothing_but_holm() -> None:
    scores, names = _scores(80, 6, seed=13), _names(6)
    many = compare_all({"em": np.round(scores), "f1": scores}, names)["f1"]
    alone = compare_all({"f1": scores[:, [2, 5]]}, [names[2], names[5]])["f1"][0]
    found = next(c for c in many if (c.a, c.b) == ("s02", "s05"))
    assert (found.p, found.difference, found.low) == (alone.p, alone.difference, alone.low)
    assert found.p_holm >= alone.p_holm


def test_chosen_pairs_are_a_family_of_their_own() -> None:
    scores, names = _scores(80, 5, seed=14), _names(5)
    chosen = [("s04", "s00"), ("s01", "s00")]
    found = compare_all({"f1": scores}, names, pairs=chosen)["f1"]
    assert [(c.a, c.b) for c in found] == chosen
    assert [c.p_holm for c in found] == list(holm([c.p for c in found]))


def test_holm_agrees_with_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for m in (1, 2, 5, 45, 990):
        p = np.round(rng.random(m) ** 3, 3)  # with ties
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], rtol=0, atol=1e-12)


def test_holm_steps_down_without_turning_back() -> None:
    assert holm([0.01, 0.02, 0.021, 0.5]) == pytest.approx([4 * 0.01, 3 * 0.02, 3 * 0.02, 0.5])


def test_holm_leaves_missing_p_out_of_the_count() -> None:
    np.testing.assert_allclose(holm([0.02, np.nan, 0.01]), [0.02, np.nan, 0.02])
    assert holm([]).shape == (0,)


def test_45_systems_can_be_found_different() -> None:
    # 990 pairs: 10,000 flips could give 990 / 10,001 = .099 at best.
    scores = _scores(30, 45, seed=15)
    scores[:, 0] = scores[:, 1:].max(axis=1) + 0.5
    found = compare_all({"f1": scores}, _names(45))["f1"]
    smallest = min(c.p for c in found)
    assert smallest >= 1 / (250 * 990 + 1)
    assert min(round(c.p_holm, 6) for c in found) < 0.005  # as written to a file


def test_more_flips_agree_with_the_exact_p() -> None:
    # 19 wins of 20: p = 2 * 21 / 2^20 = 4e-5. 990 such pairs get 247,500 flips each, all the same ones.
    a, b = np.zeros(20), np.zeros(20)
    a[:19], b[19] = 1, 1
    pairs = [("a", "b")] * 990
    p = compare_all({"em": np.column_stack((a, b))}, ["a", "b"], pairs=pairs)["em"][0].p
    assert p == pytest.approx(42 / 2**20, abs=4.5 * sqrt(42 / 2**20 / 247_500) + 1 / 247_500)


def test_small_batches_give_the_same_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"f1": _scores(70, 5, seed=16)}
    whole = compare_all(scores, _names(5))
    for name, value in [("BATCH", 333), ("CHUNK_CELLS", 150)]:
        monkeypatch.setattr(statistics, name, value)
    small = compare_all(scores, _names(5))
    for before, after in zip(whole["f1"], small["f1"], strict=True):
        counts = ((x.p, x.p_holm, x.tested.p_adjusted, x.tested.supported) for x in (before, after))
        assert next(counts) == next(counts)
        # Estimates are not counts: on some processors a product of another shape rounds its last bit differently.
        found, expected = ((x.difference, x.low, x.high, x.tested.low, x.tested.high) for x in (after, before))
        assert found == pytest.approx(expected, rel=1e-12)


# --- What is refused -------------------------------------------------------------------------------------------------


def test_missing_pairs_are_refused_by_name() -> None:
    scores = _scores(10, 3)
    scores[4, 1], scores[7, 0] = np.nan, np.inf
    ids = [f"q{i}" for i in range(10)]
    with pytest.raises(InputError, match=r"'f1'.* q4, q7:.*worst value"):
        compare_all({"f1": scores}, _names(3), ids=ids)
    with pytest.raises(InputError, match="row 4, row 7"):
        compare_all({"f1": scores}, _names(3))
    with pytest.raises(InputError, match="row 4"):
        mean_interval(scores[:, 1])
    with pytest.raises(InputError, match=r"q0, q1, q2, q3, q4 and 5 more"):
        effects({"f1": scores * np.nan}, [{"x": j} for j in range(3)], ids=ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"systems": ["a", "b"]}, "3 columns.*2 systems"),
        ({"systems": ["a", "a", "b"]}, "same name"),
        ({"groups": ["d"] * 9}, r"\(9,\).*each query: \(10,\)"),
        ({"groups": ["d"] * 9 + [None]}, "groups lacks a name for 1 of 10"),
        ({"groups": [1.0] * 9 + [np.nan]}, "groups lacks a name for 1 of 10"),
        ({"ids": ["q"] * 10}, "10 different ids"),
        ({"pairs": [("a", "z")]}, "z.*not among the systems: a, b, c"),
        ({"level": 95}, "95 is not between 0 and 1"),
        ({"matrices": {"f1": np.zeros((10, 3)), "em": np.zeros((9, 3))}}, "different numbers of queries"),
        ({"matrices": {"f1": np.zeros((0, 3))}}, "no queries"),
        ({"matrices": {"f1": np.zeros((2, 2, 3))}}, "3 dimensions"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    fitting = {"matrices": {"f1": np.zeros((10, 3))}, "systems": ["a", "b", "c"]}
    with pytest.raises(InputError, match=message):
        compare_all(**(fitting | change))


def test_unequal_lengths_cannot_be_paired() -> None:
    with pytest.raises(InputError, match="3 scores cannot be paired with 4"):
        paired_interval(np.zeros(3), np.zeros(4))


def test_nothing_to_compare_is_an_empty_answer() -> None:
    assert compare_all({}, ["a"]) == {}
    assert compare_all({"f1": np.zeros((5, 1))}, ["a"]) == {"f1": []}
    assert effects({"f1": np.zeros((5, 1))}, [{"x": 1}]) == {"f1": []}


# --- Power -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 20, 1000])
def test_smallest_detectable_is_that_of_the_t_test(n: int) -> None:
    d = np.random.default_rng(1).normal(0.1, 0.5, n)
    effect = smallest_detectable(d) / d.std(ddof=1)
    assert TTestPower().power(effect, n, 0.05) == pytest.approx(0.8, abs=1e-9)
    assert _pair(d, np.zeros(n)).smallest_detectable == pytest.approx(smallest_detectable(d))


def test_needed_n_is_that_of_the_t_test() -> None:
    d = np.random.default_rng(2).normal(0.1, 0.5, 50)
    expected = TTestPower().solve_power(effect_size=abs(d.mean()) / d.std(ddof=1), alpha=0.05, power=0.8)
    # s / sqrt(n) uses the same s for every n.
    assert needed_n(d) == np.ceil(expected)


# --- Seeds ------------------------------------------------------------------------------------------------------------


def seeded(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, 3) of a system measured with 3 seeds and two without chance, and their means (3, 3) under each seed."""
    rng = np.random.default_rng(5)
    trained = rng.random((3, n))
    fixed = rng.random((n, 2))
    return np.column_stack((trained.mean(axis=0), fixed)), np.column_stack(
        (trained.mean(axis=1), *[[m] * 3 for m in fixed.mean(axis=0)])
    )


def test_seeds_add_their_variance_and_limit_the_degrees_of_freedom() -> None:
    values, by_seed = seeded()
    one = statistics.compare_all({"f1": values}, "abc", by_seed={"f1": by_seed})["f1"][0]
    gaps = values[:, 0] - values[:, 1]
    query, seed = gaps.var(ddof=1) / 40, by_seed[:, 0].var(ddof=1) / 3
    error, df = sqrt(query + seed), 2
    assert (one.low, one.high) == pytest.approx(stats.t.interval(0.95, df, gaps.mean(), error))
    assert one.p == pytest.approx(2 * stats.t.sf(abs(gaps.mean()) / error, df))
    assert (one.low, one.high) != pytest.approx(tuple(statistics.paired_interval(values[:, 0], values[:, 1])))
    assert one.smallest_detectable == pytest.approx(statistics.smallest_detectable(gaps, by_seed=by_seed[:, 0] - by_seed[:, 1]))
    low, high = statistics.mean_interval(values[:, 0], by_seed=by_seed[:, 0])
    assert high - low > np.ptp(statistics.mean_interval(values[:, 0]))


def test_seeds_change_nothing_where_nothing_is_random() -> None:
    values, by_seed = seeded()
    with_seeds, without = (statistics.compare_all({"f1": values}, "abc", by_seed=s)["f1"] for s in ({"f1": by_seed}, None))
    # all but what its family says, which is adjusted as a whole
    assert vars(with_seeds[2]) | {"tested": None} == vars(without[2]) | {"tested": None}
    assert [c.p != d.p for c, d in zip(with_seeds[:2], without[:2], strict=True)] == [True, True]


def test_the_effect_of_an_axis_carries_the_variance_of_seeds() -> None:
    """Two of four systems are trained: under each seed the effect is the mean of both differences."""
    rng = np.random.default_rng(6)
    trained, fixed = rng.random((3, 30, 2)), rng.random((30, 2))
    values = np.hstack((trained.mean(axis=0), fixed))
    by_seed = np.hstack((trained.mean(axis=1), np.tile(fixed.mean(axis=0), (3, 1))))
    design = [{"generator": g, "prompt": p} for g in ("tuned", "base") for p in "xy"]
    (effect,) = (e for e in statistics.effects({"f1": values}, design, by_seed={"f1": by_seed})["f1"] if e.axis == "generator")
    gaps = (values[:, :2] - values[:, 2:]).mean(axis=1)
    seed = trained.mean(axis=(1, 2)).var(ddof=1) / 3
    half = stats.t.isf(0.025, 2) * sqrt(gaps.var(ddof=1) / 30 + seed)
    assert (effect.high - effect.low) / 2 == pytest.approx(half)


def test_more_queries_do_not_make_up_for_too_few_seeds() -> None:
    gaps = np.tile([0.0, 0.2], 50)
    assert statistics.needed_n(gaps) < 100
    assert statistics.needed_n(gaps) < statistics.needed_n(gaps, by_seed=[0.09, 0.1, 0.11]) < inf
    assert statistics.needed_n(gaps, by_seed=[0.0, 0.1, 0.2]) == inf


def test_means_by_seed_must_fit_the_systems() -> None:
    values, by_seed = seeded()
    with pytest.raises(InputError, match="2 columns, but there are 3 systems"):
        statistics.compare_all({"f1": values}, "abc", by_seed={"f1": by_seed[:, :2]})


def test_needed_n_grows_with_the_dependence_within_groups() -> None:
    d = np.random.default_rng(2).normal(0.1, 0.5, 50)
    copies = np.repeat(d, 4)
    assert needed_n(copies, np.repeat(np.arange(50), 4)) == pytest.approx(4 * needed_n(d), abs=4)


def test_power_of_extremes() -> None:
    assert isnan(smallest_detectable([0.1, 0.1, 0.1]))
    assert isnan(needed_n([0.1]))
    assert needed_n([0.5, -0.5]) == inf
    assert needed_n([1.0, 0.99, 1.01]) == 2
    assert 1e9 < needed_n([0.5, -0.5 + 1e-5]) < inf
    with pytest.raises(InputError, match=r"power of 0\.01"):
        smallest_detectable([0.0, 1.0], power=0.01)


# --- Optimism --------------------------------------------------------------------------------------------------------


def test_observed_optimism_is_welch() -> None:
    rng = np.random.default_rng(3)
    select, report = rng.normal(0.2, 1, 30), rng.normal(0, 2, 80)
    expected = stats.ttest_ind(select, report, equal_var=False).confidence_interval()
    found = observed_optimism(select, report)
    assert found.value == pytest.approx(select.mean() - report.mean())
    assert found[1:] == pytest.approx((expected.low, expected.high))


def test_observed_optimism_of_extremes() -> None:
    assert observed_optimism([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25, 0.25)
    found = observed_optimism([0.5], [0.25, 0.5])
    assert found.value == 0.125
    assert isnan(found.low) and isnan(found.high)


def test_observed_optimism_counts_groups() -> None:
    x = np.random.default_rng(4).random(20)
    copies, groups = np.repeat(x, 3), np.repeat(np.arange(20), 3)
    assert observed_optimism(copies, copies, groups, groups) == pytest.approx(observed_optimism(x, x), abs=1e-12)


def test_predicted_optimism_of_four_queries_is_its_formula() -> None:
    # Baseline 0 throughout; x wins 1 on queries 0 and 1, y on 2 and 3. Of the 6 halves, 2 put x's queries together: the best
    # has 1 here and 0 there. In 4, x and y tie with 1/2 here and there. Mean gap 2/6, divided by sqrt(2).
    scores = np.array([[0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], dtype=float)
    assert predicted_optimism(scores, baseline=0, repeats=40_000) == pytest.approx(2 / 6 / sqrt(2), abs=0.01)


def test_predicted_optimism_without_choice_or_spread_is_zero() -> None:
    x = _scores(40, 1, seed=17)
    assert predicted_optimism(np.hstack((x, x)), baseline=0) == 0
    assert predicted_optimism(np.hstack((x, x + 0.2)), baseline=0) == pytest.approx(0, abs=1e-12)
    assert isnan(predicted_optimism(x[:1], baseline=0))
    with pytest.raises(InputError, match="baseline 1 is not one of the 1"):
        predicted_optimism(x, baseline=1)


def test_predicted_optimism_is_repeatable_and_independent_of_the_order_of_systems() -> None:
    scores = np.round(_scores(60, 5, seed=18))
    first = predicted_optimism(scores, 0, np.arange(60) % 15, seed=4)
    assert first == predicted_optimism(scores, 0, np.arange(60) % 15, seed=4) > 0
    assert first == pytest.approx(predicted_optimism(scores[:, ::-1], 4, np.arange(60) % 15, seed=4), abs=1e-12)


# --- Axes ------------------------------------------------------------------------------------------------------------

GRID = [{"retriever": r, "prompt": p} for r in ("bm25", "dense") for p in ("terse", "cited")]


def test_effect_is_the_difference_averaged_over_the_other_axis() -> None:
    x = _scores(40, 4, seed=19)
    found = effects({"f1": x}, GRID)["f1"]
    assert [(e.axis, e.a, e.b, e.cells) for e in found] == [("retriever", "bm25", "dense", 2), ("prompt", "terse", "cited", 2)]
    contrast = ((x[:, 0] - x[:, 2]) + (x[:, 1] - x[:, 3])) / 2
    expected = stats.ttest_1samp(contrast, 0).confidence_interval()
    assert (found[0].difference, found[0].low, found[0].high) == pytest.approx((contrast.mean(), *expected))
    assert found[0].p == _pair(contrast, np.zeros(40)).p
    assert [e.p_holm for e in found] == list(holm([e.p for e in found]))


def test_effect_counts_matched_cells_only() -> None:
    # dense+cited is missing: the retrievers meet under terse alone. The hard prompt of bm25 alone must not count.
    x = _scores(40, 3, seed=20)
    retriever, prompt = effects({"f1": x}, GRID[:3])["f1"]
    assert (retriever.cells, retriever.difference) == (1, pytest.approx((x[:, 0] - x[:, 2]).mean()))
    assert (prompt.cells, prompt.difference) == (1, pytest.approx((x[:, 0] - x[:, 1]).mean()))


def test_levels_that_never_meet_have_no_effect() -> None:
    assert effects({"f1": _scores(9, 2)}, [GRID[0], GRID[3]])["f1"] == []


def test_interaction_is_the_difference_of_differences() -> None:
    x = _scores(40, 4, seed=21)
    (found,) = interactions({"f1": x}, GRID)["f1"]
    assert (found.axes, found.levels, found.cells) == (("retriever", "prompt"), (("bm25", "dense"), ("terse", "cited")), 1)
    contrast = (x[:, 0] - x[:, 2]) - (x[:, 1] - x[:, 3])
    assert found.difference == pytest.approx(contrast.mean())
    assert found.p == _pair(contrast, np.zeros(40)).p
    assert interactions({"f1": x[:, :3]}, GRID[:3])["f1"] == []


def test_interactions_average_over_the_third_axis() -> None:
    design = [point | {"passages": k} for k in (1, 2) for point in GRID]
    x = _scores(40, 8, seed=22)
    found = interactions({"f1": x}, design)["f1"][0]
    halves = [(x[:, k] - x[:, k + 2]) - (x[:, k + 1] - x[:, k + 3]) for k in (0, 4)]
    assert (found.cells, found.difference) == (2, pytest.approx(np.mean(halves)))


def test_purely_additive_scores_interact_by_exactly_nothing() -> None:
    base = np.random.default_rng(5).random((40, 1))
    x = base + np.array([0.1, 0.3]).repeat(2) + np.tile([0.0, 0.2], 2)
    (found,) = interactions({"f1": x}, GRID, groups=np.arange(40) % 20)["f1"]
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_identical_levels_have_no_effect_whatever_the_seed() -> None:
    design = [{"x": x, "y": y} for x in "ab" for y in range(7)]
    half = _scores(40, 7, seed=23)
    found = effects({"f1": np.hstack((half, half))}, design, seed=3)["f1"][0]
    assert (found.axis, found.cells, found.difference, found.low, found.high, found.p) == ("x", 7, 0, 0, 0, 1)


def test_designs_that_do_not_fit_are_refused() -> None:
    x = _scores(9, 2)
    with pytest.raises(InputError, match="same levels on all axes"):
        effects({"f1": x}, [GRID[0], GRID[0]])
    with pytest.raises(InputError, match="all need the same"):
        effects({"f1": x}, [GRID[0], {"retriever": "dense"}])
    with pytest.raises(InputError, match="2 columns, but there are 4 systems"):
        interactions({"f1": x}, GRID)


# --- Letters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("different", "expected"),
    [
        (set(), {"w": "a", "x": "a", "y": "a", "z": "a"}),
        ({("w", "z")}, {"w": "a", "x": "ab", "y": "ab", "z": "b"}),
        ({("w", "y"), ("w", "z"), ("x", "z")}, {"w": "a", "x": "ab", "y": "bc", "z": "c"}),
        (set(combinations("wxyz", 2)), {"w": "a", "x": "b", "y": "c", "z": "d"}),
        ({("w", "x"), ("y", "z")}, {"w": "ab", "x": "cd", "y": "ac", "z": "bd"}),  # cannot be shown with fewer than four
    ],
)
def test_letters_of_known_cases(different: set[tuple[str, str]], expected: dict[str, str]) -> None:
    assert letters(different, list("wxyz")) == expected


def test_sharing_a_letter_means_not_distinguishable() -> None:
    rng, names = np.random.default_rng(6), "abcdefghij"
    for _ in range(20):
        different = {pair for pair in combinations(names, 2) if rng.random() < 0.4}
        shown = letters(different, list(names))
        assert {pair for pair in combinations(names, 2) if not set(shown[pair[0]]) & set(shown[pair[1]])} == different


def test_letters_need_every_system_in_the_order() -> None:
    with pytest.raises(InputError, match="order lacks z"):
        letters({("y", "z")}, ["y"])


def test_more_systems_than_letters() -> None:
    names = [f"s{i}" for i in range(60)]
    shown = letters(list(combinations(names, 2)), names)
    assert len(set(shown.values())) == 60


def test_intervals_unpack_as_pairs() -> None:
    low, high = Interval(0.1, 0.2)
    assert (low, high) == (0.1, 0.2)
