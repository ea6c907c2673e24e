"""What the tests of the two roles share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.admin.roles import Roles
from tests.kit.databases import Database
from tests.reading.conftest import database as store  # noqa: F401  # a database of each kind, SQLite too


@pytest.fixture
async def roles(database: Database) -> AsyncIterator[Roles]:
    roles = Roles(database, await database.connect())
    yield roles
    await roles.drop()


@pytest.fixture
async def writer_dsn(roles: Roles) -> str:
    """Give the URL of a login role that is a member of the writer."""
    await roles.make()
    return await roles.login("application", member_of=roles.writer)


@pytest.fixture
async def reader_dsn(roles: Roles) -> str:
    """Give the URL of a login role that is a member of the reader."""
    await roles.make()
    return await roles.login("analyst", member_of=roles.reader)
