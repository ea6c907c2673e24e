"""A server and a few applications of three lines, for tests that speak ASGI by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from asgi_analytics import AnalyticsMiddleware
from asgi_analytics.testing import CapturedEvents

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def http_scope(path: str = "/", method: str = "GET", **more: Any) -> dict[str, Any]:
    """Return the scope of a request as a server makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver")],
        "client": ("127.0.0.1", 1234),
        "server": ("testserver", 80),
        "state": {},
    } | more


def websocket_scope(path: str = "/", **more: Any) -> dict[str, Any]:
    """Return the scope of a WebSocket connection."""
    scope = http_scope(path) | {"type": "websocket", "scheme": "ws", "subprotocols": []} | more
    del scope["method"]
    return scope


class Server:
    """Gives messages to an application and keeps what it sends; after the response it tells of the client's leaving."""

    def __init__(self, incoming: Iterable[Any] = ()) -> None:
        self.incoming: list[Message] = list(incoming) or [{"type": "http.request", "body": b"", "more_body": False}]
        self.sent: list[Message] = []
        self.is_complete = asyncio.Event()

    async def receive(self) -> Message:
        if self.incoming:
            message = self.incoming.pop(0)
            if message["type"] == "http.disconnect":
                self.is_complete.set()  # a server repeats it, as the ASGI specification says
            return message
        await self.is_complete.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.is_complete.set()

    @property
    def status(self) -> int | None:
        """The status that was sent; None without a response."""
        return next((m["status"] for m in self.sent if m["type"] == "http.response.start"), None)

    @property
    def body(self) -> bytes:
        """The whole body that was sent."""
        return b"".join(m.get("body", b"") for m in self.sent if m["type"] == "http.response.body")


async def run(app: App, scope: Scope, incoming: Iterable[Any] = ()) -> list[Message]:
    """Run one request through an application and return what it sent."""
    server = Server(incoming)
    await app(scope, server.receive, server.send)
    return server.sent


async def get(app: App, path: str = "/", **more: Any) -> list[Message]:
    """Run a GET through an application and return what it sent."""
    return await run(app, http_scope(path, **more))


def start(status: int = 200, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [], **more}


def body(data: bytes = b"hello", more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more_body}


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body())


def wrapped(app: App, analytics: CapturedEvents, **options: Any) -> AnalyticsMiddleware:
    """Return an application with the middleware around it."""
    return AnalyticsMiddleware(app, client=analytics.client, **options)


def the_request(analytics: CapturedEvents) -> dict[str, Any]:
    """Return the data of the only request."""
    [event] = analytics.of("api_request")
    return event.data


def sending(*messages: Message, then: BaseException | None = None) -> App:
    """Return an application that sends messages and raises, if ``then`` says so."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if then is not None:
            raise then

    return app
