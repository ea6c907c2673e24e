"""A month of a shop's life with hostile events among it, and where its dashboards are."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

from asgi_analytics.reading import AnalyticsReader
from tests.reading.happened import Event

EXAMPLES = Path(__file__).parents[2] / "examples"
HOSTILE = "</script><img src=x onerror=alert(1)>\"'`${7*7}{{7*7}}"


def load_history() -> Any:
    spec = importlib.util.spec_from_file_location("history", EXAMPLES / "history.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Served(NamedTuple):
    """The dashboard at three places, and the reader that answers it."""

    url: str
    reader: AnalyticsReader

    @property
    def open(self) -> str:
        """Return where anyone on this machine sees it."""
        return f"{self.url}/open/"

    @property
    def locked(self) -> str:
        """Return where it asks for a token, below two prefixes."""
        return f"{self.url}/outer/inner/"


def hostile_events() -> list[Event]:
    """Return events whose every text would be a script if it were not shown as text."""
    random, now = Random(3), datetime.now(UTC) - timedelta(minutes=3)
    data: dict[str, dict[str, Any]] = {
        "api_request": {"endpoint": HOSTILE, "method": "GET", "status_code": 200, "duration_ms": 3.0},
        "application_error": {"error_type": HOSTILE, "error_message": HOSTILE, "endpoint": HOSTILE,
                              "fingerprint": HOSTILE, "stack": [{"file": HOSTILE, "line": 1, "function": HOSTILE}]},
        "database_query": {"statement": HOSTILE, "fingerprint": "h", "duration_ms": 1.0, "endpoint": HOSTILE},
        "page_view": {"page": HOSTILE, "referrer": HOSTILE, "channel": HOSTILE, "utm_source": HOSTILE},
        "deployed": {"version": HOSTILE},
        HOSTILE: {HOSTILE: HOSTILE},
    }  # fmt: skip
    context = {"visitor": "h", "device": {"browser": HOSTILE}, "geo": {"country": HOSTILE}, "environment": HOSTILE}
    return [
        Event(
            id=UUID(int=random.getrandbits(128), version=4),
            timestamp=now,
            event_type=kind,
            service=HOSTILE,
            user_id=UUID(int=5),
            session_id=None,
            data=fields,
            context=context,
        )
        for kind, fields in data.items()
    ]
