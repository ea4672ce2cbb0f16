"""The file of a service's records: SQLite by way of SQLAlchemy's Core. `postgres` has those that several machines share.

Every transaction that writes begins with BEGIN IMMEDIATE: one that begins by reading fails at once where another process writes.
What is committed is on the disk, and what is removed is overwritten.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from workbench.errors import InputError
from workbench.serving.records.migrating import bring_up

FILE = "records.sqlite"
WAIT_SECONDS = 2.0  # for a file that another process holds
ELSEWHERE = "name another folder under cache.folder of the service's settings"


class Database:
    """The records of a service; several threads and processes may use them.

    Attributes:
        name: of the records, for people.
        is_shared: whether replicas on several machines use them.
    """

    is_shared = False

    def __init__(self, path: Path, wait_seconds: float = WAIT_SECONDS) -> None:
        """Opens the records; the file and its tables are made where there are none, and brought up to date.

        Args:
            path: of the file; its folder is made.
            wait_seconds: for a file that another process holds.

        Raises:
            InputError: the file cannot be used, is no database, holds other tables, or was made by a later version.
        """
        self.path, self.name = path, str(path)
        self._engine: Engine = _engine(path, wait_seconds)
        self._writing: Engine = self._engine.execution_options(immediate=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600, exist_ok=True)  # nobody else's business
            with self.writing() as connection:
                bring_up(connection, self.name, ELSEWHERE)
        except InputError:
            self.close()
            raise
        except OSError as error:
            raise InputError(f"the records of the service, {path}, cannot be used ({error.strerror}); {ELSEWHERE}") from error
        except DBAPIError as error:
            self.close()
            raise self.unusable(error) from error

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection whose changes are all there at the end, or none of them.

        Raises:
            DBAPIError: the file is locked, full or damaged; nothing is changed.
        """
        with self._writing.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the records."""
        with self._engine.connect() as connection:
            yield connection

    def checkpoint(self) -> bool:
        """Empties the log into the file: only then what was removed is overwritten there.

        Returns:
            Whether it was done; False: others use the file all the time.
        """
        connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
        try:
            (busy, *_), *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error:
            return False
        finally:
            connection.close()
        return not busy

    def scrub(self) -> None:
        """Leaves nothing of what was removed in the file.

        Raises:
            InputError: another process uses it.
        """
        scrub(self.path)

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def unusable(self, error: DBAPIError) -> InputError:
        """What is said of records that cannot be used, with the way out."""
        reason = " ".join(str(error.orig).split())  # of a server it has several lines
        return InputError(f"the records of the service, {self.name}, cannot be used ({reason}); {self._way_out(error)}")

    def _way_out(self, error: DBAPIError) -> str:
        """What helps against a file that cannot be used."""
        if "locked" in str(error.orig):
            return "another process holds it: run the command again, or see which with `fuser`"
        if "full" in str(error.orig):
            return "make room on its disk"
        return f"move the file away, or {ELSEWHERE}"


def _engine(path: Path, wait_seconds: float) -> Engine:
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": wait_seconds, "isolation_level": None, "check_same_thread": False},
        hide_parameters=True,  # errors are logged, and parameters are texts of people
    )

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, record: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "foreign_keys=ON", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("immediate") else "BEGIN")

    return engine


def scrub(path: Path, wait_seconds: float = 10.0) -> None:
    """Writes a file of SQLite anew and empties its log, so that nothing that was removed is left in either.

    Args:
        path: of the file; nothing happens where there is none.
        wait_seconds: for other processes that use it.

    Raises:
        InputError: another process used it all the time; what was removed may still be readable.
    """
    if not path.is_file():
        return
    connection = sqlite3.connect(path, timeout=wait_seconds, isolation_level=None)
    try:
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("VACUUM")
        (busy, *_), *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if busy:
            raise sqlite3.OperationalError("another process reads it")
    except sqlite3.Error as error:
        raise InputError(
            f"what was removed from {path} may still be readable in it ({error}); run the command again when the service is idle"
        ) from error
    finally:
        connection.close()
