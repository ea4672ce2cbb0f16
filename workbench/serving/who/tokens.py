"""Signed tokens (JWT): of this service for its keys and its page, and of an issuer of OpenID Connect."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
import urllib.request
from typing import Any, NamedTuple

import jwt

from workbench.errors import InputError
from workbench.serving.problems import UnauthorizedError, UnavailableRecordsError

LEAST_BYTES = 32  # of the secret
OWN = "rag-workbench"  # issuer of this service's tokens
PROGRAM, PAGE = "api", "page"  # audiences of them
TOKEN_SECONDS = 900
PAGE_SECONDS = 12 * 3600
ISSUERS_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
ISSUERS_SECONDS = 5.0  # for its answers
LEEWAY_SECONDS = 30  # by which its clock may differ


class Own(NamedTuple):
    """Whose token of this service it is.

    Attributes:
        user: number of the user.
        key: number of the key; None: they logged in to the page.
        way: digest of what they logged in with: where that changes, the log-in ends.
    """

    user: int
    key: int | None
    way: str = ""


class OwnTokens:
    """Tokens of this service. They end with the process where no secret is given to it."""

    def __init__(self) -> None:
        """Reads the secret.

        Raises:
            InputError: it is too short.
        """
        given = os.environ.get("WORKBENCH_JWT_KEY", "").encode()
        if given and len(given) < LEAST_BYTES:
            raise InputError(
                f"WORKBENCH_JWT_KEY has {len(given)} bytes; allowed: {LEAST_BYTES} or more, such as `openssl rand -hex 32` prints"
            )
        self._secret = given or secrets.token_bytes(LEAST_BYTES)

    def make(self, own: Own, audience: str, seconds: int) -> str:
        """A token that is valid from now on.

        Args:
            own: whose it is.
            audience: `PROGRAM` or `PAGE`: one is not valid in the place of the other.
            seconds: for which it is valid.
        """
        now = int(time.time())
        claims = {
            "iss": OWN,
            "aud": audience,
            "sub": str(own.user),
            "key": own.key,
            "way": own.way,
            "iat": now,
            "exp": now + seconds,
        }
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def read(self, token: str, audience: str) -> Own:
        """Whose token it is.

        Raises:
            UnauthorizedError: it is not of this service, for something else, or too old.
        """
        required = {"require": ["iss", "aud", "exp", "sub"]}
        try:
            claims = jwt.decode(token, self._secret, ["HS256"], audience=audience, issuer=OWN, options=required)  # type: ignore[arg-type]
            return Own(int(claims["sub"]), claims.get("key"), claims.get("way", ""))
        except (jwt.PyJWTError, ValueError) as error:
            raise UnauthorizedError(f"the token is not valid ({_plain(error)}); get another") from error


class Issuer:
    """Reads the tokens of an issuer of OpenID Connect, with the keys that it publishes; it waits for the network."""

    def __init__(self, address: str, audience: str) -> None:
        """Asks nothing yet.

        Args:
            address: of the issuer, as its tokens name it.
            audience: what its tokens for this service are for.
        """
        self.address, self.audience = address, audience
        self._keys: jwt.PyJWKClient | None = None
        self._one = threading.Lock()

    def read(self, token: str) -> dict[str, Any]:
        """The claims of a token; ``sub`` is among them.

        Raises:
            UnauthorizedError: it is not the issuer's, not for this service, too old, or not signed by one of its keys.
            UnavailableRecordsError: the issuer does not say what its keys are.
        """
        try:
            key = self._known().get_signing_key_from_jwt(token)
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                list(ISSUERS_ALGORITHMS),
                audience=self.audience,
                issuer=self.address,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "aud", "exp", "sub"]},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise UnavailableRecordsError(f"{self.address} does not say what its keys are; ask again", retry_after=5) from error
        except jwt.PyJWTError as error:
            raise UnauthorizedError(f"the token is not valid ({_plain(error)}); get another of {self.address}") from error
        return claims

    def _known(self) -> jwt.PyJWKClient:
        with self._one:
            if self._keys is None:
                self._keys = jwt.PyJWKClient(self._address_of_keys(), timeout=ISSUERS_SECONDS)
            return self._keys

    def _address_of_keys(self) -> str:
        where = f"{self.address.rstrip('/')}/.well-known/openid-configuration"
        try:
            with urllib.request.urlopen(where, timeout=ISSUERS_SECONDS) as response:
                said = json.load(response)
            if said["issuer"] != self.address:
                raise ValueError(f"it calls itself {said['issuer']!r}")
            return str(said["jwks_uri"])
        except (OSError, ValueError, KeyError) as error:
            raise UnavailableRecordsError(f"{where} does not say where the issuer's keys are ({error})", retry_after=5) from error


def _plain(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__
