"""The queries that were captured, in full and in brief."""

from __future__ import annotations

from typing import Any

from asgi_analytics.events import EnrichedEvent
from asgi_analytics.testing import CapturedEvents


def queries(captured: CapturedEvents) -> list[EnrichedEvent]:
    return captured.of("database_query")


def brief(captured: CapturedEvents) -> list[tuple[Any, ...]]:
    return [(e.data["query_type"], e.data["rows_affected"], e.data["outcome"]) for e in queries(captured)]
