"""Question sets through `datasets`, from data that it wrote itself, in a process that reaches no network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.data.forms import reading
from workbench.data.forms.hub import Hub
from workbench.errors import InputError, MissingExtraError
from workbench.experiment.config import DatasetSettings

datasets = pytest.importorskip("datasets")

LAMP, ORE = "The lamp burns oil. It was lit in 1822.", "Copper ore is green. Tin ore is brown."


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def squad_rows(name: str) -> list[dict[str, Any]]:
    place = LAMP.index("1822")
    return [
        {
            "id": f"{name}1",
            "title": "Lamp",
            "context": LAMP,
            "question": "When?",
            "answers": {"text": ["1822"], "answer_start": [place]},
        },
        {
            "id": f"{name}2",
            "title": "Ore",
            "context": ORE,
            "question": "Green?",
            "answers": {"text": ["Copper"], "answer_start": [0]},
        },
    ]


def saved(folder: Path) -> Path:
    parts = {split: datasets.Dataset.from_list(squad_rows(split)) for split in ("train", "validation")}
    datasets.DatasetDict(parts).save_to_disk(str(folder))
    return folder


def as_parquet(folder: Path) -> Path:
    folder.mkdir()
    for split in ("train", "validation"):
        datasets.Dataset.from_list(squad_rows(split)).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("write", [saved, as_parquet])
def test_a_set_that_datasets_wrote_is_read_without_a_network(write: Any, tmp_path: Path, offline: dict[str, str]) -> None:
    """In a process of its own: other hosts are refused, and the cache is empty."""
    folder = write(tmp_path / "set")
    program = (
        "import json, sys\n"
        "from workbench.experiment.config import DatasetSettings\n"
        "found = DatasetSettings(hub=sys.argv[1]).load()\n"
        "print(json.dumps([found.splits, found.kind, found.queries['id'].to_pylist(), found.documents.num_rows]))\n"
    )
    env = offline | {"WORKBENCH_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program, str(folder)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    splits = {"train": 2, "dev": 2}
    assert json.loads(done.stdout.splitlines()[-1]) == [splits, "spans", ["train1", "train2", "validation1", "validation2"], 2]


def test_one_split_of_a_set_is_read(tmp_path: Path) -> None:
    found = DatasetSettings(hub=str(saved(tmp_path / "set")), split="validation").load()
    assert found.splits == {"dev": 2}
    with pytest.raises(InputError, match=r"dataset\.split: .* has the splits train, validation; received 'test'"):
        DatasetSettings(hub=str(tmp_path / "set"), split="test").load()


def test_a_part_of_a_split_of_parquet_files_is_read(tmp_path: Path) -> None:
    found = DatasetSettings(hub=str(as_parquet(tmp_path / "set")), split="train[:1]").load()
    assert found.queries["id"].to_pylist() == ["train1"] and found.splits == {"train": 1}


def test_columns_of_a_set_are_named_and_its_questions_asked_of_a_folder(tmp_path: Path) -> None:
    rows = [
        {"prompt_text": "When?", "gold": "1822", "level": "easy"},
        {"prompt_text": "Green?", "gold": "Copper", "level": "hard"},
    ]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "set"))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "lamp.txt").write_text(LAMP)
    settings = DatasetSettings(
        hub=str(tmp_path / "set"), folder=tmp_path / "texts", columns={"question": "prompt_text", "answers": "gold"}
    )
    found = settings.load(["level"])
    assert {row["text"]: row["answers"] for row in found.queries.to_pylist()} == {"When?": ["1822"], "Green?": ["Copper"]}
    assert found.column("level") == {"1": "easy", "2": "hard"}
    assert found.splits == {"dev": 1, "test": 1}, "one split of another name is none"
    assert settings.further_columns({"2"}) == {"2": {"level": "hard"}}


def test_other_content_is_another_dataset(tmp_path: Path) -> None:
    one, other = squad_rows("a"), squad_rows("a")
    other[0]["question"] = "In which year?"
    for name, rows in (("one", one), ("other", other), ("again", one)):
        datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / name))
    contents = {name: Hub(str(tmp_path / name)).content() for name in ("one", "other", "again")}
    assert contents["one"] == contents["again"] != contents["other"]


def test_a_set_that_is_not_in_the_cache_is_refused_with_the_way_out(tmp_path: Path, offline: dict[str, str]) -> None:
    env = offline | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "WORKBENCH_HOME": str(tmp_path / "home")}
    program = "from workbench.data.forms.hub import Hub; Hub('rajpurkar/squad').content()"
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "InputError: dataset.hub: rajpurkar/squad: " in last and "HF_HUB_OFFLINE is set" in last, done.stderr[-2000:]
    assert "fetch it once with a network, or name a folder that `datasets` saved it to" in last


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rag-workbench\[hub\]'"):
        reading.read(reading.Source(hub=Hub(str(tmp_path))))


def test_settings_of_a_hub_stand_beside_a_hub_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="revision stands beside hub, not beside questions; leave it away"):
        DatasetSettings(questions=tmp_path / "q.jsonl", revision="main")
    with pytest.raises(ValueError, match="received questions and hub; allowed: exactly one of name, beir, questions, hub"):
        DatasetSettings(questions=tmp_path / "q.jsonl", hub="a/b")
