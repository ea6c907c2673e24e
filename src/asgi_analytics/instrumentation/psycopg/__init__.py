"""Captures the queries of psycopg 3, sync and async: methods of its classes are replaced, and nothing is proxied.

A replacement calls the original with what it was given, and hands on what that returned or raised. The methods of
cursors make the events, also those of ``connection.execute()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.errors import MissingExtra
from asgi_analytics.instrumentation.queries.patches import Driver, Instrumentation
from asgi_analytics.instrumentation.queries.recorder import QueryRecorder

try:
    import psycopg

    from asgi_analytics.instrumentation.psycopg.methods import PsycopgPatches
except ImportError:
    raise MissingExtra("psycopg", "psycopg") from None

if TYPE_CHECKING:
    from asgi_analytics.client import AnalyticsClient

__all__ = ["Instrumentation", "instrument_psycopg"]

_driver = Driver(psycopg, PsycopgPatches)


def instrument_psycopg(
    client: AnalyticsClient,
    *,
    slow_ms: float | None = None,
    sample_rate: float = 1.0,
    capture_statement: bool = True,
) -> Instrumentation:
    """Capture the process's psycopg queries as `DatabaseQuery` events of ``client``, from threads and from tasks.

    Failed queries, and those that take ``slow_ms`` milliseconds or more (None: no query is slow), are always kept; of
    the others, the share ``sample_rate``, from 0.0 to 1.0. The figures of the request count all of them.
    ``capture_statement=False`` leaves the text out. Connections and pools made before or after take part alike.

    There is one capture per process: a second call redirects it to its own client with its own settings, and adds no
    second event. A method that this version of psycopg lacks causes a `RuntimeWarning` and is left out. Raises
    `ConfigError` for a setting out of its range.
    """
    recorder = QueryRecorder(client, slow_ms=slow_ms, sample_rate=sample_rate, capture_statement=capture_statement)
    return _driver.instrument(recorder)
