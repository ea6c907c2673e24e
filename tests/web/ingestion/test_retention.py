"""An event is taken as long as the database keeps the rows of its type, and no longer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asgi_analytics.admin.retention import retention
from asgi_analytics.web.ingestion import create_ingestion_app
from tests.kit.databases import Database
from tests.reading.conftest import database as any_database
from tests.web.ingestion.service import TASK, client, event

__all__ = ["any_database"]


async def test_events_may_be_as_old_as_the_database_keeps_their_types(
    any_database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    old = [
        event(event_type=name, timestamp=(datetime.now(UTC) - timedelta(days=days)).isoformat(), data=data)
        for name, days, data in (
            ("task_created", 29, {"task_id": TASK, "command": "x"}), ("project_deleted", 2554, {"project_id": TASK}),
            ("bell_rung", 364, {}), ("task_created", 31, {"task_id": TASK, "command": "x"}), ("bell_rung", 366, {}),
        )
    ]  # fmt: skip

    async def refused() -> list[tuple[int, str]]:
        app = create_ingestion_app(database_url=any_database.dsn)
        async with client(app) as http:
            answer = await http.post("/events/batch", content=json.dumps(old))
        await app.state.ingestion.aclose()
        assert answer.status_code == 200, answer.text
        return [(one["index"], one["reason"]) for one in answer.json()["rejected"]]

    await retention(any_database.dsn, change={"system": 30})
    assert await refused() == [(3, "older than 30 days"), (4, "older than 365 days")]
    if isinstance(any_database, Database):  # a schema that is older than the service
        connection = await any_database.connect()
        await connection.execute("DROP FUNCTION analytics_kept_types()")
        assert await refused() == [(index, "older than 90 days") for index in (1, 2, 4)]
        assert "analytics-migrate" in caplog.text
