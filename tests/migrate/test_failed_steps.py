"""Steps that fail: the cause and the cure are told in one line, and a second run succeeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from asgi_analytics.errors import MigrationError
from asgi_analytics.migrate import runner
from asgi_analytics.migrate.runner import StepFailed, migrate
from tests.kit.databases import Database

MEND = {"001_pre_a.sql": "-- A\nCREATE TABLE a (x int);"}


@pytest.mark.newest  # asyncpg hands on the server's last words from 0.31 on
@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        (
            "SELECT pg_terminate_backend(pg_backend_pid())",
            "terminating connection due to administrator command",
        ),
        # As a server that sets it for a role or a database does, and a step takes longer.
        (
            "SET LOCAL transaction_timeout = '50ms'; SELECT pg_sleep(5)",
            "terminating connection due to transaction timeout",
        ),
    ],
)
async def test_a_server_that_ends_the_connection_is_told_by_its_cause(
    empty_database: Database, folder_of: Callable[..., Path], statement: str, cause: str
) -> None:
    admin = await empty_database.connect()
    if "transaction_timeout" in statement and await admin.fetchval("SHOW server_version_num") < "170000":
        pytest.skip("transaction_timeout came with PostgreSQL 17")
    folder = folder_of({"001_pre_a.sql": f"-- A\nCREATE TABLE a (x int); {statement};"})
    with pytest.raises(StepFailed) as caught:
        await migrate(empty_database.dsn, folder=folder)
    text = str(caught.value)
    assert text.startswith("001_pre_a.sql, line 2, ")
    assert cause in text
    assert text.endswith("nothing of this file is kept: the connection ended; run this again")
    assert "\n" not in text
    assert len((await migrate(empty_database.dsn, folder=folder_of(MEND, "mended"), wait=30)).applied) == 1


async def test_a_missing_right_is_told_with_its_cure(empty_database: Database, folder_of: Callable[..., Path]) -> None:
    role = f"owner_{empty_database.name}"
    sql = f'-- A\nCREATE ROLE "{role}";\nSET LOCAL ROLE "{role}";\nCREATE TABLE a (x int);'
    with pytest.raises(StepFailed) as caught:
        await migrate(empty_database.dsn, folder=folder_of({"001_pre_a.sql": sql}))
    text = str(caught.value)
    assert text.startswith(
        "001_pre_a.sql, line 4, 'CREATE TABLE a (x int)': permission denied for schema public (42501)"
    )
    assert "nothing of this file is kept: as the owner or a superuser GRANT what is missing" in text
    assert text.endswith("then run this again")


async def test_history_that_cannot_be_filled_stops_before_the_step_that_needs_it(
    empty_database: Database, folder_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled: list[str] = []

    async def fill(connection: asyncpg.Connection) -> None:
        made = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        filled.append(", ".join(row[0] for row in made if row[0] != "analytics_migrations"))
        if len(filled) == 1:
            raise MigrationError("another process is refreshing it")

    monkeypatch.setattr(runner, "refresh_pending", fill)
    steps = {
        "001_pre_a.sql": "-- A\nCREATE TABLE a (x int);",
        "002_post_b.sql": "-- B\nCREATE TABLE b (x int);",
        "003_post_c.sql": "-- C\n-- history: filled\nCREATE TABLE c (x int);",
    }
    folder = folder_of(steps)
    with pytest.raises(StepFailed) as caught:
        await migrate(empty_database.dsn, folder=folder)
    assert str(caught.value) == (
        "the history of the aggregates is not complete: another process is refreshing it; "
        "remove the cause, then run this again"
    )
    assert (caught.value.file, len(caught.value.applied)) == ("003_post_c.sql", 2)
    assert len((await migrate(empty_database.dsn, folder=folder)).applied) == 1
    assert filled == ["a, b", "a, b"]

    assert (await migrate(empty_database.dsn, folder=folder)).applied == ()
    later = folder_of({**steps, "004_pre_d.sql": "-- D\nCREATE TABLE d (x int);"}, "later")
    await migrate(empty_database.dsn, folder=later)
    assert len(filled) == 2, "a pre step makes no aggregate"
    latest = {**steps, "004_pre_d.sql": "-- D\nCREATE TABLE d (x int);", "005_post_e.sql": "-- E\nCREATE TABLE e ();"}
    await migrate(empty_database.dsn, folder=folder_of(latest, "latest"))
    assert filled[2:] == ["a, b, c, d, e"]


async def test_history_that_cannot_be_filled_at_the_end_is_left_to_refresh(
    empty_database: Database, folder_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fill(connection: asyncpg.Connection) -> None:
        if await connection.fetchval("SELECT to_regclass('b')"):
            await connection.execute("SELECT 1 / 0")

    monkeypatch.setattr(runner, "refresh_pending", fill)
    steps = {"001_post_a.sql": "-- A\n-- history: filled\nSELECT 1;", "002_post_b.sql": "-- B\nCREATE TABLE b (x int);"}
    with pytest.raises(StepFailed) as caught:
        await migrate(empty_database.dsn, folder=folder_of(steps))
    assert str(caught.value) == (
        "the history of the aggregates is not complete: division by zero (22012); "
        "remove the cause, then run analytics-migrate refresh"
    )
    assert len(caught.value.applied) == 2
