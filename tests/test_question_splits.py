"""Splits that are made for questions without any: by document or conversation, whatever the order, with what they can show."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from scipy import stats

from workbench.data import splits
from workbench.data.dataset import Dataset
from workbench.errors import InputError
from workbench.experiment.config import DatasetSettings


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))


def made(folder: Path, documents: int, questions: int, **settings: object) -> Dataset:
    """Questions in turn on several documents, two of each paragraph."""
    (folder / "texts").mkdir()
    for number in range(documents):
        paragraphs = "\n\n".join(f"Fact {number} {part} stands here." for part in range(questions))
        (folder / "texts" / f"{number}.txt").write_text(f"Document {number}\n\n{paragraphs}\n")
    rows = [
        {"question": f"Question {n}?", "answer": "yes", "evidence": f"Fact {n % documents} {n // documents // 2} stands here."}
        for n in range(questions)
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DatasetSettings(questions=folder / "mine.jsonl", folder=folder / "texts", **settings).load()


def documents_of(dataset: Dataset) -> dict[str, set[str]]:
    return {
        split: {place.doc_id for pieces in dataset.judged(split).spans.values() for piece in pieces for place in piece}
        for split in dataset.splits
    }


def test_no_document_is_in_two_splits(tmp_path: Path) -> None:
    found = made(tmp_path, documents=10, questions=60)
    assert found.splits == {"dev": 30, "test": 30}
    parts = documents_of(found)
    assert parts["dev"] & parts["test"] == set() and len(parts["dev"] | parts["test"]) == 10
    assert any("60 questions were divided by document or conversation and a hash: dev 30, test 30" in n for n in found.notes)


def test_shares_are_kept_as_whole_documents_allow(tmp_path: Path) -> None:
    found = made(tmp_path, documents=20, questions=100, splits={"test": 0.5, "train": 0.3, "dev": 0.2})
    assert found.splits == {"train": 30, "dev": 20, "test": 50}


def test_questions_on_one_document_are_divided_by_paragraph(tmp_path: Path) -> None:
    found = made(tmp_path, documents=1, questions=20)
    groups = {split: {query.group for query in found.split(split)} for split in found.splits}
    assert groups["dev"] & groups["test"] == set() and found.splits == {"dev": 10, "test": 10}
    assert any("divided by paragraph" in note for note in found.notes)


def test_small_splits_say_what_they_could_show(tmp_path: Path) -> None:
    found = made(tmp_path, documents=10, questions=40)
    cautions = [note for note in found.notes if note.startswith("CAUTION")]
    assert len(cautions) == 2
    assert "the split test has 10 independent questions" in cautions[1] and "60 points of 100" in cautions[1]


def test_fewer_questions_cannot_show_anything() -> None:
    """The smallest number of questions, all for one setup, whose sign test falls below 5 %."""
    assert (
        stats.binomtest(splits.FEWEST, splits.FEWEST).pvalue
        <= 0.05
        < stats.binomtest(splits.FEWEST - 1, splits.FEWEST - 1).pvalue
    )
    assert "too few to show any difference" in str(splits.small("test", splits.FEWEST - 1))
    assert "100 points of 100" in str(splits.small("test", splits.FEWEST))
    assert splits.small("test", splits.SMALL) is None


@pytest.mark.parametrize("seed", range(5))
def test_every_split_gets_a_unit_and_none_is_divided(seed: int) -> None:
    drawn = random.Random(seed)
    units = [f"unit {drawn.randrange(drawn.choice((4, 40)))}" for _ in range(drawn.choice((10, 200)))]
    units += ["unit a", "unit b", "unit c"]
    shares = {"train": 0.6, "dev": 0.1, "test": 0.3}
    named = splits.assigned(units, shares)
    assert set(named) == set(shares)
    assert all(count == 1 for count in Counter(unit for unit, _ in set(zip(units, named, strict=True))).values())
    order = drawn.sample(range(len(units)), len(units))
    assert splits.assigned([units[i] for i in order], shares) == [named[i] for i in order]


def test_a_conversation_stays_in_one_split(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Something.")
    rows = [{"question": f"Q{n}?", "answer": "x", "conversation_id": n // 3} for n in range(30)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = DatasetSettings(questions=tmp_path / "mine.jsonl", folder=tmp_path).load()
    groups = {split: {query.group for query in found.split(split)} for split in found.splits}
    assert groups["dev"] & groups["test"] == set()
    assert all(Counter(q.group for q in found.split(split)).values() for split in found.splits)
    assert {n for split in found.splits for n in Counter(q.group for q in found.split(split)).values()} == {3}


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"dev": 0.5, "test": 0.6}, "shares above 0 whose sum is 1"),
        ({"dev": 0.0, "test": 1.0}, "shares above 0 whose sum is 1"),
        ({"dev": 0.5, "tset": 0.5}, "unknown split 'tset'"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares: dict[str, float], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        DatasetSettings(questions=tmp_path / "mine.jsonl", folder=tmp_path, splits=shares)


def test_shares_beside_given_splits_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Something.")
    (tmp_path / "mine.csv").write_text("question,answer,split\nA?,x,dev\nB?,y,test\n")
    with pytest.raises(InputError, match="have splits; leave the setting away"):
        DatasetSettings(questions=tmp_path / "mine.csv", folder=tmp_path, splits={"dev": 0.5, "test": 0.5}).load()


def test_questions_on_one_paragraph_cannot_be_divided(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Something stands here.")
    (tmp_path / "mine.csv").write_text("question,answer,evidence\nA?,x,Something\nB?,y,stands here.\n")
    with pytest.raises(InputError, match="cannot be divided into dev and test; give each question a split"):
        DatasetSettings(questions=tmp_path / "mine.csv", folder=tmp_path).load()
