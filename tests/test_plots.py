"""Figures say what the tables of the run say. The runs here are made by hand; scores are chosen, statistics are the project's."""

import re
import subprocess
import sys
from itertools import combinations, pairwise, product
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from handmade import N, configuration_id, f1, make_run, timed
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from workbench import plots
from workbench.errors import InputError
from workbench.models.training import Evaluation
from workbench.plots.look import BETTER, INK, OPEN, PAPER, PICKED, WORSE
from workbench.plots.svg import DARK
from workbench.results import table_files
from workbench.results.rows import (
    LatencyRow,
    SystemRow,
)
from workbench.results.run import Run
from workbench.results.verdict import graded
from workbench.results.words import direction, metric_name, number


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


def markers(ax: Axes) -> list[Line2D]:
    """The marks of differences and of the baseline, in the order drawn; not those of what was gained where it was picked."""
    return [line for line in ax.lines if line.get_marker() != "None" and line.get_ydata()[0] == round(line.get_ydata()[0])]


def points(ax: Axes) -> list[tuple[float, float]]:
    """(x, y) of `markers`."""
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in markers(ax)]


def intervals(ax: Axes) -> list[tuple[float, float, float]]:
    """(low, high, y) of the horizontal bars."""
    bars = [(line.get_xdata(), line.get_ydata()) for line in ax.lines if line.get_marker() == "None"]
    return [(x[0], x[1], y[0]) for x, y in bars if y[0] == y[1] and x[0] != x[1]]


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def names(ax: Axes) -> list[str]:
    return [label.get_text().replace("\n", "") for label in ax.get_yticklabels()]


