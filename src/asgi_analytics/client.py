"""The client: ``track()`` puts an event into the queue; `_delivery.py` is about getting it out in time."""

from __future__ import annotations

import os
import socket
import threading
from datetime import UTC, datetime
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

from msgspec import structs
from opentelemetry.trace import format_span_id, format_trace_id

from asgi_analytics.config import Settings, from_environ
from asgi_analytics.context import current, otel_context, span_of
from asgi_analytics.encoding.encoder import EventEncoder, Facts
from asgi_analytics.errors import ConfigError, EventNotAccepted, InvalidEvent
from asgi_analytics.events.base import Event, decode_envelope
from asgi_analytics.exceptions import describe, unwrapped
from asgi_analytics.log import number_of_events
from asgi_analytics.pipeline import metrics as _metrics
from asgi_analytics.pipeline.delivery import Delivery, clients
from asgi_analytics.pipeline.queue import MOST_RECORDS_BYTES, EventQueue
from asgi_analytics.pipeline.stats import Stats
from asgi_analytics.reported import is_news

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from opentelemetry.context import Context

    from asgi_analytics.context import RequestContext
    from asgi_analytics.events.captured import ApplicationError
    from asgi_analytics.pipeline.delivery import Host


class RecordLines(Protocol):
    """Makes the JSON of records."""

    writer: int
    """What the records begin with, for the queue; set by `AnalyticsClient.lines`."""

    def line(self, record: tuple[Any, ...]) -> bytes:
        """Return the JSON of a record."""


_LinesT = TypeVar("_LinesT", bound=RecordLines)


