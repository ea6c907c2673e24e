"""The events that are captured without a word in the application's code. Durations are milliseconds."""

from __future__ import annotations

from typing import Any, ClassVar

from asgi_analytics.events.base import Category, Event, UserId

__all__ = ["ApiRequest", "ApplicationError", "DatabaseQuery"]


class ApiRequest(Event):
    """One request was answered, or one WebSocket connection ended.

    ``endpoint`` is the route template (``/tasks/{id}``), never the path that arrived. ``outcome``: ok, error,
    cancelled or disconnected. ``db_repeats``: most repeats of one statement fingerprint in the request.
    """

    category: ClassVar[Category] = "system"

    method: str
    endpoint: str | None = None
    status_code: int
    duration_ms: float
    ttfb_ms: float | None = None
    response_bytes: int | None = None
    outcome: str
    error_type: str | None = None
    close_code: int | None = None
    db_queries: int | None = None
    db_duration_ms: float | None = None
    db_repeats: int | None = None
    user_id: UserId | None = None


class DatabaseQuery(Event):
    """The application ran a query. ``statement`` holds no literal; ``outcome``: ok, error, timeout or cancelled."""

    category: ClassVar[Category] = "system"

    query_type: str
    table: str | None = None
    statement: str | None = None
    fingerprint: str | None = None
    duration_ms: float
    rows_affected: int | None = None
    outcome: str
    error_type: str | None = None
    sqlstate: str | None = None
    endpoint: str | None = None


class ApplicationError(Event):
    """An exception left a request (``handled`` false) or was reported by ``client.track_error()`` (true).

    ``stack``: frames as ``{file, line, function}``, innermost first, the application's before the libraries'.
    """

    category: ClassVar[Category] = "system"

    error_type: str
    error_message: str
    fingerprint: str
    endpoint: str | None = None
    handled: bool
    stack: list[dict[str, Any]]
    user_id: UserId | None = None
    context: dict[str, Any] | None = None
