"""Who comes back, how often, and who leaves: equal to an independent computation, from aggregates and from raw rows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading import AnalyticsReader
from tests.kit.databases import Database
from tests.kit.lives import random_lives
from tests.kit.states import keep_fresh, lose, refresh
from tests.reading.expected import Asked
from tests.reading.happened import Event, insert, random_events
from tests.reading.test_questions import compare, ranges
from tests.schema.happenings import midnight

DAY = timedelta(days=1)
ZONES = ("UTC", "UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York")
MIDNIGHTS = tuple(ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "Asia/Kathmandu"))
ASKED: list[tuple[str, list[dict[str, Any]]]] = [
    ("query_retention", [
        {}, {"period": "week"}, {"period": "month", "total_periods": 3}, {"total_periods": 1}, {"total_periods": 40},
        {"target_event": "search_performed"}, {"returning_event": "order_placed", "period": "week"},
        {"target_event": "search_performed", "returning_event": "order_placed"},
        {"target_event": "page_view", "returning_event": "page_view", "period": "week", "total_periods": 4},
    ]),
    ("query_stickiness", [{}, {"event_type": "order_placed"}]),
    ("query_lifecycle", [
        {}, {"interval": "week"}, {"interval": "month"}, {"event_type": "order_placed"},
        {"interval": "week", "event_type": "page_view"},
    ]),
]  # fmt: skip


async def compare_some(reader: AnalyticsReader, events: list[Event], random: Random) -> None:
    for name, variants in ASKED:
        for variant in random.sample(variants, min(4, len(variants))):
            key = random.choice(ZONES)
            zone = ZoneInfo(key)
            service = random.choice([None, None, "shop"])
            now = datetime.now(UTC)
            arguments, start, end = random.choice(list(ranges(random, now, zone)))
            asked = Asked(start, end, zone, now, service)
            await compare(reader, name, events, variant | {"timezone": key, "service": service} | arguments, asked)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6))])
async def test_every_answer_equals_an_independent_computation(
    database: Database, reader: AnalyticsReader, seed: int
) -> None:
    random = Random(seed)
    connection = await database.connect()
    now = datetime.now(UTC)
    first = random_lives(random, 80, now - 50 * DAY, now - timedelta(seconds=1), MIDNIGHTS)
    await insert(connection, first)
    await compare_some(reader, first, random)  # all of it live

    await refresh(connection)
    await compare_some(reader, first, random)  # all but the newest bucket computed before

    late = random_lives(random, 20, now - 50 * DAY, now - timedelta(seconds=1), MIDNIGHTS)
    await insert(connection, late)
    await keep_fresh(connection, database)
    await compare_some(reader, first + late, random)

    erased = first[0].user_id
    await connection.execute("DELETE FROM analytics_events WHERE user_id = $1", erased)
    await keep_fresh(connection, database)
    await compare_some(reader, [event for event in first + late if event.user_id != erased], random)


CALENDARS = [
    ("Europe/Berlin", date(2026, 3, 20), date(2026, 4, 5)),  # the clocks go forward on 29 March
    ("Europe/Berlin", date(2026, 10, 19), date(2026, 11, 1)),  # and back on 25 October
    ("Asia/Kathmandu", date(2025, 12, 17), date(2026, 1, 13)),  # weeks over new year
    ("UTC", date(2025, 12, 29), date(2026, 1, 4)),
    ("Pacific/Apia", date(2011, 12, 27), date(2012, 1, 3)),  # where there was no 30 December
]


@pytest.mark.parametrize(("key", "first", "last"), CALENDARS)
async def test_calendars(database: Database, reader_dsn: str, key: str, first: date, last: date) -> None:
    zone = ZoneInfo(key)
    start = datetime.combine(first, datetime.min.time(), zone).astimezone(UTC)
    end = datetime.combine(last + DAY, datetime.min.time(), zone).astimezone(UTC)
    now = end + 3 * DAY
    events = random_lives(Random(8), 60, start - 20 * DAY, now, (zone,))
    await insert(await database.connect(), events)
    asked = Asked(start, end, zone, now)
    arguments: dict[str, Any] = {"start": first, "end": last, "timezone": key}
    skipped = key == "Pacific/Apia"  # the day that comes after the 29th is not the next date
    async with AnalyticsReader.from_url(reader_dsn, statement_timeout=30, clock=lambda: now) as reader:
        for name, variants in ASKED:
            for variant in variants:
                if not skipped or name == "query_stickiness":
                    await compare(reader, name, events, variant | arguments, asked)
        if skipped:
            days = [row.date.date() for row in (await reader.query_lifecycle(**arguments)).data]
            assert len(days) == (last - first).days
            assert date(2011, 12, 30) not in days


async def test_a_cohort_is_of_the_first_event_ever(database: Database, reader: AnalyticsReader) -> None:
    """Also where it was long before the range, or before raw rows were dropped."""
    connection = await database.connect()
    now = datetime.now(UTC)
    events = random_lives(Random(2), 40, midnight(50), now, MIDNIGHTS)
    await insert(connection, events)
    await refresh(connection)
    await lose(connection, database, midnight(20))
    await refresh(connection)
    new = {event.user_id for event in events} - {event.user_id for event in events if event.timestamp < midnight(10)}
    answer = await reader.query_retention(start=midnight(10).date())
    assert sum(cohort.size for cohort in answer.cohorts) == len(new - {None})


LOST = 20
"""Days ago up to which the raw rows are dropped."""


async def test_of_days_whose_raw_rows_are_gone_answers_are_exact_or_refused(
    database: Database, reader: AnalyticsReader
) -> None:
    connection = await database.connect()
    now = datetime.now(UTC)
    events = random_lives(Random(3), 80, now - 45 * DAY, now, MIDNIGHTS)
    await insert(connection, events)
    await refresh(connection)
    await lose(connection, database, midnight(LOST))
    await refresh(connection)

    async def ask(name: str, key: str, days_ago: int, service: str | None = None, **own: Any) -> None:
        zone = ZoneInfo(key)
        start = datetime.combine(midnight(days_ago).date(), datetime.min.time(), zone).astimezone(UTC)
        end = datetime.combine(now.astimezone(zone).date() + DAY, datetime.min.time(), zone).astimezone(UTC)
        asked = Asked(start, end, zone, now, service)
        arguments = {**own, "start": midnight(days_ago).date(), "timezone": key, "service": service}
        await compare(reader, name, events, arguments, asked)

    for name, variants in ASKED:
        for variant in variants:
            await ask(name, "UTC", 35, **variant)
            await ask(name, "UTC", 35, "shop", **variant)
            types = {value for field, value in variant.items() if field.endswith(("_event", "event_type"))}
            if not types:
                await ask(name, "Asia/Kathmandu", 35, "shop", **variant)
                await ask(name, "Europe/Berlin", 35, **variant)
                continue
            # Who was there before is known of days of UTC. But a week or a month may begin in days that are gone.
            if "week" not in variant.values():
                await ask(name, "Europe/Berlin", LOST - 2, **variant)
            with pytest.raises(InvalidQuery, match=r"^start: .*, for the events of one type, needs the raw rows"):
                await getattr(reader, name)(start=midnight(35).date(), timezone="Europe/Berlin", **variant)
    with pytest.raises(InvalidQuery, match=r"^start: a part of a quarter hour needs the raw rows"):
        await reader.query_lifecycle(start=midnight(35) + timedelta(minutes=7))
    await reader.query_lifecycle(start=midnight(35) + timedelta(minutes=45))


async def test_weeks_of_a_zone_need_the_raw_rows_of_their_first_days_only(
    database: Database, reader: AnalyticsReader
) -> None:
    connection = await database.connect()
    now = datetime.now(UTC)
    events = random_lives(Random(4), 50, now - 40 * DAY, now, MIDNIGHTS)
    await insert(connection, events)
    await refresh(connection)
    monday = (now - 21 * DAY).date()
    monday -= monday.weekday() * DAY
    # All rows are gone but those of the days in which a week begins in Berlin: the Sundays of UTC.
    kept = [now.date() - n * DAY for n in range(50) if (now.date() - n * DAY).weekday() == 6]
    days = [midnight(n) for n in range(2, 42) if midnight(n).date() not in kept]
    for day in days:
        await connection.execute(
            "DELETE FROM analytics_events WHERE timestamp >= $1 AND timestamp < $2", day, day + DAY
        )
    zone = ZoneInfo("Europe/Berlin")
    start = datetime.combine(monday, datetime.min.time(), zone).astimezone(UTC)
    sunday = monday + 13 * DAY
    end = datetime.combine(sunday + DAY, datetime.min.time(), zone).astimezone(UTC)
    arguments = {"start": monday, "end": sunday, "timezone": "Europe/Berlin", "interval": "week"}
    asked = Asked(start, end, zone, now)
    await compare(reader, "query_lifecycle", events, arguments | {"event_type": "page_view"}, asked)


async def test_periods_that_have_not_begun_have_no_percentage_and_unfinished_ones_do_not_count(
    database: Database, reader_dsn: str
) -> None:
    now = datetime(2026, 11, 29, 12, tzinfo=UTC)
    [one, two, three] = [event._replace(user_id=event.id) for event in random_events(Random(1), 3, now, now)]
    events = [
        one._replace(timestamp=now - 2 * DAY),
        *(two._replace(id=three.id, timestamp=now - n * DAY) for n in (2, 1)),
        three._replace(timestamp=now),
    ]
    await insert(await database.connect(), events)
    async with AnalyticsReader.from_url(reader_dsn, clock=lambda: now) as reader:
        answer = await reader.query_retention(total_periods=4)
        assert [(cohort.date.day, cohort.size) for cohort in answer.cohorts] == [(27, 2), (29, 1)]
        assert [(p.period, p.count, p.percentage, p.complete) for p in answer.cohorts[0].retention] == [
            (0, 2, 1.0, True), (1, 1, 0.5, True), (2, 0, 0.0, False), (3, 0, None, False),
        ]  # fmt: skip
        assert [(p.percentage, p.complete) for p in answer.cohorts[1].retention] == [
            (1.0, False), *[(None, False)] * 3,
        ]  # fmt: skip
        assert [(p.period, p.percentage) for p in answer.overall_retention] == [(0, 1.0), (1, 0.5)]
        nothing = await reader.query_retention(start=date(2026, 12, 24), end=date(2026, 12, 26))
        assert (nothing.cohorts, nothing.overall_retention) == ([], [])


async def test_nothing_is_known_of_an_empty_database(database: Database, reader: AnalyticsReader) -> None:
    retention = await reader.query_retention()
    assert (retention.cohorts, retention.overall_retention) == ([], [])
    assert (await reader.query_stickiness()).buckets == []
    rows = (await reader.query_lifecycle()).data
    assert len(rows) == 31
    assert {(row.new, row.returning, row.resurrecting, row.dormant) for row in rows} == {(0, 0, 0, 0)}


async def test_the_lifecycle_adds_up_to_the_active_users(database: Database, reader: AnalyticsReader) -> None:
    now = datetime.now(UTC)
    events = random_lives(Random(6), 60, now - 45 * DAY, now, MIDNIGHTS)
    await insert(await database.connect(), events)
    weeks = {row.day: row.active_users for row in await reader.get_weekly_active_users()}
    for row in (await reader.query_lifecycle(interval="week")).data:
        assert row.new + row.returning + row.resurrecting == weeks.get(row.date, 0)
