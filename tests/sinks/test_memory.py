"""MemorySink: keeps what it gets, and falls over nothing."""

from __future__ import annotations

from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, MemorySink, events
from tests.sinks.contract import SinkContract, StoredIds, line


class TestMemorySink(SinkContract):
    @pytest.fixture
    def sink(self) -> MemorySink:
        return MemorySink()

    @pytest.fixture
    def stored_ids(self, sink: MemorySink) -> StoredIds:
        async def read() -> list[UUID]:
            return sorted(event.event_id for event in sink.events)

        return read


async def test_events_are_kept_in_the_order_of_their_arrival() -> None:
    sink = MemorySink()
    await sink.write([line("a"), line("b")])
    await sink.write([line("c")])
    assert [event.data["name"] for event in sink.events] == ["a", "b", "c"]


async def test_what_is_no_event_is_rejected_and_costs_no_neighbour() -> None:
    sink = MemorySink()
    receipt = await sink.write([line("a"), b"no json", b"{}", line("b")])
    assert [(one.index, one.reason) for one in receipt.rejected] == [(1, "malformed"), (2, "malformed")]
    assert len(sink.events) == 2


def test_it_is_behind_a_memory_url() -> None:
    client = AnalyticsClient.from_url("memory://", service="shop")
    client.track(events.ProjectDeleted(project_id=UUID(int=1), user_id=1))
    assert client.flush(10)
    assert isinstance(client.sink, MemorySink)
    assert [event.event_type for event in client.sink.events] == ["project_deleted"]
    client.close()
