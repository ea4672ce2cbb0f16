"""Questions in several files: one set, whose ids are distinct over all of them and whose splits the files may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from workbench.data.dataset import Dataset
from workbench.errors import InputError
from workbench.experiment.config import DatasetSettings, read_settings

LAMP = "The lamp of the harbour burns oil. It was lit in 1822."
MILL = "The mill grinds rye. Its wheel turns to the left."


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))


def squad(path: Path, name: str, context: str, answer: str) -> Path:
    answers = [{"text": answer, "answer_start": context.index(answer)}]
    paragraph = {"context": context, "qas": [{"id": name, "question": f"{name}?", "answers": answers}]}
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "Things", "paragraphs": [paragraph]}]}))
    return path


def own(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def line(name: object, split: str = "dev", evidence: str = "It was lit in 1822.") -> dict[str, Any]:
    return {"id": name, "split": split, "question": "When?", "answers": ["1822"], "evidence": evidence}


def texts(place: Path) -> Path:
    (place / "texts").mkdir()
    (place / "texts" / "lamp.txt").write_text(LAMP)
    (place / "texts" / "mill.txt").write_text(MILL)
    return place / "texts"


def read(*questions: Path, **settings: Any) -> Dataset:
    return DatasetSettings(questions=questions, **settings).load()


def splits(dataset: Dataset) -> dict[str, str]:
    return {row["id"]: row["split"] for row in dataset.queries.to_pylist()}


def test_the_names_of_files_say_the_splits_of_questions_that_have_none(tmp_path: Path) -> None:
    train, dev = squad(tmp_path / "train-v1.1.json", "a", LAMP, "1822"), squad(tmp_path / "dev-v1.1.json", "b", LAMP, "oil")
    found = read(train, dev)
    assert splits(found) == {"a": "train", "b": "dev"}
    assert found.documents.num_rows == 1, "a context that both files have is one document"
    assert any("the names of the files say it: train-v1.1.json is train, dev-v1.1.json is dev" in note for note in found.notes)


def test_a_renamed_file_says_another_split(tmp_path: Path) -> None:
    train, dev = squad(tmp_path / "train.json", "a", LAMP, "1822"), squad(tmp_path / "dev.json", "b", MILL, "rye")
    assert splits(read(train, dev)) == {"a": "train", "b": "dev"}
    assert splits(read(train, dev.rename(tmp_path / "test.json"))) == {"a": "train", "b": "test"}


def test_names_that_say_nothing_divide_nothing(tmp_path: Path) -> None:
    files = [squad(tmp_path / f"part{n}.json", str(n), f"{LAMP} {n}", "1822") for n in range(2)]
    found = read(*files)
    assert set(splits(found).values()) == {"dev", "test"}
    assert any("no question has a split, so 2 questions were divided" in note for note in found.notes)


def test_splits_in_the_rows_come_before_names(tmp_path: Path) -> None:
    folder = texts(tmp_path)
    one, two = own(tmp_path / "train.jsonl", line(1, "test")), own(tmp_path / "dev.jsonl", line(2, "dev"))
    assert splits(read(one, two, folder=folder)) == {"1": "test", "2": "dev"}


def test_lines_of_ones_own_form_keep_their_meaning(tmp_path: Path) -> None:
    folder = texts(tmp_path)
    rows = [line(1), line(2, "test", "The mill grinds rye.")]
    apart = read(own(tmp_path / "a.jsonl", rows[0]), own(tmp_path / "b.jsonl", rows[1]), folder=folder)
    whole = DatasetSettings(questions=own(tmp_path / "all.jsonl", *rows), folder=folder).load()
    assert apart.queries.equals(whole.queries) and apart.judgements.equals(whole.judgements)


def test_files_of_questions_that_lie_in_the_folder_are_no_documents(tmp_path: Path) -> None:
    folder = texts(tmp_path)
    one = own(folder / "a.jsonl", line(1))
    two = (folder / "b.txt", "<top>\n<num> 2\n<title> When?\n</top>\n")
    two[0].write_text(two[1])
    assert read(one, own(folder / "c.jsonl", line(3, "test")), folder=folder).documents["id"].to_pylist() == [
        "b.txt",
        "lamp.txt",
        "mill.txt",
    ]


def test_an_id_of_two_files_is_refused_with_both_places(tmp_path: Path) -> None:
    folder = texts(tmp_path)
    one, two = own(tmp_path / "a.jsonl", line(7)), own(tmp_path / "b.jsonl", line(8), line("7"))
    with pytest.raises(InputError, match=r"b\.jsonl, line 2: the id '7' is given twice, first in .*a\.jsonl, line 1; ids are"):
        read(one, two, folder=folder)


def test_files_with_documents_and_files_without_are_refused_together(tmp_path: Path) -> None:
    brings, lacks = squad(tmp_path / "a.json", "a", LAMP, "oil"), tmp_path / "b.csv"
    lacks.write_text("question,answer\nWhen?,1822\n")
    with pytest.raises(InputError, match=r"questions of .*a\.json bring their documents along, those of .*b\.csv do not"):
        read(brings, lacks)


def test_one_of_several_files_that_is_absent_is_named(tmp_path: Path) -> None:
    folder = texts(tmp_path)
    with pytest.raises(InputError, match=r"none\.jsonl does not exist"):
        read(own(tmp_path / "a.jsonl", line(1)), tmp_path / "none.jsonl", folder=folder)


@pytest.mark.parametrize(
    ("given", "said"),
    [("[]", "received an empty list; allowed: a file, or a list of files"), ("[a.csv, a.csv]", "a.csv is named twice")],
)
def test_a_list_that_says_nothing_is_refused(given: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(f"experiment: e\ndataset: {{questions: {given}}}\n")
    with pytest.raises(InputError, match=said):
        read_settings(tmp_path / "e.yaml")


def test_a_list_is_found_from_the_file_and_at_another_place(tmp_path: Path) -> None:
    settings = {"experiment": "e", "dataset": {"questions": ["q/a.jsonl", "q/b.jsonl"], "folder": "texts"}}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(settings))
    read = read_settings(tmp_path / "e.yaml").dataset
    assert read.questions == (tmp_path / "q/a.jsonl", tmp_path / "q/b.jsonl")
    assert read.absent() == tmp_path / "texts"
    assert read.moved(tmp_path / "other" / "texts").questions == (tmp_path / "other/q/a.jsonl", tmp_path / "other/q/b.jsonl")
