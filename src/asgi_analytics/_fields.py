"""What the hot path touches, field by field: of a request, and of the queue.

The classes proper derive from these. Apart, so that a build with a compiler can lay them out as C structures
(``_fields.pxd``), which the compiled hot path (``instrumentation/ordinary.pyx``) reads without the interpreter.
"""

from __future__ import annotations

from typing import Any

UNSAID: Any = object()
"""Stands where nobody has said who asks, or in which session; None would say that it is nobody."""


class RequestFields:
    """The fields of `RequestContext` and of the classes below it, which say what each is."""

    __slots__ = (
        "_endpoint",
        "_number",
        "_receive",
        "_request_id",
        "_send",
        "_session_id",
        "_user_id",
        "answering",
        "close_code",
        "db_duration_ms",
        "db_queries",
        "ended",
        "error_type",
        "excluded",
        "fingerprints",
        "has_trailers",
        "method",
        "native",
        "ordinary",
        "outcome",
        "outer",
        "response_bytes",
        "scope",
        "seen_errors",
        "send_error",
        "settings",
        "span",
        "started",
        "status",
        "trace",
        "ttfb",
    )


class QueueFields:
    """The fields of `EventQueue` that producers read and write."""

    bytes_in: int
    bytes_out: int
    calm_bytes: int
    calm_length: int
    items: Any
