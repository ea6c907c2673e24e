"""CSV and NDJSON: the columns of the struct, all rows, and no more than a page of them in memory."""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from asgi_analytics.reading import QUESTIONS
from asgi_analytics.reading.aggregations import Aggregation, Aggregations, Metrics, TimeRange
from asgi_analytics.web.api.endpoints import QuestionEndpoint
from asgi_analytics.web.api.formats import MEDIA_TYPES, Rows
from asgi_analytics.web.api.parameters import Asked
from tests.kit.databases import Database
from tests.web.api.service import Process, arguments_of, ask, fill, opened, reading

MANY, LONG = 20_000, 12_000
NOW = datetime(2026, 11, 20, tzinfo=UTC)

INSERT = """
INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, data)
SELECT gen_random_uuid(), date_trunc('second', now()) - (n / 2) * interval '1 second', 'page_viewed', 'shop',
    gen_random_uuid(), jsonb_build_object('n', n, 'text', repeat('x', 200))
FROM generate_series(1, $1::int) AS n
"""

# An endpoint and a user of its own for each.
REQUESTS = """
INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, data)
SELECT gen_random_uuid(), date_trunc('hour', now()) - interval '30 minutes', 'api_request', 'shop', gen_random_uuid(),
    jsonb_build_object('endpoint', '/things/' || n, 'method', 'GET', 'status_code', 200, 'duration_ms', 1 + n % 7)
FROM generate_series(1, $1::int) AS n
"""


def lines(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


async def test_csv_and_ndjson_hold_the_rows_of_the_json(database: Database, app: Starlette) -> None:
    await fill(database)
    async with opened(app) as http:
        await app.state.api.open()
        for question in reading():
            rows = Rows(question)
            results = (await app.state.api.reader.answer(question.name, **arguments_of(question))).results
            everything = "limit" not in question.signature.parameters
            by_csv = await ask(http, question, format="csv")
            by_line = await ask(http, question, format="ndjson")
            assert (by_csv.headers["content-type"], by_line.headers["content-type"]) == (
                MEDIA_TYPES["csv"], MEDIA_TYPES["ndjson"],
            )  # fmt: skip
            assert by_csv.headers["content-disposition"].startswith("attachment; filename=")
            header, *found = lines(by_csv.text)
            decoded = [msgspec.json.decode(line) for line in by_line.content.splitlines()]
            assert {name.partition(".")[0] for name in header} == set(rows.row.__struct_fields__)
            assert len(found) == len(decoded)
            if everything and question.name != "get_pipeline_health":
                assert decoded == msgspec.to_builtins(rows.of(results))
        first = lines((await http.get("/events?format=csv&limit=3")).text)
        assert len(first) == 1 + 3


async def test_every_row_is_sent_once_without_a_limit(database: Database, app: Starlette) -> None:
    await fill(database, 2500)
    admin = await database.connect()
    known = {str(row[0]) for row in await admin.fetch("SELECT id FROM analytics_events")}
    async with opened(app) as http:
        text = (await http.get("/events?format=csv")).text
        by_line = (await http.get("/events?format=ndjson")).content.splitlines()
    ids = [row[0] for row in lines(text)[1:]]
    assert len(ids) == len(set(ids)) == len(known) == 2500
    assert set(ids) == known
    assert [msgspec.json.decode(line)["event_id"] for line in by_line] == ids


@pytest.mark.on_servers("rows are read in batches from a file too, see tests/reading/test_sqlite.py")
@pytest.mark.parametrize("form", ["csv", pytest.param("ndjson", marks=pytest.mark.long)])
async def test_many_rows_take_the_memory_of_a_few(database: Database, app: Starlette, form: str) -> None:
    admin = await database.connect()
    await admin.execute(INSERT, MANY)
    rows = size = largest = 0
    peaks = []

    async def send(message: Any) -> None:
        nonlocal rows, size, largest
        if message["type"] == "http.response.body":
            body = message["body"]
            rows += body.count(b"\n")
            size += len(body)
            largest = max(largest, len(body))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()

    async def receive() -> Any:
        if not received:
            received.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.Event().wait()

    received: list[bool] = []
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": "/events",
        "raw_path": b"/events", "query_string": f"format={form}".encode(), "root_path": "", "headers": [],
        "scheme": "http", "client": None, "server": None,
    }  # fmt: skip
    async with opened(app):
        tracemalloc.start()
        try:
            await app(scope, receive, send)
        finally:
            tracemalloc.stop()
    assert rows == MANY + (form == "csv")
    assert size > 4_800_000
    assert largest < 1_000_000
    middle = len(peaks) // 2
    assert max(peaks[middle:]) < 1.2 * max(peaks[:middle])  # nothing piles up
    assert max(peaks) < size


