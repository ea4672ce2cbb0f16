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


# --- collections in the layout of BEIR ------------------------------------------------------------------------------------

DOCUMENTS = [{"_id": str(n), "title": f"Stone {n}", "text": f"Stone {n} is heavy."} for n in range(4)]
ASKED = [{"_id": f"q{n}", "text": f"What is stone {n}?", "kind": "easy" if n % 2 else "hard"} for n in range(4)]


def judgements(split: str) -> list[dict[str, Any]]:
    """Of two queries each, as published sets write them: ids of documents as numbers, grades as numbers with a point."""
    numbers = (0, 1) if split == "train" else (2, 3)
    return [{"query-id": f"q{n}", "corpus-id": n, "score": 1.0} for n in numbers] + [
        {"query-id": f"q{numbers[0]}", "corpus-id": numbers[1], "score": -1.0}
    ]


def parts() -> dict[str, Any]:
    """The parts of a collection as `datasets` has them."""
    judged = {split: datasets.Dataset.from_list(judgements(split)) for split in ("train", "test")}
    return {
        "corpus": datasets.DatasetDict({"corpus": datasets.Dataset.from_list(DOCUMENTS)}),
        "queries": datasets.DatasetDict({"queries": datasets.Dataset.from_list(ASKED)}),
        "qrels": datasets.DatasetDict(judged),
    }


def collection_saved(folder: Path) -> Path:
    for name, part in parts().items():
        part.save_to_disk(str(folder / name))
    return folder


def collection_in_configurations(folder: Path, judged: str = "default") -> Path:
    """A repository with a card that names the files of each configuration, as sets of the hub have it."""
    configs = []
    for name, part in parts().items():
        files = []
        for split, rows in part.items():
            file = folder / name / f"{split}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            rows.to_parquet(file)
            files.append({"split": split, "path": f"{name}/{split}.parquet"})
        configs.append({"config_name": judged if name == "qrels" else name, "data_files": files})
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return folder


@pytest.mark.parametrize("write", [collection_saved, collection_in_configurations])
def test_a_collection_is_read_by_the_name_of_its_set(write: Any, tmp_path: Path) -> None:
    settings = DatasetSettings(hub=str(write(tmp_path / "set")))
    found = settings.load(["kind"])
    assert found.splits == {"train": 2, "test": 2} and found.kind == "documents" and found.documents.num_rows == 4
    assert found.judged("test").documents == {"q2": {"2": 1}, "q3": {"3": 1}}, "a grade below 0 is not relevant"
    assert found.column("kind") == {"q0": "hard", "q1": "easy", "q2": "hard", "q3": "easy"}
    assert settings.further_columns({"q1"}) == {"q1": {"kind": "easy"}}


def test_judgements_may_be_a_configuration_of_another_name(tmp_path: Path) -> None:
    found = DatasetSettings(hub=str(collection_in_configurations(tmp_path / "set", "qrels"))).load()
    assert found.splits == {"train": 2, "test": 2}


def test_a_split_of_a_collection_is_that_of_its_judgements(tmp_path: Path) -> None:
    for write in (collection_saved, collection_in_configurations):
        found = DatasetSettings(hub=str(write(tmp_path / write.__name__)), split="test").load()
        assert found.splits == {"test": 2} and found.documents.num_rows == 4


def test_judgements_may_be_a_set_of_their_own(tmp_path: Path) -> None:
    folder = collection_in_configurations(tmp_path / "set")
    card = (folder / "README.md").read_text()
    configs = json.loads(card.split("configs: ")[1].splitlines()[0])
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs[:2])}\n---\n")
    with pytest.raises(InputError, match=r"set has documents and queries, and no judgements: neither its configurations qrels"):
        DatasetSettings(hub=str(folder)).load()
    parts()["qrels"].save_to_disk(str(tmp_path / "set-qrels"))
    assert DatasetSettings(hub=str(folder)).load().splits == {"train": 2, "test": 2}


def test_a_collection_in_the_cache_is_read_without_a_network(tmp_path: Path, offline: dict[str, str]) -> None:
    """What `datasets` keeps of a set of the hub: what it wrote for a folder, at the place where it keeps such sets."""
    folder, cache = collection_in_configurations(tmp_path / "set"), tmp_path / "hf" / "datasets"
    for name in ("corpus", "queries", "default"):
        datasets.load_dataset(str(folder), name, cache_dir=str(cache))
        (kept,) = [one for one in (cache / "set").iterdir() if one.name.startswith(name)]
        (version,) = [one for one in kept.iterdir() if one.is_dir()]
        (cache / "stones___set" / name).mkdir(parents=True)
        version.rename(cache / "stones___set" / name / version.name)
    program = "from workbench.experiment.config import DatasetSettings as D; print(D(hub='stones/set').load().splits)"
    env = offline | {"WORKBENCH_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("{'train': 2, 'test': 2}"), done.stderr[-2000:]


def changed(folder: Path, part: str, rows: list[dict[str, Any]]) -> Path:
    """A saved collection with other rows in one of its parts."""
    collection_saved(folder)
    target = folder / part
    for file in sorted(target.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)}).save_to_disk(str(target))
    return folder


@pytest.mark.parametrize(
    ("part", "rows", "said"),
    [
        ("qrels", [{"query-id": "q0", "corpus-id": "0", "score": 0.5}], "row 1: score: received 0.5; allowed: a whole number"),
        ("qrels", [{"query-id": "q0", "corpus-id": "0", "score": 0}], "judgements of test has no grade above 0"),
        (
            "qrels",
            [{"query-id": "q0", "corpus-id": "0", "score": grade} for grade in (1, 2)],
            "row 2: document '0' has the grade 2 for query 'q0', and in row 1 the grade 1; give one",
        ),
        ("corpus", [{"_id": "0", "text": "a"}, {"_id": "0", "text": "b"}], "row 2: the id '0' is given twice, first in row 1"),
        ("queries", [{"_id": "q0", "question": "a"}], "row 1: the key 'text' is missing"),
    ],
)
def test_a_bad_collection_is_refused_with_its_row(part: str, rows: list[dict[str, Any]], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        DatasetSettings(hub=str(changed(tmp_path / "set", part, rows))).load()


def test_a_collection_has_its_own_documents(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    with pytest.raises(InputError, match=r"dataset\.folder: .* has documents, queries and judgements of its own"):
        DatasetSettings(hub=str(collection_saved(tmp_path / "set")), folder=tmp_path / "texts").load()