def test_the_leaderboard_draws_gains_over_the_baseline_with_the_verdicts_intervals_best_on_top(run, ax):
    plots.plot_leaderboard(ax, run, "dev", "f1")
    rows = sorted((r for r in run.leaderboard if (r.split, r.metric) == ("dev", "f1")), key=lambda r: -r.mean)
    pairs = [run.comparison(row.configuration, configuration_id("bm25/base"), "dev", "f1") for row in rows]
    assert points(ax) == [(pair.difference * 100 if pair else 0, y) for y, pair in enumerate(pairs)]
    assert intervals(ax) == [(pair.low * 100, pair.high * 100, y) for y, pair in enumerate(pairs) if pair]
    assert names(ax) == ["dense/tuned", "bm25/tuned", "dense/base", "bm25/base"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # row 0 is on top


def test_the_leaderboard_says_what_follows_the_scores_and_what_could_be_best(run, ax):
    plots.plot_leaderboard(ax, run, "dev", "f1")
    assert ax.get_label() == (
        "2 of 3 other setups are shown to be better than today's setup. "
        "F1 on the 12 questions that the best was picked by (dev); higher is better."
    )
    rows = sorted((r for r in run.leaderboard if (r.split, r.metric) == ("dev", "f1")), key=lambda r: -r.mean)
    scores = [f"{100 * row.mean:.1f}" + (" (1 failed)" if row.failed else "") for row in rows]
    assert [text for text in texts(ax) if text in scores] == scores
    assert [text for text in texts(ax) if text in ("best", "could be the best", "behind the best")] == [
        "best",
        "could be the best",
        "behind the best",
        "behind the best",
    ]
    assert [tick.get_text() for tick in ax.get_yticklabels() if tick.get_fontweight() == "bold"] == ["dense/tuned"]


def test_the_chosen_setups_gain_where_it_was_picked_is_a_diamond_beside_its_gain_on_fresh_questions(run, ax):
    plots.plot_leaderboard(ax, run, "test", "f1")
    picked = run.comparison(configuration_id("dense/tuned"), configuration_id("bm25/base"), "dev", "f1")
    (diamond,) = [line for line in ax.lines if line.get_color() == PICKED]
    assert (diamond.get_xdata()[0], diamond.get_marker()) == (100 * picked.difference, "D")
    assert any("picked by" in text for text in texts(ax))
    plots.plot_leaderboard(other := Figure().subplots(), run, "dev", "f1")
    assert [line.get_marker() for line in markers(other) if line.get_color() == PICKED] == ["D"]


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
    assert {"gain", "verdict", "bm25/tuned"} <= set(texts(ax))
    assert [0, 0] in [list(line.get_xdata()) for line in ax.lines]
    assert "F1 on the 12 questions" in ax.get_label()


@pytest.mark.parametrize("draw", [plots.plot_differences, plots.plot_leaderboard])
def test_a_mark_is_filled_and_its_bar_leaves_out_zero_exactly_where_the_difference_is_shown(run, ax, draw):
    against = configuration_id("bm25/tuned" if draw is plots.plot_differences else "bm25/base")
    draw(ax, run, "dev", "f1", *([against] if draw is plots.plot_differences else []))
    drawn = [line for line in markers(ax) if line.get_color() != INK]
    filled = [line.get_markerfacecolor() != PAPER for line in drawn]
    pairs = [
        run.comparison(configuration_id(name), against, "dev", "f1") for name in names(ax) if name != against.replace("-", "/")
    ]
    assert filled == [pair.supported == "yes" for pair in pairs]
    assert set(filled) == {True, False}
    assert filled == [low > 0 or high < 0 for low, high, _ in intervals(ax)]
    signs = {"shown better": "✓", "shown worse": "✗", "not shown": "?", "not shown, leaning": "?"}
    colours = {"✓": BETTER, "✗": WORSE, "?": OPEN}
    for line, pair in zip(drawn, pairs, strict=True):
        sign = signs[graded(pair)]
        assert f"{sign} {number(pair.difference, signed=True)}" in texts(ax)
        assert line.get_color() in (colours[sign], PICKED)
    if draw is plots.plot_differences:
        assert [text for text in texts(ax) if text in signs] == [graded(pair) for pair in pairs]


def test_effects_are_those_of_the_table_with_their_levels_named(run, ax):
    plots.plot_effects(ax, run, "f1")
    rows = [r for r in run.effects if r.metric == "f1"]
    assert points(ax) == [(r.difference * 100, y) for y, r in enumerate(rows)]
    assert intervals(ax) == [(r.low * 100, r.high * 100, y) for y, r in enumerate(rows)]
    assert names(ax) == ["generator: tuned instead of base", "retriever: dense instead of bm25"]
    assert ax.get_label().startswith("1 of 2 single changes is shown to be better than today's choice. Each choice by itself")


def test_power_curve_falls_and_meets_the_table_at_the_queries_asked(run, ax):
    a, b = configuration_id("bm25/tuned"), configuration_id("bm25/base")
    plots.plot_power(ax, run, "test", "f1", a, b)
    row = run.comparison(a, b, "test", "f1")
    curve, marked = ax.get_lines()[:2]
    assert all(later < sooner for sooner, later in pairwise(curve.get_ydata()))
    assert (marked.get_xdata()[0], marked.get_ydata()[0]) == (N, pytest.approx(100 * row.smallest_detectable, abs=2e-4))
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert f"size of the difference seen: {number(abs(row.difference))}" in legend
    assert f"12 questions: {number(row.smallest_detectable)}" in texts(ax)


def test_the_front_holds_what_nothing_beats_in_quality_and_time(tmp_path, ax):
    run = make_run(tmp_path)
    times = {"bm25/base": 0.1, "bm25/tuned": 0.2, "dense/tuned": 0.4}  # dense/tuned is best, and slowest; bm25/tuned close
    rows = [timed(configuration_id(label), p50) for label, p50 in (times | {"bm25/base": 0.3}).items()]
    table_files.write(run.folder / "latency.csv", LatencyRow, rows)
    plots.plot_pareto(ax, run, "test", "f1")
    front = next(line for line in ax.get_lines() if line.get_label() == "front")
    best = run.comparison(configuration_id("dense/tuned"), configuration_id("bm25/base"), "test", "f1")
    close = run.comparison(configuration_id("bm25/tuned"), configuration_id("bm25/base"), "test", "f1")
    assert list(front.get_xdata()) == [0.2, 0.4]
    assert list(front.get_ydata()) == [100 * close.difference, 100 * best.difference]
    assert texts(ax)[:3] == ["1", "2", "3"]
    listed = next(text for text in texts(ax) if text.startswith("1   "))
    assert [line.split()[1] for line in listed.split("\n")] == ["bm25/tuned", "bm25/base", "dense/tuned"]  # the fastest first


def test_wins_are_counted_per_query_and_a_failure_counts_as_zero(run, ax):
    a, b = "bm25/tuned", "dense/tuned"
    plots.plot_wins(ax, run, "dev", "f1", configuration_id(a), configuration_id(b))
    gaps = sorted((round((0 if q == 3 else f1(a, q)) - f1(b, q), 6) for q in range(N)), reverse=True)
    bars = sorted((round(bar.get_x() + bar.get_width() / 2), bar.get_height()) for bar in ax.patches)
    assert [x for x, _ in bars] == [x for x, gap in enumerate(gaps, 1) if gap]
    assert [height for _, height in bars] == pytest.approx([100 * gap for gap in gaps if gap], abs=2e-4)
    wins, losses = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == [f"▲ better: {wins}", f"▼ worse: {losses}", f"= equal: {N - wins - losses}"]
    assert min(gaps) == pytest.approx(-f1(b, 3), abs=2e-6)
    assert f"better on {wins} of 12 questions, worse on {losses}" in ax.get_label()


def test_training_draws_each_step_and_leaves_a_gap_for_a_missing_loss(ax):
    plots.plot_training(ax, [Evaluation(1, 3.0), Evaluation(2, np.nan), Evaluation(3, 1.5)])
    (line,) = ax.lines
    assert list(line.get_xdata()) == [1, 2, 3]
    assert np.array_equal(line.get_ydata(), [3.0, np.nan, 1.5], equal_nan=True)
    assert "Loss in nats per answer token; lower is better." in ax.get_label()
    assert ax.get_xlabel() == "optimizer step, of 3 steps"


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
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["each step", "examples held back", "kept: 2.25 after step 3"]


def test_no_two_lines_of_a_training_look_the_same(ax):
    curve = [Evaluation(step, 3.0 - step / 20) for step in range(1, 31)]
    plots.plot_training(ax, curve, [Evaluation(0, 3.5), Evaluation(30, 2.25)])
    drawn = [(line.get_color(), line.get_linestyle(), line.get_marker(), line.get_linewidth()) for line in ax.lines]
    assert len(drawn) == len(set(drawn)) == len(ax.get_legend().get_texts()) == 4


def test_systems_are_rows_with_their_means_and_intervals(ax):
    plots.plot_systems(ax, [SystemRow(name, "dev", "f1", 0.2, 0.1, 0.3, 30) for name in ("base", "adapter", "merged")])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["base", "adapter", "merged"]
    assert len(points(ax)) == 3
    assert "F1 on 30 questions of dev" in ax.get_label()


def test_configurations_with_equal_rankings_share_a_row_named_by_what_makes_the_ranking(tmp_path, ax):
    run = make_run(tmp_path, score=lambda label, q: 0.5 if label.startswith("dense") else 0.02 * q)
    plots.plot_ranking_metrics(ax, run, "dev", "ndcg@10")
    assert names(ax) == ["dense", "bm25"]
    assert [x for x, _ in points(ax)] == [pytest.approx(19.5), 0]  # the hand-made nDCG is half the score
    assert [text.split()[0] for text in texts(ax) if re.match(r"[\d.]+ ", text)] == ["25.0", "5.5"]
    with pytest.raises(InputError, match="no metric of rankings 'f1' on 'dev'"):
        plots.plot_ranking_metrics(ax, run, "dev", "f1")


def test_one_configuration_without_generator_is_drawn_and_says_what_it_lacks(lone, ax):
    plots.plot_leaderboard(ax, lone, "dev", "ndcg@10")
    (said,) = texts(ax)
    assert said.startswith("The only setup, bm25, scores ")
    for draw, arguments in ((plots.plot_differences, ("dev", "ndcg@10", "bm25")), (plots.plot_effects, ("ndcg@10",))):
        empty = draw(Figure().subplots(), lone, *arguments)
        assert "no" in " ".join(texts(empty)).lower()
        assert points(empty) == []


def test_one_query_has_no_interval_and_no_p_and_is_drawn_without(tmp_path, ax):
    run = make_run(tmp_path, n=1, failed=())
    plots.plot_leaderboard(ax, run, "dev", "f1")
    assert len(points(ax)) == 4
    assert intervals(ax) == []
    assert "F1 on the 1 question that" in ax.get_label()
    assert [text for text in texts(ax) if text in ("best", "could be the best")] == ["best"] + ["could be the best"] * 3
    other = plots.plot_differences(Figure().subplots(), run, "dev", "f1", configuration_id("bm25/base"))
    assert texts(other).count("not shown") == 3


def test_a_metric_without_a_good_end_promises_none(tmp_path, ax):
    assert direction("abstained") == "neither end is better"
    assert direction("f1") == direction("ndcg@10") == "higher is better"
    run = make_run(tmp_path, metrics=("abstained",), failed=())
    plots.plot_leaderboard(ax, run, "dev", "abstained")
    assert "differ from today's setup" in ax.get_label()
    assert "neither end is better" in ax.get_label()
    assert {line.get_color() for line in markers(ax)} <= {INK, OPEN, PICKED}
    assert not [text for text in texts(ax) if "better" in text.replace("neither end is better", "")]


@pytest.mark.parametrize(
    ("metric", "name"),
    [("f1", "F1"), ("ndcg@10", "nDCG@10"), ("recall@300w", "recall within 300 words"), ("mine", "mine")],
)
def test_metrics_have_the_names_people_write(metric, name):
    assert metric_name(metric) == name


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


def pictures(files: list[Path]) -> list[Path]:
    return [file for file in files if file.suffix == ".png"]


def test_all_figures_of_a_run_are_saved_as_png_and_svg_and_nothing_is_cut(run, tmp_path):
    files = plots.save_figures(run, tmp_path / "new" / "figures")
    expected = ["leaderboard", "differences", "effects", "wins", "power", "rankings"]
    assert [file.name for file in files] == [f"{name}.{kind}" for name in expected for kind in ("png", "svg")]
    assert all(nothing_is_cut(file) for file in pictures(files))
    assert all(matplotlib.image.imread(file).shape[1] == round(plots.WIDTH * 150) for file in pictures(files))


def test_one_configuration_saves_what_fits(lone, tmp_path):
    files = pictures(plots.save_figures(lone, tmp_path))
    assert [file.name for file in files] == ["leaderboard.png", "differences.png", "effects.png", "rankings.png"]
    assert all(nothing_is_cut(file) for file in files)


def test_an_svg_is_text_with_a_title_in_the_palette_and_the_same_bytes_again(run, tmp_path):
    before = dict(matplotlib.rcParams)
    first, again = (plots.save_figures(run, tmp_path / name) for name in ("first", "again"))
    assert dict(matplotlib.rcParams) == before
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    palette = {BETTER, WORSE, OPEN, PICKED, INK, PAPER, *DARK.values()}
    for file in (file for file in first if file.suffix == ".svg"):
        drawn = file.read_text()
        assert set(re.findall(r"#[0-9a-fA-F]{3,8}\b(?!\w)", re.sub(r'(href="|url\()#\w+', "", drawn))) <= palette, file.name
        assert not re.search(r"(fill|stroke): #[0-9a-f]{6}(?!; \1: (var|currentColor))", drawn)
        root = ElementTree.fromstring(drawn)
        title, words = root[0], "".join(root.itertext())
        assert title.tag.endswith("title") and len(title.text) > 20
        assert "today" in words
        assert "<text " in drawn and "date" not in drawn.lower()


def test_the_texts_of_every_figure_are_legible_and_do_not_overlap(run, wide):
    for each in (run, wide):
        for name, drawn in plots.figures(each).items():
            with plots.style():
                legible(drawn, name)


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Run:
    """Fifty configurations, all of which were measured on the selection split, with names that fill two lines."""
    axes = {
        "retriever": [f"retriever-number-{j:02}-of-all" for j in range(25)],
        "generator": ["generator-as-it-is", "generator-fine-tuned"],
    }
    labels = ["/".join(values) for values in product(*axes.values())]

    def score(label: str, q: int) -> float:
        return 0.2 + labels.index(label) / 90 + 0.01 * ((q * 5 + labels.index(label)) % 7)

    made = make_run(tmp_path_factory.mktemp("wide"), axes, n=8, failed=(), score=score, metrics=("f1", "ndcg@10", "recall@10"))
    made.manifest["report"]["split"] = "dev"
    return made


def test_a_figure_of_fifty_setups_is_no_higher_than_a_page_and_says_what_it_leaves_out(wide):
    drawn = plots.figures(wide)
    assert max(figure.get_figheight() for figure in drawn.values()) * 150 < 1800
    board = drawn["leaderboard"].axes[0]
    assert len(names(board)) == plots.ROWS + 1  # and the baseline, which is the worst here
    assert names(board)[-1] == wide.names[wide.manifest["baseline"]]
    rankings = names(drawn["rankings"].axes[0])
    assert len(set(rankings)) == len(rankings) == plots.ROWS + 1  # every row can be told from the others
    said = " ".join(" ".join(texts(ax)) for ax in drawn["leaderboard"].axes)
    assert "29 of 50 are left out; leaderboard.csv has them." in said
    assert "29 of 49 are left out; comparisons.csv has them." in " ".join(texts(drawn["differences"].axes[0]))


def out_of_view(text: Text, box: Bbox) -> bool:
    """Whether a text is the label of a tick beyond the ends of its axis, or of an axis that is switched off."""
    for ax in text.get_figure(root=True).axes:
        for axis, low, high, at in (
            (ax.xaxis, ax.bbox.x0, ax.bbox.x1, (box.x0 + box.x1) / 2),
            (ax.yaxis, ax.bbox.y0, ax.bbox.y1, (box.y0 + box.y1) / 2),
        ):
            if text in axis.get_ticklabels(which="both"):
                return not ax.axison or not low - 1 <= at <= high + 1
            if text is axis.label and not ax.axison:
                return True
    return False


def legible(drawn: Figure, name: str) -> None:
    """No text is smaller than 7 points, stands over another, or leaves the figure."""
    drawn.draw_without_rendering()
    boxes = []
    for text in drawn.findobj(Text):
        said, box = text.get_text(), text.get_window_extent()
        if not said.strip() or not text.get_visible() or out_of_view(text, box):
            continue
        if said.endswith("\n"):  # the empty line of a name, where its code stands
            box = box.from_extents(box.x0, box.y0 + box.height / len(said.split("\n")), box.x1, box.y1)
        assert text.get_fontsize() >= 7, (name, said)
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= drawn.bbox.x1 and box.y1 <= drawn.bbox.y1, (name, said)
        boxes.append((box, said))
    for (one, first), (other, second) in combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        down = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert across <= 1 or down <= 2, (name, first, second)


def test_long_labels_are_not_cut(tmp_path):
    axes = {
        "retriever": ["bm25-with-english-stemmer-and-stop-words", "hybrid-of-three-retrievers-by-reciprocal-ranks"],
        "reranker": ["none", "cross-encoder-ms-marco-minilm-l6-v2-top-fifty"],
    }
    labels = ["/".join(values) for values in product(*axes.values())]
    run = make_run(tmp_path, axes, failed=((labels[0], "dev", 0),), score=lambda label, q: (labels.index(label) + q) / 20)
    # only the finalists are on test, and none of these is one: report on the selection split
    run.manifest["report"]["split"] = "dev"
    assert all(nothing_is_cut(file) for file in pictures(plots.save_figures(run, tmp_path / "figures")))


def test_figures_and_views_load_no_torch_and_open_no_window():
    unwanted = ("torch", "scipy", "transformers", "matplotlib.pyplot")
    code = f"import sys, workbench.plots, workbench.widgets; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
