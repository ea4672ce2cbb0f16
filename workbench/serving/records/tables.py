"""The tables of a service's records. Times are seconds since 1970; texts are missing where the service keeps none."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

VERSION = 3  # of these tables; `migrating` brings those of an earlier one up to them


class Words(TypeDecorator[str]):
    """Any text. PostgreSQL takes no character 0, which therefore stands there as two others."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if value is None or dialect.name == "sqlite":
            return value
        return value.replace("\x1a", "\x1a1").replace("\x00", "\x1a0")

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        if value is None or dialect.name == "sqlite":
            return value
        return value.replace("\x1a0", "\x00").replace("\x1a1", "\x1a")


Whole = BigInteger().with_variant(Integer(), "sqlite")  # SQLite's numbers are of 64 bits by any name

metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("id", Whole, primary_key=True, autoincrement=True),
    Column("issuer", Words, nullable=False),  # who vouches for them; empty: this service
    Column("subject", Words, nullable=False),  # what the issuer calls them
    Column("name", Words, nullable=False),
    Column("password_hash", Words),
    Column("created", Float, nullable=False),
    UniqueConstraint("issuer", "subject"),
    sqlite_autoincrement=True,  # the number of a person who is forgotten is given to nobody else
)

keys = Table(
    "api_keys",
    metadata,
    Column("id", Whole, primary_key=True, autoincrement=True),
    Column("user", ForeignKey("users.id"), nullable=False),
    Column("prefix", Words, nullable=False, unique=True),  # the part of a key by which people name it
    Column("sha256", Words, nullable=False, unique=True),
    Column("per_minute", Whole),
    Column("tokens_per_day", Whole),
    Column("created", Float, nullable=False),
    Column("last_used", Float),
    Column("revoked", Float),
    sqlite_autoincrement=True,
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Words, primary_key=True),
    Column("user", ForeignKey("users.id")),  # none: whoever reaches an open service
    Column("title", Words, nullable=False),
    Column("created", Float, nullable=False),
    Column("changed", Float, nullable=False),
    Index("conversations_by_owner", "user", "changed"),
)

answers = Table(
    "answers",
    metadata,
    Column("digest", Words, primary_key=True),  # of the body
    Column("identity", Words, nullable=False),  # of the pipeline that was served
    Column("body", LargeBinary, nullable=False),  # the answer part of a response
    Column("created", Float, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("number", Whole, primary_key=True, autoincrement=True),
    Column("id", Words, nullable=False),  # of the request; a client may choose it, so it is no key
    Column("at", Float, nullable=False),
    Column("user", ForeignKey("users.id")),
    Column("key", ForeignKey("api_keys.id")),
    Column("conversation", ForeignKey("conversations.id")),
    Column("turn", Whole),  # of the conversation, from 1
    Column("question", Words),
    Column("asked", Words, nullable=False),  # digest of identity, question and history: the key of the cache
    Column("identity", Words, nullable=False),
    Column("run", Words, nullable=False),
    Column("configuration", Words, nullable=False),
    Column("answer", ForeignKey("answers.digest")),
    Column("status", Words, nullable=False),
    Column("served_by", Words),
    Column("http_status", Whole, nullable=False),
    Column("seconds_queue", Float),
    Column("seconds_retrieval", Float),
    Column("seconds_generation", Float),
    Column("seconds_total", Float, nullable=False),
    Column("prompt_tokens", Whole, nullable=False),
    Column("answer_tokens", Whole, nullable=False),
    Column("cost_micros", Whole, nullable=False),  # millionths of the currency
    Column("batch", Whole),
    Index("requests_by_owner", "user", "id"),
    Index("requests_by_conversation", "conversation", "turn"),
    Index("requests_by_time", "at"),
    Index("requests_by_asked", "asked"),
    Index("requests_by_answer", "answer"),
)

votes = Table(
    "votes",
    metadata,
    Column("number", Whole, primary_key=True, autoincrement=True),
    Column("request", ForeignKey("requests.number"), nullable=False),
    Column("vote", Whole, nullable=False),  # -1 or 1
    Column("comment", Words),
    Column("correction", Words),
    Column("at", Float, nullable=False),
    Index("votes_by_request", "request", unique=True),  # another vote replaces the one before
)

spending = Table(
    "spending",
    metadata,
    Column("day", Words, primary_key=True),  # of UTC
    Column("user", Whole, primary_key=True),  # 0: nobody in particular
    Column("key", Whole, primary_key=True),  # 0: none
    Column("prompt_tokens", Whole, nullable=False),
    Column("answer_tokens", Whole, nullable=False),
    Column("cost_micros", Whole, nullable=False),
)

counts = Table(
    "counts",
    metadata,
    Column("day", Words, primary_key=True),
    Column("status", Words, primary_key=True),
    Column("requests", Whole, nullable=False),
)

# where the texts of a person went, so that they can be removed there; they outlive the requests
exports = Table(
    "exports",
    metadata,
    Column("path", Words, primary_key=True),
    Column("line", Words, primary_key=True),  # id of the question in the file
    Column("user", Whole, primary_key=True),  # 0: nobody in particular
)

# what a running service is to remove from its memory, since the person who asked it is forgotten
forgotten = Table(
    "forgotten",
    metadata,
    Column("number", Whole, primary_key=True, autoincrement=True),
    Column("asked", Words, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_autoincrement=True,
)

# the last transaction of each process that writes, so that it knows after a lost connection whether it is there
writers = Table(
    "writers",
    metadata,
    Column("name", Words, primary_key=True),
    Column("batch", Whole, nullable=False),
    Column("at", Float, nullable=False),
)
