"""The ingestion decoder against any body: split into elements, checked one by one, unpacked within its limit."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from starlette.datastructures import Headers
from starlette.requests import Request

from asgi_analytics.encoding.text import clean_text
from asgi_analytics.encoding.values import MAX_DEPTH
from asgi_analytics.events.base import event_types
from asgi_analytics.web.ingestion.body import ByteBudget, Limits
from asgi_analytics.web.ingestion.elements import NotAnArray, TooManyElements, depth_exceeds, split
from asgi_analytics.web.ingestion.validation import Validator
from asgi_analytics.web.problem import Problem

MOST = 50
MAX_BYTES = 4_096
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
VALIDATORS = [Validator(clock=lambda: NOW, strict_types=strict) for strict in (False, True)]
DETAILS = {
    (400, "the body is not gzip, or the gzip is broken"),
    (400, "the gzip ends early"),
    (413, f"the body has more than {MAX_BYTES} bytes (uncompressed): send smaller batches"),
    (415, "send the body uncompressed or with Content-Encoding: gzip"),
    (415, "send Content-Type: application/json"),
    (415, "send Content-Type: application/json, in UTF-8"),
    (503, "too many batches are waiting here: send it again later"),
}
REASON = re.compile(
    r"not (an object|UTF-8|JSON|a UUID|a timestamp)|nested deeper than 100 levels|missing|empty|no time zone"
    r"|number out of range|invalid (value|enum value)|more than 24 h ahead|older than 90 days|unknown event type"
    r"|expected [a-z0-9 -]+, got [a-z0-9 -]+"
)
FIELD = re.compile(r"[a-z_0-9]+(\.([a-z_0-9]+|\[\.\.\.\])|\[(\.\.\.|\d+)\])*")
_LOOP: list[asyncio.AbstractEventLoop] = []


def check(data: bytes) -> None:
    """Fail where the decoder breaks a promise."""
    if data[:1] == b"\x01":
        unpack(data[1:])
    elif data[:1] == b"\x02":
        elements(b"[" + data[1:] + b"]")
    else:
        elements(data)


def elements(body: bytes) -> None:
    """Split a body, and judge its elements: each index has one answer, and what is good can be stored."""
    expected = plain(body)
    try:
        lines = split(body, MOST)
    except NotAnArray as error:
        assert expected is None, body
        assert str(error).isascii(), body
        assert str(error).isprintable(), body
        return
    except TooManyElements:
        assert expected is None or len(expected) > MOST, body
        return
    assert len(lines) <= MOST
    if expected is not None:
        assert [None if line is None else json.loads(line) for line in lines] == expected, body
    for line in lines:
        assert line is None or depth_exceeds(line, MAX_DEPTH) == deeper(line, MAX_DEPTH), line
    for validator in VALIDATORS:
        good, places, refused = validator.check(lines)
        assert sorted([*places, *(one.index for one in refused)]) == list(range(len(lines))), body
        assert places == sorted(places)
        assert len(good) == len(places)
        for stored in good:
            storable(stored, strict=validator.strict_types)
        for one in refused:
            assert REASON.fullmatch(one.reason), one.reason
            assert one.field is None or FIELD.fullmatch(one.field), one.field
        assert validator.check(good)[0] == good, body  # what it mended it takes as it is


def plain(body: bytes) -> list[Any] | None:
    """Return what another parser reads, None where it is no array, or nested too deeply for that parser."""
    try:
        found = json.loads(body.removeprefix(b"\xef\xbb\xbf").decode(), parse_constant=refuse)
        return cast("list[Any]", cleaned(found)) if isinstance(found, list) else None
    except (ValueError, RecursionError):
        return None


def refuse(name: str) -> None:
    """Refuse NaN and the infinities, which are no JSON."""
    raise ValueError(name)


def cleaned(value: Any) -> Any:
    """Return a value without NUL and lone surrogates."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, dict):
        return {cleaned(key): cleaned(item) for key, item in value.items()}
    return value


def deeper(line: bytes, most: int) -> bool:
    """Tell by the slow way whether brackets outside strings are nested deeper."""
    depth = worst = 0
    in_string = escaped = False
    for byte in line:
        if in_string:
            in_string = escaped or byte != 34
            escaped = not escaped and byte == 92
        elif byte == 34:
            in_string = True
        elif byte in b"[{":
            depth += 1
            worst = max(worst, depth)
        elif byte in b"]}":
            depth -= 1
    return worst > most


def storable(line: bytes, *, strict: bool) -> None:
    """Fail unless the database would take the columns of an event."""
    event = json.loads(line.decode(), parse_constant=refuse)
    assert isinstance(event, dict)
    assert json.loads(json.dumps(event)) == cleaned(event) == event
    assert "\\ud8" not in json.dumps(event) or json.dumps(event).encode()
    for text in texts(event):
        assert "\0" not in text
        text.encode()
    UUID(event["event_id"])
    moment = datetime.fromisoformat(event["timestamp"].upper())
    assert NOW - timedelta(days=90, seconds=1) <= moment <= NOW + timedelta(hours=24, seconds=1)
    for name in ("event_type", "service"):
        assert event[name].strip()
    assert isinstance(event["data"], dict)
    assert event.get("context") is None or isinstance(event["context"], dict)
    assert event.get("session_id") is None or isinstance(event["session_id"], str)
    assert event.get("user_id") is None or UUID(event["user_id"])
    if strict:
        assert event["event_type"] in event_types()
    if event["event_type"] in event_types() and "user_id" in {*event_types()[event["event_type"]].__struct_fields__}:
        assert "user_id" not in event["data"]


