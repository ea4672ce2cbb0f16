"""Figures say what the tables of the run say. The runs here are made by hand; scores are chosen, statistics are the project's."""

import json
import subprocess
import sys
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench import plots
from workbench.errors import InputError
from workbench.evaluation.families import Plans
from workbench.models.training import Evaluation
from workbench.results import table_files, tables
from workbench.results.rows import (
    ComparisonRow,
    ConfigurationRow,
    EffectRow,
    FinalistRow,
    InteractionRow,
    LatencyRow,
    LeaderboardRow,
    QueryRow,
    ResultRow,
    SeedRow,
    SelectionRow,
    SystemRow,
)
from workbench.results.run import Run
from workbench.results.verdict import graded
from workbench.results.words import number

AXES = {"retriever": ["bm25", "dense"], "generator": ["base", "tuned"]}
N = 12  # queries; 2^12 sign patterns: the smallest p is 2 / 4096, and over 6 pairs Holm makes at most .003 of it
F1 = {"bm25/base": 0.2, "bm25/tuned": 0.7, "dense/base": 0.21, "dense/tuned": 0.71}
FINALISTS = ["bm25/base", "bm25/tuned", "dense/tuned"]


def configuration_id(label: str) -> str:
    """Ids sort as labels do."""
    return label.replace("/", "-")


def f1(label: str, q: int) -> float:
    """The mean of a configuration plus a wiggle that is the same for base and for tuned, but not for both."""
    return F1.get(label, 0.5) + 0.01 * ((q * (3 if "tuned" in label else 5) + len(label)) % 7 - 3)


def make_run(
    runs: Path,
    axes: dict[str, list[str]] = AXES,
    n: int = N,
    run_id: str = "20260102T030405Z-aaaaaa",
    metrics: tuple[str, ...] = ("f1", "ndcg@10"),
    failed: tuple[tuple[str, str, int], ...] = (("bm25/tuned", "dev", 3),),
    experiment: str = "handmade",
    score=f1,
    shift: int = 0,
) -> Run:
    """A finished run: all configurations on dev, three on test, the first is the baseline.

    `failed`: label, split, query; queries of test are scored as if their numbers were larger by `shift`.
    """
    folder = runs / experiment / run_id
    folder.mkdir(parents=True)
    points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    labels = ["/".join(point[axis] for axis in axes if len(axes[axis]) > 1) or point["retriever"] for point in points]
    ids = [configuration_id(label) for label in labels]
    rows = [
        ResultRow(c, split, f"q{q:02}", metric, *((None, "failed") if gone else (value / (1 if metric == "f1" else 2), "ok")))
        for c, label in zip(ids, labels, strict=True)
        for split in ("dev", "test")
        if split == "dev" or label in FINALISTS or len(labels) == 1
        for q in range(n)
        for value in [score(label, q + (shift if split == "test" else 0))]
        for metric in metrics
        for gone in [(label, split, q) in failed and metric == "f1"]
    ]
    scores = tables.matrices(rows, {f"q{q:02}": f"q{q:02}" for q in range(n)})
    design = dict(zip(ids, points, strict=True))
    about = [ConfigurationRow(c, label, point, False, {}) for c, label, point in zip(ids, labels, points, strict=True)]
    asked = [QueryRow(split, f"q{q:02}", f"q{q:02}", "?") for split in ("dev", "test") for q in range(n)]
    by = {(one.split, one.metric): one for one in scores}
    select, report = by["dev", metrics[0]], by.get(("test", metrics[0]))
    best = min(ids, key=lambda c: (-select.column(c).mean(), c))
    compared = tables.comparisons(scores, seed=0, plans=Plans("dev", "test", metrics[0], ids[0], best))
    table_files.write_configurations(folder / "configurations.csv", list(axes), about)
    table_files.write(folder / "results.csv", ResultRow, rows)
    table_files.write(folder / "leaderboard.csv", LeaderboardRow, tables.leaderboard(scores))
    table_files.write(folder / "comparisons.csv", ComparisonRow, compared)
    table_files.write(folder / "queries.csv", QueryRow, asked)
    table_files.write(folder / "seeds.csv", SeedRow, [])
    table_files.write(folder / "effects.csv", EffectRow, tables.effects(scores, design, ids[0], "dev", seed=0))
    table_files.write(folder / "interactions.csv", InteractionRow, tables.interactions(scores, design, ids[0], "dev", seed=0))
    table_files.write(folder / "finalists.csv", FinalistRow, tables.finalists(compared, "test", ids[0]))
    there = report if report and {best, ids[0]} <= set(report.systems) else None
    table_files.write(folder / "selection.csv", SelectionRow, [tables.selection(select, there, best, ids[0], seed=0)])
    manifest = {
        "experiment": experiment,
        "seed": 0,
        "seeds": 1,
        "search": {"strategy": "grid", "order": "models first"},
        "failures": {},
        "cut": {},
        "repeated": {},
        "truncation": [],
        "select": {"split": "dev", "metric": metrics[0]},
        "report": {"split": "test", "of": "finalists"},
        "baseline": ids[0],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Run.open(folder)


def timed(configuration: str, p50: float) -> LatencyRow:
    """What `workbench latency` would say of a configuration whose median is `p50` seconds; all else is 1."""
    ones = dict.fromkeys(LatencyRow._fields, 1.0) | {"requests": 50, "processor": "a processor"}
    return LatencyRow(**ones | {"configuration": configuration, "p50": p50, "p50_low": p50 - 0.01, "p50_high": p50 + 0.01})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def lone(tmp_path_factory) -> Run:
    """One configuration, one metric of rankings, no generator."""
    return make_run(tmp_path_factory.mktemp("runs"), {"retriever": ["bm25"]}, metrics=("ndcg@10",))


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def points(ax: Axes) -> list[tuple[float, float]]:
    """(x, y) of the markers, in the order drawn."""
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if line.get_marker() != "None"]


