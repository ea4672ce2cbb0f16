"""Records of a service: nothing that was acknowledged is lost, everything is counted, and what is forgotten is gone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, workbench
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from workbench.component import digest
from workbench.errors import InputError
from workbench.serving.caller import Caller, Principal
from workbench.serving.problems import ConflictError, InvalidError, NotFoundError, UnavailableRecordsError
from workbench.serving.records import erasing, people, talks, votes
from workbench.serving.records import writer as writing
from workbench.serving.records.database import Database
from workbench.serving.records.journal import ANSWERED, LEFT, Entry, Journal, Spent, spent_on
from workbench.serving.records.tables import answers, counts, forgotten, requests
from workbench.serving.records.tables import votes as votes_table
from workbench.serving.records.writer import Writer
from workbench.serving.settings import Keeping

BODY = {"question": "?", "answer": "a", "reply": "a", "status": "ok", "sources": [], "tokens": {"prompt": 3, "answer": 2}}


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Database]:
    found = Database(tmp_path / "records.sqlite", wait_seconds=0.05)
    yield found
    found.close()


@pytest.fixture
def writer(records: Database) -> Iterator[Writer]:
    found = Writer(records)
    yield found
    found.stop()


def entry(
    request_id: str, user: int | None = None, question: str = "What?", conversation: str | None = None, **more: Any
) -> Entry:
    """A question that was answered, with its own words in the answer."""
    caller = Caller("name", request_id, Principal(user), conversation)
    body = json.dumps(BODY | {"question": question, "answer": f"To {question}"}).encode()
    known = Entry(caller, time.time(), question, digest(question), "identity", "run", "c1", 200, None, 0.5, body, {"by": "model"})
    return known._replace(**more)


def journal(writer: Writer, keep: Keeping | None = Keeping(), lost: Any = print) -> Journal:  # noqa: B008
    return Journal(writer, keep, lost)


def rows(records: Database, table: Any) -> int:
    """How many rows a table has."""
    with records.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


# --- What is kept -----------------------------------------------------------------------------------------------------


def test_equal_answers_are_kept_once_and_every_request_has_its_status(records: Database, writer: Writer) -> None:
    kept = journal(writer)
    for number in range(3):
        kept.write(entry(f"r{number}"), Spent(3, 2, 7)).result()
    kept.write(entry("r3", http_status=499, status=LEFT, body=None, served={}), Spent()).result()
    with records.reading() as connection:
        assert dict(connection.execute(select(counts.c.status, counts.c.requests)).all()) == {ANSWERED: 3, LEFT: 1}
        assert spent_on(connection, time.strftime("%Y-%m-%d", time.gmtime()), (0, 0)) == 15
        (row, *_) = connection.execute(select(requests).order_by(requests.c.number)).all()
    assert (row.question, row.status, row.prompt_tokens, row.cost_micros) == ("What?", ANSWERED, 3, 7)
    assert (rows(records, answers), rows(records, requests)) == (1, 4)


@pytest.mark.parametrize(("keep", "kept"), [(Keeping(texts=False), 1), (None, 0)])
def test_without_texts_there_are_numbers_and_without_records_there_are_counts(
    records: Database, writer: Writer, tmp_path: Path, keep: Keeping | None, kept: int
) -> None:
    journal(writer, keep).write(entry("r", question="a secret question"), Spent(3, 2)).result()
    assert (rows(records, requests), rows(records, answers), rows(records, counts)) == (kept, 0, 1)
    assert not found_in(tmp_path, "secret")


def test_the_last_vote_on_an_answer_counts_and_nobody_votes_on_anothers(records: Database, writer: Writer) -> None:
    with records.writing() as connection:
        ann, bob = (people.add_user(connection, name) for name in ("ann", "bob"))
    kept = journal(writer)
    kept.write(entry("r", ann), Spent()).result()
    kept.write(entry("left", ann, status=LEFT, body=None), Spent()).result()

    def vote(user: int | None, request_id: str, value: Any) -> None:
        writer.write(lambda connection: votes.vote(connection, request_id, user, value, "words")).result()

    vote(ann, "r", 1)
    vote(ann, "r", -1)
    for user in (bob, None):
        with pytest.raises(NotFoundError):
            vote(user, "r", 1)
    with pytest.raises(InvalidError, match="no answer to vote on: it is left"):
        vote(ann, "left", 1)
    with records.reading() as connection:
        assert votes.counted(connection) == (0, 1)


def test_records_of_a_later_version_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    Database(path).close()
    assert path.stat().st_mode & 0o077 == 0  # nobody else reads it
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(InputError, match="later version"):
        Database(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 0")
    connection.close()
    with pytest.raises(InputError, match="holds other tables than a service's records"):
        Database(path)
    path.write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="move the file away"):
        Database(path)


OLDER = """
    DROP TABLE alembic_version;
    DROP TABLE writers;
    DROP INDEX votes_by_request;
    DROP INDEX conversations_by_owner;
    CREATE INDEX votes_by_request ON votes (request, number);
    INSERT INTO users (issuer, subject, name, created) VALUES ('', 'ann', 'ann', 1.0);
    INSERT INTO requests (id, at, user, asked, identity, run, configuration, status, http_status, seconds_total, prompt_tokens,
        answer_tokens, cost_micros) VALUES ('r', 1.0, 1, 'd', 'i', 'run', 'c1', 'answered', 200, 0.5, 3, 2, 0);
    INSERT INTO votes (request, vote, comment, at) VALUES (1, 1, 'first', 1.0), (1, -1, 'last', 2.0);
    PRAGMA user_version = 1;
