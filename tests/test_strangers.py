"""What strangers send to a service, and what its people do at once: nothing that was not meant, and nothing out of order."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished
from served_app import Response, Running, running, settings
from test_people import CLOSED, QUESTION, log_in, peopled, waits_until
from test_service import Watched
from typer.testing import CliRunner

from workbench.cli import app
from workbench.errors import InputError
from workbench.pipeline import Pipeline
from workbench.serving.caller import Principal
from workbench.serving.page.talking import Visit
from workbench.serving.records import people, talks
from workbench.serving.records.database import Database

BODY = json.dumps({"question": QUESTION}).encode()


@pytest.fixture(scope="module")
def pipeline(toy: Finished) -> Pipeline:
    return Pipeline.open(toy.run)


@pytest.fixture(scope="module")
def service(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that is open on this machine, and keeps records."""
    with running(pipeline, records=Database(tmp_path_factory.mktemp("open") / "records.sqlite")) as found:
        yield found


@pytest.fixture
def watched(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    found = Watched(pipeline, monkeypatch)
    yield found
    found.free.set()


# --- What a page of another address can have a browser send -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", ""])
def test_a_body_that_is_not_said_to_be_json_is_not_read(service: Running, kind: str) -> None:
    for method, path in (("POST", "/v1/answers"), ("POST", "/v1/chat/completions"), ("PUT", "/v1/answers/x/vote")):
        refused = service.call(method, path, BODY, Content_Type=kind)
        assert refused.status == 415, path
        assert "Content-Type: application/json" in refused.body.decode()
    nameless = service.raw(
        b"POST /v1/answers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
    )
    assert nameless.startswith(b"HTTP/1.1 415")


def test_a_page_of_another_address_can_have_nothing_sent(service: Running) -> None:
    own = service.url.removeprefix("http://")
    foreign = (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    )
    routes = ("/v1/answers", "/v1/conversations", "/logout", "/login", "/gradio_api/queue/join", "/gradio_api/call/ask")
    for path in routes:
        for headers in foreign:
            refused = service.call("POST", path, BODY, **headers)
            assert (refused.status, refused.json["type"]) == (403, "urn:workbench:problem:foreign-page"), (path, headers)
    for headers in ({}, {"origin": f"http://{own}"}, {"origin": "null", "sec_fetch_site": "same-origin"}):
        assert service.call("POST", "/v1/answers", BODY, **headers).status == 200, headers
    answer = service.call("GET", "/v1/about", origin="https://evil.example")
    assert answer.status == 200 and "access-control-allow-origin" not in answer.headers  # so no page can read it
    assert answer.headers["cache-control"] == "no-store"


def test_methods_that_clients_invent_are_counted_together(service: Running) -> None:
    for method in ("PROPFIND", "REPORT"):
        service.call(method, "/v1/answers")
    shown = service.call("GET", "/metrics").body.decode()
    assert 'method="other"' in shown and "PROPFIND" not in shown


def test_a_connection_is_not_held_by_whoever_sends_no_headers(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.serving import server

    monkeypatch.setattr(server, "HEADER_SECONDS", 0.5)

    def drip(beginning: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
            connection.sendall(beginning)
            for _ in range(200):
                connection.settimeout(0.05)
                try:
                    return connection.recv(4096)
                except TimeoutError:
                    try:
                        connection.sendall(b"x: y\r\n" if beginning else b"")
                    except OSError:
                        return b"ended"
        raise AssertionError("it was held")

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(drip, [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"]):
            assert found.startswith(b"HTTP/1.1 408") or found in (b"", b"ended")
    assert service.ask(QUESTION).status == 200


def test_what_is_wrong_with_openais_messages_is_said_in_openais_form(service: Running) -> None:
    for messages, said, place in (
        ([], "messages is an empty list", "messages"),
        ([{"role": "user", "content": [{"type": "text", "txt": "a"}]}], "unknown key 'txt'; allowed: text, type", "messages.0"),
    ):
        refused = service.call("POST", "/v1/chat/completions", {"model": "m", "messages": messages})
        error = refused.json["error"]
        assert (refused.status, error["type"], error["code"]) == (422, "invalid_request_error", "invalid")
        assert said in error["message"] and error["param"].startswith(place)


# --- At once ------------------------------------------------------------------------------------------------------------


def test_a_vote_waits_for_its_answer(service: Running, watched: Watched) -> None:
    watched.free.clear()
    accepted = service.call("POST", "/v1/answers", {"question": "What is voted on too early?"}, prefer="respond-async").json["id"]
    assert watched.begun.wait(20)
    early = service.call("PUT", f"/v1/answers/{accepted}/vote", {"vote": 1})
    assert (early.status, early.json["type"]) == (409, "urn:workbench:problem:conflict") and early.headers["retry-after"]
    assert "still being written" in early.json["detail"]
    watched.free.set()
    waits_until(lambda: service.call("GET", f"/v1/answers/{accepted}").status == 200)
    assert service.call("PUT", f"/v1/answers/{accepted}/vote", {"vote": 1}).status == 204
    assert service.call("PUT", "/v1/answers/none/vote", {"vote": 1}).status == 404


def test_votes_have_a_rate_of_their_own(pipeline: Pipeline, tmp_path: Path) -> None:
    records, *_ = peopled(tmp_path / "records.sqlite")
    with records.writing() as connection:
        slow = people.add_key(connection, 1, per_minute=2)
    with running(pipeline, settings(more={"who": CLOSED}), records=records) as service:
        headers = {"authorization": f"Bearer {slow}"}
        mine = service.ask(QUESTION, **headers).json["id"]
        given = [service.call("PUT", f"/v1/answers/{mine}/vote", {"vote": 1}, **headers) for _ in range(3)]
        assert [one.status for one in given] == [204, 204, 429] and "2 changes within a minute" in given[-1].json["detail"]
        assert service.ask(QUESTION, **headers).status == 200


def test_one_person_has_so_many_conversations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records, *_ = peopled(tmp_path / "records.sqlite")
    monkeypatch.setattr(talks, "MOST_TALKS", 2)
    with records.writing() as connection:
        for _ in range(2):
            talks.begin(connection, 1)
        with pytest.raises(talks.ConflictError, match="2 conversations, which is all that are kept; remove one"):
            talks.begin(connection, 1)
        assert talks.begin(connection, 2) and [talks.begin(connection, None) for _ in range(3)]


def test_the_page_counts_requests_by_address_and_not_by_what_a_browser_says(pipeline: Pipeline, watched: Watched) -> None:
    with running(pipeline, settings(at_once=1)) as service:

        def ask(session: str, question: str) -> str:
            data = {"data": [question], "fn_index": None, "session_hash": session}
            event = service.call("POST", "/gradio_api/call/ask", data).json["event_id"]
            return service.call("GET", f"/gradio_api/call/ask/{event}").body.decode()

        watched.free.clear()
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(ask, "first", "What is held on the page?")
            assert watched.begun.wait(20)
            assert "event: error" in ask("second", "What comes beside it?")
            watched.free.set()
            assert "event: complete" in held.result()
    assert watched.batches == [["What is held on the page?"]]


def test_a_visit_is_of_whoever_began_it() -> None:
    mine = Visit(user=1, request_id="r", vote=1)
    assert mine.of(Principal(1)) is mine
    assert mine.of(Principal(2)) == Visit(user=2) and mine.of(Principal()) == Visit()


def test_services_on_one_file_share_the_budgets(pipeline: Pipeline, tmp_path: Path) -> None:
    records, *_ = peopled(tmp_path / "records.sqlite")
    with records.writing() as connection:
        key = people.add_key(connection, 1, tokens_per_day=2500)
    wanted = settings(more={"who": CLOSED})

    def spend(service: Running, name: str) -> int:
        """Asks until the budget is used; how many were answered."""
        for number in range(200):
            if service.ask(f"What does {name} {number} do?", authorization=f"Bearer {key}").status == 429:
                return number
        raise AssertionError("there was no limit")

    with running(pipeline, wanted, records=records) as one, running(pipeline, wanted, records=Database(records.path)) as two:
        assert one.ask(QUESTION, authorization=f"Bearer {key}").status == 200
        assert two.ask("What is first?", authorization=f"Bearer {key}").status == 200
        most = spend(one, "one")
        waits_until(lambda: not one.asking.writer.waiting)
        assert spend(two, "two") <= 2 < most  # one whose answers take fewer tokens may fit where the other's do not
    with records.reading() as connection:
        used = connection.exec_driver_sql("SELECT prompt_tokens + answer_tokens FROM spending WHERE key = 3").scalar_one()
        answered = connection.exec_driver_sql("SELECT count(*) FROM requests WHERE status = 'answered'").scalar_one()
    assert 0 < used <= 2500 + 2 * used // answered


# --- Keys, passwords and names ------------------------------------------------------------------------------------------


def test_a_stream_that_began_before_its_key_was_revoked_is_the_last(pipeline: Pipeline, watched: Watched, tmp_path: Path) -> None:
    records, ann, _ = peopled(tmp_path / "records.sqlite")
    with running(pipeline, settings(more={"who": CLOSED}), records=records) as service, ThreadPoolExecutor(1) as pool:

        def ask(question: str) -> Response:
            headers = {"authorization": f"Bearer {ann}", "accept": "text/event-stream"}
            return service.ask(question, **headers)

        watched.free.clear()
        begun = pool.submit(ask, "What is asked before?")
        assert watched.begun.wait(20)
        with records.writing() as connection:
            people.revoke(connection, ann)
        waits_until(lambda: service.call("GET", "/v1/about", authorization=f"Bearer {ann}").status == 401, 5)
        assert ask("What is asked after?").status == 401
        watched.free.set()
        assert b"event: answer" in begun.result().body


def command(folder: Path, *arguments: str, typed: str = "") -> Any:
    """What a command on the records in a folder ends with."""
    (folder / "service.yaml").write_text(f"cache: {{folder: {folder}}}\n")
    return CliRunner().invoke(app, [*arguments, "--settings", str(folder / "service.yaml")], input=typed)


def test_another_password_ends_what_was_opened_with_the_one_before(pipeline: Pipeline, tmp_path: Path) -> None:
    records, *_ = peopled(tmp_path / "records.sqlite")
    with running(pipeline, settings(more={"who": CLOSED}), records=records) as service:
        session = log_in(service, "ann", "a long password").headers["set-cookie"].partition(";")[0]
        assert service.call("GET", "/v1/about", cookie=session).status == 200
        short = command(tmp_path, "users", "password", "ann", typed="short\n")
        assert isinstance(short.exception, InputError) and "allowed: 10 to 500" in str(short.exception)
        assert service.call("GET", "/v1/about", cookie=session).status == 200
        assert command(tmp_path, "users", "password", "ann", typed="another password\n").exit_code == 0
        waits_until(lambda: service.call("GET", "/v1/about", cookie=session).status == 401, 5)
        assert log_in(service, "ann", "a long password").status == 401
        assert log_in(service, "ann", "another password").status == 303
    with records.writing() as connection:
        people.add_user(connection, "Cleo", issuer="https://issuer.example", subject="u 1")
    elsewhere = command(tmp_path, "users", "password", "https://issuer.example u 1", typed="another password\n")
    assert "the password is changed there" in str(elsewhere.exception)
    nobody = command(tmp_path, "users", "password", "dora", typed="another password\n")
    assert "there is no user 'dora'" in str(nobody.exception)


def test_people_of_an_issuer_are_forgotten_by_the_name_that_the_list_shows(tmp_path: Path) -> None:
    records, *_ = peopled(tmp_path / "records.sqlite")
    with records.writing() as connection:
        people.add_user(connection, "Cleo", issuer="https://issuer.example", subject="auth|a name with spaces")
    assert "https://issuer.example auth|a name with spaces" in command(tmp_path, "users", "list").stdout
    done = command(tmp_path, "users", "forget", "https://issuer.example auth|a name with spaces")
    assert done.exit_code == 0, done.output
    assert "Cleo" not in command(tmp_path, "users", "list").stdout


def test_what_could_not_be_overwritten_is_when_the_command_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.serving.records import erasing

    records, *_ = peopled(tmp_path / "records.sqlite")
    with records.writing() as connection:
        people.add_user(connection, "unmistakable")
    records.checkpoint()
    reader = Database(records.path)
    scrub = erasing.scrub
    monkeypatch.setattr(erasing, "scrub", lambda path: scrub(path, 0.2))
    with reader.reading() as connection:
        assert len(people.list_users(connection)) == 3
        kept = command(tmp_path, "users", "forget", "unmistakable")
        assert "may still be readable" in str(kept.exception) and "run the command again" in str(kept.exception)
    reader.close()
    assert "there is no user 'unmistakable'" in str(command(tmp_path, "users", "forget", "unmistakable").exception)
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert files and not any(b"unmistakable" in path.read_bytes() for path in files)


def test_runs_on_the_questions_of_somebody_forgotten_are_named(toy: Finished, tmp_path: Path) -> None:
    from workbench.serving.records.tables import exports

    records, *_ = peopled(tmp_path / "records.sqlite")
    measured = [line.split(",")[1] for line in (toy.run / "queries.csv").read_text().splitlines()[1:3]]
    with records.writing() as connection:
        for line in (*measured, "feedback-elsewhere"):
            connection.execute(exports.insert().values(path=str(tmp_path / "gone.jsonl"), line=line, user=1))
    done = command(tmp_path, "users", "forget", "ann", "--runs", str(toy.runs))
    assert done.exit_code == 0, done.output
    assert f"{toy.run} was measured on 2 of their questions" in done.stderr
    assert "was measured on" not in command(tmp_path, "users", "forget", "bob", "--runs", str(toy.runs)).output


def test_records_that_cannot_be_written_are_said_with_the_way_out(tmp_path: Path) -> None:
    records, *_ = peopled(tmp_path / "records.sqlite")
    with records.writing() as connection:
        connection.exec_driver_sql("DROP TABLE api_keys")
    done = command(tmp_path, "keys", "add", "ann")
    assert isinstance(done.exception, InputError) and "no such table: api_keys); move the file away" in str(done.exception)
