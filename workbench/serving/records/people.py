"""Users of a service and their keys. Of a key only its digest is kept: it is shown once, when it is made."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy
from sqlalchemy import Connection, or_, select

from workbench.errors import InputError
from workbench.serving.records.tables import keys, users

KEY_START = "wb_"  # of every key, so that one is recognised where it should not be
PREFIX_LETTERS = 8
LONGEST_NAME = 200


class User(NamedTuple):
    """A user: number, who vouches for them (empty: this service), how they are called there, their name, and when they came."""

    id: int
    issuer: str
    subject: str
    name: str
    created: float
    has_password: bool


class Key(NamedTuple):
    """A key: its number, its user's, the name of that user, its beginning, its limits, and when it was made, used and revoked."""

    id: int
    user: int
    name: str
    prefix: str
    per_minute: int | None
    tokens_per_day: int | None
    created: float
    last_used: float | None
    revoked: float | None


def add_user(connection: Connection, name: str, password_hash: str | None = None, issuer: str = "", subject: str = "") -> int:
    """Adds a user and gives its number.

    Args:
        connection: of a transaction that writes.
        name: of this service's users the one by which they log in.
        password_hash: for the log-in of the page; None: there is none.
        issuer: who vouches for them; empty: this service.
        subject: what the issuer calls them; empty: as `name`.

    Raises:
        InputError: the name is taken, empty, too long, or holds characters that cannot be seen.
    """
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise InputError(
            f"the name {name[:LONGEST_NAME]!r} is no name: allowed are 1 to {LONGEST_NAME} characters that can be seen"
        )
    if not issuer and find_user(connection, name):
        raise InputError(f"there is a user {name!r} already; `workbench users list` shows all")
    values = {"issuer": issuer, "subject": subject or name, "name": name, "password_hash": password_hash, "created": time.time()}
    (number,) = connection.execute(users.insert().values(values)).inserted_primary_key or (0,)
    return int(number)


def find_user(connection: Connection, name: str, issuer: str = "") -> User | None:
    """The user whom this service, or another issuer, calls so."""
    return _user(connection, users.c.issuer == issuer, users.c.subject == name)


def named(connection: Connection, name: str) -> User:
    """The user of a name, or of ISSUER SUBJECT where another issuer vouches for them.

    Raises:
        InputError: there is none.
    """
    issuer, _, subject = name.partition(" ")  # the address of an issuer holds no space, but what it calls people may
    found = find_user(connection, name) or (find_user(connection, subject, issuer) if issuer else None)
    if found is None:
        raise InputError(f"there is no user {name!r}; `workbench users list` shows all, `workbench users add NAME` adds one")
    return found


def password_hash(connection: Connection, name: str) -> tuple[int, str] | None:
    """Number and hash of the password of one of this service's users; None where there is none."""
    wanted = select(users.c.id, users.c.password_hash).where(users.c.issuer == "", users.c.subject == name)
    found = connection.execute(wanted).first()
    return (found.id, found.password_hash) if found and found.password_hash else None


def set_password(connection: Connection, user: User, password_hash: str) -> None:
    """Gives a user another password; log-ins with the one before end.

    Args:
        connection: of a transaction that writes.
        user: one of this service's.
        password_hash: of the password.

    Raises:
        InputError: another issuer vouches for the user.
    """
    if user.issuer:
        raise InputError(f"{user.name} logs in at {user.issuer}; the password is changed there")
    connection.execute(users.update().where(users.c.id == user.id).values(password_hash=password_hash))


def way_in(connection: Connection, number: int) -> str | None:
    """What a log-in of a user rests on: the hash of the password, or the issuer; None: there is no such user, or no such way."""
    found = connection.execute(select(users.c.password_hash, users.c.issuer).where(users.c.id == number)).first()
    return (found.password_hash or found.issuer or None) if found else None


def list_users(connection: Connection) -> list[User]:
    """All users in the order in which they came."""
    return _users(connection)


