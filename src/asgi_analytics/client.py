"""The client: ``track()`` puts an event into the queue; `pipeline` is about getting it out in time."""

from __future__ import annotations

import os
import socket
import time
from datetime import UTC, datetime
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Self

from opentelemetry.context import get_current

from asgi_analytics.config import Settings, from_environ
from asgi_analytics.context import current
from asgi_analytics.encoding.encoder import EventEncoder
from asgi_analytics.encoding.records import Source
from asgi_analytics.errors import ConfigError
from asgi_analytics.events.base import Event, decode_envelope
from asgi_analytics.metrics import Metrics
from asgi_analytics.pipeline import instruments
from asgi_analytics.pipeline.delivery import Delivery
from asgi_analytics.pipeline.intake import Intake
from asgi_analytics.pipeline.ledger import Ledger
from asgi_analytics.pipeline.queue import EventQueue
from asgi_analytics.pipeline.series import SeriesTable
from asgi_analytics.pipeline.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from asgi_analytics.pipeline.delivery import Host


class AnalyticsClient:
    """Takes events from an application: from any thread, any loop, no loop, or a signal handler.

    ``AnalyticsClient.from_url(url, service=…)`` brings its own worker, in a thread that starts at the first event.
    ``AnalyticsClient(service=…)`` leaves the worker to the application: `AnalyticsWorker(client, sink)`.
    The settings are those of `asgi_analytics.config.Settings`; a wrong one raises `ConfigError`.
    """

    # Set by the package, its composition root: makes the Host for a URL. The client knows neither the worker nor any
    # sink.
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
        geoip_database: str | None = None,
        strict: bool = False,
        metrics_interval: float = 60.0,
        metrics_series: int = 2_000,
        pipeline_metrics: bool = False,
        spool: str | os.PathLike[str] | None = None,
        spool_bytes: int = 1024 * 1024 * 1024,
        spool_mode: Literal["overflow", "always"] = "overflow",
        spool_interval: float = 0.1,
        spool_sync: bool = False,
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
            geoip_database=geoip_database,
            strict=strict,
            metrics_interval=metrics_interval,
            metrics_series=metrics_series,
            pipeline_metrics=pipeline_metrics,
            spool=spool,
            spool_bytes=spool_bytes,
            spool_mode=spool_mode,
            spool_interval=spool_interval,
            spool_sync=spool_sync,
        )
        queue = EventQueue(
            size=settings.queue_size,
            max_bytes=settings.queue_bytes,
            wake_at=min(settings.batch_size, settings.queue_size) if settings.flush_interval > 0 else 1,
        )
        self._assemble(queue)
        instruments.observe(self)

    def _assemble(
        self,
        queue: EventQueue,
        clock: Callable[[], datetime] | None = None,
        new_id: Callable[[], UUID] | None = None,
    ) -> None:
        """Connect the parts; a test may bring its own queue, and fix time and ids."""
        settings, key = self.settings, self.settings.hash_key
        self._queue = queue
        self._ledger = Ledger(queue)
        self._encoder = EventEncoder(
            service=settings.service,
            environment=settings.environment,
            hostname=socket.gethostname(),
            hash_key=key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key,
            keep_personal_data=settings.keep_personal_data,
            clock=clock,
            new_id=new_id,
            max_bytes=settings.max_event_bytes,
        )
        source = Source.of(settings.service, self._encoder.hostname, settings.environment)
        self._series = SeriesTable(
            queue,
            self._ledger,
            source,
            self._now,
            max_series=settings.metrics_series,
            strict=settings.strict,
            enabled=settings.enabled,
        )
        self._delivery = Delivery(settings, queue, self._ledger, self._series)
        self.intake = Intake(settings, self._encoder, queue, self._ledger, self._delivery)
        """Accepts what is captured; for the middleware, the decorators and the drivers."""
        self.metrics = Metrics(self._series)
        """Counters, gauges, histograms and timers; see `Metrics`."""
        self._max_event_bytes = settings.max_event_bytes

    def _now(self) -> int:
        try:
            return self.intake.now()
        except Exception:  # of a clock that is not ours
            return time.time_ns()

    @classmethod
    def from_url(cls, url: str, *, service: str, token: str | None = None, **settings: Any) -> Self:
        """Return a client whose events go to a URL: ``postgresql://…``, ``http(s)://…`` or ``memory://``.

        ``token`` is sent to an ingestion service. Nothing is connected before the first event. Raises `ConfigError`
        for a URL or a setting that is wrong, `MissingExtra` where the URL needs a package that is not installed.
        """
        client = cls(service=service, **settings)
        if cls.host_for_url is None:
            raise ConfigError("import AnalyticsClient from asgi_analytics, which brings the worker")
        host = cls.host_for_url(client, url, token)
        if client.settings.enabled:
            client._delivery.use_host(host)
        else:
            client._delivery.host = host
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

    def __reduce__(self) -> NoReturn:
        """Raise TypeError: a client has a queue and a thread, which belong to its process."""
        raise TypeError(
            "an AnalyticsClient cannot be pickled or copied: make one in each process, at import or in the initializer "
            "of the pool, instead of passing it as an argument"
        )

    @property
    def sink(self) -> Any:
        """The sink of a client made from a URL; None where the application owns the worker."""
        host = self._delivery.host
        return None if host is None else host.sink

    # -- tracking

    def track(self, event: Event) -> bool:
        """Accept an event for storing; False if it was dropped, which `stats` counts by reason.

        No I/O, no lock, no await. Never raises, unless ``strict`` is set: then `EventNotAccepted`. The event is
        encoded here, so that what the caller changes later changes nothing.
        """
        # The usual case, and all of it: outside of a request and a trace, and nothing to be asked before.
        if self.intake.is_plain and current.get() is None and not get_current():
            try:
                line = self._encoder.encode(event)
            except Exception as error:
                return self.intake.refuse_invalid(error)
            if len(line) <= self._max_event_bytes and self._queue.put(line, len(line)):
                return True
            return self.intake.refuse(len(line))
        return self.intake.accept(event)

    def track_error(self, exc: BaseException, *, context: dict[str, Any] | None = None) -> bool:
        """Report an exception that the application has handled, as an `ApplicationError` with ``handled`` true.

        Each exception object is reported once: False for the second time, inside an excluded request, and if `track`
        would drop it. Never raises, unless ``strict`` is set. ``context`` is stored beside the stack.
        """
        event = self.intake.describe(exc, handled=True, context=context)
        return event is not None and self.track(event)

    # -- delivery

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything accepted before the call is settled, at most ``timeout`` seconds (``close_timeout``).

        Interrupts a backoff. False if something is left. At zero it asks for a write and does not wait. In the worker's
        own thread it does not wait either, nor in a signal handler that interrupts a call of this client which holds
        its lock: nothing could happen meanwhile.
        """
        return self._delivery.flush(timeout)

    async def aflush(self, timeout: float | None = None) -> bool:
        """Do what `flush` does without blocking the loop."""
        return await self._delivery.aflush(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Refuse further events, `flush`, and end the worker, all within ``timeout`` seconds (``close_timeout``).

        What is left then goes to the spool, if there is one; else it is counted as abandoned, and False says so. If the
        sink fails and all is in the spool, it returns before that. If `flush` cannot wait, the worker writes what is
        left after this call, and ends. A call after the end does nothing and returns True.
        """
        return self._delivery.close(timeout)

    async def aclose(self, timeout: float | None = None) -> bool:
        """Do what `close` does without blocking the loop, and wait for a worker on this loop too."""
        return await self._delivery.aclose(timeout)

    def stats(self) -> Stats:
        """Return what became of the events until now; may be read from any thread."""
        self._series.look()
        age = 0.0
        if (item := self._ledger.oldest()) is not None:
            now = self._encoder.clock() if self._encoder.clock else datetime.now(UTC)
            then = decode_envelope(item).timestamp.timestamp() if isinstance(item, bytes) else item.time / 1e9
            age = max(0.0, now.timestamp() - then)
        return self._ledger.read(age, self._series.overflowed())


def checked_client(client: object) -> AnalyticsClient:
    """Return a client; raises `ConfigError` for anything else, such as the function below ``@capture_errors``."""
    if not isinstance(client, AnalyticsClient):
        bare = ", as in @capture_errors(client)" if isinstance(client, FunctionType) else ""
        raise ConfigError(f"client is a {type(client).__name__}: use an AnalyticsClient{bare}")
    return client
