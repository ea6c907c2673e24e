"""Each table says in its migration where it holds a person, or that it holds none."""

from __future__ import annotations

import asyncpg
import pytest

from asgi_analytics.admin.subjects.work import find_tables
from tests.kit.databases import Database

NAMES_A_PERSON = ("user_id", "session_id", "visitor", "who", "user_key", "payload")
"""Columns of these names hold a person, whatever a migration says."""


async def silent(connection: asyncpg.Connection) -> list[str]:
    """Return the tables that do not say whether they hold a person, or say both."""
    return [table.name for table in await find_tables(connection) if table.says_none == bool(table.forms)]


async def test_each_table_says_where_it_holds_a_person(database: Database) -> None:
    connection = await database.connect()
    assert await silent(connection) == [], (
        "say it in the migration that makes the table: SELECT analytics_holds_person('analytics_…', 'user', 'user_id') "
        "or analytics_holds_person('analytics_…', 'none'), or with COMMENT ON, in a last line 'person: …'"
    )
    for table in await find_tables(connection):
        said = {column for column in table.columns if column in NAMES_A_PERSON}
        if table.name != "analytics_midnight_visitors":  # hashes that nothing ties to a user
            assert said <= set(table.forms), table.name


async def test_a_new_table_that_says_nothing_is_noticed(database: Database) -> None:
    connection = await database.connect()
    await connection.execute(
        """
        CREATE TABLE analytics_likes (id uuid, "whose like" uuid);
        COMMENT ON COLUMN analytics_likes."whose like" IS 'Who likes it.';
        CREATE TABLE analytics_colours (name text);
        COMMENT ON TABLE analytics_colours IS 'Colours.';
        """
    )
    assert await silent(connection) == ["analytics_colours", "analytics_likes"]
    for _ in range(2):
        await connection.execute("SELECT analytics_holds_person('analytics_likes', 'owner', 'whose like')")
        await connection.execute("SELECT analytics_holds_person('analytics_colours', 'none')")
    assert await silent(connection) == []
    [likes] = [table for table in await find_tables(connection) if table.name == "analytics_likes"]
    assert likes.forms == {'"whose like"': "owner"}
    comment = "SELECT obj_description('analytics_colours'::regclass, 'pg_class')"
    assert await connection.fetchval(comment) == "Colours.\nperson: none"
    # A migration that is older than the function says it by hand.
    await connection.execute("COMMENT ON TABLE analytics_colours IS 'Colours. person: none'")
    assert await silent(connection) == []
    for wrong in ("'anybody', 'name'", "'none', 'name'", "'user'"):
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await connection.execute(f"SELECT analytics_holds_person('analytics_colours', {wrong})")
