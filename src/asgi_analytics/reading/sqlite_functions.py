"""Functions of PostgreSQL that questions need on SQLite, made known to each connection of a reader.

Views of the database never use them, for the ``sqlite3`` shell reads these, too.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from asgi_analytics.database.sqlite.times import to_text
from asgi_analytics.reading.ranges import EPOCH, MICROSECOND

ZERO = -1000
"""The bin of a duration of zero."""


def register(connection: sqlite3.Connection) -> None:
    """Make the functions known to a connection."""
    for name, arguments, function in (
        ("analytics_text", -1, json_text),
        ("analytics_number", -1, json_number),
        ("analytics_is_any", -1, is_any),
        ("analytics_microseconds", 1, microseconds),
        ("analytics_time", 1, time_of),
        ("analytics_session_id", 2, session_id),
        ("analytics_latency_bin", 1, latency_bin),
        ("analytics_has_tags", 2, has_tags),
        ("analytics_only_tags", 2, only_tags),
    ):
        connection.create_function(name, arguments, function, deterministic=True)
    connection.create_function("analytics_uuid", 0, lambda: str(uuid4()))
    connection.create_aggregate("analytics_quantile", 2, Quantile)  # type: ignore[arg-type]
    connection.create_aggregate("analytics_quantiles", 2, Quantiles)  # type: ignore[arg-type]
    connection.create_aggregate("analytics_quantiles_of_bins", 3, QuantilesOfBins)  # type: ignore[arg-type]
    connection.create_aggregate(
        "analytics_quantiles_of_histograms",
        4,
        QuantilesOfHistograms,  # type: ignore[arg-type]
    )


def json_text(document: str | None, *path: str) -> str | None:
    """Return the text of what lies below the names of a path in a JSON document, as ``#>>`` does; None for nothing.

    A name that is an integer is a place in an array, from the end if it is negative.
    """
    value = _found(document, path)
    return value if value is None or isinstance(value, str) else _shown(value)


def json_number(document: str | None, *path: str) -> float | None:
    """Return the number that lies below a path, None if it is none, or beyond 1e300."""
    value = _found(document, path)
    if not isinstance(value, Decimal) or abs(value) > 1e300:
        return None
    return float(value) if abs(value) >= 1e-300 else 0.0


def is_any(known: str, document: str | None, *path: str) -> bool | None:
    """Return whether what lies below a path is one of a JSON array of numbers and booleans; None for nothing."""
    value = _found(document, path)
    return None if value is None else any(_is_same(value, one) for one in _read(known))


def _is_same(value: Any, other: Any) -> bool:
    return isinstance(value, bool) is isinstance(other, bool) and bool(value == other)


def _read(document: str) -> Any:
    return json.loads(document, parse_float=Decimal, parse_int=Decimal)


def _found(document: str | None, path: Sequence[str]) -> Any:
    value = None if document is None else _read(document)
    for name in path:
        value = _below(value, name)
    return value


def _below(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, list):
        try:
            return value[int(name)]
        except (ValueError, IndexError):
            return None
    return None


def _shown(value: Any) -> str:
    """Return the text that jsonb has for a value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value:f}" if value or value.as_tuple().exponent != 0 else "0"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown_within, value))}]"
    # Shorter names first, as jsonb keeps them.
    names = sorted(value, key=lambda name: (len(name.encode()), name.encode()))
    return (
        "{" + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {_shown_within(value[name])}" for name in names) + "}"
    )


def _shown_within(value: Any) -> str:
    if value is None:
        return "null"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _shown(value)


def microseconds(time: str | None) -> int | None:
    """Return how long after the beginning of 2000 a time is."""
    return None if time is None else (datetime.fromisoformat(time) - EPOCH) // MICROSECOND


def time_of(number: int | None) -> str | None:
    """Return the time that is so many microseconds after the beginning of 2000."""
    return None if number is None else to_text(EPOCH + timedelta(microseconds=number))


def session_id(key: str, started_at: str) -> str:
    """Return the id of a session that the application gave none, made of its visitor and its start."""
    text = f"{key} {_seconds(datetime.fromisoformat(started_at))}"
    return str(UUID(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()))


