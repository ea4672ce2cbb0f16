"""A run's folder is enough by itself: questions, passages and where each question was lost, without store, data or models."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import toys
import yaml
from conftest import ROOT, Finished

from workbench import Experiment, Run
from workbench.data import columns
from workbench.data.chunking import Chunking
from workbench.data.dataset import DOCUMENTS, Judgements, Place
from workbench.data.passages import PassageTable
from workbench.data.readers.json_lines import Record
from workbench.errors import InputError
from workbench.evaluation.rankings import covering
from workbench.experiment.running import Announcement
from workbench.results.lines import PassageRecord, QuestionRecord, RankingRecord, RunningRecord
from workbench.results.records import passage_id
from workbench.results.running import ENDED, RUNNING, running
from workbench.store.progress import Progress
from workbench.views.index import index

FILES = ("questions.jsonl", "passages.jsonl", "rankings.jsonl", "training.csv")
READERS = ("questions", "passages", "rankings", "training")


@pytest.fixture(scope="module")
def run(toy: Finished) -> Run:
    return Run.open(toy.run)


@pytest.fixture(scope="module")
def texts(toy: Finished) -> dict[str, str]:
    folder = Path(yaml.safe_load(toy.config.read_text())["dataset"]["folder"])
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_every_passage_that_a_file_names_is_there_with_its_text(run: Run, texts: dict[str, str]) -> None:
    named = {passage_id(place) for row in run.answers for place in row["passages"]}
    named |= {one.passage for row in run.rankings for one in row.passages}
    assert named <= run.passages.keys() and len(named) == 12
    for name, one in run.passages.items():
        assert name == f"{one.doc_id}:{one.start}-{one.end}" and one.text == texts[one.doc_id][one.start : one.end]
        assert one.title == texts[one.doc_id].splitlines()[0]
    places = [(one.doc_id, one.start, one.end) for one in run.passages.values()]
    assert places == sorted(places)


def test_questions_hold_what_is_accepted_and_where_the_evidence_stands(run: Run, toy: Finished, texts: dict[str, str]) -> None:
    file = Path(yaml.safe_load(toy.config.read_text())["dataset"]["questions"])
    asked = {row["id"]: row for row in map(json.loads, file.read_text().splitlines())}
    assert [(q.split, q.query_id) for q in run.questions] == [(q.split, q.query_id) for q in run.queries]
    for one, row in zip(run.questions, run.queries, strict=True):
        written = asked[one.query_id]
        assert (one.question, one.group) == (written["question"], row.group) and one.answers == written["answers"]
        assert [texts[e.doc_id][e.start : e.end] for e in one.evidence] == ([e] if (e := written["evidence"]) else [])
    assert any(not one.evidence for one in run.questions)


def test_rankings_are_those_of_the_store_and_know_their_rank_before_reranking(run: Run, toy: Finished) -> None:
    experiment = Experiment.load(toy.config, toy.runs, progress=Progress())
    lines = {(row.ranking, row.split, row.query_id): row for row in run.rankings}
    assert list(lines) == sorted(lines) and len(lines) == len(run.rankings)
    used = {(run.ranking_of(r.configuration), r.split, r.query_id) for r in run.results}
    assert used == lines.keys()  # what was measured, and nothing else
    unranked = {c.values["retriever"]: c.configuration for c in run.configurations if c.values["reranker"] == "none"}
    reranked = 0
    for row in run.configurations:
        stage = next(one for one in experiment.selected_on if one.configuration.id == row.configuration)
        ranking, passages = experiment.session.read(stage.ranking), experiment.session.read(stage.answers.passages)
        for i, query_id in enumerate(ranking.query_ids):
            line = lines[run.ranking_of(row.configuration), "dev", query_id]
            ids, scores = ranking.row(i)
            assert [one.passage for one in line.passages] == [passage_id(passages.place(n)._asdict()) for n in ids[:10].tolist()]
            assert [one.score for one in line.passages] == pytest.approx(scores[:10].tolist(), abs=1e-6)
            if row.values["reranker"] == "none":
                assert {one.before for one in line.passages} == {None}
                continue
            reranked += 1
            before = lines[run.ranking_of(unranked[row.values["retriever"]]), "dev", query_id].passages
            for one in line.passages:
                assert one.before > 10 or before[one.before - 1].passage == one.passage
                assert one.before <= 10 or one.passage not in {other.passage for other in before}
    assert reranked


def test_what_covers_evidence_is_what_recall_counts(run: Run) -> None:
    evidence = {one.query_id: one.evidence for one in run.questions}
    recall = {(r.configuration, r.query_id): r.value for r in run.results if (r.split, r.metric) == ("dev", "recall@200w")}
    label = {run.ranking_of(c): c for c in run.labels}
    for row in run.rankings:
        for one in row.passages:
            passage = run.passages[one.passage]
            inside = [e for e in evidence[row.query_id] if e.doc_id == passage.doc_id and passage.start <= e.start]
            assert one.covers == any(e.end <= passage.end for e in inside)
        ranks = [rank for rank, one in enumerate(row.passages, 1) if one.covers]
        assert row.evidence_rank == (ranks[0] if ranks else row.evidence_rank)
        assert ranks or row.evidence_rank is None or row.evidence_rank > 10
        assert row.evidence_rank is None or evidence[row.query_id]
        if row.split == "dev" and recall.get((label[row.ranking], row.query_id)):
            assert row.evidence_rank


def cut(words: int, overlap: int, text: str) -> PassageTable:
    documents = pa.Table.from_pylist([{"id": "d", "title": "", "text": text}, {"id": "e", "title": "", "text": "a"}], DOCUMENTS)
    return PassageTable(Chunking(words=words, overlap=overlap).cut(documents))


def test_evidence_that_is_cut_in_two_is_covered_by_the_second_passage() -> None:
    passages = cut(2, 0, "one two three four five six")
    judged = Judgements("spans", {"q": [[Place("d", 4, 13)]]}, {})  # two three
    read = [passages.read(n) for n in range(4)]
    assert [one.end for one in read] == [8, 19, 27, 1]
    assert covering(judged, "q", read) == [False, True, False, False]
    assert covering(judged, "q", [read[1], read[2], read[0]]) == [False, False, True]
    assert covering(judged, "q", [read[1], read[3]]) == [False, False] == covering(judged, "not judged", read[:2])
    whole = [Place("d", 0, 27), Place("d", 3, 14), Place("e", 0, 20)]
    assert covering(judged, "q", whole) == [True, True, False]  # a later copy covers it too
    assert covering(Judgements("documents", {}, {"q": {"e": 2}}), "q", read) == [False, False, False, True]
    assert passages.of_documents({"e", "absent"}) == [3]


def test_trainings_are_told_step_by_step(run: Run, toy: Finished) -> None:
    (stage,) = Experiment.load(toy.config, toy.runs, progress=Progress()).finetune()
    assert [(row.adapter, row.seed, row.step) for row in run.training] == [("tuned", 0, step) for step in range(1, 13)]
    written = (toy.runs / ".store" / "artifacts" / "adapter" / stage.key / "training.csv").read_text().splitlines()[1:]
    assert [f"{row.step},{row.loss:.6f}" for row in run.training] == [",".join(line.split(",")[:2]) for line in written]
    assert all(row.held_back is None for row in run.training)


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("torch", "faiss", "transformers"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from workbench import Run
run = Run.open(sys.argv[1])
print(len(run.questions), len(run.passages), len(run.rankings), len(run.training), len(run.answers))
print(run.passages[run.rankings[0].passages[0].passage].text)
"""


