"""Whatever stands in a text, it is data: in SQL, in a row, in a log line; and no secret is in what anybody reads."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asgi_analytics import (
    AnalyticsClient,
    AnalyticsMiddleware,
    AnalyticsWorker,
    Event,
    MemorySink,
    TimescaleSink,
    events,
    set_session,
    set_user,
)
from asgi_analytics.encoding.text import clean_text
from asgi_analytics.errors import AnalyticsError, ConfigError, SinkError
from asgi_analytics.instrumentation.queries.statement import normalise
from asgi_analytics.sinks.http import HttpSink
from tests.faults.balance import assert_stored
from tests.instrumentation.asgi_app import Server, http_scope
from tests.kit.databases import PASSWORD, Database
from tests.sinks.contract import ids, line

MARK = "hunter2"
ATTEMPTS = [
    "'; DROP TABLE analytics_events; --",
    "\\'); DROP TABLE analytics_events; --",
    '"; DROP TABLE analytics_events; --',
    "$1 $$ $tag$ %s %(a)s {schema} {0} :a ?",
    'x","event_id":"0198c1a2-0000-7000-8000-000000000001","a":"',
    '"}}],[{"event_id":',
    "a\nERROR asgi_analytics forged\r\n\x1b[2J\x1b[31m",
    "a\u2028b\u2029c\x85d\u202ee\x7f\x9b",
    "\x00 \ud800 \udfff",
    "\\u0000 \\ud800 \\",
    "' || pg_sleep(10) || '",
]
TEXT = st.sampled_from(ATTEMPTS) | st.text(st.characters(exclude_categories=()), max_size=30)
NAMES = TEXT.filter(lambda text: bool(text.strip()))
SCHEMAS = st.text(st.sampled_from("abAB \"'\\.;-${}%\n\u2028é😀\x1b"), min_size=1, max_size=12)
EACH_EXAMPLE = settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class TextSaid(Event):
    text: str
    more: Any = None
    user_id: str | None = None


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Give ``lines()``: what our loggers wrote, formatted; each of it one line without control characters."""
    caplog.set_level(logging.DEBUG)

    def read() -> list[str]:
        said = []
        for record in caplog.records:
            if record.name.partition(".")[0] == "asgi_analytics":
                text = logging.Formatter("%(message)s").format(record)
                assert text.isprintable(), repr(text)
                said.append(text)
        return said

    return read


def assert_hidden(secret: str, *texts: object) -> None:
    """Fail where a secret is in a text as it is, or quoted for a URL."""
    for text in texts:
        for form in (secret, quote(secret, safe="")):
            assert form not in str(text), text


def whole(error: BaseException) -> str:
    """Return an error as a server would log it, with its causes."""
    return "".join(traceback.format_exception(error))


@given(service=NAMES, environment=TEXT, session=TEXT, user=TEXT, text=TEXT, key=TEXT)
@EACH_EXAMPLE
@example(*[ATTEMPTS[0]] * 6)
@example(*[ATTEMPTS[6]] * 6)
async def test_what_is_tracked_is_stored_as_it_is(
    database: Database, service: str, environment: str, session: str, user: str, text: str, key: str
) -> None:
    sink = TimescaleSink(database.dsn)
    client = AnalyticsClient(
        service=service, environment=environment, strict=True, hash_key=key.encode("utf-8", "replace") or b"k"
    )
    connection = await asyncpg.connect(database.dsn)
    await connection.execute("TRUNCATE analytics_events")
    async with AnalyticsWorker(client, sink):
        set_session(session)
        client.track(TextSaid(text=text, more={key: [text]}, user_id=user))
        client.track(events.AuthLoginAttempt(email=text, success=False, error=text))
        client.track_error(ValueError(text))
        assert await client.aflush(20)
    rows = await connection.fetch("SELECT * FROM analytics_events")
    await assert_stored(client, database, [row["id"] for row in rows])
    await database.close()
    await connection.close()
    said = {row["event_type"]: row for row in rows}
    assert set(said) == {"text_said", "auth_login_attempt", "application_error"}
    for row in rows:
        assert row["service"] == clean_text(service)
        assert json.loads(row["context"])["environment"] == clean_text(environment)
    row = said["text_said"]
    assert json.loads(row["data"]) == {"text": clean_text(text), "more": {clean_text(key): [clean_text(text)]}}
    assert json.loads(row["context"]).get("user_key", clean_text(user)) == clean_text(user)
    login = json.loads(said["auth_login_attempt"]["data"])
    assert len(login["email"]) == 64
    assert json.loads(said["application_error"]["data"])["error_message"] == clean_text(text)


