"""Every question has a route, which answers what the reader does."""

from __future__ import annotations

import inspect
import re

import httpx2
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_analytics.reading import QUESTIONS, AnalyticsReader
from asgi_analytics.web.api import create_api_app
from asgi_analytics.web.api.endpoints import PREFIX
from tests.kit.databases import Database
from tests.web.api.service import BESIDE, arguments_of, ask, fill, opened, reading
from tests.web.ingestion.service import client

BARE = {
    "/overview", "/users/daily", "/users/weekly", "/users/monthly", "/tasks/daily", "/tasks/overview", "/api/latency",
    "/api/slowest", "/integrations/daily", "/auth/daily", "/cocoons/daily", "/errors/hourly",
}  # fmt: skip
WITH_META = {
    "/api/consumers", "/api/apdex", "/errors", "/errors/{fingerprint}", "/queries/slow", "/queries/repeated", "/events",
    "/aggregations", "/pipeline", "/sessions", "/sessions/{id}", "/sessions/summary", "/sessions/series",
    "/sessions/breakdown", "/pages", "/users/{user_id}/activity", "/features", "/features/top", "/funnels",
    "/funnels/query", "/funnels/{name}", "/funnels/{name}/conversions", "/trends", "/retention", "/stickiness",
    "/lifecycle", "/paths",
}  # fmt: skip


def test_the_routes_are_those_of_the_contract_and_answer_in_its_form() -> None:
    assert {one.path for one in QUESTIONS.values() if one.bare} >= BARE
    assert {one.path for one in QUESTIONS.values() if not one.bare} >= WITH_META
    assert len({(one.method, one.path) for one in QUESTIONS.values()}) == len(QUESTIONS)


def test_braces_in_a_path_are_parameters_without_a_default() -> None:
    for question in QUESTIONS.values():
        required = {
            name for name, one in question.signature.parameters.items() if one.default is inspect.Parameter.empty
        }
        in_body = {"name", "steps"} if question.changes and question.method == "POST" else set()
        assert set(re.findall(r"\{(\w+)\}", question.path)) == required - set(BESIDE.get(question.name, {})) - in_body


async def test_every_route_answers_what_the_function_of_the_reader_answers(database: Database, app: Starlette) -> None:
    await fill(database)
    reader = app.state.api.reader
    async with opened(app) as http:
        for question in reading():
            for prefix in ("", PREFIX):
                answer = await ask(http, question, prefix)
                assert answer.status_code == 200, (question.path, answer.text)
                expected = await reader.answer(question.name, **arguments_of(question))
                wanted = msgspec.json.encode(expected.results if question.bare else expected)
                if question.bare or question.name != "get_pipeline_health":
                    assert answer.content == wanted, question.path
                assert answer.headers["content-type"] == "application/json"


async def test_parameters_reach_the_function(database: Database, app: Starlette) -> None:
    await fill(database)
    async with opened(app) as http:
        all_of_them = (await http.get("/events?limit=1000")).json()["results"]["events"]
        two_types = "/events?limit=1000&event_types=api_request&event_types=task_created"
        found = (await http.get(two_types)).json()["results"]["events"]
        wanted = [one for one in all_of_them if one["event_type"] in ("api_request", "task_created")]
        assert found == wanted
        assert 0 < len(wanted) < len(all_of_them)

        first = (await http.get("/events?limit=10")).json()["results"]
        second = (await http.get("/events", params={"limit": 10, "cursor": first["next"]})).json()["results"]
        assert first["events"] + second["events"] == all_of_them[:20]

        asked = "?start_date=2026-03-29&end_date=2026-03-29T12:00:00%2B02:00&timezone=Europe/Berlin"
        meta = (await http.get("/queries/repeated" + asked)).json()["meta"]
        assert (meta["start"], meta["end"]) == ("2026-03-29T00:00:00+01:00", "2026-03-29T12:00:00+02:00")
        assert meta["timezone"] == "Europe/Berlin"
        assert meta["definition"] == QUESTIONS["list_repeated_queries"].definition

        assert (await http.get("/api/apdex?threshold_ms=3")).json()["meta"]["approximate"] is True
        assert (await http.get("/api/latency?service=nobody")).json() == []


async def test_head_has_the_headers_of_get(database: Database, app: Starlette) -> None:
    await fill(database, 50)
    async with opened(app) as http:
        for url in ("/tasks/daily", "/events", "/events?format=csv", "/health", "/ready", "/openapi.json"):
            got, head = await http.get(url), await http.head(url)
            assert head.status_code == got.status_code == 200
            assert head.content == b""
            assert head.headers == got.headers


async def test_an_answer_that_did_not_change_is_not_sent_again(database: Database, app: Starlette) -> None:
    await fill(database, 50)
    async with opened(app) as http:
        first = await http.get("/tasks/daily")
        tag = first.headers["etag"]
        assert tag.startswith('"')
        assert first.headers["cache-control"] == "private, no-cache"
        for given in (tag, f'"other", W/{tag}', "*"):
            again = await http.get("/tasks/daily", headers={"If-None-Match": given})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tag
        assert (await http.get("/tasks/daily", headers={"If-None-Match": '"other"'})).status_code == 200
        assert (await http.get("/users/daily")).headers["etag"] != tag


async def test_a_mounted_api_answers_without_its_lifespan(database: Database, reader_dsn: str) -> None:
    async with AnalyticsReader.from_url(reader_dsn) as reader:
        outer = Starlette(routes=[Mount("/stats", app=create_api_app(reader))])
        async with client(outer) as http:
            assert (await http.get("/stats/overview")).json()["total_users"] == 0
            document = (await http.get("/stats/api/analytics/openapi.json")).json()
            assert document["servers"] == [{"url": "/stats/api/analytics"}]


@pytest.mark.parametrize("path", ["/health", PREFIX + "/health"])
async def test_health_needs_neither_a_database_nor_a_token(path: str) -> None:
    app = create_api_app(AnalyticsReader.from_url("postgresql://app@127.0.0.1:1/shop"), tokens=["t0ken"])
    async with client(app) as http:
        answer = await http.get(path)
        assert isinstance(answer, httpx2.Response)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
