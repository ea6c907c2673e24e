"""Many writers at once, whose transactions commit late and out of order, while the export runs."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import asyncpg
import pytest

from asgi_analytics.errors import TransientError
from tests.exports.stored import Fake, all_ids, an_event, ids, make, run, store
from tests.kit.databases import Database


async def writer(database: Database, random: Random, transactions: int, kept: list[str]) -> None:
    """Store events as applications do: late, out of order, in part, in vain."""
    connection = await database.connect()
    for _ in range(transactions):
        transaction = connection.transaction()
        await transaction.start()
        try:
            rows = await store(connection, [an_event(random) for _ in range(random.randrange(1, 6))])
            if random.random() < 0.3:
                savepoint = connection.transaction()
                await savepoint.start()
                inner = await store(connection, [an_event(random)])
                if random.random() < 0.5:
                    await savepoint.rollback()
                else:
                    await savepoint.commit()
                    rows += inner
        except asyncpg.DeadlockDetectedError:
            # TimescaleDB locks the entry of each columnstore chunk that a transaction is the first to add rows to: two
            # transactions that take such chunks in different orders wait for each other.
            await transaction.rollback()
            continue
        await asyncio.sleep(random.choice([0, 0, 0.002, 0.02, 0.1]))
        if random.random() < 0.1:
            await transaction.rollback()
        else:
            await transaction.commit()
            kept += ids(rows)
    await connection.close()


async def compress(database: Database, ended: asyncio.Event) -> None:
    """Turn chunks into columns meanwhile, one in a transaction."""
    connection = await database.connect()
    # It waits for who has a chunk open, and all others behind it.
    await connection.execute("SET lock_timeout = '20ms'")
    while not ended.is_set():
        for row in await connection.fetch("SELECT c::text AS chunk FROM show_chunks('analytics_events') AS c"):
            with contextlib.suppress(asyncpg.PostgresError):
                await connection.execute(f"SELECT compress_chunk('{row['chunk']}')")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("writers", "transactions"), [(20, 12), pytest.param(20, 300, marks=pytest.mark.long)])
async def test_no_row_of_twenty_writers_is_lost_or_there_twice(
    database: Database, tmp_path: Path, writers: int, transactions: int
) -> None:
    random = Random(writers + transactions)
    await make(database, tmp_path)
    connection = await database.connect()
    # A transaction that makes a chunk keeps others from making one, until it ends.
    await store(connection, [an_event(random, datetime.now(UTC) - timedelta(days=day)) for day in range(22)])
    await connection.execute("DELETE FROM analytics_events")
    slow = await database.connect()
    kept: list[str] = []
    begun = slow.transaction()  # open all the time, and committed last
    await begun.start()
    kept += ids(await store(slow, [an_event(random) for _ in range(3)]))
    fake = Fake()
    fake.lose_answer = lambda: random.random() < 0.1
    fake.tells_places = True
    ended = asyncio.Event()
    work = [asyncio.create_task(writer(database, Random(one), transactions, kept)) for one in range(writers)]
    if database.flavour == "timescaledb":
        work.append(asyncio.create_task(compress(database, ended)))
    while not all(task.done() for task in work[:writers]):
        with contextlib.suppress(TransientError):
            await run(database, warehouse=fake, patience=0)
        behind = await connection.fetchval("SELECT analytics_export_behind('lake')")
        assert behind >= 0
    ended.set()
    await asyncio.gather(*work)
    fake.lose_answer = None
    await run(database, warehouse=fake)
    assert ids(fake.rows) == await all_ids(connection) == sorted(kept[3:])
    await begun.commit()
    await run(database, warehouse=fake)
    assert ids(fake.rows) == await all_ids(connection) == sorted(kept)
    assert await connection.fetchval("SELECT events_behind FROM analytics_export_lag") == 0
