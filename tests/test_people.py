"""Who may ask: nobody without a key where others reach the service, each within their limits, and nobody what is another's."""

from __future__ import annotations

import base64
import http.server
import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import pytest
from conftest import Finished
from cryptography.hazmat.primitives.asymmetric import ec
from served_app import Response, Running, running, settings
from typer.testing import CliRunner

from workbench import cli
from workbench.errors import InputError
from workbench.pipeline import Pipeline
from workbench.serving.app import serve
from workbench.serving.records import people, votes
from workbench.serving.records.database import Database
from workbench.serving.settings import Keeping, Prices, Who
from workbench.serving.who import passwords
from workbench.serving.who.access import PUBLIC

QUESTION = "What does the with statement do?"
CLOSED = Who(open="never", per_minute=100_000)


class House(NamedTuple):
    """A service that asks for keys, its records, and the keys of two users; ann has a password."""

    service: Running
    records: Database
    ann: str
    bob: str

    def call(self, key: str, method: str, path: str, body: Any = None, **headers: str) -> Response:
        """One request with a key."""
        return self.service.call(method, path, body, authorization=f"Bearer {key}", **headers)

    def ask(self, key: str, question: str = QUESTION, **headers: str) -> Response:
        """One question with a key."""
        return self.call(key, "POST", "/v1/answers", {"question": question}, **headers)


@pytest.fixture(scope="module")
def pipeline(toy: Finished) -> Pipeline:
    opened = Pipeline.open(toy.run)
    opened.session.keep_in_memory(1_000_000)
    return opened


def peopled(path: Path) -> tuple[Database, str, str]:
    """Records with two users, and their keys."""
    records = Database(path)
    with records.writing() as connection:
        ann = people.add_user(connection, "ann", passwords.hashed("a long password"))
        bob = people.add_user(connection, "bob")
        return records, people.add_key(connection, ann), people.add_key(connection, bob)


