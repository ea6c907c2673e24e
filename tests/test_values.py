"""How the text of a variable or an option is read, in one place for both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from asgi_analytics import AnalyticsClient, values
from asgi_analytics.cli import ingest

GIB = 1024**3


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (values.size, "7", 7),
        (values.size, " 2 KiB ", 2048),
        (values.size, "5mib", 5 * 1024**2),
        (values.size, "1GiB", GIB),
        (values.count, " 12 ", 12),
        (values.seconds, "0", 0.0),
        (values.seconds, "0.5", 0.5),
        (values.positive_seconds, "1e2", 100.0),
        (values.port, "0", 0),
        (values.port, "65535", 65535),
        (values.time, "2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        (values.time, "2026-11-20T12:00+01:00", datetime(2026, 11, 20, 12, tzinfo=timezone(timedelta(hours=1)))),
        (values.flag, " YES ", True),
        (values.flag, "off", False),
        (values.token, "a-long+random/one==", "a-long+random/one=="),
        (values.tokens, " a, b,,", ["a", "b"]),
    ],
)
def test_what_people_write_is_understood(read: Callable[[str], Any], text: str, value: Any) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "texts", "expected"),
    [
        (values.size, ["", "0", "-1", "5 apples", "1.5MiB", "MiB", "1TB", "9" * 5000], "a size"),
        (values.count, ["", "0", "-1", "1.0", "1_000", "x", "9" * 5000, "٣"], "a whole number from 1"),
        (values.seconds, ["", "x", "-0.1", "nan", "inf", "1e999"], "a number of seconds from 0"),
        (values.positive_seconds, ["", "x", "0", "nan", "inf"], "a number of seconds above 0"),
        (values.port, ["", "x", "-1", "65536", "80.0"], "a port, 0 to 65535"),
        (values.time, ["", "yesterday", "2026-13-01", "20:15"], "a time in ISO 8601"),
        (values.flag, ["", "maybe", "2"], "true or false"),
        (values.token, ["", "a b", "a\n", "schlüssel", None, 7], "a token of printable ASCII characters"),
        (values.tokens, ["", " , ", "a b"], "token"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_was_expected_and_not_repeated(
    read: Callable[[Any], Any], texts: list[Any], expected: str
) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=f"^expected .*{expected}|^expected {expected}") as caught:
            read(text)
        assert "5 apples" not in str(caught.value)


def test_a_size_is_the_same_in_a_variable_and_in_an_option() -> None:
    environ = {"ANALYTICS_SERVICE": "shop", "ANALYTICS_QUEUE_BYTES": "1GiB"}
    assert AnalyticsClient.from_environ(environ).settings.queue_bytes == GIB
    assert ingest.make_parser().parse_args(["--max-body", "1GiB"]).max_body == GIB
