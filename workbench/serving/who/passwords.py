"""Passwords of the page's log-in, as argon2id hashes."""

from __future__ import annotations

import secrets
import threading
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from workbench.errors import InputError

LEAST, MOST = 10, 500  # characters of a password
AT_ONCE = 2  # hashes that are computed: each takes 64 MiB and a core

_hasher = PasswordHasher()
_room = threading.BoundedSemaphore(AT_ONCE)


def hashed(password: str) -> str:
    """What is kept of a password.

    Raises:
        InputError: it is too short or too long.
    """
    if not LEAST <= len(password) <= MOST:
        raise InputError(f"the password has {len(password)} characters; allowed: {LEAST} to {MOST}")
    with _room:
        return _hasher.hash(password)


@cache
def nobodys() -> str:
    """The hash of nobody's password: an unknown name is to take as long as a wrong password."""
    return hashed(secrets.token_hex(LEAST))


def fits(password: str, kept: str) -> bool:
    """Whether a password is the one of which a hash is kept."""
    if len(password) > MOST:
        return False
    with _room:
        try:
            return _hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False
