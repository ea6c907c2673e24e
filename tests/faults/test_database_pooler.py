"""Behind PgBouncer in transaction mode, where every transaction may run in another session: all is stored."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import asyncpg
import httpx2
import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, TimescaleSink
from asgi_analytics.errors import SinkError
from asgi_analytics.web.ingestion import create_ingestion_app
from tests.kit.databases import Database
from tests.kit.pgbouncer import PgBouncer
from tests.kit.scripts import run_script
from tests.sinks.conftest import Rows, rows, say
from tests.sinks.contract import ids, line
from tests.web.ingestion.service import Process, event

__all__ = ["rows"]

SAYS_SIXTY = """
client = AnalyticsClient.from_url(sys.argv[1], service="shop", flush_interval=0.01)
for number in range(60):
    assert client.track(said(str(number)))
    time.sleep(0.005)
assert client.close(30), client.stats().last_error
print(client.stats().stored, client.stats().retries)
"""


@pytest.fixture
def pooler(database: Database, make_pgbouncer: Callable[..., PgBouncer]) -> PgBouncer:
    return make_pgbouncer(database, default_pool_size="3")


@contextlib.asynccontextmanager
async def another_application(dsn: str) -> AsyncIterator[None]:
    """Run an application that names prepared statements as asyncpg does by default, and lives with the errors."""
    pool = await asyncpg.create_pool(dsn, min_size=2, max_size=2)

    async def ask() -> None:
        number = 0
        while True:
            number += 1
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
                await pool.fetchval(f"SELECT $1::int + {number % 7}", number)

    tasks = [asyncio.create_task(ask()) for _ in range(2)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pool.terminate()


async def test_four_processes_beside_another_application_store_all_events_at_the_first_attempt(
    database: Database, pooler: PgBouncer, rows: Rows
) -> None:
    async with another_application(pooler.dsn):
        said = await asyncio.gather(*(asyncio.to_thread(run_script, SAYS_SIXTY, pooler.dsn) for _ in range(4)))
    assert [one.split() for one in said] == [["60", "0"]] * 4
    assert len(await rows()) == 240


@pytest.mark.parametrize(
    "settings", [{"default_pool_size": "1"}, {"server_round_robin": "1"}, {"pool_mode": "statement"}], ids=str
)
async def test_however_the_pooler_shares_its_sessions_batches_are_stored(
    database: Database, make_pgbouncer: Callable[..., PgBouncer], rows: Rows, settings: dict[str, str]
) -> None:
    pooler = make_pgbouncer(database, **settings)
    sinks = [TimescaleSink(pooler.dsn) for _ in range(4)]
    batches = [[line(f"{number}")] for number in range(40)]
    await asyncio.gather(*(sinks[number % 4].write(batch) for number, batch in enumerate(batches)))
    assert [row["id"] for row in await rows()] == ids([one for batch in batches for one in batch])
    for sink in sinks:
        await sink.aclose()


async def test_duplicates_and_dead_letters_are_told_through_a_pooler(
    database: Database, pooler: PgBouncer, rows: Rows
) -> None:
    sink = TimescaleSink(pooler.dsn)
    good, again = line("good"), line("again")
    bad = line("bad").replace(b'"timestamp":"20', b'"timestamp":"47')
    await sink.write([again])
    async with another_application(pooler.dsn):
        for _ in range(10):
            receipt = await sink.write([good, bad, again])
            assert [one.index for one in receipt.rejected] == [1]
            assert receipt.duplicates in (1, 2)
        await sink.ready()
        await sink.upkeep()
    await sink.aclose()
    assert [row["id"] for row in await rows()] == ids([good, again])
    assert len(await rows("analytics_dead_letters")) == 1


async def test_a_direct_connection_keeps_its_prepared_statements(database: Database, pooler: PgBouncer) -> None:
    """A second round trip costs a small write a fifth of its time."""
    for dsn, prepared in ((database.dsn, 1), (pooler.dsn, 0), (f"{database.dsn}?pgbouncer=true", 0)):
        sink = TimescaleSink(dsn)
        await sink.write([line()])
        async with sink._connections.connection() as connection:
            statements = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%INSERT%'"
            await connection.execute(f"DO $$ BEGIN ASSERT ({statements}) = {prepared}; END $$")
        await sink.aclose()


@pytest.mark.parametrize("parameter", ["statement_cache_size=0", "prepared_statement_cache_size=0", "pgbouncer=true"])
async def test_what_other_clients_say_of_a_pooler_in_a_url_is_taken(
    database: Database, pooler: PgBouncer, rows: Rows, parameter: str
) -> None:
    sink = TimescaleSink(f"{pooler.dsn}?{parameter}&connection_limit=1&pool_timeout=5")
    await sink.write([line()])
    await sink.aclose()
    assert len(await rows()) == 1


async def test_a_pool_of_the_applications_own_works_without_a_statement_cache(
    database: Database, pooler: PgBouncer, rows: Rows
) -> None:
    async with (
        another_application(pooler.dsn),
        asyncpg.create_pool(pooler.dsn, min_size=0, max_size=4, statement_cache_size=0) as pool,
    ):
        client = AnalyticsClient(service="shop", flush_interval=0.01)
        async with AnalyticsWorker(client, TimescaleSink(pool)):
            for _ in range(20):
                say(client, 5)
                await asyncio.sleep(0.02)
            assert await client.aflush(20)
        assert client.stats().retries == 0
    assert len(await rows()) == 100


async def test_a_pool_with_a_statement_cache_is_told_what_it_lacks(database: Database, pooler: PgBouncer) -> None:
    async with asyncpg.create_pool(pooler.dsn, min_size=2, max_size=2) as pool:
        sink = TimescaleSink(pool)

        async def write_often() -> None:
            for _ in range(200):  # until the pooler has given one client two of its connections
                await asyncio.gather(*(sink.write([line()]) for _ in range(4)))

        with pytest.raises(SinkError, match="create the pool that is given to the sink with statement_cache_size=0"):
            await write_often()


async def test_the_ingestion_service_stores_through_a_pooler(database: Database, pooler: PgBouncer, rows: Rows) -> None:
    app = create_ingestion_app(database_url=pooler.dsn)
    transport = httpx2.ASGITransport(app=app)
    async with (
        another_application(pooler.dsn),
        httpx2.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        answers = await asyncio.gather(*(client.post("/events/batch", json=[event()] * 5) for _ in range(40)))
        assert {answer.status_code for answer in answers} == {200}
        assert (await client.get("/ready")).status_code == 200
    await app.state.ingestion.aclose()
    assert len(await rows()) == 40


async def test_a_parameter_that_the_pooler_refuses_is_named(database: Database, pooler: PgBouncer) -> None:
    sink = TimescaleSink(f"{pooler.dsn}?search_path=stats")
    with pytest.raises(SinkError, match=r"search_path.*take that parameter out of the database URL"):
        await sink.write([line()])
    await sink.aclose()


async def test_a_schema_in_the_url_is_found_through_a_pooler(database: Database, pooler: PgBouncer) -> None:
    connection = await database.connect()
    await connection.execute("CREATE SCHEMA stats")
    for table in ("analytics_events", "analytics_dead_letters"):
        await connection.execute(f"CREATE TABLE stats.{table} (LIKE public.{table} INCLUDING ALL)")
    url = f"{pooler.dsn}?schema=stats&pgbouncer=true"
    client = AnalyticsClient.from_url(url, service="shop")
    say(client)
    assert await client.aclose(20)
    with Process(url) as process:
        async with process.client() as http:
            assert (await http.post("/events/batch", json=[event()])).status_code == 200
    assert await connection.fetchval("SELECT count(*) FROM stats.analytics_events") == 2
    assert await connection.fetchval("SELECT count(*) FROM public.analytics_events") == 0
