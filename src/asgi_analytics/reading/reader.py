"""The reader: a database, and every question as a method."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Self

import msgspec

from asgi_analytics.database.sqlite.url import is_sqlite, read_sqlite_url
from asgi_analytics.errors import ConfigError, InvalidQuery
from asgi_analytics.reading import (
    activity,
    aggregations,
    consumers,
    dashboard,
    errors,
    events,
    features,
    funnels,
    integrations,
    latency,
    lifecycle,
    metrics,
    overview,
    pages,
    paths,
    pipeline,
    queries,
    retention,
    sessions,
    stickiness,
    tasks,
    trends,
    users,
)
from asgi_analytics.reading.pool import UrlPool
from asgi_analytics.reading.question import QUESTIONS
from asgi_analytics.reading.ranges import local
from asgi_analytics.reading.source import LATE, SQL, Noted, Source, Write, noted
from asgi_analytics.reading.sqlite_pool import SqlitePool


class Meta(msgspec.Struct, frozen=True):
    """What an answer is about."""

    start: datetime | None
    """Of the range, in its time zone; null for a question without one."""
    end: datetime | None
    timezone: str
    complete_until: datetime
    """Until when the answer knows all that was stored: the end of the range, at most now."""
    approximate: bool
    """Whether percentiles come from the histogram, within 2 %."""
    definition: str
    """The sentence that says what is counted."""


class Answered(msgspec.Struct, frozen=True):
    """An answer with what it is about."""

    results: Any
    meta: Meta


class AnalyticsReader(Source):
    """Answers questions from the database, with the rights of the reader role.

    ``pool``: an asyncpg pool, which stays the caller's to close. ``timezone``: the IANA name of the zone whose days are
    meant unless a question names another. ``statement_timeout``: seconds after which the server gives a question up,
    which raises `QueryTimeout`. ``schema``: where the tables are; by default the ``search_path`` says so. ``clock``
    returns the time as an aware datetime, for tests.

    Each method is the function of the same name in a module of this package. Raises `ReadError`.
    """

    get_overview_stats = overview.get_overview_stats
    get_daily_active_users = users.get_daily_active_users
    get_weekly_active_users = users.get_weekly_active_users
    get_monthly_active_users = users.get_monthly_active_users
    get_task_stats_daily = tasks.get_task_stats_daily
    get_task_stats_overview = tasks.get_task_stats_overview
    get_endpoint_latency = latency.get_endpoint_latency
    get_latency_series = latency.get_latency_series
    get_slowest_endpoints = latency.get_slowest_endpoints
    get_apdex = latency.get_apdex
    get_api_consumers = consumers.get_api_consumers
    get_integration_health = integrations.get_integration_health
    get_auth_stats = integrations.get_auth_stats
    get_cocoon_activity = integrations.get_cocoon_activity
    get_error_summary = errors.get_error_summary
    list_error_groups = errors.list_error_groups
    get_error_group = errors.get_error_group
    list_slow_queries = queries.list_slow_queries
    list_repeated_queries = queries.list_repeated_queries
    query_events = events.query_events
    query_aggregations = aggregations.query_aggregations
    get_pipeline_health = pipeline.get_pipeline_health
    query_sessions = sessions.query_sessions
    get_session = sessions.get_session
    get_session_summary = sessions.get_session_summary
    get_session_series = sessions.get_session_series
    get_session_breakdown = sessions.get_session_breakdown
    list_pages = pages.list_pages
    get_user_activity = activity.get_user_activity
    get_feature_usage = features.get_feature_usage
    top_features = features.top_features
    query_funnel = funnels.query_funnel
    query_funnel_conversions = funnels.query_funnel_conversions
    list_funnels = funnels.list_funnels
    get_funnel = funnels.get_funnel
    create_funnel = funnels.create_funnel
    delete_funnel = funnels.delete_funnel
    query_trends = trends.query_trends
    query_retention = retention.query_retention
    query_stickiness = stickiness.query_stickiness
    query_lifecycle = lifecycle.query_lifecycle
    query_paths = paths.query_paths
    query_metrics = metrics.query_metrics
    metric_stats = metrics.metric_stats
    query_metric_aggregates = metrics.query_metric_aggregates
    get_dashboard_metrics = dashboard.get_dashboard_metrics
    get_realtime_metrics = dashboard.get_realtime_metrics

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        timezone: str = "UTC",
        statement_timeout: float = 10.0,
        schema: str | None = None,
        connections: int = 4,
        clock: Callable[[], datetime] | None = None,
    ) -> Self:
        """Return a reader with a pool of its own, of up to ``connections``, that opens with ``async with``.

        Connections are made when they are needed, so opening works while the database is away. Raises `ConfigError`.
        """
        pool: UrlPool | SqlitePool
        if is_sqlite(url):
            if schema is not None:
                raise ConfigError("SQLite has no schemas: leave the schema out")
            pool = SqlitePool(read_sqlite_url(url), connections)
        else:
            pool = UrlPool(url, connections, statement_timeout + LATE)
        return cls(pool, timezone=timezone, statement_timeout=statement_timeout, schema=schema, clock=clock)

    async def open(self) -> None:
        """Open the pool of a reader that was made from a URL; without effect on any other."""
        if isinstance(self._pool, UrlPool | SqlitePool):
            await self._pool.open()

    async def aclose(self) -> None:
        """Close the pool of a reader that was made from a URL; questions that run are waited for."""
        if isinstance(self._pool, UrlPool | SqlitePool):
            await self._pool.aclose()

    async def ready(self) -> None:
        """Return if questions can be answered now. Raises `ReadError` that says what is in the way."""
        now = self.now()
        async with self.snapshot() as snapshot:
            await snapshot.records(SQL["lost_rows"], now, now, None)

    async def __aenter__(self) -> Self:
        """Open the reader."""
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the reader."""
        await self.aclose()

    async def answer(self, question: str, /, **arguments: Any) -> Answered:
        """Return the answer to a question by its name, with what it is about: the range, what is counted, how exactly.

        Raises `ReadError`.
        """
        return await self._answer(question, arguments, None)

    async def stream(self, question: str, write: Write, /, **arguments: Any) -> Answered:
        """Give all rows of a question that returns a list to ``write``, 1,000 at a time, and return what it is about.

        They are not limited in number, whatever ``limit`` says. Raises `ReadError`, and what ``write`` raises.
        """
        return await self._answer(question, arguments, write)

    async def _answer(self, question: str, arguments: dict[str, Any], write: Write | None) -> Answered:
        asked = QUESTIONS.get(question)
        if asked is None:
            raise InvalidQuery("question", f"must be one of {', '.join(QUESTIONS)}")
        known = Noted(self._clock(), write)
        token = noted.set(known)
        try:
            results = await asked.function(self, **arguments)
        finally:
            noted.reset(token)
            known.write = None  # timers of the event loop keep this context, even when they are cancelled
        found = known.range
        return Answered(
            results,
            Meta(
                start=None if found is None else local(found.start, found.zone),
                end=None if found is None else local(found.end, found.zone),
                timezone=arguments.get("timezone") or self.timezone,
                complete_until=known.now if found is None else min(found.end, known.now),
                approximate=asked.approximates(**arguments),
                definition=asked.definition,
            ),
        )
