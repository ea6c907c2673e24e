"""SQLite keeps raw rows as long as their category says, and aggregates beyond that."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest

from asgi_analytics import Event
from asgi_analytics.admin.retention import retention
from asgi_analytics.admin.schemas import sync_schemas
from asgi_analytics.errors import ConfigError, InvalidQuery
from asgi_analytics.events.base import Category, event_types
from asgi_analytics.events.named import NAMED
from asgi_analytics.migrate.files import shipped_folder
from asgi_analytics.migrate.runner import migrate
from asgi_analytics.migrate.sqlite import sqlite_migrations
from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.reading.pipeline import Due
from tests.kit.sqlite import SqliteDatabase, file
from tests.schema.expected import assert_same
from tests.schema.happenings import DAY, Happened, happened, midnight, now, some_events
from tests.schema.sqlite_views import views_of, wanted_of
from tests.schema.test_retention import CATEGORIES, DAYS, some

__all__ = ["file"]


async def test_events_are_kept_as_long_as_their_category_and_aggregates_stay(file: SqliteDatabase) -> None:
    random = Random(3)
    old = [
        event._replace(event_type=kind)
        for kind, number in (("task_created", 1200), ("project_created", 5), ("page_viewed", 5))
        for event in some_events(random, number, midnight(120), midnight(119) - timedelta(microseconds=1))
    ]
    fresh = some_events(random, 50, now() - 10 * DAY, now())
    await file.insert(old + fresh)
    await file.refresh()
    left = {
        row[0]: row[1]
        for row in file.execute(
            "SELECT event_type, count(*) FROM analytics_events WHERE timestamp < ? GROUP BY 1",
            f"{midnight(100):%Y-%m-%d}",
        )
    }
    assert left == {"project_created": 5, "page_viewed": 5}
    days = {row["day"]: row for row in file.rows("analytics_daily_active_users")}
    assert days[midnight(120)]["total_events"] == 1210
    # Late events of a day that is not whole any more do not replace its aggregates.
    await file.insert(some_events(random, 3, midnight(120), midnight(119) - timedelta(microseconds=1)))
    await file.refresh()
    days = {row["day"]: row for row in file.rows("analytics_daily_active_users")}
    assert days[midnight(120)]["total_events"] == 1210


def over(events: list[Happened], days: dict[str, int], *, whole_days: bool = True) -> list[Happened]:
    """Return the events whose time is over; they are dropped when that of their whole day is."""

    def until(event: Happened) -> datetime:
        kept = days[CATEGORIES[event.event_type]]
        return midnight(kept) if whole_days else now() - kept * DAY

    return [event for event in events if event.timestamp < until(event)]


async def test_each_category_is_kept_for_its_time_and_what_is_gone_is_told(file: SqliteDatabase) -> None:
    random = Random(11)
    events = some(random, 900, 80)
    await file.insert(events)
    usual = {"system": 90, "interaction": 365, "activity": 730, "transaction": 2555, "content": 2555}
    for dry_run in (True, False):
        report = await retention(file.url, change=DAYS, dry_run=dry_run)
        assert {one.category: (one.days, one.previous_days) for one in report.categories} == {
            category: (days, usual[category]) for category, days in DAYS.items()
        }
        assert (report.drops, report.changed) == (len(over(events, DAYS, whole_days=False)), not dry_run)
        if dry_run:
            assert [one.days for one in (await retention(file.url)).categories] == sorted(usual.values())
    for category, days in (("system", 0), ("system", 36_501), ("nonsense", 5)):
        with pytest.raises(ConfigError):
            await retention(file.url, change={category: days})

    async with AnalyticsReader.from_url(file.url) as reader:
        due = {one.category: one for one in (await reader.get_pipeline_health()).due}
        for category, days in DAYS.items():
            mine = [e for e in over(events, DAYS) if CATEGORIES[e.event_type] == category]
            first = min(e.timestamp for e in mine).replace(hour=0, minute=0, second=0, microsecond=0)
            assert due[category] == Due(
                category=category,
                keep_days=days,
                days=len({e.timestamp.date() for e in mine}),
                events=len(mine),
                due_since=first + (1 + days) * DAY,
            )
        before: Any = None
        for _ in range(2):
            await file.refresh()
            assert {e.id for e in events} - {row["id"] for row in file.rows("analytics_events")} == {
                e.id for e in over(events, DAYS)
            }
            found = views_of(file)
            assert_same(found, before or wanted_of(events))
            before = found
        assert (await reader.get_pipeline_health()).due == []
        today = len(over(events, DAYS, whole_days=False)) - len(over(events, DAYS))
        assert sum(one.due for one in (await retention(file.url)).categories) == today
        oldest = min(row["timestamp"] for row in file.rows("analytics_events"))
        oldest = oldest.replace(hour=0, minute=0, second=0, microsecond=0)

        async def refused(event_type: str, since: int) -> str | None:
            try:
                await reader.query_trends([event_type], environment="test", start=midnight(since), end=now())
            except InvalidQuery as error:
                return str(error)
            return None

        for event_type, category in CATEGORIES.items():
            since = max(midnight(DAYS[category]), oldest)
            assert await refused(event_type, DAYS[category]) is None
            said = await refused(event_type, DAYS[category] + 9)
            assert said is not None
            assert f"which are kept from {since:%Y-%m-%dT%H:%MZ} on" in said

        # A type whose category moves is dropped as the new one is; what was dropped of it before stays known.
        class HeardNowhere(Event):
            category: ClassVar[Category] = "transaction"

        await sync_schemas(file.url, [HeardNowhere])
        await file.refresh()
        assert await refused("heard_nowhere", DAYS["interaction"] + 9) is not None
        late = [happened(random, midnight(60), "heard_nowhere"), happened(random, midnight(60), "task_created")]
        await file.insert(late)
        await file.refresh()
        ids = {row["id"] for row in file.rows("analytics_events")}
        assert [e.id in ids for e in late] == [True, False]
        assert_same(views_of(file), before)


async def test_a_file_goes_on_with_what_it_dropped_before_there_were_categories(tmp_path: Path) -> None:
    file = SqliteDatabase(tmp_path / "analytics.db")
    old = tmp_path / "steps"
    old.mkdir()
    for step in sqlite_migrations():
        if step.version < 210:
            source = shipped_folder() / "sqlite" / step.name
            (old / step.name).write_bytes(source.read_bytes())
    await migrate(file.url, folder=old)
    for day in (100, 95, 70):
        file.execute("INSERT INTO analytics_gone_days (day) VALUES (?)", f"{midnight(day):%Y-%m-%dT00:00:00.000000Z}")
    file.execute("UPDATE analytics_retention SET keep = NULL WHERE category = 'content'")
    await migrate(file.url)
    dropped = dict(file.execute("SELECT category, dropped_before FROM analytics_dropped"))
    assert dropped.pop("system") == f"{midnight(94):%Y-%m-%dT00:00:00.000000Z}"
    assert set(dropped.values()) == {""}
    assert {one.category: one.days for one in (await retention(file.url)).categories}["content"] == 36_500


async def test_the_file_knows_the_categories_of_the_catalogue(file: SqliteDatabase) -> None:
    known = dict(file.execute("SELECT event_type, category FROM analytics_event_types"))
    classes = {tag: cls for tag, cls in event_types().items() if cls.__module__.startswith("asgi_analytics.events.")}
    assert known == {tag: cls.category for tag, cls in classes.items()} | dict.fromkeys(NAMED, "interaction")
