"""The tables of the records: made where there are none, and brought up to date by Alembic where an earlier version made them."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect

from workbench.errors import InputError
from workbench.serving.records.tables import VERSION, metadata

MIGRATIONS = Path(__file__).parent / "migrations"
TABLE = "alembic_version"  # Alembic's own, of one row


def bring_up(connection: Connection, name: str, elsewhere: str) -> None:
    """Gives records the tables of this version; what is in them stays.

    Args:
        connection: of a transaction that writes: all of it is done, or nothing.
        name: of the records, for errors.
        elsewhere: how to name other records, for errors.

    Raises:
        InputError: the records are of a later version, or the tables are of something else.
    """
    found = _version(connection)
    if found == VERSION:
        return
    if found > VERSION:
        raise InputError(
            f"{name} was written by a later version of the workbench (tables {found}, here {VERSION}); use that version, or "
            f"{elsewhere}"
        )
    if found == 0:
        if tables := inspect(connection).get_table_names():
            raise InputError(f"{name} holds other tables than a service's records ({', '.join(sorted(tables)[:5])}); {elsewhere}")
        metadata.create_all(connection)
    _migrate(connection, found or VERSION)
    if _is_file(connection):
        connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")


def _version(connection: Connection) -> int:
    """Of the tables; 0: there are none of a service's records."""
    if _is_file(connection):  # where versions before Alembic have it, and look for it
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if not inspect(connection).has_table(TABLE):
        return 0
    return int(connection.exec_driver_sql(f"SELECT version_num FROM {TABLE}").scalar() or 0)


def _is_file(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


def _migrate(connection: Connection, version: int) -> None:
    """Has Alembic note the version of the tables, and do what is missing.

    Args:
        connection: of a transaction that writes.
        version: of the tables as they are.
    """
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(MIGRATIONS))
    MigrationContext.configure(connection).stamp(script, str(version))
    steps = lambda revision, context: script._upgrade_revs("head", revision)  # noqa: E731 - as Alembic's own commands have it
    with EnvironmentContext(Config(), script, fn=steps) as environment:
        environment.configure(connection=connection)
        environment.run_migrations()
