"""The sink that sends to an ingestion service: each answer settles, waits or is told, and nothing is lost."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, Sink, errors, events
from asgi_analytics.errors import ConfigError, OperatorError, TransientError
from asgi_analytics.sinks import http as http_sink
from asgi_analytics.sinks import sink_from_url
from asgi_analytics.sinks.http import HttpSink
from tests.kit.scripts import SOURCE

Answer = Callable[[list[Any], httpx2.Request], Any]


class Service:
    """Answers as it is told, and keeps what it was sent."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[httpx2.Request] = []
        self.batches: list[list[Any]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        content = request.content
        if request.headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        self.requests.append(request)
        self.batches.append(json.loads(content))
        response: httpx2.Response = self.answer(self.batches[-1], request)
        return response

    def sink(self, url: str = "http://ingestion:8094", token: str | None = None) -> HttpSink:
        return HttpSink(url, token=token, make_client=lambda: httpx2.AsyncClient(transport=httpx2.MockTransport(self)))


def stored(batch: list[Any], request: httpx2.Request) -> Any:
    return result(len(batch))


def result(received: int, duplicates: int = 0, *rejected: tuple[int, str, str | None], status: int = 200) -> Any:
    refusals = [{"index": index, "reason": reason, "field": field} for index, reason, field in rejected]
    return httpx2.Response(status, json={"received": received, "duplicates": duplicates, "rejected": refusals})


def problem(status: int, **headers: str) -> httpx2.Response:
    content = {"title": "…", "status": status, "detail": "…"}
    return httpx2.Response(status, json=content, headers={"content-type": "application/problem+json", **headers})


def lines(number: int, size: int = 10) -> list[bytes]:
    return [b'{"n":%d,"x":"%s"}' % (i, b"x" * size) for i in range(number)]


async def test_a_batch_is_sent_as_it_is_in_gzip_with_the_token() -> None:
    service = Service(stored)
    sink = service.sink("https://ingestion/prefix/", "t0ken")
    assert (await sink.write(lines(200))).rejected == []
    [request] = service.requests
    assert str(request.url) == "https://ingestion/prefix/events/batch"
    assert request.headers["authorization"] == "Bearer t0ken"
    assert request.headers["content-type"] == "application/json"
    assert gzip.decompress(request.content) == b"[" + b",".join(lines(200)) + b"]"
    await sink.write(lines(1))
    assert "content-encoding" not in service.requests[1].headers
    assert isinstance(sink, Sink)
    await sink.aclose()
    await sink.aclose()


async def test_nothing_is_sent_for_nothing() -> None:
    service = Service(stored)
    assert (await service.sink().write([])).duplicates == 0
    assert service.requests == []


async def test_an_answer_settles_each_event() -> None:
    sink = Service(lambda batch, _: result(8, 3, (4, "missing", "data.task_id"), (9, "no time zone", None))).sink()
    receipt = await sink.write(lines(10))
    assert receipt.duplicates == 3
    assert [(one.index, one.reason, one.field) for one in receipt.rejected] == [
        (4, "missing", "data.task_id"),
        (9, "no time zone", None),
    ]


async def test_422_rejects_all() -> None:
    sink = Service(lambda batch, _: result(0, 0, (0, "a", None), (1, "b", None), status=422)).sink()
    assert [one.reason for one in (await sink.write(lines(2))).rejected] == ["a", "b"]


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, text="<html>welcome</html>"),
        httpx2.Response(200, json={"ok": True}),
        httpx2.Response(200, json=[]),
        httpx2.Response(200, content=b""),
        httpx2.Response(422, json={"detail": "a framework's own"}),
        result(1),
        result(3),
        result(2, 3),
        result(1, 0, (2, "x", None)),
        result(1, 0, (-1, "x", None)),
        result(0, 0, (0, "x", None), (0, "x", None)),
        result(2, -1),
    ],
)
async def test_an_answer_that_does_not_account_for_each_event_settles_none(answer: httpx2.Response) -> None:
    with pytest.raises(OperatorError, match="no ingestion service"):
        await Service(lambda *_: answer).sink().write(lines(2))


