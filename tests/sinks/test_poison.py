"""Poison: what the table refuses is kept as a dead letter with its reason, and its neighbours are stored.

`tests/faults/test_poison.py` has it in every share.
"""

from __future__ import annotations

import json
import logging
import random
import string
from collections.abc import Callable

import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, TimescaleSink
from asgi_analytics.errors import SinkError
from tests.kit.databases import Database
from tests.sinks.conftest import Rows
from tests.sinks.contract import ids, line

SECRET = "hunter2"


def with_timestamp(timestamp: str, name: str = SECRET) -> bytes:
    one = line(name)
    was = json.loads(one)["timestamp"]
    return one.replace(f'"{was}"'.encode(), f'"{timestamp}"'.encode())


def with_data(data: str) -> bytes:
    head, _, tail = line(SECRET).partition(b'"data":')
    return head + b'"data":' + data.encode() + b"," + tail[tail.index(b'"context":') :]


POISON: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "a NUL": (lambda: with_data('{"a":"hunter2\\u0000"}'), "untranslatable_character", "22P05"),
    "a lone surrogate": (lambda: with_data('{"a":"hunter2\\ud800"}'), "invalid_text_representation", "22P02"),
    "no JSON": (lambda: with_data('{"a":hunter2}'), "invalid_text_representation", "22P02"),
    "broken off": (lambda: line(SECRET)[:-20], "invalid_text_representation", "22P02"),
    "no UTF-8": (lambda: with_data('{"a":"X"}').replace(b"X", b"\xff"), "character_not_in_repertoire", "22021"),
    "an endless number": (lambda: with_data('{"a":1e200000}'), "numeric_value_out_of_range", "22003"),
    "too deep": (lambda: with_data("[" * 20_000 + "]" * 20_000), "statement_too_complex", "54001"),
    "the year 4700": (lambda: with_timestamp("4700-01-01T00:00:00Z"), "check_violation", "23514"),
    "the year 1999": (lambda: with_timestamp("1999-12-31T23:59:59Z"), "check_violation", "23514"),
    "infinity": (lambda: with_timestamp("infinity"), "check_violation", "23514"),
    "4700 BC": (lambda: with_timestamp("4700-01-01 00:00:00 BC"), "check_violation", "23514"),
    "no timestamp": (lambda: with_timestamp("hunter2"), "invalid_datetime_format", "22007"),
    "month 13": (lambda: with_timestamp("2026-13-01T00:00:00Z"), "datetime_field_overflow", "22008"),
    "no id": (
        lambda: line(SECRET).replace(b'"event_id":"0', b'"event_id":"hunter2'),
        "invalid_text_representation",
        "22P02",
    ),
    "no service": (lambda: line(SECRET).replace(b'"service":"shop"', b'"service":null'), "not_null_violation", "23502"),
}


@pytest.mark.parametrize("kind", POISON)
async def test_poison_costs_no_neighbour_and_is_kept_with_its_reason(database: Database, rows: Rows, kind: str) -> None:
    make, reason, sqlstate = POISON[kind]
    good, bad = [line("a"), line("b"), line("c")], make()
    sink = TimescaleSink(database.dsn)
    receipt = await sink.write([good[0], bad, *good[1:]])
    assert receipt.duplicates == 0
    [refused] = receipt.rejected
    assert refused.index == 1
    assert refused.reason.startswith(reason)
    assert SECRET not in refused.reason
    assert [row["id"] for row in await rows()] == ids(good)
    [letter] = await rows("analytics_dead_letters")
    assert (letter["reason"], letter["sqlstate"]) == (refused.reason, sqlstate)
    assert letter["payload"] == bad.decode("utf-8", "replace")
    assert letter["received_at"] is not None
    # Sent again, because the answer was lost: nothing is stored or kept twice.
    again = await sink.write([good[0], bad, *good[1:]])
    assert (again.duplicates, len(again.rejected)) == (3, 1)
    assert len(await rows()) == 3
    await sink.aclose()
    assert len(await rows("analytics_dead_letters")) == 1
    if kind != "no id":
        assert str(letter["id"]) in letter["payload"]
        assert letter["event_type"] == "project_created"
        assert letter["service"] == (None if kind == "no service" else "shop")


