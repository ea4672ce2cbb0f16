"""Families of tests: p, adjusted p, verdict and interval are of one test, whatever the scores look like."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from workbench.evaluation import families, statistics
from workbench.evaluation.families import EXPLORATORY, FINALISTS, PRIMARY, Plan, Plans
from workbench.evaluation.statistics import PairedComparison, compare_all, effects, interactions

FLIPS = 10_000


def names(k: int) -> list[str]:
    return [f"s{j:03}" for j in range(k)]


def graded(n: int, k: int, seed: int) -> np.ndarray:
    """Scores (n, k) of five grades; questions differ in difficulty, systems a little in skill."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(0, 1, (n, 1)) + rng.normal(0, 0.25, k) + rng.normal(0, 0.7, (n, k))
    return np.digitize(latent, [-1.2, -0.4, 0.4, 1.2]) / 4


def compared(scores: np.ndarray, **options: object) -> list[PairedComparison]:
    return compare_all({"f1": scores}, names(scores.shape[1]), **options)["f1"]


def agrees(one: statistics.Finding) -> bool:
    """Whether interval and verdict say the same."""
    t = one.tested
    if np.isnan(t.low):
        return not t.supported
    return t.supported == (t.low > 0 or t.high < 0) and t.low <= one.difference <= t.high


# --- Families fixed before the data ----------------------------------------------------------------------------------


def test_a_pair_belongs_to_the_first_family_that_names_it() -> None:
    plan = Plan(baseline="base", chosen="best", twins=["twin"])
    assert plan.family("best", "base") == plan.family("base", "best") == PRIMARY
    assert plan.family("base", "other") == plan.family("twin", "base") == plan.family("twin", "best") == FINALISTS
    assert plan.family("twin", "other") == plan.family("best", "other") == EXPLORATORY
    assert Plan(baseline="base").family("base", "best") == FINALISTS  # the baseline was chosen, so there is no primary test
    assert Plan().family("base", "best") == EXPLORATORY
    assert Plan("base", "best", ["base"]).family("best", "base") == PRIMARY  # the twin is the baseline


def test_only_fresh_questions_have_a_primary_test() -> None:
    fresh = Plans("dev", "test", "f1", "base", "best", ["twin"])
    assert fresh.plan("test", "f1").family("best", "base") == PRIMARY
    assert fresh.plan("test", "em").family("best", "base") == FINALISTS
    assert fresh.plan("dev", "f1").family("best", "base") == EXPLORATORY
    same = Plans("dev", "dev", "f1", "base", "best", ["twin"]).plan("dev", "f1")  # the choice was made on these very questions
    assert same.family("best", "base") == same.family("other", "base") == FINALISTS
    assert same.family("best", "twin") == EXPLORATORY


def test_the_primary_test_is_not_adjusted_and_the_others_do_not_move_it() -> None:
    scores = graded(80, 6, seed=1)
    plan = Plan("s000", "s001")
    many = {(c.a, c.b): c.tested for c in compared(scores, plans={"f1": plan})}
    alone = compared(scores[:, :2], plans={"f1": plan})[0].tested
    assert many["s000", "s001"] == alone and alone.p_adjusted == alone.p
    assert [t.family for t in many.values()].count(FINALISTS) == 4


# --- The test ---------------------------------------------------------------------------------------------------------


