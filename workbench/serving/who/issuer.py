"""An issuer of OpenID Connect: reads its tokens, and has people log in there (authorization code with PKCE)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import threading
import urllib.error
import urllib.request
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode

import jwt

from workbench.serving.problems import IssuerError, UnauthorizedError
from workbench.serving.who.tokens import plain

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
SECONDS = 5.0  # for its answers
LEEWAY_SECONDS = 30  # by which its clock may differ
MOST_BYTES = 1_000_000  # of an answer


class Visit(NamedTuple):
    """A log-in that has begun: what the issuer has to send back, what its token has to hold, and what only this service knows."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def begun(cls) -> Visit:
        """A new one, of random texts."""
        return cls(*(secrets.token_urlsafe(32) for _ in cls._fields))


class Issuer:
    """Says who somebody is; it waits for the network."""

    def __init__(self, address: str, audience: str, client: str | None = None) -> None:
        """Asks nothing yet.

        Args:
            address: of the issuer, as its tokens name it.
            audience: what its tokens for this service are for.
            client: what it calls this service where people log in; None: nobody does.
        """
        self.address, self.audience, self.client = address, audience, client
        self._facts: dict[str, Any] | None = None
        self._keys: jwt.PyJWKClient | None = None
        self._one = threading.Lock()

    def read(self, token: str, audience: str | None = None) -> dict[str, Any]:
        """The claims of a token; ``sub`` is among them.

        Args:
            token: as it was sent.
            audience: what it has to be for; default: the service's programs.

        Raises:
            UnauthorizedError: it is not the issuer's, not for this service, too old, or not signed by one of its keys.
            IssuerError: the issuer does not say what its keys are.
        """
        try:
            key = self._known_keys().get_signing_key_from_jwt(token)
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                list(ALGORITHMS),
                audience=audience or self.audience,
                issuer=self.address,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "aud", "exp", "sub"]},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise IssuerError(f"{self.address} does not say what its keys are; ask again", retry_after=5) from error
        except jwt.PyJWTError as error:
            raise UnauthorizedError(f"the token is not valid ({plain(error)}); get another of {self.address}") from error
        return claims

    def door(self, visit: Visit, back: str) -> str:
        """Where somebody logs in.

        Args:
            visit: the log-in that has begun.
            back: address of this service to which the issuer sends them back.

        Raises:
            IssuerError: the issuer does not say where.
        """
        challenge = base64.urlsafe_b64encode(hashlib.sha256(visit.verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code", "client_id": self.client, "redirect_uri": back, "scope": "openid profile",
            "state": visit.state, "nonce": visit.nonce, "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        door = self._fact("authorization_endpoint")
        return f"{door}{'&' if '?' in door else '?'}{urlencode(asked)}"

    def entered(self, visit: Visit, code: str, back: str) -> dict[str, Any]:
        """The claims of whoever has logged in.

        Args:
            visit: the log-in that had begun.
            code: what the issuer sent back.
            back: as in `door`.

        Raises:
            UnauthorizedError: the issuer does not know the code, or its token is not of this log-in.
            IssuerError: the issuer does not answer.
        """
        assert self.client is not None
        sent = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": back, "client_id": self.client,
            "code_verifier": visit.verifier,
        }  # fmt: skip
        said = self._asked(self._fact("token_endpoint"), sent)
        claims = self.read(str(said.get("id_token", "")), self.client)
        if not secrets.compare_digest(str(claims.get("nonce", "")), visit.nonce):
            raise UnauthorizedError("the token is of another log-in; log in again")
        if claims.get("azp", self.client) != self.client:
            raise UnauthorizedError("the token was made for another service; log in again")
        return claims

    def _asked(self, address: str, sent: dict[str, str]) -> dict[str, Any]:
        """What the issuer answers to a form."""
        request = urllib.request.Request(address, urlencode(sent).encode(), {"Accept": "application/json"})
        if secret := os.environ.get("WORKBENCH_OIDC_SECRET"):
            pair = f"{quote_plus(sent['client_id'])}:{quote_plus(secret)}"
            request.add_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
        try:
            return _read(request)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500:
                raise UnauthorizedError(
                    f"{self.address} did not confirm the log-in (status {error.code}); log in again"
                ) from error
            raise IssuerError(f"{self.address} does not answer (status {error.code}); try again", retry_after=5) from error
        except (OSError, ValueError) as error:
            raise IssuerError(f"{self.address} does not answer; try again", retry_after=5) from error

    def _known_keys(self) -> jwt.PyJWKClient:
        address = self._fact("jwks_uri")
        with self._one:
            if self._keys is None:
                self._keys = jwt.PyJWKClient(address, timeout=SECONDS)
            return self._keys

    def _fact(self, name: str) -> str:
        """What the issuer says of itself."""
        where = f"{self.address.rstrip('/')}/.well-known/openid-configuration"
        with self._one:
            try:
                if self._facts is None:
                    said = _read(urllib.request.Request(where))
                    if said["issuer"] != self.address:
                        raise ValueError(f"it calls itself {said['issuer']!r}")
                    self._facts = said
                return str(self._facts[name])
            except (OSError, ValueError, KeyError) as error:
                raise IssuerError(f"{where} does not say what is needed of the issuer ({error})", retry_after=5) from error


def _read(request: urllib.request.Request) -> dict[str, Any]:
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        said = json.loads(response.read(MOST_BYTES))
    if not isinstance(said, dict):
        raise ValueError("its answer is no object")
    return said
