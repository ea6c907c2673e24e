"""Captures the queries of asyncpg: methods of its classes are replaced, so pools and connections of any age take part.

Nothing is proxied and the Cython layer is left alone. A replacement calls the original with what it was given, and
hands on what that returned or raised. The public methods make the events; what they do beneath makes none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from asgi_analytics.instrumentation.asyncpg.methods import AsyncpgPatches
from asgi_analytics.instrumentation.queries.patches import Driver, Instrumentation
from asgi_analytics.instrumentation.queries.recorder import QueryRecorder

if TYPE_CHECKING:
    from asgi_analytics.client import AnalyticsClient

__all__ = ["Instrumentation", "instrument_asyncpg"]

_driver = Driver(asyncpg, AsyncpgPatches)


def instrument_asyncpg(
    client: AnalyticsClient,
    *,
    slow_ms: float | None = None,
    sample_rate: float = 1.0,
    capture_statement: bool = True,
) -> Instrumentation:
    """Capture the process's asyncpg queries as `DatabaseQuery` events of ``client``.

    Failed queries, and those that take ``slow_ms`` milliseconds or more (None: no query is slow), are always kept; of
    the others, the share ``sample_rate``, from 0.0 to 1.0. The figures of the request count all of them.
    ``capture_statement=False`` leaves the text out. Pools and connections made before or after take part alike.

    There is one capture per process: a second call redirects it to its own client with its own settings, and adds no
    second event. A method that this version of asyncpg lacks causes a `RuntimeWarning` and is left out. Raises
    `ConfigError` for a setting out of its range.
    """
    recorder = QueryRecorder(client, slow_ms=slow_ms, sample_rate=sample_rate, capture_statement=capture_statement)
    return _driver.instrument(recorder)
