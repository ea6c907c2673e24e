"""A request that is killed is gone on with, and nobody who writes beside it waits."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from random import Random
from typing import Any

import asyncpg

from asgi_analytics.admin import subjects
from asgi_analytics.admin.refresh import refresh
from asgi_analytics.sinks.timescale import TimescaleSink
from tests.admin.people import ANN, EVE, a_row, assert_views, line_of, months, rows_with, spellings, uuid_of
from tests.kit.databases import Database
from tests.kit.scripts import environment
from tests.reading.happened import insert
from tests.schema.happenings import compress, midnight

COMMAND = (sys.executable, "-m", "asgi_analytics.cli.subject")
WAITS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"


def start_command(database: Database, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(DATABASE_URL=database.dsn),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def until_it_waits(connection: asyncpg.Connection) -> int:
    """Return the server process that waits for a lock, once one does."""
    while (pid := await connection.fetchval(WAITS)) is None:
        await asyncio.sleep(0.02)
    return int(pid)


async def test_a_run_that_was_killed_is_gone_on_with_and_writers_do_not_wait(database: Database) -> None:
    random = Random(23)
    connection, holder = await database.connect(), await database.connect()
    newest = a_row(random, midnight(0), "order_placed", ANN, total=1)
    events = [*months(random), newest]
    await insert(connection, events)
    await refresh(connection)
    await compress(connection, database)
    mine = [event for event in events if event.user_id == uuid_of(ANN)]
    sink = TimescaleSink(database.dsn)

    async def write_beside(day: int) -> None:
        """Write into a day that is being erased; fails if it is kept waiting."""
        beside = a_row(random, midnight(day), "order_placed", EVE, total=2)
        events.append(beside)
        async with asyncio.timeout(10):
            assert not (await sink.write([line_of(beside)])).rejected

    async def run_killed(held: str, *arguments: Any) -> None:
        """Kill a run that waits for what is held, and return when the server has noticed."""
        async with holder.transaction():
            await holder.execute(held, *arguments)
            process = start_command(database, "erase", ANN)
            pid = await until_it_waits(connection)
            for day in (0, 5):
                await write_beside(day)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            while await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid):
                await asyncio.sleep(0.05)

    # In the midst of the days.
    await run_killed(
        "SELECT FROM analytics_events WHERE id = $1 AND timestamp = $2 FOR UPDATE", newest.id, newest.timestamp
    )
    left = await connection.fetchval("SELECT count(*) FROM analytics_events WHERE user_id = $1", uuid_of(ANN))
    today = len([event for event in mine if event.timestamp >= midnight(0)])
    assert left == today < len(mine)
    [first] = (await subjects.status(connection, ANN)).requests
    assert (first.completed_at, first.rows) == (None, {"analytics_events": len(mine) - today})
    process = start_command(database, "status")
    out, _ = process.communicate()
    assert process.returncode == 1
    assert "interrupted" in out
    # In the midst of the aggregates.
    await run_killed("LOCK TABLE analytics_user_days_filled IN SHARE MODE")
    [second] = (await subjects.status(connection, ANN)).requests
    assert (second.id, second.completed_at) == (first.id, None)
    assert second.rows["analytics_events"] == len(mine)
    # And to the end, beside another run of the same.
    processes = [start_command(database, "erase", ANN, "--json") for _ in range(2)]
    done = [json.loads((await asyncio.to_thread(one.communicate))[0]) for one in processes]
    assert all(one["ok"] for one in done), done
    found = (await subjects.status(connection, ANN)).requests
    assert found[-1].id == first.id
    assert found[-1].rows["analytics_events"] == len(mine)
    assert all(one.completed_at is not None for one in found)
    await sink.aclose()
    for form in spellings(ANN):
        assert await rows_with(connection, form) == {}
    await refresh(connection)
    await assert_views(connection, [event for event in events if event.user_id != uuid_of(ANN)])
