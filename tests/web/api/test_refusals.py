"""What is refused, with which status, code and field, and before any work."""

from __future__ import annotations

from random import Random
from typing import Any
from urllib.parse import quote

import pytest
from starlette.applications import Starlette

from asgi_analytics.errors import ConfigError, NoConnection, NotMigrated, QueryTimeout, ReadError
from asgi_analytics.reading import QUESTIONS, AnalyticsReader
from asgi_analytics.web.api import create_api_app
from asgi_analytics.web.api.parameters import MOST_BYTES, MOST_PARAMETERS, Parameters
from tests.kit.databases import Database
from tests.web.api.service import BESIDE, fill, in_path, opened, reading
from tests.web.ingestion.service import client

NOWHERE = "postgresql://app:s3cret@127.0.0.1:1/shop"
EVIL = (
    "'; DROP TABLE analytics_events; --", '" OR 1=1', "$1", "%s", "\\", "{}", "*", "..", "../../etc", "<script>",
    "=1+1", "\x00", "\u2028", "💥", "x" * 1999, "NULL", "1e309", "-1", "[]", "{fingerprint}",
)  # fmt: skip


def nowhere(**settings: Any) -> Starlette:
    return create_api_app(AnalyticsReader.from_url(NOWHERE), **settings)


@pytest.mark.parametrize(
    ("url", "field", "says"),
    [
        ("/tasks/daily?colour=red", "colour", "use start_date"),
        ("/tasks/daily?start=2026-01-01", "start", "use start_date"),
        ("/tasks/daily?%3Cscript%3E=1", None, "is not known"),
        ("/tasks/daily?=1", None, "is not known"),
        ("/tasks/daily?service=a&service=b", "service", "more than once"),
        ("/tasks/daily?service=", "service", "1 to 2000"),
        ("/tasks/daily?format=xml", "format", "json, csv, ndjson"),
        ("/tasks/daily?format=csv&format=csv", "format", "one of"),
        ("/tasks/daily?start_date=yesterday", "start_date", "date"),
        ("/tasks/daily?start_date=2026-02-30", "start_date", "date"),
        ("/tasks/daily?start_date=2026-02-03T00:00:00", "start_date", "no time zone"),
        ("/tasks/daily?start_date=2026-02-03&end_date=2026-02-02", "start_date", "before"),
        ("/tasks/daily?end_date=9999-12-31", "end_date", "1970"),
        ("/tasks/daily?end_date=0001-01-01T00:00:00%2B14:00", "end_date", "1970"),
        ("/tasks/daily?timezone=Mars", "timezone", "IANA"),
        ("/tasks/daily?environment=staging", "environment", "raw rows only"),
        ("/events?limit=0", "limit", "1 to 1000"),
        ("/events?limit=1.5", "limit", "integer"),
        ("/events?limit=" + "9" * 30, "limit", "integer"),
        ("/events?cursor=abc", "cursor", "next"),
        ("/events?entity_id=1", "entity_type", "must be given"),
        ("/events?event_categories=none", "event_categories", ""),
        ("/events?" + "&".join(["event_types=a"] * 101), "event_types", "1 to 100"),
        ("/api/apdex?threshold_ms=nan", "threshold_ms", "number"),
        ("/api/latency?bucket=year", "bucket", "hour"),
        ("/errors/x?fingerprint=y", "fingerprint", "is not known"),
        ("/tasks/daily?service=%ff", None, "UTF-8"),
        ("/tasks/daily?" + "&" * MOST_PARAMETERS, None, "more than"),
    ],
)
async def test_a_wrong_parameter_is_named_before_the_database_is_asked(url: str, field: str | None, says: str) -> None:
    async with client(nowhere()) as http:
        answer = await http.get(url)
    refused = answer.json()
    assert list(refused) == ["status", "code", "message", "field"]
    assert (answer.status_code, refused["status"], refused["code"]) == (422, 422, "invalid_parameter")
    assert refused["field"] == field
    assert says in refused["message"]
    assert "script" not in answer.text


async def test_a_url_that_is_too_long_is_refused() -> None:
    async with client(nowhere()) as http:
        assert (await http.get("/tasks/daily?service=" + "x" * MOST_BYTES)).status_code == 414


async def test_what_is_not_there_is_told_in_the_same_form() -> None:
    async with client(nowhere()) as http:
        answer = await http.get("/funnel")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        answer = await http.post("/overview")
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
        assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong", "Basic t0ken", "Bearer t0ken2", "Bearer "])
async def test_every_question_needs_an_accepted_token(given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given}
    async with client(nowhere(tokens=["t0ken", "second"]), **headers) as http:
        for question in QUESTIONS.values():
            if question.changes:
                continue  # they need another one
            answer = await http.request(question.method, question.path)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("token", ["t0ken", "second"])
async def test_each_token_opens(token: str) -> None:
    async with client(nowhere(tokens=["t0ken", "second"]), Authorization=f"Bearer {token}") as http:
        assert (await http.get("/overview")).status_code == 503


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (QueryTimeout("no answer on s3cret"), 504, "query_timeout"),
        (NoConnection("s3cret is away"), 503, "no_connection"),
        (NotMigrated("s3cret lacks a table"), 503, "not_migrated"),
        (ReadError("s3cret may not read"), 503, "not_answered"),
        (RuntimeError("s3cret"), 500, "internal_error"),
    ],
)
async def test_what_is_wrong_with_the_database_has_a_status_and_stays_in_the_log(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    app = nowhere()

    async def answer(name: str, **arguments: Any) -> None:
        raise error

    monkeypatch.setattr(app.state.api.reader, "answer", answer)
    async with client(app) as http:
        for url in ("/overview", "/events?format=csv"):
            refused = await http.get(url)
            assert (refused.status_code, refused.json()["code"]) == (status, code)
            assert "s3cret" not in refused.text
            assert ("retry-after" in refused.headers) == (status == 503)


@pytest.mark.parametrize("each", [2, pytest.param(len(EVIL), marks=pytest.mark.long)])
async def test_no_text_in_any_parameter_is_more_than_a_text(database: Database, app: Starlette, each: int) -> None:
    random = Random(1)
    await fill(database, 30)
    admin = await database.connect()
    before = await admin.fetchval("SELECT count(*) FROM analytics_events")
    async with opened(app) as http:
        for question in reading():
            for name, parameter in Parameters(question).known.items():
                for text in random.sample(EVIL, each):
                    if parameter.in_path and text in ("..", "../../etc", "\x00"):
                        continue  # another path, or not a URL
                    arguments = in_path(question)
                    if parameter.in_path:
                        arguments[name] = quote(text, safe="")
                    url = question.path.format(**arguments)
                    given = {} if parameter.in_path else {name: text}
                    if question.method == "POST":
                        answer = await http.post(url, json=BESIDE.get(question.name, {}) | given)
                    else:
                        answer = await http.request(question.method, url, params=BESIDE.get(question.name, {}) | given)
                    assert answer.status_code in (200, 422), (url, name, text, answer.text)
    assert await admin.fetchval("SELECT count(*) FROM analytics_events") == before


def test_only_a_reader_can_be_served() -> None:
    with pytest.raises(ConfigError, match=r"AnalyticsReader\.from_url"):
        create_api_app(NOWHERE)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="list"):
        nowhere(tokens="t0ken")