async def test_413_halves_until_it_fits_and_the_size_is_remembered() -> None:
    service = Service(
        lambda batch, _: result(len(batch)) if len(batch) <= 3 else httpx2.Response(413, text="too large")
    )
    sink = service.sink()
    assert (await sink.write(lines(10))).rejected == []
    assert [len(batch) for batch in service.batches] == [10, 5, 2, 3, 2, 3]
    assert [one["n"] for batch in service.batches if len(batch) <= 3 for one in batch] == list(range(10))
    service.batches.clear()
    await sink.write(lines(10))
    assert [len(batch) for batch in service.batches] == [2, 3, 2, 3]


async def test_an_event_that_alone_is_too_large_is_rejected() -> None:
    large = b'{"n":"large"}'
    service = Service(lambda batch, _: httpx2.Response(413) if {"n": "large"} in batch else result(len(batch)))
    receipt = await service.sink().write([*lines(3), large, *lines(3)])
    assert [(one.index, one.reason) for one in receipt.rejected] == [(3, "too large for the ingestion service")]
    assert sum(len(batch) for batch in service.batches if {"n": "large"} not in batch) == 6


async def test_400_is_isolated_where_the_service_says_it() -> None:
    bad = b'{"n":"bad"}'
    service = Service(lambda batch, _: problem(400) if {"n": "bad"} in batch else result(len(batch)))
    receipt = await service.sink().write([*lines(4), bad])
    assert [(one.index, one.reason) for one in receipt.rejected] == [(4, "no JSON for the ingestion service")]
    proxy = Service(lambda *_: httpx2.Response(400, text="The plain HTTP request was sent to HTTPS port"))
    with pytest.raises(OperatorError, match="400"):
        await proxy.sink().write(lines(4))


async def test_what_is_settled_of_a_batch_is_not_sent_again_when_the_rest_has_to_wait() -> None:
    answers = iter([413, 200, 503, 200])

    def answer(batch: list[Any], request: httpx2.Request) -> httpx2.Response:
        status = next(answers)
        return result(len(batch) - 1, 0, (0, "bad", None)) if status == 200 else httpx2.Response(status)

    service = Service(answer)
    sink, batch = service.sink(), lines(4)
    with pytest.raises(TransientError):
        await sink.write(batch)
    receipt = await sink.write(batch)
    assert [[one["n"] for one in sent] for sent in service.batches] == [[0, 1, 2, 3], [0, 1], [2, 3], [2, 3]]
    assert [one.index for one in receipt.rejected] == [0, 2]
    assert receipt.duplicates == 0


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_what_passes_is_tried_again(status: int) -> None:
    with pytest.raises(TransientError) as raised:
        await Service(lambda *_: problem(status)).sink().write(lines(1))
    assert raised.value.retry_after is None


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("7", 7, 7), (" 7 ", 7, 7), ("0", 0, 0), ("soon", None, None), ("-5", None, None), ("", None, None),
     (format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True), 3000, 3600),
     (format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True), 0, 0)],
)  # fmt: skip
async def test_retry_after_reaches_the_worker(header: str, least: float | None, most: float | None) -> None:
    with pytest.raises(TransientError) as raised:
        await Service(lambda *_: problem(429, **{"retry-after": header})).sink().write(lines(1))
    seconds = raised.value.retry_after
    assert seconds is None if least is None or most is None else least <= (seconds or 0.0) <= most


async def test_the_worker_waits_as_long_as_it_was_asked_to_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([problem(503, **{"retry-after": "7"}), problem(429, **{"retry-after": "999999"}), result(1)])
    delays: list[float] = []

    async def sleep(worker: AnalyticsWorker, seconds: float) -> bool:
        delays.append(seconds)
        await asyncio.sleep(0)
        return False

    monkeypatch.setattr(AnalyticsWorker, "_sleep", sleep)
    client = AnalyticsClient(service="shop")
    assert client.track(events.TaskCreated(task_id=uuid4(), user_id="me", command="build"))
    async with AnalyticsWorker(client, Service(lambda *_: next(answers)).sink()):
        assert await client.aflush(20)
    waits = [seconds for seconds in delays if seconds > 5 and seconds != client.settings.flush_interval]
    assert any(7 <= seconds < 8 for seconds in waits)
    assert any(300 <= seconds < 331 for seconds in waits)
    await client.aclose()