def _seconds(at: datetime) -> str:
    """Return the time of Unix as PostgreSQL writes it."""
    whole, rest = divmod((at - datetime.fromisoformat("1970-01-01T00:00:00Z")) // MICROSECOND, 1_000_000)
    return f"{whole}.{rest:06d}"


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return what percentile_cont() does of numbers in their order: between those at two ranks."""
    return _between(ordered.__getitem__, q * (len(ordered) - 1))


def _between(at: Callable[[int], float], rank: float) -> float:
    low = at(math.floor(rank))
    return low + (at(math.ceil(rank)) - low) * (rank - math.floor(rank))


class Quantile:
    """An aggregate: one quantile of numbers, null without any."""

    def __init__(self) -> None:
        self.numbers: list[float] = []
        self.asked: Any = None

    def step(self, number: float | None, asked: Any) -> None:
        """Take a number; null is none."""
        if number is not None:
            self.numbers.append(number)
            self.asked = asked

    def finalize(self) -> float | str | None:
        """Return the quantile."""
        return quantile(sorted(self.numbers), self.asked) if self.numbers else None


class Quantiles(Quantile):
    """The same of several quantiles, which are asked for and returned as a JSON array."""

    def finalize(self) -> float | str | None:
        """Return the quantiles."""
        if not self.numbers:
            return None
        ordered = sorted(self.numbers)
        return json.dumps([quantile(ordered, q) for q in json.loads(self.asked)])


def latency_bin(duration_ms: float | None) -> int | None:
    """Return the bin of a duration: -1000 for zero, else i for those in (1.04 ^ (i - 1), 1.04 ^ i]."""
    if duration_ms is None:
        return None
    return math.ceil(math.log(duration_ms) / math.log(1.04)) if duration_ms > 0 else ZERO


def latency_of_bin(number: int) -> float:
    """Return the duration that stands for a bin, as far, relatively, from one end as from the other: 1.96 %."""
    return 0.0 if number == ZERO else 2 * 1.04**number / 2.04


class QuantilesOfBins:
    """An aggregate: several quantiles of durations of which only the bins are known, within 2 %, as a JSON array."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.asked = "[]"

    def step(self, number: int | None, count: int, asked: str) -> None:
        """Take so many durations of a bin."""
        if number is not None and count > 0:
            self.counts[number] = self.counts.get(number, 0) + count
            self.asked = asked

    def finalize(self) -> str | None:
        """Return the quantiles."""
        return json.dumps(_of_bins(self.counts, latency_of_bin, self.asked)) if self.counts else None


def _of_bins(counts: dict[int, int], value_of: Callable[[int], float], asked: str) -> list[float]:
    """Return quantiles: as percentile_cont does, between the values at two ranks."""
    bins = sorted(counts)
    below = list(itertools.accumulate(counts[one] for one in bins))

    def at(rank: int) -> float:
        return value_of(bins[bisect_right(below, rank)])

    return [_between(at, q * (below[-1] - 1)) for q in json.loads(asked)]


def metric_of_bin(number: int) -> float:
    """Return the value that stands for a bin of the histogram of a metric, within 1.96 %."""
    if number == 0:
        return 0.0
    return math.copysign(2 * 1.04 ** min(max(abs(number) - 20_000, -17_600), 17_700) / 2.04, number)


class QuantilesOfHistograms:
    """An aggregate: several quantiles of the values of metrics, within 2 %, as a JSON array; null for counters.

    It takes histograms, ``{"bin": number of values}``, each with the least and the greatest of its values.
    """

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.least, self.greatest = math.inf, -math.inf
        self.asked = "[]"

    def step(self, histogram: str | None, least: float, greatest: float, asked: str) -> None:
        """Take a histogram."""
        self.least, self.greatest, self.asked = min(self.least, least), max(self.greatest, greatest), asked
        if histogram is not None:
            for number, count in json.loads(histogram).items():
                self.counts[int(number)] = self.counts.get(int(number), 0) + count

    def finalize(self) -> str | None:
        """Return the quantiles."""
        if not self.counts:
            return None
        found = _of_bins(self.counts, metric_of_bin, self.asked)
        return json.dumps([max(self.least, min(self.greatest, one)) for one in found])


def has_tags(tags: str, wanted: str) -> bool:
    """Return whether a JSON object has what another one has."""
    found = _read(tags)
    return all(name in found and _is_same(found[name], value) for name, value in _read(wanted).items())


def only_tags(tags: str, names: str) -> str:
    """Return a JSON object with some of its names only."""
    found = json.loads(tags)
    kept = {name: found[name] for name in sorted(json.loads(names)) if name in found}
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
