"""What the writer and the reader of `analytics-migrate roles` can do, and that they can do nothing else."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from uuid import UUID

import asyncpg
import pytest

from asgi_analytics import AnalyticsClient, TimescaleSink, events
from asgi_analytics.admin.refresh import refresh_views
from asgi_analytics.encoding.encoder import EventEncoder
from asgi_analytics.errors import OperatorError
from asgi_analytics.migrate.runner import migrate, status
from asgi_analytics.reading import AnalyticsReader
from tests.admin.roles import RIGHTS, Roles, refused, stored
from tests.faults.balance import assert_balanced, assert_stored
from tests.kit.databases import Database
from tests.kit.fakes import eventually
from tests.schema.expected import VIEWS
from tests.schema.happenings import DAY, happened, insert, midnight, now
from tests.sinks.contract import ids, line
from tests.sinks.test_poison import POISON, with_timestamp

QUANTILE = "SELECT analytics_latency_quantile(0.5, now() - interval '9 days', now())"
ON = ("analytics_events", "analytics_dead_letters")
HIDDEN = ("analytics_visitor_keys", "analytics_midnight_visitors")
UNREAD = ("analytics_user_traits", *HIDDEN)


@pytest.mark.parametrize("careful", [0.0, 60.0])
async def test_the_writer_can_do_all_that_the_sink_does(
    roles: Roles, writer_dsn: str, careful: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_analytics.sinks.timescale.CAREFUL_SECONDS", careful)
    sink = TimescaleSink(writer_dsn)
    await sink.ready()
    good = [line("a"), line("b"), line("c")]
    assert (await sink.write(good)).duplicates == 0
    assert (await sink.write([*good, good[0]])).duplicates == 4
    late = with_timestamp((now() - 20 * DAY).isoformat(), "late")
    bad = [make() for make, _, _ in POISON.values()]
    receipt = await sink.write([*bad, late, good[1]])
    assert receipt.duplicates == 1
    assert [one.index for one in receipt.rejected] == list(range(len(bad)))
    again = await sink.write([*bad, late])
    assert (again.duplicates, len(again.rejected)) == (1, len(bad))
    assert await stored(roles.admin) == ids([*good, late])
    assert len(await stored(roles.admin, "analytics_dead_letters")) == len(bad)
    told = EventEncoder(service="shop", environment=None, hostname=None).encode(events.identify("ada", plan="pro"))
    assert (await sink.write([told])).duplicates == 0
    assert await roles.admin.fetchval("SELECT traits ->> 'plan' FROM analytics_user_traits") == "pro"
    key = await sink.visitor_key(now().date())
    assert key is not None
    await sink.note_visitors({"v": now()})
    assert await sink.seen_visitors({"v": now()}) == {"v"}
    await sink.upkeep()
    await sink.aclose()


async def test_a_running_application_whose_rights_were_taken_stores_everything_once_they_are_back(
    roles: Roles, writer_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_analytics.worker.worker.OPERATOR_BACKOFF", 0.05)
    monkeypatch.setattr("asgi_analytics.worker.worker.LAST_OPERATOR_BACKOFF", 0.1)
    client = AnalyticsClient.from_url(writer_dsn, service="shop", flush_interval=0.05, strict=True)
    task = UUID(int=7)
    tracked = 0

    def track() -> int:
        for _ in range(50):
            client.track(events.TaskStarted(task_id=task, user_id="ada"))
        return tracked + 50

    tracked = track()
    assert await client.aflush(20)
    await roles.admin.execute(f'REVOKE ALL ON analytics_events FROM "{roles.writer}"')
    tracked = track()
    await eventually(lambda: client.stats().retries >= 2)
    assert "analytics-migrate roles" in str(client.stats().last_error)
    assert_balanced(client.stats())
    await roles.make()
    assert await client.aclose(20)
    stats = client.stats()
    assert (stats.accepted, stats.stored, stats.rejected) == (tracked, tracked, {})
    await assert_stored(client, roles.database, await stored(roles.admin))
    assert len(await stored(roles.admin)) == tracked == 100


async def test_the_writer_can_do_nothing_else(roles: Roles, writer_dsn: str) -> None:
    sink = TimescaleSink(writer_dsn)
    batch = [line("a"), POISON["no service"][0]()]
    await sink.write(batch)
    await sink.aclose()
    connection = await asyncpg.connect(writer_dsn)
    columns = ["event_type", "service", "user_id", "session_id", "data", "context"]
    statements = [
        *(f"SELECT {column} FROM analytics_events" for column in columns),
        *(f"SELECT {column} FROM analytics_dead_letters" for column in ("reason", "payload", "service", "received_at")),
        *(f"SELECT * FROM {table}" for table in (*ON, *UNREAD, "analytics_migrations", *VIEWS)),
        *(f"INSERT INTO {table} DEFAULT VALUES" for table in UNREAD),
        "SELECT analytics_forget_visitors() FROM analytics_visitor_keys",
        "COPY analytics_events TO STDOUT",
        "SELECT analytics_events FROM analytics_events",
        "SELECT 1 FROM analytics_events WHERE data ? 'name'",
        QUANTILE,
        *(f"DELETE FROM {table}" for table in ON),
        *(f"UPDATE {table} SET id = gen_random_uuid()" for table in ON),
        *(f"TRUNCATE {table}" for table in ON),
        *(f"SELECT id FROM {table} FOR UPDATE" for table in ON),
        *(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; COMMIT" for table in ON),
        *(f"ALTER TABLE {table} ADD COLUMN x int" for table in ON),
        *(f"DROP TABLE {table}" for table in ON),
        *(f"CREATE INDEX ON {table} (id)" for table in ON),
        "INSERT INTO analytics_events (id, timestamp, event_type, service, data) SELECT gen_random_uuid(), now(), 'x', "
        "'x', '{}' RETURNING data",
        "INSERT INTO analytics_events (id, timestamp, event_type, service, data) SELECT id, timestamp, 'x', 'x', '{}' "
        "FROM analytics_events ON CONFLICT (timestamp, id) DO UPDATE SET data = '{}'",
        "INSERT INTO analytics_dead_letters (id, reason, payload) SELECT id, 'x', 'x' FROM analytics_dead_letters "
        "ON CONFLICT (id) DO UPDATE SET reason = 'x'",
        "INSERT INTO analytics_migrations (version, name, phase, checksum, duration_ms, library_version) "
        "VALUES (999, 'x', 'pre', 'x', 0, 'x')",
        "CREATE TABLE mine (x int)",
        "CREATE VIEW mine AS SELECT 1",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE SCHEMA mine",
        "CREATE EXTENSION hstore",
        "CREATE TRIGGER mine BEFORE INSERT ON analytics_events FOR EACH ROW EXECUTE FUNCTION "
        "suppress_redundant_updates_trigger()",
        "CREATE ROLE mine",
        f'SET ROLE "{roles.reader}"',
        f'GRANT "{roles.writer}" TO "{roles.reader}"',
    ]
    parts = await roles.admin.fetch(PARTS[roles.database.flavour])
    assert parts
    part = parts[-1][0]
    statements += [f"SELECT data FROM {part}", f"DELETE FROM {part}", f"TRUNCATE {part}", f"DROP TABLE {part}"]
    if roles.database.flavour == "timescaledb":
        statements += [
            "SELECT drop_chunks('analytics_events', now())",
            "SELECT remove_retention_policy('analytics_events')",
            "SELECT delete_job(job_id) FROM timescaledb_information.jobs WHERE hypertable_name = 'analytics_events'",
            "SELECT compress_chunk(c) FROM show_chunks('analytics_events') AS c",
            "CALL analytics_fill('analytics_user_days', now() - interval '3 days', now())",
            "CALL refresh_continuous_aggregate('analytics_user_days', NULL, NULL)",
        ]
    else:
        statements += [
            *(f"TABLE analytics_{name}" for name in ("changes", "stale", "fills", "gone_days", "events_default")),
            "INSERT INTO analytics_changes VALUES (now())",
            "UPDATE analytics_fills SET filled_until = now()",
            "CALL analytics_fill('analytics_user_days', now() - interval '3 days', now())",
            "SELECT analytics_collect()",
        ]
    before = await roles.admin.fetch("SELECT * FROM analytics_events"), await roles.admin.fetch(RIGHTS)
    for statement in statements:
        await refused(connection, statement)
    await connection.close()
    assert (await roles.admin.fetch("SELECT * FROM analytics_events"), await roles.admin.fetch(RIGHTS)) == before
    assert await stored(roles.admin) == ids(batch[:1])


PARTS = {
    "timescaledb": "SELECT show_chunks('analytics_events')::text",
    "postgresql": "SELECT partition::text FROM analytics_partitions() ORDER BY day",
}


async def test_the_reader_can_read_everything(roles: Roles, reader_dsn: str) -> None:
    sink = TimescaleSink(roles.database.dsn)
    batch = [line("a"), POISON["no service"][0]()]
    await sink.write(batch)
    await sink.aclose()
    request = happened(Random(1), now() - 3 * DAY, "api_request", method="GET", status_code=200, duration_ms=12.5)
    await insert(roles.admin, [request])
    connection = await asyncpg.connect(reader_dsn)
    for when in ("before a refresh", "after it"):
        assert sorted(row["id"] for row in await connection.fetch("TABLE analytics_events")) == sorted(
            [*ids(batch[:1]), request.id]
        ), when
        assert len(await connection.fetch("TABLE analytics_dead_letters")) == 1
        for view in VIEWS:
            assert await connection.fetch(f"TABLE {view}") == await roles.admin.fetch(f"TABLE {view}"), when
        assert len(await connection.fetch("TABLE analytics_daily_active_users")) == 2
        assert len(await connection.fetch("TABLE analytics_api_latency_hourly")) == 1
        assert await connection.fetchval(QUANTILE) == pytest.approx(12.5, rel=0.02)
        await refresh_views(roles.database.dsn)
    await connection.close()
    report = await status(reader_dsn)
    assert (report.pending, report.flavour) == ((), roles.database.flavour)


async def test_the_reader_can_read_traits_and_no_key(roles: Roles, reader_dsn: str) -> None:
    reader = await asyncpg.connect(reader_dsn)
    assert await reader.fetch("TABLE analytics_user_traits") == []
    for table in HIDDEN:
        await refused(reader, f"TABLE {table}")
    await refused(reader, "SELECT analytics_visitor_key(now()::date)")
    await refused(reader, "SELECT analytics_seen_visitors(ARRAY['v'], ARRAY[now()])")
    await refused(reader, "SELECT analytics_note_visitors(ARRAY['v'], ARRAY[now()])")
    await reader.close()


async def test_the_reader_can_keep_and_delete_funnels_and_the_writer_cannot_see_them(
    roles: Roles, reader_dsn: str, writer_dsn: str
) -> None:
    async with AnalyticsReader.from_url(reader_dsn) as reader:
        kept = await reader.create_funnel("checkout", ["cart_filled", "order_placed"])
        await reader.delete_funnel((await reader.create_funnel("other", ["cart_filled"])).name)
        assert await reader.list_funnels() == [kept]
    connection = await asyncpg.connect(reader_dsn)
    await refused(connection, "UPDATE analytics_funnels SET name = 'mine'")
    await refused(connection, "TRUNCATE analytics_funnels")
    await connection.close()
    connection = await asyncpg.connect(writer_dsn)
    for statement in ("TABLE analytics_funnels", "DELETE FROM analytics_funnels"):
        await refused(connection, statement)
    await connection.close()


async def test_the_reader_can_read_the_views_of_later_aggregates(roles: Roles, reader_dsn: str) -> None:
    await roles.admin.execute("CREATE VIEW analytics_later AS SELECT 1 AS one; CREATE VIEW private AS SELECT 1 AS one")
    reader = await asyncpg.connect(reader_dsn)
    await refused(reader, "TABLE analytics_later")
    await roles.make()
    assert await reader.fetchval("TABLE analytics_later") == 1
    await refused(reader, "TABLE private")
    await reader.close()


async def test_the_reader_can_ask_what_is_pending(roles: Roles, reader_dsn: str) -> None:
    await insert(roles.admin, [happened(Random(1), midnight(3), "task_created", 1)])
    reader = await asyncpg.connect(reader_dsn)
    pending = await reader.fetch("SELECT * FROM analytics_pending()")
    assert "analytics_task_stats_daily" in {row["view_name"] for row in pending}
    assert pending == await roles.admin.fetch("SELECT * FROM analytics_pending()")
    await reader.close()


async def test_the_reader_can_write_nothing(roles: Roles, reader_dsn: str) -> None:
    connection = await asyncpg.connect(reader_dsn)
    tables = (*ON, "analytics_migrations")
    for statement in [
        "INSERT INTO analytics_events (id, timestamp, event_type, service, data) VALUES "
        "(gen_random_uuid(), now(), 'x', 'x', '{}')",
        "INSERT INTO analytics_dead_letters (id, reason, payload) VALUES (gen_random_uuid(), 'x', 'x')",
        "COPY analytics_events FROM STDIN",
        *(f"DELETE FROM {table}" for table in tables),
        *(f"TRUNCATE {table}" for table in tables),
        "UPDATE analytics_events SET data = '{}'",
        "UPDATE analytics_migrations SET checksum = ''",
        "CREATE TABLE mine (x int)",
        "DROP VIEW analytics_daily_active_users",
        f'SET ROLE "{roles.writer}"',
        "SELECT drop_chunks('analytics_events', now())"
        if roles.database.flavour == "timescaledb"
        else "SELECT analytics_upkeep()",
    ]:
        await refused(connection, statement)
    await connection.close()
    with pytest.raises(OperatorError, match="analytics-migrate roles"):
        await (sink := TimescaleSink(reader_dsn)).ready()
    await sink.aclose()


UPKEEP = "analytics_upkeep()"


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_without_the_right_to_the_upkeep_a_writer_leaves_it_to_cron_and_says_so_once(
    roles: Roles, writer_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    sink = TimescaleSink(writer_dsn)
    await sink.upkeep()
    assert UPKEEP not in caplog.text
    await roles.admin.execute(f'REVOKE EXECUTE ON FUNCTION {UPKEEP} FROM "{roles.writer}"')
    await sink.upkeep()
    await sink.upkeep()
    [said] = [message for message in caplog.messages if UPKEEP in message]
    assert "analytics-migrate refresh in cron" in said
    assert "analytics-migrate roles" in said
    await roles.make()
    await sink.upkeep()
    await sink.aclose()


@pytest.mark.parametrize("grantee", ["a role", "PUBLIC"])
async def test_who_may_insert_before_post_may_call_the_upkeep(empty_database: Database, grantee: str) -> None:
    """PUBLIC may not call it: a role that was granted INSERT by hand, before the upkeep was made, is not forgotten."""
    roles = Roles(empty_database, await empty_database.connect())
    try:
        await migrate(empty_database.dsn, phase="pre")
        application, analyst = await roles.login("An application"), await roles.login("analyst")
        name = f'"{roles.made[-2]}"' if grantee == "a role" else grantee
        await roles.admin.execute(f"GRANT INSERT ON analytics_events TO {name}")
        await migrate(empty_database.dsn, phase="post")
        everybody = grantee == "PUBLIC"
        for dsn, allowed in ((application, True), (analyst, everybody)):
            connection = await asyncpg.connect(dsn)
            assert await connection.fetchval(f"SELECT has_function_privilege('{UPKEEP}', 'EXECUTE')") is allowed, dsn
            await connection.close()
    finally:
        await roles.drop()


@pytest.mark.parametrize("database", ["timescaledb"], indirect=True)
@pytest.mark.parametrize("careful", [0.0, 60.0])
async def test_the_writer_writes_into_compressed_chunks_and_new_ones(
    roles: Roles, writer_dsn: str, reader_dsn: str, careful: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_analytics.sinks.timescale.CAREFUL_SECONDS", careful)
    sink = TimescaleSink(writer_dsn)
    old = [with_timestamp((midnight(10) + timedelta(minutes=minute)).isoformat(), f"{minute}") for minute in range(20)]
    assert (await sink.write(old[:10])).duplicates == 0
    compressed = await roles.admin.fetch("SELECT compress_chunk(c) FROM show_chunks('analytics_events') AS c")
    assert len(compressed) == 1
    assert (await sink.write(old)).duplicates == 10
    bad = with_timestamp("1999-12-31T23:59:59Z")
    assert len((await sink.write([old[3], bad])).rejected) == 1
    new = [with_timestamp((midnight(days) + timedelta(hours=1)).isoformat(), f"{days}") for days in (40, 30, 20, -1)]
    assert (await sink.write(new)).duplicates == 0
    await sink.aclose()
    assert len(await roles.admin.fetch("SELECT show_chunks('analytics_events')")) == 5
    reader = await asyncpg.connect(reader_dsn)
    assert await stored(reader) == ids([*old, *new])
    assert len(await reader.fetch("TABLE analytics_events")) == 24
    assert await reader.fetchval("SELECT sum(total_events) FROM analytics_daily_active_users") == 24
    await reader.close()
    writer = await asyncpg.connect(writer_dsn)
    for row in await roles.admin.fetch("SELECT show_chunks('analytics_events')::text AS chunk"):
        await refused(writer, f"SELECT data FROM {row['chunk']}")
        await refused(writer, f"DELETE FROM {row['chunk']}")
    await writer.close()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_the_writer_keeps_plain_postgresql_fresh_or_leaves_it_to_cron(
    roles: Roles, writer_dsn: str, reader_dsn: str
) -> None:
    newest = "SELECT max(day) FROM analytics_partitions()"
    sink = TimescaleSink(writer_dsn)
    await sink.write([with_timestamp((midnight(2) + timedelta(hours=1)).isoformat(), "a")])
    last = await roles.admin.fetchval(newest)
    name = f"analytics_events_{last:%Y%m%d}"
    await roles.admin.execute(f"DROP TABLE {name}")
    await roles.admin.execute(f'REVOKE EXECUTE ON FUNCTION analytics_upkeep() FROM PUBLIC, "{roles.writer}"')
    await sink.upkeep()
    assert await roles.admin.fetchval(newest) == last - DAY
    await roles.make()
    await sink.upkeep()
    assert await roles.admin.fetchval(newest) == last
    new = with_timestamp((midnight(0) + 3 * DAY).isoformat(), "b")
    await sink.write([new])
    assert await roles.admin.fetchval("SELECT count(*) FROM analytics_user_days_filled") == 1
    reader = await asyncpg.connect(reader_dsn)
    assert await reader.fetchval("SELECT sum(total_events) FROM analytics_daily_active_users") == 2
    await reader.close()
    await sink.aclose()