@given(schema=SCHEMAS)
@EACH_EXAMPLE
@example(schema='"; DROP TABLE public.analytics_events; --')
@example(schema="{schema}")
async def test_a_schema_is_a_name_whatever_stands_in_it(database: Database, schema: str) -> None:
    connection = await asyncpg.connect(database.dsn)
    name = '"{}"'.format(schema.replace('"', '""'))
    await connection.execute(f"CREATE SCHEMA {name}")
    try:
        sink = TimescaleSink(database.dsn, schema=schema)
        with pytest.raises(SinkError, match="analytics-migrate all"):
            await sink.ready()
        for table in ("analytics_events", "analytics_dead_letters"):
            await connection.execute(f"CREATE TABLE {name}.{table} (LIKE public.{table} INCLUDING ALL)")
        await sink.ready()
        batch = [line("a"), b'{"event_id":"hunter2"}']
        assert len((await sink.write(batch)).rejected) == 1
        await sink.upkeep()
        await sink.aclose()
        assert [row["id"] for row in await connection.fetch(f"SELECT id FROM {name}.analytics_events")] == ids(
            batch[:1]
        )
        assert await connection.fetchval("SELECT count(*) FROM public.analytics_events") == 0
    finally:
        await connection.execute(f"DROP SCHEMA {name} CASCADE")
        await connection.close()


