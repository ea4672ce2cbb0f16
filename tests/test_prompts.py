"""Prompt templates as data: order of passages, solved questions before the one asked, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toys
import yaml

from workbench import Experiment
from workbench.component import digest
from workbench.data.passages import Shown
from workbench.errors import InputError
from workbench.experiment import notebook_tables
from workbench.models import prompts
from workbench.models.prompts import Shot, Template
from workbench.pipeline import Pipeline
from workbench.store.progress import Progress

PASSAGES = [Shown("A", "first  text"), Shown("B", "second text")]
MINE = {"user": "{passages}\n{question}", "abstention": "unknown"}


def test_best_last_turns_the_order_round_and_keeps_the_numbers() -> None:
    first, last = (Template(**MINE, order=order).fill("Q?", PASSAGES)[0]["content"] for order in ("best first", "best last"))
    assert first == "[1] first text\n[2] second text\nQ?"
    assert last == "[2] second text\n[1] first text\nQ?"


def test_solved_questions_are_turns_before_the_one_asked() -> None:
    template = Template(**MINE, system="S", citations=True)
    shots = [Shot("Far?", (PASSAGES[0],), None, None), Shot("Near?", tuple(PASSAGES), "second", 2)]
    turns = template.fill("Q?", PASSAGES[:1], shots)
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [turn["content"] for turn in turns[1:]] == [
        "[1] first text\nFar?",
        "unknown",
        "[1] first text\n[2] second text\nNear?",
        "second [2]",
        "[1] first text\nQ?",
    ]


def test_settings_that_came_later_leave_older_definitions_as_they_were() -> None:
    plain = Template(**MINE)
    assert set(plain.settings()) == {"system", "user", "passage", "separator", "fold", "abstention", "citations"}
    assert plain.settings() == Template(**MINE, order="best first", shots=None).settings()
    last, shown = Template(**MINE, order="best last"), Template(**MINE, shots={"count": 3, "retriever": "bm25"})
    assert last.settings() == plain.settings() | {"order": "best last"}
    assert shown.settings() == plain.settings() | {"shots": {"count": 3, "choose": "nearest", "passages": 1}}


@pytest.mark.parametrize("name", prompts.names())
def test_every_template_asks_its_question_on_its_passages(name: str) -> None:
    asked = prompts.load(name).fill("Why is this so?", PASSAGES)[-1]["content"]
    assert all(text in asked for text in ("Why is this so?", "first text", "second text", "[1]", "[2]"))


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"order": "worst first"}, "order: .*'best first' or 'best last'"),
        ({"shots": {"count": 0}}, "shots.count: .*greater than or equal to 1"),
        ({"shots": {"number": 2}}, "shots.number: unknown key 'number'.*count"),
        ({"shots": {"choose": "best"}}, "shots.choose: .*'nearest' or 'fixed'"),
        ({"user": "{question} {passage}"}, r"unknown variable \{passage\}; allowed: \{passages\}, \{question\}"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(MINE | changes))
    with pytest.raises(InputError, match=message):
        prompts.load("mine.yaml", tmp_path)


def experiment(folder: Path, model: str, template: dict[str, Any], *overrides: str) -> Experiment:
    """Six questions a split of the Python reference, asked with one passage and a template of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "mine.yaml").write_text(yaml.safe_dump(MINE | template))
    values = {
        "experiment": "shots",
        "dataset": {"name": "pydocs", "limit": {"train": 30, "dev": 6, "test": 4}},
        "components": {
            "embedders": {"minilm": {"model": toys.made(toys.embedder)}},
            "retrievers": {
                "bm25": {"kind": "bm25"},
                "short": {"kind": "bm25", "b": 0.1},
                "dense": {"kind": "dense", "embedder": "minilm"},
                "hybrid": {"kind": "fusion", "of": ["bm25", "dense"]},
            },
            "generators": {"toy": {"model": model, "max_new_tokens": 3, "lora": None}},
        },
        "axes": {"prompt": ["mine.yaml"], "generator": ["toy"], "passages": [1], "retriever": ["bm25"]},
        "metrics": {"rankings": ["mrr@10"]},
        "machine": {"device": "cpu", "precision": "float32"},
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(values))
    return Experiment.load(folder / "e.yaml", folder / "runs", overrides, Progress())


def shown(one: Experiment, split: str = "dev") -> list[list[Shot]]:
    return one.planner.stages(one.space.baseline, split).answers.few_shot.of_split(one.session)


def test_nearest_shots_are_the_train_questions_a_retriever_ranks_first(tmp_path: Path, toy_model: str) -> None:
    one = experiment(tmp_path, toy_model, {"shots": {"count": 2}})
    train = {query.text for query in one.session.dataset.split("train")}
    few_shot = one.planner.stages(one.space.baseline, "dev").answers.few_shot
    ranked = one.session.read(few_shot.nearest).rows()
    texts = [query.text for query in one.session.dataset.split("train")]
    solved = set(one.session.read(few_shot.solved))
    ids = [query.id for query in one.session.dataset.split("train")]
    for shots, (near, _) in zip(shown(one), ranked, strict=True):
        assert len(shots) == 2 and {shot.question for shot in shots} <= train
        best = [texts[n] for n in near if ids[n] in solved][:2]
        assert [shot.question for shot in reversed(shots)][: len(best)] == best
        assert all(len(shot.passages) == 1 and (shot.answer is None) == (shot.number is None) for shot in shots)


