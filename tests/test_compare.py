"""`workbench compare`: runs, anybody's scores, rankings; every figure against an independent computation."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Finished, workbench
from scipy import stats
from statsmodels.stats.multitest import multipletests

from workbench.errors import InputError
from workbench.results import foreign, rendering
from workbench.results.compare import Compared
from workbench.results.foreign import Scale

SYSTEMS = ("dense", "bm25", "hybrid")


@pytest.fixture
def scores() -> np.ndarray:
    """Scores (40, 3) of three systems, the third clearly better."""
    rng = np.random.default_rng(5)
    base = rng.random((40, 1))
    return np.clip(base * 0.6 + rng.normal(0, 0.08, (40, 3)) + [0.0, 0.02, 0.25], 0, 1).round(4)


def wide(path: Path, scores: np.ndarray, groups: bool = False) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", *(["group"] if groups else []), *SYSTEMS])
        for i, row in enumerate(scores.tolist()):
            writer.writerow([f"q{i:02}", *([f"d{i // 4}"] if groups else []), *row])
    return path


def long(path: Path, scores: np.ndarray) -> Path:
    rows = [(s, f"q{i:02}", "f1", scores[i, j]) for i in range(len(scores)) for j, s in enumerate(SYSTEMS)]
    random.Random(1).shuffle(rows)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["configuration", "query_id", "metric", "value"])
        writer.writerows(rows)
    return path


def test_intervals_and_holm_agree_with_scipy_and_statsmodels(tmp_path: Path, scores: np.ndarray) -> None:
    (one,) = foreign.read_table(wide(tmp_path / "s.csv", scores))
    compared = Compared(one, baseline="bm25")
    for system in ("dense", "hybrid"):
        gap = scores[:, SYSTEMS.index(system)] - scores[:, 1]
        found, expected = compared.against_baseline[system], stats.ttest_1samp(gap, 0).confidence_interval(0.95)
        assert found.difference == pytest.approx(gap.mean())
        assert (found.ci_low, found.ci_high) == pytest.approx((expected.low, expected.high))
    p = [c.p for c in compared.pairs]
    assert [c.p_holm for c in compared.pairs] == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)


def test_long_and_wide_form_give_the_same_table(tmp_path: Path, scores: np.ndarray) -> None:
    (a,), (b,) = foreign.read_table(long(tmp_path / "l.csv", scores)), foreign.read_table(wide(tmp_path / "w.csv", scores), "f1")
    assert rendering.as_markdown(Compared(a)) == rendering.as_markdown(Compared(b))


def test_letters_part_exactly_the_systems_that_differ(tmp_path: Path, scores: np.ndarray) -> None:
    (one,) = foreign.read_table(wide(tmp_path / "s.csv", scores))
    compared = Compared(one)
    for pair in compared.pairs:
        shared = set(compared.letters[pair.a]) & set(compared.letters[pair.b])
        assert bool(shared) == (pair.supported == "no")
    assert compared.letters["hybrid"] == "a"
    assert "a" not in compared.letters["dense"]


def test_the_caption_says_how_much_choosing_here_flatters(tmp_path: Path) -> None:
    """Twenty equal systems: the best of them looks better than it is, and split halves know by how much."""
    rng = np.random.default_rng(0)
    table = (rng.random((100, 20)) < 0.5).astype(float)
    path = tmp_path / "equal.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", *(f"s{j}" for j in range(20))])
        writer.writerows([f"q{i}", *row] for i, row in enumerate(table.tolist()))
    (one,) = foreign.read_table(path)
    compared = Compared(one, baseline="s0")
    # the expected largest of 20 means of 100 coin flips lies 1.87 standard errors of .05 above the truth, s0 at it
    assert compared.optimism == pytest.approx(1.87 * 0.05, abs=0.04)
    assert f"flattered by about {100 * compared.optimism:.1f}" in rendering.caption(compared)


def test_a_failure_counts_as_the_worst_value_of_the_range_given_or_else_seen(tmp_path: Path, scores: np.ndarray) -> None:
    path = wide(tmp_path / "s.csv", scores)
    lines = path.read_text().splitlines()
    lines[1] = "q00,," + lines[1].split(",", 2)[2]
    path.write_text("\n".join(lines))
    (seen,) = foreign.read_table(path)
    (given,) = foreign.read_table(path, scale=Scale(-1.0, 1.0))
    rest = scores[1:, 0].sum()
    smallest = min(scores[1:].min(), scores[0, 1:].min())
    assert Compared(seen).standing("dense").mean == pytest.approx((rest + smallest) / 40)
    assert Compared(given).standing("dense").mean == pytest.approx((rest - 1) / 40)
    assert Compared(given).standing("dense").failed == 1
    assert "A failure counts as −1.000." in rendering.caption(Compared(given))


def test_groups_widen_the_interval_of_dependent_questions(tmp_path: Path) -> None:
    """Four questions a document, all moved together: the interval is that of the 10 documents, with 9 degrees of freedom."""
    rng = np.random.default_rng(2)
    shift = np.repeat(rng.normal(0.1, 0.2, 10), 4)
    table = np.column_stack([0.5 + shift, np.full(40, 0.5), np.full(40, 0.5)])
    (one,) = foreign.read_table(wide(tmp_path / "g.csv", table, groups=True))
    found = Compared(one, baseline="bm25").against_baseline["dense"]
    expected = stats.ttest_1samp(shift[::4], 0).confidence_interval(0.95)
    assert (found.ci_low, found.ci_high) == pytest.approx((expected.low, expected.high))
    assert "in 10 groups" in rendering.caption(Compared(one))


def broken(edit: Callable[[list[str]], object]) -> Callable[[list[str]], list[str]]:
    def apply(lines: list[str]) -> list[str]:
        edit(lines)
        return lines

    return apply


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (broken(lambda rows: rows.pop(1)), ["1 query is not scored by every system", "not by", "empty value"]),
        (broken(lambda rows: rows.append(rows[1])), ["second score", "line 122"]),
        (broken(lambda rows: rows.__setitem__(3, rows[3].rsplit(",", 1)[0] + ",good")), ["line 4", "'good' is no score"]),
        (broken(lambda rows: rows.__setitem__(3, rows[3].rsplit(",", 1)[0] + ",nan")), ["line 4", "finite number"]),
        (broken(lambda rows: rows.__setitem__(0, "configuration,question,metric,value")), ["lacks the columns query_id"]),
        (broken(lambda rows: rows.__setitem__(0, "system,question,metric,value")), ["one column per system"]),
        (lambda rows: rows[:1], ["holds no scores"]),
        (broken(lambda rows: rows.__setitem__(2, "bm25,,f1,0.5")), ["line 3", "query_id is empty"]),
    ],
)
def test_bad_tables_are_refused_naming_the_place(
    tmp_path: Path, scores: np.ndarray, edit: Callable[[list[str]], list[str]], words: list[str]
) -> None:
    path = long(tmp_path / "s.csv", scores)
    path.write_text("\n".join(edit(path.read_text().splitlines())))
    with pytest.raises(InputError) as error:
        foreign.read_table(path)
    assert all(word in str(error.value) for word in words), error.value


def test_a_value_outside_the_range_is_refused(tmp_path: Path, scores: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"outside the range 0 to 0\.1"):
        foreign.read_table(wide(tmp_path / "s.csv", scores), scale=Scale(0, 0.1))


def test_trec_rankings_are_scored_on_the_judged_queries(tmp_path: Path) -> None:
    """nDCG@10 of one relevant document at rank r is 1 / log2(1 + r); a query without a ranking scores 0."""
    (tmp_path / "qrels").write_text("q1 0 a 1\nq2 0 b 1\nq3 0 c 1\nq4 0 d 0\n")
    (tmp_path / "first.trec").write_text("q1 Q0 a 1 9 x\nq1 Q0 b 2 8 x\nq2 Q0 a 1 9 x\nq2 Q0 b 2 8 x\nq9 Q0 z 1 1 x\n")
    (tmp_path / "second.trec").write_text("q1 Q0 a 1 9 y\nq2 Q0 b 1 9 y\nq3 Q0 c 1 9 y\n")
    (one,) = foreign.read_rankings([tmp_path / "first.trec", tmp_path / "second.trec"], tmp_path / "qrels", ["ndcg@10"])
    assert one.systems == ("first", "second")
    assert one.queries == ("q1", "q2", "q3")
    assert one.values[:, 0].tolist() == pytest.approx([1, 1 / math.log2(3), 0])
    assert one.values[:, 1].tolist() == [1, 1, 1]


def test_trec_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("q1 0 a 1\n")
    (tmp_path / "other.trec").write_text("x1 Q0 a 1 9 x\n")
    (tmp_path / "noise.trec").write_text("what is this\n")
    with pytest.raises(InputError, match=r"ranks none of the queries judged in .* \(1\)"):
        foreign.read_rankings([tmp_path / "other.trec"], tmp_path / "qrels", ["ndcg@10"])
    with pytest.raises(InputError, match=r"line 1 has 3 fields instead of 6: .*; needed: `query Q0 document rank score tag`"):
        foreign.read_rankings([tmp_path / "noise.trec"], tmp_path / "qrels", ["ndcg@10"])
    with pytest.raises(InputError, match="in documents"):
        foreign.read_rankings([tmp_path / "other.trec"], tmp_path / "qrels", ["recall@100w"])


def test_command_prints_a_table_and_writes_csv_markdown_and_latex(tmp_path: Path, scores: np.ndarray) -> None:
    path = wide(tmp_path / "s.csv", scores)
    outs = [tmp_path / f"out.{kind}" for kind in ("csv", "md", "tex")]
    done = workbench("compare", path, "--metric", "f1", "--baseline", "bm25", *(x for out in outs for x in ("--out", out)))
    assert done.returncode == 0, done.stderr
    assert "hybrid" in done.stdout
    assert "shown better" in done.stdout
    rows = list(csv.DictReader(outs[0].open()))
    assert {(row["a"], row["b"]) for row in rows} == {("hybrid", "bm25"), ("hybrid", "dense"), ("bm25", "dense")}
    table = [line for line in outs[1].read_text().splitlines() if line.startswith("|")]
    assert len(table) == 5
    assert {line.count("|") for line in table} == {10}
    latex = outs[2].read_text()
    assert latex.count(r"\\") == 4
    assert all(line.count("&") == 7 for line in latex.splitlines() if line.endswith(r"\\"))


def test_command_refuses_what_it_cannot_compare(tmp_path: Path, scores: np.ndarray) -> None:
    path = wide(tmp_path / "s.csv", scores)
    for arguments, words in [
        ((tmp_path / "none.csv",), "cannot be read"),
        ((path, "--baseline", "bm52"), "Did you mean 'bm25'"),
        ((path, "--out", tmp_path / "x.pdf"), ".csv, .md, .tex"),
        ((path, path), "one table"),
    ]:
        done = workbench("compare", *arguments)
        assert done.returncode == 2, done.stdout
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_run_is_compared_as_its_own_tables_say(toy: Finished, tmp_path: Path) -> None:
    out = tmp_path / "pairs.csv"
    done = workbench("compare", toy.run, "--split", "dev", "--metric", "f1", "--out", out)
    assert done.returncode == 0, done.stderr
    from workbench.results.run import Run

    run = Run.open(toy.run)
    found = {frozenset((row["a"], row["b"])): row for row in csv.DictReader(out.open())}
    own = [row for row in run.comparisons if (row.split, row.metric) == ("dev", "f1")]
    assert len(own) == len(found) > 0
    for row in own:
        other = found[frozenset((run.labels[row.a], run.labels[row.b]))]
        assert abs(row.difference) == pytest.approx(abs(float(other["difference"])), abs=2e-6)
        # p-values have six decimals, and Holm multiplies them by up to the number of pairs
        assert row.p_holm == pytest.approx(float(other["p_holm"]), abs=1e-6 * (1 + len(own)))
        assert (row.family, row.supported) == (other["family"], other["supported"])


def test_the_same_configuration_in_two_runs_is_one_system(toy: Finished) -> None:
    done = workbench("compare", toy.run, toy.run)
    alone = workbench("compare", toy.run)
    assert done.returncode == alone.returncode == 0, done.stderr
    assert done.stdout == alone.stdout


def test_runs_on_other_questions_are_refused(toy: Finished, tmp_path: Path) -> None:
    import json
    import shutil

    other = shutil.copytree(toy.run, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["dataset"]["queries"] = dict.fromkeys(manifest["dataset"]["queries"], "another digest")
    (other / "manifest.json").write_text(json.dumps(manifest))
    done = workbench("compare", toy.run, other)
    assert done.returncode == 2
    assert "was measured on other queries" in done.stderr
