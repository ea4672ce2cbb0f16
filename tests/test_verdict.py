"""One verdict and one number on winner and baseline, wherever a run shows them; and the words and numbers themselves."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, workbench
from handmade import configuration_id, make_run
from matplotlib.figure import Figure
from test_families import kinds
from test_plots import names
from typer.testing import CliRunner

from workbench import cli, plots
from workbench.errors import InputError
from workbench.evaluation import statistics
from workbench.evaluation.families import Plans
from workbench.results import conclusions, rendering, table_files, tables, words
from workbench.results.compare import of_runs
from workbench.results.rows import ComparisonRow, ConfigurationRow, EffectRow, FinalistRow
from workbench.results.run import TABLES, Run
from workbench.results.verdict import (
    BASELINE,
    BETTER,
    EQUAL,
    LEANING,
    OPEN,
    UNCOMPARED,
    UNKNOWN,
    WORSE,
    Verdict,
    counts,
    graded,
    shown,
    verdict,
)
from workbench.serving.facts import Served
from workbench.serving.page.html import heading_html
from workbench.views.notebook import run_html
from workbench.views.report import report
from workbench.widgets import VerdictPage

BEST, BASE = "dense/tuned", "bm25/base"
N = 40


def wave(label: str, q: int) -> float:
    """A number in 0 to 1 that looks random, and depends on the label."""
    return (np.sin(12.9898 * (q + 1) + 78.233 * sum(map(ord, label))) * 43758.5453) % 1


def scored(gain_dev: float, gain_test: float, noise: float) -> Callable[[str, int], float]:
    """Scores of the winner above those of the others; the splits differ in the gain. Queries of test follow those of dev."""

    def score(label: str, q: int) -> float:
        gain = (gain_dev if q < N else gain_test) if label == BEST else 0.0
        return float(np.clip(0.4 + gain + noise * (wave(label, q) - 0.5), 0, 1))

    return score


RUNS = {  # what the winner gains on dev and on test, the noise, and the word that must come of it
    "better": (0.30, 0.08, 0.8, BETTER),
    "worse": (0.30, -0.16, 0.8, WORSE),
    "not shown": (0.30, -0.02, 0.8, OPEN),
    "leaning": (0.30, 0.05, 0.8, LEANING),
    "baseline best": (-0.5, -0.5, 0.0, BASELINE),
    "rankings only": (0.30, 0.08, 0.8, BETTER),
}


def fixture_run(runs: Path, name: str) -> Run:
    gain_dev, gain_test, noise, _ = RUNS[name]
    score = scored(gain_dev, gain_test, noise)
    metrics = ("ndcg@10",) if name == "rankings only" else ("f1", "ndcg@10")
    return make_run(runs, n=N, metrics=metrics, failed=(), score=score, shift=N, experiment=f"fixture-{list(RUNS).index(name)}")


@pytest.fixture(scope="module", params=RUNS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    return fixture_run(tmp_path_factory.mktemp("runs"), request.param), RUNS[request.param][3]


def generator() -> object:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outlets(run: Run, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What each outlet says of the winner against the baseline, on the report split by the metric that chooses."""
    best, base = run.labels[run.best], run.manifest["baseline"]
    (_, metric), split = run.select, run.report_split
    cli._print_outcome(run, Path("runs"), details=False)
    said = {"run": capsys.readouterr().out, "notebook 03": "\n".join(conclusions.conclusions(run))}
    said["dashboard"] = re.sub("<[^>]*>", " ", VerdictPage(run).said)
    said["report in a notebook"] = re.sub("<[^>]*>", " ", run_html(run))
    said["report"] = re.sub("<[^>]*>", " ", report(run))
    served = Served("e", "r", best, True, "d", 1, None, verdict(run, run.best))
    said["demo"] = re.sub("<[^>]*>", " ", heading_html(served))
    if best != run.labels[base]:
        done = CliRunner().invoke(cli.app, ["compare", str(run.folder), "--split", split])
        assert done.exit_code == 0, done.output
        said["compare"] = next(line for line in done.output.splitlines() if best in line)
        lines = rendering.as_markdown(of_runs([run], split, metric)).splitlines()
        said["compare --out md"] = next(line for line in lines if best in line)
        said["README"] = next(line for line in generator().compact(run).splitlines() if line.startswith(f"| {best} "))
        ax = plots.plot_differences(Figure().subplots(), run, split, metric, base)
        said["figure"] = " ".join(text.get_text() for text in ax.texts if text.xy == (1, names(ax).index(best)))
    return said


