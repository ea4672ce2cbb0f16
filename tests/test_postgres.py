"""Records in PostgreSQL: what holds for a file of SQLite holds for them, also where replicas write and the server restarts."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Finished
from served_app import running
from servers import Postgres as Server
from servers import free_port, started
from sqlalchemy import func, select
from test_records import OLDER, entry, rows
from typer.testing import CliRunner

from workbench import cli
from workbench.errors import InputError
from workbench.pipeline import Pipeline
from workbench.serving.problems import NotFoundError, UnavailableRecordsError
from workbench.serving.records import erasing, people, talks, votes
from workbench.serving.records.database import FILE, Database
from workbench.serving.records.journal import Journal, Spent, spent_on
from workbench.serving.records.postgres import Postgres
from workbench.serving.records.tables import counts, metadata, requests, spending, users
from workbench.serving.records.tables import votes as votes_table
from workbench.serving.records.writer import Writer
from workbench.serving.settings import Keeping

NUMBERS = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(Server, tmp_path_factory.mktemp("postgres")) as found:
        yield found


def empty(server: Server) -> str:
    """Address of a new database."""
    name = f"records_{next(NUMBERS)}"
    with psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.url.rpartition("/")[0] + f"/{name}"


@pytest.fixture
def records(server: Server) -> Iterator[Postgres]:
    with closing(Postgres(empty(server))) as found:
        yield found


@pytest.fixture
def writer(records: Postgres) -> Iterator[Writer]:
    found = Writer(records)
    yield found
    found.stop()


# --- Without a server -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("secret", r"WORKBENCH_DATABASE_URL is no address of a database; allowed: postgresql\+psycopg://USER"),
        ("mysql://me:secret@here/db", r"begins with mysql://; allowed: postgresql\+psycopg://USER"),
        ("postgresql://me:pass@secret@here/db", "user or password have an @, which is written %40"),
        ("postgresql://me:secret@127.0.0.1:1/db", r"127.0.0.1:1/db, cannot be used \(.*; see that the server runs"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_saying_a_password(url: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        Postgres(url)
    assert "secret" not in str(refused.value)


def test_there_is_something_to_copy_and_somewhere_to_copy_it_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["records", "copy", "--runs", str(tmp_path)]
    monkeypatch.delenv("WORKBENCH_DATABASE_URL", raising=False)
    for said in ("there are no records in", "WORKBENCH_DATABASE_URL names no database"):
        found = CliRunner().invoke(cli.app, command)
        assert isinstance(found.exception, InputError) and said in str(found.exception)
        Database(tmp_path / ".service" / FILE).close()


# --- What is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_things_are_kept_as_in_a_file(records: Postgres, writer: Writer, tmp_path: Path) -> None:
    def fill(database: Database, writer: Writer) -> dict[str, Any]:
        with database.writing() as connection:
            ann, bob = (people.add_user(connection, name) for name in ("ann", "bob"))
            key = people.key_of(connection, people.add_key(connection, ann, 5, 6))
            talk = talks.begin(connection, ann, "")
        assert key is not None and key.per_minute == 5
        kept = Journal(writer, Keeping(), print)
        for number, question in enumerate(["One?", "One?", "Two\x00?", "Three\x1a?"]):
            kept.note(
                entry(f"r{number}", ann if number % 2 else bob, question)._replace(at=1_750_000_000.5), Spent(3_000_000_000, 2, 1)
            )
        kept.write(entry("turn", ann, "\x00 begins", talk.id), Spent()).result(30)
        for comment in ("first", "a \x00 comment"):
            writer.write(partial(votes.vote, request_id="r1", user=ann, value=-1, comment=comment)).result(30)
        with pytest.raises(NotFoundError):
            writer.write(lambda connection: votes.vote(connection, "r1", bob, 1)).result(30)
        with database.reading() as connection:
            row = connection.execute(select(requests.c.question, votes_table.c.comment).join(votes_table)).one()
            return {
                "votes": votes.counted(connection),
                "row": tuple(row),
                "spent": spent_on(connection, "2025-06-15", (ann, 0)),
                "body": votes.body_of(connection, "r2", bob),
                "said": [one.question for one in talks.said(connection, talks.find(connection, talk.id, ann))],
                "title": talks.find(connection, talk.id, ann).title,
                "users": [(user.id, user.name) for user in people.list_users(connection)],
                "counts": [
                    tuple(row) for row in connection.execute(select(counts.c.status, counts.c.requests).order_by(counts.c.day))
                ],
            }

    with closing(Database(tmp_path / FILE)) as file:
        other = Writer(file)
        expected = fill(file, other)
        other.stop()
    assert fill(records, writer) == expected
    assert expected["title"] == "\x00 begins" and expected["spent"] > 4_000_000_000


@pytest.mark.slow
def test_the_tables_are_those_that_the_code_has_and_others_are_refused(server: Server) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    url = empty(server)
    with closing(Postgres(url)) as records:
        with records.reading() as connection:
            found = compare_metadata(MigrationContext.configure(connection), metadata)
        assert [one for one in found if "alembic_version" not in str(one)] == []
        with records.writing() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '99'")
    with pytest.raises(InputError, match=r"later version of the workbench \(tables 99"):
        Postgres(url)
    url = empty(server)
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE something (id int)")
    with pytest.raises(InputError, match=r"holds other tables than a service's records .something.; name another database"):
        Postgres(url)


@pytest.mark.slow
def test_a_file_of_the_first_version_is_taken_over_whole(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, url = tmp_path / ".service" / FILE, empty(server)
    with closing(Database(path)) as file, file.writing() as connection:
        for name in ("x", "gone"):
            people.add_user(connection, name)
        connection.execute(users.delete())
    with closing(sqlite3.connect(path)) as older:
        older.executescript(OLDER + "UPDATE requests SET user = 3;")
    monkeypatch.setenv("WORKBENCH_DATABASE_URL", url)
    command = ["records", "copy", "--runs", str(tmp_path)]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0 and "copied 1 users, 1 requests, 1 votes to 127.0.0.1" in done.output
    with closing(Postgres(url)) as records:
        with records.reading() as connection:
            assert votes.counted(connection) == (0, 1)
            assert connection.execute(select(votes_table.c.comment)).scalars().all() == ["last"]
            (ann,) = people.list_users(connection)
            assert (ann.id, ann.name) == (3, "ann")
        with records.writing() as connection:
            assert people.add_user(connection, "bob") == 4, "no number is given twice"
    again = CliRunner().invoke(cli.app, command)
    assert isinstance(again.exception, InputError) and "holds records already (users, requests, votes)" in str(again.exception)


@pytest.mark.slow
def test_a_person_is_forgotten_and_what_is_too_old_goes(records: Postgres, writer: Writer, tmp_path: Path) -> None:
    with records.writing() as connection:
        ann = people.add_user(connection, "ann")
        user = people.named(connection, "ann")
    kept = Journal(writer, Keeping(), print)
    kept.note(entry("mine", ann, "unmistakable words"), Spent())
    kept.write(entry("old", None, "Old?", at=1.0), Spent()).result(30)
    assert erasing.forget(records, user, tmp_path / "none").requests == 1
    with records.writing() as connection:
        assert erasing.expire(connection, 1.0).requests == 1
    assert rows(records, requests) == 0
    with records.reading() as connection:
        path = connection.exec_driver_sql("SELECT current_setting('data_directory')").scalar_one()
    with psycopg.connect(server_url(records)) as connection:
        connection.execute("CHECKPOINT")
    held = [file for file in (Path(path) / "base").rglob("*") if file.is_file() and b"unmistakable" in file.read_bytes()]
    assert held == []


def server_url(records: Postgres) -> str:
    return records._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


# --- Several replicas, and faults -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_replicas_that_write_at_once_count_exactly(records: Postgres) -> None:
    writers = [Writer(records) for _ in range(3)]
    for number in range(60):
        Journal(writers[number % 3], Keeping(), print).note(entry(f"r{number}", None, f"What is {number % 7}?"), Spent(1, 1, 1))
    for one in writers:
        one.write(lambda connection: None).result(30)

    def vote(number: int) -> None:
        value: Any = 1 if number % 2 else -1
        asked = writers[number % 3].write(lambda connection: votes.vote(connection, f"r{number % 60}", None, value))
        asked.result(60)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(vote, range(240)))
    for one in writers:
        one.stop()
    with records.reading() as connection:
        assert sum(votes.counted(connection)) == 60
        assert connection.execute(select(func.sum(counts.c.requests))).scalar_one() == 60
        assert connection.execute(select(func.sum(spending.c.prompt_tokens))).scalar_one() == 60
    assert rows(records, requests) == 60


@contextmanager
def losing_the_reply_to_a_commit(port: int, cut: threading.Event) -> Iterator[int]:
    """A port that passes on to a server; once `cut` is set, the reply to the next COMMIT is lost with its connection."""

    def passed_on(client: socket.socket) -> None:
        upstream, lost = socket.create_connection(("127.0.0.1", port)), threading.Event()

        def back() -> None:
            with suppress(OSError):
                while data := upstream.recv(65_536):
                    if lost.is_set():
                        client.shutdown(socket.SHUT_RDWR)
                        return
                    client.sendall(data)

        threading.Thread(target=back, daemon=True).start()
        with suppress(OSError):
            while data := client.recv(65_536):
                if b"COMMIT" in data and cut.is_set():
                    cut.clear()
                    lost.set()
                upstream.sendall(data)
        upstream.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=passed_on, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


@pytest.mark.slow
def test_a_commit_whose_reply_is_lost_is_not_written_twice(server: Server) -> None:
    url, cut = empty(server), threading.Event()
    with (
        losing_the_reply_to_a_commit(server.port, cut) as port,
        closing(Postgres(url.replace(f":{server.port}/", f":{port}/"))) as records,
    ):
        writer = Writer(records)
        kept = Journal(writer, Keeping(), print)
        for number in range(5):
            cut.set()
            kept.note(entry(f"note{number}"), Spent(2, 1, 0))
            kept.write(entry(f"r{number}"), Spent(2, 1, 0)).result(30)
            assert not cut.is_set(), "a reply was lost"
        writer.stop()
        assert rows(records, requests) == 10
        with records.reading() as connection:
            assert connection.execute(select(func.sum(counts.c.requests))).scalar_one() == 10


@pytest.mark.slow
def test_a_restart_of_the_server_loses_nothing_that_was_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(Server, tmp_path) as server, closing(Postgres(server.url)) as records:
        writer, acknowledged, refused = Writer(records), [], []
        kept = Journal(writer, Keeping(), print)
        stopped = threading.Event()

        def asks(part: int) -> None:
            number = part
            while not stopped.is_set():
                kept.note(entry(f"r{number}"), Spent(1, 1, 0))
                name = f"r{number}"
                try:
                    writer.write(partial(votes.vote, request_id=name, user=None, value=1)).result(60)
                    acknowledged.append(name)
                except UnavailableRecordsError:
                    refused.append(name)
                number += 4

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(asks, part) for part in range(4)]
            for how in (signal.SIGINT, signal.SIGQUIT):  # stopped at once; as after a crash
                time.sleep(1)
                before = len(acknowledged)
                server.end(how)
                time.sleep(0.5)
                server.start()
                deadline = time.monotonic() + 30
                while len(acknowledged) <= before + 4 and time.monotonic() < deadline:
                    time.sleep(0.05)
                assert len(acknowledged) > before + 4, "it comes back by itself"
            stopped.set()
            for one in asking:
                one.result(60)
        writer.stop()
        assert writer.dropped == 0
        with records.reading() as connection:
            known = connection.execute(select(requests.c.id).join(votes_table)).scalars().all()
            assert set(acknowledged) <= set(known) and len(set(known)) == len(known)
            assert connection.execute(select(func.sum(counts.c.requests))).scalar_one() == rows(records, requests)
            assert rows(records, requests) == len(acknowledged) + len(refused)


@pytest.mark.slow
def test_the_vote_on_an_answer_of_another_replica_is_kept(toy: Finished, server: Server) -> None:
    url = empty(server)
    pipeline = Pipeline.open(toy.run)
    pipeline.warm()
    with running(pipeline, records=Postgres(url)) as one, running(pipeline, records=Postgres(url)) as other:
        for question in ("What does break do?", "What does pass do?", "What does del do?"):
            found = one.ask(question)
            kept = other.call("PUT", f"/v1/answers/{found.json['id']}/vote", {"vote": 1})
            assert kept.status == 204, kept.body
            again = other.call("GET", f"/v1/answers/{found.json['id']}")
            assert json.loads(again.body)["answer"] == found.json["answer"]
        assert other.call("PUT", "/v1/answers/none/vote", {"vote": 1}).status == 404


@pytest.mark.slow
def test_a_service_whose_database_is_away_does_not_start_without_records(toy: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.serving.app import serve

    monkeypatch.setenv("WORKBENCH_DATABASE_URL", f"postgresql://records@127.0.0.1:{free_port()}/none")
    with pytest.raises(InputError, match=r"cannot be used .*; see that the server runs"):
        serve(toy.run, port=free_port())
