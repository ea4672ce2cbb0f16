"""The records of a file, taken over into PostgreSQL."""

from __future__ import annotations

from sqlalchemy import Connection, Table, func, select, text

from workbench.errors import InputError
from workbench.serving.records.database import Database
from workbench.serving.records.postgres import Postgres
from workbench.serving.records.tables import metadata, writers

TOGETHER = 500  # rows in one statement


def copy(source: Database, target: Postgres) -> dict[str, int]:
    """Copies all records, in one transaction; nothing else writes to either meanwhile.

    Args:
        source: a file of SQLite.
        target: a database without records.

    Returns:
        Table -> how many rows it has.

    Raises:
        InputError: the database holds records already, or does not hold what the file does afterwards; nothing was copied.
    """
    tables = [table for table in metadata.sorted_tables if table is not writers]
    with source.writing() as old, target.writing() as new:
        if full := [table.name for table in tables if _rows(new, table)]:
            raise InputError(
                f"{target.name} holds records already ({', '.join(full)}); nothing was copied: name an empty database"
            )
        found = {table.name: _copied(old, new, table) for table in tables}
        for table in tables:
            _number_on(old, new, table)
    return found


def _copied(old: Connection, new: Connection, table: Table) -> int:
    """Copies a table; how many rows it has."""
    for rows in old.execute(select(table)).mappings().partitions(TOGETHER):
        new.execute(table.insert(), [dict(row) for row in rows])
    there, copied = _rows(old, table), _rows(new, table)
    if there != copied:
        raise InputError(f"{table.name}: {copied} of {there} rows were copied; nothing is kept of them")
    return there


def _number_on(old: Connection, new: Connection, table: Table) -> None:
    """Has the numbers of a table go on after those of the file, also after those that were removed there."""
    column = table.autoincrement_column
    if column is None:
        return
    last = old.execute(select(func.max(column))).scalar() or 0
    if table.dialect_options["sqlite"]["autoincrement"]:
        known = old.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = ?", (table.name,)).scalar()
        last = max(last, known or 0)
    if last:
        name = {"table": f'"{table.name}"', "column": column.name, "last": last}
        new.execute(text("SELECT setval(pg_get_serial_sequence(:table, :column), :last)"), name)


def _rows(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()
