"""Events go into chunks that TimescaleDB turns into columns, back into rows, or drops, at that very moment."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from asgi_analytics import TimescaleSink, events
from asgi_analytics.encoding.encoder import EventEncoder
from asgi_analytics.events.base import decode_envelope
from tests.faults.balance import assert_balanced, assert_stored, ids_in
from tests.faults.conftest import PROJECT, Application, StartApplication, assert_nobody_has_to_act
from tests.kit.databases import Database
from tests.kit.fakes import eventually
from tests.schema.happenings import midnight

pytestmark = [
    pytest.mark.usefixtures("impatient"),
    pytest.mark.parametrize("database", ["timescaledb"], indirect=True),  # plain PostgreSQL has no columnstore
]

COLUMNS = (
    "SELECT format('%I.%I', chunk_schema, chunk_name)::regclass AS chunk, is_compressed"
    " FROM timescaledb_information.chunks WHERE hypertable_name = 'analytics_events'"
)
POLICY = (
    "SELECT job_id FROM timescaledb_information.jobs"
    " WHERE proc_name = 'policy_compression' AND hypertable_name = 'analytics_events'"
)


def event(at: datetime, event_id: UUID) -> bytes:
    """Return an event of a moment and an identity."""
    encoder = EventEncoder(service="shop", environment=None, hostname="h1", clock=lambda: at, new_id=lambda: event_id)
    return encoder.encode(events.ProjectCreated(project_id=PROJECT, user_id=1, name="late"))


def live_days_ago(application: Application, days: int) -> None:
    """Let an application's clock go wrong by some days: what it says falls into an old chunk."""
    application.at = lambda: datetime.now(UTC) - timedelta(days=days)


async def compressed(connection: asyncpg.Connection) -> list[bool]:
    return [row["is_compressed"] for row in await connection.fetch(COLUMNS)]


