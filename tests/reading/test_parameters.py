"""Parameters are values, never SQL; what is no value of its kind is refused by its name; so is what is not known."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any, get_args

import pytest

from asgi_analytics.errors import InvalidQuery, NoConnection
from asgi_analytics.reading import QUESTIONS, AnalyticsReader
from tests.kit.databases import Database
from tests.reading.happened import ABOUT_WHAT_IS_KEPT, REQUIRED, insert, random_events

DAY = timedelta(days=1)
EVIL = ("'; DROP TABLE analytics_events; --", '"%\\$1{}\n🦋', "a\0b\ud800", "x" * 2000)
KNOWS_ENVIRONMENT = (
    "query_events", "list_error_groups", "get_error_group", "list_slow_queries", "list_repeated_queries",
    "query_sessions", "get_session_summary", "get_session_series", "get_session_breakdown",
    "query_trends",
    "query_paths", "query_funnel", "query_funnel_conversions",
)  # fmt: skip
UNOPENED = AnalyticsReader.from_url("postgresql://localhost/none")
"""Refuses a wrong parameter before it has to be open."""


def texts() -> Iterator[tuple[str, str]]:
    """Yield every parameter of every question that takes a text."""
    for name, question in QUESTIONS.items():
        for parameter in question.signature.parameters.values():
            kinds = str(parameter.annotation)
            if "str" in kinds and "Literal" not in kinds:
                yield name, parameter.name


async def test_no_text_is_ever_sql(database: Database, reader: AnalyticsReader) -> None:
    now = datetime.now(UTC)
    await insert(await database.connect(), random_events(Random(1), 200, now - DAY, now))
    asked = 0
    for name, parameter in texts():
        given: dict[str, Any] = dict(REQUIRED.get(name, {}))
        if parameter == "entity_id":
            given["entity_type"] = "task"
        for evil in EVIL:
            value: Any = [evil] if parameter in ("event_types", "series", "group_by") else evil
            value = {evil: evil} if parameter == "tags" else value
            try:
                answer = await getattr(reader, name)(**{**given, parameter: value})
            except InvalidQuery as exc:
                if name not in REQUIRED:
                    assert parameter in ("timezone", "cursor", "entity_type"), (name, parameter, evil)
                    assert exc.field == parameter
            else:
                assert isinstance(answer, object)
            asked += 1
    assert asked > 150
    assert await (await database.connect()).fetchval("SELECT count(*) FROM analytics_events") == 200


async def test_text_is_looked_for_as_it_is_stored(database: Database, reader: AnalyticsReader) -> None:
    now = datetime.now(UTC)
    [event] = random_events(Random(1), 1, now - DAY, now)
    await insert(await database.connect(), [event._replace(session_id="a\ufffdb")])
    assert (await reader.query_events(session_id="a\0b")).total == 1


@pytest.mark.parametrize("name", QUESTIONS)
async def test_the_environment_is_refused_with_the_reason_where_only_aggregates_answer(name: str) -> None:
    arguments = REQUIRED.get(name, {})
    if name in KNOWS_ENVIRONMENT:
        assert "environment" in QUESTIONS[name].signature.parameters
        return
    with pytest.raises(InvalidQuery, match=r"^environment: is known to raw rows only") as caught:
        await getattr(UNOPENED, name)(environment="production", **arguments)
    assert caught.value.field == "environment"
    with pytest.raises(NoConnection):
        await getattr(UNOPENED, name)(environment=None, **arguments)


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_about_a_range_takes_the_same_parameters(name: str) -> None:
    parameters = QUESTIONS[name].signature.parameters
    if name in ABOUT_WHAT_IS_KEPT:
        assert not {"start", "service"} & set(parameters)
        return
    if name in ("get_overview_stats", "get_pipeline_health", "get_session"):
        assert "start" not in parameters
        return
    for common in ("start", "end", "timezone", "service"):
        assert parameters[common].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[common].default is None
        assert type(None) in get_args(parameters[common].annotation)


@pytest.mark.parametrize(
    ("name", "arguments", "field"),
    [
        ("get_endpoint_latency", {"bucket": "minute"}, "bucket"),
        ("get_endpoint_latency", {"bucket": None}, "bucket"),
        ("get_slowest_endpoints", {"limit": 10_001}, "limit"),
        ("get_slowest_endpoints", {"min_requests": 0}, "min_requests"),
        ("get_apdex", {"threshold_ms": 0}, "threshold_ms"),
        ("get_apdex", {"threshold_ms": float("nan")}, "threshold_ms"),
        ("get_apdex", {"threshold_ms": "500"}, "threshold_ms"),
        ("get_error_group", {"fingerprint": None}, "fingerprint"),
        ("get_session_series", {"bucket": "minute"}, "bucket"),
        ("get_session_breakdown", {"by": "user_id"}, "by"),
        ("get_session_breakdown", {"limit": 1001}, "limit"),
        ("query_retention", {"period": "hour"}, "period"),
        ("query_retention", {"total_periods": 0}, "total_periods"),
        ("query_retention", {"total_periods": 101}, "total_periods"),
        ("query_retention", {"target_event": ""}, "target_event"),
        ("query_retention", {"returning_event": 5}, "returning_event"),
        ("query_stickiness", {"event_type": ["a"]}, "event_type"),
        ("query_lifecycle", {"interval": "year"}, "interval"),
        ("query_lifecycle", {"timezone": "Berlin"}, "timezone"),
        ("query_paths", {"depth": 1}, "depth"),
        ("query_paths", {"depth": 21}, "depth"),
        ("query_paths", {"limit": 101}, "limit"),
        ("query_paths", {"start_event": ""}, "start_event"),
        ("query_paths", {"end_event": 1}, "end_event"),
        ("query_sessions", {"is_bounce": 1}, "is_bounce"),
        ("query_sessions", {"cursor": "not a cursor"}, "cursor"),
        ("query_aggregations", {"aggregation_type": "monthly"}, "aggregation_type"),
        ("query_aggregations", {"event_category": "captured"}, "event_category"),
        ("get_daily_active_users", {"start": "2026-11-01"}, "start"),
        ("get_daily_active_users", {"end": datetime(2026, 11, 1)}, "end"),
        ("get_daily_active_users", {"timezone": "Berlin"}, "timezone"),
    ],
)
async def test_a_wrong_parameter_is_named(name: str, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidQuery, match=f"^{field}: ") as caught:
        await getattr(UNOPENED, name)(**arguments)
    assert caught.value.field == field


async def test_an_unknown_fingerprint_says_where_to_find_one(database: Database, reader: AnalyticsReader) -> None:
    with pytest.raises(InvalidQuery, match=r"^fingerprint: no error .*: use one that list_error_groups\(\) returns"):
        await reader.get_error_group("unknown")


async def test_a_misspelt_parameter_is_an_error_of_the_program() -> None:
    with pytest.raises(TypeError, match="start_date"):
        await UNOPENED.get_daily_active_users(start_date=date(2026, 11, 1))  # type: ignore[call-arg]