def texts(value: Any) -> list[str]:
    """Return every key and string of a value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in texts(item))]
    return [text for item in value for text in texts(item)] if isinstance(value, list) else []


def unpack(data: bytes) -> None:
    """Read a request's body: its headers from the first line, its pieces divided by 0x00 0x01, perhaps compressed."""
    head, _, rest = data.partition(b"\n")
    names = (b"content-type", b"content-encoding", b"content-length", b"origin")
    headers = [(name, value) for name, value in zip(names, head.split(b"\x1f"), strict=False) if value]
    pieces = rest.split(b"\x00\x01")
    if head.endswith(b"z"):
        packer = zlib.compressobj(wbits=31)
        pieces = [*map(packer.compress, pieces), packer.flush()]
    budget = ByteBudget(MAX_BYTES * 2)
    try:
        body, is_gzip = loop().run_until_complete(read(headers, pieces, budget))
    except Problem as problem:
        assert (problem.status, problem.detail) in DETAILS, problem.detail
    else:
        assert len(body) <= MAX_BYTES
        if not is_gzip:
            assert body == b"".join(pieces)
        elif head.endswith(b"z"):
            assert body == rest.replace(b"\x00\x01", b"")
    assert budget.used == 0


async def read(headers: list[tuple[bytes, bytes]], pieces: list[bytes], budget: ByteBudget) -> tuple[bytes, bool]:
    """Take a body as the endpoint does."""
    limits = Limits(max_bytes=MAX_BYTES, timeout=5)
    is_gzip = limits.check(Headers(raw=headers))
    with budget.share() as share:
        return await limits.read(cast("Request", _Request(pieces)), share, is_gzip=is_gzip), is_gzip


class _Request:
    """Brings the pieces of a body."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    async def stream(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


def loop() -> asyncio.AbstractEventLoop:
    """Return one loop for all runs."""
    if not _LOOP:
        _LOOP.append(asyncio.new_event_loop())
    return _LOOP[0]


EVENT = (
    b'{"event_id":"01990f3a-5d5c-7cc1-b2ab-2b5a4d3c6f10","event_type":"task_created",'
    b'"timestamp":"2026-11-20T12:00:00.123456Z","service":"shop","user_id":"u-17","session_id":null,'
    b'"data":{"task_id":"2b1f8f7c-6d1e-4a53-9f57-0b6f6a1d8e21","command":"build \\u0000 \\ud800"},'
    b'"context":{"trace_id":"\\\\u0000","n":1e400}}'
)
SEEDS = [
    b"[]",
    b"[" + EVENT + b"]",
    b"\xef\xbb\xbf [ " + EVENT.replace(b"task_created", b"TaskCreated") + b" ,\n" + EVENT + b',3,null,"x",{}]',
    b"[" + EVENT.replace(b"task_created", b"order_placed").replace(b'"u-17"', b"17") + b"]",
    b"\x02" + EVENT.replace(b'"user_id":"u-17",', b"").replace(b'"command"', b'"user_id":"u-1","command"'),
    b"\x02" + EVENT.replace(b"build", b"\xed\xa0\x80 \xff"),
    b"\x02" + EVENT.replace(b'"n":1e400', b'"n":' + b"[" * 120 + b"]" * 120),
    b"[" + b"[" * 3000 + b"]" * 3000 + b"]",
    b"\x01application/json\x1fgzip\x1f\x1fz\n[]\x00\x01[1]",
    b"\x01application/json; charset=utf-8\x1f\x1f7\n[1]\x00\x01[2]",
    b"\x01application/json\x1fgzip\n" + zlib.compress(b"[" + b" " * 100_000 + b"]", wbits=31),
    b"\x01application/json\x1fgzip\n" + zlib.compress(b"[]", wbits=31) + b"\0\0" + zlib.compress(b" ", wbits=31),
]
WORDS = [
    *(f'"{name}"'.encode() for name in ("event_id", "event_type", "timestamp", "service", "user_id", "session_id")),
    *(b'"data"', b'"context"', b'"user_key"', b"null", b"true", b"1e400", b"NaN", b"\\u0000", b"\\ud800", b"\\udc00"),
    *(
        b"\\\\",
        b'\\"',
        b"\xed\xa0\x80",
        b"\xef\xbf\xbd",
        b"\xef\xbb\xbf",
        b"[[[[",
        b"{}",
        b"\x00\x01",
        b"gzip",
        b"\x1f",
    ),
    *(tag.encode() for tag in event_types()),
    *(b'"task_id"', b'"duration_ms"', b'"exit_code"', b'"success"', b'"email"', b'"status_code"', b'"method"'),
]