def test_a_folder_copied_alone_is_read_without_store_data_and_models(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(run.folder, folder)
    env = {key: value for key, value in os.environ.items() if key != "WORKBENCH_HOME"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BLOCKED, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    counts = [len(getattr(run, name)) for name in READERS]
    assert done.stdout.splitlines()[0] == " ".join(map(str, [*counts, len(run.answers)]))


def test_an_older_run_says_what_it_lacks_and_that_another_run_costs_nothing(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "older")
    for name in FILES:
        (tmp_path / "older" / name).unlink()
    older = Run.open(tmp_path / "older")
    assert older.leaderboard and older.answers
    for name, reader in zip(FILES, READERS, strict=True):
        with pytest.raises(InputError, match=rf"older holds no {name}: an earlier version .* costs nothing, since the store"):
            getattr(older, reader)
    with pytest.raises(InputError, match=r"holds no training\.csv: an earlier version"):
        older.frame("training")


DAMAGED = {
    "no JSON": ("{", "line 2: not JSON"),
    "no object": ("[]", r"line 2: received \[\]; allowed: an object with the keys"),
    "a key is missing": ('{"split": "dev"}', "line 2: the key '.*' is missing"),
    "another type": (None, "line 2: .*: received .*; allowed: "),
}


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".jsonl")])
@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_line_is_named(run: Run, tmp_path: Path, name: str, how: str) -> None:
    shutil.copytree(run.folder, tmp_path / "damaged")
    file, (content, said) = tmp_path / "damaged" / name, DAMAGED[how]
    lines = file.read_text().splitlines()
    row = json.loads(lines[1])
    wrong = {"questions.jsonl": {"evidence": [{"doc_id": "d"}]}, "passages.jsonl": {"start": "1"}, "rankings.jsonl": {}}
    row |= wrong[name] or {"passages": [["gate.txt:0-1", 0.5, None]]}
    lines[1] = json.dumps(row) if content is None else content
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=rf"{name}, {said}.*; run the experiment again"):
        getattr(Run.open(tmp_path / "damaged"), name.removesuffix(".jsonl"))


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_between_two_lines_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    shutil.copytree(run.folder, tmp_path / "cut")
    file = tmp_path / "cut" / name
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=rf"{name} is not what the run wrote"):
        getattr(Run.open(tmp_path / "cut"), name.split(".")[0])


