"""How often the intervals of families hold the truth, and what the maximum statistic finds beside Holm's method.

Simulated scores, whose truth is known. ``python tests/calibration.py`` writes docs/calibration.md from many repeats (a few
minutes on two cores); the tests use the same functions with fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from test_statistics_calibration import CLAIMED, HARD, RIGHT_OR_WRONG, SIZES, Truth, covered

from workbench.evaluation import families, statistics
from workbench.evaluation.families import Plan
from workbench.evaluation.statistics import compare_all

PAGE = Path(__file__).parent.parent / "docs" / "calibration.md"
FLIPS = 2_000  # in simulations: the critical value is a little noisier than in runs, which does not move a mean over repeats


class Single(NamedTuple):
    """Coverage of single intervals of 95 %, and how many questions differed, on average."""

    coverage: float
    differing: float
    intervals: float


def single(truth: Truth, n: int, repeats: int, seed: int = 0) -> Single:
    """Intervals of many columns of differences at once, by the functions that a run uses for one.

    The flips are drawn anew for each 500 columns.
    """
    rng = np.random.default_rng(seed)
    held = known = differing = 0.0
    for start in range(0, repeats, 500):
        columns = truth.draw(rng, (n, min(500, repeats - start)))
        signs = rng.choice([-1.0, 1.0], (FLIPS, n))
        total, norm = columns.sum(axis=0), np.sqrt((columns**2).sum(axis=0))
        residuals = columns - total / n
        nonzero = (columns != 0).sum(axis=0).astype(float)
        sums = families.Sums(total / n, norm, (residuals**2).sum(axis=0), residuals.sum(axis=0), nonzero, n, n, float(n))
        scale = np.where(norm > 0, norm, 1.0)
        flipped = np.sort(np.abs(signs @ columns) / scale, axis=0)
        c = np.array([families.critical(column, whole=False) for column in flipped.T])
        c = np.where(nonzero < families.FEW_GROUPS, np.maximum(c, families.NORMAL), c)
        low, high = families.ends(sums, c)
        held += ((low - 1e-12 <= truth.mean) & (truth.mean <= high + 1e-12)).sum()
        known += np.isfinite(low).sum()
        differing += nonzero.sum()
    return Single(held / repeats, differing / repeats, known / repeats)


class Family(NamedTuple):
    """Of many simulated runs: share whose intervals all hold the truth, share with a false alarm, true differences found."""

    coverage: float
    alarms: float
    found: float
    found_by_holm: float


def correlated(rng: np.random.Generator, n: int, shifts: Sequence[float], binary: bool) -> np.ndarray:
    """Scores (n, k) of systems whose questions differ in difficulty; the mean of each is moved by its shift."""
    k = len(shifts)
    if not binary:
        return rng.normal(0.5, 0.6, (n, 1)) + rng.normal(0, 0.4, (n, k)) + np.array(shifts)
    easy = rng.beta(0.7, 0.7, (n, 1))  # the chance of being right, before what a system adds
    shared = np.where(rng.random((n, k)) < 0.5, rng.random((n, 1)), rng.random((n, k)))
    chance = np.clip(easy, 0.2, 0.8) + np.array(shifts)
    return (shared < chance).astype(float)


def family(k: int, runs: int, against: bool, binary: bool, n: int = 80, effect: float = 0.15, seed: int = 0) -> Family:
    """Runs of k systems, every second of them better by `effect`; all pairs, or each against the first."""
    rng, names = np.random.default_rng(seed), [f"s{j:03}" for j in range(k)]
    shifts = {name: effect * (j % 2) for j, name in enumerate(names)}
    pairs = [(name, names[0]) for name in names[1:]] if against else None
    plan = Plan(names[0]) if against else None
    held = alarms = found = holm = true = 0
    for run in range(runs):
        scores = correlated(rng, n, list(shifts.values()), binary)
        rows = compare_all({"f1": scores}, names, pairs=pairs, plans=plan and {"f1": plan}, seed=run)["f1"]
        truth = [shifts[c.a] - shifts[c.b] for c in rows]
        held += all(c.tested.low - 1e-12 <= d <= c.tested.high + 1e-12 for c, d in zip(rows, truth, strict=True))
        alarms += any(c.tested.supported and d == 0 for c, d in zip(rows, truth, strict=True))
        real = [c for c, d in zip(rows, truth, strict=True) if d]
        true += len(real)
        found += sum(c.tested.supported for c in real)
        holm += sum(c.p_holm < 0.05 for c in real)
    return Family(held / runs, alarms / runs, found / max(true, 1), holm / max(true, 1))


FAMILIES = {  # what is compared -> systems, whether against the first, binary scores
    "3 pairs of 3 systems": (3, False, False),
    "10 pairs of 5 systems": (5, False, False),
    "45 pairs of 10 systems": (10, False, False),
    "120 pairs of 16 systems": (16, False, False),
    "44 systems against a baseline": (45, True, False),
    "119 systems against a baseline": (120, True, False),
    "45 pairs of 10 systems, right or wrong": (10, False, True),
    "44 systems against a baseline, right or wrong": (45, True, True),
}


def means() -> list[str]:
    """What the page says of intervals of means."""
    head = [
        "",
        "## Means of answers that are right or wrong",
        "",
        "The interval of a mean lies between 0 and 100: it is a t interval of the mean's logit, turned back. Where all questions",
        "score the same, it reaches as far as other questions may lie by the rule of three. The exact chance that it holds the",
        "true share, a sum over all counts of right answers:",
        "",
        "| true share | n = 50 | n = 200 | n = 1000 |",
        "| --- | ---: | ---: | ---: |",
    ]
    return head + [f"| {share} | {' | '.join(f'{covered(share, n):.3f}' for n in SIZES)} |" for share in RIGHT_OR_WRONG]


def write(repeats: int = 10_000, runs: int = 1_000) -> None:
    """The page, from many repeats."""
    statistics.FLIPS = FLIPS
    lines = [
        "# How often the intervals hold the truth",
        "",
        "An interval of 95 % should hold the true difference in 95 of 100 runs. Whether ours do is tried here on made-up scores,",
        "whose truth is known. `python tests/calibration.py` writes this page; `tests/test_statistics_calibration.py` says how",
        "the scores are drawn. The interval is the sign-flip test inverted (`workbench/evaluation/families.py`).",
        "",
        f"## Single intervals of 95 %, {repeats:,} repeats",
        "",
        f"Standard error of a coverage of .95: {np.sqrt(0.95 * 0.05 / repeats):.4f}. In brackets: how many questions differ.",
        "",
        "*Claimed*: the kinds of scores for which the tests demand .93 or more. *Hard*: rare differences and heavy tails, for",
        "which nothing is promised; the table says how far the intervals are off there.",
        "",
        "| differences | n = 50 | n = 200 | n = 1000 |",
        "| --- | ---: | ---: | ---: |",
    ]
    cases = [(f"claimed: {name}", *case) for name, case in CLAIMED.items() if not name.startswith("mean")]
    cases += [(f"hard: {name}", truth, SIZES) for name, (truth, _) in HARD.items() if not name.startswith("mean")]
    for name, truth, sizes in cases:
        found = {n: single(truth, n, repeats) for n in sizes}
        cells = [f"{found[n].coverage:.3f} ({found[n].differing:.0f})" if n in found else "see below" for n in SIZES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"## Families, {runs:,} runs of 80 questions each",
        "",
        "Every second system is better by .15. *All held*: runs in which all intervals of the family hold the truth at once.",
        "*Found*: share of the true differences that are supported, by the maximum statistic and by Holm's adjustment of the",
        "same p-values. *False alarm*: the same with systems that are all equal: runs in which any two are called different.",
        "",
        "| family | all held | found | found by Holm | false alarm |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, (k, against, binary) in FAMILIES.items():
        one, equal = family(k, runs, against, binary), family(k, runs, against, binary, effect=0.0)
        lines.append(f"| {name} | {one.coverage:.3f} | {one.found:.3f} | {one.found_by_holm:.3f} | {equal.alarms:.3f} |")
    lines += means()
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
