"""The table in the documentation: what each kind of value becomes, and which kinds are refused by their name."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import numpy
import pydantic
import pytest
from asyncpg.types import Range

from asgi_analytics.errors import InvalidEvent
from asgi_analytics.testing import capture_events
from tests.encoding.test_values import ValueSaid, refusal, stored

WITH_SECONDS = timezone(timedelta(minutes=19, seconds=32))


class Order(pydantic.BaseModel):
    number: int
    placed: date
    secret: pydantic.SecretStr = pydantic.SecretStr("hunter2")
    lines: list[Order] = []


@dataclasses.dataclass
class Holder:
    what: Any


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(1900, 1, 1, 12, tzinfo=WITH_SECONDS), "1900-01-01T11:40:28Z"),
        (datetime(1930, 1, 1, 12, tzinfo=ZoneInfo("Europe/Amsterdam")), "1930-01-01T11:40:28Z"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2026-01-02T03:04:05+05:30"),
        (time(3, 4, 5), "03:04:05"),
        (time(3, 4, 5, tzinfo=WITH_SECONDS), "03:04:05+00:19:32"),
        (timedelta(seconds=90), "PT90S"),
        (Decimal("19.90"), "19.90"),
        (b"\x00\xff", "AP8="),
        (bytearray(b"\x00\xff"), "AP8="),
        (memoryview(b"\x00\xff"), "AP8="),
        (PurePosixPath("/srv/data"), "/srv/data"),
        (ip_address("192.0.2.1"), "192.0.2.1"),
        (ip_address("2001:db8::1"), "2001:db8::1"),
        (ip_network("192.0.2.0/24"), "192.0.2.0/24"),
        (ip_interface("192.0.2.1/24"), "192.0.2.1/24"),
        ({1, 2}, [1, 2]),
        (MappingProxyType({"a": date(2026, 1, 2)}), {"a": "2026-01-02"}),
        (
            Order(number=1, placed=date(2026, 1, 2)),
            {"number": 1, "placed": "2026-01-02", "secret": "*" * 10, "lines": []},
        ),
        (numpy.int64(7), 7),
        (numpy.uint8(7), 7),
        (numpy.float64(1.5), 1.5),
        (numpy.float32(1.5), 1.5),
        (numpy.float32("nan"), None),
        (numpy.bool_(True), True),
        (numpy.str_("a"), "a"),
        (numpy.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_stored_as_its_obvious_json_wherever_it_stands(value: Any, expected: Any) -> None:
    found = stored(value)
    assert found == expected
    assert type(found) is type(expected)
    assert stored([value]) == [expected]
    assert stored({"a": (value,)}) == {"a": [expected]}
    assert stored(Holder(value)) == {"what": expected}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (range(3), "range"),
        ((n for n in range(3)), "generator"),
        (1j, "complex"),
        (Fraction(1, 3), "fractions.Fraction"),
        (Range(date(2026, 1, 1), date(2026, 2, 1)), "asyncpg.types.Range"),
        (ZoneInfo("UTC"), "zoneinfo.ZoneInfo"),
        (object(), "object"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_classes_are_refused_by_their_name_with_what_to_give(value: Any, name: str) -> None:
    for what in (value, [value], Holder(value)):
        said = refusal(ValueSaid(what=what))
        assert f"what holds a {name}, " in said
        assert "give its text, number, list or dict" in said


def test_a_naive_datetime_of_numpy_is_refused_as_any_other() -> None:
    assert "naive datetime" in refusal(ValueSaid(what=numpy.datetime64("2026-01-02T03:04:05")))


def test_what_is_too_large_is_refused_before_it_is_converted() -> None:
    endless = Order(number=1, placed=date(2026, 1, 2))
    endless.lines = [endless] * 2
    for value in (numpy.zeros(1_000_000), [numpy.zeros(1_000_000)]):
        with capture_events(strict=True) as captured, pytest.raises(InvalidEvent) as refused:
            captured.client.track(ValueSaid(what=value))
        assert refused.value.reason == "oversize"
    with capture_events(strict=True) as captured, pytest.raises(InvalidEvent):
        captured.client.track(ValueSaid(what=endless))


def test_an_aware_moment_is_the_same_moment_whatever_its_offset() -> None:
    for offset in (WITH_SECONDS, timezone(-timedelta(hours=4, seconds=1)), timezone(timedelta(microseconds=1)), UTC):
        moment = datetime(1900, 1, 1, 12, tzinfo=offset)
        assert datetime.fromisoformat(stored(moment)) == moment