async def test_duplicates_are_counted_beside_poison(database: Database) -> None:
    sink = TimescaleSink(database.dsn)
    known = [line("a"), line("b")]
    await sink.write(known)
    receipt = await sink.write([*known, with_timestamp("1999-01-01T00:00:00Z"), line("c"), known[0]])
    await sink.aclose()
    assert receipt.duplicates == 3
    assert [one.index for one in receipt.rejected] == [2]


async def test_a_failure_while_poison_is_sought_stores_nothing(database: Database, rows: Rows) -> None:
    connection = await database.connect()
    await connection.execute("DROP TABLE analytics_dead_letters")
    sink = TimescaleSink(database.dsn)
    batch = [line("a"), with_timestamp("1999-01-01T00:00:00Z"), line("b")]
    with pytest.raises(SinkError, match="analytics-migrate all"):
        await sink.write(batch)
    assert await rows() == []
    await connection.execute(
        "CREATE TABLE analytics_dead_letters (id uuid PRIMARY KEY, received_at timestamptz DEFAULT now(), "
        "event_type text, service text, reason text, sqlstate text, payload text)"
    )
    assert len((await sink.write(batch)).rejected) == 1
    assert len(await rows()) == 2
    await sink.aclose()


async def test_a_worker_counts_poison_says_it_once_and_quotes_no_value(
    database: Database, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = AnalyticsClient(service="shop")
    for number in range(20):
        one = with_timestamp("4700-01-01T00:00:00Z") if number % 4 == 0 else line()
        assert client._queue.put(one, len(one))
    async with AnalyticsWorker(client, TimescaleSink(database.dsn)):
        assert await client.aflush(20)
    stats = client.stats()
    assert (stats.accepted, stats.stored) == (20, 15)
    assert stats.rejected == {"check_violation analytics_events_timestamp_range": 5}
    ours = [record.getMessage() for record in caplog.records if record.name == "asgi_analytics"]
    assert ours == ["rejected by the sink (check_violation analytics_events_timestamp_range): 5"]
    assert SECRET not in caplog.text
    assert len(await rows("analytics_dead_letters")) == 5


async def test_poison_that_is_a_dead_letter_already_is_no_trouble(database: Database, rows: Rows) -> None:
    sink = TimescaleSink(database.dsn)
    bad = with_timestamp("1999-01-01T00:00:00Z")
    for _ in range(2):
        receipt = await sink.write([bad])
        assert len(receipt.rejected) == 1
    receipt = await sink.write([bad, bad])
    assert len(receipt.rejected) == 2
    assert len(await rows("analytics_dead_letters")) == 1
    await sink.aclose()


async def test_a_table_of_ones_own_with_a_stricter_rule_rejects_by_its_name(database: Database, rows: Rows) -> None:
    connection = await database.connect()
    await connection.execute(
        "ALTER TABLE analytics_events ADD CONSTRAINT no_secrets CHECK (data->>'name' <> 'hunter2')"
    )
    sink = TimescaleSink(database.dsn)
    receipt = await sink.write([line("a"), line(SECRET)])
    await sink.aclose()
    assert [one.reason for one in receipt.rejected] == ["check_violation no_secrets"]
    assert len(await rows()) == 1


async def test_a_type_too_long_for_the_index_is_poison_too(database: Database, rows: Rows) -> None:
    dice = random.Random(1)
    noise = "".join(dice.choices(string.ascii_letters + string.digits, k=9_000))
    sink = TimescaleSink(database.dsn)
    receipt = await sink.write([line("a"), line("b").replace(b"project_created", noise.encode())])
    await sink.aclose()
    assert [one.index for one in receipt.rejected] == [1]
    assert len(await rows()) == 1
    [letter] = await rows("analytics_dead_letters")
    assert letter["sqlstate"] == "54000"
