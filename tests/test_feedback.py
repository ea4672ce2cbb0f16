"""What people say of answers becomes questions, and these decide what is served next; and conversations."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Finished, toy_settings
from served_app import Response, Running, running, settings
from test_conversation import QUESTIONS, TEXTS
from test_conversation import settings as talking
from test_service import Watched
from typer.testing import CliRunner

from workbench import Experiment, Run
from workbench.cli import app
from workbench.errors import InputError
from workbench.pipeline import Pipeline
from workbench.serving import promotion, remembering
from workbench.serving.records import people
from workbench.serving.records.database import Database
from workbench.serving.records.exporting import _evidence, export
from workbench.serving.settings import Who
from workbench.store.progress import Progress


def command(*arguments: object) -> str:
    """What a command prints."""
    found = CliRunner().invoke(app, [*map(str, arguments)])
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found.stdout


def waits_until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def lines(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- Feedback ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_feedback_decides_what_is_served_next(toy: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Served answers are corrected, exported and measured with two setups; the better one is promoted while serving."""
    monkeypatch.setattr(promotion, "LOOK_SECONDS", 0.05)
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / ".store").symlink_to(toy.runs / ".store")  # what the toy run computed is not computed again
    values = toy_settings()
    del values["baseline"]
    values |= {"experiment": "first", "report": {"of": "all"}}
    values["axes"] = {"retriever": ["bm25"], "passages": [1], "prompt": ["terse", "cited"], "generator": ["base"]}
    served = measured(values, tmp_path / "first.yaml", runs)
    served.promote("terse")
    records = Database(runs / ".service" / "records.sqlite")
    pipeline = Pipeline.open(served)
    dataset = pipeline.session.dataset
    asked = [query for split in ("dev", "test") for query in dataset.split(split) if query.answers]
    assert len(asked) >= 18

    with running(pipeline, records=records, reopen=lambda chosen: Pipeline.open(served, chosen)) as service:
        for number, query in enumerate(asked):
            said = {"vote": -1, "correction": query.answers[0]} if number else {"vote": -1}
            voted(service, query.text, **said)
        exported = tmp_path / "feedback.jsonl"
        told = command("feedback", "export", served.folder, "--out", exported)
        assert f"{len(asked) - 1} questions in" in told and "1 question was answered badly" in told
        assert {line["metadata"]["source"] for line in lines(exported)} == {"feedback"}

        values |= {"experiment": "feedback"}
        values["dataset"] = {"folder": values["dataset"]["folder"], "questions": str(exported)}
        values["metrics"] |= {"slices": ["source"]}
        old, new = (measured(values, tmp_path / "feedback.yaml", runs, prompt) for prompt in ("terse", "cited"))
        assert {row.value for row in old.slices} == {"feedback"}  # a report says where its questions come from
        guard = command("compare", old.folder, new.folder, "--fail-if", "worse")
        assert "points" in guard
        command("promote", served.folder, "cited")
        waits_until(lambda: service.call("GET", "/v1/about").json["provenance"]["label"] == "cited")
        assert service.ask(asked[0].text).json["provenance"]["label"] == "cited"


def measured(values: dict[str, Any], path: Path, runs: Path, prompt: str | None = None) -> Run:
    """A run of an experiment, or of one of its prompts."""
    path.write_text(yaml.safe_dump(values))
    found = Experiment.load(path, runs, (f"axes.prompt=[{prompt}]",) if prompt else (), Progress()).compare()
    found.promote()
    return found


