"""Captured events wait as records, and become JSON in the worker: nothing of that shows from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import opentelemetry.context
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import get_current_span

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, AnalyticsWorker, EnrichedEvent, MemorySink
from asgi_analytics.context import otel_context, span_of
from asgi_analytics.encoding.records import RECORD_BYTES
from asgi_analytics.events import CocoonConnected
from asgi_analytics.pipeline.queue import EventQueue, Item
from asgi_analytics.worker.worker import LINES_AT_ONCE
from tests.instrumentation.asgi_app import get, hello

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
    assert {type(item) for item in client._queue.items} == {tuple, bytes}
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
    assert queue.bytes_in - queue.bytes_out == 5 * RECORD_BYTES
    lines = queue.lines_of(list(queue.items))
    assert all(RECORD_BYTES / 2 < len(line) <= RECORD_BYTES for line in lines)


async def test_records_that_were_written_and_put_back_weigh_what_they_have_become(client: AnalyticsClient) -> None:
    await capture(client, 5)
    queue = client._queue
    batch = queue.take(5, 1 << 20)
    assert queue.write_lines(batch, 0, 3) == 3
    queue.put_back()
    assert [type(item) for item in queue.items] == [bytes] * 3 + [tuple] * 2
    assert queue.bytes_in - queue.bytes_out == sum(
        len(item) if isinstance(item, bytes) else RECORD_BYTES for item in queue.items
    )
    assert len(await stored(client)) == 5
    assert queue.bytes_in == queue.bytes_out


async def test_a_record_of_which_no_line_can_be_made_costs_no_other_event(
    client: AnalyticsClient, caplog: pytest.LogCaptureFixture
) -> None:
    await capture(client, LINES_AT_ONCE + 5)

    def broken(record: tuple[Any, ...]) -> bytes:
        raise ValueError("secret")

    queue = client._queue
    number = queue.add_writer(broken)
    for _ in range(2):
        assert queue.put((number, 10, 0), 10, True)
    await capture(client)
    assert len(await stored(client)) == LINES_AT_ONCE + 6
    stats = client.stats()
    assert stats.rejected == {"not written: ValueError": 2}
    assert (stats.accepted, stats.stored, stats.queued, stats.in_flight) == (LINES_AT_ONCE + 8, LINES_AT_ONCE + 6, 0, 0)
    assert "a captured event was rejected: not written: ValueError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_batch_of_nothing_but_broken_records_is_settled(client: AnalyticsClient) -> None:
    queue = client._queue
    number = queue.add_writer(lambda record: b"%d" % record[99])
    assert queue.put((number, 10, 0), 10, True)
    assert await stored(client) == []
    assert client.stats().rejected == {"not written: IndexError": 1}


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
        client._abandon()  # what a close does whose time is over

    async with AnalyticsWorker(client, sink):
        task = asyncio.create_task(close())
        client._queue.wake()
        await asyncio.wait_for(task, 10)
    stats = client.stats()
    assert (stats.abandoned, stats.stored) == (3 * LINES_AT_ONCE, 0)
    assert sink.events == []


class Name(str):
    """A text of a class of its own."""


@pytest.mark.parametrize("user", ["x" * 300, Name("x" * 300), 10**300], ids=["text", "own class", "number"])
async def test_a_long_name_is_encoded_at_once(client: AnalyticsClient, user: Any) -> None:
    await get(AnalyticsMiddleware(hello, client=client, user_id=lambda scope: user))
    assert type(client._queue.items[0]) is bytes
    [event] = await stored(client)
    assert (event.context or {})["user_key"] == str(user)


async def test_a_number_that_no_text_can_hold_is_told_at_once_and_not_in_the_worker(client: AnalyticsClient) -> None:
    await get(AnalyticsMiddleware(hello, client=client, user_id=lambda scope: 10**5000))
    assert (client.stats().accepted, client.stats().dropped["invalid"]) == (0, 1)


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
    assert isinstance(item, tuple)
    assert not any(gc.is_tracked(part) for part in item)


def test_opentelemetry_is_asked_where_its_api_asks() -> None:
    assert otel_context() == opentelemetry.context.get_current()
    with TracerProvider().get_tracer("test").start_as_current_span("x") as span:
        assert otel_context() is opentelemetry.context.get_current()
        known = get_current_span().get_span_context()
        assert span_of(otel_context()) == (known.trace_id, known.span_id) == tuple(span.get_span_context())[:2]
    assert span_of(opentelemetry.context.get_current()) is None


@pytest.mark.parametrize("captured", [True, False])
def test_a_queue_that_is_closed_takes_nothing(captured: bool) -> None:
    queue = EventQueue(size=10, max_bytes=1000, wake_at=5)
    item: Item = b"x"
    assert queue.put(item, 1, captured)
    queue.close()
    assert not queue.put(item, 1, captured)
    queue.reset()
    assert queue.put(item, 1, captured)


def test_all_middlewares_of_a_client_leave_one_writer_with_its_queue() -> None:
    client = AnalyticsClient(service="shop")
    for _ in range(100):
        AnalyticsMiddleware(hello, client=client)
    assert len(client._queue._writers) == 1
