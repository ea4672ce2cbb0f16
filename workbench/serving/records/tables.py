"""The tables of a service's records. Times are seconds since 1970; texts are missing where the service keeps none."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

VERSION = 2  # of these tables; `migrating` brings those of an earlier one up to them

metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("issuer", Text, nullable=False),  # who vouches for them; empty: this service
    Column("subject", Text, nullable=False),  # what the issuer calls them
    Column("name", Text, nullable=False),
    Column("password_hash", Text),
    Column("created", Float, nullable=False),
    UniqueConstraint("issuer", "subject"),
    sqlite_autoincrement=True,  # the number of a person who is forgotten is given to nobody else
)

keys = Table(
    "api_keys",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("user", ForeignKey("users.id"), nullable=False),
    Column("prefix", Text, nullable=False, unique=True),  # the part of a key by which people name it
    Column("sha256", Text, nullable=False, unique=True),
    Column("per_minute", Integer),
    Column("tokens_per_day", Integer),
    Column("created", Float, nullable=False),
    Column("last_used", Float),
    Column("revoked", Float),
    sqlite_autoincrement=True,
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user", ForeignKey("users.id")),  # none: whoever reaches an open service
    Column("title", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("changed", Float, nullable=False),
    Index("conversations_by_owner", "user", "changed"),
)

answers = Table(
    "answers",
    metadata,
    Column("digest", Text, primary_key=True),  # of the body
    Column("identity", Text, nullable=False),  # of the pipeline that was served
    Column("body", LargeBinary, nullable=False),  # the answer part of a response
    Column("created", Float, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),  # of the request; a client may choose it, so it is no key
    Column("at", Float, nullable=False),
    Column("user", ForeignKey("users.id")),
    Column("key", ForeignKey("api_keys.id")),
    Column("conversation", ForeignKey("conversations.id")),
    Column("turn", Integer),  # of the conversation, from 1
    Column("question", Text),
    Column("asked", Text, nullable=False),  # digest of identity, question and history: the key of the cache
    Column("identity", Text, nullable=False),
    Column("run", Text, nullable=False),
    Column("configuration", Text, nullable=False),
    Column("answer", ForeignKey("answers.digest")),
    Column("status", Text, nullable=False),
    Column("served_by", Text),
    Column("http_status", Integer, nullable=False),
    Column("seconds_queue", Float),
    Column("seconds_retrieval", Float),
    Column("seconds_generation", Float),
    Column("seconds_total", Float, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("answer_tokens", Integer, nullable=False),
    Column("cost_micros", Integer, nullable=False),  # millionths of the currency
    Column("batch", Integer),
    Index("requests_by_owner", "user", "id"),
    Index("requests_by_conversation", "conversation", "turn"),
    Index("requests_by_time", "at"),
    Index("requests_by_asked", "asked"),
    Index("requests_by_answer", "answer"),
)

votes = Table(
    "votes",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("request", ForeignKey("requests.number"), nullable=False),
    Column("vote", Integer, nullable=False),  # -1 or 1
    Column("comment", Text),
    Column("correction", Text),
    Column("at", Float, nullable=False),
    Index("votes_by_request", "request", unique=True),  # another vote replaces the one before
)

spending = Table(
    "spending",
    metadata,
    Column("day", Text, primary_key=True),  # of UTC
    Column("user", Integer, primary_key=True),  # 0: nobody in particular
    Column("key", Integer, primary_key=True),  # 0: none
    Column("prompt_tokens", Integer, nullable=False),
    Column("answer_tokens", Integer, nullable=False),
    Column("cost_micros", Integer, nullable=False),
)

counts = Table(
    "counts",
    metadata,
    Column("day", Text, primary_key=True),
    Column("status", Text, primary_key=True),
    Column("requests", Integer, nullable=False),
)

# where the texts of a person went, so that they can be removed there; they outlive the requests
exports = Table(
    "exports",
    metadata,
    Column("path", Text, primary_key=True),
    Column("line", Text, primary_key=True),  # id of the question in the file
    Column("user", Integer, primary_key=True),  # 0: nobody in particular
)

# what a running service is to remove from its memory, since the person who asked it is forgotten
forgotten = Table(
    "forgotten",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("asked", Text, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_autoincrement=True,
)
