"""One thread writes the records: all that waits in one transaction, so that many small changes cost one write to the disk.

Each transaction notes its number. Where the database is lost at its end, the number tells later whether it was committed, so
nothing is written twice.

Changes that somebody waits for are acknowledged after the commit. Changes that nobody waits for are written when the file can be
written again; their number is bounded, and what finds no room is counted.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from workbench.serving.problems import UnavailableRecordsError
from workbench.serving.records.database import Database
from workbench.serving.records.tables import writers

MOST_WAITING = 10_000  # changes that nobody waits for
MOST_TOGETHER = 500  # changes in a transaction
PATIENCE_SECONDS = 5.0  # for a change that somebody waits for
GATHER_SECONDS = 0.25  # for which changes that nobody waits for wait for more of them
REST_SECONDS = 0.2  # between attempts on a file that cannot be written

log = logging.getLogger(__name__)
T = TypeVar("T")


class Change(NamedTuple, Generic[T]):
    """What is to be written, who waits for it (None: nobody), and until when, by `time.monotonic`."""

    act: Callable[[Connection], T]
    done: Future[T] | None
    until: float


class Writer:
    """Writes changes in their order. It may be used by any thread.

    Attributes:
        dropped: changes that found no room since the beginning.
    """

    def __init__(self, database: Database) -> None:
        self.database, self.dropped = database, 0
        self._changes: deque[Change[Any]] = deque()
        self._name, self._batch = secrets.token_hex(16), 0
        self._some = threading.Condition()
        self._stopped, self._until = False, float("inf")
        self._thread = threading.Thread(target=self._work, name="records", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Changes that are not on the disk yet."""
        return len(self._changes)

    def write(self, act: Callable[[Connection], T]) -> Future[T]:
        """Queues a change that somebody waits for.

        Args:
            act: makes the change; what it returns is the future's result once it is committed.

        Returns:
            A future; its error is `UnavailableRecordsError` where the records cannot be written, and nothing is changed then.
        """
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()  # whoever waits may leave; what was asked for is written all the same
        with self._some:
            if self._stopped:
                done.set_exception(UnavailableRecordsError("the service stops; ask again when it is back", retry_after=5))
                return done
            self._changes.append(Change(act, done, time.monotonic() + PATIENCE_SECONDS))
            self._some.notify()
        return done

    def note(self, act: Callable[[Connection], Any]) -> bool:
        """Queues a change that nobody waits for; False: there is no room for it."""
        with self._some:
            if self._stopped or len(self._changes) >= MOST_WAITING:
                self.dropped += 1
                if self.dropped & (self.dropped - 1) == 0:  # 1, 2, 4, 8, ...
                    log.error("%d records found no room, since %s cannot be written", self.dropped, self.database.name)
                return False
            self._changes.append(Change(act, None, float("inf")))
            if len(self._changes) == 1:  # the thread is awake already where there are more
                self._some.notify()
        return True

    def stop(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Writes what waits, as long as there is time, and ends the thread."""
        with self._some:
            self._stopped, self._until = True, time.monotonic() + seconds
            self._some.notify()
        self._thread.join(seconds + 1)
        if self._changes:
            log.error("%d records were not written: %s cannot be", len(self._changes), self.database.name)

    def _work(self) -> None:
        while True:
            with self._some:
                while not self._changes and not self._stopped:
                    self._some.wait()
                if not self._changes:
                    return
                self._gather()
                taken = [self._changes.popleft() for _ in range(min(len(self._changes), MOST_TOGETHER))]
            if left := self._written(taken):
                with self._some:
                    self._changes.extendleft(reversed(left))
                if time.monotonic() > self._until:
                    return
                time.sleep(REST_SECONDS)

    def _gather(self) -> None:
        """Waits for company, unless somebody waits for what is there."""
        until = time.monotonic() + GATHER_SECONDS
        while not self._stopped and not any(change.done for change in self._changes):
            if (left := until - time.monotonic()) <= 0:
                return
            self._some.wait(left)

    def _written(self, changes: list[Change[Any]]) -> list[Change[Any]]:
        """Writes changes; gives back those that are to be tried again."""
        results: list[tuple[Any, BaseException | None]] = []
        self._batch += 1
        made = False
        try:
            with self.database.writing() as connection:
                for change in changes:
                    results.append(_made(connection, change))
                self._mark(connection)
                made = True
        except Exception as error:
            log.warning("%d records cannot be written for now: %s", len(changes), _reason(error))
            if not made or not self._committed(changes):
                return _kept_waiting(changes, error)
        for change, (result, failed) in zip(changes, results, strict=True):
            if change.done is None:
                if failed:
                    log.error("a record was refused: %s", _reason(failed))
            elif change.done.done():
                continue  # they were told that it is not known
            elif failed:
                change.done.set_exception(failed)
            else:
                change.done.set_result(result)
        return []

    def _mark(self, connection: Connection) -> None:
        """Notes the number of the transaction."""
        values = {"batch": self._batch, "at": time.time()}
        if not connection.execute(writers.update().where(writers.c.name == self._name).values(values)).rowcount:
            connection.execute(writers.insert().values(values | {"name": self._name}))

    def _committed(self, changes: list[Change[Any]]) -> bool:
        """Whether the transaction whose end was not heard of is there, asked until the database says so.

        Args:
            changes: of the transaction; whoever waits for one longer than they wanted to is told that it is not known.
        """
        while True:
            try:
                with self.database.reading() as connection:
                    last = connection.execute(select(writers.c.batch).where(writers.c.name == self._name)).scalar()
            except SQLAlchemyError:
                _give_up(changes)
                self._refuse_overdue()
                if time.monotonic() > self._until:
                    return False
                time.sleep(REST_SECONDS)
            else:
                return last == self._batch

    def _refuse_overdue(self) -> None:
        """Tells whoever came meanwhile, and has waited as long as they wanted to, that nothing was written."""
        with self._some:
            left = _kept_waiting(list(self._changes))
            self._changes.clear()
            self._changes.extend(left)


def _made(connection: Connection, change: Change[Any]) -> tuple[Any, BaseException | None]:
    """A change's result or its error; one that fails leaves no trace, and costs the others nothing."""
    point = connection.begin_nested()
    try:
        result = change.act(connection)
    except OperationalError:
        raise  # locked or full: a matter of the file, not of the change, and of all that is in the transaction
    except Exception as error:
        point.rollback()
        return None, error
    point.commit()
    return result, None


def _kept_waiting(changes: list[Change[Any]], error: Exception | None = None) -> list[Change[Any]]:
    """Those that can wait; the others are told that nothing was written."""
    # of a file, why; what a server says may name its users, or what was to be written
    why = f" ({error.orig})" if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error) else ""
    left = []
    for change in changes:
        if change.done and change.done.done():
            continue
        if change.done is None or time.monotonic() < change.until:
            left.append(change)
        else:
            change.done.set_exception(
                UnavailableRecordsError(f"nothing was written: the records cannot be written now{why}", retry_after=5)
            )
    return left


def _give_up(changes: list[Change[Any]]) -> None:
    """Tells whoever waits too long that it is not known whether it was written."""
    for change in changes:
        if change.done and not change.done.done() and time.monotonic() >= change.until:
            change.done.set_exception(
                UnavailableRecordsError(
                    "the records were lost while it was written, and may hold it; send it again", retry_after=5
                )
            )


def _reason(error: BaseException) -> str:
    """What went wrong, for the log, without what was to be written."""
    if isinstance(error, DBAPIError):
        told = getattr(getattr(error.orig, "diag", None), "message_primary", None)  # of PostgreSQL; the rest names values
        return told or str(error.orig)
    return type(error).__name__