def independent(scores: np.ndarray, flips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P and adjusted p of all pairs (m,), from signs (B, n): the definition, nothing shared, nothing in blocks."""
    gaps = np.stack([scores[:, a] - scores[:, b] for a, b in combinations(range(scores.shape[1]), 2)], axis=1)
    norm = np.sqrt((gaps**2).sum(axis=0))
    norm[norm == 0] = np.inf
    seen, flipped = np.abs(gaps.sum(axis=0)) / norm, np.abs(flips @ gaps) / norm
    largest = flipped.max(axis=1, keepdims=True)
    p = (1 + (flipped >= seen - 1e-9).sum(axis=0)) / (1 + len(flips))
    return p, (1 + (largest >= seen - 1e-9).sum(axis=0)) / (1 + len(flips))


def test_45_systems_on_177_questions_agree_with_an_independent_permutation_test() -> None:
    """990 pairs. Two estimates from 10,000 flips differ by at most 5 standard errors: by chance, 990 in 1,700,000."""
    scores = graded(177, 45, seed=0)
    found = compared(scores)
    signs = np.random.default_rng(99).choice([-1.0, 1.0], (FLIPS, 177))
    p, adjusted = independent(scores, signs)
    for got, expected in (([c.tested.p for c in found], p), ([c.tested.p_adjusted for c in found], adjusted)):
        error = np.sqrt(2 * expected * (1 - expected) / FLIPS) + 2e-4
        assert (np.abs(np.array(got) - expected) <= 5 * error).all()
    assert 20 < sum(c.tested.supported for c in found) < 970
    assert all(map(agrees, found))


def test_with_the_same_flips_the_adjusted_p_is_that_of_the_definition() -> None:
    scores = graded(60, 8, seed=3)
    stream = np.random.default_rng(7)
    kept = np.concatenate(list(statistics._batches(60, FLIPS, stream)))
    p, adjusted = independent(scores, 2 * kept - 1)
    found = compared(scores, seed=7)
    assert [c.tested.p for c in found] == pytest.approx(p, abs=1e-12)
    assert [c.tested.p_adjusted for c in found] == pytest.approx(adjusted, abs=1e-12)


@pytest.mark.parametrize("n", [6, 9, 13])
def test_few_questions_get_all_patterns(n: int) -> None:
    scores = graded(n, 5, seed=n) + np.arange(5) / 8
    patterns = np.array(list(product([1.0, -1.0], repeat=n)))
    p, adjusted = independent(scores, patterns)  # counts one pattern too many, as for a sample
    found = compared(scores)
    assert [c.tested.p for c in found] == pytest.approx((p * (1 + 2**n) - 1) / 2**n, abs=1e-12)
    assert [c.tested.p_adjusted for c in found] == pytest.approx((adjusted * (1 + 2**n) - 1) / 2**n, abs=1e-12)
    assert all(map(agrees, found))


def test_the_ends_are_the_differences_at_which_the_statistic_is_critical() -> None:
    rng = np.random.default_rng(4)
    for sizes in (np.ones(30), np.repeat([1.0, 2.0, 5.0], 10)):
        sums = rng.normal(0.3, 1, (len(sizes), 1)) * sizes[:, None]
        n, c = sizes.sum(), np.array([2.0])
        difference = sums.sum(axis=0) / n
        residuals = sums - sizes[:, None] * difference
        columns = difference, np.sqrt((sums**2).sum(axis=0)), (residuals**2).sum(axis=0), sizes @ residuals, np.array([30.0])
        ends = families.ends(families.Sums(*columns, n, 30, float(sizes @ sizes)), c)
        for end in ends:
            moved = sums[:, 0] - sizes * end[0]
            assert abs(moved.sum()) / np.sqrt(moved @ moved) == pytest.approx(2.0)
        assert ends[0][0] < difference[0] < ends[1][0]


def test_the_critical_value_is_the_smallest_that_at_most_5_percent_exceed() -> None:
    whole = np.sort(np.repeat([1.0, 2.0, 3.0, 4.0], [10, 8, 1, 1]))  # 20 patterns: one may exceed it
    assert families.critical(whole, whole=True) == 3.0
    assert families.critical(np.sort(np.repeat([1.0, 4.0], [18, 2])), whole=True) == 4.0
    assert families.critical(np.arange(99.0), whole=False) == 94.0  # the fifth largest
    assert families.critical(np.arange(10.0), whole=False) == np.inf


# --- Rules at the edges -----------------------------------------------------------------------------------------------


def test_fewer_than_six_groups_have_no_interval_and_show_nothing() -> None:
    scores = np.column_stack([np.full(20, 0.9), np.linspace(0, 0.1, 20)])
    (few,) = compared(scores, groups=np.arange(20) % 5)
    assert np.isnan(few.tested.low) and np.isnan(few.tested.high) and not few.tested.supported
    (six,) = compared(scores, groups=np.arange(20) % 6)
    assert six.tested.supported and six.tested.low > 0
    (one,) = compared(scores, groups=np.zeros(20))
    assert np.isnan(one.tested.p) and not one.tested.supported


def test_very_unequal_groups_have_no_interval() -> None:
    """Eight small groups agree, and a large one that hardly differs could be anything: n^2 = 48^2 < c^2 (40^2 + 8)."""
    groups = np.repeat(np.arange(9), [40, 1, 1, 1, 1, 1, 1, 1, 1])
    gap = np.where(groups == 0, 0.001, 0.9)
    (found,) = compared(np.column_stack([gap, np.zeros(48)]), groups=groups)
    assert np.isnan(found.tested.low) and np.isnan(found.tested.high) and not found.tested.supported
    assert found.tested.p_adjusted < 0.05


@pytest.mark.parametrize("differing", range(8))
def test_differences_in_fewer_than_six_questions_show_nothing(differing: int) -> None:
    scores = np.zeros((60, 2))
    scores[:differing, 0] = 1.0
    (found,) = compared(scores)
    assert found.tested.supported == (differing >= 6)
    assert agrees(found)
    if 0 < differing < 6:  # no narrower than where the normal approximation would put it
        gap = scores[:, 0]
        n, s, q = 60, gap.sum(), gap @ gap
        c = max(families.NORMAL, np.sqrt(q))
        assert found.tested.low == 0 or (s - n * found.tested.low) ** 2 == pytest.approx(
            c**2 * ((gap - found.tested.low) ** 2).sum()
        )


@pytest.mark.parametrize(
    ("gap", "least"),
    [
        (0.9 + 0.01 * np.arange(5), 6),  # five questions agree: six would show it, one would not
        (np.repeat([1.0, 0.0], [5, 95]), 120),
        (np.repeat([1.0, 0.0], [3, 3]), 12),
        (np.array([0.9, 0.8, 0.7, 0.9, 0.5, -0.4, 0.4, -0.3]), 9),
    ],
)
def test_what_is_not_shown_needs_more_questions_than_were_asked(gap: np.ndarray, least: int) -> None:
    (found,) = compared(np.column_stack([gap, np.zeros(len(gap))]))
    assert not found.tested.supported and found.tested.n_needed >= least


def test_as_many_questions_as_needed_show_it_in_8_of_10_samples() -> None:
    """1,000 samples of right and wrong: standard error .013; the normal approximation takes .06 off .8."""
    rng, odds = np.random.default_rng(6), [0.25, 0.15, 0.6]
    gaps = np.repeat([1.0, -1.0, 0.0], [25, 15, 60])
    (found,) = compared(np.column_stack([gaps, np.zeros(100)]))
    n = int(found.tested.n_needed)
    samples = rng.choice([1.0, -1.0, 0.0], (n, 1_000), p=odds)
    flipped = np.abs(rng.choice([-1.0, 1.0], (1_000, n)) @ samples)
    p = (flipped >= np.abs(samples.sum(axis=0)) - 1e-9).mean(axis=0)
    assert 0.7 <= (p <= 0.05).mean() <= 0.86


def test_equal_systems_and_constant_shifts_have_a_point() -> None:
    base = np.linspace(0, 0.7, 40)
    same, shifted = compared(np.column_stack([base, base, base + 0.25]))[:2]
    assert (same.tested.low, same.tested.high, same.tested.supported, same.tested.p) == (0, 0, False, 1)
    assert (shifted.tested.low, shifted.tested.high) == pytest.approx((-0.25, -0.25)) and shifted.tested.supported


def test_a_family_with_seeds_is_adjusted_by_bonferroni() -> None:
    rng = np.random.default_rng(2)
    scores = rng.normal(0.5, 0.2, (50, 1)) + rng.normal(0, 0.1, (50, 4)) + np.array([0, 0.02, 0.1, 0.2])
    by_seed = np.tile(scores.mean(axis=0), (4, 1))
    by_seed[:, 3] += [-0.01, 0.01, -0.02, 0.02]
    found = compared(scores, by_seed={"f1": by_seed})
    assert [c.tested.p_adjusted for c in found] == pytest.approx([min(1, 6 * c.tested.p) for c in found])
    assert all(map(agrees, found))
    assert all((c.tested.p_adjusted <= 0.05) == c.tested.supported for c in found)
    plan = Plan("s000", "s001")  # without seeds of its own, a family keeps its flips
    primary = next(c for c in compared(scores, by_seed={"f1": by_seed}, plans={"f1": plan}) if c.tested.family == PRIMARY)
    assert primary.tested == next(c for c in compared(scores, plans={"f1": plan}) if c.tested.family == PRIMARY).tested


def test_effects_and_interactions_are_families_of_their_own() -> None:
    design = [{"x": x, "y": y} for x in "ab" for y in "cd"]
    scores = {"f1": graded(60, 4, seed=5)}
    for found, name in ((effects(scores, design), "effects"), (interactions(scores, design), "interactions")):
        assert {one.tested.family for one in found["f1"]} == {name}
        assert all(map(agrees, found["f1"]))


def kinds(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Scores of a kind drawn at random: binary, sparse, graded, continuous, equal, heavy-tailed."""
    kind = rng.integers(6)
    skill = rng.normal(0, 0.15, k)
    if kind == 0:
        return (rng.random((n, 1)) * 0.5 + rng.random((n, k)) * 0.5 < 0.5 + skill).astype(float)
    if kind == 1:
        return (rng.random((n, k)) < 0.04 + np.abs(skill) / 4).astype(float)
    if kind == 2:
        return np.digitize(rng.normal(0, 1, (n, 1)) + skill * 3 + rng.normal(0, 0.7, (n, k)), [-1, 0, 1, 2]) / 4
    if kind == 3:
        return np.clip(rng.normal(0.5, 0.3, (n, 1)) + skill + rng.normal(0, 0.2, (n, k)), 0, 1)
    if kind == 4:
        return np.tile(rng.random((n, 1)), (1, k)) + np.where(np.arange(k) % 2, 0.0, rng.normal(0, 1e-7, (n, k)))
    return np.abs(rng.standard_t(2, (n, k))) * (1 + np.abs(skill))


def simulated(runs: int, seed: int) -> tuple[int, int]:
    """Rows, and rows with an interval, of runs of random kinds, sizes and groups; fails where picture and verdict differ."""
    rng = np.random.default_rng(seed)
    rows = intervals = 0
    for run in range(runs):
        n = int(rng.integers(1, 8) if rng.random() < 0.03 else rng.integers(8, 200))
        k = int(rng.integers(2, 7))
        groups = None if rng.random() < 0.7 else np.sort(rng.integers(0, max(8, n // 3), n))
        scores = kinds(rng, n, k)
        plan = Plan("s000", "s001", ["s002"]) if rng.random() < 0.5 else None
        by_seed = None
        if rng.random() < 0.15:
            by_seed = {"f1": scores.mean(axis=0) + rng.normal(0, 0.02, (3, k)) * (rng.random(k) < 0.5)}
        for one in compared(scores, groups=groups, plans=plan and {"f1": plan}, seed=run, by_seed=by_seed):
            assert agrees(one), (run, one)
            t = one.tested
            if not np.isnan(t.p):
                assert t.p <= t.p_adjusted + 1e-12 and t.supported <= (t.p_adjusted <= 0.05)
            rows += 1
            intervals += not np.isnan(t.low)
    return rows, intervals


def test_random_runs_never_contradict_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "FLIPS", 500)
    rows, intervals = simulated(60, seed=0)
    assert intervals >= 0.9 * rows


@pytest.mark.soak
def test_a_thousand_random_runs_never_contradict_themselves() -> None:
    rows, intervals = simulated(1_000, seed=1)
    assert intervals >= 0.95 * rows
