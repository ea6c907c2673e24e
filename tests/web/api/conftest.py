"""The reader of the reading tests, and an API over it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from starlette.applications import Starlette

from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.web.api import create_api_app
from tests.reading.conftest import database, reader_dsn

__all__ = ["database", "reader_dsn"]


@pytest.fixture
def app(reader_dsn: str) -> Starlette:
    """Give an API with the rights of the reader role, whose time stands still."""
    now = datetime.now(UTC)
    return create_api_app(AnalyticsReader.from_url(reader_dsn, statement_timeout=30, clock=lambda: now))