@pytest.mark.parametrize("schema", ["", "x" * 64, "a\0", "\udcff", "😀" * 16])
def test_what_cannot_be_a_schema_is_refused_at_once(schema: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a schema") as caught:
        TimescaleSink("postgresql://db/shop", schema=schema)
    assert str(caught.value).isprintable()


@given(header=st.binary(max_size=250), path=TEXT, text=TEXT)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_request_writes_no_log_line_of_its_own(
    lines: Callable[[], list[str]], header: bytes, path: str, text: str
) -> None:
    def hook(scope: Any) -> str:
        raise ValueError(f"{MARK} {text}")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        set_user(f"u{text}")
        set_session(text)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        raise RuntimeError(f"{MARK} {text}")

    sink = MemorySink()
    client = AnalyticsClient(service=f"s{text}")
    async with AnalyticsWorker(client, sink):
        wrapped = AnalyticsMiddleware(app, client=client, user_id=hook, session_id=hook, endpoint=hook)
        scope = http_scope(headers=[(b"x-request-id", header), (b"host", header)]) | {"path": f"/{path}"}
        server = Server()
        with pytest.raises(RuntimeError, match=MARK):
            await wrapped(scope, server.receive, server.send)
        assert await client.aflush(10)
    [request] = [event for event in sink.events if event.event_type == "api_request"]
    assert request.data.get("endpoint") is None
    kept = (request.context or {})["request_id"]
    assert kept.isprintable()
    assert kept.encode() == header or re.fullmatch("[0-9a-f]{32}", kept)  # one of our own
    assert_hidden(MARK, *lines())


async def test_hooks_and_sinks_that_fail_with_a_payload_do_not_log_it(lines: Callable[[], list[str]]) -> None:
    class Failing(MemorySink):
        errors: list[Exception] = [ValueError(f"{MARK}\n\x1b[31m"), OSError(MARK), KeyError(MARK)]

        async def write(self, batch: Any) -> Any:
            if self.errors:
                raise self.errors.pop()
            return await super().write(batch)

        async def upkeep(self) -> None:
            raise ValueError(MARK)

        async def aclose(self) -> None:
            raise ValueError(MARK)

    def before(event: Event) -> Event:
        raise ValueError(f"{MARK} {event}")

    class Odd:
        def __str__(self) -> str:
            raise ValueError(MARK)

    client = AnalyticsClient(service=f"{MARK[:0]}shop\nERROR forged", close_timeout=0.2)
    refusing = AnalyticsClient(service="shop", before_track=before)
    assert not refusing.track(TextSaid(text=MARK))
    assert not client.track(TextSaid(text=MARK, more=Odd()))
    assert not client.track(TextSaid(text=MARK, more=b"\xff" * 300_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asgi_analytics.worker.worker.OPERATOR_BACKOFF", 0.01)
        patch.setattr("asgi_analytics.sinks.upkeep.FIRST_SECONDS", 0.001)
        async with AnalyticsWorker(client, Failing()), AnalyticsWorker(refusing, MemorySink()):
            client.track(TextSaid(text=MARK))
            assert await client.aflush(10)
    stuck = AnalyticsClient(service="shop\nERROR forged")
    stuck.track(TextSaid(text=MARK))
    assert not await stuck.aclose(0.01)
    said = lines()
    assert any("ValueError (test_injection.py, line " in one for one in said)
    assert any("service: shop ERROR forged; abandoned: 1" in one for one in said)
    assert any("before_track raised ValueError" in one for one in said)
    assert_hidden(MARK, *said, repr(client), repr(client.settings), repr(Failing()), client.stats())


@given(text=TEXT)
def test_no_statement_has_a_literal_or_a_line_of_its_own(text: str) -> None:
    quoted = text.replace("'", "''")
    kept = normalise(f"SELECT * FROM \"{text.replace(chr(34), chr(34) * 2)}\" WHERE a = '{MARK}{quoted}' -- {MARK}")
    assert len(kept.text.splitlines()) == 1
    assert_hidden(MARK, kept)


async def test_what_the_server_shows_of_us_holds_no_event(database: Database) -> None:
    sink = TimescaleSink(database.dsn)
    await sink.write([line(MARK)])
    await sink.write([b'{"event_id":"hunter2"}', line(MARK)])
    connection = await database.connect()
    [session] = await connection.fetch(
        "SELECT application_name, query FROM pg_stat_activity WHERE application_name LIKE 'asgi%' AND datname = $1",
        database.name,
    )
    assert session["application_name"] == "asgi-analytics"
    assert session["query"]
    assert_hidden(MARK, session["query"], repr(sink))
    await sink.aclose()


@given(secret=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_wrong_password_is_in_no_error_and_no_traceback(database: Database, secret: str) -> None:
    secret = f"{MARK}{secret}{MARK}"
    for user in ("postgres", "nobody"):
        sink = TimescaleSink(database.cluster.dsn(database.name, user, secret))
        with pytest.raises(SinkError) as caught:
            await sink.write([line()])
        assert_hidden(MARK, whole(caught.value), repr(sink), vars(sink).get("last_error"))
        await sink.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:{}@db:1:2/x",
        "postgresql://u:{}/x@db/x",
        "postgresql://u:{}#x@db/x",
        "postgresql://u:{}?x@db/x",
        "postgresql://u:x@{}@db/x",
        "postgresql://db:{}/x",
        "postgresql://u:{}",
        "postgresql://[{}/x",
        "postgresql:u:{}@db/x",
        "postgres+asyncpg://u:{}@[db/x",
        "mysql://u:{}@db/x",
        "://u:{}@db/x",
        "{}",
        "u:{}://db/x",
        "http://u:{}@[db",
        "http://u:{}@db:port",
        "https://u:{}@db/?token={}",
        "http://{}@",
        "memory://{}",
    ],
)
def test_a_url_that_is_refused_is_not_quoted(url: str) -> None:
    try:
        client = AnalyticsClient.from_url(url.replace("{}", MARK), service="shop")
    except AnalyticsError as error:
        assert_hidden(MARK, whole(error))
    else:
        assert_hidden(MARK, repr(client), repr(client.sink))


@pytest.mark.parametrize(
    "parameter",
    ["sslpassword=hunter2", "sslkey=/x", "options=x", "port=x", "target_session_attrs=x", "a=1"],
)
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_url_that_is_refused_later_is_not_quoted(database: Database, parameter: str) -> None:
    sink = TimescaleSink(f"{database.dsn}?{parameter}")
    try:
        await sink.write([line()])
    except SinkError as error:
        for secret in (MARK, PASSWORD):
            assert_hidden(secret, whole(error))
    await sink.aclose()


async def test_a_token_is_in_no_error_no_log_line_and_no_repr(lines: Callable[[], list[str]]) -> None:
    sink = HttpSink("http://127.0.0.1:1", token=MARK)
    with pytest.raises(SinkError) as caught:
        await sink.write([line(MARK)])
    await sink.aclose()
    with pytest.raises(ConfigError) as refused:
        HttpSink("http://127.0.0.1:1", token=f"{MARK} \n")
    client = AnalyticsClient.from_url("http://127.0.0.1:1", service="shop", token=MARK, hash_key=MARK)
    client.track(TextSaid(text=MARK))
    client.close(0.2)
    assert lines()
    assert_hidden(MARK, whole(caught.value), whole(refused.value), repr(sink), repr(client), *lines())
    assert_hidden(MARK, repr(client.settings), repr(client.sink))


def test_event_types_are_names_of_python() -> None:
    """The tag of an event comes from the name of its class, which can hold no quote, no blank and no line break."""
    odd = type(f"Größe{uuid4().hex}", (Event,), {"__annotations__": {}})
    client = AnalyticsClient(service="shop", strict=True)
    assert client.track(odd())
