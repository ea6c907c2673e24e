"""What holds for every driver that is instrumented: subclass `DriverContract`, and give it a `driver` of ``things``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from asgi_analytics.context import RequestContext, suppress
from asgi_analytics.errors import ConfigError
from asgi_analytics.events import EnrichedEvent
from asgi_analytics.testing import CapturedEvents, capture_events


class Driver(Protocol):
    """How the suite speaks to a driver; statements have no parameters, so that all drivers take them."""

    undefined_table: str
    """The type of the error, as an event names it."""

    def instrument(self, client: Any, **options: Any) -> Any: ...

    async def run(self, sql: str) -> object: ...

    async def in_transaction(self, sql: str) -> None: ...


class DriverContract:
    @pytest.fixture
    def queries(self, driver: Driver) -> Iterator[Queries]:
        with capture_events() as captured:
            yield Queries(driver, captured)

    async def test_a_query_makes_one_event(self, queries: Queries) -> None:
        queries.instrument()
        await queries.driver.run("SELECT name FROM things WHERE name <> 'nobody' ORDER BY id")
        [event] = queries.events
        assert event.data == {
            "query_type": "SELECT",
            "table": "things",
            "statement": "SELECT name FROM things WHERE name <> ? ORDER BY id",
            "fingerprint": event.data["fingerprint"],
            "duration_ms": event.data["duration_ms"],
            "rows_affected": 3,
            "outcome": "ok",
        }
        assert 0 < event.data["duration_ms"] < 60_000

    async def test_a_write_tells_its_rows(self, queries: Queries) -> None:
        queries.instrument()
        await queries.driver.in_transaction("UPDATE things SET name = 'x' WHERE id > 1")
        [event] = queries.events
        assert (event.data["query_type"], event.data["rows_affected"]) == ("UPDATE", 2)

    async def test_a_failure_is_kept_and_raised_as_it_was(self, queries: Queries) -> None:
        with pytest.raises(Exception, match="things_that_are_not") as bare:
            await queries.driver.run("SELECT 1 FROM things_that_are_not")
        queries.instrument(sample_rate=0.0)
        with pytest.raises(Exception, match="things_that_are_not") as info:
            await queries.driver.run("SELECT 1 FROM things_that_are_not")
        assert (type(info.value), str(info.value)) == (type(bare.value), str(bare.value))
        [event] = queries.events
        assert (event.data["outcome"], event.data["sqlstate"]) == ("error", "42P01")
        assert event.data["error_type"] == queries.driver.undefined_table
        assert event.data["rows_affected"] is None

    async def test_sampling_leaves_out_events_but_no_figures(
        self, queries: Queries, request_context: RequestContext
    ) -> None:
        queries.instrument(sample_rate=0.0)
        for number in range(3):
            await queries.driver.run(f"SELECT {number} FROM things")
        await queries.driver.run("SELECT count(*) FROM things")
        assert queries.events == []
        assert request_context.queries is not None
        assert (request_context.queries.count, request_context.queries.repeats) == (4, 3)
        assert request_context.queries.duration_ms > 0

    async def test_slow_queries_are_kept_whatever_the_sampling(self, queries: Queries) -> None:
        queries.instrument(sample_rate=0.0, slow_ms=300)
        await queries.driver.run("SELECT 1 FROM things")
        await queries.driver.run("SELECT pg_sleep(0.35)")
        [event] = queries.events
        assert event.data["statement"] == "SELECT pg_sleep(?)"
        assert event.data["duration_ms"] >= 300

    async def test_the_request_is_named(self, queries: Queries, request_context: RequestContext) -> None:
        request_context.request_id = "r-1"
        queries.instrument()
        await queries.driver.run("SELECT 1 FROM things")
        [event] = queries.events
        assert event.data["endpoint"] == "/things/{id}"
        assert event.context is not None
        assert event.context["request_id"] == "r-1"

    async def test_an_excluded_request_makes_nothing(self, queries: Queries, request_context: RequestContext) -> None:
        request_context.excluded = True
        queries.instrument()
        await queries.driver.run("SELECT 1 FROM things")
        with pytest.raises(Exception, match="things_that_are_not"):
            await queries.driver.run("SELECT 1 FROM things_that_are_not")
        assert queries.events == []

    async def test_what_is_suppressed_makes_nothing(self, queries: Queries) -> None:
        queries.instrument()
        with suppress():
            await queries.driver.run("SELECT 1 FROM things")
        assert queries.events == []

    async def test_the_text_can_be_left_out(self, queries: Queries) -> None:
        queries.instrument(capture_statement=False)
        await queries.driver.run("SELECT 1 FROM things")
        [event] = queries.events
        assert event.data["statement"] is None
        assert (event.data["table"], len(event.data["fingerprint"])) == ("things", 16)

    async def test_twice_is_once_and_once_undone_is_undone(self, queries: Queries) -> None:
        first, second = queries.instrument(), queries.instrument()
        await queries.driver.run("SELECT 1 FROM things")
        assert len(queries.events) == 1
        first.uninstrument()
        await queries.driver.run("SELECT 1 FROM things")
        second.uninstrument()
        first.uninstrument()
        await queries.driver.run("SELECT 1 FROM things")
        assert len(queries.events) == 1

    async def test_a_queue_that_is_full_or_closed_is_not_felt(self, queries: Queries) -> None:
        queries.instrument()
        queries.captured.client.close(0)
        assert await queries.driver.run("SELECT 1 FROM things")
        assert queries.events == []

    async def test_a_wrong_client_is_named(self, queries: Queries) -> None:
        with pytest.raises(ConfigError, match="client is a str: use an AnalyticsClient"):
            queries.driver.instrument("postgresql://db/shop")

    @pytest.mark.parametrize(
        "options",
        [{"slow_ms": -1}, {"slow_ms": "5"}, {"sample_rate": 1.5}, {"sample_rate": -0.1}, {"sample_rate": "1"}],
    )
    async def test_wrong_settings_are_named(self, queries: Queries, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=next(iter(options))):
            queries.instrument(**options)


class Queries:
    """A driver, and the query events that it made."""

    def __init__(self, driver: Driver, captured: CapturedEvents) -> None:
        self.driver = driver
        self.captured = captured

    def instrument(self, **options: Any) -> Any:
        return self.driver.instrument(self.captured.client, **options)

    @property
    def events(self) -> list[EnrichedEvent]:
        return self.captured.of("database_query")
