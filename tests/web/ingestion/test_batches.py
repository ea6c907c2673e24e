"""``POST /events/batch``, each line of what it promises, on each database."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, TimescaleSink, events
from asgi_analytics.encoding.users import user_uuid
from asgi_analytics.sinks.http import HttpSink
from asgi_analytics.web.ingestion import create_ingestion_app
from tests.kit.databases import Database
from tests.web.ingestion.service import POISON, TASK, USER, client, count, event, poisoned, post, rows


@pytest.fixture
async def service(database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_ingestion_app(database_url=database.dsn)
    async with client(app) as http:
        yield http
    await app.state.ingestion.aclose()


async def test_a_batch_is_stored_as_it_was_sent(service: httpx2.AsyncClient, database: Database) -> None:
    sent = event(session_id="s-1", timestamp="2026-11-20T12:00:00.123456+02:00")
    sent["timestamp"] = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    answer = await post(service, [sent])
    assert answer.status_code == 200
    assert answer.json() == {"received": 1, "duplicates": 0, "rejected": []}
    assert answer.headers["content-type"] == "application/json"
    [row] = await rows(database)
    assert str(row["id"]) == sent["event_id"]
    assert row["timestamp"] == datetime.fromisoformat(sent["timestamp"])
    assert (row["event_type"], row["service"], row["session_id"]) == ("task_created", "shop", "s-1")
    assert str(row["user_id"]) == USER
    assert json.loads(row["data"]) == sent["data"]
    assert json.loads(row["context"]) == sent["context"]


async def test_an_empty_array_is_answered_with_zeros(service: httpx2.AsyncClient, database: Database) -> None:
    answer = await post(service, [])
    assert (answer.status_code, answer.json()) == (200, {"received": 0, "duplicates": 0, "rejected": []})


async def test_gzip_is_unpacked(service: httpx2.AsyncClient, database: Database) -> None:
    body = json.dumps([event() for _ in range(50)]).encode()
    answer = await post(service, gzip.compress(body), **{"Content-Encoding": "gzip"})
    assert answer.json()["received"] == 50
    members = b"".join(gzip.compress(body[i : i + 1000]) for i in range(0, len(body), 1000))
    answer = await post(service, members + b"\0" * 100, **{"Content-Encoding": "X-GZip"})
    assert answer.json() == {"received": 50, "duplicates": 50, "rejected": []}
    assert await count(database) == 50


async def test_a_batch_sent_again_stores_nothing_twice(service: httpx2.AsyncClient, database: Database) -> None:
    batch = [event() for _ in range(5)]
    await post(service, batch[:3])
    assert (await post(service, batch)).json() == {"received": 5, "duplicates": 3, "rejected": []}
    assert (await post(service, batch)).json() == {"received": 5, "duplicates": 5, "rejected": []}
    assert await count(database) == 5


async def test_the_same_event_twice_in_one_batch_is_one_duplicate(
    service: httpx2.AsyncClient, database: Database
) -> None:
    one = event()
    assert (await post(service, [one, event(), one])).json() == {"received": 3, "duplicates": 1, "rejected": []}
    assert await count(database) == 2


async def test_identity_is_id_and_timestamp_whatever_the_zone_it_is_written_in(
    service: httpx2.AsyncClient, database: Database
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    one = event(timestamp=now.isoformat())
    same = one | {"timestamp": now.isoformat().replace("+00:00", "Z"), "event_id": one["event_id"].upper()}
    other = one | {"timestamp": (now - timedelta(seconds=1)).isoformat()}
    assert (await post(service, [one, same, other])).json() == {"received": 3, "duplicates": 1, "rejected": []}


async def test_the_same_event_in_concurrent_batches_is_new_in_one_of_them(
    service: httpx2.AsyncClient, database: Database
) -> None:
    shared = [event() for _ in range(20)]
    batches = [[*shared, *(event() for _ in range(5))] for _ in range(8)]
    answers = await asyncio.gather(*(post(service, batch) for batch in batches))
    bodies = [answer.json() for answer in answers]
    assert all(body["received"] == 25 and body["rejected"] == [] for body in bodies)
    assert sum(body["duplicates"] for body in bodies) == 20 * 7
    assert await count(database) == 20 + 8 * 5


@pytest.mark.parametrize("database", ["timescaledb"], indirect=True)
async def test_duplicates_are_found_in_compressed_chunks_too(service: httpx2.AsyncClient, database: Database) -> None:
    old = (datetime.now(UTC) - timedelta(days=30)).isoformat()
    batch = [event(timestamp=old) for _ in range(5)]
    await post(service, batch[:3])
    connection = await database.connect()
    assert await connection.fetch("SELECT compress_chunk(chunk) FROM show_chunks('analytics_events') AS chunk")
    again = [*batch, event(), batch[0]]
    assert (await post(service, again)).json() == {"received": 7, "duplicates": 4, "rejected": []}
    assert await count(database) == 6


async def test_the_invalid_are_rejected_by_index_and_the_valid_stored(
    service: httpx2.AsyncClient, database: Database
) -> None:
    batch = [
        event(), 5, {}, event(timestamp="2026-11-20T12:00:00"), event(event_id="x"), event(),
        event(timestamp=(datetime.now(UTC) + timedelta(hours=25)).isoformat()),
        event(timestamp=(datetime.now(UTC) - timedelta(days=91)).isoformat()), event(data={}),
    ]  # fmt: skip
    answer = await post(service, batch)
    assert answer.status_code == 200
    assert answer.json() == {
        "received": 2,
        "duplicates": 0,
        "rejected": [
            {"index": 1, "reason": "not an object", "field": None},
            {"index": 2, "reason": "missing", "field": "event_id"},
            {"index": 3, "reason": "no time zone", "field": "timestamp"},
            {"index": 4, "reason": "not a UUID", "field": "event_id"},
            {"index": 6, "reason": "more than 24 h ahead", "field": "timestamp"},
            {"index": 7, "reason": "older than 90 days", "field": "timestamp"},
            {"index": 8, "reason": "missing", "field": "data.task_id"},
        ],
    }
    assert await count(database) == 2


async def test_every_event_invalid_is_422_with_the_reasons(service: httpx2.AsyncClient, database: Database) -> None:
    answer = await post(service, [5, {}])
    assert answer.status_code == 422
    assert [one["index"] for one in answer.json()["rejected"]] == [0, 1]
    assert answer.json()["received"] == 0


async def test_nul_and_lone_surrogates_are_replaced(service: httpx2.AsyncClient, database: Database) -> None:
    sent = event(service="a\0b", session_id="\ud800", data={"task_id": TASK, "command": "x\udc00\U0001f600\\u0000\0"})
    for ascii_only in (True, False):
        body = json.dumps([sent], ensure_ascii=ascii_only).replace("\0", "\\u0000").encode("utf-8", "surrogatepass")
        assert (await post(service, body)).json()["received"] == 1
    [row] = await rows(database)
    assert (row["service"], row["session_id"]) == ("a\ufffdb", "\ufffd")
    assert json.loads(row["data"])["command"] == "x\ufffd\U0001f600\\u0000\ufffd"


async def test_unknown_types_are_stored_and_class_names_taken_for_tags(
    service: httpx2.AsyncClient, database: Database
) -> None:
    own = event(event_type="order_placed", user_id=42, data={"order_id": 17, "total": 9.50})
    assert (await post(service, [own, event(event_type="TaskCreated")])).json()["received"] == 2
    stored = {row["event_type"]: row for row in await rows(database)}
    assert set(stored) == {"order_placed", "task_created"}
    assert json.loads(stored["order_placed"]["data"]) == own["data"]
    assert stored["order_placed"]["user_id"] == user_uuid(42)[0]
    assert json.loads(stored["order_placed"]["context"])["user_key"] == "42"


async def test_what_is_told_of_users_reaches_their_traits(service: httpx2.AsyncClient, database: Database) -> None:
    later = event(event_type="user_identified", user_id=USER, data={"plan": "pro", "role": "admin"})
    sooner = later | {
        "event_id": event()["event_id"],
        "timestamp": (datetime.fromisoformat(later["timestamp"]) - timedelta(hours=1)).isoformat(),
        "data": {"plan": "free", "team": 7},
    }
    for batch in ([later], [sooner], [later, sooner]):
        assert (await post(service, batch)).json()["received"] == len(batch)
    [row] = await (await database.connect()).fetch("SELECT * FROM analytics_user_traits")
    assert json.loads(row["traits"]) == {"plan": "pro", "role": "admin", "team": 7}
    assert (str(row["user_id"]), row["role"]) == (USER, "admin")


async def test_a_dotted_name_is_stored_as_the_tag(service: httpx2.AsyncClient, database: Database) -> None:
    assert (await post(service, [event(event_type="cart.filled", data={})])).json()["received"] == 1
    assert [row["event_type"] for row in await rows(database)] == ["cart_filled"]


async def test_strict_types_refuse_unknown_ones(database: Database) -> None:
    app = create_ingestion_app(database_url=database.dsn, strict_types=True)
    async with client(app) as http:
        answer = await post(http, [event(event_type="order_placed"), event()])
        assert answer.json() == {
            "received": 1,
            "duplicates": 0,
            "rejected": [{"index": 0, "reason": "unknown event type", "field": "event_type"}],
        }
    await app.state.ingestion.aclose()


async def test_poison_for_the_database_costs_no_neighbour_and_is_kept_as_a_dead_letter(
    service: httpx2.AsyncClient, database: Database
) -> None:
    old = event()
    await post(service, [old])
    batch = poisoned(event(), event(**POISON), {}, event(), event(**POISON), event(), old)
    answer = await post(service, batch)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["received"], body["duplicates"]) == (4, 1)
    assert [(one["index"], one["field"]) for one in body["rejected"]] == [(1, None), (2, "event_id"), (4, None)]
    assert body["rejected"][0]["reason"] == "numeric_value_out_of_range"
    assert await count(database) == 4
    connection = await database.connect()
    assert await connection.fetchval("SELECT count(*) FROM analytics_dead_letters WHERE sqlstate = '22003'") == 2


async def test_poison_alone_is_422(service: httpx2.AsyncClient, database: Database) -> None:
    answer = await post(service, poisoned(event(**POISON)))
    assert answer.status_code == 422
    assert len(answer.json()["rejected"]) == 1


async def test_a_poisoned_batch_costs_no_concurrent_one(service: httpx2.AsyncClient, database: Database) -> None:
    batches = [[event() for _ in range(10)] for _ in range(20)]
    bodies = [json.dumps(batch).encode() for batch in batches]
    bodies[7] = poisoned(*batches[7][:5], event(**POISON), *batches[7][5:])
    bodies[13] = json.dumps([*batches[13], batches[0][0]]).encode()
    answers = [answer.json() for answer in await asyncio.gather(*(post(service, body) for body in bodies))]
    assert [one["index"] for one in answers[7]["rejected"]] == [5]
    assert all(not answer["rejected"] for i, answer in enumerate(answers) if i != 7)
    assert sum(answer["duplicates"] for answer in answers) == 1
    assert await count(database) == 200


async def test_the_range_of_the_table_is_wider_than_what_is_taken(database: Database) -> None:
    app = create_ingestion_app(database_url=database.dsn, retention=timedelta(days=36_500))
    async with client(app) as http:
        answer = await post(http, [event(timestamp="1999-12-31T23:59:59Z"), event(timestamp="2000-01-01T00:00:00Z")])
    await app.state.ingestion.aclose()
    [rejected] = answer.json()["rejected"]
    assert rejected["index"] == 0
    assert rejected["reason"] == "check_violation analytics_events_timestamp_range"


async def test_what_track_makes_is_stored_alike_by_the_worker_and_by_the_service(
    service: httpx2.AsyncClient, database: Database
) -> None:
    analytics = AnalyticsClient(service="shop", environment="test")
    made = [
        events.TaskCreated(task_id=TASK, user_id="me", command="x\0"),  # type: ignore[arg-type]
        events.ApiRequest(method="GET", status_code=200, duration_ms=1.25, outcome="ok"),
    ]
    for one in made:
        assert analytics.track(one)
    lines = [item if isinstance(item, bytes) else item.line() for item in analytics._queue.items]
    sink = TimescaleSink(database.dsn)
    async with AnalyticsWorker(analytics, sink):
        assert await analytics.aflush()
    direct = [{**row, "export_xid": 0} for row in await rows(database)]
    connection = await database.connect()
    await connection.execute("TRUNCATE analytics_events")
    assert (await post(service, b"[" + b",".join(lines) + b"]")).json()["received"] == 2
    assert [{**row, "export_xid": 0} for row in await rows(database)] == direct
    await analytics.aclose()


async def test_events_of_nobody_are_stored_the_same_over_the_service_and_directly(database: Database) -> None:
    app = create_ingestion_app(database_url=database.dsn)
    transport = httpx2.ASGITransport(app=app)
    over_http = HttpSink("http://service", make_client=lambda: httpx2.AsyncClient(transport=transport))
    for sink in (over_http, TimescaleSink(database.dsn)):
        tracked = AnalyticsClient(service="shop", strict=True)
        async with AnalyticsWorker(tracked, sink):
            assert tracked.track(events.AuthCodeVerified(user_id=None, success=False))  # type: ignore[arg-type]
        stats = tracked.stats()
        assert (stats.stored, stats.rejected.total()) == (1, 0)
    await app.state.ingestion.aclose()
    assert [(row["event_type"], row["user_id"]) for row in await rows(database)] == [("auth_code_verified", None)] * 2
