"""Poison in every share and of every kind: each event has one fate, and to find it takes few statements."""

from __future__ import annotations

import math
import random
import string
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import asyncpg
import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, TimescaleSink
from asgi_analytics.events.base import decode_envelope
from tests.faults.balance import assert_stored
from tests.kit.databases import Database
from tests.sinks.conftest import Rows
from tests.sinks.contract import ids, line
from tests.sinks.test_poison import with_data, with_timestamp

BATCH = 1_000
DICE = random.Random(5)


class Poison(NamedTuple):
    """What the table refuses, and what it says."""

    make: Callable[[], bytes]
    reason: str
    sqlstate: str
    is_seen: bool
    """Whether a look at the event tells, without trying to store it."""


def too_long() -> bytes:
    noise = "".join(DICE.choices(string.ascii_letters + string.digits, k=9_000))
    return line("long").replace(b"project_created", noise.encode())


OWN_RULE = "ALTER TABLE analytics_events ADD CONSTRAINT no_rudeness CHECK (data->>'name' <> 'rude')"
KINDS = {
    "content": Poison(lambda: with_data('{"name":"x\\u0000"}'), "untranslatable_character", "22P05", True),
    "timestamp": Poison(
        lambda: with_timestamp("4700-01-01T00:00:00Z"),
        "check_violation analytics_events_timestamp_range",
        "23514",
        True,
    ),
    "constraint": Poison(lambda: line("rude"), "check_violation no_rudeness", "23514", False),
    "size": Poison(too_long, "program_limit_exceeded", "54000", False),
}
SHARES = {"one in a thousand": 1_000, "half": 2, "all": 1}


class Watched(NamedTuple):
    """A sink, and every statement that it has sent so far."""

    sink: TimescaleSink
    statements: list[str]

    def tries(self) -> int:
        """Return how often something was to be stored among the events."""
        return sum("INSERT INTO analytics_events" in statement for statement in self.statements)


@pytest.fixture
async def watched(database: Database) -> AsyncIterator[Watched]:
    statements: list[str] = []

    async def listen(connection: Any) -> None:
        connection.add_query_logger(lambda record: statements.append(record.query))

    async with asyncpg.create_pool(database.dsn, min_size=0, max_size=1, init=listen, reset=_keep) as pool:
        yield Watched(TimescaleSink(pool), statements)


async def _keep(connection: object) -> None:
    """Send no statement when a connection returns to the pool."""


