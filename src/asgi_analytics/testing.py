"""For the tests of an application: see what it tracks, without a database and without a thread.

::

    with capture_events(service="shop") as captured:
        app = AnalyticsMiddleware(app, client=captured.client)
        ...
        [event] = captured.of("api_request")
        assert event.data["endpoint"] == "/tasks/{id}"

Under pytest the fixture ``analytics`` is the same, with the service ``test``.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asgi_analytics.client import AnalyticsClient
from asgi_analytics.errors import ConfigError
from asgi_analytics.events.base import EnrichedEvent, Event, event_type_of
from asgi_analytics.pipeline.ledger import Ledger
from asgi_analytics.pipeline.queue import EventQueue, Item
from asgi_analytics.worker.callers import Callers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _KeepingQueue(EventQueue):
    """Settles each event as it comes, and keeps its line."""

    ledger: Ledger
    callers: Callers

    def reset(self) -> None:
        super().reset()
        self.kept: list[bytes] = []

    def put(self, item: Item, weight: int, captured: bool = False) -> bool:
        if self.closed or len(self.kept) >= (self.captured_size if captured else self.size):
            return False
        if not isinstance(item, bytes):
            self.callers.describe_here([item])
            item = item.line()
        self.kept.append(item)
        with self.ledger.lock:
            self.ledger.stored += 1
        return True


class CapturedEvents:
    """What was tracked with ``client``, so far and in order."""

    client: AnalyticsClient
    """Give it to the application under test."""

    def __init__(self, client: AnalyticsClient, queue: _KeepingQueue) -> None:
        self.client = client
        self._queue = queue
        self._decoded: list[EnrichedEvent] = []

    @property
    def events(self) -> list[EnrichedEvent]:
        """Everything tracked so far, in order, as it would be stored."""
        for line in self._queue.kept[len(self._decoded) :]:
            self._decoded.append(EnrichedEvent.from_json(line))
        return list(self._decoded)

    def of(self, event_type: str | type[Event]) -> list[EnrichedEvent]:
        """Return the events of one type, named by its tag (``"task_created"``) or its class.

        Raises `TypeError` for what names no type, such as an event itself.
        """
        if isinstance(event_type, type) and issubclass(event_type, Event):
            tag = event_type_of(event_type)
        elif isinstance(event_type, str):
            tag = event_type
        else:
            what = event_type.__name__ if isinstance(event_type, type) else f"a {type(event_type).__name__}"
            raise TypeError(f"{what} names no type of event: use a tag, of('task_created'), or a class of events")
        return [event for event in self.events if event.event_type == tag]

    def clear(self) -> None:
        """Forget what was tracked so far."""
        self._queue.kept.clear()
        self._decoded.clear()


@contextmanager
def capture_events(
    *,
    service: str = "test",
    clock: datetime | Callable[[], datetime] | None = None,
    ids: Iterable[UUID] | Callable[[], UUID] | None = None,
    **settings: Any,
) -> Iterator[CapturedEvents]:
    """Give a client whose events can be looked at, in place of one with a database.

    ``clock`` fixes the time: an aware datetime, or a function that returns one. ``ids`` fixes the event ids: an
    iterable of UUIDs, one an event (a test that tracks more gets them dropped as invalid), or a function that returns
    one. ``settings`` are those of `AnalyticsClient`. Raises `ConfigError` for a clock that is neither,
    or naive, and for ids that are neither.
    """
    client = AnalyticsClient(service=service, **({"queue_size": 1_000_000} | settings))
    queue = _KeepingQueue(size=client.settings.queue_size, max_bytes=client.settings.queue_bytes, wake_at=1)
    client._assemble(queue, _clock(clock), _ids(ids))
    queue.ledger = client._ledger
    queue.callers = Callers(None, client.settings.geoip_database)
    try:
        yield CapturedEvents(client, queue)
    finally:
        client.close(0)


def _clock(clock: datetime | Callable[[], datetime] | None) -> Callable[[], datetime] | None:
    if clock is None or callable(clock):
        return clock
    if not isinstance(clock, datetime):
        raise ConfigError(
            f"the clock is a {type(clock).__name__}: use an aware datetime, datetime(2026, 1, 1, tzinfo=UTC), or a "
            "function that returns one"
        )
    if clock.tzinfo is None:
        raise ConfigError("the clock is a naive datetime: give it a time zone, datetime(2026, 1, 1, tzinfo=UTC)")
    return lambda: clock


def _ids(ids: Iterable[UUID] | Callable[[], UUID] | None) -> Callable[[], UUID] | None:
    if ids is None:
        return None
    if not callable(ids) and (isinstance(ids, str | bytes) or not isinstance(ids, Iterable)):
        raise ConfigError(f"ids is a {type(ids).__name__}: use an iterable of UUIDs, or a function that returns one")
    take = ids if callable(ids) else iter(ids).__next__

    def new_id() -> UUID:
        try:
            event_id = take()
        except StopIteration:
            raise ValueError("capture_events has no id left for another event") from None
        if not isinstance(event_id, UUID):
            raise TypeError(f"the ids of capture_events give a {type(event_id).__name__}: give UUIDs")
        return event_id

    return new_id


try:
    import pytest
except ImportError:  # an application may look at its events without pytest
    pass
else:

    @pytest.fixture
    def analytics() -> Iterator[CapturedEvents]:
        """Give a client whose events can be looked at: ``analytics.client``, ``analytics.events``."""
        with capture_events() as captured:
            yield captured
