"""A writer and a reader for one test, and what the tests do with them."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any
from uuid import UUID

import asyncpg

from asgi_analytics.admin.roles import RolesReport, make_roles
from tests.kit.databases import Database

EVERY_ROLE = "SELECT rolname FROM pg_roles ORDER BY rolname"
RIGHTS = """
SELECT c.relname, coalesce(a.attname, '') AS attname, coalesce(c.relacl::text, '') AS rights,
       coalesce(a.attacl::text, '') AS of_column
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE (c.relacl IS NOT NULL OR a.attacl IS NOT NULL) AND c.relname LIKE 'analytics%' ORDER BY 1, 2
"""


class Roles:
    """A writer and a reader for this test only, and login roles that are members of them."""

    def __init__(self, database: Database, admin: asyncpg.Connection) -> None:
        self.database = database
        self.admin = admin
        self.writer, self.reader = f"writer_{database.name}", f"reader_{database.name}"
        self.made: list[str] = [self.writer, self.reader]

    async def make(self, **options: Any) -> RolesReport:
        return await make_roles(self.database.dsn, **{"writer": self.writer, "reader": self.reader, **options})

    async def login(self, name: str, *, member_of: str | None = None, **settings: str) -> str:
        """Make a login role, and return its URL."""
        role = f"{name}_{self.database.name}"
        self.made.append(role)
        await self.admin.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'pass'")
        if member_of is not None:
            await self.admin.execute(f'GRANT "{member_of}" TO "{role}"')
        return self.database.cluster.dsn(self.database.name, role, "pass")

    async def drop(self) -> None:
        known = {row["rolname"] for row in await self.admin.fetch(EVERY_ROLE)}
        for role in [role for role in self.made if role in known]:
            name = role.replace('"', '""')
            await self.admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
            await self.admin.execute(f'REASSIGN OWNED BY "{name}" TO CURRENT_USER; DROP OWNED BY "{name}"')
        for role in [role for role in self.made if role in known]:
            await self.admin.execute('DROP ROLE "{}"'.format(role.replace('"', '""')))


async def stored(connection: asyncpg.Connection, table: str = "analytics_events") -> list[UUID]:
    return [row["id"] for row in await connection.fetch(f"SELECT id FROM {table} ORDER BY id")]


async def refused(connection: asyncpg.Connection, statement: str) -> None:
    """Fail unless the server says that the right is missing."""
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK")
        return
    except asyncpg.PostgresError as error:
        raise AssertionError(f"{statement}: {type(error).__name__}: {error}") from error
    raise AssertionError(f"{statement}: it was done")


async def psql(database: Database, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as an operator would who got it from a dry run."""
    return await asyncio.to_thread(
        subprocess.run,
        [database.psql, "-X", "-v", "ON_ERROR_STOP=1", "-d", database.dsn],
        input=script,
        text=True,
        capture_output=True,
        check=False,
    )