def voted(service: Running, question: str, key: str = "", **said: Any) -> None:
    """Asks and votes."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    mine = service.ask(question, **headers).json["id"]
    assert service.call("PUT", f"/v1/answers/{mine}/vote", said, **headers).status == 204


def test_what_is_exported_says_what_people_said(toy: Finished, tmp_path: Path) -> None:
    records = Database(tmp_path / "records.sqlite")
    with records.writing() as connection:
        ann, bob = (people.add_key(connection, people.add_user(connection, name)) for name in ("ann", "bob"))
    pipeline = Pipeline.open(toy.run)
    good, both, bad = (query.text for query in pipeline.session.dataset.split("test")[:3])
    with running(pipeline, settings(more={"who": Who(per_minute=1000)}), records=records) as service:
        voted(service, good, ann, vote=-1)
        voted(service, good, ann, vote=1)
        voted(service, both, ann, vote=1)
        voted(service, both, bob, vote=-1, correction="a lamp")
        voted(service, both, bob, vote=-1, correction="the lamp")
        voted(service, bad, bob, vote=-1, comment="no")
        answer = service.ask(good).json["answer"]
    out = tmp_path / "out" / "feedback.jsonl"
    name = toy.run.name
    assert export(records, name, out)[:2] == (1, 2) or export(records, name, out)[:2] == (2, 1)
    by_question = {line["question"]: line for line in lines(out)}
    assert by_question[both]["answers"] == ["a lamp", "the lamp"] and by_question[both]["metadata"]["down"] == 2
    assert bad not in by_question
    export(records, name, out, split="train", everything=True)
    by_question = {line["question"]: line for line in lines(out)}
    assert by_question[bad]["answers"] is None and {line["split"] for line in by_question.values()} == {"train"}
    if answer:
        assert good in by_question
    with pytest.raises(InputError, match="nobody has voted on an answer of run other"):
        export(records, "other", out)
    (tmp_path / "mine.jsonl").write_text("")
    with pytest.raises(InputError, match="is there already"):
        export(records, name, tmp_path / "mine.jsonl")


def test_evidence_is_the_sentence_that_holds_the_answer() -> None:
    text = "The heron is a tall bird. It eats fish, e.g. trout, and frogs! It sleeps\nAt 3.5 m a nest was seen."
    sources = [{"doc_id": "heron.txt", "text": text}]
    for answer, sentence in (
        ("fish", "It eats fish, e.g. trout, and frogs!"),
        ("A tall bird.", "The heron is a tall bird."),
        ("at 3.5 m", "At 3.5 m a nest was seen."),
        ("frogs and fish", "It eats fish, e.g. trout, and frogs!"),
    ):
        found = _evidence(answer, sources)
        assert found == {"text": sentence, "document": "heron.txt"} and sentence in text
    assert _evidence("whales", sources) is None


# --- Conversations ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An experiment whose questions lean on what was said before."""
    folder = tmp_path_factory.mktemp("talk")
    (folder / "birds").mkdir()
    for name, text in TEXTS.items():
        (folder / "birds" / name).write_text(text)
    with (folder / "questions.jsonl").open("w") as file:
        for name, split, question, answer, evidence, history in QUESTIONS:
            row = {"id": name, "split": split, "question": question, "answers": [answer], "evidence": evidence}
            file.write(json.dumps(row | ({} if history is None else {"history": history})) + "\n")
    (folder / "talk.yaml").write_text(yaml.safe_dump(talking()))
    return Experiment.load(folder / "talk.yaml", folder / "runs", (), Progress()).compare()