async def test_a_policy_may_turn_the_chunk_into_columns_that_is_being_written(
    start_application: StartApplication, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    administrator = await database.connect()
    [job] = [row["job_id"] for row in await administrator.fetch(POLICY)]
    application = start_application(database.dsn)
    live_days_ago(application, 10)
    client = application.client
    turned = 0
    async with application.busy(500):
        await eventually(lambda: client.stats().stored)
        for _ in range(8):
            stored = client.stats().stored
            await administrator.execute(f"CALL run_job({job})")
            turned += any(await compressed(administrator))
            await eventually(lambda stored=stored: client.stats().stored > stored, 20)  # type: ignore[misc]
    assert await client.aflush(20)
    assert turned == 8
    await assert_stored(client, database, application.accepted)
    assert (application.refused, client.stats().duplicates, client.stats().rejected.total()) == (0, 0, 0)
    assert_nobody_has_to_act(caplog)


async def test_a_chunk_may_go_to_and_fro_between_rows_and_columns_while_it_is_written(
    start_application: StartApplication, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    administrator = await database.connect()
    application = start_application(database.dsn)
    live_days_ago(application, 10)
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().stored)
        chunk = await administrator.fetchval(COLUMNS)
        for _ in range(6):
            stored = client.stats().stored
            await administrator.execute(f"CALL convert_to_columnstore('{chunk}', if_not_columnstore => true)")
            await eventually(lambda stored=stored: client.stats().stored > stored, 20)  # type: ignore[misc]
            await administrator.execute(f"CALL convert_to_rowstore('{chunk}', if_columnstore => true)")
            assert_balanced(client.stats())
    await application.assert_stored_in(database)
    assert application.refused == 0
    assert_nobody_has_to_act(caplog)


async def test_a_chunk_that_is_dropped_under_the_writes_is_made_anew(
    start_application: StartApplication, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Retention takes what was stored; what is written afterwards is there, and the worker was not in the way."""
    administrator = await database.connect()
    application = start_application(database.dsn)
    live_days_ago(application, 10)
    client = application.client
    async with application.busy(500):
        for _ in range(5):
            await application.stores_more(20)
            await administrator.fetch("SELECT drop_chunks('analytics_events', older_than => INTERVAL '5 days')")
    assert await client.aflush(20)
    stats = client.stats()
    assert_balanced(stats)
    assert (stats.queued, stats.in_flight, stats.rejected.total(), application.refused) == (0, 0, 0, 0)
    application.say(10)
    assert await client.aflush(20)
    assert set(await ids_in(database)) >= set(application.accepted[-10:])
    assert_nobody_has_to_act(caplog)


@pytest.mark.parametrize("careful", [0.0, 60.0])
async def test_late_batches_into_columns_store_what_is_new_and_know_what_is_there(
    database: Database, careful: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_analytics.sinks.timescale.CAREFUL_SECONDS", careful)
    administrator = await database.connect()
    day = midnight(8)
    await administrator.execute(
        "INSERT INTO analytics_events (id, timestamp, event_type, service, data)"
        " SELECT gen_random_uuid(), $1::timestamptz + place * INTERVAL '4 s', 'type_' || place % 5, 'shop', '{}'"
        " FROM generate_series(1, 20000) AS place",
        day,
    )
    chunk = await administrator.fetchval(COLUMNS)
    await administrator.execute(f"CALL convert_to_columnstore('{chunk}')")
    assert await compressed(administrator) == [True]
    there = await administrator.fetch("SELECT id, timestamp FROM analytics_events ORDER BY id")
    everything = {row["id"] for row in there}
    sink = TimescaleSink(database.dsn)
    for start in range(0, 1_000, 500):
        known = [event(row["timestamp"], row["id"]) for row in there[start : start + 500]]
        new = [event(day + timedelta(seconds=40 * place + start / 1_000), uuid4()) for place in range(500)]
        batch = [one for pair in zip(known, new, strict=True) for one in pair]
        for attempt, duplicates in enumerate((500, 1_000)):  # and once more, as if the answer had been lost
            receipt = await sink.write(batch)
            assert (receipt.duplicates, list(receipt.rejected)) == (duplicates, [])
            assert receipt.duplicate_at == list(range(0, 1_000, 1 if attempt else 2))
        everything |= {decode_envelope(one).event_id for one in new}
    await sink.aclose()
    assert set(await ids_in(database)) == everything
    assert len(everything) == 21_000


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 2])
async def test_late_batches_while_the_chunk_is_turned_into_columns_store_each_event_once(
    start_application: StartApplication, database: Database, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    """The policy runs all the while, and what comes is half known; what gives way is tried again.

    A write may wait for 5 s at each run: so long a run that moves rows which the write waits for tries to get the chunk
    for itself, until it gives up.
    """
    administrator = await database.connect()
    [job] = [row["job_id"] for row in await administrator.fetch(POLICY)]
    day = midnight(9)
    lines = [
        event(day + timedelta(seconds=place + number / 100), uuid4()) for number in range(11) for place in range(100)
    ]
    clients = [start_application(database.dsn, flush_interval=60.0).client for _ in range(workers)]
    turned = 0
    for start in range(0, 1_000, 100):
        for client in clients:
            for line in lines[start : start + 200]:  # half of it is that of the round before
                assert client._queue.put(line, len(line))
        flushing = asyncio.gather(*(client.aflush(60) for client in clients))
        while not flushing.done():
            with contextlib.suppress(asyncpg.DataError):  # the policy is the one that gave way, until its next run
                await administrator.execute(f"CALL run_job({job})")
                turned += 1
        assert await flushing == [True] * workers
    assert turned >= 10
    for client in clients:
        stats = client.stats()
        assert_balanced(stats)
        assert stats.accepted == stats.stored + stats.duplicates == 2_000
    assert sum(client.stats().stored for client in clients) == len(lines)
    assert set(await ids_in(database)) == {decode_envelope(line).event_id for line in lines}
    assert any(await compressed(administrator))
    assert_nobody_has_to_act(caplog)