class AnalyticsClient(Delivery):
    """Takes events from an application: from any thread, any loop, no loop, or a signal handler.

    ``AnalyticsClient.from_url(url, service=…)`` brings its own worker, in a thread that starts at the first event.
    ``AnalyticsClient(service=…)`` leaves the worker to the application: `AnalyticsWorker(client, sink)`.
    The settings are those of `asgi_analytics.config.Settings`; a wrong one raises `ConfigError`.
    """

    # Set by the package: makes the Host for a URL. The client knows neither the worker nor any sink.
    host_for_url: ClassVar[Callable[[AnalyticsClient, str, str | None], Host] | None] = None

    def __init__(
        self,
        *,
        service: str,
        environment: str | None = None,
        hash_key: str | bytes | None = None,
        keep_personal_data: bool = False,
        batch_size: int = 100,
        flush_interval: float = 10.0,
        queue_size: int = 10_000,
        queue_bytes: int = 64 * 1024 * 1024,
        max_event_bytes: int = 256 * 1024,
        close_timeout: float = 10.0,
        before_track: Callable[[Event], Event | None] | None = None,
        enabled: bool = True,
        strict: bool = False,
    ) -> None:
        self.settings = settings = Settings(
            service=service,
            environment=environment,
            hash_key=hash_key,
            keep_personal_data=keep_personal_data,
            batch_size=batch_size,
            flush_interval=flush_interval,
            queue_size=queue_size,
            queue_bytes=queue_bytes,
            max_event_bytes=max_event_bytes,
            close_timeout=close_timeout,
            before_track=before_track,
            enabled=enabled,
            strict=strict,
        )
        self._host = None
        self._set_encoder(None, None)
        self._queue = EventQueue(
            size=settings.queue_size,
            max_bytes=settings.queue_bytes,
            wake_at=min(settings.batch_size, settings.queue_size) if settings.flush_interval > 0 else 1,
        )
        self._max_event_bytes = settings.max_event_bytes
        # The one flag that the fast way asks: nothing between the event and its encoding.
        self._plain = settings.enabled and settings.before_track is None
        clients.add(self)
        _metrics.observe(self)

    def _set_encoder(self, clock: Callable[[], datetime] | None, new_id: Callable[[], UUID] | None) -> None:
        key = self.settings.hash_key
        self._mints_itself = clock is None and new_id is None
        self._lines: dict[Any, Any] = {}
        self._encoder = EventEncoder(
            service=self.settings.service,
            environment=self.settings.environment,
            hostname=socket.gethostname(),
            hash_key=key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key,
            keep_personal_data=self.settings.keep_personal_data,
            clock=clock,
            new_id=new_id,
            max_bytes=self.settings.max_event_bytes,
        )
        self._plain_encoders = self._encoder.plain

    @classmethod
    def from_url(cls, url: str, *, service: str, token: str | None = None, **settings: Any) -> Self:
        """Return a client whose events go to a URL: ``postgresql://…``, ``http(s)://…`` or ``memory://``.

        ``token`` is sent to an ingestion service. Nothing is connected before the first event. Raises `ConfigError`
        for a URL or a setting that is wrong, `MissingExtra` where the URL needs a package that is not installed.
        """
        client = cls(service=service, **settings)
        if cls.host_for_url is None:
            raise ConfigError("import AnalyticsClient from asgi_analytics, which brings the worker")
        client._host = cls.host_for_url(client, url, token)
        if client.settings.enabled:
            client._queue.idle(client._host.start, wake_at=1)
        return client

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None, **settings: Any) -> Self:
        """Return a client as the environment says: ``ANALYTICS_URL``, ``ANALYTICS_SERVICE`` and their like.

        Each setting has a variable, its name in capitals behind ``ANALYTICS_``; arguments win over variables.
        Without ``ANALYTICS_URL`` the application brings the worker. Raises `ConfigError` that names the variable.
        """
        merged = {**from_environ(os.environ if environ is None else environ), **settings}
        if "service" not in merged:
            raise ConfigError("ANALYTICS_SERVICE is not set: name the service, ANALYTICS_SERVICE=shop")
        url = merged.pop("url", None)
        if url is None:
            merged.pop("token", None)
            return cls(**merged)
        return cls.from_url(url, **merged)

    def __repr__(self) -> str:
        """Return the service and what waits."""
        return f"<AnalyticsClient service={self.settings.service!r} queued={len(self._queue.items)}>"

    @property
    def sink(self) -> Any:
        """The sink of a client made from a URL; None where the application owns the worker."""
        return None if self._host is None else self._host.sink

    # -- tracking

    def track(self, event: Event) -> bool:
        """Accept an event for storing; False when it was dropped, which `stats` counts by reason.

        No I/O, no lock, no await. Never raises, unless ``strict`` is set: then `EventNotAccepted`. The event is
        encoded here, so that what the caller changes later changes nothing.
        """
        queue = self._queue
        # The usual case, and all of it: an event of exact types, outside a request and a trace, nothing to ask before.
        if self._plain and current.get() is None and not otel_context():
            with_no_facts = self._plain_encoders.get(type(event))
            try:
                line = with_no_facts and with_no_facts(event)
            except Exception:
                line = None  # _track mends it, or says what is wrong with it
            if line and (weight := len(line)) <= self._max_event_bytes and queue.put(line, weight):
                return True
        return self._track(event)

    def track_captured(self, event: Event) -> bool:
        """Accept an event that was captured rather than said: refused from 80 % full, and never raising."""
        try:
            return self._track(event, captured=True)
        except EventNotAccepted:
            return False

    def track_captured_record(self, record: tuple[Any, ...]) -> bool:
        """Accept a captured event as a record, of which the worker makes the JSON; `lines` has made what makes it."""
        queue, weight = self._queue, record[1]
        if weight <= self._max_event_bytes and queue.put(record, weight, True):
            return True
        return self.refuse_captured(weight)

    def refuse_captured(self, weight: int) -> bool:
        """Count a captured event that the queue did not take; False."""
        try:
            return self._refuse(weight)
        except EventNotAccepted:
            return False

    def lines(self, make: Callable[[str, str | None, str | None], _LinesT]) -> _LinesT | None:
        """Return what makes records, and lines of them, for this client: ``make(service, hostname, environment)``.

        One for all who ask for the same; None where each event must be an object, has a fixed identity, or may be too
        large for the settings.
        """
        if not self._plain or not self._mints_itself or self._max_event_bytes < MOST_RECORDS_BYTES:
            return None
        lines = self._lines.get(make)
        if lines is None:
            lines = self._lines[make] = make(self.settings.service, socket.gethostname(), self.settings.environment)
            lines.writer = self._queue.add_writer(lines.line)
        return lines

    def track_error(self, exc: BaseException, *, context: dict[str, Any] | None = None) -> bool:
        """Report an exception that the application has handled, as an `ApplicationError` with ``handled`` true.

        Each exception object is reported once: False for the second time, inside an excluded request, and where
        `track` would drop it. Never raises, unless ``strict`` is set. ``context`` is stored beside the stack.
        """
        event = self._describe(exc, handled=True, context=context)
        return event is not None and self.track(event)

    def track_unhandled(self, exc: BaseException, *, context: dict[str, Any] | None = None) -> bool:
        """Report an exception that nobody handles, with ``handled`` false: for the middleware, decorators and hooks.

        As `track_error`, but refused from 80 % full, and never raising.
        """
        event = self._describe(exc, handled=False, context=context)
        return event is not None and self.track_captured(event)

    def _describe(
        self, exc: BaseException, *, handled: bool, context: dict[str, Any] | None
    ) -> ApplicationError | None:
        """Return the event for an exception; None when it was reported before, or belongs to an excluded request."""
        try:
            exc = unwrapped(exc)
            request = current.get()
            if (request is not None and request.excluded) or not is_news(exc, self, request):
                return None
            endpoint = None if request is None else request.endpoint
            return describe(exc, handled=handled, endpoint=endpoint, context=context)
        except Exception as error:  # an exception whose class misbehaves
            self._queue.drop("invalid", f"{type(error).__name__} while describing a {type(exc).__name__}")
            return None

    def _track(self, event: Event, *, captured: bool = False) -> bool:
        try:
            request = current.get()
            trace = otel_context()
            facts = _facts(request, trace) if trace or request is not None else None
            if not self._plain:
                if not self.settings.enabled:
                    return False
                filtered = self._filtered(event, facts)
                if filtered is None:
                    return False
                event = filtered
            line = self._encoder.encode(event, facts)
        except InvalidEvent as error:
            return self._drop(error.reason, error.detail, error)
        except EventNotAccepted:
            raise
        except Exception as error:  # whatever it is, the application must not see it
            return self._drop("invalid", f"{type(error).__name__} while encoding", error)
        if len(line) <= self._max_event_bytes and self._queue.put(line, len(line), captured):
            return True
        return self._refuse(len(line))

    def _refuse(self, weight: int) -> bool:
        queue = self._queue
        if weight > self._max_event_bytes:
            return self._drop("oversize", f"{weight} bytes encoded; max_event_bytes is {self._max_event_bytes}")
        if queue.closed:
            return self._drop("closed", "the client is closed")
        waiting = number_of_events(len(queue.items), "waits", "wait")
        return self._drop("queue_full", f"{waiting}; queue_size is {queue.size}")

    def _filtered(self, event: Event, facts: Facts | None) -> Event | None:
        """Return what ``before_track`` makes of an event; the request's user is shown to it in the event's field."""
        before_track = self.settings.before_track
        if before_track is None:
            return event
        depth = getattr(_asking, "depth", 0)
        if depth == _DEEPEST:  # what it tracks for each event that it sees would have no end
            self._queue.drop("before_track", "before_track tracks an event for each event that it tracks itself")
            return None
        _asking.depth = depth + 1
        try:
            user_id = None if facts is None else facts.user_id
            if user_id is not None and isinstance(event, Event) and getattr(event, "user_id", user_id) is None:
                event = structs.replace(event, user_id=user_id)
            result = before_track(event)
            if facts is not None and hasattr(result, "user_id"):
                facts.user_id = None  # what it made of the user holds, also when it took the user away
        except Exception as error:
            self._drop("before_track", f"before_track raised {type(error).__name__}", error)
            return None
        finally:
            _asking.depth = depth
        if result is None:
            self._queue.drop("before_track", "")  # on purpose: nothing to log, and nothing for strict to raise
        return result

    def _drop(self, reason: str, detail: str, cause: BaseException | None = None) -> bool:
        self._queue.drop(reason, detail)
        if self._host is not None:
            self._host.start()  # the worker logs what was dropped: a log handler here might block, or track
        if self.settings.strict:
            if isinstance(cause, InvalidEvent):
                raise cause
            raise EventNotAccepted(reason, detail) from cause
        return False

    def stats(self) -> Stats:
        """Return what became of the events until now; may be read from any thread."""
        age = 0.0
        if (item := self._queue.oldest()) is not None:
            now = self._encoder.clock() if self._encoder.clock else datetime.now(UTC)
            if isinstance(item, bytes):
                then = decode_envelope(item).timestamp.timestamp()
            else:
                then = (item[2] if isinstance(item, tuple) else item.time_ns) / 1e9
            age = max(0.0, now.timestamp() - then)
        return self._queue.read(age)


def checked_client(client: object) -> AnalyticsClient:
    """Return a client; raises `ConfigError` for what is none, such as the function below a bare ``@capture_errors``."""
    if not isinstance(client, AnalyticsClient):
        bare = ", as in @capture_errors(client)" if isinstance(client, FunctionType) else ""
        raise ConfigError(f"client is a {type(client).__name__}: use an AnalyticsClient{bare}")
    return client


def _facts(request: RequestContext | None, trace: Context) -> Facts:
    facts = Facts()
    if request is not None:
        facts.user_id = request.user_id
        facts.session_id = request.session_id
        facts.request_id = request.request_id
    span = None if request is None else request.span
    if trace:
        span = span_of(trace) or span
    if span is not None:
        facts.trace_id = format_trace_id(span[0])
        facts.span_id = format_span_id(span[1])
    return facts


_asking = threading.local()
"""How many calls of ``before_track`` this thread is in: that function may track events, too."""
_DEEPEST = 2
