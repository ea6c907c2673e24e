"""What is known of each user: the newest of every trait, however late and in whatever order the events come."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid5

import asyncpg
import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, TimescaleSink, events
from asgi_analytics.encoding.encoder import EventEncoder
from asgi_analytics.events import USER_NAMESPACE
from tests.kit.databases import Database
from tests.schema.happenings import compress

START = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
INSERT = (
    "INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, data) "
    "SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::uuid[], $6::jsonb[])"
)
Told = tuple[UUID, datetime, str, str, UUID | None, str]


def told(number: int, user: int, after: timedelta, **traits: Any) -> Told:
    return (UUID(int=number), START + after, "user_identified", "shop", UUID(int=user), json.dumps(traits))


async def insert(connection: asyncpg.Connection, rows: list[Told]) -> None:
    await connection.execute(INSERT, *map(list, zip(*rows, strict=True)))


async def known(connection: asyncpg.Connection) -> dict[int, dict[str, Any]]:
    rows = await connection.fetch("SELECT * FROM analytics_user_traits")
    return {row["user_id"].int: {**row, "traits": json.loads(row["traits"])} for row in rows}


async def test_the_newest_of_each_trait_wins(database: Database) -> None:
    connection = await database.connect()
    await insert(connection, [told(1, 7, timedelta(), plan="free", role="user")])
    await insert(connection, [told(2, 7, timedelta(hours=2), plan="pro"), told(3, 8, timedelta(), role="admin")])
    await insert(connection, [told(4, 7, timedelta(hours=1), plan="trial", registered_at="2026-01-02T03:04:05Z")])

    users = await known(connection)
    assert users[7]["traits"] == {"plan": "pro", "role": "user", "registered_at": "2026-01-02T03:04:05Z"}
    assert (users[7]["role"], users[8]["role"]) == ("user", "admin")
    assert users[7]["registered_at"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert users[7]["updated_at"] == START + timedelta(hours=2)
    assert users[8]["registered_at"] is None


async def test_any_order_and_any_batches_lead_to_the_same(database: Database) -> None:
    random = Random(15)
    connection = await database.connect()
    rows: list[Told] = []
    for number in range(300):
        after = timedelta(seconds=random.randrange(40))  # many at one instant: then the id decides
        keys = random.sample(["plan", "role", "team", "registered_at"], random.randrange(4))
        rows.append(told(number, random.randrange(6), after, **{key: random.choice(["a", None, 3]) for key in keys}))
    expected: dict[int, dict[str, Any]] = {}
    for _, _, _, _, user, data in sorted(rows, key=lambda row: (row[1], row[0].int)):
        assert user is not None
        expected.setdefault(user.int, {}).update(json.loads(data))

    random.shuffle(rows)
    while rows:
        size = random.randrange(1, 40)
        await insert(connection, rows[:size])
        del rows[:size]
    users = await known(connection)
    assert {user: row["traits"] for user, row in users.items()} == expected
    for row in users.values():
        role = row["traits"].get("role")
        assert row["role"] == (role if role is None else str(role))


@pytest.mark.parametrize("value", ["soon", "2026-13-45", "infinity", 7, None, {"a": 1}, ["x"], "9" * 40, "2026-99"])
async def test_a_registration_that_is_no_time_is_kept_as_a_trait_only(database: Database, value: Any) -> None:
    connection = await database.connect()
    await insert(connection, [told(1, 7, timedelta(), registered_at=value, role=value)])

    [row] = (await known(connection)).values()
    assert row["traits"] == {"registered_at": value, "role": value}
    assert row["registered_at"] is None


async def test_an_identified_user_without_traits_is_known(database: Database) -> None:
    connection = await database.connect()
    await insert(connection, [told(1, 7, timedelta())])

    assert (await known(connection))[7]["traits"] == {}


async def test_what_is_told_late_reaches_a_day_in_the_columnstore(database: Database) -> None:
    connection = await database.connect()
    await insert(connection, [told(1, 7, timedelta(), plan="free")])
    await compress(connection, database)
    await insert(
        connection, [told(2, 7, timedelta(seconds=1), plan="pro"), told(3, 7, -timedelta(seconds=1), team="a")]
    )

    assert (await known(connection))[7]["traits"] == {"plan": "pro", "team": "a"}


async def test_what_is_stored_twice_changes_nothing(database: Database) -> None:
    sink = TimescaleSink(database.dsn)
    encoder = EventEncoder(service="shop", environment=None, hostname=None)
    first, second = (encoder.encode(events.identify("ada", plan=plan)) for plan in ("free", "pro"))
    for batch in ([second], [second, first], [first], [first, second]):
        await sink.write(batch)
    await sink.aclose()

    [row] = (await known(await database.connect())).values()
    assert row["traits"] == {"plan": "pro"}


async def test_two_writers_of_the_same_users_do_not_wait_for_each_other_for_ever(database: Database) -> None:
    connections = [await database.connect() for _ in range(2)]
    random = Random(3)

    async def write(connection: asyncpg.Connection, start: int) -> None:
        for number in range(start, start + 40, 4):
            users = random.sample(range(4), 4)
            await insert(
                connection, [told(number + user, user, timedelta(seconds=number), plan=number) for user in users]
            )

    await asyncio.gather(write(connections[0], 0), write(connections[1], 1000))
    assert {row["traits"]["plan"] for row in (await known(connections[0])).values()} == {1036}


async def test_identify_reaches_the_table_through_the_sink(database: Database) -> None:
    client = AnalyticsClient(service="shop", strict=True)
    async with AnalyticsWorker(client, TimescaleSink(database.dsn)):
        client.track(events.identify("ada", plan="pro", role="admin", registered_at=START))
        client.track(events.identify("ada", plan="max", seats=3))
    connection = await database.connect()

    [row] = await connection.fetch("SELECT * FROM analytics_user_traits")
    assert row["user_id"] == uuid5(USER_NAMESPACE, "ada")
    assert json.loads(row["traits"]) == {
        "plan": "max",
        "role": "admin",
        "seats": 3,
        "registered_at": START.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    assert (row["role"], row["registered_at"]) == ("admin", START)