def _user(connection: Connection, *conditions: sqlalchemy.ColumnElement[bool]) -> User | None:
    found = _users(connection, *conditions)
    return found[0] if found else None


def _users(connection: Connection, *conditions: sqlalchemy.ColumnElement[bool]) -> list[User]:
    wanted = select(users).where(*conditions).order_by(users.c.id)
    return [
        User(row.id, row.issuer, row.subject, row.name, row.created, row.password_hash is not None)
        for row in connection.execute(wanted)
    ]


def add_key(connection: Connection, user: int, per_minute: int | None = None, tokens_per_day: int | None = None) -> str:
    """Makes a key and gives it; it cannot be shown a second time.

    Args:
        connection: of a transaction that writes.
        user: number of the user whose it is.
        per_minute: questions in a minute; None: as the service's settings say.
        tokens_per_day: of prompts and answers in a day of UTC; None: as the service's settings say.
    """
    prefix = secrets.token_hex(PREFIX_LETTERS // 2)
    key = f"{KEY_START}{prefix}_{secrets.token_urlsafe(32)}"
    values = {"user": user, "prefix": prefix, "sha256": digest(key), "created": time.time()}
    connection.execute(keys.insert().values(values | {"per_minute": per_minute, "tokens_per_day": tokens_per_day}))
    return key


def digest(key: str) -> str:
    """What is kept of a key. Its 256 bits are random, so one round of SHA-256 is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_of(connection: Connection, key: str) -> Key | None:
    """The key that is valid and written so."""
    return _key(connection, keys.c.sha256 == digest(key), keys.c.revoked.is_(None))


def key_numbered(connection: Connection, number: int) -> Key | None:
    """The key with a number, if it is valid."""
    return _key(connection, keys.c.id == number, keys.c.revoked.is_(None))


def list_keys(connection: Connection, user: int | None = None) -> list[Key]:
    """All keys, or those of a user, in the order in which they were made."""
    return _keys(connection, *([] if user is None else [keys.c.user == user]))


def revoke(connection: Connection, prefix: str) -> Key:
    """Makes a key invalid for ever.

    Args:
        connection: of a transaction that writes.
        prefix: the part of the key that `workbench keys list` shows; the whole key will do.

    Raises:
        InputError: there is no such key.
    """
    wanted = prefix.removeprefix(KEY_START)[:PREFIX_LETTERS]
    found = _key(connection, keys.c.prefix == wanted)
    if found is None:
        raise InputError(f"there is no key that begins with {KEY_START}{wanted}; `workbench keys list` shows all")
    connection.execute(keys.update().where(keys.c.id == found.id, keys.c.revoked.is_(None)).values(revoked=time.time()))
    return found


def anybody_may_come(connection: Connection) -> bool:
    """Whether there is a valid key, or a user with a password."""
    with_key = select(keys.c.id).where(keys.c.revoked.is_(None)).limit(1)
    with_password = select(users.c.id).where(users.c.password_hash.is_not(None)).limit(1)
    return bool(connection.execute(with_key).first() or connection.execute(with_password).first())


def last_used(connection: Connection, used: Sequence[tuple[int, float]]) -> None:
    """Notes when keys were used: pairs of number and seconds since 1970."""
    for number, at in used:
        newer = or_(keys.c.last_used.is_(None), keys.c.last_used < at)
        connection.execute(keys.update().where(keys.c.id == number, newer).values(last_used=at))


def _key(connection: Connection, *conditions: sqlalchemy.ColumnElement[bool]) -> Key | None:
    found = _keys(connection, *conditions)
    return found[0] if found else None


def _keys(connection: Connection, *conditions: sqlalchemy.ColumnElement[bool]) -> list[Key]:
    columns = [keys.c.id, keys.c.user, users.c.name, keys.c.prefix, keys.c.per_minute, keys.c.tokens_per_day]
    columns += [keys.c.created, keys.c.last_used, keys.c.revoked]
    wanted = select(*columns).join(users, users.c.id == keys.c.user).where(*conditions).order_by(keys.c.id)
    return [Key(*row) for row in connection.execute(wanted)]
