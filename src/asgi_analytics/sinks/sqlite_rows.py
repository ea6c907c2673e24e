"""Lines as rows of SQLite: what PostgreSQL checks and normalises is checked and normalised here."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from asgi_analytics.database.sqlite.times import to_text
from asgi_analytics.sinks.dead_letters import NOT_TEXT, Refusal, is_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EventRow = tuple[str, str, str, str, str | None, str | None, str, str | None]
"""id, timestamp, event_type, service, user_id, session_id, data, context."""

MOST_DEPTH = 200
"""Levels of JSON. SQLite's functions refuse more than 1,000, and one row that they refuse would fail every view."""

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_DATE = r"20\d\d-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
"""The 29th of February is looked at by itself."""
_TIME = rf"{_DATE}T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{{6}}Z"
_are_normal = re.compile(rf"(?:{_UUID} {_TIME} (?:{_UUID})?\n)*").fullmatch
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE = re.compile(rb"(?<!\\)(?:\\\\)*\\u[dD][89a-fA-F]")


class _Event(msgspec.Struct, gc=False):
    event_id: str
    timestamp: str
    event_type: str
    service: str
    data: Any
    user_id: str | None = None
    session_id: str | None = None
    context: Any = None


class _Loose(msgspec.Struct, gc=False):
    """The same with anything in it, to tell what is wrong."""

    event_id: Any = None
    timestamp: Any = None
    event_type: Any = None
    service: Any = None
    data: Any = None
    user_id: Any = None
    session_id: Any = None
    context: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_decode_loosely = msgspec.json.Decoder(_Loose).decode
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class Unfit(Exception):
    """A line is no row; ``refusal`` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def read_events(lines: Sequence[bytes]) -> list[EventRow] | None:
    """Return the rows of lines that are all as ``track()`` makes them; None if each has to be looked at."""
    if b"\\u" in b"".join(lines) or not all(map(_is_shallow, lines)):
        return None
    rows: list[EventRow] = []
    heads = []
    try:
        for line in lines:
            event = _decode(line.decode())
            context = event.context
            if event.data is None:
                return None
            heads.append(f"{event.event_id} {event.timestamp} {event.user_id or ''}\n")
            rows.append(
                (
                    event.event_id,
                    event.timestamp,
                    event.event_type,
                    event.service,
                    event.user_id,
                    event.session_id,
                    _encode(event.data).decode(),
                    None if context is None else _encode(context).decode(),
                )
            )
    except (ValueError, RecursionError):
        return None
    return rows if _are_normal("".join(heads)) else None


def read_event(line: bytes) -> EventRow:
    """Return the row of a line. Raises `Unfit`."""
    event = _read(line)
    event_id = _uuid(event.event_id)
    timestamp = _timestamp(event.timestamp)
    user_id = None if event.user_id is None else _uuid(event.user_id)
    if event_id is None or timestamp is None or None in (event.event_type, event.service, event.data):
        raise Unfit(Refusal.of("23502"))
    if not "2000" <= timestamp < "2100":
        raise Unfit(Refusal.of("23514", "analytics_events_timestamp_range"))
    return (
        event_id,
        timestamp,
        str(event.event_type),
        str(event.service),
        user_id,
        None if event.session_id is None else str(event.session_id),
        _encode(event.data).decode(),
        None if event.context is None else _encode(event.context).decode(),
    )


class _Metric(msgspec.Struct, gc=False):
    name: str
    metric_type: str
    count: int
    sum: float
    min: float
    max: float
    last: float
    unit: str | None = None
    tags: dict[str, Any] = {}
    bins: list[int] | None = None
    counts: list[int] | None = None


def read_metric(line: bytes) -> tuple[Any, ...]:
    """Return the row of a metric's line, in the order of the statement that stores it. Raises `Unfit`."""
    event = _read(line)
    event_id, timestamp = _uuid(event.event_id), _timestamp(event.timestamp)
    if event_id is None or timestamp is None or event.service is None or event.data is None:
        raise Unfit(Refusal.of("23502"))
    if not "2000" <= timestamp < "2100":
        raise Unfit(Refusal.of("23514", "analytics_metrics_timestamp_range"))
    try:
        data = msgspec.convert(event.data, _Metric)
    except msgspec.ValidationError:
        raise Unfit(Refusal.of("22P02")) from None
    bins, counts = data.bins or [], data.counts or []
    if (
        data.count <= 0
        or len(bins) != len(counts)
        or not all(abs(one) < 40_000 for one in bins)
        or not all(0 < one <= data.count for one in counts)
    ):
        raise Unfit(Refusal.of("23514", "analytics_metrics_histogram"))
    histogram: dict[str, int] = {}
    for one, count in zip(bins, counts, strict=True):
        histogram[str(one)] = histogram.get(str(one), 0) + count
    value = {"counter": data.sum, "gauge": data.last}.get(data.metric_type, data.sum / data.count)
    return (
        event_id,
        timestamp,
        data.name,
        data.metric_type,
        value,
        data.unit,
        str(event.service),
        _encode_sorted(data.tags).decode(),
        data.count,
        data.sum,
        data.min,
        data.max,
        data.last,
        None if data.bins is None else _encode(histogram).decode(),
    )


def hours_of(rows: Iterable[tuple[Any, ...]]) -> list[tuple[str]]:
    """Return the hours that rows lie in, each once, as rows of the tables of changes."""
    return [(f"{hour}:00:00.000000Z",) for hour in sorted({row[1][:13] for row in rows})]


def _read(line: bytes) -> _Loose:
    if not is_text(line):
        raise Unfit(Refusal.of(NOT_TEXT))
    if not _is_shallow(line) and _depth(line) > MOST_DEPTH:
        raise Unfit(Refusal.of("54001"))
    try:
        event = _decode_loosely(line)
    except RecursionError:
        raise Unfit(Refusal.of("54001")) from None
    except msgspec.ValidationError as error:
        # The only rule of a member that may be anything is that a number fits.
        raise Unfit(Refusal.of("22003" if "out of range" in str(error) else "22023")) from None
    except ValueError:
        raise Unfit(Refusal.of("22P02")) from None
    if _NUL.search(line):
        raise Unfit(Refusal.of("22P05"))
    if _SURROGATE.search(line):
        try:
            str(msgspec.to_builtins(event)).encode()
        except UnicodeEncodeError:
            raise Unfit(Refusal.of("22P02")) from None
    return event


def _is_shallow(line: bytes) -> bool:
    """Tell whether a line has too few brackets to be too deep."""
    return line.count(b"[") + line.count(b"{") <= MOST_DEPTH


def _depth(line: bytes) -> int:
    """Return how deep brackets are nested, outside of texts."""
    depth = deepest = 0
    for bracket in re.findall(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', line):
        if bracket in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif bracket in b"]}":
            depth -= 1
    return deepest


def _uuid(value: Any) -> str | None:
    if value is None:
        return None
    try:
        return str(UUID(value))
    except (ValueError, AttributeError, TypeError):
        raise Unfit(Refusal.of("22P02")) from None


def _timestamp(value: Any) -> str | None:
    """Return a time as it is stored; what is infinite or before the year 1 is a text that no range has."""
    if value is None:
        return None
    text = str(value).strip()
    if text in ("infinity", "-infinity") or text.endswith(" BC"):
        return "9999"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        is_time = re.match(r"\d{4,}-\d\d-\d\d", text)
        raise Unfit(Refusal.of("22008" if is_time else "22007")) from None
    try:
        return to_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except OverflowError:
        return "9999"
