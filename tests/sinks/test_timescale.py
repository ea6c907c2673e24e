"""TimescaleSink on both databases: what is stored is what was tracked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid5

import asyncpg
import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, Event, TimescaleSink, set_session
from asgi_analytics.context import current
from asgi_analytics.encoding.encoder import EventEncoder
from asgi_analytics.encoding.envelope import Surroundings
from asgi_analytics.errors import ConfigError, OperatorError
from asgi_analytics.events import USER_NAMESPACE
from asgi_analytics.events.base import decode_envelope
from tests.kit.databases import Database
from tests.kit.proxy import Proxy
from tests.sinks.conftest import Rows
from tests.sinks.contract import SinkContract, StoredIds, line

ID = UUID("0198c1a2-0000-7000-8000-000000000001")


class EverythingStored(Event):
    what: Any = None
    user_id: str | None = None


class TestTimescaleSink(SinkContract):
    @pytest.fixture
    async def sink(self, database: Database) -> AsyncIterator[TimescaleSink]:
        sink = TimescaleSink(database.dsn)
        yield sink
        await sink.aclose()

    @pytest.fixture
    def stored_ids(self, rows: Rows) -> StoredIds:
        async def read() -> list[UUID]:
            return [row["id"] for row in await rows()]

        return read


async def test_every_column_holds_what_was_tracked(database: Database, rows: Rows) -> None:
    sink = TimescaleSink(database.dsn)
    now = datetime(2026, 11, 20, 3, 59, 59, 999999, tzinfo=timezone(timedelta(hours=2)))
    encoder = EventEncoder(service="shöp", environment="test", hostname="h1", clock=lambda: now, new_id=lambda: ID)
    what = {"text": 'q"\\ 😀 \u2028', "number": 1.5e-7, "big": 2**70, "list": [None, True, {}], "": "empty"}
    surroundings = Surroundings(session_id="s1", trace_id="t" * 32, request_id="r1")
    await sink.write([encoder.encode(EverythingStored(what=what, user_id="ada"), surroundings)])
    await sink.aclose()
    [row] = await rows()
    assert row.pop("export_xid") > 0
    assert row.pop("timestamp") == now.astimezone(UTC)
    assert json.loads(row.pop("data")) == {"what": what}
    assert json.loads(row.pop("context")) == {
        "trace_id": "t" * 32,
        "span_id": None,
        "request_id": "r1",
        "hostname": "h1",
        "environment": "test",
        "user_key": "ada",
    }
    assert row == {
        "id": ID,
        "event_type": "everything_stored",
        "service": "shöp",
        "user_id": uuid5(USER_NAMESPACE, "ada"),
        "session_id": "s1",
    }


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 3, 8, 2, 30, 0, 1, UTC),  # an hour that New York skips
        datetime(2026, 11, 1, 1, 30, 0, 0, UTC),  # and one that it has twice
        datetime(2000, 1, 1, tzinfo=UTC),
        datetime(2099, 12, 31, 23, 59, 59, 999999, UTC),
    ],
)
async def test_a_timestamp_is_kept_to_the_microsecond_whatever_the_time_zone_of_the_session(
    database: Database, rows: Rows, moment: datetime
) -> None:
    sink = TimescaleSink(database.dsn)
    encoder = EventEncoder(service="s", environment=None, hostname=None, clock=lambda: moment)
    await sink.write([encoder.encode(EverythingStored())])
    await sink.aclose()
    connection = await database.connect()
    assert await connection.fetchval("SHOW timezone") != "UTC"
    assert [row["timestamp"] for row in await rows()] == [moment]


async def test_what_is_not_known_is_null_and_not_a_json_null(database: Database, rows: Rows) -> None:
    sink = TimescaleSink(database.dsn)
    await sink.write([EventEncoder(service="s", environment=None, hostname=None).encode(EverythingStored())])
    await sink.aclose()
    [row] = await rows()
    assert (row["user_id"], row["session_id"], json.loads(row["data"])) == (None, None, {})


async def test_identity_is_the_pair_of_id_and_timestamp(database: Database, rows: Rows) -> None:
    sink = TimescaleSink(database.dsn)
    later = datetime.now(UTC) + timedelta(seconds=1)
    times = iter([later, later, later + timedelta(microseconds=1)])
    encoder = EventEncoder(service="s", environment=None, hostname=None, clock=lambda: next(times), new_id=lambda: ID)
    receipt = await sink.write([encoder.encode(EverythingStored(what=number)) for number in range(3)])
    await sink.aclose()
    assert receipt.duplicates == 1
    assert [json.loads(row["data"])["what"] for row in await rows(order="timestamp")] == [0, 2]


async def test_the_places_of_duplicates_are_told_the_first_of_two_in_a_batch_stays(
    database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_analytics.sinks.timescale.CAREFUL_SECONDS", 0.0)
    sink = TimescaleSink(database.dsn)
    batch = [line(name) for name in "dcba"]
    assert (await sink.write(batch[:2])).duplicate_at == ()
    other = batch[3].replace(b'"name":"a"', b'"name":"x"')
    receipt = await sink.write([batch[3], batch[1], batch[2], other, batch[2], batch[0]])
    assert (receipt.duplicates, receipt.duplicate_at) == (4, [1, 3, 4, 5])
    await sink.aclose()
    assert sorted(json.loads(row["data"])["name"] for row in await rows()) == list("abcd")


async def test_the_server_refuses_a_duplicate_once_and_is_then_asked_for_each(
    database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each refusal is a line in the server's log, and half a write for nothing."""
    sink = TimescaleSink(database.dsn)
    refusals = 0
    execute = asyncpg.Connection.execute

    async def counted(connection: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal refusals
        try:
            return await execute(connection, *arguments, **options)
        except asyncpg.UniqueViolationError:
            refusals += 1
            raise

    monkeypatch.setattr(asyncpg.Connection, "execute", counted)
    batch = [line("a"), line("b")]
    assert [(await sink.write(batch)).duplicates for _ in range(4)] == [0, 2, 2, 2]
    assert (await sink.write([line("c")])).duplicates == 0
    assert refusals == 1
    await sink.aclose()
    assert len(await rows()) == 3


async def test_two_writers_of_the_same_events_in_another_order_wait_for_each_other(
    database: Database, rows: Rows
) -> None:
    batch = [line(f"{number}") for number in range(2_000)]
    sinks = [TimescaleSink(database.dsn), TimescaleSink(database.dsn)]
    for sink in sinks:
        await sink.ready()
    receipts = await asyncio.gather(sinks[0].write(batch), sinks[1].write(batch[::-1]))
    assert sum(receipt.duplicates for receipt in receipts) == len(batch)
    assert len(await rows()) == len(batch)
    for sink in sinks:
        await sink.aclose()


@pytest.mark.parametrize(
    ("scheme", "parameters"),
    [
        ("postgresql", "sslmode=prefer&channel_binding=prefer&connect_timeout=10"),  # as managed services give it
        ("postgresql+asyncpg", "ssl=prefer&prepared_statement_cache_size=0"),  # as SQLAlchemy takes it
    ],
)
async def test_a_url_that_analytics_migrate_takes_stores_events_too(
    database: Database, rows: Rows, scheme: str, parameters: str
) -> None:
    url = f"{scheme}:{database.dsn.partition(':')[2]}?{parameters}\n"
    client = AnalyticsClient.from_url(url, service="shop", strict=True)
    client.track(EverythingStored(what="by a long URL"))
    assert client.close(30), client.stats().last_error
    assert [json.loads(row["data"])["what"] for row in await rows()] == ["by a long URL"]


@pytest.mark.parametrize("pool", [None, 5, object()])
def test_what_is_neither_a_pool_nor_a_url_is_refused_at_once(pool: Any) -> None:
    with pytest.raises(ConfigError, match="use an asyncpg pool, or a URL, postgresql://"):
        TimescaleSink(pool)


async def test_what_is_tracked_through_a_url_arrives(database: Database, rows: Rows) -> None:
    client = AnalyticsClient.from_url(database.dsn, service="shop", strict=True)
    token = current.set(None)
    set_session("s\x001")
    for number in range(1_500):
        client.track(EverythingStored(what=number))
    current.reset(token)
    assert client.flush(30)
    stored = await rows()
    assert {row["session_id"] for row in stored} == {"s\ufffd1"}
    assert sorted(json.loads(row["data"])["what"] for row in stored) == list(range(1_500))
    connection = await database.connect()
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asgi-analytics'"
    assert await connection.fetchval(sessions) == 1
    assert client.close(10)
    assert await connection.fetchval(sessions) == 0


async def test_the_tables_may_be_in_a_schema_of_any_name(database: Database) -> None:
    connection = await database.connect()
    await connection.execute('CREATE SCHEMA "a ""b"""')
    for table in ("analytics_events", "analytics_dead_letters"):
        await connection.execute(f'CREATE TABLE "a ""b""".{table} (LIKE public.{table} INCLUDING ALL)')
    sink = TimescaleSink(database.dsn, schema='a "b"')
    bad = line().replace(b'"service":"shop"', b'"service":null')
    receipt = await sink.write([line(), bad])
    await sink.aclose()
    assert len(receipt.rejected) == 1
    assert await connection.fetchval('SELECT count(*) FROM "a ""b""".analytics_events') == 1
    assert await connection.fetchval('SELECT count(*) FROM "a ""b""".analytics_dead_letters') == 1
    assert await connection.fetchval("SELECT count(*) FROM public.analytics_events") == 0
    missing = TimescaleSink(database.dsn, schema="nowhere")
    with pytest.raises(OperatorError, match="analytics-migrate all"):
        await missing.write([line()])
    await missing.aclose()


# -- pools of the application's own


async def test_a_pool_of_ones_own_is_used_and_stays_open(database: Database, rows: Rows) -> None:
    async with asyncpg.create_pool(database.dsn, min_size=1, max_size=1) as pool:
        client = AnalyticsClient(service="shop")
        async with AnalyticsWorker(client, TimescaleSink(pool)):
            client.track(EverythingStored())
        assert await pool.fetchval("SELECT count(*) FROM analytics_events") == 1
    assert len(await rows()) == 1


async def _with_codecs(connection: Any) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    await connection.set_type_codec("uuid", encoder=str, decoder=str, schema="pg_catalog")
    await connection.set_type_codec("text", encoder=lambda v: v.upper(), decoder=str.upper, schema="pg_catalog")


@pytest.mark.parametrize(
    "options",
    [
        {"statement_cache_size": 0},  # behind pgbouncer
        {"init": _with_codecs},  # the application reads JSON and ids its own way
        {"server_settings": {"timezone": "Asia/Kolkata", "datestyle": "German, DMY", "bytea_output": "escape"}},
        {"command_timeout": 5},
    ],
    ids=["no statement cache", "codecs", "session settings", "command timeout"],
)
async def test_a_pool_may_be_set_up_as_the_application_likes_it(
    database: Database, rows: Rows, options: dict[str, Any]
) -> None:
    async with asyncpg.create_pool(database.dsn, min_size=0, max_size=2, **options) as pool:
        sink = TimescaleSink(pool)
        bad = line("bad").replace(b'"timestamp":"20', b'"timestamp":"47')
        for _ in range(2):
            receipt = await sink.write([line("good"), bad])
            assert [one.index for one in receipt.rejected] == [1]
        await sink.upkeep()
    assert [json.loads(row["data"])["name"] for row in await rows()] == ["good", "good"]
    [letter] = await rows("analytics_dead_letters")
    assert letter["id"] == decode_envelope(bad).event_id
    assert letter["payload"].upper() == bad.decode().upper()


async def test_one_connection_serves_one_write_after_the_other(database: Database) -> None:
    sink = TimescaleSink(database.dsn)
    await sink.write([line()])
    [kept] = sink._connections._kept
    await sink.write([line()])
    assert sink._connections._kept == [kept]
    await asyncio.gather(*(sink.write([line()]) for _ in range(4)))  # those at the same time have others
    assert 1 <= len(sink._connections._kept) <= 2
    await sink.aclose()
    assert await connections(database) == 0


async def test_a_write_that_waits_for_the_only_connection_gets_it(database: Database) -> None:
    sink = TimescaleSink(database.dsn, connections=1)
    async with asyncio.timeout(8):  # of ten that an attempt to connect has
        await asyncio.gather(*(sink.write([line()]) for _ in range(6)))
        await sink.upkeep()
        await sink.write([line()])
    assert len(sink._connections._kept) == 1
    await sink.aclose()


async def test_a_connection_that_was_cut_is_not_kept(database: Database, proxy: Proxy, rows: Rows) -> None:
    sink = TimescaleSink(proxy.dsn)
    await sink.write([line()])
    proxy.cut()
    await sink.write([line()])
    after = line()
    await sink.write([after])
    assert decode_envelope(after).event_id in [row["id"] for row in await rows()]
    await sink.aclose()


async def connections(database: Database) -> int:
    """Return how many connections the sinks have; a server takes a moment to notice one that has gone."""
    mine = await database.connect()
    for _ in range(100):
        number: int = await mine.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asgi-analytics' AND datname = $1",
            database.name,
        )
        if not number:
            break
        await asyncio.sleep(0.05)
    return number
