"""Each column of a row in the warehouse, against plain Python."""

from __future__ import annotations

import gc
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from asgi_analytics import Event
from asgi_analytics.events import ProposalSubmitted, TaskCreated
from asgi_analytics.events.base import event_types
from asgi_analytics.exports.enrichment import entity_fields
from asgi_analytics.exports.setup import want_backfill
from tests.exports.stored import USERS, all_ids, an_event, ids, make, read, run, store
from tests.kit.databases import Database

REGISTERED = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
CATEGORIES = {
    "task_created": "system", "api_request": "system",
    "proposal_submitted": "transaction",  # as its class says; the table does not have it
    "user_logged_in": "content", "crate_sent": "transaction",  # as the table says, against the class and without one
}  # fmt: skip
FIRST_FIELDS = {"task_created": "task_id", "proposal_submitted": "proposal_id"}


def expected(row: tuple[Any, ...], traits: dict[UUID, tuple[str | None, datetime | None]]) -> dict[str, Any]:
    """Return what the warehouse should have of an event, in plain Python."""
    id, at, kind, service, user, session, data_text, context_text = row
    data, context = json.loads(data_text), json.loads(context_text or "null")
    role, registered_at = traits.get(user, (None, None))
    field = FIRST_FIELDS.get(kind)
    if kind in ("crate_sent", "crate_filled"):  # of no class
        # As jsonb has them: the shortest key first, then by bytes.
        field = next(iter(sorted((key for key in data if key.endswith("_id")), key=lambda key: (len(key), key))), None)
    value = None if field is None else data.get(field)
    return {
        "event_id": str(id), "event_type": kind, "event_category": CATEGORIES.get(kind, "interaction"),
        "user_id": None if user is None else str(user), "user_role": role,
        "user_tenure_days": None if registered_at is None else (at.date() - registered_at.date()).days,
        "entity_type": None if value is None else str(field).removesuffix("_id"),
        "entity_id": None if value is None else str(value),
        "event_data": data,
        "metadata": context and {key: value for key, value in context.items() if key not in ("geo", "device")},
        "source": service, "timestamp": at, "session_id": session,
        "geo_location": (context or {}).get("geo"), "device_info": (context or {}).get("device"),
    }  # fmt: skip


async def test_every_column_is_what_plain_python_says(database: Database, tmp_path: Path) -> None:
    assert (TaskCreated.__struct_fields__[0], ProposalSubmitted.__struct_fields__[0]) == ("task_id", "proposal_id")
    random = Random(1)
    connection = await database.connect()
    traits = {"role": "admin", "registered_at": REGISTERED.isoformat()}
    await connection.execute(
        "INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, data)"
        " VALUES (gen_random_uuid(), now(), 'user_identified', 's', $1, $2)",
        USERS[0], json.dumps(traits),
    )  # fmt: skip
    await connection.execute("DELETE FROM analytics_events")
    await connection.execute("DELETE FROM analytics_event_types WHERE event_type = 'proposal_submitted'")
    await connection.execute("INSERT INTO analytics_event_types VALUES ('crate_sent', 'transaction')")
    await connection.execute(
        "UPDATE analytics_event_types SET category = 'content' WHERE event_type = 'user_logged_in'"
    )
    before = await store(connection, [an_event(random) for _ in range(300)])
    await connection.execute("UPDATE analytics_events SET export_xid = NULL WHERE id = $1", before[0][0])
    await make(database, tmp_path)
    since = await store(connection, [an_event(random) for _ in range(300)])
    assert (await run(database)).events == 300
    assert ids(read(tmp_path)) == ids(since)
    await want_backfill(database.dsn, "lake")
    assert (await run(database)).events == 300
    assert (await run(database)).events == 0
    found = read(tmp_path)
    wanted = {str(row[0]): expected(row, {USERS[0]: ("admin", REGISTERED)}) for row in [*before, *since]}
    assert ids(found) == sorted(wanted)
    for row in found:
        ingested_at = row.pop("ingested_at")
        assert timedelta(0) <= datetime.now(UTC) - ingested_at < timedelta(minutes=5)
        for name in ("event_data", "metadata", "geo_location", "device_info"):
            row[name] = None if row[name] is None else json.loads(row[name])
        assert row == wanted[row["event_id"]]
    batches = await connection.fetch("SELECT * FROM analytics_warehouse_sync_status ORDER BY created_at")
    assert [(one["sync_status"], one["events_synced"], one["warehouse_type"]) for one in batches] == [
        ("completed", 300, "file")
    ] * 2
    last = max(before, key=lambda row: (row[1], row[0]))
    assert (batches[1]["last_synced_event_id"], batches[1]["last_synced_timestamp"]) == (last[0], last[1])
    lag = await connection.fetchrow("SELECT * FROM analytics_export_lag")
    assert dict(lag) == {"name": "lake", "events_behind": 0, "seconds_behind": 0.0}
    await store(connection, [an_event(random)])
    lag = await connection.fetchrow("SELECT * FROM analytics_export_lag")
    assert lag["events_behind"] == 1
    assert 0 < lag["seconds_behind"] < 300
    assert await all_ids(connection)


def test_a_class_whose_types_cannot_be_read_costs_no_other() -> None:
    class UnreadableParcel(Event):
        parcel_id: NoSuchType  # type: ignore[name-defined]  # noqa: F821

    assert entity_fields()["unreadable_parcel"] == "parcel_id"
    assert entity_fields()["task_created"] == "task_id"
    del UnreadableParcel
    gc.collect()  # or other tests would meet it
    assert "unreadable_parcel" not in event_types()
