"""Limits come before work: what is refused is not read, unpacked or parsed any further."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from starlette.types import Message, Scope

from asgi_analytics.errors import ConfigError
from asgi_analytics.sinks.memory import MemorySink
from asgi_analytics.web.ingestion import create_ingestion_app
from tests.web.ingestion.service import TellingSink, client, event

MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}


async def post(app: Any, content: Any, **headers: str) -> httpx2.Response:
    async with client(app) as http:
        return await http.post("/events/batch", content=content, headers=JSON | headers)


def bomb(size: int) -> Iterable[bytes]:
    """Yield gzip that unpacks to an array of spaces, a piece at a time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    piece = b" " * 1024 * 1024
    yield packer.compress(b"[")
    for _ in range(size // len(piece)):
        if packed := packer.compress(piece):
            yield packed
    yield packer.compress(b"]") + packer.flush()


async def call(app: Any, chunks: Iterable[Message], **headers: str) -> tuple[list[Message], int]:
    """Call the application as a server does; return what it sent, and how many messages it received."""
    sent: list[Message] = []
    received = 0
    messages = iter(chunks)

    async def receive() -> Message:
        nonlocal received
        received += 1
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http", "method": "POST", "path": "/events/batch", "raw_path": b"/events/batch", "query_string": b"",
        "root_path": "", "scheme": "http", "http_version": "1.1", "server": ("service", 80), "client": ("10.0.0.1", 5),
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in (JSON | headers).items()],
    }  # fmt: skip
    await app(scope, receive, send)
    return sent, received


async def test_a_length_over_the_limit_is_413_before_anything_is_read() -> None:
    app = create_ingestion_app(sink=TellingSink(), max_body_bytes=100)
    sent, received = await call(app, [], **{"Content-Length": "101"})
    assert (sent[0]["status"], received) == (413, 0)


async def test_a_body_that_grows_over_the_limit_is_413_and_not_read_to_its_end() -> None:
    app = create_ingestion_app(sink=TellingSink(), max_body_bytes=100)
    messages = [{"type": "http.request", "body": b" " * 40, "more_body": True}] * 100
    sent, received = await call(app, messages)
    assert (sent[0]["status"], received) == (413, 3)


@pytest.mark.parametrize("size", [99, 100])
async def test_the_limit_itself_is_allowed(size: int) -> None:
    app = create_ingestion_app(sink=TellingSink(), max_body_bytes=100)
    body = b"[" + b" " * (size - 2) + b"]"
    assert (await post(app, body)).status_code == 200
    assert (await post(app, body + b" " * (101 - size))).status_code == 413
    packed = gzip.compress(body + b" " * (101 - size))
    assert len(packed) < 100
    assert (await post(app, packed, **{"Content-Encoding": "gzip"})).status_code == 413


@pytest.mark.parametrize("limit", [5, 16])
async def test_ten_mebibytes_that_unpack_to_ten_gibibytes_are_413_at_the_limit(limit: int) -> None:
    app = create_ingestion_app(sink=TellingSink(), max_body_bytes=limit * MIB)
    body = b"".join(bomb(64 * MIB)) * 161  # the members of a gzip may follow each other
    assert 10 * MIB < len(body) < 11 * MIB
    tracemalloc.start()
    sent, received = await call(
        app, [{"type": "http.request", "body": body, "more_body": False}], **{"Content-Encoding": "gzip"}
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (sent[0]["status"], received) == (413, 1)
    assert peak < 3 * limit * MIB


async def test_a_bomb_that_is_streamed_is_not_read_on() -> None:
    app = create_ingestion_app(sink=TellingSink(), max_body_bytes=64 * 1024)
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in bomb(256 * 1024 * 1024)]
    sent, received = await call(app, messages, **{"Content-Encoding": "gzip"})
    assert sent[0]["status"] == 413
    assert received <= 3 < len(messages)


EMPTY = gzip.compress(b"[]", mtime=0)


@pytest.mark.parametrize(
    "body",
    [b"no gzip at all", EMPTY[:-1], EMPTY + b"garbage", b"", EMPTY[:-8]
     + b"\0" * 8, b"\x1f\x8b", zlib.compress(b"[]")],
)  # fmt: skip
async def test_broken_compression_is_400(body: bytes) -> None:
    answer = await post(create_ingestion_app(sink=TellingSink()), body, **{"Content-Encoding": "gzip"})
    assert answer.status_code == 400


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"nul", b"\xff\xfe[]", b"[1,]"])
async def test_what_is_no_array_is_400(body: bytes) -> None:
    assert (await post(create_ingestion_app(sink=TellingSink()), body)).status_code == 400