@pytest.mark.parametrize(
    ("status", "cure"),
    [(401, "ANALYTICS_TOKEN"), (403, "token"), (404, "URL"), (405, "URL"), (415, "JSON"), (301, "redirects"),
     (307, "redirects"), (418, "URL"), (204, "URL")],
)  # fmt: skip
async def test_what_somebody_must_mend_is_told(status: int, cure: str) -> None:
    with pytest.raises(OperatorError, match=cure) as raised:
        await Service(lambda *_: httpx2.Response(status)).sink(token="s3cret").write(lines(1))
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx2.ConnectError("refused"), TransientError),
        (httpx2.ReadError(""), TransientError),
        (httpx2.RemoteProtocolError("Server disconnected"), TransientError),
        (httpx2.ReadTimeout(""), TransientError),
        (httpx2.PoolTimeout(""), TransientError),
        (ConnectionResetError(), TransientError),
        (httpx2.UnsupportedProtocol(""), OperatorError),
        (httpx2.DecodingError(""), OperatorError),
    ],
)
async def test_a_failed_connection_is_tried_again(error: Exception, kind: type[Exception]) -> None:
    def fail(*_: Any) -> Any:
        raise error

    with pytest.raises(kind):
        await Service(fail).sink().write(lines(1))


async def test_a_certificate_that_is_not_trusted_is_told() -> None:
    def fail(*_: Any) -> Any:
        raise httpx2.ConnectError("handshake") from ssl.SSLCertVerificationError("self-signed")

    with pytest.raises(OperatorError, match="certificate"):
        await Service(fail).sink().write(lines(1))


@pytest.mark.parametrize(
    "url",
    ["http://", "http:///path", "ftp://s3cret", "s3cret", None, 5,
     "http://host:port", "http://[::1", "http://user:s3cret@host", "http://s3cret@host",
     "http://host/?token=s3cret", "http://host/#s3cret"],
)  # fmt: skip
def test_a_wrong_url_is_told_without_repeating_it(url: Any) -> None:
    with pytest.raises(ConfigError, match=r"http://host:8094$|ANALYTICS_TOKEN$") as raised:
        HttpSink(url)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("token", ["a b", "a\r\nX: y", "ü", 5])
def test_a_token_that_no_header_can_hold_is_told(token: Any) -> None:
    with pytest.raises(ConfigError):
        HttpSink("http://host", token=token)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [("http://host", "http://host/events/batch"), ("http://host/a/", "http://host/a/events/batch"),
     ("https://host:1/events/batch", "https://host:1/events/batch"), ("http://[::1]:5", "http://[::1]:5/events/batch")],
)  # fmt: skip
def test_a_url_names_the_service(url: str, endpoint: str) -> None:
    assert HttpSink.from_url(url)._url == endpoint
    assert isinstance(sink_from_url(url, token="t"), HttpSink)


def test_without_the_extra_the_package_works_and_http_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; sys.modules['httpx2'] = None\n"
        "from asgi_analytics import AnalyticsClient, errors\n"
        "AnalyticsClient.from_url('memory://', service='s').close()\n"
        "try: AnalyticsClient.from_url('http://host', service='s')\n"
        "except errors.MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SOURCE)
    assert done.stdout == "httpx2 is not installed: pip install 'asgi-analytics[http]'\n"
    monkeypatch.setattr(http_sink, "httpx2", None)
    with pytest.raises(errors.MissingExtra):
        HttpSink("http://host")


def test_several_loops_one_after_the_other() -> None:
    service = Service(stored)
    sink = service.sink()
    for _ in range(3):
        asyncio.run(_write_and_close(sink))
    assert len(service.requests) == 3


async def _write_and_close(sink: HttpSink) -> None:
    await sink.write(lines(1))
    await sink.aclose()
