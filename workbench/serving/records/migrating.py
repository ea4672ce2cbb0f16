"""The tables of a file of records: made where there are none, and brought up to date where an earlier version made them."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect

from workbench.errors import InputError
from workbench.serving.records.tables import VERSION, metadata

# from a version of the tables to the next one
STEPS: dict[int, tuple[str, ...]] = {
    1: (
        "DELETE FROM votes WHERE number NOT IN (SELECT max(number) FROM votes GROUP BY request)",
        "DROP INDEX votes_by_request",
        "CREATE UNIQUE INDEX votes_by_request ON votes (request)",
        "CREATE INDEX conversations_by_owner ON conversations (user, changed)",
    ),
}


def bring_up(connection: Connection, path: Path) -> None:
    """Gives a file the tables of this version; what is in them stays.

    Args:
        connection: of a transaction that writes: all of it is done, or nothing.
        path: of the file, for errors.

    Raises:
        InputError: the file is of a later version, or holds tables of something else.
    """
    found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if found > VERSION:
        raise InputError(
            f"{path} was written by a later version of the workbench (tables {found}, here {VERSION}); use that version, or name "
            f"another folder under cache.folder of the service's settings"
        )
    if found == 0:
        if tables := inspect(connection).get_table_names():
            raise InputError(
                f"{path} holds other tables than a service's records ({', '.join(sorted(tables)[:5])}); move the file away, or "
                f"name another folder under cache.folder of the service's settings"
            )
        metadata.create_all(connection)
    for version in range(found or VERSION, VERSION):
        for statement in STEPS[version]:
            connection.exec_driver_sql(statement)
    if found != VERSION:
        connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