def test_every_outlet_says_one_word_and_one_number(case: tuple[Run, str], capsys: pytest.CaptureFixture[str]) -> None:
    run, word = case
    found = verdict(run)
    assert found.word == word
    said = outlets(run, capsys)
    expected = "setup itself" if word == BASELINE else word
    for outlet, text in said.items():
        folded = " ".join(text.lower().split())
        assert expected in folded, (outlet, text)
        assert word == BASELINE or found.number in folded, (outlet, text)
        others = {BETTER, WORSE, LEANING} - {word}
        if outlet in ("compare", "README", "figure", "demo"):
            assert not [other for other in others if other in folded], (outlet, text)
    rows = [row for row in run.finalists if (row.configuration, row.metric) == (run.best, run.select[1])]
    assert word == BASELINE or [(row.family, graded(row)) for row in rows] == [("primary", word)]


def test_the_families_of_these_runs_disagree_under_holm(tmp_path: Path) -> None:
    """The primary test shows what Holm's adjustment over all pairs would not, so the runs above can tell them apart."""
    run = fixture_run(tmp_path, "better")
    row = run.comparison(run.best, run.manifest["baseline"], "test", "f1")
    assert row and row.supported == "yes" and row.p_holm > 0.05 > row.p


def drawn_rows(run: Run) -> list[ComparisonRow | EffectRow | FinalistRow]:
    return [*run.comparisons, *run.effects, *run.finalists]


def agrees(row: ComparisonRow | EffectRow | FinalistRow) -> bool:
    if row.low is None or row.high is None:
        return row.supported == "no"
    return (row.low > 0 or row.high < 0) == shown(row)


def test_over_every_row_the_bar_touches_zero_exactly_when_nothing_is_shown(case: tuple[Run, str]) -> None:
    run, _ = case
    assert all(map(agrees, drawn_rows(run)))
    for row in drawn_rows(run):  # and as people read it
        ends = words.between(row.low, row.high, signed=True).replace("\N{MINUS SIGN}", "-").split(" to ")
        low, high = map(float, ends)
        assert (low > 0 or high < 0) == (graded(row) in (BETTER, WORSE))


def simulated(runs: int, folder: Path, seed: int) -> int:
    """Random scores through the tables, the files and the words; how many rows were drawn."""
    rng, drawn = np.random.default_rng(seed), 0
    for _ in range(runs):
        n, k = int(rng.integers(6, 80)), int(rng.integers(2, 6))
        systems, queries = tuple(f"s{j}" for j in range(k)), tuple(f"q{i:03}" for i in range(n))
        values = np.clip(kinds(rng, n, k), 0, 1)
        scores = tables.Scores("f1", "test", systems, queries, queries, values, np.zeros(values.shape, dtype=bool))
        rows = tables.comparisons([scores], 0, Plans("test", "f1", "s0", "s1", ["s2"]))
        table_files.write(folder / "comparisons.csv", ComparisonRow, rows)
        read = table_files.read(folder / "comparisons.csv", ComparisonRow)
        for row in [*read, *tables.finalists(read, "test", "s0")]:
            found = Verdict(graded(row, 0.02 if rng.random() < 0.5 else None), "a", "b", "test", "f1", row)
            assert agrees(row), row
            assert found.word in found.phrase and found.sentence
            assert "-0" not in found.phrase
            drawn += 1
    return drawn


def test_random_runs_have_verdicts_without_an_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "FLIPS", 500)
    assert simulated(40, tmp_path, seed=0) > 200


@pytest.mark.soak
def test_a_thousand_random_runs_have_verdicts_without_an_exception(tmp_path: Path) -> None:
    assert simulated(1_000, tmp_path, seed=1) > 5_000


# --- Runs of earlier versions ----------------------------------------------------------------------------------------


