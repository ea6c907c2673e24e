"""flush and close where the worker runs on a loop of the application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, MemorySink, events
from tests.kit.fakes import FakeSink, hang, within

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)


@pytest.fixture
async def client() -> AsyncIterator[AnalyticsClient]:
    client = AnalyticsClient(service="shop")
    yield client
    client._delivery._abandon()


async def test_a_worker_on_the_loop_is_flushed_and_closed(client: AnalyticsClient) -> None:
    sink = FakeSink()
    task = asyncio.create_task(AnalyticsWorker(client, sink).run())
    client.track(TASK)
    assert await client.aflush(10)
    client.track(TASK)
    assert await client.aclose(10)
    await asyncio.wait_for(task, 10)
    assert (len(sink.events), sink.closed) == (2, 1)


async def test_a_close_on_the_workers_own_loop_leaves_the_rest_to_the_worker(client: AnalyticsClient) -> None:
    sink = FakeSink()
    task = asyncio.create_task(AnalyticsWorker(client, sink).run())
    await asyncio.sleep(0)
    client.track(TASK)
    with within(0):
        assert client.flush(60) is False
        assert client.close(60) is False
    await asyncio.wait_for(task, 10)
    assert client.stats().stored == 1
    assert client.close() is True
    assert client.stats().abandoned == 0


async def test_a_close_of_no_time_on_the_workers_own_loop_abandons(client: AnalyticsClient) -> None:
    task = asyncio.create_task(AnalyticsWorker(client, FakeSink()).run())
    await asyncio.sleep(0)
    client.track(TASK)
    assert client.close(0) is False
    await asyncio.wait_for(task, 10)
    assert client.stats().abandoned == 1


async def test_a_flush_from_a_thread_reaches_a_worker_on_a_loop(client: AnalyticsClient) -> None:
    async with AnalyticsWorker(client, MemorySink()):
        client.track(TASK)
        assert await asyncio.to_thread(client.flush, 10)


async def test_a_flush_on_one_loop_reaches_a_worker_on_another(client: AnalyticsClient) -> None:
    async with AnalyticsWorker(client, MemorySink()):

        def elsewhere() -> bool:
            client.track(TASK)
            return asyncio.run(client.aflush(10))

        assert await asyncio.to_thread(elsewhere)


def test_a_worker_whose_loop_has_gone_is_no_worker() -> None:
    client = AnalyticsClient(service="shop")
    loop = asyncio.new_event_loop()
    task = loop.create_task(AnalyticsWorker(client, FakeSink(hang)).run())
    client.track(TASK)
    loop.run_until_complete(asyncio.sleep(0.01))
    with within(0):
        assert client.close(60) is False
    assert client.stats().abandoned == 1
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
