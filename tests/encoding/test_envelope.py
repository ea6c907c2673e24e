"""The envelope: the form that is queued, sent, and stored."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import msgspec
import pytest
from msgspec import structs

from asgi_analytics import EnrichedEvent, events
from asgi_analytics.encoding.encoder import EventEncoder
from asgi_analytics.encoding.envelope import Surroundings

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
USER = UUID("0198c1a2-0000-7000-8000-000000000002")
NOW = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)


def encoder() -> EventEncoder:
    return EventEncoder(service="shop", environment="production", hostname="h1", clock=lambda: NOW, new_id=lambda: ID)


TASK = events.TaskCreated(task_id=ID, user_id=USER, command="build")


def test_an_event_is_encoded_as_the_contract_writes_it() -> None:
    surroundings = Surroundings(session_id="s1", trace_id="t" * 32, span_id="p" * 16, request_id="r1")
    assert json.loads(encoder().encode(TASK, surroundings)) == {
        "event_id": str(ID),
        "event_type": "task_created",
        "timestamp": "2026-11-20T12:00:00.123456Z",
        "service": "shop",
        "user_id": str(USER),
        "session_id": "s1",
        "data": {"task_id": str(ID), "command": "build"},
        "context": {
            "trace_id": "t" * 32,
            "span_id": "p" * 16,
            "request_id": "r1",
            "hostname": "h1",
            "environment": "production",
        },
    }


def test_what_is_unknown_is_null() -> None:
    line = json.loads(
        EventEncoder(service="shop", environment=None, hostname=None).encode(events.CocoonConnected(cocoon_id=ID))
    )
    assert (line["user_id"], line["session_id"]) == (None, None)
    assert set(line["context"].values()) == {None}


def test_exact_and_converted_values_are_written_as_the_same_bytes() -> None:
    class Text(str):
        """Not exactly the declared type."""

    exact, converted = (
        encoder().encode(structs.replace(TASK, command=command)) for command in (TASK.command, Text(TASK.command))
    )
    assert exact == converted


def test_an_event_goes_there_and_back_again() -> None:
    line = encoder().encode(TASK)
    event = EnrichedEvent.from_json(line)
    assert json.loads(event.to_json()) == json.loads(line)
    assert EnrichedEvent.from_json(event.to_json()) == event
    assert event.timestamp == NOW


def test_a_timestamp_of_another_zone_is_read_in_utc() -> None:
    line = encoder().encode(TASK).replace(b"T12:00:00.123456Z", b"T21:00:00.123456+09:00")
    timestamp = EnrichedEvent.from_json(line).timestamp
    assert (timestamp, timestamp.utcoffset()) == (NOW, timedelta(0))


def test_an_unknown_type_is_read_with_the_data_it_has() -> None:
    line = encoder().encode(TASK).replace(b"task_created", b"task_framed")
    event = EnrichedEvent.from_json(line)
    assert event.data == {"task_id": str(ID), "command": "build"}
    with pytest.raises(KeyError):
        event.data["project_id"]


def test_an_optional_field_of_a_known_type_reads_as_none_and_a_wrong_name_does_not() -> None:
    data = EnrichedEvent.from_json(encoder().encode(TASK)).data
    assert data["project_id"] is None
    assert "project_id" not in data
    for wrong in ("projekt_id", "user_id"):
        with pytest.raises(KeyError):
            data[wrong]


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[]",
        b"no json",
        b'{"event_id":"x","event_type":"a","timestamp":"2026-11-20T12:00:00Z","service":"s","data":{}}',
        b'{"event_id":"0198c1a2-0000-7000-8000-000000000001","event_type":"a","timestamp":"2026-11-20T12:00:00",'
        b'"service":"s","data":{}}',
    ],
)
def test_what_is_no_event_cannot_be_read(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        EnrichedEvent.from_json(line)


def test_the_hostname_and_the_environment_are_in_the_context_of_a_client() -> None:
    from asgi_analytics.testing import capture_events

    with capture_events(environment="staging") as captured:
        captured.client.track(TASK)
    context = captured.events[0].context or {}
    assert (context["hostname"], context["environment"]) == (socket.gethostname(), "staging")


def test_the_timestamp_is_now_in_utc_whatever_the_clock_says_it_in() -> None:
    before = datetime.now(UTC)
    event = EnrichedEvent.from_json(EventEncoder(service="s", environment=None, hostname=None).encode(TASK))
    assert before <= event.timestamp <= datetime.now(UTC)
    east = EventEncoder(
        service="s", environment=None, hostname=None, clock=lambda: NOW.astimezone(timezone(timedelta(hours=9)))
    )
    assert b'"2026-11-20T12:00:00.123456Z"' in east.encode(TASK)