def test_neighbours_come_from_any_retriever_and_are_the_same_for_a_question_asked_anew(tmp_path: Path, toy_model: str) -> None:
    one = experiment(tmp_path, toy_model, {"shots": {"count": 2, "retriever": "hybrid"}})
    few_shot = one.planner.stages(one.space.baseline, "dev").answers.few_shot
    texts = [query.text for query in one.session.dataset.split("dev")]
    assert [few_shot.of_question("", text, one.session) for text in texts] == shown(one)


def test_fixed_shots_are_the_same_for_every_question(tmp_path: Path, toy_model: str) -> None:
    one = experiment(tmp_path, toy_model, {"shots": {"count": 3, "choose": "fixed"}})
    assert len({digest(json.loads(json.dumps(shots))) for shots in shown(one)}) == 1 and len(shown(one)[0]) == 3
    assert shown(one) != shown(experiment(tmp_path, toy_model, {"shots": {"count": 3, "choose": "fixed"}}, "seed=1"))


def test_a_run_says_what_its_embedder_reads_of_passages_and_of_train_questions(tmp_path: Path, toy_model: str) -> None:
    """Questions among which neighbours are found are embedded like passages, and have no chunking."""
    one = experiment(tmp_path, toy_model, {"shots": {"count": 1, "retriever": "dense"}}, "axes.retriever=[dense]")
    read = {row["chunking"]: row["passages"] for row in one.compare().manifest["truncation"]}
    assert read["questions of train"] == len(one.session.dataset.split("train")) and len(read) == 2


def test_a_train_question_is_never_its_own_example(tmp_path: Path, toy_model: str) -> None:
    one = experiment(tmp_path, toy_model, {"shots": {"count": 2}}, "components.generators.toy.lora={}")
    adapter = one.planner.adapter(one.space.components.generators["toy"], 0)
    for query, shots in zip(one.session.dataset.split("train"), adapter.few_shot.of_split(one.session), strict=True):
        assert query.text not in {shot.question for shot in shots}
    example = notebook_tables.training_example(one, adapter)
    assert [turn["role"] for turn in example.messages] == ["user", "assistant", "user", "assistant", "user"]


def test_a_served_few_shot_answer_is_the_measured_one(tmp_path: Path, toy_model: str) -> None:
    one = experiment(tmp_path, toy_model, {"shots": {"count": 2}})
    planned = {stage.stage.name for stage in one.plan()}
    assert {"shots", "questions"} <= planned
    run = one.compare()
    pipeline = Pipeline.open(run)
    assert {"shots", "neighbours"} <= set(pipeline.provenance()["artifacts"])
    for query in one.session.dataset.split("test"):
        assert pipeline.replay(query.id).same
    again = experiment(tmp_path, toy_model, {"shots": {"count": 2}}).compare()
    assert json.loads((again.folder / "plan.json").read_text())["totals"]["computed"] == 0


def test_the_gallery_fills_in_every_template_on_one_question(tmp_path: Path, toy_model: str) -> None:
    one = experiment(tmp_path, toy_model, {"shots": {"count": 1}})
    gallery = dict(notebook_tables.gallery(one))
    assert set(gallery) == {*prompts.names(), str((tmp_path / "mine.yaml").resolve())}
    question = one.session.dataset.split("dev")[0].text
    assert all(question in turns[-1]["content"] and "[2]" in turns[-1]["content"] for turns in gallery.values())
    assert [len(gallery[name]) for name in ("terse", "few-shot", str((tmp_path / "mine.yaml").resolve()))] == [2, 2, 3]


def test_what_shots_come_from_is_in_the_keys(tmp_path: Path, toy_model: str) -> None:
    def keys(shots: dict[str, Any] | None, *overrides: str) -> tuple[str, str]:
        one = experiment(tmp_path, toy_model, {"shots": shots} if shots else {}, *overrides)
        return one.space.baseline.id, one.planner.stages(one.space.baseline, "dev").answers.key

    variants = [None, {"count": 1}, {"count": 2}, {"count": 1, "choose": "fixed"}, {"count": 1, "retriever": "short"}]
    found = [keys(shots) for shots in variants]
    assert all(len(set(column)) == len(variants) for column in zip(*found, strict=True))
    assert keys({"count": 1, "retriever": "bm25"}) == keys({"count": 1})
    assert keys({"count": 1}, "dataset.limit.train=29")[1] != keys({"count": 1})[1]


def test_an_unknown_retriever_of_shots_is_refused(tmp_path: Path, toy_model: str) -> None:
    with pytest.raises(InputError, match=r"shots.retriever: unknown retriever 'bm52'.*Did you mean 'bm25'"):
        experiment(tmp_path, toy_model, {"shots": {"retriever": "bm52"}})
