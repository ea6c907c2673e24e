"""Whatever looks like JSON is stored or refused: nothing in between reaches a database."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_analytics import Event
from asgi_analytics.encoding.encoder import EventEncoder
from asgi_analytics.encoding.values import MAX_DEPTH
from asgi_analytics.errors import InvalidEvent
from tests.kit.databases import Database

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)  # surrogates and NUL among them
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**310),
    st.floats(),
    ANY_TEXT,
    st.binary(max_size=4),
    st.decimals(),
    st.datetimes(timezones=st.none() | st.just(UTC)),
    st.uuids(),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT | st.integers(), inner, max_size=4),
    max_leaves=20,
)


class Fuzzed(Event):
    what: Any
    text: str = ""
    measure: float = 0.0


ENCODER = EventEncoder(service="s", environment=None, hostname=None)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def naive_inside(value: Any) -> bool:
    if isinstance(value, list | dict):
        return any(map(naive_inside, value.values() if isinstance(value, dict) else value))
    return isinstance(value, datetime) and value.tzinfo is None


@given(VALUES, ANY_TEXT, st.floats())
def test_any_value_is_encoded_to_strict_json_unless_it_holds_a_naive_datetime(
    what: Any, text: str, measure: float
) -> None:
    event = Fuzzed(what=what, text=text, measure=measure)
    try:
        line = ENCODER.encode(event)
    except InvalidEvent as refused:
        assert naive_inside(what), refused.detail  # one question with two answers
        return
    assert not naive_inside(what)
    assert "\x00" not in str(json.loads(line, parse_constant=refuse))
    line.decode()  # no lone surrogate, raw or escaped
    json.dumps(json.loads(line), ensure_ascii=False).encode()


@given(st.integers(0, MAX_DEPTH + 50), st.sampled_from("[{"))
def test_nesting_is_stored_up_to_a_depth_and_refused_beyond(depth: int, kind: str) -> None:
    value: Any = None
    for _ in range(depth):
        value = [value] if kind == "[" else {"a": value}
    with contextlib.nullcontext() if depth <= MAX_DEPTH else contextlib.suppress(InvalidEvent):
        ENCODER.encode(Fuzzed(what=value))
        assert depth <= MAX_DEPTH


async def test_postgresql_takes_whatever_was_encoded(empty_database: Database) -> None:
    lines: list[bytes] = []

    @given(VALUES, ANY_TEXT, st.floats())
    @settings(max_examples=300, database=None, suppress_health_check=list(HealthCheck))
    def collect(what: Any, text: str, measure: float) -> None:
        with contextlib.suppress(InvalidEvent):
            lines.append(ENCODER.encode(Fuzzed(what=what, text=text, measure=measure)))

    collect()
    connection = await empty_database.connect()
    array = (b"[" + b",".join(lines) + b"]").decode()
    taken = await connection.fetchval(
        "SELECT count(event.data) FROM jsonb_to_recordset($1::jsonb) AS event (data jsonb)", array
    )
    assert taken == len(lines) > 100
