"""The ledger: the table of the steps that were applied, and which flavour they were applied for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_analytics.database.blocks import load
from asgi_analytics.database.flavour import FLAVOURS
from asgi_analytics.errors import MigrationError
from asgi_analytics.migrate.plan import Applied

if TYPE_CHECKING:
    from asgi_analytics.database.flavour import Flavour
    from asgi_analytics.migrate.files import MigrationFile

SQL = load("asgi_analytics.migrate", "ledger.sql")
REPLACED = frozenset({"001_pre_events_hypertable.sql", "002_pre_events_partitioned.sql"})
"""First steps of schemas that were made before the first release, when the steps were written anew."""


class UnreleasedSchema(MigrationError):
    """The schema was made by a version before the first release."""


def create_sql(flavour: Flavour) -> str:
    """Return the statements that make the table, with the note which flavour it is installed for."""
    return f"{SQL['create']};\n{SQL[f'mark_{flavour}']};"


async def read(connection: Any, schema: str) -> tuple[list[Applied], Flavour | None] | None:
    """Return the rows and the flavour of the installation, or None if the schema has no ledger.

    The flavour is None if it cannot be told from the comment. Raises `UnreleasedSchema`.
    """
    found = await connection.fetch(SQL["comment"], schema)
    if not found:
        return None
    rows = [Applied(**dict(row)) for row in await connection.fetch(SQL["rows"])]
    if any(row.name in REPLACED for row in rows):
        raise UnreleasedSchema(
            f"the schema {schema} was made by an unreleased asgi-analytics, whose steps have been replaced: run "
            "analytics-migrate pre with another --schema, copy analytics_events and analytics_dead_letters there by "
            "INSERT INTO … SELECT, run analytics-migrate post, and drop the old tables"
        )
    comment = found[0][0] or ""
    for flavour in FLAVOURS:
        if comment and comment in SQL[f"mark_{flavour}"]:
            return rows, flavour
    return rows, None


def flavour_of(rows: list[Applied], files: tuple[MigrationFile, ...]) -> Flavour | None:
    """Return the flavour that the applied steps are for, or None if all of them are for both."""
    by_name = {file.name: file for file in files}
    for row in rows:
        file = by_name.get(row.name)
        if file is not None and len(file.flavours) == 1:
            return file.flavours[0]
    return None


async def create(connection: Any, flavour: Flavour) -> None:
    """Make the table, in one transaction with the note which flavour it is installed for."""
    async with connection.transaction():
        await connection.execute(create_sql(flavour))


async def record(connection: Any, file: MigrationFile, duration_ms: float, library_version: str) -> None:
    """Note that a step was applied."""
    await connection.execute(
        SQL["record"], file.version, file.name, file.phase, file.checksum, duration_ms, library_version
    )


def record_sql(file: MigrationFile, library_version: str) -> str:
    """Return the statement of `record` with its values written out, for a dry run's script."""
    values = (file.version, f"'{file.name}'", f"'{file.phase}'", f"'{file.checksum}'", 0, f"'{library_version}'")
    sql = SQL["record"]
    for number, value in enumerate(values, 1):
        sql = sql.replace(f"${number}", str(value))
    return sql