"""  # the tables as their first version had them, with what somebody said twice


def test_records_of_an_earlier_version_are_brought_up_to_date(tmp_path: Path) -> None:
    Database(tmp_path / "new.sqlite").close()
    path = tmp_path / "old.sqlite"
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.executescript(OLDER)
    connection.close()
    records = Database(path)
    with records.reading() as found:
        assert votes.counted(found) == (0, 1)
        assert found.execute(select(votes_table.c.comment)).scalars().all() == ["last"]
    with records.writing() as found:
        votes.vote(found, "r", 1, 1, "again")
        assert found.execute(select(votes_table.c.comment)).scalars().all() == ["again"]
    records.close()
    second = tmp_path / "second.sqlite"
    Database(second).close()
    connection = sqlite3.connect(second)
    connection.executescript("DROP TABLE alembic_version; DROP TABLE writers; PRAGMA user_version = 2;")
    connection.close()
    Database(second).close()
    shapes = []
    for file in (path, second, tmp_path / "new.sqlite"):
        connection = sqlite3.connect(file)
        shapes.append(sorted(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")))
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        connection.close()
    assert shapes[0] == shapes[1] == shapes[2]


# --- Faults -----------------------------------------------------------------------------------------------------------


def test_a_thousand_votes_at_once_are_counted_exactly(records: Database, writer: Writer) -> None:
    kept = journal(writer)
    for number in range(1000):
        kept.note(entry(f"r{number}"), Spent())

    def vote(number: int) -> None:
        value: Any = 1 if number % 3 else -1
        writer.write(lambda connection: votes.vote(connection, f"r{number}", None, value)).result(60)

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(vote, range(1000)))
    with records.reading() as connection:
        assert votes.counted(connection) == (666, 334)
    assert rows(records, votes_table) == 1000 and writer.dropped == 0


def test_a_file_that_another_process_holds_is_not_to_be_moved_away(tmp_path: Path) -> None:
    Database(tmp_path / "records.sqlite").close()
    held = sqlite3.connect(tmp_path / "records.sqlite", isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
    with pytest.raises(InputError, match="another process holds it: run the command again"):
        Database(tmp_path / "records.sqlite", wait_seconds=0.1)
    held.close()


def test_a_locked_file_delays_records_and_refuses_votes_and_loses_none(
    records: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.3)
    kept = journal(writer)
    kept.write(entry("r"), Spent()).result()
    other = sqlite3.connect(records.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    kept.note(entry("waits"), Spent())
    refused = writer.write(lambda connection: votes.vote(connection, "r", None, 1))
    with pytest.raises(UnavailableRecordsError, match="locked"):
        refused.result(30)
    other.execute("ROLLBACK")
    writer.write(lambda connection: votes.vote(connection, "waits", None, 1)).result(30)
    assert (rows(records, requests), rows(records, votes_table)) == (2, 1)
    other.close()


def test_a_full_disk_refuses_what_it_cannot_keep(records: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.3)
    kept = journal(writer)
    kept.write(entry("r"), Spent()).result()

    def full(connection: Any) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    writer.write(full).result()
    long = "x" * 100_000
    with pytest.raises(UnavailableRecordsError, match="full"):
        writer.write(lambda connection: votes.vote(connection, "r", None, 1, long)).result(30)
    assert rows(records, votes_table) == 0
    writer.write(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1000000")).result(30)
    writer.write(lambda connection: votes.vote(connection, "r", None, 1, long)).result(30)
    assert rows(records, votes_table) == 1


def test_what_finds_no_room_is_counted_and_its_texts_are_not_kept(records: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_WAITING", 2)
    held, begun, lost = threading.Event(), threading.Event(), []

    def hold(connection: Any) -> None:
        begun.set()
        assert held.wait(30)

    writer = Writer(records)
    first = writer.write(hold)
    assert begun.wait(30)
    kept = journal(writer, lost=lost.append)
    for number in range(5):
        kept.note(entry(f"r{number}", question=f"q{number}"), Spent())
    held.set()
    first.result(30)
    writer.stop()
    assert writer.dropped == 3 and lost == [digest(f"q{number}") for number in (2, 3, 4)] and rows(records, requests) == 2


def test_whoever_leaves_while_records_are_written_stops_nothing(records: Database, writer: Writer) -> None:
    held, begun = threading.Event(), threading.Event()

    def hold(connection: Any) -> None:
        begun.set()
        assert held.wait(30)

    async def leaves() -> None:
        waiting = asyncio.ensure_future(asyncio.wrap_future(journal(writer).write(entry("left"), Spent())))
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting

    first = writer.write(hold)
    assert begun.wait(30)
    asyncio.run(leaves())
    held.set()
    first.result(30)
    journal(writer).write(entry("next"), Spent()).result(30)
    assert rows(records, requests) == 2


def test_an_error_of_the_records_says_nothing_that_people_wrote(records: Database) -> None:
    with pytest.raises(IntegrityError) as failed, records.writing() as connection:
        for _ in range(2):
            connection.execute(answers.insert().values(digest="d", identity="unmistakable", body=b"unmistakable", created=1.0))
    assert "unmistakable" not in str(failed.value)


KILLED = """
import sys
from pathlib import Path
from workbench.serving.records import people, votes
from workbench.serving.records.database import Database
from workbench.serving.records.writer import Writer