def test_further_columns_are_kept_whether_slices_name_them_or_not(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "kind": "direct", "metadata": {"language": "de", "kind": "other", "tags": ["x"], "level": 2}},
        {"id": 7, "kind": None, "metadata": {"language": " ", "ok": False}},
        {"id": "not asked", "kind": "direct"},
        {"_id": "b", "id": "x", "metadata": "free text", "url": "u\n v", "text": "no column"},
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert columns.every(tmp_path / "q.jsonl", {"a", "7", "b"}) == {
        "a": {"kind": "direct", "language": "de", "level": "2"},
        "7": {"ok": "false"},
        "b": {"url": "u v"},
    }


class Watching(Progress):
    """Reads the folder of running experiments whenever a task reports."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.seen: list[str] = []
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)
        self.seen += map(str, running(self.runs))


def small(folder: Path, **metrics: object) -> dict[str, object]:
    """An experiment on documents that rankings find, judged by document and by several chunkings."""
    beir = folder / "set"
    (beir / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{i:02}", "title": f"t{i}", "text": f"word{i} common " * 4} for i in range(15)]
    asked = [{"_id": f"q{i}", "text": f"word{i} common", "metadata": {"hop": i}} for i in range(8)]
    asked[1]["history"] = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    (beir / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (beir / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    for split, numbers in (("dev", range(4)), ("test", range(4, 8))):
        judged = [f"q{i}\td{i if i else 14:02}\t{1 + i % 2}" for i in numbers]  # word0 finds d0, and d14 lies behind all others
        (beir / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(judged) + "\n")
    return {
        "experiment": "small",
        "dataset": {"beir": str(beir)},
        "components": {"retrievers": {"bm25": {"kind": "bm25"}}},
        "axes": {"chunking": ["whole", {"words": 4, "overlap": 0}], "retriever": ["bm25"]},
        "metrics": {"rankings": ["recall@300w"], **metrics},
    }


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Experiment]:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small(tmp_path)))
    yield Experiment.load(tmp_path / "small.yaml", tmp_path / "runs", (), Watching(tmp_path / "runs"))


def test_judged_documents_several_chunkings_and_conversations(experiment: Experiment) -> None:
    run = experiment.compare()
    first, second = run.questions[:2]
    assert [one.model_dump() for one in first.evidence] == [{"doc_id": "d14", "grade": 1}] and first.answers is None
    assert second.columns == {"hop": "1"} and [turn.content for turn in second.history] == ["hello", "hi"]
    assert '"history"' not in (run.folder / "questions.jsonl").read_text().splitlines()[0]
    assert {row.ranking for row in run.rankings} == {run.ranking_of(c) for c in run.labels} and len(run.labels) == 2
    d14 = [one for one in run.passages.values() if one.doc_id == "d14"]
    assert {one.end - one.start for one in d14} > {len(d14[0].text)} and len(d14) == 3  # whole, and two pieces
    lost = [row for row in run.rankings if row.query_id == "q0"]
    assert sorted((len(row.passages), row.evidence_rank) for row in lost) == [(10, 15), (10, 29)]
    found = [row for row in run.rankings if row.query_id == "q1"]
    assert all(row.evidence_rank == 1 and row.passages[0].covers for row in found)


def test_an_experiment_is_announced_while_it_runs_and_at_no_other_time(experiment: Experiment) -> None:
    folder, written = experiment.runs / RUNNING, []
    task = experiment.session.progress.task

    def watched(name: str, total: int) -> object:
        written.extend(json.loads(path.read_text()) for path in folder.glob("*.json"))
        experiment.announcement._written = 0.0  # as if a second had passed
        return task(name, total)

    experiment.session.progress.task = watched
    assert not folder.exists()
    experiment.index()
    assert list(folder.iterdir()) == []
    experiment.compare()
    assert list(folder.iterdir()) == [] and running(experiment.runs) == []
    assert {one["experiment"] for one in written} == {"small"} and {one["pid"] for one in written} == {os.getpid()}
    assert all(one["left"] >= 0 and one["seconds"] >= 0 and one["total"] >= one["done"] for one in written)
    with experiment.announcement.step(360_000.0), experiment.session.progress.task("thinking", 4) as done:
        experiment.announcement._written = 0.0
        done(3)
        (one,) = running(experiment.runs)
        assert (one.record.stage, one.record.done, one.record.total, one.ended) == ("thinking", 3, 4, False)
        assert str(one) == "small: thinking, 3 of 4, at most about 100.0 hours left"
        done(1)  # within a second: not written
        assert running(experiment.runs)[0].record.done == 3
    for error, why in ((ZeroDivisionError("no way"), "ZeroDivisionError: no way"), (KeyboardInterrupt(), "interrupted")):
        with pytest.raises(type(error)), experiment.announcement.step(1.0), experiment.session.progress.task("thinking", 4):
            raise error
        (one,) = running(experiment.runs)
        assert one.ended and str(one) == f"small: {ENDED}, while thinking ({why})"
        page = index(experiment.runs)
        unfinished = page.partition("<section id=unfinished ")[2].partition("</section>")[0]
        assert str(one) in unfinished and "<section id=running " not in page
    with experiment.announcement.step(1.0):  # it goes on
        assert ENDED not in index(experiment.runs)
    assert running(experiment.runs) == []


def test_a_process_that_is_gone_ended_without_finishing(experiment: Experiment) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    with experiment.announcement.step(1.0):
        (one,) = running(experiment.runs)
        for name, pid, host in (("small", gone.pid, one.record.host), ("other", gone.pid, one.record.host), ("far", 1, "far")):
            text = one.record.model_copy(update={"experiment": name, "pid": pid, "host": host, "stage": "generating"})
            (one.path.parent / f"1{name}.json").write_text(text.model_dump_json())
    left = {one.record.experiment: one for one in running(experiment.runs)}
    assert {name: one.ended for name, one in left.items()} == {"small": True, "other": True, "far": False}
    assert str(left["small"]) == f"small: {ENDED}, while generating"
    with Announcement(experiment.runs, "small", Progress()).step(1.0):  # it goes on, so nothing is left of what ended
        names = [one.record.experiment for one in running(experiment.runs) if one.record.pid == gone.pid]
        assert names == ["other"]
    (experiment.runs / RUNNING / "1other.json").write_text('{"experiment": "other"}')
    with pytest.raises(InputError, match=r"1other\.json: the key 'pid' is missing"):
        running(experiment.runs)


def test_a_folder_that_cannot_be_written_is_said_once_and_ends_no_run(experiment: Experiment) -> None:
    experiment.runs.mkdir(exist_ok=True)
    (experiment.runs / RUNNING).write_text("in its place")
    experiment.index()
    assert experiment.compare().leaderboard
    said = [text for text in experiment.session.progress.said if RUNNING in text]
    assert len(said) == 1 and "cannot be written" in said[0] and "it goes on" in said[0]


def test_writing_the_files_takes_no_model(toy: Finished) -> None:
    """A run from a full store writes them without loading anything that computes, and each is small."""
    experiment = Experiment.load(toy.config, toy.runs, progress=Progress())
    run = experiment.compare()
    assert not experiment.session.computed and not experiment.session._opened
    for name in FILES:
        assert (run.folder / name).read_bytes() == (toy.run / name).read_bytes(), name
        assert name in run.manifest["files"] and (run.folder / name).stat().st_size < 100_000


def test_a_search_writes_what_it_measured(toy: Finished) -> None:
    found = Experiment.load(toy.config, toy.runs, ["search.strategy=greedy", "search.order=file"], Progress()).compare()
    measured = {(found.ranking_of(row.configuration), row.split) for row in found.leaderboard}
    assert {(row.ranking, row.split) for row in found.rankings} == measured
    assert {one.passage for row in found.rankings for one in row.passages} <= found.passages.keys()


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Passages of twelve words, so that most evidence is cut in two; and a configuration that never shows passages."""
    folder = tmp_path_factory.mktemp("pieces")
    settings = {
        "experiment": "pieces",
        "dataset": {"name": "pydocs", "limit": 30},
        "components": {"retrievers": {"bm25": {"kind": "bm25"}}, "generators": {"toy": {"model": toys.made(toys.parrot)}}},
        "axes": {"chunking": [{"words": 12, "overlap": 0}], "generator": ["toy"], "retrieval": ["always", "never"]},
        "metrics": {"rankings": ["recall@10"]},
        "report": {"of": "all"},
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(settings))
    return Experiment.load(folder / "e.yaml", folder / "runs", (), Progress()).compare()


