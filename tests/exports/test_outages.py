"""Warehouses that are away, slow or limit the export, and databases that are: every row is there once."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest

from asgi_analytics.errors import OperatorError, TransientError
from asgi_analytics.exports.exporter import Exporter
from asgi_analytics.exports.status import export_status
from asgi_analytics.reading import AnalyticsReader
from tests.exports.outages import Clock
from tests.exports.stored import Fake, all_ids, an_event, ids, make, run, store
from tests.kit.databases import Database

SESSIONS = (
    "SELECT pid, state, backend_xmin FROM pg_stat_activity"
    " WHERE application_name = 'analytics-export' AND datname = current_database()"
)


class Away(Fake):
    """Answers only from a time on; and says when to come again."""

    def __init__(self, clock: Clock, until: float, error: Exception) -> None:
        super().__init__()
        self.clock, self.until, self.error = clock, until, error
        self.asked: list[float] = []

    def load(self, batch: Any, token: str) -> None:
        self.asked.append(self.clock.now)
        if self.clock.now < self.until:
            raise self.error
        super().load(batch, token)


@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (TransientError("connection refused"), 0, 300),
        (TransientError("429 Too Many Requests", retry_after=120), 120, 300),
        (OperatorError("the table is another one"), 0, 300),
    ],
)
async def test_a_warehouse_that_is_away_for_ten_minutes_gets_all_and_all_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, least: float, most: float
) -> None:
    random = Random(1)
    connection = await database.connect()
    await make(database, tmp_path, "lake-2")
    await store(connection, [an_event(random) for _ in range(100)])
    clock = Clock(monkeypatch)
    away = Away(clock, 600, error)
    exporter = Exporter(database.dsn, "lake-2", warehouse=away)
    failed: list[str | None] = []
    reader = AnalyticsReader.from_url(database.dsn)

    def tell(ran: Any) -> None:
        if ran.events:
            exporter.stop()

    run_once = exporter._run_once

    async def noting(*arguments: Any, **options: Any) -> None:
        try:
            await run_once(*arguments, **options)
        finally:
            [told] = (await reader.get_pipeline_health()).exports
            assert (told.name, told.events_behind > 0, told.dead_letters) == ("lake-2", bool(told.last_error), 0)
            assert told.last_batch_at is not None
            failed.append(told.last_error)
            await store(connection, [an_event(random)])

    monkeypatch.setattr(exporter, "_run_once", noting)
    async with reader:
        await exporter.run_every(60, tell)
    assert clock.now >= 600
    waits = [later - before for before, later in zip(away.asked, away.asked[1:], strict=False) if before < 600]
    assert all(least <= wait <= most for wait in waits)
    assert len(waits) < 60, "it hammers a warehouse that is away"
    assert failed[:-1] == [str(error)] * (len(failed) - 1)
    assert failed[-1] is None
    assert (await export_status(database.dsn)).exports[0].attempts == 0
    await run(database, "lake-2", warehouse=away)
    assert ids(away.rows) == await all_ids(connection)


async def test_a_slow_warehouse_holds_up_nobody_else(database: Database, tmp_path: Path) -> None:
    random = Random(2)
    connection = await database.connect()
    await make(database, tmp_path)
    await store(connection, [an_event(random) for _ in range(100)])
    begun, goes_on = threading.Event(), threading.Event()

    class Slow(Fake):
        def load(self, batch: Any, token: str) -> None:
            super().load(batch, token)
            begun.set()
            assert goes_on.wait(60)

    slow = Slow()
    try:
        running = asyncio.create_task(run(database, warehouse=slow, patience=0))
        assert await asyncio.to_thread(begun.wait, 30)
        # The next page is read meanwhile; then no transaction is open that would hold back the vacuum.
        while any(row["state"] != "idle" or row["backend_xmin"] for row in await connection.fetch(SESSIONS)):
            await asyncio.sleep(0.01)
        with pytest.raises(TransientError, match="another process"):
            await run(database, warehouse=Fake(), patience=0)
        await store(connection, [an_event(random) for _ in range(20)])
        batches = await connection.fetch("SELECT sync_status FROM analytics_warehouse_sync_status")
        assert [row["sync_status"] for row in batches] == ["running"]
        [session] = await connection.fetch(SESSIONS)
        await connection.fetchval("SELECT pg_terminate_backend($1, 10000)", session["pid"])
    finally:
        goes_on.set()
    with pytest.raises(TransientError):
        await running
    assert (await run(database, warehouse=slow)).events == 120
    assert ids(slow.rows) == await all_ids(connection)
