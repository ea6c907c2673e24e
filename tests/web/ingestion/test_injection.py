"""Whatever a sender writes, the service's log lines and answers are its own: nothing of the request, and no secret."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_analytics import TimescaleSink
from asgi_analytics.web.ingestion import create_ingestion_app
from asgi_analytics.web.ingestion.elements import NotAnArray, split
from asgi_analytics.web.ingestion.validation import Validator
from tests.fuzz import batches
from tests.instrumentation.asgi_app import Server, http_scope
from tests.kit.databases import PASSWORD, Database
from tests.web.ingestion.service import Process, TellingSink, client, event

MARK = "hunter2"
TOKEN = "t0ken-of-the-service"
BYTES = st.binary(max_size=60) | st.sampled_from([b"\n\r\x1b[31m", b"a b=c", b"\xff\x00", b"Bearer hunter2", b"gzip"])
ACCESS = re.compile(
    r"(GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|_OTHER) (-|/[a-z./]+) \d{3} client=[0-9A-Za-z.:%_?-]+ "
    r"(bytes=\d+ events=\d+ stored=\d+ duplicates=\d+ rejected=\d+ )?duration_ms=\d+\.\d"
)
HEADERS = (
    b"authorization",
    b"content-type",
    b"content-encoding",
    b"content-length",
    b"origin",
    b"x-request-id",
    b"host",
)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Give ``lines()``: what the service logged since the last call; requests look as they should."""
    caplog.set_level(logging.DEBUG, "asgi_analytics")

    def read() -> list[str]:
        said = []
        for record in caplog.records:
            text = logging.Formatter("%(message)s").format(record)
            assert text.isprintable(), repr(text)
            if record.name == "asgi_analytics.access":
                assert ACCESS.fullmatch(text), text
            said.append(text)
        caplog.clear()
        return said

    return read


@given(
    method=st.sampled_from(["POST", "GET", "G\nET", "POST client=x"]),
    path=st.sampled_from(["/events/batch", "/health", "/openapi.json", "/ready", "/\n\x1b", "/hunter2"]) | st.text(),
    query=BYTES,
    headers=st.lists(st.tuples(st.sampled_from(HEADERS), BYTES), max_size=5),
    body=st.one_of(
        st.binary(max_size=50),
        st.sampled_from(
            [b"[hunter2]", b'["hunter2"]', b'[{"hunter2":1}]', b'[{"event_id":"hunter2"}]', b"\x1f\x8bhunter2"]
        ),
        st.dictionaries(
            st.sampled_from(["event_id", "event_type", "timestamp", "service", "user_id", "session_id", "context"]),
            st.sampled_from([MARK, "\n\x1b[31mhunter2", {MARK: MARK}, [MARK], 2, None]),
        ).map(lambda changes: json.dumps([event(**changes)]).encode()),
    ),
    address=st.sampled_from(["127.0.0.1", "::1%eth0", "", "x stored=9", "a\nb", "\x1b[31m", MARK + " "]) | st.text(),
    tokens=st.booleans(),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_request_is_one_line_and_an_answer_that_repeats_nothing(
    lines: Callable[[], list[str]],
    method: str,
    path: str,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    address: str,
    tokens: bool,
) -> None:
    app = create_ingestion_app(sink=TellingSink(), tokens=[TOKEN] if tokens else [])
    scope = http_scope("/")
    scope |= {"method": method, "path": path, "query_string": query, "headers": headers, "client": (address, 1)}
    server = Server([{"type": "http.request", "body": body, "more_body": False}])
    await app(scope, server.receive, server.send)
    await app.state.ingestion.aclose()
    start = server.sent[0]
    answer = b"".join(message.get("body", b"") for message in server.sent[1:]).decode()
    assert start["status"] in {200, 400, 401, 404, 405, 413, 415, 422}
    if tokens and path == "/events/batch" and method == "POST":
        assert start["status"] == 401
    said = lines()
    assert len(said) == 1
    for text in (*said, answer, str(start["headers"])):
        assert MARK not in text
        assert TOKEN not in text


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(["event_type", "service", "user_id", "session_id"]), st.text(min_size=1)),
            st.lists(
                st.tuples(st.integers(40, 500), st.sampled_from(batches.WORDS) | st.binary(max_size=3)), max_size=3
            ),
        ),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_what_the_decoder_takes_the_database_takes_or_keeps_as_a_dead_letter(
    database: Database, made: list[tuple[dict[str, str], list[tuple[int, bytes]]]]
) -> None:
    lines = []
    for changes, overwritten in made:
        sent = bytearray(json.dumps(event(**changes), ensure_ascii=False).encode())
        for place, word in overwritten:
            sent[place : place + len(word)] = word
        lines.append(bytes(sent))
    good, _, _ = Validator().check([line for one in lines for line in parts_of(one)])
    sink = TimescaleSink(database.dsn)
    before = await count(database)
    receipt = await sink.write(good)
    await sink.aclose()
    assert await count(database) - before == len(good) - receipt.duplicates
    await database.close()