def test_a_run_of_an_earlier_version_opens_and_says_that_it_has_no_verdict(tmp_path: Path) -> None:
    run = fixture_run(tmp_path, "better")
    for name in ("comparisons", "effects", "interactions", "finalists"):
        kind = TABLES[name]
        path = run.folder / f"{name}.csv"
        lines = list(csv.reader(path.open()))
        width = len(kind._fields) - len(kind._field_defaults)
        path.write_text("".join(",".join(line[:width]) + "\n" for line in lines))
    older = Run.open(run.folder)
    assert verdict(older).word == UNKNOWN
    said = "\n".join(conclusions.conclusions(older))
    assert "written by an earlier version" in said
    assert not [word for word in (BETTER, WORSE, OPEN) if word in said]
    assert UNKNOWN in run_html(older)
    assert set(plots.figures(older)) == set(plots.figures(run))
    assert conclusions.details(older)
    # a comparison is made anew from the scores, which the run has
    assert of_runs([older]).against_baseline == of_runs([run]).against_baseline


def test_some_systems_of_a_run_are_compared_as_its_tables_say(tmp_path: Path) -> None:
    run = fixture_run(tmp_path, "better")
    everything = of_runs([run])
    first, *_, last = everything.order
    some = of_runs([run], systems=[everything.names[first], last.split()[0]])
    assert some.order == [first, last] and some.pairs == [row for row in everything.pairs if {row.a, row.b} == {first, last}]
    others = [system for system in everything.order if system != everything.baseline][:2]
    assert of_runs([run], systems=[everything.names[system] for system in others]).baseline == others[0]
    for wrong in ("nothing", ""):
        with pytest.raises(InputError, match=f"unknown system '{wrong}'; allowed: "):
            of_runs([run], systems=[everything.names[first], wrong])
    done = CliRunner().invoke(cli.app, ["compare", str(run.folder), "--systems", everything.names[first]])
    assert done.exit_code != 0 and "a comparison needs two systems" in str(done.exception or done.output)


# --- Words and numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "signed", "kept", "text"),
    [
        (0.0774, True, False, "+7.7"),
        (-0.0123, True, False, "\N{MINUS SIGN}1.2"),
        (-0.0003, True, False, "0.0"),
        (-0.0003, True, True, "\N{MINUS SIGN}0.03"),
        (0.00000004, False, True, "0.000004"),
        (0.0, True, True, "0.0"),
        (1.0, False, False, "100.0"),
        (None, False, False, "–"),
        (float("nan"), False, False, "–"),
    ],
)
def test_numbers_are_points_of_100_with_a_true_minus_and_no_negative_zero(
    value: float | None, signed: bool, kept: bool, text: str
) -> None:
    assert words.number(value, signed=signed, kept=kept) == text


@pytest.mark.parametrize(("p", "text"), [(None, "–"), (0.0004, "< .001"), (0.0321, ".032"), (0.9999, "1"), (1.0, "1")])
def test_p_values_are_written_for_reading(p: float | None, text: str) -> None:
    assert words.p_text(p) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0001, "fewer than 1 of 1,000"), (0.004, "about 4 of 1,000"), (0.034, "about 3 of 100"), (1.0, "about 100 of 100")],
)
def test_chances_are_frequencies(p: float, text: str) -> None:
    assert words.chance(p) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [(127, "about 130 questions"), (99, "about 99 questions"), (float("inf"), "no number of questions"), (None, "")],
)
def test_questions_needed_are_an_estimate(n: float | None, text: str) -> None:
    assert words.questions(n) == text


def row(difference: float, low: float | None, high: float | None, p: float, supported: str, metric: str = "f1") -> ComparisonRow:
    older = difference, low, high, p, p, 0.1
    return ComparisonRow("a", "b", "test", metric, 50, *older, "primary", p, low, high, supported, 120)


@pytest.mark.parametrize(
    ("found", "matters", "word"),
    [
        (row(0.1, 0.02, 0.18, 0.01, "yes"), None, BETTER),
        (row(-0.1, -0.18, -0.02, 0.01, "yes"), None, WORSE),
        (row(0.1, 0.02, 0.18, 0.01, "yes", "abstained"), None, "shown more"),
        (row(0.1, -0.01, 0.21, 0.08, "no"), None, LEANING),
        (row(0.0, -0.01, 0.01, 0.9, "no"), None, OPEN),  # without metrics.matters, never equal
        (row(0.0, -0.01, 0.01, 0.9, "no"), 0.02, EQUAL),
        (row(0.0, -0.01, 0.03, 0.9, "no"), 0.02, OPEN),
        (row(0.01, 0.005, 0.015, 0.01, "yes"), 0.02, EQUAL),
        (row(0.1, None, None, 0.25, "no"), None, OPEN),
    ],
)
def test_verdicts_are_graded(found: ComparisonRow, matters: float | None, word: str) -> None:
    assert graded(found, matters) == word
    turned = {BETTER: WORSE, WORSE: BETTER, "shown more": "shown less"}.get(word, word)
    assert graded(found.turned(), matters) == turned


