"""Percentiles over any range of hours, within two percent of percentile_cont."""

from __future__ import annotations

import math
from datetime import timedelta
from random import Random
from typing import Any

import asyncpg
import pytest

from asgi_analytics.admin.refresh import refresh
from tests.kit.databases import Database
from tests.schema.happenings import DAY, HOUR, Happened, happened, insert, midnight, now
from tests.schema.measures import percentile

QUANTILES = (0.0, 0.001, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
CALL = "SELECT analytics_latency_quantile($1, $2, $3)"


def requests(random: Random, durations: list[Any]) -> list[Happened]:
    at = [midnight(20) + random.random() * 10 * DAY for _ in durations]
    return [happened(random, t, "api_request", duration_ms=d) for t, d in zip(at, durations, strict=True)]


def some_durations(random: Random, kind: str) -> list[float]:
    makers: dict[str, Any] = {
        "usual": lambda: random.lognormvariate(3, 1.5),
        "two humps": lambda: random.choice([random.gauss(5, 0.5), random.gauss(5000, 500)]),
        "all of them": lambda: 10 ** random.uniform(-8, 99),
        "equal": lambda: 17.0,
        "zeros": lambda: random.choice([0, 0, 0.001, 250]),
        "whole": lambda: random.randrange(40),
        "powers": lambda: 1.04 ** random.randrange(-200, 400),
    }
    return [abs(makers[kind]()) for _ in range(random.choice([1, 2, 3, 7, 500]))]


@pytest.mark.parametrize("kind", ["usual", "two humps", "all of them", "equal", "zeros", "whole", "powers"])
async def test_quantiles_are_within_two_percent(database: Database, kind: str) -> None:
    random = Random(kind)
    connection = await database.connect()
    for _ in range(6):
        await connection.execute("TRUNCATE analytics_events")
        durations = some_durations(random, kind)
        await insert(connection, requests(random, durations))
        for q in QUANTILES:
            exact = percentile(durations, q)
            assert exact is not None
            found = await connection.fetchval(CALL, q, midnight(30), now())
            assert math.isclose(found, exact, rel_tol=0.02, abs_tol=1e-9), (q, found, exact)


async def test_it_merges_what_was_computed_before_and_what_is_live(database: Database) -> None:
    random = Random(1)
    connection = await database.connect()
    old = requests(random, [random.lognormvariate(3, 1) for _ in range(400)])
    await insert(connection, old)
    await refresh(connection)
    new = [happened(random, now(), "api_request", duration_ms=random.lognormvariate(6, 1)) for _ in range(200)]
    await insert(connection, new)
    for q in QUANTILES:
        exact = percentile([event.data["duration_ms"] for event in old + new], q)
        assert exact is not None
        assert math.isclose(await connection.fetchval(CALL, q, midnight(30), now() + HOUR), exact, rel_tol=0.02)


async def test_it_takes_the_hours_that_touch_the_range(database: Database) -> None:
    random = Random(2)
    connection = await database.connect()
    hours = [midnight(5) + n * HOUR for n in range(6)]
    await insert(connection, [happened(random, h, "api_request", duration_ms=10**n) for n, h in enumerate(hours)])

    async def reach(since: timedelta, until: timedelta) -> list[int]:
        args = (midnight(5) + since, midnight(5) + until)
        return [round(math.log10(await connection.fetchval(CALL, q, *args))) for q in (0, 1)]

    assert await reach(HOUR, 3 * HOUR) == [1, 2]
    assert await reach(1.5 * HOUR, 3.1 * HOUR) == [1, 3]
    assert await reach(-DAY, DAY) == [0, 5]
    assert await reach(4 * HOUR, 4 * HOUR + timedelta(microseconds=1)) == [4, 4]
    assert await connection.fetchval(CALL, 0.5, midnight(4), now()) is None
    assert await connection.fetchval("SELECT analytics_latency_quantile(0, '-infinity', 'infinity')") is not None


async def test_it_can_be_asked_for_a_service_an_endpoint_and_a_method(database: Database) -> None:
    random = Random(3)
    connection = await database.connect()
    events = []
    for n, (service, endpoint, method) in enumerate(
        [("a", "/x", "GET"), ("a", "/x", "POST"), ("a", "/y", "GET"), ("b", "/x", "GET"), ("b", None, "GET")]
    ):
        data = {"method": method, "duration_ms": 10**n} | ({"endpoint": endpoint} if endpoint else {})
        events.append(happened(random, midnight(3), "api_request", service=service, **data))
    await insert(connection, events)

    async def ask(arguments: str) -> list[int]:
        sql = "SELECT analytics_latency_quantile({}, now() - INTERVAL '5 days', now(), {})"
        found = [await connection.fetchval(sql.format(q, arguments)) for q in (0, 1)]
        return [round(math.log10(value)) for value in found]

    assert await ask("service => 'a'") == [0, 2]
    assert await ask("endpoint => '/x'") == [0, 3]
    assert await ask("method => 'POST'") == [1, 1]
    assert await ask("'b', '/x', 'GET'") == [3, 3]
    assert await ask("NULL, NULL, NULL") == [0, 4]


@pytest.mark.parametrize("q", [-0.01, 1.01, 95, math.nan, math.inf, None])
async def test_a_quantile_that_is_none_is_refused(database: Database, q: float | None) -> None:
    connection = await database.connect()
    with pytest.raises(asyncpg.InvalidParameterValueError, match="from 0 to 1"):
        await connection.fetchval(CALL, q, midnight(3), now())


async def test_without_requests_it_is_null(database: Database) -> None:
    random = Random(4)
    connection = await database.connect()
    await insert(connection, [happened(random, midnight(1), "task_completed", duration_ms=1)])
    await insert(connection, [happened(random, midnight(1), "api_request", duration_ms="1")])
    assert await connection.fetchval(CALL, 0.5, midnight(3), now()) is None
