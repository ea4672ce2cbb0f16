"""Questions that lean on a conversation: read, rewritten, measured, and served as they were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toys
import yaml
from conftest import workbench

from workbench import Experiment, Run
from workbench.component import canonical
from workbench.data import sources
from workbench.data.conversation import Turn, read_history, read_history_file
from workbench.errors import InputError
from workbench.models.generator import Generation
from workbench.pipeline import Pipeline
from workbench.retrieval.rewriting import Standalone
from workbench.stages.questions import Questions, Rewriting
from workbench.store.progress import Progress

HISTORY = [
    {"role": "user", "content": "What is a heron?"},
    {"role": "assistant", "content": "A bird that stands in shallow water."},
]
TEXTS = {
    "heron.txt": "The heron is a tall bird. The heron eats fish and frogs.",
    "otter.txt": "The otter is a mammal. The otter eats crabs at night.",
    "swift.txt": "The swift is a bird. The swift sleeps in the air.",
}
QUESTIONS = [
    ("q1", "train", "What does the otter eat?", "crabs", "The otter eats crabs at night.", None),
    ("q2", "dev", "What does it eat?", "fish and frogs", "The heron eats fish and frogs.", HISTORY),
    ("q3", "dev", "Where does the swift sleep?", "in the air", "The swift sleeps in the air.", []),
    ("q4", "test", "What does it eat?", "fish and frogs", "The heron eats fish and frogs.", HISTORY),
    ("q5", "test", "When does the otter eat?", "at night", "The otter eats crabs at night.", None),
    ("q6", "test", "What does it eat?", "fish and frogs", "The heron eats fish and frogs.", HISTORY),
]


def settings() -> dict[str, Any]:
    return {
        "experiment": "talk",
        "dataset": {"folder": "birds", "questions": "questions.jsonl"},
        "components": {
            "retrievers": {"bm25": {"kind": "bm25"}},
            "rewriters": {"alone": {"kind": "standalone", "generator": "small", "max_new_tokens": 12}},
            "generators": {"small": {"model": toys.made(toys.language_model), "max_new_tokens": 4}},
        },
        "axes": {"rewriting": ["none", "alone"], "passages": [1], "generator": ["small"]},
        "report": {"of": "all"},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talk")
    (folder / "birds").mkdir()
    for name, text in TEXTS.items():
        (folder / "birds" / name).write_text(text)
    with (folder / "questions.jsonl").open("w") as file:
        for name, split, question, answer, evidence, history in QUESTIONS:
            row = {"id": name, "split": split, "question": question, "answers": [answer], "evidence": evidence}
            file.write(json.dumps(row | ({} if history is None else {"history": history})) + "\n")
    (folder / "talk.yaml").write_text(yaml.safe_dump(settings()))
    return folder


def load(folder: Path, *overrides: str) -> Experiment:
    return Experiment.load(folder / "talk.yaml", folder / "runs", overrides, Progress())


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return load(folder).compare()


def prompts(experiment: Experiment, label: str, split: str) -> dict[str, str]:
    chosen = next(c for c in experiment.configurations if c.label == label)
    answers = experiment.planner.stages(chosen, split).answers
    return {prompt.query_id: prompt.messages[-1]["content"] for prompt in answers.prompts(experiment.session)}


def questions(experiment: Experiment, split: str) -> Questions:
    chosen = next(c for c in experiment.configurations if c.label == "alone")
    return experiment.planner.stages(chosen, split).questions


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hello", "history: received str; allowed: "),
        ({"role": "user"}, "history: received dict; allowed: "),
        (["hello"], "history, turn 1: received str; allowed: an object with the keys role, content"),
        ([*HISTORY, {"role": "system", "content": "Be kind."}], "history, turn 3: unknown role .system.; allowed: assistant"),
        ([{"role": "user", "text": "hello"}], "history, turn 1: unknown key 'text'"),
        ([{"role": "user"}], "history, turn 1: 'content' is missing, empty or no text"),
        ([{"role": "user", "content": " "}], "history, turn 1: 'content' is missing, empty or no text"),
        ([{"role": "user", "content": 3}], "received 3"),
    ],
)
def test_what_is_no_conversation_is_refused(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_history(value, "history")


def test_a_conversation_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    with pytest.raises(InputError, match="No such file"):
        read_history_file(path)
    path.write_text("[{")
    with pytest.raises(InputError, match="not JSON"):
        read_history_file(path)
    path.write_text(json.dumps(HISTORY))
    assert read_history_file(path) == tuple(Turn(**turn) for turn in HISTORY) == read_history(read_history_file(path), "again")
    assert read_history(None, "history") == read_history([], "history") == ()


def test_what_a_rewriter_asks_and_reads() -> None:
    rewriter = Standalone(generator="g", turns=1)
    (turn,) = rewriter.messages(read_history(HISTORY, ""), "What does it eat?")
    assert "Assistant: A bird that stands in shallow water." in turn["content"] and "What is a heron?" not in turn["content"]
    assert "Last question: What does it eat?" in turn["content"]
    assert rewriter.read('\n Standalone question: "What does a heron eat?"\nIt eats fish.') == "What does a heron eat?"
    assert rewriter.read("Question: \n\nWhat eats it?") == "What eats it?"
    assert rewriter.read(" \n") == rewriter.read("Question:") == ""


def test_histories_come_with_the_questions_of_a_dataset(folder: Path, tmp_path: Path) -> None:
    dataset = load(folder).session.dataset
    assert {q.id: len(q.history) for split in dataset.splits for q in dataset.split(split)} == {
        "q1": 0, "q2": 2, "q3": 0, "q4": 2, "q5": 0, "q6": 2,
    }  # fmt: skip
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "A heron eats fish."}\n')
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "What does it eat?", "history": HISTORY}) + "\n")
    (tmp_path / "qrels" / "test.tsv").write_text("q\td\t1\n")
    (query,) = sources.beir(tmp_path).split("test")
    assert [turn._asdict() for turn in query.history] == HISTORY
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "What?", "history": "x"}) + "\n")
    with pytest.raises(InputError, match=r"queries\.jsonl, line 1: history: received str"):
        sources.beir(tmp_path)


def test_histories_are_in_the_keys_of_what_reads_them_alone(folder: Path, tmp_path: Path) -> None:
    other = (folder / "questions.jsonl").read_text().replace("shallow", "deep")
    (folder / "others.jsonl").write_text(other)
    a, b = load(folder), load(folder, f"dataset.questions={folder / 'others.jsonl'}")
    for label, same in (("none", True), ("alone", False)):
        one, two = (next(m for m in e.selected_on if m.configuration.label == label) for e in (a, b))
        assert (one.ranking.key == two.ranking.key) == (one.answers.key == two.answers.key) == same
        assert one.configuration.id == two.configuration.id


def test_not_rewriting_is_what_it_was_before_the_axis(folder: Path) -> None:
    (alone,) = load(folder, "axes.rewriting=[none]").selected_on
    both = {m.configuration.id: m for m in load(folder).selected_on}
    assert [s.key for s in both[alone.configuration.id].stages()] == [s.key for s in alone.stages()]
    assert alone.questions is None and "questions" not in alone.artifacts()


def test_rewritten_questions_are_searched_and_answered(run: Run, folder: Path) -> None:
    experiment = load(folder)
    session = experiment.session
    for split in ("dev", "test"):
        stage = questions(experiment, split)
        for query, standalone in zip(session.dataset.split(split), session.read(stage), strict=True):
            if not query.history:
                assert standalone == query
                continue
            (reply,) = stage.writer.written([canonical(stage.rewriter.messages(query.history, query.text))], session)
            assert standalone.text == (stage.rewriter.read(reply.text) or query.text)
        texts = {query.id: query.text for query in session.read(stage)}
        for query_id, prompt in prompts(experiment, "alone", split).items():
            assert f"Question: {texts[query_id]}\n" in prompt
    assert f"Question: {QUESTIONS[1][2]}\n" in prompts(experiment, "none", "dev")["q2"]


def test_a_conversation_is_rewritten_once(run: Run) -> None:
    plan = json.loads((run.folder / "plan.json").read_text())
    assert [s["stage"] for s in plan["stages"]].count("questions") == 2
    assert plan["totals"]["planned"] == plan["totals"]["computed"]
    answers = [json.loads(line) for line in (run.folder / "answers.jsonl").read_text().splitlines()]
    # q2, q4 and q6 are the same conversation: one rewriting beside the distinct prompts
    assert plan["items"]["answers"]["computed"] == len({row["prompt"] for row in answers}) + 1


def test_what_is_asked_in_a_conversation_was_measured(run: Run, folder: Path) -> None:
    pipeline = Pipeline.open(run, "alone")
    assert pipeline.replay("q4").same and pipeline.replay("q5").same
    reply = pipeline.ask("What does it eat?", HISTORY)
    said = reply.provenance["rewriting"]
    expected = next(q.text for q in pipeline.session.read(questions(load(folder), "test")) if q.id == "q4")
    assert said["question"] == expected and said["measured_on"] == 2 and "rewriting" in reply.seconds
    assert reply.question == "What does it eat?" and reply.provenance["artifacts"]["questions"]
    recorded = next(
        row
        for row in map(json.loads, (run.folder / "answers.jsonl").read_text().splitlines())
        if row["query_id"] == "q4" and row["configuration"] == pipeline.configuration.id
    )
    assert (reply.reply, reply.provenance["prompt"]) == (recorded["reply"], recorded["prompt"])


def test_without_a_history_no_model_is_asked(run: Run) -> None:
    pipeline = Pipeline.open(run, "alone")
    before = pipeline.session.counts()["answers"]
    reply = pipeline.ask("Where does the swift sleep?", [])
    assert pipeline.session.counts()["answers"] == before
    assert reply.provenance["rewriting"] == {"question": reply.question, "status": "as asked", "measured_on": 2}
    assert reply.reply == Pipeline.open(run, "none").ask("Where does the swift sleep?").reply


def test_a_history_that_would_be_ignored_is_refused(run: Run) -> None:
    pipeline = Pipeline.open(run, "none")
    with pytest.raises(InputError, match="none does not rewrite questions, so the history of 2 turns would be ignored"):
        pipeline.ask("What does it eat?", HISTORY)
    assert pipeline.replay("q4").same  # measured without its history


def test_an_empty_rewriting_leaves_the_question_as_it_was(folder: Path) -> None:
    stage = questions(load(folder), "test")
    assert stage._read("What?", Generation(" \n", 9, 1)) == Rewriting("What?", "as asked: the rewriting was empty")
    assert stage._read("What?", Generation("", 9, 0, "prompt too long")) == Rewriting("What?", "as asked: prompt too long")
    assert stage._read("What?", Generation("What is it?", 9, 5)) == Rewriting("What is it?", "rewritten")


def test_the_command_line_takes_a_history(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    path.write_text(json.dumps([{"role": "robot", "content": "x"}]))
    done = workbench("ask", run.folder, "What does it eat?", "--configuration", "alone", "--history", path)
    assert done.returncode == 2 and "turn 1: unknown role 'robot'" in done.stderr
    path.write_text(json.dumps(HISTORY))
    done = workbench("ask", run.folder, "What does it eat?", "--configuration", "alone", "--history", path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["provenance"]["rewriting"]["measured_on"] == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("axes.rewriting=[nothing]", "unknown rewriting 'nothing'; allowed: alone, none"),
        ("components.rewriters.alone.kind=guess", "unknown kind of rewriter 'guess'"),
        ("components.rewriters.alone.generator=large", "components.rewriters.alone.generator: unknown generator 'large'"),
        ("components.rewriters.alone.turns=0", "components.rewriters.alone.turns: .*greater than or equal to 1"),
        ("components.rewriters.none={kind: standalone, generator: small}", "the name 'none' stands for no rewriter"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(folder: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(folder, override)
