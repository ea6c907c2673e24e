"""The loop: what was committed is copied once, whatever fails."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from asgi_analytics.errors import OperatorError, TransientError
from asgi_analytics.exports.erasures import erase_in_exports
from asgi_analytics.exports.exporter import Exporter
from asgi_analytics.exports.pages import ALWAYS, LAST_ID, NEVER, STATEMENTS, Key, Lane, PageReader
from asgi_analytics.exports.session import SQL, open_session
from asgi_analytics.exports.setup import rebase, want_backfill
from asgi_analytics.exports.state import State
from asgi_analytics.exports.status import export_status
from tests.exports.stored import USERS, Fake, all_ids, an_event, ids, make, read, run, store
from tests.kit.databases import Database


@pytest.mark.parametrize("tells_places", [True, False])
async def test_a_refused_row_is_isolated_and_kept_and_can_be_tried_again(
    database: Database, tmp_path: Path, tells_places: bool
) -> None:
    random = Random(3)
    connection = await database.connect()
    await make(database, tmp_path)
    rows = await store(connection, [an_event(random) for _ in range(150)])
    fake = Fake()
    fake.tells_places = tells_places
    bad = {str(row[0]): row for row in random.sample(rows, 5)}
    fake.refused = set(bad)
    ran = await run(database, warehouse=fake)
    assert (ran.events, ran.dead_letters) == (145, 5)
    assert ids(fake.rows) == ids([row for row in rows if str(row[0]) not in bad])
    letters = await connection.fetch("SELECT * FROM analytics_export_dead_letters")
    assert {(letter["name"], str(letter["id"]), letter["timestamp"], letter["reason"]) for letter in letters} == {
        ("lake", id, row[1], "a row is not valid") for id, row in bad.items()
    }
    assert all(letter["token"].startswith("lake-") for letter in letters)
    for status, number in (("completed", 145), ("failed", 0)):
        sql = "SELECT sum(events_synced) FROM analytics_warehouse_sync_status WHERE sync_status = $1"
        assert await connection.fetchval(sql, status) == number
    assert (await run(database, warehouse=fake)).events == 0
    still = fake.refused.pop()
    fake.refused = {still}
    ran = await run(database, warehouse=fake, retry=True)
    assert (ran.events, ran.dead_letters) == (4, 1)
    [letter] = await connection.fetch("SELECT id FROM analytics_export_dead_letters")
    assert str(letter["id"]) == still
    fake.refused = set()
    assert (await run(database, warehouse=fake, retry=True)).events == 1
    assert ids(fake.rows) == ids(rows)
    assert not await connection.fetch("TABLE analytics_export_dead_letters")


async def test_a_warehouse_that_is_away_is_waited_for_and_one_that_refuses_all_is_told_of(
    database: Database, tmp_path: Path
) -> None:
    random = Random(4)
    connection = await database.connect()
    await make(database, tmp_path)
    await store(connection, [an_event(random) for _ in range(100)])
    fake = Fake()
    fake.failures = [TransientError("429 Too Many Requests", retry_after=0.01), TransientError("503")]
    assert (await run(database, warehouse=fake)).events == 100
    await store(connection, [an_event(random) for _ in range(100)])
    fake.failures = [OperatorError("the table is another one")]
    with pytest.raises(OperatorError, match="another one"):
        await run(database, warehouse=fake)
    status = (await export_status(database.dsn)).exports[0]
    assert (status.attempts, status.last_error, status.events, status.events_behind) == (
        1, "the table is another one", 100, 100
    )  # fmt: skip
    pending = await connection.fetchrow("SELECT * FROM analytics_warehouse_sync_status WHERE sync_status = 'pending'")
    assert pending["error_details"] == "the table is another one"
    fake.failures = [ValueError("hunter2")]
    with pytest.raises(OperatorError, match=r"ValueError \(stored.py"):
        await run(database, warehouse=fake)
    fake.failures = [TransientError("away")] * 99
    with pytest.raises(TransientError, match="away"):
        await run(database, warehouse=fake, patience=0.1)
    fake.failures = []
    assert (await run(database, warehouse=fake)).events == 100
    assert ids(fake.rows) == await all_ids(connection)
    assert (await export_status(database.dsn)).exports[0].attempts == 0


async def test_a_backfill_is_copied_once_whatever_its_ranges(database: Database, tmp_path: Path) -> None:
    random = Random(5)
    connection = await database.connect()
    now = datetime.now(UTC)
    old = await store(connection, [an_event(random, now - timedelta(hours=hour)) for hour in range(400)])
    await connection.execute("UPDATE analytics_events SET export_xid = NULL WHERE timestamp < $1", old[200][1])
    await make(database, tmp_path)
    fake = Fake()
    new = await store(connection, [an_event(random, now - timedelta(hours=hour, minutes=1)) for hour in range(100)])
    for since, until in ((300, 200), (350, 250), (250, 150)):
        await want_backfill(
            database.dsn, "lake", since=now - timedelta(hours=since), until=now - timedelta(hours=until)
        )
        fake.failures = [TransientError("away")]
        await run(database, warehouse=fake)
    assert ids(fake.rows) == ids([*new, *old[151:351]])
    await want_backfill(database.dsn, "lake")
    waiting = (await export_status(database.dsn, "lake")).exports[0]
    assert waiting.backfill_from is not None
    await run(database, warehouse=fake)
    assert ids(fake.rows) == ids([*new, *old])
    assert (await export_status(database.dsn, "lake")).exports[0].backfill_from is None


async def test_what_is_not_copied_is_not_dropped(database: Database, tmp_path: Path) -> None:
    random = Random(6)
    connection = await database.connect()
    floor = "SELECT analytics_retention_floor()"
    assert await connection.fetchval(floor) is None
    now = datetime.now(UTC)
    old = await store(connection, [an_event(random, now - timedelta(days=day)) for day in (80, 60)])
    await make(database, tmp_path)
    assert await connection.fetchval(floor) is None
    slow = await database.connect()
    begun = slow.transaction()
    await begun.start()
    [late] = await store(slow, [an_event(random, now - timedelta(days=70))])
    fake = Fake()
    await run(database, warehouse=fake)
    assert await connection.fetchval(floor) is None
    await begun.commit()
    await store(connection, [an_event(random, now)])
    assert await connection.fetchval(floor) == late[1]
    fake.failures = [OperatorError("full")]
    with pytest.raises(OperatorError):
        await run(database, warehouse=fake)
    assert await connection.fetchval(floor) == late[1]
    await run(database, warehouse=fake)
    assert await connection.fetchval(floor) is None
    await want_backfill(database.dsn, "lake", since=now - timedelta(days=65))
    assert await connection.fetchval(floor) == now - timedelta(days=65)
    await want_backfill(database.dsn, "lake", since=now - timedelta(days=85))
    await run(database, warehouse=fake)
    assert await connection.fetchval(floor) is None
    assert ids(fake.rows) == await all_ids(connection)
    assert str(old[0][0]) in ids(fake.rows)


async def test_who_is_erased_is_erased_there_too_also_when_it_was_away(database: Database, tmp_path: Path) -> None:
    random = Random(7)
    connection = await database.connect()
    await make(database, tmp_path)
    await store(connection, [an_event(random) for _ in range(200)])
    fake = Fake()
    await run(database, warehouse=fake)
    await store(connection, [an_event(random) for _ in range(200)])
    fake.failures = [TransientError("away")]  # the page is fixed, and is sent again without the person
    with pytest.raises(TransientError):
        await run(database, warehouse=fake, patience=0)
    gone = USERS[:2]
    async with connection.transaction():
        await connection.execute("DELETE FROM analytics_events WHERE user_id = ANY ($1)", gone)
        assert await connection.fetchval("SELECT analytics_erase_from_exports($1)", gone) == 2
    assert (await export_status(database.dsn)).exports[0].erasures == 2
    ran = await run(database, warehouse=fake)
    assert ran.erased > 0
    assert ids(fake.rows) == await all_ids(connection)
    assert not {row[3] for row in fake.rows} & {str(user) for user in gone}
    assert not await connection.fetch("TABLE analytics_export_erasures")


async def test_a_window_that_is_empty_reads_no_row(database: Database, tmp_path: Path) -> None:
    random = Random(8)
    connection = await database.connect()
    await store(connection, [an_event(random) for _ in range(2000)])
    await make(database, tmp_path)
    if database.flavour == "timescaledb":
        await connection.execute("SELECT compress_chunk(c) FROM show_chunks('analytics_events') AS c")
    else:
        assert await connection.fetchval(SQL["has_index"])
        await connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
    await connection.execute("SET plan_cache_mode = force_custom_plan")
    newest = await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    first, last = Key(newest - 1, ALWAYS, LAST_ID), Key(newest + 10, ALWAYS, LAST_ID)
    plan = await connection.fetch(
        f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {STATEMENTS['window']}",
        *first, *last, newest, newest + 10, None, [], 100, "{}",
    )  # fmt: skip
    text = "\n".join(line for (line,) in plan)
    if database.flavour == "timescaledb":
        assert "_ts_meta_v2_min_export_xid" in text, text
        scans = re.findall(r"Scan on \S+_chunk_compressed \(actual rows=([\d.]+)", text)
    else:
        scans = re.findall(r"Index Scan using \S+_export_xid_idx on \S+ \S+ \(actual rows=([\d.]+)", text)
    assert len(scans) > 15, text
    assert set(map(float, scans)) == {0.0}, text


async def test_a_page_reads_its_rows_only_and_not_all_that_is_left(database: Database, tmp_path: Path) -> None:
    """Also before there are statistics, when the planner expects few rows: it would sort all of them for each page."""
    random = Random(12)
    connection = await database.connect()
    await make(database, tmp_path)
    now = datetime.now(UTC).replace(hour=12)
    for _ in range(50):
        async with connection.transaction():
            await store(connection, [an_event(random, now + timedelta(seconds=random.random())) for _ in range(60)])
    xids = await connection.fetchrow("SELECT min(export_xid), max(export_xid) + 1 FROM analytics_events")
    arguments: dict[Lane, tuple[Any, ...]] = {
        "window": (Key(xids[0] - 1, ALWAYS, LAST_ID), Key(xids[1], ALWAYS, LAST_ID), (*xids, None, [])),
        "backfill": (Key(0, NEVER, LAST_ID), Key(0, ALWAYS, LAST_ID), (xids[1], xids[1], [])),
    }
    async with open_session(database.dsn, None) as session:
        for lane, (first, last, which) in arguments.items():
            plan = await session.fetch(
                f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {STATEMENTS[lane]}", *first, *last, *which, 100, "{}"
            )
            text = "\n".join(line for (line,) in plan)
            events = re.findall(r"Scan \S*(?:using \S+ )?on \S*(?:chunk|events)\S* \S* ?\(actual rows=([\d.]+)", text)
            assert 100 <= sum(map(float, events)) <= 300, text


async def test_the_next_page_is_read_while_one_is_loaded(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is read once, and fixed after the one before is done and before it is loaded; a failure to read can wait."""
    random = Random(13)
    connection = await database.connect()
    await make(database, tmp_path)
    rows = await store(connection, [an_event(random) for _ in range(120)])
    steps: list[str] = []
    reads = 0
    is_read = threading.Event()

    class Slow(Fake):
        def load(self, batch: Any, token: str) -> None:
            assert steps.count("fix") == len(self.tokens) + 1
            assert is_read.wait(30)
            is_read.clear()
            super().load(batch, token)
            steps.append("load")

    def note(cls: type, method: str) -> None:
        real = getattr(cls, method)

        async def noted(self: Any, *arguments: Any, **options: Any) -> Any:
            result = await real(self, *arguments, **options)
            steps.append(method)
            return result

        monkeypatch.setattr(cls, method, noted)

    for method in ("fix", "advance"):
        note(State, method)
    real = PageReader.window

    async def window(self: Any, *arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        page = await real(self, *arguments)
        steps.append("read")
        if reads in (2, 3, 5):  # ahead
            is_read.set()
        if reads == 3:
            raise asyncpg.QueryCanceledError("only this once")
        return page

    monkeypatch.setattr(PageReader, "window", window)
    slow = Slow()
    assert (await run(database, warehouse=slow)).events == len(rows)
    assert ids(slow.rows) == ids(rows)
    page = ["fix", "read", "load", "advance"]
    assert steps == ["read", *page, *page, "read", *page]


async def test_who_is_erased_while_a_page_is_under_way_is_erased(database: Database, tmp_path: Path) -> None:
    random = Random(14)
    connection = await database.connect()
    await make(database, tmp_path)
    await store(connection, [an_event(random) for _ in range(200)])
    loop = asyncio.get_running_loop()
    gone: list[UUID] = []

    async def erase() -> None:
        async with connection.transaction():
            await connection.execute("DELETE FROM analytics_events WHERE user_id = ANY ($1)", gone)
            await connection.fetchval("SELECT analytics_erase_from_exports($1)", gone)

    class Erasing(Fake):
        def load(self, batch: Any, token: str) -> None:
            super().load(batch, token)
            if gone:
                asyncio.run_coroutine_threadsafe(erase(), loop).result(30)
                gone.clear()

    erasing = Erasing()
    erasing.failures = [TransientError("away")]  # a page is fixed, and others are behind it
    with pytest.raises(TransientError):
        await run(database, warehouse=erasing, patience=0)
    gone += USERS[:4]
    assert (await run(database, warehouse=erasing)).erased > 0
    assert ids(erasing.rows) == await all_ids(connection)
    await store(connection, [an_event(random) for _ in range(200)])
    gone += USERS[4:]  # in the middle of a run, whose next page may have been read
    await run(database, warehouse=erasing)
    await run(database, warehouse=erasing)
    assert ids(erasing.rows) == await all_ids(connection)
    assert not {row[3] for row in erasing.rows} & {str(user) for user in USERS[4:]}


async def test_another_cluster_is_refused_until_it_is_told_to_go_on(database: Database, tmp_path: Path) -> None:
    """As after a dump was restored: the numbers of the rows are far above those of this cluster."""
    random = Random(9)
    connection = await database.connect()
    await make(database, tmp_path)
    fake = Fake()
    await store(connection, [an_event(random) for _ in range(50)])
    await run(database, warehouse=fake)
    left = await store(connection, [an_event(random) for _ in range(10)])
    await connection.execute("UPDATE analytics_events SET export_xid = export_xid + 1000000")
    await connection.execute(
        "UPDATE analytics_exports SET exported = (pg_snapshot_xmax(exported)::text::bigint + 1000000 || ':'"
        " || pg_snapshot_xmax(exported)::text::bigint + 1000000 || ':')::pg_snapshot"
    )
    await connection.execute("UPDATE analytics_export_origin SET system_identifier = 1")
    with pytest.raises(OperatorError, match="analytics-export rebase"):
        await run(database, warehouse=fake)
    assert (await rebase(database.dsn)).is_done
    assert not (await rebase(database.dsn)).is_done
    new = await store(connection, [an_event(random) for _ in range(10)])
    ran = await run(database, warehouse=fake)
    assert ran.events == len(left) + len(new)
    assert ids(fake.rows) == await all_ids(connection)
    assert (await run(database, warehouse=fake)).events == 0
    assert await connection.fetchval("SELECT events_behind FROM analytics_export_lag") == 0


async def test_an_erasure_that_cannot_be_done_is_told_and_done_by_the_next_run(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    random = Random(10)
    connection = await database.connect()
    await make(database, tmp_path)
    await store(connection, [an_event(random) for _ in range(100)])
    await run(database)
    await connection.execute("DELETE FROM analytics_events WHERE user_id = $1", USERS[0])

    def refuse(*paths: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    [failed] = await erase_in_exports(database.dsn, [USERS[0]], patience=0)
    assert (failed.name, failed.is_done, failed.error) == (
        "lake",
        False,
        "the files cannot be written: Permission denied",
    )
    assert (await export_status(database.dsn)).exports[0].erasures == 1
    monkeypatch.undo()
    assert ids(read(tmp_path)) != await all_ids(connection)
    assert (await run(database)).erased > 0
    assert ids(read(tmp_path)) == await all_ids(connection)


async def test_two_processes_take_turns_and_a_pooler_is_refused(
    database: Database, tmp_path: Path, make_pgbouncer: Callable[..., Any]
) -> None:
    random = Random(11)
    connection = await database.connect()
    await make(database, tmp_path)
    fake = Fake()
    fake.lose_answer = lambda: random.random() < 0.2
    for _ in range(5):
        await store(connection, [an_event(random) for _ in range(60)])
        await asyncio.gather(run(database, warehouse=fake, patience=20), run(database, warehouse=fake, patience=20))
    assert ids(fake.rows) == await all_ids(connection)
    pooler = make_pgbouncer(database)
    with pytest.raises(OperatorError, match="transaction pooler"):
        await Exporter(pooler.dsn, "lake", warehouse=fake).run(patience=0)
