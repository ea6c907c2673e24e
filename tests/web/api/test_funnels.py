"""Funnels over HTTP: asked with a body, kept and deleted by who has the token for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.applications import Starlette

from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.web.api import create_api_app
from tests.kit.databases import Database
from tests.web.api.service import fill, opened
from tests.web.ingestion.service import client

KEEPS, READS = {"Authorization": "Bearer k33ps"}, {"Authorization": "Bearer r3ads"}
STEPS = ["task_created", {"event_type": "task_completed", "where": [{"field": "data.task_id", "operator": "is_set"}]}]
FUNNEL = {"name": "a – b?", "steps": STEPS, "description": "Tasks", "conversion_window": 60.5}


@pytest.fixture
def guarded(reader_dsn: str) -> Starlette:
    """Give an API that tells who reads from who changes."""
    return create_api_app(AnalyticsReader.from_url(reader_dsn), tokens=["r3ads"], change_tokens=["k33ps"])


def nowhere(**settings: Any) -> Starlette:
    return create_api_app(AnalyticsReader.from_url("postgresql://app@127.0.0.1:1/shop"), **settings)


async def test_a_funnel_is_kept_asked_for_and_deleted(database: Database, guarded: Starlette) -> None:
    await fill(database)
    async with opened(guarded) as http:
        before = (await http.get("/funnels", headers=READS)).json()["results"]
        assert [one["name"] for one in before] == ["checkout"]
        made = await http.post("/funnels", json=FUNNEL, headers=KEEPS)
        assert made.status_code == 201
        assert made.json()["meta"]["definition"].startswith("Keep a funnel by a name")
        kept = made.json()["results"]
        assert (kept["name"], kept["description"], kept["conversion_window"]) == ("a – b?", "Tasks", 60.5)
        assert [step["event_type"] for step in kept["steps"]] == ["task_created", "task_completed"]
        names = [one["name"] for one in (await http.get("/funnels", headers=READS)).json()["results"]]
        assert names == ["a – b?", "checkout"]
        taken = await http.post("/api/analytics/funnels", json=FUNNEL, headers=KEEPS)
        assert (taken.status_code, taken.json()["field"]) == (422, "name")
        assert (await http.get("/funnels/checkout", headers=READS)).json()["results"]["conversion_window"] == 3600
        lines = (await http.get("/funnels/checkout/conversions?format=csv", headers=READS)).text.splitlines()
        assert lines[0].startswith("user_id,session_id,started_at,completed_at,current_step,completed,step_timestamps")
        assert len(lines) > 1
        gone = await http.delete("/funnels/checkout", headers=KEEPS)
        assert (gone.status_code, gone.content) == (204, b"")
        again = await http.delete("/funnels/checkout", headers=KEEPS)
        assert (again.status_code, again.json()["field"]) == (422, "name")


async def test_a_funnel_is_asked_with_a_body(database: Database, guarded: Starlette) -> None:
    await fill(database)
    reader = guarded.state.api.reader
    asked = {"steps": STEPS, "start_date": "2026-01-01", "order": "strict", "by": "session", "conversion_window": 90}
    async with opened(guarded) as http:
        answer = await http.post("/funnels/query", json=asked, headers=READS)
        assert answer.status_code == 200
        assert [step["name"] for step in answer.json()["results"]["steps"]] == ["task_created", "task_completed"]
        assert answer.json()["meta"]["start"] == "2026-01-01T00:00:00Z"
        count = answer.json()["results"]["steps"][0]["count"]
        async with reader.snapshot() as snapshot:
            [(created,)] = await snapshot.records(
                "SELECT count(*) FROM analytics_events WHERE event_type = $1", STEPS[0]
            )
        assert 0 < count <= created
        again = await http.post(
            "/funnels/query", json=asked, headers={**READS, "If-None-Match": answer.headers["etag"]}
        )
        assert (again.status_code, again.content) == (200, answer.content)
        lines = (await http.post("/funnels/query?format=csv", json=asked, headers=READS)).text.splitlines()
        assert (len(lines), lines[1].split(",")[:2]) == (3, ["task_created", str(count)])


async def test_who_reads_may_not_change_and_who_changes_may_not_read() -> None:
    async with client(nowhere(tokens=["r3ads"], change_tokens=["k33ps"])) as http:
        for method, url in (("POST", "/funnels"), ("DELETE", "/funnels/x")):
            for headers in ({}, READS, {"Authorization": "Basic k33ps"}):
                answer = await http.request(method, url, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert (await http.post("/funnels/query", json={"steps": ["a"]}, headers=KEEPS)).status_code == 401
        assert (await http.post("/funnels/query", json={"steps": ["a"]}, headers=READS)).status_code == 503
        assert (await http.delete("/funnels/x", headers=KEEPS)).status_code == 503
    for tokens in ([], ["r3ads"]):
        async with client(nowhere(tokens=tokens), **READS) as http:
            answer = await http.delete("/funnels/x")
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None), (b"[]", None), (b'{"steps": ["a"]', None), (b"\xff", None), (b"[" * 50_000, None),
        (b"{}", "steps"), (b'{"steps": []}', "steps"), (b'{"steps": null}', "steps"), 
        (b'{"steps": ["a"], "x": 1}', "x"),
        (b'{"steps": ["a"], "order": null}', "order"), (b'{"steps": ["a"], "start_date": 7}', "start_date"),
        (b'{"steps": ["a"], "start_date": "today"}', "start_date"),
        (b'{"steps": ["a"], "start": "2026-01-01"}', "start"),
        (b'{"steps": ["a"], "conversion_window": 0}', "conversion_window"),
        (b'{"steps": ["a"], "conversion_window": "P1D"}', "conversion_window"),
        (b'{"steps": [{"event_type": "a", "where": [{"field": "x"}]}]}', "steps"),
        (b'{"steps": ["a"], "breakdown": "x"}', "breakdown"), (b'{"steps": ["a"], "timezone": "Mars"}', "timezone"),
    ],
)  # fmt: skip
async def test_a_wrong_body_is_told(body: bytes, field: str | None) -> None:
    async with client(nowhere()) as http:
        answer = await http.post("/funnels/query", content=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter"), answer.text
        assert answer.json()["field"] == field


async def test_a_body_is_bounded_and_a_url_has_no_parameters_beside_it() -> None:
    async with client(nowhere()) as http:
        answer = await http.post("/funnels/query", content=json.dumps({"steps": ["a"], "pad": "x" * 70_000}))
        assert (answer.status_code, answer.json()["code"]) == (413, "content_too_large")
        answer = await http.post("/funnels/query?service=shop", json={"steps": ["a"]})
        assert (answer.status_code, answer.json()["field"]) == (422, "service")
        answer = await http.get("/funnels/query")  # the name of a funnel, as far as GET is concerned
        assert answer.status_code == 503
