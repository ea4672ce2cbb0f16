"""The page's log-in at an issuer of OpenID Connect, which really runs here: code, PKCE, state and nonce."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import jwt
import pytest
from conftest import Finished
from cryptography.hazmat.primitives.asymmetric import ec
from served_app import Response, Running, running, settings
from test_people import peopled

from workbench.pipeline import Pipeline
from workbench.serving.records import people
from workbench.serving.records.database import Database
from workbench.serving.settings import Who

CLIENT = "workbench page"
FORM = "application/x-www-form-urlencoded"


class Issuer:
    """An issuer that lets everybody in as Cleo, and gives a token once for each code, to whoever knows its verifier.

    Attributes:
        claims: what its tokens say otherwise than usually.
        secret: what the service has to know; empty: nothing.
        down: whether it answers nothing but errors.
    """

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.codes: dict[str, dict[str, str]] = {}
        self.claims: dict[str, Any] = {}
        self.secret, self.down = "", False
        self.address = ""

    def answer(self, method: str, path: str, asked: dict[str, str], headers: Any) -> tuple[int, dict[str, Any] | str]:
        """Status, and an object or an address to go to."""
        if self.down:
            return 503, {}
        if path == "/.well-known/openid-configuration":
            where = {"authorization_endpoint": "/authorize?tenant=1", "token_endpoint": "/token", "jwks_uri": "/keys"}
            return 200, {"issuer": self.address} | {name: self.address + place for name, place in where.items()}
        if path == "/keys":
            public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
            return 200, {"keys": [public | {"kid": "k1", "alg": "ES256", "use": "sig"}]}
        if path == "/authorize":
            assert (asked["response_type"], asked["client_id"], asked["tenant"]) == ("code", CLIENT, "1")
            assert asked["code_challenge_method"] == "S256" and "openid" in asked["scope"].split()
            code = secrets.token_urlsafe(8)
            self.codes[code] = asked
            return 303, f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"
        assert (method, path) == ("POST", "/token")
        return self.token(asked, headers)

    def token(self, asked: dict[str, str], headers: Any) -> tuple[int, dict[str, Any]]:
        """What a code is exchanged for."""
        begun = self.codes.pop(asked["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(asked["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        if begun is None or challenge != begun["code_challenge"] or asked["redirect_uri"] != begun["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        if self.secret:
            pair = base64.b64decode((headers["Authorization"] or "").removeprefix("Basic ")).decode()
            if [unquote_plus(one) for one in pair.split(":")] != [CLIENT, self.secret]:
                return 401, {"error": "invalid_client"}
        claims = {"iss": self.address, "aud": CLIENT, "sub": "u-1", "name": "Cleo", "nonce": begun["nonce"]}
        signed = claims | {"exp": int(time.time()) + 60} | self.claims
        return 200, {"id_token": jwt.encode(signed, self.key, "ES256", {"kid": "k1"}), "token_type": "Bearer"}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    found = Issuer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answered(self) -> None:
            place = urlsplit(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
            asked = {name: values[0] for name, values in parse_qs(body or place.query).items()}
            status, said = found.answer(self.command, place.path, asked, self.headers)
            self.send_response(status)
            if isinstance(said, str):
                self.send_header("Location", said)
            self.end_headers()
            self.wfile.write(b"" if isinstance(said, str) else json.dumps(said).encode())

        do_GET = do_POST = answered  # noqa: N815 - the names that the server calls

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def usual(issuer: Issuer) -> Iterator[None]:
    yield
    issuer.claims, issuer.secret, issuer.down = {}, "", False


@pytest.fixture(scope="module")
def house(toy: Finished, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Database]]:
    records, *_ = peopled(tmp_path_factory.mktemp("house") / "records.sqlite")
    who = Who(open="never", issuer=issuer.address, audience="api", client=CLIENT, log_ins_per_minute=1000)
    with running(Pipeline.open(toy.run), settings(more={"who": who}), records=records) as service:
        yield service, records


def cookie(response: Response) -> str:
    """What a browser sends back."""
    return response.headers["set-cookie"].partition(";")[0]


def left(service: Running) -> tuple[str, str]:
    """Begins a log-in: where the issuer sends the browser back to, and what the browser keeps."""
    begun = service.call("GET", "/login/issuer")
    assert begun.status == 303 and "HttpOnly" in begun.headers["set-cookie"] and "SameSite=lax" in begun.headers["set-cookie"]
    place = urlsplit(begun.headers["location"])
    connection = Running(place.port or 0, None)
    back = connection.call("GET", f"{place.path}?{place.query}").headers["location"]
    assert back.startswith(f"{service.url}/login/back?")
    return back.removeprefix(service.url), cookie(begun)


def test_people_log_in_at_the_issuer(house: tuple[Running, Database], issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    service, records = house
    host = urlsplit(issuer.address).netloc
    assert f'<a href="/login/issuer">Log in at {host}</a>' in service.call("GET", "/login").body.decode()
    for secret in ("", "an odd: secret&"):
        issuer.secret = secret
        monkeypatch.setenv("WORKBENCH_OIDC_SECRET", secret)
        back, kept = left(service)
        entered = service.call("GET", back, cookie=kept)
        assert (entered.status, entered.headers["location"]) == (303, "/")
        session = cookies(entered)["workbench_session"]
        assert service.call("GET", "/v1/about", cookie=f"workbench_session={session}").status == 200
        again = service.call("GET", back, cookie=kept)
        assert again.status == 401 and "did not confirm the log-in" in again.body.decode()  # a code is good once
    with records.reading() as connection:
        (user,) = [one for one in people.list_users(connection) if one.issuer]
    assert (user.issuer, user.subject, user.name) == (issuer.address, "u-1", "Cleo")
    assert service.call("GET", "/v1/about", authorization=f"Bearer {session}").status == 401  # it is for the page


def cookies(response: Response) -> dict[str, str]:
    """All that a response sets."""
    found = {}
    for part in response.headers["set-cookie"].split(", "):
        name, _, value = part.partition(";")[0].partition("=")
        found[name] = value
    return found


def test_a_log_in_that_was_begun_elsewhere_is_none(house: tuple[Running, Database]) -> None:
    service, _ = house
    back, kept = left(service)
    other, others = left(service)
    for place, said in ((back, others), (other, kept), (back, ""), (back, f"{kept}x"), ("/login/back", kept), (back + "x", kept)):
        refused = service.call("GET", place, cookie=said) if said else service.call("GET", place)
        if place == back + "x":
            assert refused.status == 401  # its state or its code is another
            continue
        assert refused.status == 401 and "workbench_session" not in refused.headers.get("set-cookie", ""), place
    session = service.call("GET", left(service)[0], cookie="workbench_session=x")
    assert session.status == 401


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"aud": "api"},
        {"aud": [CLIENT, "api"], "azp": "api"},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"sub": None},
    ],
)
def test_a_token_that_is_not_of_this_log_in_opens_nothing(
    house: tuple[Running, Database], issuer: Issuer, claims: dict[str, Any]
) -> None:
    service, _ = house
    issuer.claims = claims
    back, kept = left(service)
    refused = service.call("GET", back, cookie=kept)
    assert refused.status == 401 and "workbench_session=" not in refused.headers["set-cookie"]
    assert 'role="alert"' in refused.body.decode()


def test_an_issuer_that_does_not_answer_is_said(house: tuple[Running, Database], issuer: Issuer) -> None:
    service, _ = house
    back, kept = left(service)
    issuer.down = True
    failed = service.call("GET", back, cookie=kept)
    assert failed.status == 503 and "does not answer" in failed.body.decode()


def test_a_client_without_an_issuer_is_refused() -> None:
    with pytest.raises(ValueError, match="client needs an issuer"):
        Who(client="page")