@pytest.fixture(scope="module")
def house(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    records, ann, bob = peopled(tmp_path_factory.mktemp("house") / "records.sqlite")
    with running(pipeline, settings(more={"who": CLOSED}), records=records) as service:
        yield House(service, records, ann, bob)


def waits_until(true: Any, seconds: float = 20) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


# --- Without a key ----------------------------------------------------------------------------------------------------


def routes_of(service: Running) -> list[tuple[str, str]]:
    """Method and address of every route of the application, Gradio's own included."""
    found: list[tuple[str, str]] = []

    def walk(routes: Any, prefix: str) -> None:
        for route in routes:
            path = prefix + getattr(route, "path", "")
            for holder in (route, getattr(route, "app", None), getattr(route, "original_router", None)):
                if inner := getattr(holder, "routes", None):
                    walk(inner, path)
                    break
            found.extend((method, path) for method in sorted(getattr(route, "methods", None) or {"GET"}))

    walk(service.guard.app.app.routes, "")
    return found


def test_no_route_of_the_application_is_answered_without_a_key(house: House) -> None:
    routes = routes_of(house.service)
    assert len(routes) > 60 and any("queue/join" in path for _, path in routes) and any("upload" in path for _, path in routes)
    asked = set()
    for method, path in routes:
        plain = "/" + "/".join("x" if "{" in part else part for part in path.split("/") if part)
        asked.add((method, plain))
        asked.add((method, plain + "/"))
    let_in = {(method, path) for method, path in asked if house.service.call(method, path, b"{}").status != 401}
    assert {path for _, path in let_in} == set(PUBLIC)
    assert house.service.call("GET", "/healthz").json == {"status": "ok"}
    for path in ("//v1/about", "/healthz/../v1/about", "/healthz%2f..%2fv1/about", "/LOGIN", "/v1/about?/healthz"):
        assert house.service.call("GET", path).status == 401, path


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wb_00000000_wrong"},
        {"authorization": "Bearer none"},
        {"authorization": "Basic YTpi"},
        {"authorization": "Bearer a.b.c"},
        {"cookie": "workbench_session=a.b.c"},
        {"cookie": 'workbench_session=;;;=; "a'},
        {"x-forwarded-for": "127.0.0.1"},
    ],
)
def test_what_is_no_key_is_none(house: House, header: dict[str, str]) -> None:
    refused = house.service.call("GET", "/v1/about", **header)
    assert (refused.status, refused.json["type"]) == (401, "urn:workbench:problem:unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    openai = house.service.call("POST", "/v1/chat/completions", {}, **header)
    assert openai.status == 401 and "message" in openai.json["error"]


def test_a_key_opens_and_a_revoked_one_does_not(house: House) -> None:
    with house.records.writing() as connection:
        key = people.add_key(connection, 1)
    assert house.ask(key).status == 200
    with house.records.writing() as connection:
        people.revoke(connection, key)
    waits_until(lambda: house.ask(key).status == 401, 5)


def test_an_address_that_others_reach_is_not_served_without_keys(
    toy: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "service.yaml").write_text(f"cache: {{folder: {tmp_path}}}\n")
    arguments = ["serve", toy.run, "--host", "0.0.0.0", "--port", "0", "--settings", tmp_path / "service.yaml"]
    monkeypatch.setattr(sys, "argv", ["workbench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "0.0.0.0 can be reached from other machines, and nobody has a key" in capsys.readouterr().err
    (tmp_path / "service.yaml").write_text(f"cache: {{folder: {tmp_path}}}\nwho: {{open: never}}\n")
    with pytest.raises(InputError, match=r"who\.open is never, and nobody has a key"):
        serve(toy.run, port=0, settings=tmp_path / "service.yaml")


def test_an_open_service_takes_no_notice_of_a_key_that_is_none_of_its_own(pipeline: Pipeline, tmp_path: Path) -> None:
    records, ann, _ = peopled(tmp_path / "records.sqlite")
    with running(pipeline, records=records) as service:
        assert service.ask(QUESTION).status == service.ask(QUESTION, authorization="Bearer none").status == 200
        assert service.ask(QUESTION, authorization="Bearer wb_00000000_x").status == 401
        for named in ("203.0.113.7", "127.0.0.1", "localhost", "203.0.113.7, 127.0.0.1"):
            assert service.ask(QUESTION, x_forwarded_for=named).status == 401  # a proxy passes it on
        for header in ("x-real-ip", "forwarded", "via", "x-forwarded-host", "x-forwarded-proto"):
            assert service.ask(QUESTION, **{header: "127.0.0.1"}).status == 401, header
        assert service.ask(QUESTION, x_forwarded_for="203.0.113.7", authorization=f"Bearer {ann}").status == 200
        mine = service.ask(QUESTION, authorization=f"Bearer {ann}").json["id"]
        place = f"/v1/answers/{mine}"
        assert service.call("GET", place).status == 404
        assert service.call("GET", place, authorization=f"Bearer {ann}").status == 200


# --- Tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_is_as_good_as_its_key_until_that_is_revoked(house: House) -> None:
    with house.records.writing() as connection:
        key = people.add_key(connection, 2)
    made = house.call(key, "POST", "/v1/token")
    token = made.json["access_token"]
    assert made.json["expires_in"] == 900 and made.headers["cache-control"] == "no-store"
    assert house.ask(token).status == 200
    header, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps(claims | {"key": 1, "sub": "1"}).encode()).rstrip(b"=").decode()
    nothing = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    for wrong in (f"{header}.{forged}.{signature}", f"{nothing}.{body}.", f"{header}.{body}.{signature[:-4]}AAAA"):
        assert house.ask(wrong).status == 401
    assert house.service.call("GET", "/v1/about", cookie=f"workbench_session={token}").status == 401  # it is for programs
    late = jwt.encode(claims | {"exp": 1}, house.service.asking.directory.tokens._secret, "HS256")
    assert "expired" in house.ask(late).json["detail"]
    with house.records.writing() as connection:
        people.revoke(connection, key)
    waits_until(lambda: house.ask(token).status == 401, 5)


class Issuer(NamedTuple):
    """An issuer of OpenID Connect on this machine, and what it signs with."""

    address: str
    key: Any

    def token(self, key: Any = None, algorithm: str = "ES256", kid: str = "k1", **more: Any) -> str:
        """A token; keyword arguments replace claims, None removes one."""
        claims = {"iss": self.address, "aud": "workbench", "sub": "u-1", "name": "Cleo", "exp": int(time.time()) + 60} | more
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(kept, key or self.key, algorithm, {"kid": kid})


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": "k1", "alg": "ES256", "use": "sig"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = f"http://127.0.0.1:{self.server.server_port}"
            known = {
                "/.well-known/openid-configuration": {"issuer": address, "jwks_uri": f"{address}/keys"},
                "/keys": {"keys": [public]},
            }
            self.send_response(200 if self.path in known else 404)
            self.end_headers()
            self.wfile.write(json.dumps(known.get(self.path)).encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Issuer(f"http://127.0.0.1:{server.server_port}", key)
        server.shutdown()
        thread.join()


def unsigned(token: str) -> str:
    """The token as one that says that it needs no signature."""
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT","kid":"k1"}').rstrip(b"=").decode()
    return f"{header}.{token.split('.')[1]}."


def test_tokens_of_an_issuer_are_taken_and_others_are_not(pipeline: Pipeline, issuer: Issuer, tmp_path: Path) -> None:
    records = Database(tmp_path / "records.sqlite")
    who = Who(open="never", issuer=issuer.address, audience="workbench", per_minute=1000)

    with running(pipeline, settings(more={"who": who}), records=records) as service:

        def status(token: str) -> int:
            return service.ask(QUESTION, authorization=f"Bearer {token}").status

        with ThreadPoolExecutor(4) as pool:  # they come for the first time, at once
            assert set(pool.map(status, [issuer.token(jti=str(n)) for n in range(4)])) == {200}
        other = ec.generate_private_key(ec.SECP256R1())
        for wrong in (
            issuer.token(key=other),
            issuer.token(aud="another service"),
            issuer.token(iss="https://evil.example"),
            issuer.token(exp=int(time.time()) - 120),
            issuer.token(exp=None),
            issuer.token(sub=None),
            issuer.token(aud=None),
            issuer.token(key="x" * 64, algorithm="HS256"),
            issuer.token(kid="unknown"),
            issuer.token(nbf=int(time.time()) + 600),
            issuer.token().rpartition(".")[0] + ".",
            unsigned(issuer.token()),
        ):
            assert status(wrong) == 401
    with records.reading() as connection:
        (user,) = people.list_users(connection)
    assert (user.issuer, user.subject, user.name) == (issuer.address, "u-1", "Cleo")


# --- The page ---------------------------------------------------------------------------------------------------------


def log_in(service: Running, name: str, password: str) -> Response:
    """Sends the form."""
    form = f"name={name}&password={password.replace(' ', '+')}".encode()
    return service.call("POST", "/login", form, Content_Type="application/x-www-form-urlencoded")


def test_the_page_is_opened_by_name_and_password(house: House) -> None:
    visit = house.service.call("GET", "/", accept="text/html")
    assert (visit.status, visit.headers["location"]) == (303, "/login")
    form = house.service.call("GET", "/login")
    assert form.status == 200 and 'type="password"' in form.body.decode() and "http" not in form.body.decode()
    for name, password in (("ann", "wrong password"), ("bob", "a long password"), ("nobody", "a long password")):
        refused = log_in(house.service, name, password)
        assert refused.status == 401 and "name or the password is wrong" in refused.body.decode()
    entered = log_in(house.service, "ann", "a long password")
    cookie = entered.headers["set-cookie"]
    assert entered.status == 303 and "HttpOnly" in cookie and "SameSite=lax" in cookie
    session = cookie.partition(";")[0]
    page = house.service.call("GET", "/", cookie=session)
    assert page.status == 200 and b"gradio" in page.body
    assert house.service.call("GET", "/v1/about", cookie=session).status == 200
    token = session.partition("=")[2]
    assert house.call(token, "GET", "/v1/about").status == 401  # it is for the page
    assert house.service.call("POST", "/logout", cookie=session).headers["set-cookie"].startswith('workbench_session=""')


def test_passwords_cannot_be_tried_without_end(pipeline: Pipeline, tmp_path: Path) -> None:
    records, *_ = peopled(tmp_path / "records.sqlite")
    who = Who(open="never", log_ins_per_minute=3)
    with running(pipeline, settings(more={"who": who}), records=records) as service:
        found = [log_in(service, "ann", "wrong password") for _ in range(4)]
    assert [one.status for one in found] == [401, 401, 401, 429] and int(found[-1].headers["retry-after"]) >= 1


# --- How much ---------------------------------------------------------------------------------------------------------


def test_each_key_has_its_rate_and_its_tokens(pipeline: Pipeline, tmp_path: Path) -> None:
    records, ann, bob = peopled(tmp_path / "records.sqlite")
    with records.writing() as connection:
        slow, poor = people.add_key(connection, 1, per_minute=2), people.add_key(connection, 1, tokens_per_day=1)
    prices = Prices(prompt=2.0, answer=10.0)
    with running(pipeline, settings(more={"who": Who(open="never"), "prices": prices}), records=records) as service:

        def ask(key: str, question: str) -> Response:
            return service.ask(question, authorization=f"Bearer {key}")

        assert [ask(slow, QUESTION).status for _ in range(3)] == [200, 200, 429]
        refused = ask(slow, QUESTION)
        assert refused.json["type"].endswith("rate-limited") and 1 <= int(refused.headers["retry-after"]) <= 60
        assert ask(bob, QUESTION).status == 200
        spent = ask(poor, "What does the for statement do?")
        assert (spent.status, spent.json["type"]) == (429, "urn:workbench:problem:budget-spent")
        assert "allowed: 1 in a day" in spent.json["detail"] and int(spent.headers["retry-after"]) <= 86_400
        assert ask(poor, QUESTION).json["served"]["by"] == "cache"  # what is kept costs nothing
        computed = ask(ann, "What does the del statement do?").json
    tokens = computed["tokens"]
    with records.reading() as connection:
        rows = connection.exec_driver_sql("SELECT status, http_status, cost_micros FROM requests ORDER BY number").all()
        spent_rows = connection.exec_driver_sql("SELECT * FROM spending WHERE user = 1 AND key = 1").all()
    assert [row[0] for row in rows] == ["answered"] * 2 + ["refused"] * 2 + ["answered", "refused", "answered", "answered"]
    cost = round(tokens["prompt"] * 2.0 + tokens["answer"] * 10.0)
    assert rows[-1] == ("answered", 200, cost)
    assert spent_rows[0][3:] == (tokens["prompt"], tokens["answer"], cost)


def test_a_budget_outlives_the_process(pipeline: Pipeline, tmp_path: Path) -> None:
    records, *_ = peopled(tmp_path / "records.sqlite")
    with records.writing() as connection:
        key = people.add_key(connection, 1, tokens_per_day=150)
    asked = 0
    for _ in range(2):
        with running(pipeline, settings(more={"who": CLOSED}), records=Database(records.path)) as service:
            while service.ask(f"What does number {asked} do?", authorization=f"Bearer {key}").status == 200:
                asked += 1
                assert asked < 50
    with records.reading() as connection:
        ((used,),) = connection.exec_driver_sql("SELECT prompt_tokens + answer_tokens FROM spending").all()
        answered = connection.exec_driver_sql("SELECT count(*) FROM requests WHERE status = 'answered'").scalar_one()
    assert 0 < used <= 150 + used // answered and answered == asked


# --- What is whose ----------------------------------------------------------------------------------------------------

# what another person gets for an address of somebody's answer or conversation
FOREIGN = {
    ("GET", "/v1/answers/{request_id}"): 404,
    ("PUT", "/v1/answers/{request_id}/vote"): 404,
    ("GET", "/v1/conversations/{conversation}"): 404,
    ("DELETE", "/v1/conversations/{conversation}"): 404,
}
# routes of which nothing belongs to one person, or that show whoever asks their own
OTHERS = {
    ("POST", "/v1/answers"), ("POST", "/v1/search"), ("POST", "/v1/chat/completions"), ("GET", "/v1/models"),
    ("GET", "/v1/about"), ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/health"), ("POST", "/api/ask"),
    ("GET", "/api/provenance"), ("POST", "/v1/conversations"), ("GET", "/v1/conversations"), ("POST", "/v1/token"),
    ("GET", "/login"), ("POST", "/login"), ("POST", "/logout"), ("GET", "/metrics"), ("GET", "/login/issuer"),
    ("GET", "/login/back"),
}  # fmt: skip
SECRET = "unmistakable words of ann"


def test_no_route_shows_one_person_what_is_anothers(house: House) -> None:
    described = house.call(house.ann, "GET", "/openapi.json").json["paths"]
    assert {(method.upper(), path) for path, methods in described.items() for method in methods} == {*FOREIGN, *OTHERS}
    mine = house.ask(house.ann, SECRET, x_request_id="anns-request").json["id"]
    with house.records.writing() as connection:
        from workbench.serving.records import talks

        talk = talks.begin(connection, 1, SECRET).id
    asked_later = house.ask(house.ann, SECRET, prefer="respond-async").json["id"]
    bodies = {"PUT": {"vote": 1}, "POST": {"question": "What?", "conversation": talk}}
    for (method, path), status in FOREIGN.items():
        for request_id in (mine, asked_later):
            place = path.format(request_id=request_id, conversation=talk)
            found = house.call(house.bob, method, place, bodies.get(method))
            assert found.status == status and SECRET not in found.body.decode(), (method, path)
    for method, path in sorted(OTHERS):
        if not path.startswith(("/log", "/health", "/ready")):
            found = house.call(house.bob, method, path, bodies.get(method) if method == "POST" else None)
            assert SECRET not in found.body.decode(), (method, path)
    assert house.call(house.bob, "GET", "/v1/conversations").json == {"conversations": []}
    assert house.ask(house.bob, "What?", x_request_id="anns-request").json["id"] == mine  # an id that somebody else has
    assert house.call(house.bob, "GET", f"/v1/answers/{mine}").json["question"] == "What?"
    assert house.call(house.ann, "GET", f"/v1/answers/{mine}").json["question"] == SECRET
    assert house.call(house.ann, "GET", f"/v1/conversations/{talk}").json["title"] == SECRET
    assert house.call(house.ann, "DELETE", f"/v1/conversations/{talk}").status == 204
    assert house.call(house.ann, "GET", f"/v1/conversations/{talk}").status == 404


def test_votes_over_http_at_once_are_counted_exactly(house: House) -> None:
    mine = [house.ask(house.ann, QUESTION).json["id"] for _ in range(50)]
    with house.records.reading() as connection:
        before = votes.counted(connection)

    def vote(number: int) -> int:
        value = -1 if number % 50 < 10 else 1
        return house.call(house.ann, "PUT", f"/v1/answers/{mine[number % 50]}/vote", {"vote": value}).status

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(vote, range(400))) == {204}
    with house.records.reading() as connection:
        after = votes.counted(connection)
        assert connection.exec_driver_sql("SELECT count(*) FROM votes").scalar_one() == 50  # one of each answer
    assert (after.up - before.up, after.down - before.down) == (40, 10)


def test_answers_come_while_records_are_locked_and_votes_are_refused_until_they_can_be_kept(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.serving.records import writer

    monkeypatch.setattr(writer, "PATIENCE_SECONDS", 0.2)
    mine = house.ask(house.ann).json["id"]
    place = f"/v1/answers/{mine}/vote"
    assert house.call(house.ann, "PUT", place, {"vote": 1}).status == 204
    with house.records.reading() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM requests").scalar_one()
    other = sqlite3.connect(house.records.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert {house.ask(house.ann, f"What does lock {number} do?").status for number in range(3)} == {200}
    refused = house.call(house.ann, "PUT", place, {"vote": -1})
    with house.records.reading() as connection:
        assert connection.exec_driver_sql("SELECT vote FROM votes ORDER BY number DESC LIMIT 1").scalar_one() == 1
    assert (refused.status, refused.json["type"]) == (503, "urn:workbench:problem:records-unavailable")
    assert "nothing was written" in refused.json["detail"] and refused.headers["retry-after"] == "5"
    other.execute("ROLLBACK")
    other.close()
    waits_until(lambda: house.call(house.ann, "PUT", place, {"vote": 1, "comment": "back"}).status == 204)
    with house.records.reading() as connection:
        after = connection.exec_driver_sql("SELECT count(*) FROM requests").scalar_one()
        given = connection.exec_driver_sql("SELECT vote, comment FROM votes ORDER BY number DESC LIMIT 1").all()
    assert after == before + 3 and given == [(1, "back")]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "'vote' is missing"),
        ({"vote": 0}, "vote is a number"),
        ({"vote": "up"}, "vote is a text"),
        ({"vote": True}, "vote is true or false"),
        ({"vote": 1, "comment": ""}, "is empty"),
        ({"vote": 1, "comment": "x" * 2001}, "2,001"),
        ({"vote": 1, "stars": 5}, "unknown key 'stars'"),
    ],
)
def test_a_vote_that_is_none_is_refused(house: House, body: Any, said: str) -> None:
    mine = house.ask(house.ann).json["id"]
    refused = house.call(house.ann, "PUT", f"/v1/answers/{mine}/vote", body)
    assert refused.status == 422 and said in refused.json["detail"], refused.json


def test_an_answer_can_be_fetched_after_a_restart(pipeline: Pipeline, tmp_path: Path) -> None:
    records, ann, bob = peopled(tmp_path / "records.sqlite")
    for number in range(2):
        with running(pipeline, settings(more={"who": CLOSED}), records=Database(records.path)) as service:
            if number == 0:
                first = service.ask(QUESTION, authorization=f"Bearer {ann}").json
                continue
            again = service.call("GET", f"/v1/answers/{first['id']}", authorization=f"Bearer {ann}").json
            assert service.call("GET", f"/v1/answers/{first['id']}", authorization=f"Bearer {bob}").status == 404
    assert again.pop("served") == {"by": "records", "seconds": {}} and first.pop("served")["by"] == "model"
    assert again == first


def test_a_service_without_texts_or_records_takes_no_words(pipeline: Pipeline, tmp_path: Path) -> None:
    for keep, votes_taken in ((Keeping(texts=False), 204), ("none", 422)):
        folder = tmp_path / str(votes_taken)
        records, ann, _ = peopled(folder / "records.sqlite")
        with running(pipeline, settings(more={"who": CLOSED, "keep": keep}), records=records) as service:
            mine = service.ask(SECRET, authorization=f"Bearer {ann}").json["id"]
            place = f"/v1/answers/{mine}/vote"
            assert service.call("PUT", place, {"vote": 1}, authorization=f"Bearer {ann}").status == votes_taken
            refused = service.call("PUT", place, {"vote": 1, "comment": SECRET}, authorization=f"Bearer {ann}")
            assert refused.status == 422 and "keeps no" in refused.json["detail"]
            assert service.call("POST", "/v1/conversations", {}, authorization=f"Bearer {ann}").status == 422
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files and not any(SECRET.encode() in path.read_bytes() for path in files)


def test_a_running_service_forgets_whom_the_command_forgot(pipeline: Pipeline, tmp_path: Path, monkeypatch: Any) -> None:
    from workbench.serving import remembering
    from workbench.serving.settings import Caching

    monkeypatch.setattr(remembering, "LOOK_SECONDS", 0.05)
    records, ann, bob = peopled(tmp_path / "records.sqlite")
    wanted = settings(Caching(disk_mb=1.0, folder=tmp_path), more={"who": CLOSED})
    with running(pipeline, wanted, records=records) as service:
        for key, question in ((ann, SECRET), (bob, QUESTION), (ann, QUESTION)):
            assert service.ask(question, authorization=f"Bearer {key}").status == 200
        time.sleep(0.2)
        (tmp_path / "service.yaml").write_text(f"cache: {{folder: {tmp_path}}}\n")
        done = CliRunner().invoke(cli.app, ["users", "forget", "ann", "--settings", str(tmp_path / "service.yaml")])
        assert done.exit_code == 0 and "1 of their questions nobody else had asked" in done.stdout, done.output
        waits_until(lambda: service.ask(QUESTION, authorization=f"Bearer {ann}").status == 401)
        waits_until(lambda: len(service.asking.memory._hits) == 1)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not any(SECRET.encode() in path.read_bytes() for path in files)
        assert service.ask(QUESTION, authorization=f"Bearer {bob}").json["served"]["by"] == "cache"
        assert service.ask(SECRET, authorization=f"Bearer {bob}").json["served"]["by"] == "model"


def test_a_secret_that_is_too_short_is_refused(pipeline: Pipeline, tmp_path: Path, monkeypatch: Any) -> None:
    from workbench.serving.who.tokens import OwnTokens

    monkeypatch.setitem(os.environ, "WORKBENCH_JWT_KEY", "short")
    with pytest.raises(InputError, match="WORKBENCH_JWT_KEY has 5 bytes; allowed: 32"):
        OwnTokens()
