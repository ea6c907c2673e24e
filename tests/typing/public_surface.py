"""The public surface as a user types it: checked by mypy, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_type
from uuid import UUID

from asgi_analytics import (
    AnalyticsClient,
    AnalyticsMiddleware,
    AnalyticsWorker,
    EnrichedEvent,
    Event,
    MemorySink,
    PageViews,
    Sink,
    TimescaleSink,
    errors,
    events,
    set_session,
    set_user,
)
from asgi_analytics.events import Personal
from asgi_analytics.sinks.base import Receipt, Rejected
from asgi_analytics.testing import capture_events
from asgi_analytics.web.collector import create_collector_app


class OrderPlaced(Event, tag="typed_order_placed"):
    order_id: int
    total: float
    email: Personal[str] | None = None
    user_id: UUID | str | int | None = None


def make_clients() -> None:
    client = AnalyticsClient.from_url("postgresql://db/shop", service="shop", batch_size=10)
    assert_type(client, AnalyticsClient)
    assert_type(AnalyticsClient.from_environ(), AnalyticsClient)
    assert_type(AnalyticsClient.from_environ({"ANALYTICS_SERVICE": "shop"}, strict=True), AnalyticsClient)
    AnalyticsClient(service="shop", hash_key=b"k", before_track=redact, flush_interval=1)
    AnalyticsClient("shop")  # type: ignore[call-arg]  # keywords only
    AnalyticsClient()  # type: ignore[call-arg]  # a service is needed
    AnalyticsClient(service="shop", batchsize=1)  # type: ignore[call-arg]


def redact(event: Event) -> Event | None:
    return None if isinstance(event, OrderPlaced) else event


def track(client: AnalyticsClient, task_id: UUID) -> None:
    assert_type(client.track(OrderPlaced(order_id=1, total=1.5)), bool)
    assert_type(client.track(events.TaskCreated(task_id=task_id, user_id="ada", command="build")), bool)
    client.track(events.TaskCreated(task_id=task_id, user_id=7, command="build"))
    assert_type(events.track("cart_filled", items=3, user_id=7), events.NamedEvent)
    client.track(events.track("cart_filled"))
    client.track(events.page("/plans", referrer="https://blog.example/", title="Plans", variant="b"))
    client.track(events.identify("ada", plan="pro", role="admin"))
    events.identify(plan="pro")  # type: ignore[call-arg]  # of whom?
    client.track("order_placed")  # type: ignore[arg-type]
    OrderPlaced(1, 1.5)  # type: ignore[call-arg]
    OrderPlaced(order_id=1)  # type: ignore[call-arg]
    events.TaskCreated(task_id=task_id, command="build")  # type: ignore[call-arg]
    placed = OrderPlaced(order_id=1, total=2)
    assert_type(placed.order_id, int)
    placed.total = 3  # type: ignore[misc]  # frozen
    set_user("ada")
    set_user(None)
    set_session("s1")
    assert_type(client.track_error(ValueError()), bool)


def figures(client: AnalyticsClient) -> None:
    stats = client.stats()
    assert_type(stats.accepted, int)
    assert_type(stats.dropped["queue_full"], int)
    assert_type(stats.last_error, str | None)
    assert_type(stats.as_dict(), dict[str, Any])
    assert_type(client.flush(), bool)
    assert_type(client.close(timeout=1), bool)


class PrintingSink:
    """A sink of ones own inherits nothing."""

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        return Receipt(rejected=[Rejected(index=0, reason="odd")])

    async def aclose(self) -> None: ...


class NoSink:
    async def write(self, batch: str) -> None: ...


async def own_the_worker(client: AnalyticsClient) -> None:
    sinks: list[Sink] = [PrintingSink(), MemorySink(), TimescaleSink("postgresql://db/shop", schema="analytics")]
    async with AnalyticsWorker(client, sinks[0]) as worker:
        assert_type(worker, AnalyticsWorker)
        assert_type(await worker.aclose(1), bool)
    AnalyticsWorker(client, NoSink())  # type: ignore[arg-type]
    assert_type(await client.aflush(), bool)
    assert_type(await client.aclose(timeout=1.5), bool)
    assert_type(await AnalyticsWorker(client, MemorySink()).run(), None)


def count_page_views(client: AnalyticsClient, app: Any) -> None:
    AnalyticsMiddleware(app, client=client, page_views=PageViews())
    PageViews(store_paths=True, respect_gpc=False, address=lambda scope: None, country_header="CF-IPCountry")
    PageViews(True)  # type: ignore[call-arg]  # keywords only
    PageViews(address="x-real-ip")  # type: ignore[arg-type]
    create_collector_app(client, events=["video_played"], events_per_minute=60)


def look(client: AnalyticsClient) -> None:
    with capture_events(service="shop") as captured:
        assert_type(captured.client, AnalyticsClient)
        assert_type(captured.events, list[EnrichedEvent])
        [event] = captured.of(OrderPlaced)
        assert_type(event.event_id, UUID)
        assert_type(event.data["total"], Any)
        captured.of("order_placed")
    assert_type(MemorySink().events, list[EnrichedEvent])
    try:
        client.track(OrderPlaced(order_id=1, total=1))
    except errors.InvalidEvent as refused:
        assert_type(refused.reason, str)
        assert_type(refused.detail, str)
