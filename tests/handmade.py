"""Finished runs made by hand: scores are chosen, statistics and files are the project's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from workbench.component import file_digest
from workbench.evaluation.families import Plans
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
    TrainingRow,
)
from workbench.results.run import Run

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
    score: Callable[[str, int], float] = f1,
    shift: int = 0,
    finalists: Sequence[str] = FINALISTS,
) -> Run:
    """A finished run: all configurations on dev, the finalists on test, the first is the baseline.

    Args:
        runs: folder of all runs.
        axes: of the experiment.
        n: questions of each split.
        run_id: name of its folder.
        metrics: measured; the first chooses.
        failed: label, split and number of a question whose answer failed.
        experiment: its name.
        score: gives the value of the first metric by label and number of the question; of the others half of it, where they
            rank passages, else the same rounded to right or wrong.
        shift: questions of test are scored as if their numbers were larger by it.
        finalists: labels of what is measured on test; all where empty.
    """
    folder = runs / experiment / run_id
    folder.mkdir(parents=True)
    points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    labels = ["/".join(point[axis] for axis in axes if len(axes[axis]) > 1) or point["retriever"] for point in points]
    ids = [configuration_id(label) for label in labels]
    rows = [
        ResultRow(c, split, f"q{q:02}", metric, *((None, "failed") if gone else (_valued(metric, value), "ok")))
        for c, label in zip(ids, labels, strict=True)
        for split in ("dev", "test")
        if split == "dev" or not finalists or label in finalists or len(labels) == 1
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
    compared = tables.comparisons(scores, seed=0, plans=Plans("test", metrics[0], ids[0], best))
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
        "notes": [],
    }
    manifest |= {key: {} for key in ("dataset", "machine", "libraries", "files")}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Run.open(folder)


def _valued(metric: str, value: float) -> float:
    return float(value >= 0.5) if metric == "contains" else value / (1 if metric == "f1" else 2)


def timed(configuration: str, p50: float) -> LatencyRow:
    """What `workbench latency` would say of a configuration whose median is `p50` seconds; all else is 1."""
    ones = dict.fromkeys(LatencyRow._fields, 1.0) | {"requests": 50, "processor": "a processor"}
    return LatencyRow(**ones | {"configuration": configuration, "p50": p50, "p50_low": p50 - 0.01, "p50_high": p50 + 0.01})


class Planted(NamedTuple):
    """What two setups make of one question: texts of their answers, and where its evidence stands in their ranking.

    Attributes:
        question: its text.
        accepted: the right answer; empty where the documents hold none.
        chosen: answer of the chosen setup; None where it failed.
        baseline: answer of the baseline; None where it failed.
        rank: of the evidence; None where it was never retrieved.
        kind: a column of the question.
    """

    question: str
    accepted: str
    chosen: str | None
    baseline: str | None
    rank: int | None = 1
    kind: str = "direct"


def answered(run: Run, planted: Sequence[Planted], shown: int = 2, others: bool = False) -> Run:
    """The same run with questions, passages, rankings and answers of its report split; one question for each row.

    Args:
        run: of `make_run`, with as many queries.
        planted: a row for each query.
        shown: passages that a prompt has.
        others: whether the configurations beside the chosen one and the baseline have answers as well.
    """
    baseline, split = run.manifest["baseline"], run.report_split
    passages, questions, rankings, answers = [], [], [], []
    asked = [row.query_id for row in run.queries if row.split == split]
    for number, (query, row) in enumerate(zip(asked, planted, strict=True)):
        holder = f"Document {number} says {row.accepted or 'nothing of it'}, as its evidence shows."
        texts = [holder, *(f"Document {number}, passage {i}, is about something else." for i in range(1, 11))]
        places = [(f"doc{number}.txt", 100 * i, 100 * i + len(text)) for i, text in enumerate(texts)]
        ids = [f"{doc}:{start}-{end}" for doc, start, end in places]
        passages += [
            {"id": one, "doc_id": doc, "start": start, "end": end, "title": f"Document {number}", "text": text}
            for one, (doc, start, end), text in zip(ids, places, texts, strict=True)
        ]
        evidence = [{"piece": 0, "doc_id": places[0][0], "start": 0, "end": len(holder)}] if row.accepted else []
        questions.append(
            {"split": split, "query_id": query, "question": row.question, "answers": [row.accepted] if row.accepted else []}
            | {"evidence": evidence, "group": query, "columns": {"kind": row.kind}, "history": []}
        )
        order = [*range(1, 11)]
        if row.rank is not None and row.rank <= 10:
            order = [*order[: row.rank - 1], 0, *order[row.rank - 1 : 9]]
        ranked = [[ids[at], round(10.0 - i, 6), None, at == 0 and bool(row.accepted)] for i, at in enumerate(order)]
        rankings.append({"ranking": "0" * 64, "split": split, "query_id": query, "passages": ranked, "evidence_rank": row.rank})
        said = {run.best: row.chosen, baseline: row.baseline}
        if others:
            said |= {c.configuration: row.baseline for c in run.configurations if c.configuration not in said}
        top = [dict(zip(("doc_id", "start", "end"), places[at], strict=True)) for at in order[:shown]]
        answers += [
            {"configuration": c, "split": split, "seed": None, "query_id": query, "prompt": row.question, "reply": answer or ""}
            | {"answer": answer or "", "passages": top, "status": "failed" if answer is None else "ok"}
            | {"prompt_tokens": 9, "new_tokens": 3, "cut": 0}
            for c, answer in said.items()
        ]
    files = {"questions.jsonl": questions, "passages.jsonl": passages, "rankings.jsonl": rankings, "answers.jsonl": answers}
    for name, rows in files.items():
        (run.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    keyed = [row._replace(keys={"ranking": "0" * 64}) for row in run.configurations]
    table_files.write_configurations(run.folder / "configurations.csv", run.axes, keyed)
    table_files.write(run.folder / "training.csv", TrainingRow, [])
    return Run.open(run.folder)


def planted_run(runs: Path) -> Run:
    """20 questions: seven gained, three lost, two failed; evidence never retrieved, ranked 14th, and shown but misread."""
    lost, failed = {7, 8, 9}, {10, 11}

    def score(label: str, q: int) -> float:
        best, number = label == "dense/tuned", q % 20
        if q < 20:
            return 0.9 if best else 0.1
        right = number < 7 or number in {15, 16} if best else number in lost | {15, 16}
        return 0.9 if right else 0.1

    gone = tuple(("dense/tuned", "test", q) for q in failed)
    made = make_run(runs, n=20, metrics=("f1", "contains"), failed=gone, score=score, shift=20, experiment="planted")
    ranks = {12: None, 13: 14, 14: 1}
    asked = []
    for q in range(20):
        right = f"answer {q}"
        a = None if q in failed else right if q < 7 or q in {15, 16} else f"wrong {q}"
        b = right if q in lost | {15, 16} else "another"
        asked.append(Planted(f"Question {q}?", right, a, b, ranks.get(q, 1), "reworded" if q % 2 else "direct"))
    return answered(made, asked)


def as_written(folder: Path, name: str) -> None:
    """Makes a changed file what the run's manifest says was written, as if another machine had computed it.

    Args:
        folder: of the run.
        name: of the file.
    """
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][name] = file_digest(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
