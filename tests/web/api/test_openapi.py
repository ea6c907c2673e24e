"""The description follows from the questions and is what the API does: schemathesis tries to find a difference."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from asgi_analytics.reading import QUESTIONS, AnalyticsReader, question
from asgi_analytics.reading.source import Source
from asgi_analytics.web.api import create_api_app
from tests.kit.databases import Database
from tests.web.api.service import Process, fill
from tests.web.described import try_all
from tests.web.ingestion.service import client

schemathesis: Any = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
from schemathesis.specs.openapi.checks import (  # noqa: E402  # after the line that may skip
    negative_data_rejection,
    positive_data_acceptance,
)

# Of each parameter by itself the schema tells what it may be; that a start must be before its end it cannot tell.
NOT_BY_SCHEMA = [positive_data_acceptance]
TOKEN = {"Authorization": "Bearer t0ken"}


class Colour(msgspec.Struct, frozen=True):
    """What a question of the tests returns."""

    name: str
    shade: int


@pytest.mark.on_servers("is about what the API makes of a request, whatever the database")
async def test_it_does_what_the_description_says(database: Database) -> None:
    await fill(database, 100)
    with Process(database.dsn, ANALYTICS_READ_TOKENS="t0ken", ANALYTICS_TOKENS="t0ken") as process:
        schema = schemathesis.openapi.from_url(f"{process.url}/openapi.json")
        tried = await asyncio.to_thread(try_all, schema, matches, 2)
    assert tried >= {one.path for one in QUESTIONS.values()}


def matches(case: Any) -> None:
    answer = case.call(headers=TOKEN)
    # A URL may be too long before anything else is wrong with it.
    too_long = [negative_data_rejection] if answer.status_code == 414 else []
    case.validate_response(answer, excluded_checks=NOT_BY_SCHEMA + too_long)


def nowhere(**settings: Any) -> Starlette:
    return create_api_app(AnalyticsReader.from_url("postgresql://app@127.0.0.1:1/shop"), **settings)


async def test_every_question_is_described_by_its_signature_and_nothing_else_is() -> None:
    async with client(nowhere()) as http:
        document = (await http.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {"/health", "/ready"} | {one.path for one in QUESTIONS.values()}
    for one in QUESTIONS.values():
        described = document["paths"][one.path][one.method.lower()]
        assert described["operationId"] == one.name
        status = ("204" if one.method == "DELETE" else "201") if one.changes else "200"
        assert described["responses"][status]["description"] == one.definition
        names = {"start": "start_date", "end": "end_date"}
        wanted = {names.get(name, name) for name in one.signature.parameters}
        found = {known["name"] for known in described["parameters"]}
        if one.method == "POST":
            body = described["requestBody"]["content"]["application/json"]["schema"]
            assert body["additionalProperties"] is False
            found |= set(body["properties"])
        assert found == wanted | {"format"}
        assert ("401" in described["responses"]) is ("403" in described["responses"]) is one.changes


async def test_limits_defaults_and_lists_are_those_of_the_signature() -> None:
    async with client(nowhere(tokens=["t"])) as http:
        document = (await http.get("/openapi.json")).json()
    events = {one["name"]: one for one in document["paths"]["/events"]["get"]["parameters"]}
    assert events["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}
    assert events["event_types"]["schema"]["type"] == "array"
    assert events["event_types"]["schema"]["maxItems"] == 100
    assert document["paths"]["/events"]["get"]["security"] == [{"token": []}]
    latency = {one["name"]: one for one in document["paths"]["/api/latency"]["get"]["parameters"]}
    assert sorted(latency["bucket"]["schema"]["enum"]) == ["all", "day", "hour"]
    fingerprint = document["paths"]["/errors/{fingerprint}"]["get"]["parameters"][0]
    assert (fingerprint["in"], fingerprint["required"]) == ("path", True)


async def test_a_new_question_is_served_and_described_without_more() -> None:
    @question("/colours", bare=True)
    async def list_colours(source: Source, *, shade: int = 3, service: str | None = None) -> list[Colour]:
        """List the colours that a shop has, brightest first."""
        return [Colour("red", shade)]

    try:
        async with client(nowhere()) as http:
            assert (await http.get("/colours?shade=7")).json() == [{"name": "red", "shade": 7}]
            assert (await http.get("/api/analytics/colours?format=csv")).text == "name,shade\r\nred,3\r\n"
            assert (await http.get("/colours?shade=x")).json()["field"] == "shade"
            document = (await http.get("/openapi.json")).json()
        assert document["paths"]["/colours"]["get"]["summary"] == "List the colours that a shop has, brightest first"
    finally:
        del QUESTIONS["list_colours"]