def intervals(ax: Axes) -> list[tuple[float, float, float]]:
    """(low, high, y) of the horizontal bars."""
    bars = [(line.get_xdata(), line.get_ydata()) for line in ax.lines if line.get_marker() == "None"]
    return [(x[0], x[1], y[0]) for x, y in bars if y[0] == y[1] and x[0] != x[1]]


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def names(ax: Axes) -> list[str]:
    return [label.get_text().replace("\n", "") for label in ax.get_yticklabels()]


def test_the_leaderboard_draws_means_and_intervals_of_the_table_best_on_top(run, ax):
    plots.plot_leaderboard(ax, run, "dev", "f1")
    rows = sorted((r for r in run.leaderboard if (r.split, r.metric) == ("dev", "f1")), key=lambda r: -r.mean)
    assert points(ax) == [(r.mean * 100, y) for y, r in enumerate(rows)]
    assert intervals(ax) == [(r.ci_low * 100, r.ci_high * 100, y) for y, r in enumerate(rows)]
    assert names(ax) == ["dense/tuned", "bm25/tuned (1 failed)", "dense/base", "bm25/base"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # row 0 is on top


def test_the_leaderboard_says_n_direction_baseline_and_what_could_be_best(run, ax):
    plots.plot_leaderboard(ax, run, "dev", "f1")
    assert "mean F1, points of 100 (higher is better)" in ax.get_xlabel()
    assert "n = 12 queries" in ax.get_xlabel()
    baseline = run.row(configuration_id("bm25/base"), "dev", "f1").mean
    assert f"baseline {100 * baseline:.1f}" in texts(ax)
    assert [100 * baseline, 100 * baseline] in [list(line.get_xdata()) for line in ax.lines]
    assert [text for text in texts(ax) if "best" in text] == ["best", "could be the best", "behind the best", "behind the best"]


def test_differences_are_those_of_the_table_turned_to_the_configuration_asked_for(run, ax):
    against = configuration_id("bm25/tuned")
    plots.plot_differences(ax, run, "dev", "f1", against)
    expected = [run.comparison(configuration_id(name), against, "dev", "f1") for name in names(ax)]
    assert len(expected) == 3
    assert points(ax) == [(pair.difference * 100, y) for y, pair in enumerate(expected)]
    assert intervals(ax) == [(pair.low * 100, pair.high * 100, y) for y, pair in enumerate(expected)]
    means = {r.configuration: r.mean for r in run.leaderboard if (r.split, r.metric) == ("dev", "f1")}
    assert points(ax)[0][0] / 100 == pytest.approx(means[configuration_id("dense/tuned")] - means[against], abs=2e-6)
    assert all(a >= b for (a, _), (b, _) in pairwise(points(ax)))
    assert {"no difference", "verdict"} <= set(texts(ax))
    assert [0, 0] in [list(line.get_xdata()) for line in ax.lines]
    assert "n = 12 queries" in ax.get_xlabel()


def test_a_marker_is_filled_and_its_bar_leaves_out_zero_exactly_where_the_difference_is_shown(run, ax):
    against = configuration_id("bm25/tuned")
    plots.plot_differences(ax, run, "dev", "f1", against)
    filled = [line.get_markerfacecolor() != "white" for line in ax.lines if line.get_marker() != "None"]
    pairs = [run.comparison(configuration_id(name), against, "dev", "f1") for name in names(ax)]
    assert filled == [pair.supported == "yes" for pair in pairs] == [False, True, True]
    assert filled == [low > 0 or high < 0 for low, high, _ in intervals(ax)]
    said = [text for text in texts(ax) if "shown" in text]
    assert said == [f"{number(pair.difference, signed=True)}  {graded(pair)}" for pair in pairs]


def test_effects_are_those_of_the_table_with_their_levels_named(run, ax):
    plots.plot_effects(ax, run, "f1")
    rows = [r for r in run.effects if r.metric == "f1"]
    assert points(ax) == [(r.difference * 100, y) for y, r in enumerate(rows)]
    assert intervals(ax) == [(r.low * 100, r.high * 100, y) for y, r in enumerate(rows)]
    assert names(ax) == ["generator: tuned − base", "retriever: dense − bm25"]
    assert "the first is better" in ax.get_xlabel()


def test_power_curve_falls_and_meets_the_table_at_the_queries_asked(run, ax):
    a, b = configuration_id("bm25/tuned"), configuration_id("bm25/base")
    plots.plot_power(ax, run, "test", "f1", a, b)
    row = run.comparison(a, b, "test", "f1")
    curve, marked = ax.get_lines()[:2]
    assert all(later < sooner for sooner, later in pairwise(curve.get_ydata()))
    assert (marked.get_xdata()[0], marked.get_ydata()[0]) == (N, pytest.approx(row.smallest_detectable, abs=2e-6))
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert f"size of the difference seen: {abs(row.difference):.3f}" in legend


def test_the_front_holds_what_nothing_beats_in_quality_and_time(tmp_path, ax):
    run = make_run(tmp_path)
    times = {"bm25/base": 0.1, "bm25/tuned": 0.2, "dense/tuned": 0.4}  # dense/tuned is best, and slowest; bm25/tuned close
    rows = [timed(configuration_id(label), p50) for label, p50 in (times | {"bm25/base": 0.3}).items()]
    table_files.write(run.folder / "latency.csv", LatencyRow, rows)
    plots.plot_pareto(ax, run, "test", "f1")
    front = next(line for line in ax.get_lines() if line.get_label() == "front")
    means = {label: run.row(configuration_id(label), "test", "f1").mean for label in times}
    assert list(front.get_xdata()) == [0.2, 0.4]
    assert list(front.get_ydata()) == [means["bm25/tuned"], means["dense/tuned"]]
    hollow = [line.get_label() for line in ax.get_lines() if line.get_markerfacecolor() == "white"]
    assert hollow == ["bm25/base"]


def test_wins_are_counted_per_query_and_a_failure_counts_as_zero(run, ax):
    a, b = "bm25/tuned", "dense/tuned"
    plots.plot_wins(ax, run, "dev", "f1", configuration_id(a), configuration_id(b))
    gaps = sorted((round((0 if q == 3 else f1(a, q)) - f1(b, q), 6) for q in range(N)), reverse=True)
    bars = sorted((round(bar.get_x() + bar.get_width() / 2), bar.get_height()) for bar in ax.patches)
    assert [x for x, _ in bars] == [x for x, gap in enumerate(gaps, 1) if gap]
    assert [height for _, height in bars] == pytest.approx([gap for gap in gaps if gap], abs=2e-6)
    wins, losses = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == [f"better: {wins}", f"worse: {losses}", f"equal: {N - wins - losses}"]
    assert min(gaps) == pytest.approx(-f1(b, 3), abs=2e-6)
    assert "12 queries" in ax.get_xlabel()


def test_training_draws_each_step_and_leaves_a_gap_for_a_missing_loss(ax):
    plots.plot_training(ax, [Evaluation(1, 3.0), Evaluation(2, np.nan), Evaluation(3, 1.5)])
    (line,) = ax.lines
    assert list(line.get_xdata()) == [1, 2, 3]
    assert np.array_equal(line.get_ydata(), [3.0, np.nan, 1.5], equal_nan=True)
    assert "nats per answer token\n(lower is better)" in ax.get_ylabel()
    assert "n = 3 steps" in ax.get_xlabel()


def test_a_long_training_gets_the_mean_of_its_last_tenth(ax):
    plots.plot_training(ax, [Evaluation(step, float(step)) for step in range(1, 31)])
    each, smooth = ax.lines
    assert list(each.get_ydata()) == list(range(1, 31))
    assert (smooth.get_xdata()[0], smooth.get_ydata()[0]) == (3, (1 + 2 + 3) / 3)
    assert (smooth.get_xdata()[-1], smooth.get_ydata()[-1]) == (30, (28 + 29 + 30) / 3)


def test_the_lowest_loss_on_what_was_held_back_is_marked(ax):
    curve = [Evaluation(step, 3.0 - step / 4) for step in range(1, 7)]
    plots.plot_training(ax, curve, [Evaluation(0, 3.5), Evaluation(3, 2.25), Evaluation(6, 2.5)])
    _, held, kept = ax.lines
    assert list(held.get_xdata()) == [0, 3, 6] and list(held.get_ydata()) == [3.5, 2.25, 2.5]
    assert (list(kept.get_xdata()), list(kept.get_ydata())) == ([3], [2.25])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["each step", "held back", "kept: 2.25 after step 3"]


def test_systems_are_rows_with_their_means_and_intervals(ax):
    plots.plot_systems(ax, [SystemRow(name, "dev", "f1", 0.2, 0.1, 0.3, 30) for name in ("base", "adapter", "merged")])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["base", "adapter", "merged"]
    assert len(points(ax)) == 3 and "F1 on dev" in ax.get_xlabel() and "n = 30" in ax.get_xlabel()


def test_configurations_with_equal_rankings_share_a_marker_named_by_what_makes_the_ranking(tmp_path, ax):
    run = make_run(tmp_path, score=lambda label, q: 0.5 if label.startswith("dense") else 0.02 * q)
    plots.plot_ranking_metrics(ax, run, "dev")
    assert [x for x, _ in points(ax)] == [0.25, pytest.approx(0.01 * 5.5)]  # the hand-made nDCG is half the score
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["dense", "bm25"]
    assert names(ax) == ["nDCG@10"]


def test_a_configuration_looks_the_same_on_every_split_and_in_every_figure(run):
    def look(draw, wanted: str, *arguments) -> tuple[str, str]:
        ax = draw(Figure().subplots(), run, *arguments)
        markers = [line for line in ax.lines if line.get_marker() != "None"]
        line = markers[[name.split(" ")[0] for name in names(ax)].index(wanted)]
        return line.get_color(), line.get_marker()

    seen = {
        look(plots.plot_leaderboard, "dense/tuned", "dev", "f1"),
        look(plots.plot_leaderboard, "dense/tuned", "test", "f1"),
        look(plots.plot_leaderboard, "dense/tuned", "dev", "ndcg@10"),
        look(plots.plot_differences, "dense/tuned", "dev", "f1", configuration_id("bm25/base")),
    }
    assert seen == {plots.looks(run)[configuration_id("dense/tuned")]}


def test_fifty_six_configurations_look_different_and_neighbours_twice():
    run = SimpleNamespace(labels={f"c{j:02}": "" for j in range(56)})
    drawn = list(plots.looks(run).values())
    assert len(set(drawn)) == 56
    assert all(a.colour != b.colour and a.marker != b.marker for a, b in pairwise(drawn))


def test_one_configuration_without_generator_is_drawn_and_says_what_it_lacks(lone, ax):
    plots.plot_leaderboard(ax, lone, "dev", "ndcg@10")
    assert names(ax) == ["bm25"]
    assert len(points(ax)) == 1
    for draw, arguments in ((plots.plot_differences, ("dev", "ndcg@10", "bm25")), (plots.plot_effects, ("ndcg@10",))):
        empty = draw(Figure().subplots(), lone, *arguments)
        assert "no" in " ".join(texts(empty)).lower()
        assert points(empty) == []


def test_one_query_has_no_interval_and_no_p_and_is_drawn_without(tmp_path, ax):
    run = make_run(tmp_path, n=1, failed=())
    plots.plot_leaderboard(ax, run, "dev", "f1")
    assert len(points(ax)) == 4
    assert intervals(ax) == []
    assert "n = 1 query" in ax.get_xlabel()
    assert [text for text in texts(ax) if "best" in text] == ["best"] + ["could be the best"] * 3  # nothing was tested
    other = plots.plot_differences(Figure().subplots(), run, "dev", "f1", configuration_id("bm25/base"))
    assert len([text for text in texts(other) if text.endswith("not shown")]) == 3


def test_a_metric_without_a_good_end_promises_none():
    assert plots.direction("abstained") == "neither end is better"
    assert plots.direction("f1") == plots.direction("ndcg@10") == "higher is better"


@pytest.mark.parametrize(
    ("metric", "name"),
    [("f1", "F1"), ("ndcg@10", "nDCG@10"), ("recall@300w", "recall within 300 words"), ("mine", "mine")],
)
def test_metrics_have_the_names_people_write(metric, name):
    assert plots.metric_name(metric) == name


def test_what_was_not_measured_is_refused_with_what_was(run, ax):
    with pytest.raises(InputError, match=r"'dev f2'; allowed: dev f1, dev ndcg@10, test f1"):
        plots.plot_leaderboard(ax, run, "dev", "f2")
    with pytest.raises(InputError, match="unknown configuration 'nobody'"):
        plots.plot_differences(ax, run, "dev", "f1", "nobody")
    with pytest.raises(InputError, match="dense/base was not measured by f1 on 'test'"):
        plots.plot_wins(ax, run, "test", "f1", configuration_id("dense/base"), configuration_id("bm25/base"))


def nothing_is_cut(file: Path) -> bool:
    """Whether the outermost two pixels of a picture are white all round."""
    picture = matplotlib.image.imread(file)[..., :3]
    return all((edge == 1).all() for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]))