async def test_more_events_than_allowed_are_413() -> None:
    app = create_ingestion_app(sink=TellingSink(), max_events=3)
    assert (await post(app, json.dumps([event() for _ in range(3)]).encode())).json()["received"] == 3
    assert (await post(app, json.dumps([event() for _ in range(4)]).encode())).status_code == 413
    assert (await post(app, b"[" + b"1," * 100_000 + b"1]")).status_code == 413


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": ""},
     {"Content-Type": "application/jsonx"}, {"Content-Type": "application/json; charset=utf-16"},
     {"Content-Encoding": "br"}, {"Content-Encoding": "deflate"}, {"Content-Encoding": "gzip, gzip"}],
)  # fmt: skip
async def test_another_type_or_encoding_is_415_before_anything_is_read(headers: dict[str, str]) -> None:
    sent, received = await call(create_ingestion_app(sink=TellingSink()), [], **headers)
    assert (sent[0]["status"], received) == (415, 0)


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "Application/JSON; Charset=UTF-8"}, {"Content-Type": "application/vnd.shop+json"},
     {"Content-Type": 'application/json;charset="utf-8"'}, {"Content-Encoding": "identity"}, {"Content-Encoding": ""}],
)  # fmt: skip
async def test_json_by_other_names_is_taken(headers: dict[str, str]) -> None:
    assert (await post(create_ingestion_app(sink=TellingSink()), b"[]", **headers)).status_code == 200