records = Database(Path(sys.argv[1]))
writer = Writer(records)
batch = int(sys.argv[2])
while True:
    batch += 1
    pending = [writer.write(lambda c, n=n: votes.vote(c, f"r{n}", None, 1, str(batch))) for n in range(20)]
    pending.append(writer.write(lambda c: people.add_key(c, 1)))
    for one in pending:
        one.result()
    print(pending[-1].result(), flush=True)
"""


def test_no_acknowledged_vote_or_key_is_lost_to_a_kill(records: Database, writer: Writer) -> None:
    with records.writing() as connection:
        people.add_user(connection, "ann")
    for number in range(20):
        journal(writer).write(entry(f"r{number}"), Spent()).result()
    acknowledged: list[str] = []
    for _ in range(2):
        command = [sys.executable, "-c", KILLED, str(records.path), str(len(acknowledged))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert process.stdout
        for line in process.stdout:
            acknowledged.append(line.strip())
            if len(acknowledged) % 20 == 0:
                process.send_signal(signal.SIGKILL)
                break
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
        process.wait()
    with records.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
        assert all(people.key_of(connection, key) for key in acknowledged)
        given = connection.execute(select(votes_table.c.comment)).scalars().all()
    assert len(acknowledged) >= 40 and len(given) == 20 and min(map(int, given)) >= len(acknowledged)


def test_a_question_that_knows_too_little_of_its_conversation_is_not_its_next_turn(records: Database, writer: Writer) -> None:
    """Two services on one file may answer questions of one conversation at once."""
    name = writer.write(lambda connection: talks.begin(connection, None)).result().id
    kept = journal(writer)

    def turn(request_id: str, after: int | None, **more: Any) -> Entry:
        one = entry(request_id, conversation=name, **more)
        return one._replace(caller=one.caller._replace(after=after))

    kept.write(turn("first", 0), Spent()).result()
    with pytest.raises(ConflictError, match="answered in the meantime; ask again"):
        kept.write(turn("overtaken", 0), Spent()).result()
    kept.write(turn("left", 0, status=LEFT, body=None), Spent()).result()  # it has no answer that could lack something
    kept.write(turn("next", 1), Spent()).result()
    with records.reading() as connection:
        found = connection.execute(select(requests.c.id, requests.c.turn).order_by(requests.c.number)).all()
        assert [tuple(row) for row in found] == [("first", 1), ("left", 2), ("next", 3)]
        assert talks.last_answered(connection, name) == 3


# --- Forgetting -------------------------------------------------------------------------------------------------------


def found_in(folder: Path, text: str) -> list[Path]:
    """Files in which a text stands, in any of three encodings."""
    forms = [text.encode(), text.encode("utf-16-le"), text.encode("utf-16-be")]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(form in path.read_bytes() for form in forms)]


def test_what_a_service_removes_is_overwritten_in_its_files(records: Database, writer: Writer, tmp_path: Path) -> None:
    from workbench.serving.cache import DiskCache, Hit

    cache = DiskCache(tmp_path / "answers.sqlite", 10_000_000, 30)
    cache.put("key", Hit(b"unmistakable", time.time()))
    assert cache.path.stat().st_mode & 0o077 == 0  # nobody else's business
    cache.close()
    journal(writer).write(entry("a", None, "unmistakable"), Spent()).result()
    assert records.checkpoint() and len(found_in(tmp_path, "unmistakable")) == 2
    with records.writing() as connection:
        erasing.expire(connection, 0.0)
    assert found_in(tmp_path, "unmistakable") and records.checkpoint()
    assert [path.name for path in found_in(tmp_path, "unmistakable")] == ["answers.sqlite"]
    erasing.empty_cache(cache.path)
    assert found_in(tmp_path, "unmistakable") == []
    held = sqlite3.connect(records.path, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
    assert not records.checkpoint()
    held.close()


def test_nothing_of_a_person_who_is_forgotten_is_in_any_file(records: Database, writer: Writer, tmp_path: Path) -> None:
    from workbench.serving.cache import DiskCache, Hit

    cache = DiskCache(tmp_path / "answers.sqlite", 10_000_000, 30)
    with records.writing() as connection:
        ann, bob = people.add_user(connection, "Ann Unmistakable"), people.add_user(connection, "bob")
        people.add_key(connection, ann)
    kept = journal(writer)
    begun = writer.write(lambda connection: talks.begin(connection, ann, "unmistakable title")).result()
    asked: list[Entry] = []
    for number in range(300):  # enough for pages to split, merge and move
        mine = entry(f"a{number}", ann, f"unmistakable {number} " + "x" * (number * 37 % 5000), begun.id)
        asked += [mine, entry(f"b{number}", bob, f"ordinary {number}")]
    asked += [entry("a", ann, "shared"), entry("b", bob, "shared")]
    for one in asked:
        kept.note(one, Spent(1, 1))
        cache.put(one.asked, Hit(one.body or b"", time.time()))
    writer.write(
        lambda connection: votes.vote(connection, "a1", ann, -1, "unmistakable comment", "unmistakable correction")
    ).result()
    export = tmp_path / "questions.jsonl"
    export.write_text('{"id": "1", "question": "unmistakable"}\n{"id": "2", "question": "ordi\u2028nary"}\n', encoding="utf-8")
    with records.writing() as connection:
        from workbench.serving.records.tables import exports

        connection.execute(exports.insert().values(path=str(export), line="1", user=ann))
        connection.execute(exports.insert().values(path=str(tmp_path / "gone.jsonl"), line="1", user=ann))
    assert {path.name for path in found_in(tmp_path, "nmistakable")} >= {"questions.jsonl"} and len(
        found_in(tmp_path, "nmistakable")
    ) > 2

    with records.reading() as connection:
        user = people.named(connection, "Ann Unmistakable")
    erased = erasing.forget(records, user, cache.path)
    assert found_in(tmp_path, "nmistakable") == []
    assert erased.requests == 301 and len(erased.asked) == 300 and digest("shared") not in erased.asked
    assert erased.files == {export: 1, tmp_path / "gone.jsonl": None}
    assert json.loads(export.read_text()) == {"id": "2", "question": "ordi\u2028nary"}
    assert cache.get(digest("ordinary 7")) and cache.get(digest("shared")) and not cache.get(asked[0].asked)
    assert rows(records, requests) == 301 and rows(records, votes_table) == 0

    kept.write(entry("late", ann, "an unmistakable latecomer"), Spent()).result()  # it was asked before they were forgotten
    assert found_in(tmp_path, "nmistakable") == []
    with records.reading() as connection:
        assert erasing.forgotten_since(connection, 0)[1][-1] == digest("an unmistakable latecomer")
        assert people.find_user(connection, "Ann Unmistakable") is None
    cache.close()


def test_what_is_too_old_goes_and_what_is_young_stays(records: Database, writer: Writer, tmp_path: Path) -> None:
    kept = journal(writer)
    old = time.time() - 31 * 86_400
    kept.write(entry("old", question="elderly", at=old), Spent()).result()
    kept.write(entry("young", question="recent"), Spent()).result()
    writer.write(lambda connection: votes.vote(connection, "old", None, 1, "elderly words")).result()
    erased = writer.write(lambda connection: erasing.expire(connection, 30)).result()
    assert (erased.requests, erased.asked) == (1, [digest("elderly")])
    assert (rows(records, requests), rows(records, answers), rows(records, votes_table)) == (1, 1, 0)


def test_what_a_service_is_to_forget_is_known_as_long_as_its_cache_may_hold_it(records: Database, writer: Writer) -> None:
    with records.writing() as connection:
        connection.execute(forgotten.insert(), [{"asked": f"{n} days", "at": time.time() - n * 86_400} for n in (0.5, 2, 31)])
    for cached_days, left in ((30, ["0.5 days", "2 days"]), (0, ["0.5 days"])):
        writer.write(partial(erasing.expire, days=30, cached_days=cached_days)).result()
        with records.reading() as connection:
            assert erasing.forgotten_since(connection, 0)[1] == left


def test_a_conversation_that_is_removed_takes_its_questions_along(records: Database, writer: Writer) -> None:
    kept = journal(writer)
    talk = writer.write(lambda connection: talks.begin(connection, None)).result()
    for number in range(3):
        kept.write(entry(f"r{number}", question=f"question {number}", conversation=talk.id), Spent()).result()
    with records.reading() as connection:
        (found,) = talks.listed(connection, None)
        said = talks.said(connection, found)
    assert (found.title, found.turns, [one.question for one in said]) == ("question 0", 3, [f"question {n}" for n in range(3)])
    assert talks.history(said)[:2] == [
        {"role": "user", "content": "question 0"},
        {"role": "assistant", "content": "To question 0"},
    ]
    writer.write(lambda connection: erasing.end_talk(connection, talk.id)).result()
    assert (rows(records, requests), rows(records, answers)) == (0, 0)
    with pytest.raises(NotFoundError, match="deleted while"):
        kept.write(entry("late", conversation=talk.id), Spent()).result()


# --- Commands ---------------------------------------------------------------------------------------------------------


def test_users_and_keys_are_added_listed_revoked_and_forgotten(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from workbench.cli import app

    runner = CliRunner()

    def done(*arguments: str, typed: str = "") -> str:
        found = runner.invoke(app, [*arguments, "--runs", str(tmp_path)], input=typed)
        if found.exception and not isinstance(found.exception, SystemExit):
            raise found.exception
        assert found.exit_code == 0, found.output
        return found.stdout

    assert "no users" in done("users", "list") and "no keys" in done("keys", "list")
    done("users", "add", "ann", "--password", typed="a long password\n")
    key = done("keys", "add", "ann", "--per-minute", "5").strip()
    assert key.startswith("wb_") and len(key) > 40
    listed = done("keys", "list")
    assert key[:11] in listed and key not in listed and "5 a minute" in listed and "never used" in listed
    assert "1 key, password" in done("users", "list")
    assert not found_in(tmp_path, key) and not found_in(tmp_path, "a long password")
    for arguments, said in (
        (("users", "add", "ann"), "there is a user 'ann' already"),
        (("users", "add", " "), "is no name"),
        (("users", "add", "bob", "--password"), "allowed: 10 to 500"),
        (("keys", "add", "bob"), "there is no user 'bob'"),
        (("keys", "revoke", "wb_00000000"), "there is no key that begins with wb_00000000"),
        (("users", "forget", "bob"), "there is no user 'bob'"),
    ):
        with pytest.raises(InputError, match=said):
            done(*arguments, typed="short\n")
    assert "of ann is revoked" in done("keys", "revoke", key[:11])
    assert "revoked" in done("keys", "list")
    assert "forgot ann: 0 requests" in done("users", "forget", "ann")
    assert "no users" in done("users", "list") and "no keys" in done("keys", "list")


def test_a_mistake_ends_with_exit_status_2(tmp_path: Path) -> None:
    done = workbench("keys", "add", "nobody", "--runs", tmp_path)
    assert done.returncode == 2 and "there is no user 'nobody'" in done.stderr