def test_an_open_verdict_says_what_would_settle_it(tmp_path: Path) -> None:
    run = fixture_run(tmp_path, "leaning")
    found = verdict(run)
    assert found.row
    assert f"{words.questions(found.row.n_needed)} in all would be needed to show a difference like this" in found.sentence
    assert found.row.n_needed > found.row.n
    assert "No proof that they are equal" in verdict(fixture_run(tmp_path, "not shown")).sentence
    assert verdict(run, configuration_id(BEST), configuration_id("dense/base")).word == UNCOMPARED  # not on the report split


def test_only_the_best_can_be_the_baseline_that_is_best(tmp_path: Path) -> None:
    run = fixture_run(tmp_path, "better")
    base = run.manifest["baseline"]
    assert verdict(run, base).word == UNCOMPARED

    def said(configuration: str) -> str:
        found = verdict(run, configuration)
        return heading_html(Served("e", "r", "l", False, "d", 1, None, found, "the old one"))

    assert "This is the old one itself." in said(base)
    assert "Against the old one: +" in said(run.best)
    assert "Whether it is better than the old one was not measured on the test split." in said(configuration_id("dense/base"))


def test_a_verdict_of_several_tests_says_so(tmp_path: Path) -> None:
    run = fixture_run(tmp_path, "leaning")
    assert "Two equally good setups" in verdict(run).sentence
    assert "If all setups compared here were equally good" in verdict(run, configuration_id("bm25/tuned")).sentence


def test_what_depends_on_another_choice_is_told_in_plain_words(tmp_path: Path) -> None:
    said = conclusions.conclusions(fixture_run(tmp_path, "better"))
    head = said.index("Some choices depend on each other:")
    assert said[head + 1].startswith(
        "  generator: tuned against base brings 27.0 (13.3 to 40.7) points more with dense (retriever)"
    )


@pytest.mark.parametrize("name", ["better", "rankings only"])
def test_a_metric_is_explained_and_the_choosing_questions_are_said_to_flatter(tmp_path: Path, name: str) -> None:
    run = fixture_run(tmp_path, name)
    said, page = conclusions.conclusions(run), report(run)
    begin = (
        "F1 compares the words"
        if name == "better"
        else "nDCG says how far up the right passages stand among the first 10 passages"
    )
    assert [line.startswith(begin) for line in said[:3]].count(True) == 1 and page.count(begin) == 1
    effects = next(i for i, line in enumerate(said) if line.startswith("What each choice brings"))
    following = next(i for i, line in enumerate(said) if i > effects and not line.startswith("  "))
    assert said[following - 1] == f"  {conclusions.PICKED}"
    assert (
        words.meaning(run.select[1]) in page and conclusions.PICKED in page.partition("id=matters ")[2].partition("</section>")[0]
    )


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("recall@1", "Recall is the share of what is relevant that stands in the first passage."),
        ("recall@300w", "Recall is the share of what is relevant that stands in the first 300 words."),
        ("recall", ""),  # a metric of one's own that happens to be called so
        ("politeness", ""),
        ("f1@3", ""),
    ],
)
def test_metrics_are_told_in_a_sentence(metric: str, said: str) -> None:
    assert words.meaning(metric) == said


def test_the_word_baseline_stands_on_no_page_that_says_todays_setup(case: tuple[Run, str]) -> None:
    """Files and settings have the word; a page says which setup is meant."""
    run, _ = case
    shown = re.sub("<pre>.*?</pre>|<style>.*?</style>|<script>.*?</script>|<[^>]*>", " ", report(run), flags=re.DOTALL)
    assert "today's setup" in unescape(shown) and "baseline" not in shown.lower()


def test_where_trainings_differ_more_questions_settle_nothing() -> None:
    found = row(0.1, -0.05, 0.25, 0.3, "no")._replace(n_needed=float("inf"))
    assert "more trainings (`seeds`) might" in Verdict(OPEN, "a", "b", "test", "f1", found).sentence