async def test_without_a_type_it_is_json_but_not_from_a_browser() -> None:
    async with client(create_ingestion_app(sink=TellingSink())) as http:
        assert (await http.post("/events/batch", content=b"[]")).status_code == 200
        for header in ({"Origin": "http://page.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await http.post("/events/batch", content=b"[]", headers=header)).status_code == 415


async def test_a_body_that_takes_too_long_is_408() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    app = create_ingestion_app(sink=TellingSink(), body_timeout=0.1)
    transport_answer = asyncio.create_task(_stream(app, slowly()))
    answer = await asyncio.wait_for(transport_answer, 20)
    assert answer.status_code == 408
    assert answer.headers["connection"] == "close"


async def _stream(app: Any, chunks: AsyncIterator[bytes]) -> httpx2.Response:
    messages: asyncio.Queue[Message] = asyncio.Queue()
    sent: list[Message] = []

    async def feed() -> None:
        async for chunk in chunks:
            await messages.put({"type": "http.request", "body": chunk, "more_body": True})

    async def send(message: Message) -> None:
        sent.append(message)

    feeder = asyncio.create_task(feed())
    scope: Scope = {
        "type": "http", "method": "POST", "path": "/events/batch", "query_string": b"", "root_path": "",
        "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip
    await app(scope, messages.get, send)
    feeder.cancel()
    return httpx2.Response(sent[0]["status"], headers=sent[0]["headers"])


async def test_all_requests_together_hold_no_more_than_the_room_there_is() -> None:
    app = create_ingestion_app(sink=TellingSink(), max_body_bytes=100, max_waiting_bytes=250)
    going_on = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b" " * 90
        await going_on.wait()
        yield b"[]"

    async def held(chunks: AsyncIterator[bytes]) -> int:
        iterator = aiter(chunks)

        async def receive() -> Message:
            body = await anext(iterator, None)
            return {"type": "http.request", "body": body or b"", "more_body": body is not None}

        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope: Scope = {
            "type": "http", "method": "POST", "path": "/events/batch", "query_string": b"", "root_path": "",
            "headers": [(b"content-type", b"application/json")],
        }  # fmt: skip
        await app(scope, receive, send)
        return int(sent[0]["status"])

    two = [asyncio.create_task(held(slowly())) for _ in range(2)]
    await asyncio.sleep(0.01)
    answer = await post(app, b"[" + b" " * 90 + b"]")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    going_on.set()
    assert await asyncio.gather(*two) == [200, 200]
    assert (await post(app, b"[" + b" " * 90 + b"]")).status_code == 200


async def test_a_client_that_leaves_is_told_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sink = TellingSink()
    await call(create_ingestion_app(sink=sink), [
        {"type": "http.request", "body": b"[", "more_body": True}, {"type": "http.disconnect"},
    ])  # fmt: skip
    assert sink.writes == []
    assert "499" in caplog.text


# -- tokens


@pytest.mark.parametrize(
    ("authorization", "status"),
    [(None, 401), ("", 401), ("Bearer", 401), ("Bearer ", 401), ("Bearer new", 200), ("bearer  old", 200),
     ("Bearer wrong", 401), ("Basic bmV3", 401), ("Bearer new ", 200), ("Bearer ne", 401), ("Bearer neww", 401),
     ("Bearer \xfc", 401), ("new", 401)],
)  # fmt: skip
async def test_a_token_is_demanded(authorization: str | None, status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = create_ingestion_app(sink=TellingSink(), tokens=["old", "new"], max_body_bytes=5)
    headers = {} if authorization is None else {"Authorization": authorization}
    body = [{"type": "http.request", "body": b"[]", "more_body": False}]
    sent, received = await call(app, body, **headers)
    assert (sent[0]["status"], received) == (status, 1 if status == 200 else 0)
    challenge = dict(sent[0]["headers"]).get(b"www-authenticate", b"")
    assert challenge.startswith(b"Bearer") is (status == 401)
    assert (b"invalid_token" in challenge) is (
        status == 401 and (authorization or "").lower().startswith("bearer ")
    ) or (authorization or "").strip().lower() == "bearer"
    assert not any(word in caplog.text for word in ("old", "new", "wrong", "bmV3"))


async def test_a_wrong_token_is_told_before_a_wrong_type() -> None:
    app = create_ingestion_app(sink=TellingSink(), tokens=["t"])
    sent, _ = await call(app, [], **{"Content-Type": "text/plain", "Content-Length": "99999999999"})
    assert sent[0]["status"] == 401


async def test_probes_and_the_description_need_no_token() -> None:
    async with client(create_ingestion_app(sink=TellingSink(), tokens=["t"])) as http:
        for path in ("/health", "/ready", "/openapi.json"):
            assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize("tokens", ["secret", [""], ["a b"], ["ü"], [5], ["a\n"], None])
def test_a_token_that_no_header_can_hold_is_a_mistake(tokens: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        create_ingestion_app(sink=TellingSink(), tokens=tokens)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "settings",
    [{}, {"sink": MemorySink(), "database_url": "postgresql://x/y"}, {"sink": MemorySink(), "max_events": 0},
     {"sink": MemorySink(), "max_body_bytes": -1}, {"sink": MemorySink(), "body_timeout": float("inf")},
     {"sink": MemorySink(), "body_timeout": "5"}, {"database_url": "mysql://x/y"},
     {"sink": MemorySink(), "retention": 90}, {"sink": MemorySink(), "retention": timedelta()},
     {"sink": 5}, {"pool": 5}],
)  # fmt: skip
def test_a_wrong_setting_is_told_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        create_ingestion_app(**settings)


async def test_the_access_log_holds_figures_and_nothing_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    one = event(service="payload-service")
    async with client(create_ingestion_app(sink=TellingSink(), tokens=["t0ken"])) as http:
        await http.post("/events/batch?q=secret-query", json=[one, one, 5], headers={"Authorization": "Bearer t0ken"})
        await http.get("/secret-path")
        await http.get("/health")
    lines = [r.getMessage() for r in caplog.records if r.name == "asgi_analytics.access"]
    assert len(lines) == 2
    assert lines[0].startswith("POST /events/batch 200 client=127.0.0.1 bytes=")
    assert "events=3 stored=1 duplicates=1 rejected=1 duration_ms=" in lines[0]
    assert lines[1].startswith("GET - 404 ")
    assert not any(word in "".join(lines) for word in ("payload", "secret", "t0ken", one["event_id"]))


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/events/batch", 405), ("POST", "/events/batch/", 404), ("GET", "/", 404)]
)
async def test_another_path_or_method_is_told_where_batches_go(method: str, path: str, status: int) -> None:
    async with client(create_ingestion_app(sink=TellingSink())) as http:
        answer = await http.request(method, path)
    assert answer.status_code == status
    assert "POST /events/batch" in answer.json()["detail"]
    assert "location" not in answer.headers
