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

from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asgi_analytics._queue import EventQueue, Item
from asgi_analytics.client import AnalyticsClient
from asgi_analytics.errors import ConfigError
from asgi_analytics.events.base import EnrichedEvent, Event, event_type_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class _KeepingQueue(EventQueue):
    """Settles each event as it comes, and keeps it."""

    def reset(self) -> None:
        super().reset()
        self.kept: list[bytes] = []

    def put(self, item: Item, weight: int, captured: bool = False) -> bool:
        if self.closed or len(self.kept) >= (self.captured_size if captured else self.size):
            return False
        self.kept.append(self.line_of(item))
        with self.lock:
            self.stored += 1
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
        """Return the events of one type, named by its tag (``"task_created"``) or its class."""
        tag = event_type if isinstance(event_type, str) else event_type_of(event_type)
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
    one. ``settings`` are those of `AnalyticsClient`. Raises `ConfigError` for a naive clock.
    """
    client = AnalyticsClient(service=service, **({"queue_size": 1_000_000} | settings))
    queue = _KeepingQueue(size=client.settings.queue_size, max_bytes=client.settings.queue_bytes, wake_at=1)
    client._queue = queue
    client._set_encoder(_clock(clock), _ids(ids))
    try:
        yield CapturedEvents(client, queue)
    finally:
        client.close(0)


def _clock(clock: datetime | Callable[[], datetime] | None) -> Callable[[], datetime] | None:
    if not isinstance(clock, datetime):
        return clock
    if clock.tzinfo is None:
        raise ConfigError("the clock is a naive datetime: give it a time zone, datetime(2026, 1, 1, tzinfo=UTC)")
    return lambda: clock


def _ids(ids: Iterable[UUID] | Callable[[], UUID] | None) -> Callable[[], UUID] | None:
    if ids is None or callable(ids):
        return ids
    iterator = iter(ids)

    def take() -> UUID:
        try:
            return next(iterator)
        except StopIteration:
            raise ValueError("capture_events has no id left for another event") from None

    return take


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