def test_passages_that_complete_evidence_are_found_letter_by_letter(pieces: Run) -> None:
    asked = {one.query_id: one for one in pieces.questions}
    recall = {(r.split, r.query_id): r.value for r in pieces.results if r.metric == "recall@10"}
    letters = {name: set(_letters(one)) for name, one in pieces.passages.items()}
    everything = set().union(*letters.values())
    together = 0
    for row in pieces.rankings:
        needed = [{(e.doc_id, i) for i in range(e.start, e.end)} & everything for e in asked[row.query_id].evidence]
        assert not asked[row.query_id].evidence or all(needed)
        read: set[tuple[str, int]] = set()
        for ranked in row.passages:
            before, own = set(read), letters[ranked.passage]
            read |= own
            alone = any(one <= own for one in needed)
            completed = any(one <= read and not one <= before for one in needed)
            assert ranked.covers == (alone or completed), (row.query_id, ranked)
            together += completed and not alone
        found = any(one.covers for one in row.passages)
        assert (recall.get((row.split, row.query_id), 0.0) > 0) == found
    assert together > 3  # evidence that two passages cover together


def _letters(passage: PassageRecord) -> Iterator[tuple[str, int]]:
    """Document and offset of every character of a passage that is no white space."""
    return ((passage.doc_id, passage.start + i) for i, letter in enumerate(passage.text) if not letter.isspace())


def test_questions_keep_their_kind_and_some_configurations_have_no_ranking(pieces: Run) -> None:
    assert {one.columns["kind"] for one in pieces.questions} == {"direct", "reworded", "unanswerable"}
    assert all(bool(one.answers) == bool(one.evidence) == (one.columns["kind"] != "unanswerable") for one in pieces.questions)
    assert sorted(pieces.ranking_of(c) is None for c in pieces.labels) == [False, True] and pieces.training == []
    assert {row.ranking for row in pieces.rankings} < {pieces.ranking_of(c) for c in pieces.labels}


@pytest.mark.parametrize("kind", [QuestionRecord, PassageRecord, RankingRecord, RunningRecord])
def test_every_key_is_described(kind: type[Record]) -> None:
    page = (ROOT / "docs" / "run-folder.md").read_text()
    name = {RunningRecord: "## While an experiment runs"}.get(
        kind, f"`{kind.__name__.removesuffix('Record').lower()}s.jsonl` has"
    )
    table = page.split(name)[1].split("| --- | --- |\n")[1].split("\n\n")[0]
    described = {key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert described == kind.model_fields.keys()
