"""Slices: columns of the questions reach the tables, one family of tests holds all of them, nothing else changes."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import toys
import yaml
from matplotlib.figure import Figure

from workbench import Experiment, Run
from workbench.data import sources
from workbench.errors import InputError
from workbench.evaluation import statistics
from workbench.evaluation.families import SLICES, Plans
from workbench.evaluation.statistics import Slice, compare_slices
from workbench.plots import figures, plot_slices
from workbench.results import tables
from workbench.results.conclusions import conclusions
from workbench.results.rows import ResultRow, SeedRow
from workbench.results.tags import Tags
from workbench.results.verdict import graded
from workbench.store.progress import Progress

FLIPS = 10_000


# --- The test ---------------------------------------------------------------------------------------------------------


def independent(
    scores: np.ndarray, slices: list[np.ndarray], pairs: list[tuple[int, int]], groups: np.ndarray, signs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """P and adjusted p of all pairs on all slices (m,), from signs (B, G) of the groups: the definition."""
    seen, flipped = [], []
    for rows, (a, b) in product(slices, pairs):
        gaps = scores[rows, a] - scores[rows, b]
        sums = np.array([gaps[groups[rows] == g].sum() for g in np.unique(groups)])
        norm = np.sqrt(sums @ sums) or np.inf
        seen.append(abs(sums.sum()) / norm)
        flipped.append(np.abs(signs @ sums) / norm)
    each, largest = np.array(flipped), np.max(flipped, axis=0)
    at_least = np.array(seen)[:, None] - 1e-9
    return (1 + (each >= at_least).sum(axis=1)) / (1 + len(signs)), (1 + (largest >= at_least).sum(axis=1)) / (1 + len(signs))


@pytest.mark.parametrize("per_group", [1, 3])
def test_all_slices_are_one_family_under_the_largest_statistic(per_group: int) -> None:
    """Overlapping slices of two columns; with the same flips p and adjusted p are those of the definition."""
    rng = np.random.default_rng(5)
    n = 120
    scores = np.clip(rng.normal(0.5, 0.25, (n, 1)) + rng.normal(0, 0.2, (n, 3)) + [0.0, 0.09, 0.0], 0, 1)
    groups = np.arange(n) // per_group
    kinds, languages = rng.integers(0, 3, n), rng.integers(0, 2, n)
    slices = [np.flatnonzero(kinds == k) for k in range(3)] + [np.flatnonzero(languages == k) for k in range(2)]
    pairs = [("s1", "s0"), ("s2", "s0"), ("s1", "s2")]
    found = compare_slices(scores, ["s0", "s1", "s2"], [Slice(rows) for rows in slices], pairs, groups, seed=7)
    kept = np.concatenate(list(statistics._batches(n // per_group, FLIPS, np.random.default_rng(7))))
    p, adjusted = independent(scores, slices, [(1, 0), (2, 0), (1, 2)], groups, 2 * kept - 1)
    tested = [c.tested for one in found for c in one]
    # at most 14 groups would have all patterns instead of these flips
    assert all(len(np.unique(groups[rows])) > statistics.EXACT_GROUPS for rows in slices)
    assert [t.p for t in tested] == pytest.approx(p, abs=1e-12)
    assert [t.p_adjusted for t in tested] == pytest.approx(adjusted, abs=1e-12)
    assert {t.family for t in tested} == {SLICES} and 0 < sum(t.supported for t in tested) < len(tested)
    for t in tested:
        assert t.supported == (t.low > 0 or t.high < 0) == (t.p_adjusted <= 0.05)
    for rows, one in zip(slices, found, strict=True):
        assert one[0].difference == pytest.approx((scores[rows, 1] - scores[rows, 0]).mean()) and one[0].n == len(rows)


def test_one_slice_of_all_questions_is_the_comparison_of_all_questions() -> None:
    scores = np.random.default_rng(0).random((60, 2))
    (whole,) = statistics.compare_all({"f1": scores}, ["a", "b"], seed=3)["f1"]
    ((same,),) = compare_slices(scores, ["a", "b"], [Slice(np.arange(60))], [("a", "b")], seed=3)
    assert same.tested._replace(family="") == whole.tested._replace(family="")


def test_a_small_slice_shows_nothing_and_one_group_has_no_test() -> None:
    scores = np.column_stack([np.full(30, 0.9), np.linspace(0, 0.1, 30)])
    groups = np.repeat(np.arange(15), 2)
    named = [Slice(np.arange(30)), Slice(np.arange(10)), Slice(np.arange(2))]
    (large,), (five,), (one,) = compare_slices(scores, ["a", "b"], named, [("a", "b")], groups)
    assert large.tested.supported and large.n_groups == 15
    assert five.n_groups == 5 and np.isnan(five.tested.low) and not five.tested.supported and five.tested.p == 2 / 2**5
    assert np.isnan(one.tested.p) and np.isnan(one.tested.p_adjusted) and not one.tested.supported and one.difference > 0


# --- The rows, by hand ------------------------------------------------------------------------------------------------

BASE, BEST, OTHER, UNREPORTED = "base", "best", "other", "unreported"


def scored(gains: dict[str, float], split: str, n: int = 16) -> list[ResultRow]:
    """Of n questions the first half is easy; a gain is what a configuration scores more on the others."""
    return [
        ResultRow(c, split, f"{split}{i:02}", "f1", 0.5 if i < n // 2 else 0.25 + gain, "ok")
        for c, gain in gains.items()
        for i in range(n)
    ]


def made(rows: list[ResultRow], seeds: list[SeedRow] | None = None, **columns: dict[str, str]) -> list[tables.SliceRow]:
    groups = {row.query_id: row.query_id for row in rows}
    return tables.slices(rows, groups, seeds or [], columns, Plans("test", "f1", BASE, BEST, [OTHER]), seed=0)


def test_rows_hold_means_of_all_and_planned_comparisons() -> None:
    rows = scored({BASE: 0.0, BEST: 0.5, OTHER: 0.25, UNREPORTED: 0.1}, "dev")
    rows += scored({BASE: 0.0, BEST: 0.5, OTHER: 0.25}, "test")
    kinds = {row.query_id: "easy" if int(row.query_id[-2:]) < 8 else "hard" for row in rows}
    found = made(rows, kind=kinds)
    assert found == sorted(found, key=lambda row: row[:6])
    there = {(row.split, row.value, row.configuration, row.against): row for row in found}
    of_test = {key[1:]: row for key, row in there.items() if key[0] == "test"}
    compared = [(BASE, ""), (BEST, BASE), (BEST, OTHER), (OTHER, BASE)]
    assert set(of_test) == {(value, *pair) for value in ("easy", "hard") for pair in compared}
    assert ("dev", "hard", UNREPORTED, "") in there and ("dev", "hard", BEST, OTHER) in there
    hard = of_test["hard", BEST, BASE]
    assert (hard.mean, hard.n, hard.groups, hard.small, hard.failed) == (0.75, 8, 8, "no", 0)
    # every question gains .5, so T is the square root of 8 in the 2 of 2^8 patterns that turn all or none
    assert hard.difference == 0.5 and hard.p == pytest.approx(2 / 2**8) and hard.supported == "yes"
    easy = of_test["easy", BEST, BASE]
    assert (easy.mean, easy.difference, easy.p, easy.p_adjusted, easy.supported) == (0.5, 0.0, 1.0, 1.0, "no")
    assert of_test["hard", BASE, ""].difference is None and of_test["hard", BASE, ""].tested is None
    assert graded(hard.tested) == "shown better" and graded(easy.tested) == "not shown"


def test_failures_count_as_worst_small_slices_are_marked_and_unmeasured_ones_left_out() -> None:
    rows = scored({BASE: 0.0, BEST: 0.5}, "test")
    rows = [row._replace(value=None, status="failed") if row[:3] == (BEST, "test", "test15") else row for row in rows]
    rows += [row._replace(metric="ndcg@10") for row in rows if row.query_id < "test12"]
    values = {row.query_id: "last" if row.query_id >= "test12" else "first" for row in rows}
    found = {(row.metric, row.value, row.configuration): row for row in made(rows, kind=values)}
    last = found["f1", "last", BEST]
    assert (last.n, last.small, last.failed, last.mean) == (4, "yes", 1, pytest.approx(0.75 * 3 / 4))
    assert last.low is None and last.high is None and last.supported == "no" and last.p is not None
    assert ("ndcg@10", "first", BEST) in found and ("ndcg@10", "last", BEST) not in found


def test_the_chance_of_trainings_is_in_the_intervals_of_slices() -> None:
    rows = scored({BASE: 0.0, BEST: 0.5}, "test")
    spread = {0: -0.3, 1: 0.0, 2: 0.3}
    seeds = [SeedRow(*r[:2], seed, *r[2:4], r.value + d, "ok") for r in rows if r[0] == BEST for seed, d in spread.items()]
    values = {row.query_id: "all" for row in rows}
    fixed, random = (next(r for r in made(rows, s, kind=values) if r.against) for s in ([], seeds))
    assert fixed.supported == "yes" and random.supported == "no" and random.low < 0 < random.difference == fixed.difference


# --- Columns of the questions -----------------------------------------------------------------------------------------


def asked(folder: Path, *changes: dict[str, object]) -> tuple[Path, Path]:
    """A folder of one text, and a file of questions that differ in what is given."""
    (folder / "texts").mkdir(exist_ok=True)
    (folder / "texts" / "a.txt").write_text("Cats purr when they are content.\n\nDogs bark at night.")
    row = {"split": "dev", "question": "What do cats do?", "answers": ["purr"], "evidence": "Cats purr"}
    lines = [json.dumps({"id": str(i), **row, **change}) for i, change in enumerate(changes)]
    (folder / "q.jsonl").write_text("\n".join(lines))
    return folder / "texts", folder / "q.jsonl"


def test_columns_stand_in_the_line_or_in_its_metadata(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [
        {"language": "de", "metadata": {"language": "fr", "year": 2024, "tags": ["not read"]}},
        {"metadata": {"language": " a \n b ", "year": 1.5}},
        {"language": True},
        {"language": "", "metadata": None},
        {},
    ]
    dataset = sources.text_folder(*asked(tmp_path, *lines), ("language", "year"))
    assert list(dataset.column("language").values()) == ["de", "a b", "true", None, None]
    assert list(dataset.column("year").values()) == ["2024", "1.5", None, None, None]
    with pytest.raises(InputError, match="unknown column of texts 'kind'; allowed: language, year"):
        dataset.column("kind")
    limited = dataset.limited(2)
    assert limited.column("language").keys() == {query.id for query in limited.split("dev")}


def test_columns_change_neither_keys_nor_the_dataset_otherwise(tmp_path: Path) -> None:
    places = asked(
        tmp_path, {"kind": "direct", "metadata": {"language": "de"}}, {"kind": "reworded", "evidence": "Dogs bark at night."}
    )
    plain, columned = sources.text_folder(*places), sources.text_folder(*places, ("kind", "language"))
    assert plain.queries.column_names == columned.queries.column_names[:-2]
    assert plain.queries.equals(columned.queries.select(plain.queries.column_names))
    for of in ("queries_digest", "answers_digest", "histories_digest"):
        assert getattr(plain, of)("dev") == getattr(columned, of)("dev")
    assert plain.documents_digest == columned.documents_digest
    held = columned.held_out(0.5, "dev", "test")
    assert held.splits == {"dev": 1, "test": 1} and held.column("kind") == columned.column("kind")


@pytest.mark.parametrize(
    "line,columns,message",
    [
        ({"languge": "de"}, ("language",), r"line 2: unknown key 'languge'.*Did you mean 'language'.*metrics\.slices"),
        (
            {"language": "de"},
            (),
            r"line 2: unknown key 'language'.*named under metrics\.slices, or stands in the object 'metadata'",
        ),
        ({"kind": 3}, ("kind",), "line 2: kind: received 3; allowed: a text, or null"),
        (
            {"language": ["de"]},
            ("language",),
            r'line 2: language: received \["de"\]; allowed: a text, a number, true, false or null',
        ),
        (
            {"metadata": {"language": ["de"]}},
            ("language",),
            "line 2: metadata: received .*allowed: an object, in which language is a",
        ),
        ({"metadata": "de"}, ("language",), 'line 2: metadata: received "de"; allowed: an object'),
        ({"metadata": "de"}, (), 'line 2: metadata: received "de"; allowed: an object, or null'),
        (
            {"kind": "direct", "metadata": {"type": "a"}},
            ("knid",),
            r"no question has the column 'knid'.*allowed: kind, type.*'kind'",
        ),
        ({}, ("language",), "no question has the column 'language', which metrics.slices names; the questions have no further"),
    ],
)
def test_columns_that_are_wrong_are_refused(
    tmp_path: Path, line: dict[str, object], columns: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        sources.text_folder(*asked(tmp_path, {}, line), columns)


def test_queries_in_beir_layout_have_columns_too(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "d", "title": "", "text": "Cats purr."}))
    queries = [
        {"_id": "q0", "text": "Cats?", "type": "a", "metadata": {"language": "de"}},
        {"_id": "q1", "text": "Dogs?", "metadata": {}},
    ]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (tmp_path / "qrels" / "test.tsv").write_text("q0\td\t1\nq1\td\t1\n")
    dataset = sources.beir(tmp_path, ("language", "type"))
    assert dataset.column("language") == {"q0": "de", "q1": None} and dataset.column("type") == {"q0": "a", "q1": None}
    assert sources.beir(tmp_path).queries.column_names == dataset.queries.column_names[:-2]
    with pytest.raises(InputError, match=r"no question has the column 'source'.*allowed: language, type"):
        sources.beir(tmp_path, ("source",))


def test_the_built_in_questions_have_kinds() -> None:
    dataset = sources.pydocs(("kind",))
    assert set(dataset.column("kind").values()) == {"direct", "reworded", "unanswerable"}
    unanswerable = {query.id for split in dataset.splits for query in dataset.split(split) if query.answers == ()}
    assert {query for query, kind in dataset.column("kind").items() if kind == "unanswerable"} == unanswerable


TOLD = re.compile(
    r"  (\w+) \((\d+) questions?\): ([\d.]+) against ([\d.]+); "
    r"(\S+) points(?: \(.* to .*\))?: [a-z ,]+?(; too few to show anything)?"
)


# --- Whole runs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sliced")


def experiment(folder: Path, **metrics: object) -> Experiment:
    values = {
        "experiment": "sliced",
        "dataset": {"name": "pydocs", "limit": {"train": 2, "dev": 20, "test": 24}},
        "components": {
            "retrievers": {"bm25": {"kind": "bm25"}},
            "generators": {"toy": {"model": toys.made(toys.parrot), "max_new_tokens": 3}},
        },
        "axes": {"generator": ["toy"], "passages": [1, 2]},
        "baseline": {"passages": 2},  # one passage is better for this model
        "metrics": {"rankings": ["ndcg@10"], **metrics},
        "report": {"of": "all"},
        "machine": {"device": "cpu", "precision": "float32"},
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(values))
    return Experiment.load(folder / "e.yaml", folder / "runs", [], Progress())


@pytest.fixture(scope="module")
def plain(folder: Path) -> Run:
    return experiment(folder).compare()


@pytest.fixture(scope="module")
def run(folder: Path, plain: Run) -> Run:
    return experiment(folder, slices=["kind"]).compare()


def test_slices_change_no_other_file_and_compute_nothing_anew(plain: Run, run: Run) -> None:
    assert not (plain.folder / "slices.csv").exists() and plain.slices == [] and "slices" not in figures(plain)
    assert "slices" not in (plain.folder / "config.yaml").read_text()
    with pytest.raises(InputError, match=r"holds no slices\.csv; name columns of the questions under metrics\.slices"):
        plain.frame("slices")
    for file in [*sorted(plain.folder.glob("*.csv")), plain.folder / "answers.jsonl"]:
        if file.name != "timings.csv":
            assert file.read_bytes() == (run.folder / file.name).read_bytes(), file.name
    assert json.loads((run.folder / "plan.json").read_text())["totals"]["computed"] == 0


def test_a_rerun_writes_the_same_bytes_and_the_manifest_knows_them(folder: Path, run: Run) -> None:
    again = experiment(folder, slices=["kind"]).compare()
    assert (again.folder / "slices.csv").read_bytes() == (run.folder / "slices.csv").read_bytes()
    assert "slices.csv" in run.manifest["files"]
    damaged = Run.open(again.folder)
    (again.folder / "slices.csv").unlink()
    with pytest.raises(InputError, match=r"slices\.csv is missing"):
        _ = damaged.slices


def test_rows_of_a_run_add_up_to_its_leaderboard(run: Run) -> None:
    for row in run.leaderboard:
        wanted = row.split, row.metric, row.configuration
        own = {r.value: r for r in run.slices if (r.split, r.metric, r.configuration) == wanted}
        assert sum(r.n for r in own.values()) == row.n
        assert sum(r.n * r.mean for r in own.values()) / row.n == pytest.approx(row.mean, abs=1e-6)
    assert {r.value for r in run.slices if r.metric == "f1"} == {"direct", "reworded", "unanswerable"}
    assert {r.value for r in run.slices if r.metric == "ndcg@10"} == {"direct", "reworded"}  # nothing is relevant to the others
    (pair,) = {(r.configuration, r.against) for r in run.slices if r.against}
    assert pair[1] == run.manifest["baseline"] and pair[0] != pair[1]
    assert list(run.frame("slices")) == (run.folder / "slices.csv").read_text().splitlines()[0].split(",")


def test_what_is_said_and_drawn_names_every_slice(run: Run) -> None:
    lines = conclusions(run)
    at = lines.index("By kind (test, F1 of 100; the best against today's setup, with all slices allowed for):")
    rows = {row.value: row for row in run.slices if (row.split, row.metric, row.configuration) == ("test", "f1", run.best)}
    for line in lines[at + 1 : at + 4]:
        value, n, mean, baseline, difference, few = TOLD.fullmatch(line).groups()
        row = rows.pop(value)
        assert (int(n), bool(few)) == (row.n, row.small == "yes")
        assert float(mean) == pytest.approx(100 * row.mean, abs=0.051)
        assert float(mean) - float(baseline) == pytest.approx(100 * row.difference, abs=0.11)
        assert float(difference.replace("\N{MINUS SIGN}", "-")) == pytest.approx(100 * row.difference, abs=0.051)
    assert not rows
    assert "slices" in figures(run)
    ax = plot_slices(Figure().subplots(), run, "test", "f1")
    assert [label.get_text().partition(" (")[0] for label in ax.get_yticklabels()] == [
        "kind: direct",
        "kind: reworded",
        "kind: unanswerable",
    ]


def test_a_value_of_any_signs_is_written_read_and_drawn(tmp_path: Path) -> None:
    """Separators, quotation marks, markup, and dollar signs between which matplotlib would read mathematics."""
    strange = 'a, "b" [bold]|$\\foo$ <c>'
    texts, questions = asked(tmp_path, {"metadata": {"of": strange}}, {"split": "test", "metadata": {"of": strange}})
    values = {
        "experiment": "e",
        "dataset": {"folder": str(texts), "questions": str(questions)},
        "components": {"retrievers": {"bm25": {"kind": "bm25"}}},
        "axes": {"retriever": ["bm25"]},
        "metrics": {"slices": ["of"]},
    }
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(values))
    made = Experiment.load(tmp_path / "e.yaml", tmp_path / "runs", [], Progress()).compare()
    assert {row.value for row in Run.open(made.folder).slices} == {strange}
    assert any(line.startswith(f"  {strange} (1 question): ") for line in conclusions(made))
    figures(made)["slices"].savefig(tmp_path / "slices.png")


@pytest.mark.parametrize(
    "slices,message",
    [
        (["kind", "kind"], r"metrics\.slices.*the column 'kind' is named twice"),
        (["split"], r"metrics\.slices.*'split' tells no kinds of questions apart"),
        ([" "], r"metrics\.slices.*a column's name is empty"),
        ("kind", r"metrics\.slices"),
        (["language"], r"no question has the column 'language', which metrics\.slices names; unknown column.*allowed: kind"),
    ],
)
def test_slices_that_are_wrong_are_refused(folder: Path, slices: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        experiment(folder, slices=slices)


def test_a_column_that_names_each_question_is_refused(tmp_path: Path) -> None:
    texts, questions = asked(tmp_path, *({"metadata": {"number": i}} for i in range(101)))
    values = {
        "experiment": "e",
        "dataset": {"folder": str(texts), "questions": str(questions)},
        "metrics": {"slices": ["number"]},
    }
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"metrics\.slices: the column 'number' has 101 values; allowed: at most 100"):
        Experiment.load(tmp_path / "e.yaml", tmp_path / "runs", [], Progress())


def labelled(folder: Path, table: str, slices: list[str]) -> Experiment:
    """An experiment on two questions whose labels stand in a table."""
    texts, questions = asked(folder, {"kind": "direct"}, {"kind": "reworded", "split": "test"})
    (folder / "labels.csv").write_text(table)
    values = {
        "experiment": "e",
        "dataset": {"folder": str(texts), "questions": str(questions), "labels": "labels.csv"},
        "components": {"retrievers": {"bm25": {"kind": "bm25"}}},
        "axes": {"retriever": ["bm25"]},
        "metrics": {"slices": slices},
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(values))
    return Experiment.load(folder / "e.yaml", folder / "runs", [], Progress())


def test_exported_tags_are_columns_of_the_questions(tmp_path: Path) -> None:
    tags = Tags(tmp_path)
    tags.put("abc", "1", "question bad", "which office?")
    tags.put("abc", "1", "of our own")
    found = labelled(tmp_path, tags.export("abc"), ["kind", "tag"]).session.dataset
    assert found.column("tag") == {"0": None, "1": "question bad; of our own"}
    assert found.column("kind") == {"0": "direct", "1": "reworded"}
    plain = sources.text_folder(tmp_path / "texts", tmp_path / "q.jsonl")
    assert found.queries.select(plain.queries.column_names).equals(plain.queries)


def test_a_table_of_labels_may_hold_what_the_questions_hold_too(tmp_path: Path) -> None:
    found = labelled(tmp_path, "query_id,kind\n0,other\n", ["kind"]).session.dataset
    assert found.column("kind") == {"0": "other", "1": None}


@pytest.mark.parametrize(
    "table,message",
    [
        ("query_id,tag\n0,a\n7,b\n", r"labels\.csv, line 3: texts has no question '7'; correct it, or take the line out"),
        ("query_id,tag\n0,a\n0,b\n", r"labels\.csv, line 3: question '0' is also in line 2; name it once"),
        ("id,tag\n0,a\n", r"labels\.csv: no column 'query_id', .*received \['id', 'tag'\]"),
        ("query_id,note\n0,a\n", r"no question has the column 'tag', which metrics\.slices names"),
        ("", r"labels\.csv is empty"),
    ],
)
def test_labels_that_are_wrong_are_refused(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        labelled(tmp_path, table, ["tag"])
