"""Metrics over HTTP: a line that a client makes is stored unchanged; one that holds no metric is refused by field."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec
import pytest

from asgi_analytics.errors import ConfigError
from asgi_analytics.events.base import METRIC, Event
from asgi_analytics.web.ingestion.validation import Validator
from tests.kit.measurements import measured

BAD: list[tuple[str, Any]] = [
    ("name", None),
    ("name", ""),
    ("name", "n" * 256),
    ("metric_type", "summary"),
    ("count", 0),
    ("count", 2**63),
    ("sum", "1"),
    ("last", None),
    ("tags", {"tag": 1.5}),
    ("tags", {f"tag{number}": 1 for number in range(21)}),
    ("tags", {"tag": "x" * 1001}),
    ("bins", [50_000]),
    ("counts", [0]),
]


@pytest.mark.parametrize("strict_types", [False, True])
def test_metrics_are_stored_unchanged(strict_types: bool) -> None:
    random = Random(5)
    lines = [measured(random, datetime.now(UTC)).line() for _ in range(100)]
    good, places, refused = Validator(strict_types=strict_types).check(lines)
    assert (good, places, refused) == (lines, list(range(100)), [])


@pytest.mark.parametrize(("field", "value"), BAD)
def test_what_is_no_metric_is_refused_with_its_field(field: str, value: Any) -> None:
    line = measured(Random(6), datetime.now(UTC)).line()
    broken = msgspec.json.decode(line)
    broken["data"][field] = value
    good, places, refused = Validator().check([line, msgspec.json.encode(broken), line])
    assert (good, places) == ([line, line], [0, 2])
    assert [one.index for one in refused] == [1]
    assert (refused[0].field or "").startswith(f"data.{field}")


def test_no_event_can_have_the_type_of_metrics() -> None:
    with pytest.raises(ConfigError, match="which the lines of metrics have"):

        class Odd(Event, tag=METRIC):
            pass
