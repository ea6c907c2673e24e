"""The ledger: the table of the steps that were applied, and what kind of database they were applied for."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from asgi_analytics.migrate.plan import Applied

if TYPE_CHECKING:
    from asgi_analytics.migrate.files import Flavour, MigrationFile

EXISTS = """
SELECT obj_description(c.oid, 'pg_class')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = 'analytics_migrations'
"""
ROWS = """
SELECT version, name, phase, checksum, applied_at, duration_ms, library_version
FROM analytics_migrations ORDER BY version
"""
RECORD = """
INSERT INTO analytics_migrations (version, name, phase, checksum, duration_ms, library_version)
VALUES ($1, $2, $3, $4, $5, $6)
"""
# The ledger's columns are public and full: the kind of installation stands in the table's comment, which dumps keep.
MARKS: dict[Flavour, str] = {
    "timescaledb": "COMMENT ON TABLE analytics_migrations IS 'Applied schema steps; installed for TimescaleDB'",
    "postgresql": "COMMENT ON TABLE analytics_migrations IS 'Applied schema steps; installed for plain PostgreSQL'",
}


def create_sql() -> str:
    """Return the SQL that makes the table."""
    return resources.files(__package__ or "asgi_analytics.migrate").joinpath("ledger.sql").read_text("utf-8")


async def read(connection: Any, schema: str) -> tuple[list[Applied], Flavour | None] | None:
    """Return the rows and the kind of installation, None when there is no ledger in the schema.

    The kind is None as well when it cannot be told: the comment is gone, and no row is of a file for one kind only.
    """
    found = await connection.fetch(EXISTS, schema)
    if not found:
        return None
    rows = [Applied(**dict(row)) for row in await connection.fetch(ROWS)]
    comment = found[0][0] or ""
    for flavour, mark in MARKS.items():
        if comment and comment in mark:
            return rows, flavour
    return rows, None


def flavour_of(rows: list[Applied], files: tuple[MigrationFile, ...]) -> Flavour | None:
    """Return the kind of database that the applied steps are for, None when all of them are for both."""
    by_name = {file.name: file for file in files}
    for row in rows:
        file = by_name.get(row.name)
        if file is not None and len(file.flavours) == 1:
            return file.flavours[0]
    return None


async def create(connection: Any, flavour: Flavour) -> None:
    """Make the table, in one transaction with the note what it is installed for."""
    async with connection.transaction():
        await connection.execute(create_sql())
        await connection.execute(MARKS[flavour])


async def record(connection: Any, file: MigrationFile, duration_ms: float, library_version: str) -> None:
    """Note that a step was applied."""
    await connection.execute(RECORD, file.version, file.name, file.phase, file.checksum, duration_ms, library_version)


def record_sql(file: MigrationFile, library_version: str) -> str:
    """Return the statement of `record` with its values written out, for a script that somebody else runs."""
    values = (file.version, f"'{file.name}'", f"'{file.phase}'", f"'{file.checksum}'", 0, f"'{library_version}'")
    sql = RECORD.strip()
    for number, value in enumerate(values, 1):
        sql = sql.replace(f"${number}", str(value))
    return sql
