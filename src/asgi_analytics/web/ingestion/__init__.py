"""The ingestion service: takes batches of events by HTTP for services that must not reach the database."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from asgi_analytics.errors import ConfigError, MissingExtra
from asgi_analytics.sinks.base import Sink
from asgi_analytics.sinks.timescale import TimescaleSink

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.routing import Route
except ImportError:
    raise MissingExtra("starlette", "server") from None

from asgi_analytics.web import problem
from asgi_analytics.web.access import AccessLog, Figures
from asgi_analytics.web.ingestion.body import Limits, Room
from asgi_analytics.web.ingestion.endpoints import WRITERS, IngestionService
from asgi_analytics.web.ingestion.validation import RETENTION, Validator
from asgi_analytics.web.problem import Problem
from asgi_analytics.web.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import asyncpg


MIB = 1024 * 1024


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
    retention: timedelta = RETENTION,
    strict_types: bool = False,
) -> Starlette:
    """Return the service as an ASGI application, to run alone or to mount: ``Mount("/analytics", app=…)``.

    It stores into ``database_url``, a ``pool`` of your own (which stays yours to close) or any ``sink``: give one of
    them. Nothing is connected before the first request, and a mounted application whose lifespan nobody runs works
    too. ``schema`` names where the tables are. Without ``tokens`` everybody who reaches it may send.

    ``max_body_bytes`` (unpacked) and ``max_events`` bound a batch, ``body_timeout`` the seconds that its body may take
    to arrive, ``max_waiting_bytes`` what all requests together may hold in memory. ``retention`` is how old an event
    may be; give the database's when it keeps raw rows for another time. ``strict_types`` refuses unknown event types.
    Raises `ConfigError` for a setting that is wrong.
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
    if not isinstance(retention, timedelta) or retention <= timedelta():
        raise ConfigError(f"retention is {retention!r}: use a timedelta, timedelta(days=90)")
    if sink is not None and not isinstance(sink, Sink):
        raise ConfigError(f"{type(sink).__name__} is no sink: it needs async write(batch) and aclose()")
    if sink is None:
        # Two connections more than write: one to ask whether it is ready, one for the upkeep.
        target: Any = database_url if pool is None else pool
        sink = TimescaleSink(target, schema=schema, connections=WRITERS + 2)
    figures = Figures()
    service = IngestionService(
        sink,
        tokens=Tokens(tokens),
        limits=Limits(max_bytes=max_body_bytes, timeout=body_timeout),
        max_events=max_events,
        room=Room(max(max_waiting_bytes, max_body_bytes)),
        validator=Validator(strict_types=strict_types, retention=retention),
        figures=figures,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.aclose()

    app = Starlette(
        routes=[
            Route("/health", service.health, methods=["GET"]),
            Route("/ready", service.ready, methods=["GET"]),
            Route("/openapi.json", service.openapi, methods=["GET"]),
            Route("/events/batch", service.batch, methods=["POST"]),
        ],
        middleware=[Middleware(AccessLog, figures=figures)],
        exception_handlers={
            Problem: problem.on_problem,
            HTTPException: problem.on_http_exception,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would repeat what the request says of its host
    app.state.ingestion = service
    return app
