"""The way in: from an event, a record or an exception to an item of the queue, or to a counted drop."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from msgspec import structs
from opentelemetry.context import get_current
from opentelemetry.trace import format_span_id, format_trace_id

from asgi_analytics.context import current, span_of
from asgi_analytics.encoding.caller import CallerLine
from asgi_analytics.encoding.envelope import Surroundings
from asgi_analytics.encoding.page_view_record import PageViewRecord
from asgi_analytics.encoding.records import Source
from asgi_analytics.errors import EventNotAccepted, InvalidEvent
from asgi_analytics.events.base import Event
from asgi_analytics.exceptions import describe, is_first_report, unwrapped

if TYPE_CHECKING:
    from asgi_analytics.config import Settings
    from asgi_analytics.encoding.caller import Caller
    from asgi_analytics.encoding.encoder import EventEncoder
    from asgi_analytics.encoding.records import Record
    from asgi_analytics.events.captured import ApplicationError
    from asgi_analytics.pipeline.delivery import Delivery
    from asgi_analytics.pipeline.ledger import Ledger
    from asgi_analytics.pipeline.queue import EventQueue

RECORDS_FROM_BYTES = 4096
"""If ``max_event_bytes`` is less, captured events are encoded at once: only a line has an exact size."""

MOST_NESTED = 2
"""``before_track`` may itself track events, which it then sees; so many calls deep at most."""


class Intake:
    """Accepts events into the queue of a client, or drops and counts them.

    What is captured (``event``, ``record``, ``error``) is refused from 80 % full, and never raises.
    """

    def __init__(
        self, settings: Settings, encoder: EventEncoder, queue: EventQueue, ledger: Ledger, delivery: Delivery
    ) -> None:
        self._settings = settings
        self._encoder = encoder
        self._queue = queue
        self._ledger = ledger
        self._delivery = delivery
        self._max_bytes = settings.max_event_bytes
        self.source = Source.of(settings.service, encoder.hostname, settings.environment)
        """What records need to know of the client."""
        self.is_plain = settings.enabled and settings.before_track is None
        """Whether an event may go straight to its encoding."""
        self.has_own_clock = encoder.clock is None
        """Whether the time is that of this machine."""
        # before_track has to see the event; and a record cannot have a fixed time or id.
        self._takes_records = self.is_plain and encoder.mints and self._max_bytes >= RECORDS_FROM_BYTES

    # -- captured

    def now(self) -> int:
        """Return the time by the client's clock, in Unix nanoseconds."""
        clock = self._encoder.clock
        return time.time_ns() if clock is None else int(clock().timestamp() * 1e9)

    def event(self, event: Event, caller: Caller | None = None) -> bool:
        """Accept a captured event; ``caller`` is who sent the request, where the event is to say it."""
        try:
            return self.accept(event, captured=True, caller=caller)
        except EventNotAccepted:  # in strict mode
            return False

    def record(self, record: Record) -> bool:
        """Accept a captured event as a record, of which the worker makes the line."""
        if not self._takes_records:
            return self.event(record.event(), record.caller if isinstance(record, PageViewRecord) else None)
        if record.weight <= self._max_bytes and self._queue.put(record, record.weight, captured=True):
            return True
        try:
            return self.refuse(record.weight)
        except EventNotAccepted:
            return False

    def error(self, exc: BaseException, *, context: dict[str, Any] | None = None) -> bool:
        """Accept an unhandled exception."""
        event = self.describe(exc, handled=False, context=context)
        return event is not None and self.event(event)

    # -- explicit

    def describe(self, exc: BaseException, *, handled: bool, context: dict[str, Any] | None) -> ApplicationError | None:
        """Return the event of an exception; None if it was reported before, or belongs to an excluded request."""
        try:
            exc = unwrapped(exc)
            request = current.get()
            if (request is not None and request.excluded) or not is_first_report(exc, self, request):
                return None
            endpoint = None if request is None else request.endpoint
            return describe(exc, handled=handled, endpoint=endpoint, context=context)
        except Exception as error:  # an exception whose class misbehaves
            self._ledger.drop("invalid", f"{type(error).__name__} while describing a {type(exc).__name__}")
            return None

    def accept(self, event: Event, *, captured: bool = False, caller: Caller | None = None) -> bool:
        """Encode an event and put it into the queue; False if it was dropped.

        Raises `EventNotAccepted` in strict mode.
        """
        try:
            surroundings = _surroundings()
            if not self.is_plain:
                if not self._settings.enabled:
                    return False
                filtered = self._filtered(event, surroundings)
                if filtered is None:
                    return False
                event = filtered
            line = self._encoder.encode(event, surroundings)
            if not captured and (request := current.get()) is not None:
                caller = request.caller
        except Exception as error:
            return self.refuse_invalid(error)
        item = line if caller is None else CallerLine(line, caller)
        if len(line) <= self._max_bytes and self._queue.put(item, len(line), captured):
            return True
        return self.refuse(len(line))

    def refuse_invalid(self, error: Exception) -> bool:
        """Drop an event that cannot be encoded. Raises `EventNotAccepted` in strict mode, whatever the error was."""
        if isinstance(error, InvalidEvent):
            return self._drop(error.reason, error.detail, error)
        if isinstance(error, EventNotAccepted):  # dropped, and counted, already
            raise error
        return self._drop("invalid", f"{type(error).__name__} while encoding", error)

    def _filtered(self, event: Event, surroundings: Surroundings | None) -> Event | None:
        """Return what ``before_track`` makes of an event; the request's user is shown to it in the event's field."""
        before_track = self._settings.before_track
        if before_track is None:
            return event
        depth = getattr(_nested, "depth", 0)
        if depth == MOST_NESTED:
            self._ledger.drop("before_track", "before_track calls track() recursively")
            return None
        _nested.depth = depth + 1
        try:
            user_id = None if surroundings is None else surroundings.user_id
            if user_id is not None and isinstance(event, Event) and getattr(event, "user_id", user_id) is None:
                event = structs.replace(event, user_id=user_id)
            result = before_track(event)
            if surroundings is not None and hasattr(result, "user_id"):
                surroundings.user_id = None  # what it made of the user holds, also if it took the user away
        except Exception as error:
            self._drop("before_track", f"before_track raised {type(error).__name__}", error)
            return None
        finally:
            _nested.depth = depth
        if result is None:
            self._ledger.drop("before_track", "")  # on purpose: nothing to log, and nothing for strict mode to raise
        return result

    def refuse(self, weight: int) -> bool:
        """Drop an event, of so many bytes, that the queue did not take. Raises `EventNotAccepted` in strict mode."""
        queue = self._queue
        if weight > self._max_bytes:
            return self._drop("oversize", f"{weight} bytes encoded; max_event_bytes is {self._max_bytes}")
        if queue.closed:
            return self._drop("closed", "the client is closed")
        return self._drop("queue_full", f"the queue is full: waiting={len(queue.items)}, queue_size={queue.size}")

    def _drop(self, reason: str, detail: str, cause: BaseException | None = None) -> bool:
        self._ledger.drop(reason, detail)
        self._delivery.start_worker()  # it logs what was dropped: a log handler here might block, or track
        if self._settings.strict:
            if isinstance(cause, InvalidEvent):
                raise cause
            raise EventNotAccepted(reason, detail) from cause
        return False


def _surroundings() -> Surroundings | None:
    """Return what is known here of the request and its trace; None outside of both."""
    request = current.get()
    trace = get_current()
    if request is None and not trace:
        return None
    surroundings = Surroundings()
    span = None
    if request is not None:
        surroundings.user_id = request.user_id
        surroundings.session_id = request.session_id
        surroundings.request_id = request.request_id
        span = request.span
    if trace:
        span = span_of(trace) or span
    if span is not None:
        surroundings.trace_id = format_trace_id(span[0])
        surroundings.span_id = format_span_id(span[1])
    return surroundings


_nested = threading.local()
"""How many calls of ``before_track`` this thread is in."""