def parts_of(line: bytes) -> list[bytes | None]:
    """Return the elements of a body with a single line in it, which may have become several."""
    try:
        return split(b"[" + line + b"]", 100)
    except NotAnArray:
        return []


async def count(database: Database) -> int:
    """Return how many events and dead letters are kept."""
    connection = await database.connect()
    tables = "(SELECT count(*) FROM analytics_events) + (SELECT count(*) FROM analytics_dead_letters)"
    number: int = await connection.fetchval(f"SELECT {tables}")
    return number


async def test_no_secret_is_in_the_description_the_answers_and_the_log(
    database: Database, lines: Callable[[], list[str]]
) -> None:
    wrong = database.cluster.dsn(database.name, "nobody", MARK)
    for url in (database.dsn, wrong):
        app = create_ingestion_app(database_url=url, tokens=[TOKEN])
        said: list[Any] = [repr(app), repr(app.state.ingestion)]
        async with client(app, Authorization=f"Bearer {TOKEN}") as http:
            for answer in (
                await http.get("/openapi.json"),
                await http.get("/ready"),
                await http.post("/events/batch", json=[event(service=MARK)]),
                await http.post("/events/batch", json=[event(timestamp="1999-01-01T00:00:00Z", service=MARK)]),
            ):
                said += [answer.text, answer.headers]
        await app.state.ingestion.aclose()
        for text in (*said, *lines()):
            for secret in (MARK, TOKEN, PASSWORD, quote(PASSWORD, safe="")):
                assert secret not in str(text), text


async def test_a_forged_address_and_a_forged_line_do_not_reach_the_log_of_the_command(database: Database) -> None:
    with Process(database.dsn, ANALYTICS_TOKENS=TOKEN) as process:
        async with process.client() as http:
            for value in (b"1.2.3.4 stored=9", b"a\xffb", MARK.encode()):
                answer = await http.post(
                    "/events/batch",
                    json=[event(service=f"{MARK}\nERROR forged")],
                    headers=[(b"authorization", f"Bearer {TOKEN}".encode()), (b"x-forwarded-for", value)],
                )
                assert answer.status_code == 200
            assert (await http.get(f"/{MARK}%0aERROR%20forged?{MARK}")).status_code == 404
        assert await process.end() == 0
        log = process.log
    assert log.count("stored=1") == 3
    assert "stored=9" not in log
    for secret in ("forged", TOKEN, PASSWORD, quote(PASSWORD, safe="")):
        assert secret not in log
    assert all(re.match(r"\d{4}-\d\d-\d\d ", text) for text in log.splitlines())
    connection = await database.connect()
    assert await connection.fetchval("SELECT count(*) FROM analytics_events") == 3


async def test_what_the_table_refuses_is_answered_and_logged_by_its_reason_alone(
    database: Database, lines: Callable[[], list[str]]
) -> None:
    connection = await database.connect()
    await connection.execute(
        "ALTER TABLE analytics_events ADD CONSTRAINT \"odd\n\x1b[31mname\" CHECK (service <> 'hunter2')"
    )
    app = create_ingestion_app(sink=TimescaleSink(database.dsn))
    async with client(app) as http:
        answer = await http.post("/events/batch", json=[event(), event(service=MARK)])
    await app.state.ingestion.aclose()
    [refused] = answer.json()["rejected"]
    assert refused["reason"].startswith("check_violation")
    assert MARK not in answer.text
    assert MARK not in "".join(lines())
    [letter] = await connection.fetch("SELECT * FROM analytics_dead_letters")
    assert MARK in letter["payload"]


async def test_what_nobody_foresaw_is_logged_by_its_place_and_answered_without_a_traceback(
    lines: Callable[[], list[str]],
) -> None:
    app = create_ingestion_app(sink=TellingSink())
    app.state.ingestion.validator.check = lambda lines: int(lines[0])
    body = json.dumps([event(service=MARK)]).encode()
    server = Server([{"type": "http.request", "body": body, "more_body": False}])
    scope = http_scope("/events/batch", "POST", headers=[(b"content-type", b"application/json")])
    await app(scope, server.receive, server.send)  # nothing is raised, which the server would log
    await app.state.ingestion.aclose()
    assert server.sent[0]["status"] == 500
    assert (b"retry-after", b"5") in server.sent[0]["headers"]
    failed, access = lines()
    assert re.fullmatch(r"a request failed: ValueError \(test_injection.py, line \d+\)", failed)
    assert access.startswith("POST /events/batch 500 ")
    assert MARK not in failed + access + str(server.sent)
