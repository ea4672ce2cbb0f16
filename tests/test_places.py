"""Places that cannot be written, and data that have moved: what is asked is done all the same, or the way out is named."""

from __future__ import annotations

import gc
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import toys
import yaml
from conftest import ROOT, workbench

from workbench import Experiment
from workbench.errors import InputError
from workbench.experiment.keeping import collect
from workbench.pipeline import Pipeline
from workbench.results.run import Run
from workbench.serving.gate import gate
from workbench.store.progress import Progress
from workbench.store.store import Store


class Moved(NamedTuple):
    """A finished run in a folder with its data."""

    place: Path
    run: Path
    data: Path


def made(place: Path, kind: str) -> Moved:
    """A small run that answers, on data beside it."""
    facts = Path(toys.made(toys.facts))
    if kind == "folder":
        shutil.copytree(facts, place / "data")
        dataset = {"folder": "data/documents", "questions": "data/questions.jsonl"}
    else:
        (place / "data" / "qrels").mkdir(parents=True)
        texts = [{"_id": p.stem, "text": p.read_text()} for p in sorted((facts / "documents").iterdir())]
        rows = [json.loads(line) for line in (facts / "questions.jsonl").read_text().splitlines()]
        asked = [{"_id": row["id"], "text": row["question"], "answers": row["answers"]} for row in rows]
        for name, those in (("corpus", texts), ("queries", asked)):
            (place / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in those))
        for split in ("dev", "test"):
            judged = "".join(f"{row['id']}\tgate\t1\n" for row in rows if row["split"] == split)
            (place / "data" / "qrels" / f"{split}.tsv").write_text(judged)
        dataset = {"beir": "data"}
    settings = {
        "experiment": "moved",
        "dataset": dataset | {"limit": 4},
        "components": {
            "retrievers": {"bm25": {"kind": "bm25"}},
            "generators": {"small": {"model": toys.made(toys.language_model), "max_new_tokens": 4}},
        },
        "axes": {"generator": ["small"]},
        "metrics": {"rankings": ["ndcg@10"]},
    }
    (place / "e.yaml").write_text(yaml.safe_dump(settings))
    run = Experiment.load(place / "e.yaml", place / "our runs", (), Progress()).compare()
    run.promote()
    gc.collect()  # the experiment's connection to the store, closed later, would move what it wrote into items.sqlite
    data = place / "data" / "documents" if kind == "folder" else place / "data"
    return Moved(place, run.folder, data)


@pytest.fixture(scope="module", params=["folder", "beir"])
def moved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Moved:
    """A run and its data that have moved together."""
    before = made(tmp_path_factory.mktemp("places") / "before", request.param)
    after = before.place.with_name("after")
    before.place.rename(after)
    return Moved(after, after / before.run.relative_to(before.place), after / before.data.relative_to(before.place))


@pytest.fixture(scope="module")
def lying(tmp_path_factory: pytest.TempPathFactory) -> Moved:
    """A run where it was made."""
    return made(tmp_path_factory.mktemp("lying") / "here", "folder")


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def unwritable(lying: Moved, monkeypatch: pytest.MonkeyPatch) -> Moved:
    """The run in a folder that cannot be written; the superuser of a test could, so nothing is allowed to change in it."""
    access = os.access
    inside = lying.run.parent.parent
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (Path(path).is_relative_to(inside) and mode & os.W_OK) and access(path, mode)
    )
    return lying


def test_a_run_that_cannot_be_written_is_asked_and_served(unwritable: Moved) -> None:
    before = contents(unwritable.run.parent.parent)
    pipeline = Pipeline.open(unwritable.run, progress=Progress())
    assert pipeline.session.store.read_only
    first, again = pipeline.ask("What does the gate keep at noon?"), pipeline.ask("What does the gate keep at noon?")
    assert first.reply == again.reply and first.sources == again.sources
    query_id = json.loads((unwritable.run / "answers.jsonl").read_text().splitlines()[0])["query_id"]
    assert pipeline.replay(query_id).same and gate(pipeline)
    assert contents(unwritable.run.parent.parent) == before


def test_what_a_store_that_cannot_be_written_lacks_is_named(unwritable: Moved) -> None:
    store = Store(unwritable.run.parent.parent / ".store")
    with pytest.raises(InputError, match=r"terms 0123 is not in the store .* which cannot be written; copy the folder of runs"):
        store.create("terms", "0123", {}, lambda folder: None)
    again = Experiment.load(unwritable.place / "e.yaml", unwritable.run.parent.parent, ["depth=7"], Progress())
    assert again.plan()
    with pytest.raises(InputError, match=r"the store .* cannot be written; name a folder that can with --runs"):
        again.compare()


def test_a_store_that_cannot_be_written_is_not_cleared(unwritable: Moved) -> None:
    runs = unwritable.run.parent.parent
    for limit in ({"keep_days": 0}, {"max_gb": float("nan")}):
        with pytest.raises(InputError, match=r"the store .* cannot be written"):
            collect(Store(runs / ".store"), runs, pointed=True, **limit)


DAMAGES = {
    "manifest.json": ["", "[]", "{}", "\xff", '{"experiment": "moved", "select": null}'],
    "promoted.yaml": ["", "- a", "a: 1", "configuration: 5", "a: [", "configuration: 000000000000"],
    "configurations.csv": ["", "configuration,label\n", "whole lines"],
    "leaderboard.csv": ["whole lines"],
    "results.csv": ["whole lines"],
    "queries.csv": ["whole lines"],
    "config.yaml": ["", "experiment: moved"],
    "answers.jsonl": ["{", "[]"],
}