def test_all_figures_of_a_run_are_saved_and_nothing_is_cut(run, tmp_path):
    files = plots.save_figures(run, tmp_path / "new" / "figures")
    assert [file.name for file in files] == [
        "leaderboard.png",
        "differences.png",
        "effects.png",
        "wins.png",
        "power.png",
        "rankings.png",
    ]
    assert all(nothing_is_cut(file) for file in files)
    assert all(matplotlib.image.imread(file).shape[1] == round(plots.WIDTH * 150) for file in files)


def test_one_configuration_saves_what_fits(lone, tmp_path):
    files = plots.save_figures(lone, tmp_path)
    assert [file.name for file in files] == ["leaderboard.png", "differences.png", "effects.png", "rankings.png"]
    assert all(nothing_is_cut(file) for file in files)


def test_long_labels_are_not_cut(tmp_path):
    axes = {
        "retriever": ["bm25-with-english-stemmer-and-stop-words", "hybrid-of-three-retrievers-by-reciprocal-ranks"],
        "reranker": ["none", "cross-encoder-ms-marco-minilm-l6-v2-top-fifty"],
    }
    labels = ["/".join(values) for values in product(*axes.values())]
    run = make_run(tmp_path, axes, failed=((labels[0], "dev", 0),), score=lambda label, q: (labels.index(label) + q) / 20)
    # only the finalists are on test, and none of these is one: report on the selection split
    run.manifest["report"]["split"] = "dev"
    assert all(nothing_is_cut(file) for file in plots.save_figures(run, tmp_path / "figures"))


def test_figures_and_views_load_no_torch_and_open_no_window():
    unwanted = ("torch", "scipy", "transformers", "matplotlib.pyplot")
    code = f"import sys, workbench.plots, workbench.widgets; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
