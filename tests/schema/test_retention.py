"""Raw rows are dropped category by category, each when its time is over and never before; aggregates stay."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from random import Random

import asyncpg

from asgi_analytics.admin.refresh import refresh
from asgi_analytics.admin.retention import retention
from asgi_analytics.events.base import event_types
from asgi_analytics.events.named import NAMED
from asgi_analytics.migrate.files import shipped_folder
from asgi_analytics.migrate.runner import migrate
from tests.kit.databases import Database
from tests.schema.expected import assert_same
from tests.schema.happenings import (
    DAY,
    HOUR,
    Happened,
    all_rows,
    compress,
    drop_old,
    happened,
    insert,
    keep,
    keep_fresh,
    lose,
    midnight,
    now,
)

DAYS = {"system": 20, "interaction": 40, "activity": 55, "content": 70, "transaction": 70}
CATEGORIES = {
    "api_request": "system",
    "task_created": "system",
    "page_view": "interaction",
    "heard_nowhere": "interaction",
    "user_logged_in": "activity",
    "payment_failed": "transaction",
    "review_posted": "content",
}


def some(random: Random, number: int, oldest: int) -> list[Happened]:
    """Return events of all categories, some of them at the ends of days."""
    found = []
    for _ in range(number):
        day = midnight(random.randrange(oldest + 1))
        at = day + random.choice([0 * HOUR, DAY - timedelta(microseconds=1), random.random() * DAY])
        found.append(happened(random, min(at, now()), random.choice(list(CATEGORIES)), random.randrange(5)))
    return found


def left(events: list[Happened], days: dict[str, int] = DAYS) -> set[object]:
    """Return the ids of what is kept: whole days of UTC go when the time of their last moment is over."""
    return {e.id for e in events if e.timestamp >= midnight(days[CATEGORIES[e.event_type]])}


async def stored(connection: asyncpg.Connection) -> set[object]:
    return {row[0] for row in await connection.fetch("SELECT id FROM analytics_events")}


async def test_each_category_is_kept_for_its_time_and_aggregates_stay(database: Database) -> None:
    random = Random(1)
    connection = await database.connect()
    events = some(random, 900, 80)
    await insert(connection, events)
    await refresh(connection)
    await compress(connection, database)
    before = await all_rows(connection)
    await keep(connection, **DAYS)
    [due] = await connection.fetch("SELECT days, events FROM analytics_due() WHERE category = 'system'")
    over = [e for e in events if CATEGORIES[e.event_type] == "system" and e.timestamp < midnight(20)]
    assert (due["days"], due["events"]) == (len({e.timestamp.date() for e in over}), len(over))

    await drop_old(connection)
    assert await stored(connection) == left(events)
    assert_same(await all_rows(connection), before)
    assert await connection.fetch("SELECT * FROM analytics_due()") == []

    # Days of which something was dropped are not computed again, not even when more is kept from now on.
    await keep(connection, system=75)
    late = some(random, 30, 0)
    await insert(connection, [e._replace(timestamp=midnight(random.randrange(21, 60)) + HOUR) for e in late])
    await refresh(connection)
    await refresh(connection, midnight(80), now())
    await keep_fresh(connection, database)
    assert_same(await all_rows(connection), before)
    lost = "SELECT analytics_dropped_before($1)"
    assert await connection.fetchval(lost, ["api_request"]) == midnight(20)
    assert await connection.fetchval(lost, ["heard_nowhere", "payment_failed"]) == midnight(40)
    assert await connection.fetchval(lost, None) == midnight(20)


async def test_what_comes_late_is_dropped_a_day_later_and_what_is_needed_is_not(database: Database) -> None:
    random = Random(2)
    connection = await database.connect()
    await keep(connection, **DAYS)
    events = some(random, 100, 80)
    await insert(connection, events)
    await drop_old(connection)
    if database.flavour == "timescaledb":  # the plain one has no job beside the worker, which fills first
        # Nothing is dropped that the aggregates do not have yet.
        assert await stored(connection) == {e.id for e in events}
    await connection.execute(
        "CREATE OR REPLACE FUNCTION analytics_retention_floor() RETURNS timestamptz LANGUAGE sql STABLE"
        f" RETURN timestamptz '{midnight(65).isoformat()}'"
    )
    await refresh(connection)
    only = {category: max(days, 65) for category, days in DAYS.items()}
    assert await stored(connection) == left(events, only)
    await connection.execute(
        "CREATE OR REPLACE FUNCTION analytics_retention_floor() RETURNS timestamptz LANGUAGE sql STABLE"
        " RETURN NULL::timestamptz"
    )
    await refresh(connection)
    assert await stored(connection) == left(events)
    late = [happened(random, midnight(30), "api_request"), happened(random, midnight(30), "payment_failed")]
    late += [happened(random, midnight(300), "api_request"), happened(random, midnight(300), "heard_nowhere")]
    await insert(connection, late)
    await keep(connection, system=19)  # a day passes
    await refresh(connection)
    assert await stored(connection) == left(events + late, {**DAYS, "system": 19})


async def test_a_clock_that_has_jumped_and_a_part_that_fails_cost_nothing(database: Database) -> None:
    random = Random(3)
    connection, reader = await database.connect(), await database.connect()
    await keep(connection, **DAYS)
    events = [happened(random, midnight(day) + HOUR, "api_request") for day in (25, 30, 35)]
    await insert(connection, events)
    await connection.execute("UPDATE analytics_drop_state SET seen_at = now() - INTERVAL '8 days'")
    await refresh(connection)
    await drop_old(connection)
    assert await stored(connection) == left(events, DAYS | {"system": 40})
    await connection.execute(
        "UPDATE analytics_drop_state SET not_before = now() + INTERVAL '2 years'"
    )  # set back since

    transaction = reader.transaction()
    await transaction.start()
    part = "SELECT name FROM analytics_event_parts() WHERE since = $1"
    await reader.execute(f"LOCK TABLE {await reader.fetchval(part, midnight(30))} IN ACCESS SHARE MODE")
    # Meanwhile writers store, and readers read.
    dropping = asyncio.create_task(drop_old(connection))
    writer = await database.connect()
    fresh = [happened(random, now(), "api_request")]
    await asyncio.wait_for(insert(writer, fresh), 10)
    await dropping
    assert {events[1].id, fresh[0].id} <= await stored(writer)
    await drop_old(connection)  # an hour later
    if database.flavour == "timescaledb":
        assert await stored(writer) == {events[1].id, fresh[0].id}
    await transaction.commit()
    await connection.execute("UPDATE analytics_drop_state SET not_before = '-infinity'")
    await drop_old(connection)
    assert await stored(writer) == {fresh[0].id}


async def test_nothing_is_dropped_before_its_time_whatever_is_set_meanwhile(database: Database) -> None:
    random = Random(7)
    connection = await database.connect()
    events = some(random, 300, 80)
    await insert(connection, events)
    await refresh(connection)
    await compress(connection, database)
    await keep(connection, **DAYS)
    for name, value in (
        ("timezone", "Pacific/Kiritimati"), ("datestyle", "German"), ("intervalstyle", "sql_standard"),
    ):  # fmt: skip
        await connection.execute("SELECT set_config($1, $2, false)", name, value)

    # A step says what will be dropped; then the operator keeps it for longer.
    await connection.fetchval("SELECT analytics_drop_old()")
    assert await connection.fetchval("SELECT analytics_dropped_before($1)", ["api_request"]) == midnight(20)
    await keep(connection, system=60)
    await drop_old(connection)
    assert await stored(connection) == left(events, {**DAYS, "system": 60})

    # The clock was three days ahead when the pass began, and was set back.
    await connection.execute("UPDATE analytics_dropped SET dropped_before = dropped_before + INTERVAL '3 days'")
    await connection.execute(
        "UPDATE analytics_drop_state SET cursor = '-infinity', seen_at = now() + INTERVAL '3 days'"
    )
    await drop_old(connection)
    assert await stored(connection) == left(events, {**DAYS, "system": 60})

    # What was left is dropped when its time is over, although it was said long ago that it may be gone. Nobody did
    # anything for three days meanwhile.
    await connection.execute("SELECT set_config('timezone', 'America/St_Johns', false)")
    await connection.execute("SELECT set_config('datestyle', 'SQL, DMY', false)")
    await connection.execute("UPDATE analytics_drop_state SET seen_at = now() - INTERVAL '3 days'")
    await keep(connection, **{category: days - 2 for category, days in DAYS.items()})
    await drop_old(connection)
    assert await stored(connection) == left(events, {category: days - 2 for category, days in DAYS.items()})
    assert await connection.fetch("SELECT * FROM analytics_due()") == []


async def test_rows_that_are_kept_for_a_day_leave_their_aggregates(database: Database) -> None:
    random = Random(4)
    connection = await database.connect()
    events = [happened(random, now() - hours * HOUR, "api_request", 1) for hours in range(2, 96)]
    events += [happened(random, now() - hours * HOUR, "payment_failed", 1) for hours in range(2, 96)]
    await insert(connection, events)
    await refresh(connection)
    before = await all_rows(connection)
    await keep(connection, system=1)
    for _ in range(3):
        await keep_fresh(connection, database)
        await refresh(connection)
    assert await stored(connection) == left(events, {**DAYS, "system": 1})
    assert_same(await all_rows(connection), before)
    await keep(connection, system=90)
    await keep_fresh(connection, database)
    await insert(connection, [happened(random, midnight(1) - HOUR, "api_request", 1)])
    await keep_fresh(connection, database)
    assert_same(await all_rows(connection), before)


async def test_the_database_knows_the_categories_of_the_catalogue(database: Database) -> None:
    connection = await database.connect()
    known = dict(map(tuple, await connection.fetch("SELECT event_type, category FROM analytics_event_types")))
    classes = {tag: cls for tag, cls in event_types().items() if cls.__module__.startswith("asgi_analytics.events.")}
    assert known == {tag: cls.category for tag, cls in classes.items()} | dict.fromkeys(NAMED, "interaction")
    kept = dict(map(tuple, await connection.fetch("SELECT category, keep FROM analytics_retention")))
    assert {category: keep.days for category, keep in kept.items()} == {
        "system": 90, "interaction": 365, "activity": 730, "transaction": 7 * 365, "content": 7 * 365,
    }  # fmt: skip


async def test_retention_is_shown_and_changed(database: Database) -> None:
    random = Random(5)
    connection = await database.connect()
    events = some(random, 300, 120)
    await insert(connection, events)

    def over(days: dict[str, int]) -> int:
        return sum(e.timestamp < now() - days[CATEGORIES[e.event_type]] * DAY for e in events)

    usual = {"system": 90, "interaction": 365, "activity": 730, "transaction": 2555, "content": 2555}
    changed = {**usual, "system": 7, "interaction": 30}
    for dry_run in (True, False):
        report = await retention(database.dsn, change={"system": 7, "interaction": 30}, dry_run=dry_run)
        assert {one.category: one.days for one in report.categories} == changed
        assert report.drops == over(changed) - over(usual)
        assert report.changed is not dry_run
    shown = await retention(database.dsn)
    assert {one.category: (one.days, one.previous_days) for one in shown.categories} == {
        category: (days, None) for category, days in changed.items()
    }
    assert sum(one.due for one in shown.categories) == over(changed)
    assert shown.drops == 0
    assert await stored(connection) == {e.id for e in events}


async def test_an_installation_goes_on_with_the_retention_it_had(empty_database: Database, tmp_path: Path) -> None:
    """Its operator said 30 days, and its aggregates know days whose rows are gone."""
    random = Random(6)
    for file in shipped_folder().iterdir():
        if file.name.endswith(".sql") and int(file.name[:3]) < 210:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    await migrate(empty_database.dsn, folder=tmp_path)
    connection = await empty_database.connect()
    events = some(random, 200, 80)
    await insert(connection, events)
    await refresh(connection)
    if empty_database.flavour == "timescaledb":
        await connection.execute("SELECT remove_retention_policy('analytics_events')")
        await connection.execute("SELECT add_retention_policy('analytics_events', INTERVAL '30 days')")
    else:
        await connection.execute(
            "CREATE OR REPLACE FUNCTION analytics_raw_retention() RETURNS interval LANGUAGE sql STABLE PARALLEL SAFE"
            " RETURN INTERVAL '30 days'"
        )
    await lose(connection, empty_database, midnight(30))
    before = await all_rows(connection)
    await migrate(empty_database.dsn)
    kept = await connection.fetch("SELECT keep FROM analytics_retention")
    assert [row["keep"] for row in kept] == [timedelta(days=30)] * 5
    assert await connection.fetchval("SELECT analytics_refreshable_from()") == midnight(30)
    await keep(connection, **dict.fromkeys(DAYS, 90))
    await insert(connection, [happened(random, midnight(40), name) for name in CATEGORIES])
    for _ in range(2):
        await keep_fresh(connection, empty_database)
        await refresh(connection, midnight(80), now())
    assert_same(await all_rows(connection), before)
