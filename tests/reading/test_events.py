"""Events are found by every filter, and paged so that none is shown twice or skipped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest

from asgi_analytics.encoding.users import user_uuid
from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading import AnalyticsReader
from tests.kit.databases import Database
from tests.reading.expected import category
from tests.reading.happened import Event, an_event, insert, random_events

DAY = timedelta(days=1)


async def fill(database: Database, number: int = 400, days: int = 20) -> list[Event]:
    now = datetime.now(UTC)
    events = random_events(Random(number), number, now - days * DAY, now)
    await insert(await database.connect(), events)
    return sorted(events, key=lambda e: (e.timestamp, e.id), reverse=True)


def context(event: Event, key: str) -> Any:
    return (event.context or {}).get(key)


FILTERS: list[tuple[dict[str, Any], Callable[[Event], bool]]] = [
    ({"event_types": ["api_request", "order_placed"]}, lambda e: e.event_type in ("api_request", "order_placed")),
    ({"event_categories": ["activity"]}, lambda e: category(e.event_type) == "activity"),
    ({"event_categories": ["interaction", "system"]}, lambda e: category(e.event_type) in ("interaction", "system")),
    ({"event_categories": ["interaction"], "event_types": ["api_request", "page_viewed"]},
     lambda e: e.event_type == "page_viewed"),
    ({"event_categories": ["content"]}, lambda e: False),
    ({"user_id": UUID(int=3)}, lambda e: e.user_id == UUID(int=3)),
    ({"user_id": str(UUID(int=3))}, lambda e: e.user_id == UUID(int=3)),
    ({"session_id": "s1"}, lambda e: e.session_id == "s1"),
    ({"entity_type": "task"}, lambda e: "task_id" in e.data),
    ({"entity_type": "task", "entity_id": UUID(int=2)}, lambda e: e.data.get("task_id") == str(UUID(int=2))),
    ({"fingerprint": "q1"}, lambda e: e.data.get("fingerprint") == "q1"),
    ({"endpoint": "/orders"}, lambda e: e.data.get("endpoint") == "/orders"),
    ({"trace_id": f"{7:032x}"}, lambda e: context(e, "trace_id") == f"{7:032x}"),
    ({"service": "billing"}, lambda e: e.service == "billing"),
    ({"environment": "staging"}, lambda e: context(e, "environment") == "staging"),
    ({"environment": "staging", "service": "shop", "session_id": "s2"},
     lambda e: context(e, "environment") == "staging" and e.service == "shop" and e.session_id == "s2"),
]  # fmt: skip


async def test_every_filter_finds_what_it_says(database: Database, reader: AnalyticsReader) -> None:
    events = await fill(database)
    for arguments, matches in FILTERS:
        found = await reader.query_events(limit=1000, **arguments)
        wanted = [e for e in events if matches(e)]
        assert [e.event_id for e in found.events] == [e.id for e in wanted], arguments
        assert found.total == len(wanted)
        assert (found.has_more, found.next) == (False, None)


async def test_an_event_is_what_was_stored(database: Database, reader: AnalyticsReader) -> None:
    now = datetime.now(UTC)
    event = an_event(Random(2), now, "task_failed")._replace(context={"environment": "staging"})
    await insert(await database.connect(), [event])
    [found] = (await reader.query_events()).events
    assert (found.event_id, found.timestamp, found.event_type, found.service) == event[:4]
    assert (found.user_id, found.session_id, found.data, found.context) == event[4:]
    assert found.data["exit_code"] is None  # an optional field of a known type that was left out
    assert type(found.event_id) is UUID
    assert found.to_json()


@pytest.mark.parametrize("limit", [1, 7, 50])
async def test_pages_are_all_events_once_while_others_come_in(
    database: Database, reader: AnalyticsReader, limit: int
) -> None:
    events = await fill(database, number=100 if limit == 1 else 400)
    connection = await database.connect()
    random = Random(limit)
    seen: list[UUID] = []
    cursor = None
    total: list[int | None] = []
    while True:
        page = await reader.query_events(limit=limit, cursor=cursor, end=datetime.now(UTC) + DAY)
        assert len(page.events) <= limit
        assert page.has_more is (page.next is not None)
        seen += [e.event_id for e in page.events]
        total.append(page.total)
        cursor = page.next
        if cursor is None:
            break
        await insert(connection, random_events(random, 2, datetime.now(UTC), datetime.now(UTC) + timedelta(hours=1)))
    assert seen == [e.id for e in events]
    assert total[0] == len(events)
    assert total == [len(events) + 2 * n for n in range(len(total))]


async def test_events_of_one_instant_are_paged_by_their_ids(database: Database, reader: AnalyticsReader) -> None:
    at = datetime.now(UTC)
    events = [an_event(Random(n), at) for n in range(9)]
    await insert(await database.connect(), events)
    first = await reader.query_events(limit=4)
    second = await reader.query_events(limit=4, cursor=first.next)
    third = await reader.query_events(limit=4, cursor=second.next)
    found = [e.event_id for page in (first, second, third) for e in page.events]
    assert found == sorted((e.id for e in events), reverse=True)


async def test_a_total_beyond_ten_thousand_is_not_counted(database: Database, reader: AnalyticsReader) -> None:
    connection = await database.connect()
    one, now = an_event(Random(1), datetime.now(UTC), "page_viewed")._replace(user_id=None), datetime.now(UTC)
    many = [one._replace(id=uuid4(), timestamp=now - timedelta(seconds=n)) for n in range(10_001)]
    await insert(connection, many[:10_000])
    assert (await reader.query_events(limit=1)).total == 10_000
    await insert(connection, many[10_000:])
    assert (await reader.query_events(limit=1)).total is None
    assert (await reader.query_events(limit=1, event_types=["page_viewed"], user_id="nobody")).total == 0


async def test_a_user_is_found_by_what_the_application_calls_it(database: Database, reader: AnalyticsReader) -> None:
    event = an_event(Random(1), datetime.now(UTC))
    events = [event._replace(id=uuid4(), user_id=user_uuid(one)[0]) for one in (42, "ann@example.com")]
    await insert(await database.connect(), events)
    assert [e.event_id for e in (await reader.query_events(user_id=42)).events] == [events[0].id]
    assert [e.event_id for e in (await reader.query_events(user_id="42")).events] == [events[0].id]
    assert [e.event_id for e in (await reader.query_events(user_id="ann@example.com")).events] == [events[1].id]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"entity_id": "1"}, "entity_type"),
        ({"entity_type": "task'; DROP TABLE x"}, "entity_type"),
        ({"entity_type": "Task"}, "entity_type"),
        ({"cursor": "not a cursor"}, "cursor"),
        ({"cursor": "MjAyNg"}, "cursor"),
        ({"cursor": "é"}, "cursor"),
        ({"cursor": "MjAyNi0xMS0wMVQwMDowMDowMC8xMjM"}, "cursor"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": True}, "limit"),
        ({"event_types": "api_request"}, "event_types"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["x"] * 101}, "event_types"),
        ({"event_types": ["x", 1]}, "event_types"),
        ({"event_categories": ["captured"]}, "event_categories"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": 1.5}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"session_id": ""}, "session_id"),
        ({"session_id": "x" * 2001}, "session_id"),
        ({"fingerprint": b"x"}, "fingerprint"),
        ({"service": 7}, "service"),
    ],
)
async def test_a_wrong_parameter_is_named(
    database: Database, reader: AnalyticsReader, arguments: Any, field: str
) -> None:
    with pytest.raises(InvalidQuery, match=f"^{field}: must be ") as caught:
        await reader.query_events(**arguments)
    assert caught.value.field == field
