"""An event is taken as long as the database keeps the rows of its type, and no longer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asgi_analytics import MemorySink
from asgi_analytics.admin.retention import retention
from asgi_analytics.errors import TransientError
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


class Forgetful(MemorySink):
    """A sink that does not answer at first when it is asked for how long it keeps rows."""

    asked = 0

    async def kept_types(self) -> dict[str | None, timedelta]:
        self.asked += 1
        if self.asked == 1:
            raise TransientError("the database is away")
        return {None: timedelta(days=5)}


async def test_nothing_is_too_old_until_it_is_known_what_is() -> None:
    sink = Forgetful()
    old = event(event_type="bell_rung", timestamp="1990-01-01T00:00:00Z", data={})
    async with client(create_ingestion_app(sink=sink)) as http:
        answers = [(await http.post("/events/batch", content=json.dumps([one]))).json() for one in (old, old, 1, old)]
    assert answers[0]["rejected"] == []
    assert [one["rejected"][0]["reason"] for one in answers[1:]] == [
        "older than 5 days", "not an object", "older than 5 days",
    ]  # fmt: skip
    assert sink.asked == 2