def test_more_questions_are_needed_the_smaller_the_difference() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0, 1, 100)
    needed = []
    for gain in (0.5, 0.25, 0.125):
        gaps = base - base.mean() + gain
        (one,) = statistics.compare_all({"f1": np.column_stack([gaps, np.zeros(100)])}, "ab")["f1"]
        assert one.tested.n_needed == pytest.approx(statistics.needed_n(gaps), rel=0.15, abs=6)
        needed.append(one.tested.n_needed)
    assert needed[1] == pytest.approx(4 * needed[0], rel=0.15) and needed[2] == pytest.approx(4 * needed[1], rel=0.1)


def test_questions_are_counted_gained_and_lost(tmp_path: Path) -> None:
    right = {BEST: {0, 1, 2, 3}, BASE: {0, 4}}
    run = make_run(tmp_path, n=10, metrics=("contains",), failed=(), score=lambda label, q: float(q in right.get(label, {0})))
    found = counts(run, configuration_id(BEST), configuration_id(BASE), "test")
    assert found == (found.__class__)(both=1, gained=3, lost=1, neither=5)
    assert found.sentence("it") == "4 of 10 answered, 3 of them not by it; 1 lost that it answers; 5 wrong both ways"
    assert counts(make_run(tmp_path, experiment="f1"), configuration_id(BEST), configuration_id(BASE), "test") is None


SETTINGS = {
    "names": {"cited": "with citations"},
    "components": {
        "retrievers": {"bm25": {"kind": "bm25"}, "hybrid": {"kind": "fusion"}},
        "rerankers": {"maxsim": {"kind": "maxsim"}},
        "generators": {"base": {"model": "m"}, "tuned": {"lora": {"rank": 4}}, "longer": {"lora": {"rank": 4}}},
    },
}


def configurations(points: list[dict[str, str]]) -> list[ConfigurationRow]:
    return [ConfigurationRow(str(j), "/".join(p.values()), p, False, {}) for j, p in enumerate(points)]


def test_configurations_have_plain_names_by_kind_and_by_the_file() -> None:
    axes = ("retriever", "reranker", "prompt", "generator")
    points = [("bm25", "none", "terse", "base"), ("hybrid", "maxsim", "cited", "tuned"), ("bm25", "none", "terse", "tuned")]
    rows = configurations([dict(zip(axes, point, strict=True)) for point in points])
    assert list(words.plain_names(rows, SETTINGS).values()) == [
        "keyword search, prompt terse, untuned model",
        "keyword and meaning search, re-ranked, with citations, fine-tuned model",
        "keyword search, prompt terse, fine-tuned model",
    ]
    assert words.plain_names(rows, {}) == {row.configuration: row.label for row in rows}


def test_values_with_one_word_keep_their_codes_beside_it() -> None:
    rows = configurations([{"generator": "tuned"}, {"generator": "longer"}])
    assert list(words.plain_names(rows, SETTINGS).values()) == ["fine-tuned model (tuned)", "fine-tuned model (longer)"]


def test_details_hold_what_a_statistician_asks_for(tmp_path: Path) -> None:
    said = "\n".join(conclusions.details(fixture_run(tmp_path, "leaning")))
    for wanted in ("family primary", "family effects", "family interactions", "Holm", "adjusted", "Letters on dev", "Optimism"):
        assert wanted in said
    plain = "\n".join(conclusions.conclusions(fixture_run(tmp_path / "again", "leaning")))
    assert "Holm" not in plain and "family" not in plain


def test_the_file_names_what_matters_and_what_things_are_called(tmp_path: Path) -> None:
    run = fixture_run(tmp_path, "not shown")
    (run.folder / "config.yaml").write_text(
        yaml.safe_dump({"names": {"dense": "search by meaning"}, "metrics": {"matters": 0.5}, "components": {}})
    )
    again = Run.open(run.folder)
    assert again.matters == 0.5 and verdict(again).word == EQUAL
    assert again.names[configuration_id(BEST)] == "search by meaning, tuned"
    assert f"[{BEST}]" in conclusions.conclusions(again)[0]


def test_compare_shows_details_only_when_asked(tmp_path: Path) -> None:
    run = fixture_run(tmp_path, "better")
    plain, full = (workbench("compare", run.folder, *more).stdout for more in ((), ("--details",)))
    assert "letters" not in plain and "primary" in full and "p (Holm)" in " ".join(full.split())
    assert json.loads((run.folder / "manifest.json").read_text())["seed"] == 0
