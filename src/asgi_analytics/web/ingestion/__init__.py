"""The ingestion service: takes batches of events over HTTP from services that must not reach the database."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from asgi_analytics.database.sqlite.url import is_sqlite
from asgi_analytics.errors import ConfigError, MissingExtra
from asgi_analytics.sinks.base import Sink
from asgi_analytics.sinks.sqlite import SqliteSink
from asgi_analytics.sinks.timescale import TimescaleSink

try:
    from starlette.routing import Route
except ImportError:
    raise MissingExtra("starlette", "server") from None

from asgi_analytics.values import MIB
from asgi_analytics.web.ingestion.body import ByteBudget, Limits
from asgi_analytics.web.ingestion.endpoints import WRITERS, IngestionService
from asgi_analytics.web.ingestion.validation import Validator
from asgi_analytics.web.problem import Problem
from asgi_analytics.web.service import make_service
from asgi_analytics.web.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    import asyncpg
    from starlette.applications import Starlette

_FAILED = Problem(
    500, "something failed here; nothing is known to be stored, send the batch again", {"Retry-After": "5"}
)


def create_ingestion_app(
    *,
    database_url: str | None = None,
    pool: asyncpg.Pool[Any] | None = None,
    sink: Sink | None = None,
    schema: str | None = None,
    tokens: Iterable[str] = (),
    max_body_bytes: int = 5 * MIB,
    max_events: int = 10_000,
    max_waiting_bytes: int = 128 * MIB,
    body_timeout: float = 30.0,
    retention: timedelta | None = None,
    strict_types: bool = False,
) -> Starlette:
    """Return the service as an ASGI application, to run alone or to mount: ``Mount("/analytics", app=…)``.

    It stores into ``database_url``, into your own ``pool`` (which the service does not close) or into any ``sink``:
    give exactly one of them. Nothing is connected before the first request. A mounted application works even if its
    lifespan is not run. ``schema`` names the schema of the tables. Without ``tokens`` every request is accepted.

    ``max_body_bytes`` (uncompressed) and ``max_events`` limit a batch; ``body_timeout`` is how many seconds its body
    may take to arrive; ``max_waiting_bytes`` limits what all requests together hold in memory. ``retention`` is how
    old an event may be; without it, as long as the database keeps the rows of its type, looked up once a minute, and
    90 days with a sink that does not say. ``strict_types`` refuses event types that have neither a class nor a
    schema in the registry of the database. Raises `ConfigError` for a wrong setting, `MissingExtra` without Starlette.
    """
    given = [one for one in (database_url, pool, sink) if one is not None]
    if len(given) != 1:
        raise ConfigError(
            "give one of database_url, pool and sink: create_ingestion_app(database_url='postgresql://…')"
        )
    for name, value in (
        ("max_body_bytes", max_body_bytes),
        ("max_events", max_events),
        ("max_waiting_bytes", max_waiting_bytes),
        ("body_timeout", body_timeout),
    ):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise ConfigError(f"{name} is {value!r}: use a number above 0")
    if retention is not None and (not isinstance(retention, timedelta) or retention <= timedelta()):
        raise ConfigError(f"retention is {retention!r}: use a timedelta, timedelta(days=90), or None")
    if sink is not None and not isinstance(sink, Sink):
        raise ConfigError(f"{type(sink).__name__} is not a sink: it must define async write(batch) and async aclose()")
    if isinstance(database_url, str) and is_sqlite(database_url):
        sink = SqliteSink(database_url)
    if sink is None:
        # Beside those that write, one connection for /ready and one for the upkeep.
        target: Any = database_url if pool is None else pool
        sink = TimescaleSink(target, schema=schema, connections=WRITERS + 2)
    service = IngestionService(
        sink,
        tokens=Tokens(tokens),
        limits=Limits(max_bytes=max_body_bytes, timeout=body_timeout),
        max_events=max_events,
        budget=ByteBudget(max(max_waiting_bytes, max_body_bytes)),
        validator=Validator(strict_types=strict_types),
        retention=retention,
    )
    app = make_service(
        "ingestion",
        [
            Route("/health", service.probes.health, methods=["GET"]),
            Route("/ready", service.probes.ready, methods=["GET"]),
            Route("/openapi.json", service.openapi, methods=["GET"]),
            Route("/events/batch", service.batch, methods=["POST"]),
        ],
        start=service.start,
        aclose=service.aclose,
        hint="send batches to POST /events/batch",
        failed=_FAILED,
    )
    app.state.ingestion = service
    return app