@pytest.mark.parametrize("name,content", [(name, content) for name, contents in DAMAGES.items() for content in contents])
def test_a_damaged_file_of_a_run_is_named(lying: Moved, tmp_path: Path, name: str, content: str) -> None:
    folder = tmp_path / "moved" / lying.run.name
    shutil.copytree(lying.run, folder)
    (tmp_path / ".store").symlink_to(lying.run.parent.parent / ".store")
    file = folder / name
    lines = file.read_text().splitlines(keepends=True)
    file.write_bytes("".join(lines[:-1]).encode() if content == "whole lines" else content.encode("latin-1"))

    def used() -> None:
        run = Run.open(folder)
        _ = run.leaderboard, run.queries, run.scores("test", "f1"), run.promoted
        Pipeline.open(run, progress=Progress()).replay("test0")

    with pytest.raises(InputError) as told:
        used()
    assert str(file) in str(told.value), told.value
    if name == "promoted.yaml":
        assert "`workbench promote" in str(told.value) and Run.open(folder).promote() == Run.open(folder).promoted


def test_a_run_of_another_format_names_the_format(lying: Moved, tmp_path: Path) -> None:
    manifest = json.loads((lying.run / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(InputError, match="has the format 99, and this version of the workbench reads 1"):
        Run.open(tmp_path)


def test_data_that_have_moved_are_named(moved: Moved) -> None:
    with pytest.raises(InputError, match=r"is not there; where its data have moved, name their folder: --dataset PATH"):
        Pipeline.open(moved.run, progress=Progress())
    with pytest.raises(InputError, match=r"nowhere is not there$"):
        Pipeline.open(moved.run, progress=Progress(), dataset=moved.place / "nowhere")
    done = workbench("ask", moved.run, "What does the gate keep?", "--dataset", moved.data)
    assert done.returncode == 0 and json.loads(done.stdout)["status"] == "ok", done.stderr
    query_id = json.loads((moved.run / "answers.jsonl").read_text().splitlines()[0])["query_id"]
    done = workbench("replay", moved.run, query_id, "--dataset", os.path.relpath(moved.data, ROOT))
    assert done.returncode == 0 and json.loads(done.stdout)["same"], done.stderr
    assert workbench("index", "check", moved.run, "--dataset", moved.data).returncode == 0
    done = workbench("rerun", moved.run, "--dataset", moved.data, "--no-notebooks")
    assert done.returncode == 0 and "The run is reproduced" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("changed", ["a document", "a question", "an answer"])
def test_data_that_have_changed_on_their_way_are_refused(moved: Moved, tmp_path: Path, changed: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(moved.place / "data", data)
    texts = data / "documents" / "gate.txt" if moved.data.name == "documents" else data / "corpus.jsonl"
    asked = data / ("questions.jsonl" if moved.data.name == "documents" else "queries.jsonl")
    file = texts if changed == "a document" else asked
    replaced = {"a document": ("People", "Persons"), "a question": ("at night", "at noon")}
    old, new = replaced.get(changed, ('"answers": ["', '"answers": ["x'))
    file.write_text(file.read_text().replace(old, new))
    what = {"a document": "documents", "a question": "questions of test", "an answer": "answers of dev"}[changed]
    with pytest.raises(InputError, match=f"the {what} of .* have changed since"):
        Pipeline.open(moved.run, progress=Progress(), dataset=data / "documents" if moved.data.name == "documents" else data)


def test_a_built_in_dataset_has_no_place(tmp_path: Path) -> None:
    from workbench.experiment.config import DatasetSettings

    with pytest.raises(InputError, match=r"--dataset .* is built in; leave the option away"):
        DatasetSettings(name="pydocs").moved(tmp_path)


def test_printed_commands_can_be_pasted(lying: Moved, tmp_path: Path) -> None:
    runs = tmp_path / "runs of $HOME; 'mine'"
    done = workbench("run", lying.place / "e.yaml", "--runs", runs, "--no-notebooks")
    assert done.returncode == 0, done.stderr
    printed = [line.split(None, 1)[1] for line in done.stdout.splitlines() if line.startswith(("dashboards:", "demo:"))]
    folder = str(Run.latest(runs).folder)
    assert [shlex.split(line)[-1] for line in printed] == [str(runs), folder]
    missing = workbench("store", "ls", "--runs", tmp_path / "no runs")
    assert missing.returncode == 2 and f"--runs {shlex.quote(str(tmp_path / 'no runs'))}` makes one" in missing.stderr


@pytest.mark.parametrize("what", ["home", "runs", "runs below a file", "a home that cannot be made", "out"])
def test_a_place_that_cannot_be_used_is_named_with_the_way_out(lying: Moved, tmp_path: Path, what: str) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    config: list[object] = ["run", lying.place / "e.yaml", "--no-notebooks", "--runs", tmp_path / "runs"]
    if what == "home":
        done, way = workbench(*config, env=env | {"WORKBENCH_HOME": str(file / "home")}), "set WORKBENCH_HOME to a folder"
    elif what == "runs":
        done, way = workbench(*config[:-1], file), "name a folder that can be written with --runs"
    elif what == "runs below a file":
        done, way = workbench(*config[:-1], file / "runs"), "name a folder that can be written with --runs"
    elif what == "a home that cannot be made":
        done, way = workbench(*config, env=env | {"WORKBENCH_HOME": "/proc/nowhere"}), "set WORKBENCH_HOME to a folder"
    else:
        scores = tmp_path / "s.csv"
        scores.write_text("query_id,a,b\n1,0,1\n2,1,1\n3,0,0\n")
        (tmp_path / "taken.md").mkdir()
        done, way = workbench("compare", scores, "--out", tmp_path / "taken.md"), "taken.md cannot be used: Is a directory"
    assert done.returncode == 2 and way in done.stderr and "unexpected" not in done.stderr, done.stderr
