"""Records that replicas on several machines share, in PostgreSQL. One transaction writes at a time, as in a file of SQLite."""

from __future__ import annotations

import os
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from workbench.errors import InputError, MissingExtraError
from workbench.serving.records.database import Database
from workbench.serving.records.migrating import bring_up
from workbench.serving.records.tables import metadata

VARIABLE = "WORKBENCH_DATABASE_URL"
DRIVER = "postgresql+psycopg"
FORM = f"{DRIVER}://USER:PASSWORD@HOST:PORT/DATABASE"
ELSEWHERE = f"name another database in {VARIABLE}"
LOCK = 7_261_032  # of whoever writes; a number among those of the database
CONNECT_SECONDS = 3
LOCK_MS, STATEMENT_MS, SILENT_MS = 2_000, 30_000, 5_000
CONNECTIONS = 8


class Postgres(Database):
    """The records of a service in PostgreSQL; several threads, processes and machines may use them."""

    is_shared = True

    def __init__(self, url: str) -> None:
        """Opens the records; the tables are made where there are none, and brought up to date.

        Args:
            url: address of the database, in the form of `FORM`.

        Raises:
            MissingExtraError: the driver is not installed.
            InputError: the address is none, the database cannot be used, holds other tables, or those of a later version.
        """
        address = _address(url)
        self.name = f"{address.host or 'localhost'}:{address.port or 5432}/{address.database or ''}"
        self._engine, self._writing = _engines(address)
        try:
            with self.writing() as connection:
                if (encoding := connection.execute(text("SHOW server_encoding")).scalar_one()) != "UTF8":
                    raise InputError(
                        f"the database {self.name} keeps texts in {encoding}, which cannot hold all of them; make one with "
                        f"createdb --encoding UTF8 --template template0, or {ELSEWHERE}"
                    )
                bring_up(connection, self.name, ELSEWHERE)
        except InputError:
            self.close()
            raise
        except DBAPIError as error:
            self.close()
            raise self.unusable(error) from error

    def checkpoint(self) -> bool:
        """Nothing is to be done: the server reuses the room of what was removed by itself."""
        return True

    def scrub(self) -> None:
        """Writes the tables anew, so that nothing of what was removed is left in their files. Its log keeps it for some time.

        Raises:
            InputError: somebody used a table all the time.
        """
        names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)
        try:
            with self._engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.execute(text("SET statement_timeout = 0"))
                connection.execute(text(f"VACUUM (FULL, ANALYZE) {names}"))
                connection.execute(text(f"SET statement_timeout = {STATEMENT_MS}"))
        except DBAPIError as error:
            raise InputError(
                f"what was removed from {self.name} may still be readable in the files of its tables ({error.orig}); run the "
                f"command again when the service is idle"
            ) from error

    def _way_out(self, error: DBAPIError) -> str:
        return f"see that the server runs and lets this user in, or {ELSEWHERE}"


def from_environment() -> Postgres | None:
    """The records that the environment names; None: it names none.

    Raises:
        MissingExtraError: the driver is not installed.
        InputError: they cannot be used.
    """
    url = os.environ.get("WORKBENCH_DATABASE_URL")
    return Postgres(url) if url else None


def _address(url: str) -> sqlalchemy.URL:
    try:
        found = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError) as error:
        raise InputError(f"{VARIABLE} is no address of a database; allowed: {FORM}") from error  # it may hold a password
    if found.drivername not in (DRIVER, "postgresql"):
        raise InputError(f"{VARIABLE}: received an address that begins with {found.drivername}://; allowed: {FORM}")
    if "@" in (found.host or ""):
        raise InputError(f"{VARIABLE}: user or password have an @, which is written %40 in an address; allowed: {FORM}")
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("psycopg", "scale", VARIABLE) from error
    return found.set(drivername=DRIVER)


def _engines(address: sqlalchemy.URL) -> tuple[Engine, Engine]:
    """One that reads, each connection one state of the records, and one that writes, one transaction after another."""
    times = {"lock_timeout": LOCK_MS, "statement_timeout": STATEMENT_MS, "idle_in_transaction_session_timeout": STATEMENT_MS}
    engine = sqlalchemy.create_engine(
        address,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": SILENT_MS,
            "options": " ".join(f"-c {name}={value}" for name, value in times.items()),
            "client_encoding": "utf8",
        },
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=True,  # those that a restart of the server ended are made anew
        hide_parameters=True,  # errors are logged, and parameters are texts of people
    )

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        options: dict[str, Any] = connection.get_execution_options()
        if options.get("writes"):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")

    return engine.execution_options(isolation_level="REPEATABLE READ"), engine.execution_options(writes=True)
