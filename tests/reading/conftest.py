"""Databases of every kind, and a reader that has the rights of the reader role and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asgi_analytics.admin.roles import make_roles
from asgi_analytics.reading import AnalyticsReader
from tests.conftest import SERVERS
from tests.kit.databases import Database
from tests.kit.servers import Servers
from tests.kit.sqlite import SqliteDatabase


@pytest.fixture(params=[*SERVERS.available, "sqlite"])
async def database(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> AsyncIterator[Any]:
    """Give a migrated database of this test's own, once for each kind there is."""
    if request.param == "sqlite":
        file = SqliteDatabase(tmp_path / "analytics.db")
        await file.migrate()
        yield file
        await file.close()
        return
    server = servers.shared(request.param)
    database = Database(server, server.create(template=server.template()))
    yield database
    await database.close()
    server.drop(database.name)


@pytest.fixture
async def reader_dsn(database: Any) -> AsyncIterator[str]:
    """Give the URL of a login role that is a member of the reader role and of nothing else, or that of a file."""
    if isinstance(database, SqliteDatabase):
        yield database.dsn
        return
    admin = await database.connect()
    names = {kind: f"{kind}_{database.name}" for kind in ("reader", "writer", "login")}
    await make_roles(database.dsn, reader=names["reader"], writer=names["writer"])
    await admin.execute(f"CREATE ROLE \"{names['login']}\" LOGIN PASSWORD 'pass'")
    await admin.execute(f'GRANT "{names["reader"]}" TO "{names["login"]}"')
    yield database.cluster.dsn(database.name, names["login"], "pass")
    for name in names.values():
        await admin.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')


@pytest.fixture
async def reader(reader_dsn: str) -> AsyncIterator[AnalyticsReader]:
    """Give an open reader of this test's database."""
    async with AnalyticsReader.from_url(reader_dsn, statement_timeout=30) as reader:
        yield reader
