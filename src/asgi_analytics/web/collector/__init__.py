"""The collector: what a browser sees and the server cannot, sent by a small script to the application itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_analytics.client import checked_client
from asgi_analytics.errors import ConfigError
from asgi_analytics.events.named import NAMED, tag_of
from asgi_analytics.instrumentation.page_views import PageViews
from asgi_analytics.web.collector.endpoints import Collector
from asgi_analytics.web.collector.messages import Messages, route_of
from asgi_analytics.web.collector.rate import RateLimit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from asgi_analytics.client import AnalyticsClient


def create_collector_app(
    client: AnalyticsClient,
    *,
    events: Iterable[str] = (),
    page: Callable[[str], str] | None = None,
    page_views: PageViews | None = None,
    events_per_minute: int = 120,
) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """Return an ASGI application to mount in yours, as ``Mount("/insights", create_collector_app(client))``.

    ``GET …/s.js`` is the script, ``POST …/e`` takes what it sends. ``events`` are the names that a page may track,
    besides what the script makes by itself. ``page`` makes the route of the path that a browser shows,
    ``/plans/{id}`` of ``/plans/7``; by default numbers, UUIDs and long hexadecimal texts become ``{id}``.
    ``page_views`` says how a caller is known where the application is not below an `AnalyticsMiddleware` with page
    views, whose options count otherwise. ``events_per_minute`` is what one visitor may send to one process. No package
    is needed besides. Raises `ConfigError` for a wrong setting.
    """
    checked_client(client)
    if isinstance(events, str):
        raise ConfigError(f"events is the str {events!r}: use a list, events=[{events!r}]")
    if page is not None and not callable(page):
        raise ConfigError("page must be a callable that takes a path and returns a route")
    if page_views is not None and not isinstance(page_views, PageViews):
        raise ConfigError(f"page_views is {page_views!r}: use page_views=PageViews()")
    if isinstance(events_per_minute, bool) or not isinstance(events_per_minute, int) or events_per_minute < 1:
        raise ConfigError(f"events_per_minute is {events_per_minute!r}: use a whole number from 1")
    names = frozenset(map(tag_of, events))
    if reserved := names & NAMED:
        raise ConfigError(f"{min(reserved)!r} is made by the script itself: leave it out of events")
    messages = Messages(names, page or route_of)
    return Collector(client, messages, page_views or PageViews(), RateLimit(events_per_minute))