@pytest.fixture(scope="module")
def talker(talk: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    records = Database(tmp_path_factory.mktemp("talker") / "records.sqlite")
    with running(Pipeline.open(talk, "alone"), records=records) as service:
        yield service


def test_a_question_of_a_conversation_is_asked_with_what_was_said_before(talker: Running, talk: Run) -> None:
    begun = talker.call("POST", "/v1/conversations")
    assert begun.status == 201
    name = begun.json["id"]
    place = begun.headers["location"]
    first = talker.call("POST", "/v1/answers", {"question": "What is a heron?", "conversation": name}).json
    second = talker.call("POST", "/v1/answers", {"question": "What does it eat?", "conversation": name}).json
    said = [{"role": "user", "content": "What is a heron?"}]
    said += [{"role": "assistant", "content": text}] if (text := first["answer"] or first["reply"]) else []
    expected = Pipeline.open(talk, "alone").ask("What does it eat?", said)
    assert (second["answer"], second["provenance"]["prompt"]) == (expected.answer, expected.provenance["prompt"])
    assert second["provenance"]["rewriting"] == expected.provenance["rewriting"]
    shown = talker.call("GET", place).json
    assert [one["question"] for one in shown["said"]] == ["What is a heron?", "What does it eat?"]
    assert (shown["title"], shown["turns"]) == ("What is a heron?", 2)
    assert shown["said"][1]["answer"]["answer"] == second["answer"]
    assert talker.call("GET", "/v1/conversations").json["conversations"][0]["id"] == name
    both = {"question": "a", "conversation": name, "history": [{"role": "user", "content": "b"}]}
    refused = talker.call("POST", "/v1/answers", both)
    assert refused.status == 422 and "one of them" in refused.json["detail"]
    assert talker.call("POST", "/v1/answers", {"question": "a", "conversation": "none"}).status == 404
    assert talker.call("DELETE", place).status == 204
    assert talker.call("POST", "/v1/answers", {"question": "a", "conversation": name}).status == 404


def test_a_streamed_question_belongs_to_its_conversation_too(talker: Running) -> None:
    name = talker.call("POST", "/v1/conversations", {"title": "birds"}).json["id"]
    asked = {"question": "What is a swift?", "conversation": name}
    assert b"event: answer" in talker.call("POST", "/v1/answers", asked, accept="text/event-stream").body
    shown = talker.call("GET", f"/v1/conversations/{name}").json
    assert (shown["title"], [one["question"] for one in shown["said"]]) == ("birds", ["What is a swift?"])


def test_questions_of_one_conversation_come_one_after_the_other(talker: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(talker.asking.service.pipeline, monkeypatch)
    name = talker.call("POST", "/v1/conversations").json["id"]

    def ask(question: str) -> Response:
        return talker.call("POST", "/v1/answers", {"question": question, "conversation": name})

    watched.free.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, "Who is the swift that is asked about first?")
        assert watched.begun.wait(20)
        beside = ask("Where does it sleep?")
        assert (beside.status, beside.json["type"]) == (409, "urn:workbench:problem:conflict") and beside.headers["retry-after"]
        watched.free.set()
        assert first.result().status == 200
    assert ask("Where does it sleep?").json["provenance"]["rewriting"]["status"] != "as asked"  # it knows the first
    shown = talker.call("GET", f"/v1/conversations/{name}").json["said"]
    assert [one["status"] for one in shown if one["answer"] is None] == ["refused"] and len(shown) == 3


def test_a_conversation_that_is_removed_meanwhile_keeps_nothing_of_its_question(
    talker: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembering, "LOOK_SECONDS", 0.05)
    watched = Watched(talker.asking.service.pipeline, monkeypatch)
    name = talker.call("POST", "/v1/conversations").json["id"]
    asked = {"question": "Which unmistakable bird is it?", "conversation": name}
    watched.free.clear()
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(talker.call, "POST", "/v1/answers", asked)
        assert watched.begun.wait(20)
        assert talker.call("DELETE", f"/v1/conversations/{name}").status == 204
        watched.free.set()
        refused = late.result()
    assert refused.status == 404 and "deleted while the question was answered" in refused.json["detail"]
    waits_until(lambda: not any(b"unmistakable" in hit.body for hit in talker.asking.memory._hits.values()))
    waits_until(lambda: not talker.asking.writer.waiting)
    records = talker.asking.directory.database
    with records.reading() as connection:
        columns = "question, answer, status, http_status"
        last = connection.exec_driver_sql(f"SELECT {columns} FROM requests ORDER BY number DESC LIMIT 1").one()
    assert tuple(last) == ("", None, "refused", 404)
    assert records.checkpoint() and b"unmistakable" not in records.path.read_bytes()


def test_an_answer_that_comes_later_belongs_to_its_conversation_alone(talker: Running) -> None:
    name = talker.call("POST", "/v1/conversations").json["id"]
    asked = {"question": "What is a heron called?", "conversation": name}
    place = talker.call("POST", "/v1/answers", asked, prefer="respond-async").headers["location"]
    waits_until(lambda: talker.call("GET", place).status == 200)
    assert talker.call("GET", place).json["question"] == "What is a heron called?"
    assert talker.call("DELETE", f"/v1/conversations/{name}").status == 204
    assert talker.call("GET", place).status == 404


def test_a_conversation_is_refused_where_questions_are_not_rewritten(talk: Run, tmp_path: Path) -> None:
    records = Database(tmp_path / "records.sqlite")
    with running(Pipeline.open(talk, "none"), records=records) as service:
        for path, body in (("/v1/conversations", {}), ("/v1/answers", {"question": "a", "conversation": "x"})):
            refused = service.call("POST", path, body)
            assert refused.status == 422 and "does not rewrite questions" in refused.json["detail"]
            assert "with the axis rewriting" in refused.json["detail"]


def test_a_conversation_is_exported_with_what_was_said_before(talker: Running, talk: Run, tmp_path: Path) -> None:
    name = talker.call("POST", "/v1/conversations").json["id"]
    talker.call("POST", "/v1/answers", {"question": "Who is the otter?", "conversation": name})
    mine = talker.call("POST", "/v1/answers", {"question": "What does it eat?", "conversation": name}).json["id"]
    said = {"vote": -1, "correction": "crabs"}
    assert talker.call("PUT", f"/v1/answers/{mine}/vote", said).status == 204
    out = tmp_path / "feedback.jsonl"
    export(talker.asking.directory.database, talk.folder.name, out)
    (line,) = lines(out)
    assert line["history"][0] == {"role": "user", "content": "Who is the otter?"} and line["answers"] == ["crabs"]
