"""Numbers of the application's own for dashboards: of a widget, beside what it was before, and of the moment."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

import asyncpg
import msgspec

from asgi_analytics.database.blocks import load
from asgi_analytics.database.failures import WRITER_RIGHTS, explain
from asgi_analytics.database.names import checked, quoted
from asgi_analytics.database.pool import ConnectionKeeper
from asgi_analytics.database.sqlite import failures as sqlite_failures
from asgi_analytics.database.sqlite.connection import open_connection, transaction
from asgi_analytics.database.sqlite.times import now_text, to_text
from asgi_analytics.database.sqlite.url import SqliteUrl, is_sqlite, read_sqlite_url
from asgi_analytics.database.url import read_dsn
from asgi_analytics.encoding.text import clean_text
from asgi_analytics.errors import ConfigError, OperatorError, TransientError

SQL = load("asgi_analytics.admin", "dashboard.sql")
TIMEOUT = 30.0
"""Seconds until the database is given up."""
MAX_KEY = 255
MAX_VALUE = 64 * 1024
LONGEST_TTL = 366 * 24 * 3600

Window = Literal["hour", "day", "week", "month"]


async def set_dashboard_metric(
    pool_or_url: asyncpg.Pool[Any] | str, widget_id: str, metric_key: str, value: float
) -> None:
    """Set a number of a widget; the one before becomes its ``previous_value`` in ``analytics_dashboard_metrics``.

    ``pool_or_url`` is an asyncpg pool, or a URL, ``postgresql://…`` or ``sqlite:///…``; on PostgreSQL the writer of
    ``analytics-migrate roles`` may do it. Raises `ConfigError` for a key that is no text of 1 to 255 characters, and a
    value that is no number from -1e300 to 1e300; `TransientError` if the database is away, `OperatorError` if it
    refuses.
    """
    if isinstance(value, str | bytes) or not _is_number(value):
        raise ConfigError("value is no number from -1e300 to 1e300")
    await _run(
        pool_or_url, "set_dashboard_metric", _key("widget_id", widget_id), _key("metric_key", metric_key), float(value)
    )


async def update_realtime_metric(
    pool_or_url: asyncpg.Pool[Any] | str, key: str, value: Any, window: Window = "hour", ttl: float = 3600
) -> None:
    """Set a number of the moment, or any other JSON value, which is forgotten after ``ttl`` seconds.

    ``window`` says what time it is about: an hour, a day, a week or a month. Raises as `set_dashboard_metric` does:
    `ConfigError` also for a value that is no JSON of at most 64 KiB, and for a ``ttl`` that is not above 0 and at most
    366 days.
    """
    if window not in get_args(Window):
        raise ConfigError(f"window is none of {', '.join(get_args(Window))}")
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= LONGEST_TTL:
        raise ConfigError("ttl is no number of seconds above 0 and at most 366 days")
    try:
        text = clean_text(msgspec.json.encode(value).decode()).replace("\\u0000", "\ufffd")
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise ConfigError("value is nothing that JSON can hold") from None
    if len(text.encode()) > MAX_VALUE:
        raise ConfigError(f"value has more than {MAX_VALUE} bytes of JSON")
    await _run(pool_or_url, "update_realtime_metric", _key("key", key), text, window, timedelta(seconds=ttl))


def _key(field: str, text: object) -> str:
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_KEY:
        raise ConfigError(f"{field} is no text of 1 to {MAX_KEY} characters")
    return clean_text(text)


def _is_number(value: Any) -> bool:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return math.isfinite(number) and abs(number) <= 1e300


async def _run(pool_or_url: asyncpg.Pool[Any] | str, statement: str, *arguments: Any) -> None:
    if isinstance(pool_or_url, str) and is_sqlite(pool_or_url):
        await asyncio.to_thread(_run_on_sqlite, read_sqlite_url(pool_or_url), f"{statement}_on_sqlite", arguments)
        return
    if not isinstance(pool_or_url, str) and not hasattr(pool_or_url, "acquire"):
        raise ConfigError(
            f"pool_or_url is a {type(pool_or_url).__name__}: use an asyncpg pool, or a URL, postgresql://…"
        )
    url = read_dsn(pool_or_url) if isinstance(pool_or_url, str) else None
    prefix = "" if url is None or url.schema is None else quoted(checked(url.schema, "schema")) + "."
    sql = SQL[statement].replace("{schema}", prefix)
    connections = ConnectionKeeper(pool_or_url if url is None else url, size=1)

    async def call(connection: Any) -> None:
        await connection.execute(sql, *arguments, timeout=TIMEOUT)

    try:
        await connections.run(call)
    except Exception as error:
        failure = explain(error, url, rights=WRITER_RIGHTS, may_quote=False)
        raise (OperatorError if failure.kind == "operator" else TransientError)(failure.text) from error
    finally:
        await connections.aclose()


def _run_on_sqlite(url: SqliteUrl, statement: str, arguments: tuple[Any, ...]) -> None:
    *values, last = arguments
    values += [last, now_text()] if not isinstance(last, timedelta) else [now_text(), to_text(datetime.now(UTC) + last)]
    try:
        with closing(open_connection(url, busy_seconds=TIMEOUT)) as connection, transaction(connection):
            connection.execute(SQL[statement], values)
    except sqlite3.Error as error:
        failure = sqlite_failures.explain(error, url)
        raise (OperatorError if failure.kind == "operator" else TransientError)(failure.text) from error
