"""Captured events wait as records, and become JSON in the worker: nothing of that shows from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
from opentelemetry.trace import Span, set_span_in_context

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, AnalyticsWorker, EnrichedEvent, MemorySink
from asgi_analytics.context import span_of
from asgi_analytics.encoding.records import RECORD_BYTES, Record
from asgi_analytics.encoding.request_record import RequestRecord
from asgi_analytics.events import CocoonConnected
from asgi_analytics.worker.worker import LINES_AT_ONCE
from tests.instrumentation.asgi_app import get, hello


class Broken(Record):
    """A record that has no line."""

    def line(self) -> bytes:
        raise ValueError("secret")


ID = UUID("0198c1a2-0000-7000-8000-000000000001")


@pytest.fixture
def client() -> AnalyticsClient:
    return AnalyticsClient(service="shop", flush_interval=3600)


async def capture(client: AnalyticsClient, number: int = 1) -> None:
    app = AnalyticsMiddleware(hello, client=client)
    for _ in range(number):
        await get(app)


async def stored(client: AnalyticsClient) -> list[EnrichedEvent]:
    sink = MemorySink()
    async with AnalyticsWorker(client, sink):
        assert await client.aflush(10)
    return sink.events


async def test_records_and_lines_are_stored_in_the_order_of_their_ids(client: AnalyticsClient) -> None:
    for _ in range(3 * LINES_AT_ONCE):
        await capture(client)
        client.track(CocoonConnected(cocoon_id=ID))
    assert {type(item) for item in client._queue.items} == {RequestRecord, bytes}
    ids = [event.event_id for event in await stored(client)]
    assert len(ids) == 6 * LINES_AT_ONCE
    assert ids == sorted(ids)


async def test_a_record_says_when_it_was_made_however_late_it_is_written(client: AnalyticsClient) -> None:
    await capture(client)
    await asyncio.sleep(0.05)
    assert client.stats().oldest_seconds >= 0.05
    client.track(CocoonConnected(cocoon_id=ID))
    captured, said = await stored(client)
    assert (said.timestamp - captured.timestamp).total_seconds() >= 0.05


async def test_a_record_counts_for_what_its_line_will_have(client: AnalyticsClient) -> None:
    await capture(client, 5)
    queue = client._queue
    assert queue.waiting_bytes() == 5 * RECORD_BYTES
    lines = [item.line() for item in queue.items if isinstance(item, RequestRecord)]
    assert len(lines) == 5
    assert all(RECORD_BYTES / 2 < len(line) <= RECORD_BYTES for line in lines)


async def test_records_that_were_written_and_put_back_weigh_what_they_have_become(client: AnalyticsClient) -> None:
    await capture(client, 5)
    queue = client._queue
    batch = client._ledger.take(5, 1 << 20)
    assert client._ledger.write_lines(batch, 0, 3) == 3
    client._ledger.put_back()
    assert [type(item) for item in queue.items] == [bytes] * 3 + [RequestRecord] * 2
    assert queue.waiting_bytes() == sum(len(item) if isinstance(item, bytes) else RECORD_BYTES for item in queue.items)
    assert len(await stored(client)) == 5
    assert queue.bytes_in == queue.bytes_out


async def test_a_record_of_which_no_line_can_be_made_costs_no_other_event(
    client: AnalyticsClient, caplog: pytest.LogCaptureFixture
) -> None:
    await capture(client, LINES_AT_ONCE + 5)

    for _ in range(2):
        assert client.intake.record(Broken(client.intake.source, 10, 0, 0, None, None, None, None))
    await capture(client)
    assert len(await stored(client)) == LINES_AT_ONCE + 6
    stats = client.stats()
    assert stats.rejected == {"not written: ValueError": 2}
    assert (stats.accepted, stats.stored, stats.queued, stats.in_flight) == (LINES_AT_ONCE + 8, LINES_AT_ONCE + 6, 0, 0)
    assert "a captured event was rejected: not written: ValueError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_batch_of_nothing_but_broken_records_is_settled(client: AnalyticsClient) -> None:
    assert client.intake.record(Broken(client.intake.source, 10, 0, 0, None, None, None, None))
    assert await stored(client) == []
    assert client.stats().rejected == {"not written: ValueError": 1}


async def test_others_get_a_turn_while_records_are_written(client: AnalyticsClient) -> None:
    await capture(client, 3 * LINES_AT_ONCE)  # no more than one write takes
    turns: list[int] = []

    async def others() -> None:
        while True:
            turns.append(sum(isinstance(item, bytes) for item in client._ledger.in_flight))
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await stored(client)
    task.cancel()
    assert {LINES_AT_ONCE, 2 * LINES_AT_ONCE} <= set(turns)


async def test_a_close_while_records_are_written_abandons_them(client: AnalyticsClient) -> None:
    await capture(client, 3 * LINES_AT_ONCE)
    sink = MemorySink()

    async def close() -> None:
        while not any(isinstance(item, bytes) for item in client._ledger.in_flight):
            await asyncio.sleep(0)
        client._delivery._abandon()  # what a close does whose time is over

    async with AnalyticsWorker(client, sink):
        task = asyncio.create_task(close())
        client._queue.wake()
        await asyncio.wait_for(task, 10)
    stats = client.stats()
    assert (stats.abandoned, stats.stored) == (3 * LINES_AT_ONCE, 0)
    assert sink.events == []


class Name(str):
    """A text with a class of its own."""


@pytest.mark.parametrize("user", ["x" * 300, Name("x" * 300), 10**300], ids=["text", "own class", "number"])
async def test_a_long_name_counts_for_what_it_weighs(client: AnalyticsClient, user: Any) -> None:
    await get(AnalyticsMiddleware(hello, client=client, user_id=lambda scope: user))
    assert client._queue.waiting_bytes() >= len(client._queue.items[0].line())  # type: ignore[union-attr]  # a record
    [event] = await stored(client)
    assert (event.context or {})["user_key"] == str(user)


async def test_a_number_that_no_text_can_hold_is_nobody(
    client: AnalyticsClient, caplog: pytest.LogCaptureFixture
) -> None:
    await get(AnalyticsMiddleware(hello, client=client, user_id=lambda scope: 10**5000))
    [event] = await stored(client)
    assert event.user_id is None
    assert "the middleware's user_id returned a int, not an id" in caplog.text


async def test_a_request_whose_headers_are_none_is_captured(client: AnalyticsClient) -> None:
    await get(AnalyticsMiddleware(hello, client=client), headers=None)
    assert len(await stored(client)) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: AnalyticsClient(service="shop", max_event_bytes=1000),
        lambda: AnalyticsClient(service="shop", before_track=lambda event: event),
    ],
)
async def test_settings_that_ask_for_the_event_get_it(make: Callable[[], AnalyticsClient]) -> None:
    client = make()
    await capture(client)
    assert type(client._queue.items[0]) is bytes


def test_a_record_holds_nothing_that_the_garbage_collector_looks_into() -> None:
    import gc

    client = AnalyticsClient(service="shop")
    asyncio.run(capture(client))
    [item] = client._queue.items
    assert isinstance(item, RequestRecord)
    assert not gc.is_tracked(item)
    assert not any(gc.is_tracked(getattr(item, name)) for name in item.__struct_fields__ if name != "source")


@pytest.mark.parametrize("ids", [(1, 2), ("1", "2"), (None, None), (0, 2), (Mock(), Mock())])
def test_the_span_of_a_trace_has_valid_ids_or_is_none(ids: tuple[Any, Any]) -> None:
    span = Mock(spec=Span)
    span.get_span_context.return_value = SimpleNamespace(trace_id=ids[0], span_id=ids[1])
    assert span_of(set_span_in_context(span)) == (ids if ids == (1, 2) else None)