@pytest.mark.on_servers("looks at the connections of a server")
async def test_a_caller_who_reads_slowly_holds_no_connection_of_the_database(database: Database) -> None:
    admin = await database.connect()
    await admin.execute(INSERT, MANY)
    busy = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asgi-analytics-reader' AND state <> 'idle'"
        " AND datname = current_database()"
    )
    with Process(database.dsn) as process:
        async with process.client() as http, http.stream("GET", "/events?format=ndjson") as answer:
            assert answer.status_code == 200
            idle = 0
            for _ in range(200):  # pages are read until all buffers are full
                idle = 0 if await admin.fetchval(busy) else idle + 1
                if idle == 10:
                    break
                await asyncio.sleep(0.05)
            assert idle == 10
            assert (await http.get("/overview")).status_code == 200


@pytest.mark.on_servers("fills the table by generate_series()")
async def test_answers_of_any_length_are_sent_whole(database: Database, app: Starlette) -> None:
    admin = await database.connect()
    await admin.execute(REQUESTS, LONG)
    async with opened(app) as http:
        for path in ("/api/consumers", "/api/latency?bucket=all"):
            where = path + ("&" if "?" in path else "?")
            by_csv, again = await asyncio.gather(*[http.get(f"{where}format=csv") for _ in range(2)])
            assert by_csv.content == again.content
            header, *rows = lines(by_csv.text)
            assert int(by_csv.headers["content-length"]) == len(by_csv.content)
            assert len({tuple(row) for row in rows}) == len(rows) == LONG
            known = {"If-None-Match": by_csv.headers["etag"]}
            assert (await http.get(f"{where}format=csv", headers=known)).status_code == 304
            by_line = (await http.get(f"{where}format=ndjson")).content.splitlines()
            assert {
                name: str(value) for name, value in msgspec.json.decode(by_line[-1]).items() if "count" in name
            } == {name: value for name, value in zip(header, rows[-1], strict=True) if "count" in name}
            assert len(by_line) == LONG
        for path in ("/api/latency", "/api/latency?bucket=all"):
            assert (await http.get(path)).json()["field"] == "start_date"
        assert len(lines((await http.get("/api/consumers?format=csv&limit=3")).text)) == 1 + 3


@pytest.mark.on_servers("fills the table by generate_series()")
async def test_a_long_answer_lies_in_a_file_until_nobody_holds_it(
    database: Database, app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_analytics.web.api.answers.LONG", 2**16)
    admin = await database.connect()
    await admin.execute(REQUESTS, LONG)
    await app.state.api.open()
    asked = Asked({"bucket": "hour"}, "csv")
    endpoint = QuestionEndpoint(app.state.api, QUESTIONS["get_endpoint_latency"])
    await endpoint.answer(asked)  # what is imported and compiled at the first time is no part of it
    tracemalloc.start()
    try:
        answer = await endpoint.answer(asked)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.size > 3 * 2**18
    assert held < 2**19
    assert peak < 2**21
    file: Any = answer._file
    del answer
    for _ in range(100):  # what woke this task up holds it until the loop goes on
        await asyncio.sleep(0.01)
        gc.collect(0)
        if file.closed:
            break
    assert file.closed
    await app.state.api.aclose()


def test_a_text_that_a_spreadsheet_would_calculate_is_a_text() -> None:
    rows = Rows(QUESTIONS["query_aggregations"])
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "a=b", 'say "x", or\ny', "ü"]
    answer = Aggregations(
        [Aggregation(NOW, "system", name, Metrics(-1, 2)) for name in names], 1, 2, TimeRange(NOW, NOW)
    )
    text = (rows.header() + rows.csv(rows.of(answer))).decode()
    header, *found = lines(text)
    assert header == ["time_bucket", "event_category", "event_type", "metrics.count", "metrics.unique_users"]
    assert [row[2] for row in found] == [("'" + name if name[0] in "=+-@\t\r" else name) for name in names]
    assert [row[3] for row in found] == ["-1"] * len(names)  # numbers are numbers
    assert found[0][0] == "2026-11-20T00:00:00Z"
