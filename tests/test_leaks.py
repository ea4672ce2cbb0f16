"""Questions of the evaluation that stand in the training data, word for word or nearly."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import toys
import yaml

from workbench.data.leaks import NEAR, _jaccard, _shingles, dropped, leaks, normalized, refuse
from workbench.data.sources import beir, pydocs
from workbench.errors import InputError
from workbench.experiment.config import read_settings
from workbench.experiment.configuration import Space
from workbench.experiment.planner import Planner
from workbench.machine import resolve

QUESTIONS = [
    "What runs after the with block?",
    "Which exception ends a loop over an iterator?",
    "In which order do dictionaries keep their keys?",
    "How many arguments may a lambda take?",
]


def numbered(texts: list[str], letter: str) -> dict[str, str]:
    return {f"{letter}{i}": text for i, text in enumerate(texts)}


@pytest.mark.parametrize("again", ["WHAT runs  after the `with` block", "what runs after the with block ?!", QUESTIONS[0]])
def test_case_punctuation_and_white_space_do_not_hide_a_repeated_question(again: str) -> None:
    found = leaks(numbered(QUESTIONS, "t"), {"e": again})
    assert [(leak.train_id, leak.evaluation_id) for leak in found] == [("t0", "e")]
    assert normalized(again) == normalized(QUESTIONS[0]) and "(equal)" in str(found[0])


def test_a_mended_typing_error_is_the_same_question_and_another_subject_is_not() -> None:
    near = "In which order do dictionarys keep their keys?"
    other = "In which order do functions take their arguments?"
    found = leaks(numbered(QUESTIONS, "t"), {"near": near, "other": other})
    assert [leak.evaluation_id for leak in found] == ["near"] and NEAR <= found[0].similarity < 1


def test_the_inverted_index_finds_what_comparing_all_pairs_finds() -> None:
    """Random near-copies: each with 0 to 6 letters changed."""
    rng = random.Random(0)
    words = [" ".join("".join(rng.choices("abcdefg", k=5)) for _ in range(rng.randrange(1, 14))) for _ in range(60)]

    def changed(text: str) -> str:
        letters = list(text)
        for _ in range(rng.randrange(7)):
            letters[rng.randrange(len(letters))] = rng.choice("abcdefg")
        return "".join(letters)

    train, evaluation = numbered(words, "t"), numbered([changed(text) for text in words], "e")
    slow = {
        (i, j)
        for (i, a), (j, b) in product(train.items(), evaluation.items())
        if _jaccard(_shingles(normalized(a)), _shingles(normalized(b))) >= NEAR
    }
    assert {(leak.train_id, leak.evaluation_id) for leak in leaks(train, evaluation)} == slow
    assert 10 < len(slow) < 60


def test_empty_questions_and_empty_splits_leak_nothing_else() -> None:
    assert leaks({}, {"e": "x"}) == leaks({"t": "x"}, {}) == []
    assert [leak.train_id for leak in leaks({"t": "?!", "u": "word"}, {"e": "..."})] == ["t"]


def test_a_refusal_names_ten_pairs_and_the_way_out() -> None:
    same = numbered([f"{letter * 3} " * 5 for letter in "abcdefghijkl"], "t")
    found = leaks(same, same)
    with pytest.raises(InputError, match=r"12 pairs .* t0 'aaa aaa .* and 2 more.*here\.leaks=drop") as raised:
        refuse(found, "here", "here.leaks")
    assert str(raised.value).count("(equal)") == 10
    assert dropped(found) == tuple(sorted(same))
    refuse([], "here", "here.leaks")


def experiment(folder: Path, leaking: bool, *overrides: str) -> Planner:
    """Five documents with a train and a dev question each; the last dev question repeats a train question."""
    texts = folder / "texts"
    texts.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for i, topic in enumerate(("gate", "cat", "train", "key", "lamp")):
        (texts / f"{topic}.txt").write_text(f"The {topic} is number {i} of the list. It has {i + 2} parts.")
        asked = f"Which number does the {topic} have in this list?"
        evidence = {"answers": [str(i)], "evidence": f"The {topic} is number {i} of the list."}
        rows.append({"id": f"t{i}", "split": "train", "question": asked} | evidence)
        again = asked.upper() if leaking and topic == "lamp" else f"How many parts are there, I wonder, to any {topic}?"
        for split in ("dev", "test"):
            rows.append({"id": f"{split}{i}", "split": split, "question": again + " " * (split == "test")} | evidence)
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = toys.made(toys.language_model)
    values = {
        "experiment": "leaks",
        "dataset": {"folder": "texts", "questions": "questions.jsonl"},
        "components": {
            "embedders": {"minilm": {"model": toys.made(toys.embedder)}},
            "retrievers": {"bm25": {"kind": "bm25"}, "dense": {"kind": "dense", "embedder": "minilm"}},
            "rerankers": {"cross": {"kind": "cross_encoder", "model": toys.made(toys.encoder)}},
            "generators": {"tuned": {"model": model, "lora": {}}, "base": {"model": model}},
        },
        "axes": {"generator": ["base"], "reranker": ["none", "cross"]},
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(values))
    settings = read_settings(folder / "e.yaml", overrides)
    return Planner(Space(settings, settings.dataset.load(), folder), resolve(device="cpu"))


PLACES = {
    "components.generators.tuned.lora": ("axes.generator=[tuned]", "components.generators.tuned.lora={leaks: drop}"),
    "components.rerankers.cross.train": (
        "components.rerankers.cross.train=true",
        "components.rerankers.cross.train={leaks: drop}",
    ),
    "components.embedders.minilm.train": (
        "components.embedders.minilm.train={negatives_from: bm25}",
        "components.embedders.minilm.train={negatives_from: bm25, leaks: drop}",
    ),
    "prompt template few-shot: shots": ("axes.prompt=[few-shot]", None),
}


@pytest.mark.parametrize("place", PLACES)
def test_whatever_learns_from_leaked_questions_is_refused_before_anything_is_trained(tmp_path: Path, place: str) -> None:
    learning, dropping = PLACES[place]
    experiment(tmp_path / "clean", False, learning)
    experiment(tmp_path / "nothing-learns", True)
    with pytest.raises(InputError, match=rf"{place}: 2 pairs .*t4 .* and dev4 .*leaks=drop"):
        experiment(tmp_path / "leaking", True, learning)
    if dropping:
        made = experiment(tmp_path / "dropping", True, learning, dropping)
        assert made.space.notes[0].startswith("1 train question left out") and place in made.space.notes[0]


def test_dropped_questions_are_part_of_a_training_and_none_change_nothing(tmp_path: Path) -> None:
    tuned = "axes.generator=[tuned]"

    def adapter(name: str, leaking: bool, *more: str) -> Any:
        made = experiment(tmp_path / name, leaking, tuned, *more)
        return made.adapter(made.space.components.generators["tuned"], 0)

    clean, allowed = adapter("clean", False), adapter("allowed", False, "components.generators.tuned.lora.leaks=drop")
    assert clean.key == allowed.key and not allowed.dropped
    leaking = adapter("leaking", True, "components.generators.tuned.lora.leaks=drop")
    assert leaking.dropped == ("t4",) and leaking.definition["settings"]["dropped"] == ["t4"]
    assert leaking.definition["settings"]["answers"] == clean.definition["settings"]["answers"]


def test_the_questions_of_the_project_leak_nothing() -> None:
    data = pydocs()
    train, *evaluation = ({q.id: q.text for q in data.split(split)} for split in ("train", "dev", "test"))
    assert leaks(train, evaluation[0] | evaluation[1]) == []


def test_scifact_repeats_claims_across_its_splits(shared_data: Path) -> None:
    """Two claims are in both splits word for word; many more differ in one word, often the one that makes them false."""
    data = beir(shared_data / "scifact")
    train, test = ({q.id: q.text for q in data.split(split)} for split in ("train", "test"))
    found = leaks(train, test)
    assert sum(normalized(leak.train) == normalized(leak.evaluation) for leak in found) == 2
    assert len(found) == 64 and len(dropped(found)) <= 64
