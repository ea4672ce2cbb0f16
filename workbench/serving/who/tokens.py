"""Signed tokens (JWT) of this service: for its keys, and for its page."""

from __future__ import annotations

import os
import secrets
import time
from typing import Any, NamedTuple

import jwt

from workbench.errors import InputError
from workbench.serving.problems import UnauthorizedError

LEAST_BYTES = 32  # of the secret
OWN = "rag-workbench"  # issuer of this service's tokens
PROGRAM, PAGE, SIGN_IN = "api", "page", "sign-in"  # audiences of them
TOKEN_SECONDS = 900
PAGE_SECONDS = 12 * 3600
SIGN_IN_SECONDS = 600  # between leaving for the issuer and coming back


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
        return self.signed({"sub": str(own.user), "key": own.key, "way": own.way}, audience, seconds)

    def read(self, token: str, audience: str) -> Own:
        """Whose token it is.

        Raises:
            UnauthorizedError: it is not of this service, for something else, or too old.
        """
        claims = self.claims(token, audience)
        try:
            return Own(int(claims["sub"]), claims["key"], claims["way"])
        except (KeyError, ValueError) as error:
            raise UnauthorizedError("the token is of an earlier version; get another") from error

    def signed(self, values: dict[str, Any], audience: str, seconds: int) -> str:
        """Values that only this service can have written.

        Args:
            values: whatever JSON can hold.
            audience: what they are for.
            seconds: for which they are valid.
        """
        now = int(time.time())
        claims = values | {"iss": OWN, "aud": audience, "iat": now, "exp": now + seconds}
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def claims(self, token: str, audience: str) -> dict[str, Any]:
        """The values of `signed`.

        Raises:
            UnauthorizedError: they are not of this service, for something else, or too old.
        """
        required = {"require": ["iss", "aud", "exp"]}
        try:
            found: dict[str, Any] = jwt.decode(token, self._secret, ["HS256"], audience=audience, issuer=OWN, options=required)  # type: ignore[arg-type]
        except jwt.PyJWTError as error:
            raise UnauthorizedError(f"the token is not valid ({plain(error)}); get another") from error
        return found


def plain(error: Exception) -> str:
    """What is wrong with a token, for people."""
    return str(error)[:200] or type(error).__name__