def most_tries(bad: int) -> int:
    """Return how many tries the search may take: a way down to each bad event, and never much more than all of them."""
    return min(2 * bad * (math.ceil(math.log2(BATCH)) + 1), BATCH + BATCH // 2 + 12)


def mixed(every: int, make: Callable[[], bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return the good and the bad of a batch in which each so-manieth is bad."""
    bad = [make() for _ in range(BATCH // every)]
    return [line(f"{number}") for number in range(BATCH - len(bad))], bad


async def write_all(
    watched: Watched, good: list[bytes], bad: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> AnalyticsClient:
    """Let a worker write them as one batch, in an order that is the same at each run."""
    monkeypatch.setattr("asgi_analytics.worker.worker.WRITE_EVENTS", BATCH)
    monkeypatch.setattr("asgi_analytics.worker.worker.WRITE_BYTES", 64 << 20)
    client = AnalyticsClient(service="shop", flush_interval=60.0)
    batch = random.Random(7).sample([*good, *bad], BATCH)
    for one in batch:
        assert client._queue.put(one, len(one))
    async with AnalyticsWorker(client, watched.sink):
        assert await client.aflush(60)
    assert client.stats().batches == 1
    return client


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("kind", KINDS)
async def test_poison_in_any_share_costs_no_neighbour_and_few_statements(
    database: Database, rows: Rows, watched: Watched, kind: str, share: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    administrator = await database.connect()
    await administrator.execute(OWN_RULE)
    before = line("before")  # the day has a chunk: to make one at each try would be most of the time
    await watched.sink.write([before])
    poison = KINDS[kind]
    good, bad = mixed(SHARES[share], poison.make)
    client = await write_all(watched, good, bad, monkeypatch)
    stats = client.stats()
    assert (stats.accepted, stats.stored, stats.duplicates) == (BATCH, len(good), 0)
    assert stats.rejected == {poison.reason: len(bad)}
    assert stats.retries == 0
    await assert_stored(client, database, ids([before, *good]))
    letters = await rows("analytics_dead_letters")
    assert {letter["payload"] for letter in letters} == {one.decode() for one in bad}
    assert [letter["id"] for letter in letters] == ids(bad)
    assert {(letter["reason"], letter["sqlstate"]) for letter in letters} == {(poison.reason, poison.sqlstate)}
    if poison.is_seen:
        # The batch that was refused, one look, what is good in one statement, the letters, and the transaction; asyncpg
        # looks up the types of the letters' columns besides, once a connection.
        assert watched.tries() == 1 + (2 if good else 1)
        # Not those of the hourly upkeep, nor the one that tells of which category the types are.
        others = ("to_regprocedure", "analytics_note_event_types")
        own = [sql for sql in watched.statements if not any(name in sql for name in others)]
        assert len(own) <= 14, own
    else:
        assert watched.tries() <= 3 + most_tries(len(bad))
        assert len(watched.statements) <= 15 + 3 * watched.tries()  # each in a savepoint


async def test_kinds_that_come_together_are_each_told_by_their_name(
    database: Database, rows: Rows, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    administrator = await database.connect()
    await administrator.execute(OWN_RULE)
    bad = [poison.make() for poison in KINDS.values() for _ in range(5)]
    good = [line(f"{number}") for number in range(BATCH - len(bad))]
    client = await write_all(watched, good, bad, monkeypatch)
    assert client.stats().rejected == {poison.reason: 5 for poison in KINDS.values()}
    await assert_stored(client, database, ids(good))
    letters = await rows("analytics_dead_letters")
    assert [letter["id"] for letter in letters] == ids(bad)
    assert Counter(letter["reason"] for letter in letters) == client.stats().rejected
    assert watched.tries() <= 2 + most_tries(10)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_cannot_look_is_asked_by_trying(
    database: Database, rows: Rows, watched: Watched, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL 15 has no function that tells whether an input is valid."""
    administrator = await database.connect()
    await administrator.execute(OWN_RULE)
    cannot_look(watched.sink)
    poison = KINDS[kind]
    good, bad = mixed(100, poison.make)
    client = await write_all(watched, good, bad, monkeypatch)
    assert client.stats().rejected == {poison.reason: 10}
    await assert_stored(client, database, ids(good))
    assert [letter["id"] for letter in await rows("analytics_dead_letters")] == ids(bad)
    assert watched.tries() <= 2 + most_tries(10)


@pytest.mark.parametrize("every", [1_000, 10])
async def test_what_is_nested_too_deeply_to_look_at_keeps_nothing_else_from_being_found(
    database: Database, rows: Rows, watched: Watched, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = with_data("[" * 20_000 + "]" * 20_000)
    good, bad = mixed(every, KINDS["timestamp"].make)
    client = await write_all(watched, good[1:], [*bad, deep], monkeypatch)
    assert client.stats().rejected == {"statement_too_complex": 1, KINDS["timestamp"].reason: len(bad)}
    await assert_stored(client, database, ids(good[1:]))
    assert {letter["payload"] for letter in await rows("analytics_dead_letters")} == {
        one.decode() for one in (*bad, deep)
    }


REFUSED: dict[str, Callable[[], bytes]] = {
    "a NUL": KINDS["content"].make,
    "no service": lambda: line().replace(b'"service":"shop"', b'"service":null'),
    "no time": lambda: with_timestamp("x").replace(b'"timestamp":"x"', b'"timestamp":null'),
    "no data": lambda: with_data("null"),
    "a number for an id": lambda: line().replace(b'"event_id":"', b'"event_id":"12'),
    "a word for a user": lambda: line().replace(b'"user_id":"', b'"user_id":"who'),
    "no object": lambda: b"[]",
    "no JSON": lambda: line()[:-9],
    "no UTF-8": lambda: with_data('{"a":"X"}').replace(b"X", b"\xff"),
    "a raw NUL": lambda: with_data('{"a":"X"}').replace(b"X", b"\x00"),
    "noon": lambda: with_timestamp("noon"),
    "month 13": lambda: with_timestamp("2026-13-01T00:00:00Z"),
    "the year 1999": lambda: with_timestamp("1999-12-31T23:59:59.999999Z"),
    "the year 2100": lambda: with_timestamp("2100-01-01T00:00:00Z"),
    "infinity": lambda: with_timestamp("infinity"),
}
"""What one look finds. Each is put into a batch of its own, and the refusal compared with that of the table."""
TAKEN: dict[str, Callable[[], bytes]] = {
    "the first moment": lambda: with_timestamp("2000-01-01T00:00:00Z"),
    "the last moment": lambda: with_timestamp("2099-12-31T23:59:59.999999Z"),
    "a number for a type": lambda: line().replace(b'"project_created"', b"7"),
    "an object for a service": lambda: line().replace(b'"shop"', b'{"a":1}'),
    "a word as data": lambda: with_data('"word"'),
    "no user": lambda: line().replace(decode_user(line()), b"null"),
}
"""What the table takes, however odd."""


def cannot_look(sink: TimescaleSink) -> None:
    """Let the sink's server be one before PostgreSQL 16."""
    sink._sql["find_poison"] = sink._sql["find_poison"].replace("pg_input_is_valid", "pg_no_such_function")


def decode_user(one: bytes) -> bytes:
    return f'"{decode_envelope(one).user_id}"'.encode()


async def test_a_look_refuses_what_the_table_refuses_for_the_same_reason(database: Database) -> None:
    looking = TimescaleSink(database.dsn)
    trying = TimescaleSink(database.dsn)
    cannot_look(trying)
    for kind, make in REFUSED.items():
        bad = make()
        receipts: list[Any] = [await sink.write([line(), bad]) for sink in (looking, trying)]
        [[seen], [tried]] = [receipt.rejected for receipt in receipts]
        assert (seen.index, seen.reason) == (tried.index, tried.reason) == (1, seen.reason), kind
    await looking.aclose()
    await trying.aclose()


async def test_a_look_takes_what_the_table_takes(database: Database, rows: Rows) -> None:
    sink = TimescaleSink(database.dsn)
    odd = {kind: make() for kind, make in TAKEN.items()}
    receipt = await sink.write([*odd.values(), KINDS["content"].make()])
    assert [one.index for one in receipt.rejected] == [len(odd)]
    assert len(await rows()) == len(odd)
    await sink.aclose()


async def test_duplicates_beside_poison_are_told_by_their_places(database: Database) -> None:
    sink = TimescaleSink(database.dsn)
    known = [line("a"), line("b")]
    await sink.write(known)
    batch = [KINDS["content"].make(), known[0], line("c"), too_long(), known[1], KINDS["timestamp"].make(), line("d")]
    receipt = await sink.write(batch)
    assert [one.index for one in receipt.rejected] == [0, 3, 5]
    assert (receipt.duplicates, receipt.duplicate_at) == (2, [1, 4])
    await sink.aclose()


async def test_a_user_who_may_only_insert_finds_poison_too(database: Database, rows: Rows) -> None:
    """The rights of docs/how-to/deploy.md, and none more: not even that of temporary tables, or of a language."""
    administrator = await database.connect()
    name = f"writer_{database.name}"
    await administrator.execute(
        f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'x';"
        f' GRANT INSERT ON analytics_events, analytics_dead_letters TO "{name}";'
        f' GRANT SELECT (timestamp, id) ON analytics_events TO "{name}";'
        f' GRANT SELECT (id) ON analytics_dead_letters TO "{name}";'
        f' REVOKE TEMPORARY ON DATABASE "{database.name}" FROM PUBLIC; REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC'
    )
    try:
        sink = TimescaleSink(database.cluster.dsn(database.name, name, "x"))
        batch = [line(), KINDS["content"].make(), KINDS["timestamp"].make(), too_long(), line()]
        assert [one.index for one in (await sink.write(batch)).rejected] == [1, 2, 3]
        await sink.aclose()
        assert [row["id"] for row in await rows()] == ids([batch[0], batch[4]])
        assert len(await rows("analytics_dead_letters")) == 3
    finally:
        await administrator.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')
