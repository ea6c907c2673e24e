"""The two endpoints of the collector, in plain ASGI, so that it can be mounted in any application."""

from __future__ import annotations

import asyncio
import contextlib
from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.instrumentation.requests.request import captured_request
from asgi_analytics.traffic import host_of
from asgi_analytics.web.collector.messages import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asgi_analytics.client import AnalyticsClient
    from asgi_analytics.instrumentation.page_views import PageViews
    from asgi_analytics.web.collector.messages import Messages
    from asgi_analytics.web.collector.rate import RateLimit

MAX_BODY = 4_096
"""Bytes of a body that are read."""
BODY_SECONDS = 10.0
"""How long a body may take to arrive."""
SCRIPT_SECONDS = 3_600
"""How long a browser may keep the script."""


class _Refusal(Exception):
    def __init__(self, status: int, detail: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


class Collector:
    """Answers ``GET …/s.js`` with the script, and puts what is sent to ``POST …/e`` into the client's queue."""

    def __init__(self, client: AnalyticsClient, messages: Messages, page_views: PageViews, rate: RateLimit) -> None:
        self._client = client
        self._messages = messages
        self._page_views = page_views
        self._rate = rate
        # With and without the first page view, which the middleware counts if it is there.
        self._scripts = {is_silent: _script(is_silent) for is_silent in (False, True)}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request; a lifespan is begun and ended, a WebSocket connection refused."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        name, method = scope["path"].rpartition("/")[2], scope["method"]
        try:
            if name == "s.js":
                if method not in ("GET", "HEAD"):
                    raise _Refusal(405, "the script is for GET", ((b"allow", b"GET, HEAD"),))
                await self._send_script(scope, send)
            elif name == "e":
                if method != "POST":
                    raise _Refusal(405, "events come by POST", ((b"allow", b"POST"),))
                await self._collect(scope, receive, send)
            else:
                raise _Refusal(404, "there are s.js and e here")
        except _Refusal as refusal:
            problem = {"status": refusal.status, "detail": refusal.detail}
            kind = (b"content-type", b"application/problem+json")
            await _respond(send, refusal.status, (kind, *refusal.headers), msgspec.json.encode(problem))

    async def _send_script(self, scope: Any, send: Any) -> None:
        request = captured_request()
        script, etag = self._scripts[request is not None and request.plan.page_views is not None]
        headers = (
            (b"content-type", b"text/javascript; charset=utf-8"),
            (b"cache-control", b"public, max-age=%d" % SCRIPT_SECONDS),
            (b"etag", etag),
            (b"x-content-type-options", b"nosniff"),
        )
        if dict(scope["headers"]).get(b"if-none-match") == etag:
            await _respond(send, 304, headers)
        else:
            await _respond(send, 200, headers, script)

    async def _collect(self, scope: Any, receive: Any, send: Any) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if not _is_same_origin(headers):
            raise _Refusal(403, "events come from pages of the same origin only")
        length = headers.get(b"content-length", b"")
        if length.isdigit() and (len(length) > 9 or int(length) > MAX_BODY):
            raise _too_large()
        request = captured_request()
        views = (request and request.plan.page_views) or self._page_views
        if not self._rate.allows(views.address_of(scope), headers.get(b"user-agent", b"")):
            raise _Refusal(429, "too many events: wait a minute", ((b"retry-after", b"60"),))
        body = await _read(receive)
        if body is None:  # the browser has left
            return
        try:
            event = self._messages.event(body, _host_in(headers))
        except InvalidMessage as error:
            raise _Refusal(422, str(error)) from None
        caller = None if request is None else request.caller
        if caller is None:
            caller = views.caller(scope, headers, self._client.intake.now())
        self._client.intake.event(event, caller)
        await _respond(send, 204)


def _script(is_silent: bool) -> tuple[bytes, bytes]:
    text = resources.files("asgi_analytics.web.collector").joinpath("script.js").read_bytes()
    text = text.replace(b"__SILENT__", b"1" if is_silent else b"0")
    return text, b'"%b"' % sha256(text).hexdigest()[:16].encode()


def _is_same_origin(headers: Mapping[bytes, bytes]) -> bool:
    """Tell whether a browser says that a page of the same origin sends this, by either of the two headers."""
    if headers.get(b"sec-fetch-site") == b"same-origin":
        return True
    origin, host = headers.get(b"origin", b"").lower(), headers.get(b"host", b"").lower()
    scheme, found, place = origin.partition(b"://")
    port = {b"http": b":80", b"https": b":443"}.get(scheme)
    if not found or port is None or not host:
        return False
    return place.removesuffix(port) == host.removesuffix(port)


def _host_in(headers: Mapping[bytes, bytes]) -> str | None:
    return host_of(f"http://{headers.get(b'host', b'').decode('latin-1')}")


def _too_large() -> _Refusal:
    return _Refusal(413, f"an event has at most {MAX_BODY} bytes", ((b"connection", b"close"),))


async def _read(receive: Any) -> bytes | None:
    """Return the body; None if the browser has left. Raises `_Refusal` 408 and 413."""
    body = b""
    try:
        async with _within(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += bytes(message.get("body", b""))
                if len(body) > MAX_BODY:
                    raise _too_large()
                if not message.get("more_body"):
                    return body
    except TimeoutError:
        raise _Refusal(408, "the body took too long", ((b"connection", b"close"),)) from None


def _within(seconds: float) -> contextlib.AbstractAsyncContextManager[object]:
    """Limit the time of a block; on trio only the server does."""
    return contextlib.nullcontext() if asyncio._get_running_loop() is None else asyncio.timeout(seconds)


async def _respond(send: Any, status: int, headers: tuple[tuple[bytes, bytes], ...] = (), body: bytes = b"") -> None:
    if not any(name == b"cache-control" for name, _ in headers):
        headers = (*headers, (b"cache-control", b"no-store"))
    if status not in (204, 304):
        headers = (*headers, (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def _live(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
