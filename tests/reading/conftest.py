"""A reader that has the rights of the reader role and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from asgi_analytics.admin.roles import make_roles
from asgi_analytics.reading import AnalyticsReader
from tests.kit.databases import Database


@pytest.fixture
async def reader_dsn(database: Database) -> AsyncIterator[str]:
    """Give the URL of a login role that is a member of the reader role and of nothing else."""
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
