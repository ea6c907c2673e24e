"""What every sink has to do: subclass `SinkContract`, give it ``sink`` and ``stored_ids``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, Sink, events
from asgi_analytics.encoding.encoder import EventEncoder
from asgi_analytics.events.base import decode_envelope

ENCODER = EventEncoder(service="shop", environment="test", hostname="h1")


def line(name: str = "x") -> bytes:
    """Return an event as ``track()`` makes it."""
    return ENCODER.encode(events.ProjectCreated(project_id=UUID(int=1), user_id=name, name=name))


def ids(batch: list[bytes]) -> list[UUID]:
    """Return the ids of a batch, sorted."""
    return sorted(decode_envelope(one).event_id for one in batch)


StoredIds = Callable[[], Awaitable[list[UUID]]]


class SinkContract:
    """Every test of this runs over every sink. ``stored_ids()`` returns what is stored, sorted by id."""

    @pytest.fixture
    def sink(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def stored_ids(self) -> Any:
        raise NotImplementedError

    def test_it_is_a_sink(self, sink: Sink) -> None:
        assert isinstance(sink, Sink)

    async def test_a_batch_is_stored_when_write_returns(self, sink: Sink, stored_ids: StoredIds) -> None:
        batch = [line(f"{number}") for number in range(100)]
        receipt = await sink.write(batch)
        assert (receipt.duplicates, list(receipt.rejected)) == (0, [])
        assert await stored_ids() == ids(batch)
        await sink.aclose()

    async def test_an_empty_batch_is_nothing(self, sink: Sink, stored_ids: StoredIds) -> None:
        receipt = await sink.write([])
        assert (receipt.duplicates, list(receipt.rejected)) == (0, [])
        assert await stored_ids() == []
        await sink.aclose()

    async def test_the_same_batch_again_is_stored_once_and_counted(self, sink: Sink, stored_ids: StoredIds) -> None:
        batch = [line("a"), line("b")]
        await sink.write(batch)
        more = [*batch, line("c")]
        receipt = await sink.write(more)
        assert (receipt.duplicates, list(receipt.rejected)) == (2, [])
        assert await stored_ids() == ids(more)
        await sink.aclose()

    async def test_an_event_twice_in_one_batch_is_stored_once(self, sink: Sink, stored_ids: StoredIds) -> None:
        batch = [line("a"), line("b")]
        receipt = await sink.write([*batch, batch[0]])
        assert receipt.duplicates == 1
        assert await stored_ids() == ids(batch)
        await sink.aclose()

    async def test_it_may_be_closed_twice_and_used_again(self, sink: Sink, stored_ids: StoredIds) -> None:
        await sink.aclose()
        first, second = [line("a")], [line("b")]
        await sink.write(first)
        await sink.aclose()
        await sink.aclose()
        assert (await sink.write([*first, *second])).duplicates == 1
        assert await stored_ids() == ids(first + second)
        await sink.aclose()

    async def test_it_serves_one_loop_after_another(self, sink: Sink, stored_ids: StoredIds) -> None:
        batches = [[line("a")], [line("b")], [line("c")]]

        async def write(batch: list[bytes]) -> None:
            await sink.write(batch)
            await sink.aclose()

        for batch in batches:
            await asyncio.to_thread(asyncio.run, write(batch))
        assert await stored_ids() == ids([one for batch in batches for one in batch])

    async def test_what_was_tracked_is_stored_by_a_worker(self, sink: Sink, stored_ids: StoredIds) -> None:
        client = AnalyticsClient(service="shop", strict=True)
        for number in range(50):
            client.track(events.ProjectCreated(project_id=UUID(int=1), user_id=number, name="a\x00b\ud800"))
        async with AnalyticsWorker(client, sink):
            assert await client.aflush(20)
        stats = client.stats()
        assert (stats.stored, stats.accepted, stats.rejected.total()) == (50, 50, 0)
        assert len(await stored_ids()) == 50
